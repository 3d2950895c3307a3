//! The pieces both directions of attention are made of: blocks of keys gathered
//! into panels, and the small product they are multiplied by.
//!
//! A *panel* is a matrix whose rows are one vector wide, stored row by row. Keys
//! appear in panels in two ways: *across* (a row per dimension, a lane per key;
//! scores come out a vector of keys at a time) and *along* (a row per key, a lane
//! per dimension; sums over keys come out a vector of dimensions at a time).
//! Missing dimensions are zero; lanes and rows beyond the last key are unspecified
//! and have to be masked.

use crate::attention_plan::{AttentionShape, KEY_BLOCK, QueryRun};
use crate::cpu::simd::{Half, LANES, Lanes, Simd};

/// Rows of a product that share the loads of a panel.
pub(crate) const GROUP: usize = 4;
/// Panels that hold the keys of a block.
pub(crate) const KEY_PANELS: usize = KEY_BLOCK / LANES;

/// Panels that hold `dim` dimensions.
pub(crate) fn dim_panels(dim: usize) -> usize {
    dim.div_ceil(LANES)
}

/// Consecutive slots of one block of a run's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) slot: usize,
    /// First key, counted within the block.
    pub(crate) key: usize,
    pub(crate) len: usize,
}

/// Where the keys of block `block` lie, in position order; nothing beyond the last block.
pub(crate) fn stretches(run: &QueryRun, block: usize) -> impl Iterator<Item = Stretch> {
    let (start, end) = (block * KEY_BLOCK, run.visible_keys().min((block + 1) * KEY_BLOCK));
    let mut position = 0;
    run.spans.iter().filter_map(move |span| {
        let (from, to) = (start.max(position), end.min(position + span.len));
        let slot = span.slot + from.saturating_sub(position);
        position += span.len;
        (from < to).then(|| Stretch { slot, key: from - start, len: to - from })
    })
}

/// The slots of one block of a run's keys, in position order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockSlots {
    slots: [usize; KEY_BLOCK],
    len: usize,
}

impl BlockSlots {
    pub(crate) fn empty() -> Self {
        Self { slots: [0; KEY_BLOCK], len: 0 }
    }

    /// Block `block` of `run`.
    pub(crate) fn of(run: &QueryRun, block: usize) -> Self {
        let mut found = Self::empty();
        for Stretch { slot, len, .. } in stretches(run, block) {
            for slot in slot..slot + len {
                found.slots[found.len] = slot;
                found.len += 1;
            }
        }
        found
    }

    /// The slots relative to `first`, which is not after any of them.
    pub(crate) fn counted_from(mut self, first: usize) -> Self {
        self.slots[..self.len].iter_mut().for_each(|slot| *slot -= first);
        self
    }

    pub(crate) fn as_slice(&self) -> &[usize] {
        &self.slots[..self.len]
    }
}

/// Blocks that hold the keys any query of the run sees.
pub(crate) fn num_blocks(run: &QueryRun) -> usize {
    run.visible_keys().div_ceil(KEY_BLOCK)
}

/// Keys of block `block` that query `j` of the run sees.
pub(crate) fn seen_in_block(run: &QueryRun, j: usize, block: usize) -> usize {
    run.keys_seen(j).saturating_sub(block * KEY_BLOCK).min(KEY_BLOCK)
}

/// Where one key/value head lies in the tables, and which query heads read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadView {
    pub(crate) kv_head: usize,
    pub(crate) dim: usize,
    /// Query heads that share the key head.
    pub(crate) sharing: usize,
    query_width: usize,
    key_width: usize,
    heads: usize,
}

impl HeadView {
    pub(crate) fn new(shape: AttentionShape, kv_head: usize) -> Self {
        Self {
            kv_head,
            dim: shape.head_dim,
            sharing: shape.heads / shape.kv_heads,
            query_width: shape.heads * shape.head_dim,
            key_width: shape.kv_heads * shape.head_dim,
            heads: shape.heads,
        }
    }

    /// Start of row `row` (query-major, then head) of the queries from `query` on.
    pub(crate) fn query_start(&self, query: usize, row: usize) -> usize {
        let head = self.kv_head * self.sharing + row % self.sharing;
        (query + row / self.sharing) * self.query_width + head * self.dim
    }

    /// Index of that row in arrays of one number per query and head.
    pub(crate) fn scalar_index(&self, query: usize, row: usize) -> usize {
        let head = self.kv_head * self.sharing + row % self.sharing;
        (query + row / self.sharing) * self.heads + head
    }

    fn key_start(&self, slot: usize) -> usize {
        slot * self.key_width + self.kv_head * self.dim
    }
}

/// Rows of a panel that holds keys across: rows beyond the dimensions are
/// unspecified.
pub(crate) fn across_rows(dim: usize) -> usize {
    dim.next_multiple_of(8)
}

/// Writes a block of `table` across: panel `p`, row `d` holds dimension `d` of keys
/// `16 p ..`.
#[inline(always)]
pub(crate) fn gather_across<S: Simd>(
    simd: S,
    table: &[f32],
    slots: &[usize],
    head: &HeadView,
    panels: &mut [Lanes],
) {
    const ZEROS: [f32; 8] = [0.0; 8];
    let rows = across_rows(head.dim);
    for (octet, slots) in slots.chunks(8).enumerate() {
        let mut keys: [&[f32]; 8] = [&[]; 8];
        for (key, &slot) in keys.iter_mut().zip(slots) {
            *key = &table[head.key_start(slot)..][..head.dim];
        }
        let at = if octet % 2 == 0 { Half::Low } else { Half::High };
        let panel = &mut panels[octet / 2 * rows..][..rows];
        let (squares, _) = panel.as_chunks_mut::<8>();
        for (part, square) in squares.iter_mut().enumerate() {
            let mut ends = [ZEROS; 8];
            if part * 8 + 8 > head.dim {
                for (end, key) in ends.iter_mut().zip(&keys) {
                    let key = key.get(part * 8..).unwrap_or(&[]);
                    end[..key.len()].copy_from_slice(key);
                }
            }
            let mut rows = ends.each_ref();
            for (row, key) in rows.iter_mut().zip(&keys) {
                if let Some(whole) = key.get(part * 8..).and_then(|key| key.first_chunk::<8>()) {
                    *row = whole;
                }
            }
            simd.transpose_8x8(&rows, square, at);
        }
    }
}

/// Distance between panels that hold keys along. One row more than a block has:
/// at a power of two, the parts of a key would compete for one place in the cache.
pub(crate) const ALONG_ROWS: usize = KEY_BLOCK + 1;

/// Writes a block of `table` along: panel `p`, row `j` holds dimensions `16 p ..`
/// of key `j`.
#[inline(always)]
pub(crate) fn gather_along(table: &[f32], slots: &[usize], head: &HeadView, panels: &mut [Lanes]) {
    for (j, &slot) in slots.iter().enumerate() {
        let key = &table[head.key_start(slot)..][..head.dim];
        write_along(key, j, ALONG_ROWS, panels);
    }
}

/// Writes one row of panels of `rows` rows each.
#[inline(always)]
pub(crate) fn write_along(values: &[f32], row: usize, rows: usize, panels: &mut [Lanes]) {
    let (whole, rest) = values.as_chunks::<LANES>();
    for (panel, part) in whole.iter().enumerate() {
        panels[panel * rows + row] = *part;
    }
    if !rest.is_empty() {
        let lanes = &mut panels[whole.len() * rows + row];
        *lanes = [0.0; LANES];
        lanes[..rest.len()].copy_from_slice(rest);
    }
}

/// `sums[r] += Σ_n rows[r][n] · panel[n]`, in order of `n`, one multiply-add each:
/// what a row receives does not depend on the rows beside it.
#[inline(always)]
pub(crate) fn add_products<S: Simd>(
    simd: S,
    rows: [&[f32]; GROUP],
    panel: &[Lanes],
    sums: [S::V; GROUP],
) -> [S::V; GROUP] {
    let mut sums = sums;
    let [a, b, c, d] = rows;
    for ((((values, &a), &b), &c), &d) in panel.iter().zip(a).zip(b).zip(c).zip(d) {
        let values = simd.load(values);
        sums[0] = simd.mul_add(simd.splat(a), values, sums[0]);
        sums[1] = simd.mul_add(simd.splat(b), values, sums[1]);
        sums[2] = simd.mul_add(simd.splat(c), values, sums[2]);
        sums[3] = simd.mul_add(simd.splat(d), values, sums[3]);
    }
    sums
}

/// Panels multiplied at one time where there are registers for it: four rows by two
/// panels are eight chains, which is what two multiply-adds a cycle of four cycles
/// each need to stay busy.
pub(crate) const WIDE: usize = 4;

/// Memory to ask for while something else is multiplied: line `(n, m)` at step `n`.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) start: *const Lanes,
    /// Lines from one step to the next, and from one line of a step to the next.
    pub(crate) strides: (usize, usize),
    /// Steps, and lines of a step; at most [`WIDE`].
    pub(crate) counts: (usize, usize),
}

impl Asked {
    pub(crate) const NOTHING: Self =
        Self { start: std::ptr::null(), strides: (0, 0), counts: (0, 0) };

    #[inline(always)]
    fn ask<S: Simd>(&self, simd: S, step: usize) {
        if step < self.counts.0 {
            let line = self.start.wrapping_add(step * self.strides.0);
            for m in 0..self.counts.1 {
                simd.prefetch(line.wrapping_add(m * self.strides.1));
            }
        }
    }
}

/// Several panels of `height` rows, beginning `stride` rows apart.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub(crate) data: &'a [Lanes],
    pub(crate) height: usize,
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

impl<'a> Panels<'a> {
    /// Panels that follow each other.
    #[inline(always)]
    pub(crate) fn new(data: &'a [Lanes], height: usize, count: usize) -> Self {
        Self { data, height, stride: height, count }
    }

    #[inline(always)]
    fn panel(&self, p: usize) -> &'a [Lanes] {
        &self.data[p * self.stride..][..self.height]
    }

    /// Sets `to[r][p]` to the products of row `r` and panel `p`, times `scale`.
    #[inline(always)]
    pub(crate) fn multiply<S: Simd, const COUNT: usize>(
        &self,
        simd: S,
        rows_and_scale: ([&[f32]; GROUP], S::V),
        to: &mut [[Lanes; COUNT]; GROUP],
    ) {
        self.multiply_asking(simd, Asked::NOTHING, rows_and_scale, to);
    }

    /// [`Panels::multiply`], asking for other memory with the first panels.
    #[inline(always)]
    pub(crate) fn multiply_asking<S: Simd, const COUNT: usize>(
        &self,
        simd: S,
        mut asked: Asked,
        (rows, scale): ([&[f32]; GROUP], S::V),
        to: &mut [[Lanes; COUNT]; GROUP],
    ) {
        let zero = [simd.splat(0.0); GROUP];
        let mut p = 0;
        while S::MANY_REGISTERS && p + WIDE <= self.count {
            let sums = add_wide(simd, rows, (self.panels(p), asked), [zero; WIDE]);
            asked = Asked::NOTHING;
            for n in 0..WIDE {
                store_scaled(simd, (sums[n], scale), (to, p + n));
            }
            p += WIDE;
        }
        for p in p..self.count {
            store_scaled(simd, (add_products(simd, rows, self.panel(p), zero), scale), (to, p));
        }
    }

    /// Adds the products of panel `p` and row `r` to `to[r · count + p]`.
    #[inline(always)]
    pub(crate) fn accumulate<S: Simd>(&self, simd: S, rows: [&[f32]; GROUP], to: &mut [Lanes]) {
        let mut p = 0;
        while S::MANY_REGISTERS && p + WIDE <= self.count {
            let mut sums = [[simd.splat(0.0); GROUP]; WIDE];
            for n in 0..WIDE {
                sums[n] = load_sums(simd, to, (p + n, self.count));
            }
            let sums = add_wide(simd, rows, (self.panels(p), Asked::NOTHING), sums);
            for n in 0..WIDE {
                store_sums(simd, sums[n], to, (p + n, self.count));
            }
            p += WIDE;
        }
        for p in p..self.count {
            let sums = load_sums(simd, to, (p, self.count));
            let sums = add_products(simd, rows, self.panel(p), sums);
            store_sums(simd, sums, to, (p, self.count));
        }
    }

    /// The panels from `p` on.
    #[inline(always)]
    fn panels(&self, p: usize) -> [&'_ [Lanes]; WIDE] {
        let mut panels: [&[Lanes]; WIDE] = [&[]; WIDE];
        for n in 0..WIDE {
            panels[n] = self.panel(p + n);
        }
        panels
    }
}

/// Sums of panel `p` of `count`, for every row.
#[inline(always)]
fn load_sums<S: Simd>(simd: S, from: &[Lanes], (p, count): (usize, usize)) -> [S::V; GROUP] {
    let mut sums = [simd.splat(0.0); GROUP];
    for r in 0..GROUP {
        sums[r] = simd.load(&from[r * count + p]);
    }
    sums
}

#[inline(always)]
fn store_sums<S: Simd>(simd: S, sums: [S::V; GROUP], to: &mut [Lanes], (p, count): (usize, usize)) {
    for r in 0..GROUP {
        simd.store(sums[r], &mut to[r * count + p]);
    }
}

/// Rows of whole vectors, beginning `stride` vectors apart: what [`Panels`] hold panel by
/// panel, row by row.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [Lanes],
    pub(crate) stride: usize,
    /// Vectors of a row that count.
    pub(crate) count: usize,
}

impl Rows<'_> {
    /// As [`Panels::accumulate`], the same chains.
    #[inline(always)]
    pub(crate) fn accumulate<S: Simd>(
        &self,
        simd: S,
        mut asked: Asked,
        rows: [&[f32]; GROUP],
        to: &mut [Lanes],
    ) {
        let mut p = 0;
        while S::MANY_REGISTERS && p + WIDE <= self.count {
            self.accumulate_some::<S, WIDE>(simd, (rows, asked), p, to);
            asked = Asked::NOTHING;
            p += WIDE;
        }
        for p in p..self.count {
            self.accumulate_some::<S, 1>(simd, (rows, Asked::NOTHING), p, to);
        }
    }

    /// Vectors `p .. p + W` of every row.
    #[inline(always)]
    fn accumulate_some<S: Simd, const W: usize>(
        &self,
        simd: S,
        (rows, asked): ([&[f32]; GROUP], Asked),
        p: usize,
        to: &mut [Lanes],
    ) {
        let len = rows[0].len();
        let [a, b, c, d] = rows;
        let (b, c, d) = (&b[..len], &c[..len], &d[..len]);
        let mut sums = [[simd.splat(0.0); GROUP]; W];
        for n in 0..W {
            sums[n] = load_sums(simd, to, (p + n, self.count));
        }
        for k in 0..len {
            asked.ask(simd, k);
            let row = &self.data[k * self.stride + p..][..W];
            let weights = [simd.splat(a[k]), simd.splat(b[k]), simd.splat(c[k]), simd.splat(d[k])];
            for n in 0..W {
                let value = simd.load(&row[n]);
                for r in 0..GROUP {
                    sums[n][r] = simd.mul_add(weights[r], value, sums[n][r]);
                }
            }
        }
        for n in 0..W {
            store_sums(simd, sums[n], to, (p + n, self.count));
        }
    }
}

#[inline(always)]
fn store_scaled<S: Simd, const COUNT: usize>(
    simd: S,
    (sums, scale): ([S::V; GROUP], S::V),
    (to, p): (&mut [[Lanes; COUNT]; GROUP], usize),
) {
    for r in 0..GROUP {
        simd.store(simd.mul(sums[r], scale), &mut to[r][p]);
    }
}

/// [`add_products`] with several panels: the same chains, more of them at a time.
#[inline(always)]
fn add_wide<S: Simd>(
    simd: S,
    rows: [&[f32]; GROUP],
    (panels, asked): ([&[Lanes]; WIDE], Asked),
    mut sums: [[S::V; GROUP]; WIDE],
) -> [[S::V; GROUP]; WIDE] {
    let len = rows[0].len();
    let rows = rows.map(|row| &row[..len]);
    let panels = panels.map(|panel| &panel[..len]);
    for n in 0..len {
        asked.ask(simd, n);
        let mut values = [simd.splat(0.0); WIDE];
        for p in 0..WIDE {
            values[p] = simd.load(&panels[p][n]);
        }
        for r in 0..GROUP {
            let row = simd.splat(rows[r][n]);
            for p in 0..WIDE {
                sums[p][r] = simd.mul_add(row, values[p], sums[p][r]);
            }
        }
    }
    sums
}

/// `sums[p][c] += Σ_n columns[n][c] · panels[p][n]`.
#[inline(always)]
pub(crate) fn add_transposed_products<'a, S: Simd, const P: usize>(
    simd: S,
    columns: impl Iterator<Item = &'a [f32; GROUP]>,
    panels: [&[Lanes]; P],
    sums: [[S::V; GROUP]; P],
) -> [[S::V; GROUP]; P] {
    let mut sums = sums;
    let panels = panels.map(|panel| &panel[..panels[0].len()]);
    for (n, &[a, b, c, d]) in (0..panels[0].len()).zip(columns) {
        let [a, b, c, d] = [simd.splat(a), simd.splat(b), simd.splat(c), simd.splat(d)];
        for p in 0..P {
            let values = simd.load(&panels[p][n]);
            sums[p][0] = simd.mul_add(a, values, sums[p][0]);
            sums[p][1] = simd.mul_add(b, values, sums[p][1]);
            sums[p][2] = simd.mul_add(c, values, sums[p][2]);
            sums[p][3] = simd.mul_add(d, values, sums[p][3]);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention_plan::Span;
    use crate::cpu::simd::Portable;

    fn run(spans: &[(usize, usize)], first_position: usize, len: usize) -> QueryRun {
        let spans = spans.iter().map(|&(slot, len)| Span { slot, len }).collect();
        QueryRun { query: 0, len, first_position, spans, causal: true }
    }

    #[test]
    fn a_block_gathers_slots_across_spans_in_position_order() {
        let run = run(&[(100, 60), (7, 3), (500, 80)], 130, 5);
        assert_eq!(num_blocks(&run), 3);
        let first = BlockSlots::of(&run, 0);
        assert_eq!(first.as_slice()[..60], (100..160).collect::<Vec<_>>());
        assert_eq!(first.as_slice()[60..], [7, 8, 9, 500]);
        assert_eq!(BlockSlots::of(&run, 1).as_slice(), (501..565).collect::<Vec<_>>());
        assert_eq!(BlockSlots::of(&run, 2).as_slice(), (565..572).collect::<Vec<_>>());
    }

    #[test]
    fn keys_seen_are_counted_block_by_block() {
        let run = run(&[(0, 140)], 62, 4);
        let seen = |j| (seen_in_block(&run, j, 0), seen_in_block(&run, j, 1));
        assert_eq!([0, 1, 2, 3].map(seen), [(63, 0), (64, 0), (64, 1), (64, 2)]);
    }

    #[test]
    fn gathered_panels_hold_the_keys() {
        for dim in [2, 6, 16, 22, 40] {
            let shape =
                AttentionShape { queries: 0, slots: 30, heads: 4, kv_heads: 2, head_dim: dim };
            let head = HeadView::new(shape, 1);
            let table: Vec<f32> = (0..30 * 2 * dim).map(|n| n as f32 + 1.0).collect();
            let slots: Vec<usize> = (0..21).map(|n| (n * 7) % 30).collect();
            let mut across = vec![[f32::NAN; LANES]; KEY_PANELS * across_rows(dim)];
            gather_across(Portable, &table, &slots, &head, &mut across);
            let mut along = vec![[f32::NAN; LANES]; dim_panels(dim) * ALONG_ROWS];
            gather_along(&table, &slots, &head, &mut along);
            for j in 0..slots.len() {
                for d in 0..dim {
                    let value = table[slots[j] * 2 * dim + dim + d];
                    assert_eq!(
                        across[j / 16 * across_rows(dim) + d][j % 16],
                        value,
                        "{dim} {j} {d}"
                    );
                    assert_eq!(along[d / 16 * ALONG_ROWS + j][d % 16], value, "{dim} {j} {d}");
                }
            }
        }
    }
}
