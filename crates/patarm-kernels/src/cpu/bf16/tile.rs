//! A panel times a column of tiles: the innermost loops.

use super::{Form, PANEL_VECTORS, ROWS, TILE};
use crate::backend::Update;
use crate::cpu::ahead::Ahead;
use crate::cpu::each_row::each_row;
use crate::cpu::simd::{Kernel, LANES, Lanes, Simd};
use crate::cpu::threads::Rectangles;

/// Sums of up to eight rows with a panel.
type Sums<V, const R: usize> = [[V; PANEL_VECTORS]; R];
/// One inner index (or pair of them) of a panel.
type PanelRow = [Lanes; PANEL_VECTORS];

/// A packed operand: vectors and how they are stored.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    pub(super) lanes: &'a [Lanes],
    pub(super) form: Form,
}

/// `out (+)= scale · tiles · panel`.
#[derive(Clone, Copy)]
pub(super) struct PanelProduct<'a> {
    /// `[tile][depth]`.
    pub(super) tiles: Packed<'a>,
    /// `[depth][PANEL_VECTORS]`.
    pub(super) panel: Packed<'a>,
    pub(super) scale: f32,
    pub(super) update: Update,
    pub(super) out: &'a Rectangles<'a>,
    /// Rows of the tiles, the first row and the first column of the result.
    pub(super) rows: usize,
    pub(super) first: (usize, usize),
    /// Vectors of one block of the inner dimension; a block is summed by itself.
    pub(super) block: usize,
}

impl Kernel for PanelProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let depth = self.tiles.lanes.len() / self.rows.div_ceil(TILE);
        for (n, tile) in self.tiles.lanes.chunks_exact(depth).enumerate() {
            for half in (0..TILE).step_by(ROWS) {
                let row = n * TILE + half;
                match self.rows.saturating_sub(row) {
                    0 => {}
                    1 => self.rows_from::<S, 1>(simd, tile, (row, half)),
                    2 => self.rows_from::<S, 2>(simd, tile, (row, half)),
                    3 | 4 => self.rows_from::<S, 4>(simd, tile, (row, half)),
                    _ => self.rows_from::<S, ROWS>(simd, tile, (row, half)),
                }
            }
        }
    }
}

impl PanelProduct<'_> {
    #[inline(always)]
    fn rows_from<S: Simd, const R: usize>(
        &self,
        simd: S,
        tile: &[Lanes],
        (row, half): (usize, usize),
    ) {
        let panel = self.panel.lanes.as_chunks::<PANEL_VECTORS>().0;
        match (self.tiles.form, self.panel.form) {
            (Form::Wide, Form::Paired) => {
                self.write(simd, row, widening::<S, R>(simd, tile, panel, half));
            }
            (Form::Wide, _) => self.write(simd, row, wide::<S, R>(simd, tile, panel, half)),
            (Form::Paired, _) => self.write(simd, row, pairs::<S, R>(simd, tile, panel, half)),
            (Form::Single, _) => {
                let mut update = self.update;
                let passes = (row / ROWS, self.rows.div_ceil(ROWS));
                let ahead = Ahead::new(passes, panel.len());
                for (tile, panel) in tile.chunks(self.block).zip(panel.chunks(self.block)) {
                    let sums = single::<S, R>(simd, tile, (panel, ahead), half);
                    self.write_with(simd, row, sums, update);
                    update = Update::Add;
                }
            }
        }
    }

    #[inline(always)]
    fn write<S: Simd, const R: usize>(&self, simd: S, row: usize, sums: Sums<S::V, R>) {
        self.write_with(simd, row, sums, self.update);
    }

    #[inline(always)]
    fn write_with<S: Simd, const R: usize>(
        &self,
        simd: S,
        row: usize,
        sums: Sums<S::V, R>,
        update: Update,
    ) {
        let limit = self.rows - row;
        each_row!(R, r => if r < limit {
            self.write_row(simd, self.first.0 + row + r, sums[r], update);
        });
    }

    #[inline(always)]
    #[expect(unsafe_code, reason = "tasks write disjoint rectangles")]
    fn write_row<S: Simd>(&self, simd: S, row: usize, sums: [S::V; PANEL_VECTORS], update: Update) {
        // SAFETY: a task is alone with its rows and columns of the result.
        let out = unsafe { self.out.row(row, self.first.1, PANEL_VECTORS * LANES) };
        let scale = simd.splat(self.scale);
        if let Some(out) = out.first_chunk_mut::<{ PANEL_VECTORS * LANES }>() {
            let [a, b, c] = out.as_chunks_mut::<LANES>().0 else { return };
            simd.store(scaled(simd, (sums[0], scale), (a, update)), a);
            simd.store(scaled(simd, (sums[1], scale), (b, update)), b);
            simd.store(scaled(simd, (sums[2], scale), (c, update)), c);
        } else {
            for (out, sum) in out.chunks_mut(LANES).zip(sums) {
                simd.store_part(scaled(simd, (sum, scale), (out, update)), out);
            }
        }
    }
}

/// `scale · sum`, added to what was there before where asked for.
#[inline(always)]
fn scaled<S: Simd>(
    simd: S,
    (sum, scale): (S::V, S::V),
    (before, update): (&[f32], Update),
) -> S::V {
    match update {
        Update::Set => simd.mul(sum, scale),
        Update::Add => simd.mul_add(sum, scale, simd.load_part(before, 0.0)),
    }
}

/// `sums[r] += left[r] · right`.
#[inline(always)]
fn add<S: Simd, const R: usize>(
    simd: S,
    sums: &mut Sums<S::V, R>,
    (left, half): (&Lanes, usize),
    right: [S::V; PANEL_VECTORS],
) {
    let left = &left[half..][..R];
    each_row!(R, r => {
        let left = simd.splat(left[r]);
        sums[r][0] = simd.mul_add(left, right[0], sums[r][0]);
        sums[r][1] = simd.mul_add(left, right[1], sums[r][1]);
        sums[r][2] = simd.mul_add(left, right[2], sums[r][2]);
    });
}

#[inline(always)]
fn load<S: Simd>(simd: S, row: &PanelRow) -> [S::V; PANEL_VECTORS] {
    [simd.load(&row[0]), simd.load(&row[1]), simd.load(&row[2])]
}

/// Single precision, in order.
#[inline(always)]
fn single<S: Simd, const R: usize>(
    simd: S,
    tile: &[Lanes],
    (panel, ahead): (&[PanelRow], Ahead),
    half: usize,
) -> Sums<S::V, R> {
    let mut sums = [[simd.splat(0.0); PANEL_VECTORS]; R];
    for (n, (left, right)) in tile.iter().zip(panel).enumerate() {
        if ahead.asks(n) {
            let row = std::ptr::from_ref(right).wrapping_add(ahead.distance).cast::<Lanes>();
            for n in 0..PANEL_VECTORS {
                simd.prefetch(row.wrapping_add(n));
            }
        }
        add::<S, R>(simd, &mut sums, (left, half), load(simd, right));
    }
    sums
}

/// Both operands wide: within a pair, the second number first.
#[inline(always)]
fn wide<S: Simd, const R: usize>(
    simd: S,
    tile: &[Lanes],
    panel: &[PanelRow],
    half: usize,
) -> Sums<S::V, R> {
    let mut sums = [[simd.splat(0.0); PANEL_VECTORS]; R];
    for (left, right) in tile.as_chunks::<2>().0.iter().zip(panel.as_chunks::<2>().0) {
        add::<S, R>(simd, &mut sums, (&left[1], half), load(simd, &right[1]));
        add::<S, R>(simd, &mut sums, (&left[0], half), load(simd, &right[0]));
    }
    sums
}

/// A wide left operand and pairs on the right, widened in registers.
#[inline(always)]
fn widening<S: Simd, const R: usize>(
    simd: S,
    tile: &[Lanes],
    panel: &[PanelRow],
    half: usize,
) -> Sums<S::V, R> {
    let mut sums = [[simd.splat(0.0); PANEL_VECTORS]; R];
    for (left, right) in tile.as_chunks::<2>().0.iter().zip(panel) {
        let [a, b, c] = load(simd, right);
        let second = [simd.high_of_pair(a), simd.high_of_pair(b), simd.high_of_pair(c)];
        add::<S, R>(simd, &mut sums, (&left[1], half), second);
        let first = [simd.low_of_pair(a), simd.low_of_pair(b), simd.low_of_pair(c)];
        add::<S, R>(simd, &mut sums, (&left[0], half), first);
    }
    sums
}

/// Pairs on both sides.
#[inline(always)]
fn pairs<S: Simd, const R: usize>(
    simd: S,
    tile: &[Lanes],
    panel: &[PanelRow],
    half: usize,
) -> Sums<S::V, R> {
    let mut sums = [[simd.splat(0.0); PANEL_VECTORS]; R];
    for (left, right) in tile.iter().zip(panel) {
        let right = load(simd, right);
        let left = &left[half..][..R];
        each_row!(R, r => {
            let left = simd.splat(left[r]);
            sums[r][0] = simd.dot_pairs(left, right[0], sums[r][0]);
            sums[r][1] = simd.dot_pairs(left, right[1], sums[r][1]);
            sums[r][2] = simd.dot_pairs(left, right[2], sums[r][2]);
        });
    }
    sums
}

/// A panel of pairs as one of wide numbers.
pub(super) struct Widen<'a> {
    pub(super) from: &'a [Lanes],
    pub(super) to: &'a mut [Lanes],
}

impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let from = self.from.as_chunks::<PANEL_VECTORS>().0;
        let to = self.to.as_chunks_mut::<PANEL_VECTORS>().0.as_chunks_mut::<2>().0;
        for (from, to) in from.iter().zip(to) {
            for n in 0..PANEL_VECTORS {
                let pair = simd.load(&from[n]);
                simd.store(simd.low_of_pair(pair), &mut to[0][n]);
                simd.store(simd.high_of_pair(pair), &mut to[1][n]);
            }
        }
    }
}
