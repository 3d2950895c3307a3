//! A strip of the weight times tiles of rows: the innermost loops.

use super::activations::{EXTRAS, SHIFT, START, STEP, TILE};
use super::{CountFrom, Form, Numbers, Packed};
use crate::backend::Update;
use crate::cpu::ahead::Ahead;
use crate::cpu::each_row::each_row;
use crate::cpu::simd::dots::{DotKernel, Dots, Vector};
use crate::cpu::simd::{LANES, Simd};
use crate::cpu::threads::Rectangles;

/// `out (+)= scale · rows · stripᵀ` for whole tiles of rounded rows.
#[derive(Clone, Copy)]
pub(super) struct StripProduct<'a> {
    pub(super) weight: &'a Packed,
    pub(super) strip: usize,
    /// `[tile][block][TILE][record]`.
    pub(super) tiles: &'a [f32],
    pub(super) scale: f32,
    pub(super) update: Update,
    pub(super) out: &'a Rectangles<'a>,
    /// Rows of the tiles, the first row and the first column of the result.
    pub(super) rows: usize,
    pub(super) first: (usize, usize),
}

/// One block of a tile of rows.
type Records<const RECORD: usize> = [[f32; RECORD]; TILE];

impl DotKernel for StripProduct<'_> {
    #[inline(always)]
    fn run<D: Dots>(self, dots: D) {
        match self.weight.form {
            Form::Nibbles => self.tiles::<D, true, 8, { 8 + EXTRAS }>(dots),
            Form::Bytes32 => self.tiles::<D, false, 8, { 8 + EXTRAS }>(dots),
            Form::Bytes16 => self.tiles::<D, false, 4, { 4 + EXTRAS }>(dots),
        }
    }
}

impl StripProduct<'_> {
    #[inline(always)]
    fn tiles<D: Dots, const NIBBLES: bool, const QUADS: usize, const RECORD: usize>(
        &self,
        dots: D,
    ) {
        let records = self.tiles.as_chunks::<RECORD>().0.as_chunks::<TILE>().0;
        for (n, tile) in records.chunks_exact(self.weight.blocks()).enumerate() {
            let rows = TILE.min(self.rows - n * TILE);
            let mut first = 0;
            while first < rows {
                let at = (tile, n * TILE, first);
                first += match (rows - first).min(D::ROWS) {
                    1 => self.block_of_rows::<D, NIBBLES, QUADS, RECORD, 1>(dots, at),
                    2 => self.block_of_rows::<D, NIBBLES, QUADS, RECORD, 2>(dots, at),
                    3 | 4 => self.block_of_rows::<D, NIBBLES, QUADS, RECORD, 4>(dots, at),
                    _ => self.block_of_rows::<D, NIBBLES, QUADS, RECORD, TILE>(dots, at),
                };
            }
        }
    }

    /// `R` rows of a tile from row `first` on; returns `R`.
    #[inline(always)]
    fn block_of_rows<
        D: Dots,
        const NIBBLES: bool,
        const QUADS: usize,
        const RECORD: usize,
        const R: usize,
    >(
        &self,
        dots: D,
        (tile, row, first): (&[Records<RECORD>], usize, usize),
    ) -> usize {
        let simd = dots.simd();
        let mut sums = [simd.splat(0.0); R];
        let passes = ((row + first) / TILE, self.rows.div_ceil(TILE));
        let ahead = Ahead::new(passes, self.weight.lines(self.strip, 0).len() * tile.len());
        for (block, records) in tile.iter().enumerate() {
            let records = &records[first..][..R];
            let ints = self.integers::<D, NIBBLES, QUADS, RECORD, R>(dots, (block, ahead), records);
            let scale = self.numbers(dots, &self.weight.scales, block);
            each_row!(R, r => {
                let factor = simd.mul(scale, simd.splat(records[r][QUADS + STEP]));
                sums[r] = dots.fused(factor, dots.to_floats(ints[r]), sums[r]);
            });
            if let CountFrom::Each(offsets) = &self.weight.from {
                let offset = self.numbers(dots, offsets, block);
                each_row!(R, r => {
                    let shift = simd.splat(records[r][QUADS + SHIFT]);
                    sums[r] = dots.fused(offset, shift, sums[r]);
                });
            }
        }
        let limit = self.rows - row - first;
        each_row!(R, r => if r < limit {
            self.write_row(dots, self.first.0 + row + first + r, sums[r]);
        });
        R
    }

    /// `Σ (q − centre) i` of a block, for every output and row.
    #[inline(always)]
    fn integers<
        D: Dots,
        const NIBBLES: bool,
        const QUADS: usize,
        const RECORD: usize,
        const R: usize,
    >(
        &self,
        dots: D,
        (block, ahead): (usize, Ahead),
        records: &[[f32; RECORD]],
    ) -> [D::Ints; R] {
        let records = &records[..R];
        let mut ints = [dots.splat(0); R];
        each_row!(R, r => {
            ints[r] = dots.splat(records[r][QUADS + START].to_bits().cast_signed());
        });
        // One quad of every row at a time, in loops that are not unrolled: the compiler
        // would gather quads into vectors first, at half the speed.
        let lines = self.weight.lines(self.strip, block);
        // Blocks are small: which of their lines a pass asks for is the same in all.
        for (n, line) in lines.iter().enumerate() {
            if ahead.asks(n) {
                dots.prefetch(std::ptr::from_ref(line).wrapping_add(ahead.distance));
            }
        }
        for (n, line) in lines.iter().enumerate() {
            if NIBBLES {
                let line = dots.low(dots.load(line));
                each_row!(R, r => ints[r] = dots.dot::<true>(ints[r], line, quad(&records[r], n)));
            } else {
                let line = dots.load(line);
                each_row!(R, r => ints[r] = dots.dot::<false>(ints[r], line, quad(&records[r], n)));
            }
        }
        if NIBBLES {
            for (n, line) in lines.iter().enumerate() {
                let line = dots.high(dots.load(line));
                let n = n + QUADS / 2;
                each_row!(R, r => ints[r] = dots.dot::<true>(ints[r], line, quad(&records[r], n)));
            }
        }
        ints
    }

    #[inline(always)]
    fn numbers<D: Dots>(&self, dots: D, numbers: &Numbers, block: usize) -> Vector<D> {
        let at = self.strip * self.weight.blocks() + block;
        match numbers {
            Numbers::Half(halves) => dots.half(&halves[at].0),
            Numbers::Single(singles) => dots.simd().load(&singles[at].0),
        }
    }

    #[inline(always)]
    #[expect(unsafe_code, reason = "tasks write disjoint rectangles")]
    fn write_row<D: Dots>(&self, dots: D, row: usize, sum: Vector<D>) {
        let simd = dots.simd();
        // SAFETY: a task is alone with its rows and columns of the result.
        let out = unsafe { self.out.row(row, self.first.1, LANES) };
        let scale = simd.splat(self.scale);
        let value = match self.update {
            Update::Set => simd.mul(sum, scale),
            Update::Add => dots.fused(sum, scale, simd.load_part(out, 0.0)),
        };
        simd.store_part(value, out);
    }
}

/// The four bytes of a quad.
#[inline(always)]
fn quad<const RECORD: usize>(record: &[f32; RECORD], n: usize) -> i32 {
    record[n].to_bits().cast_signed()
}
