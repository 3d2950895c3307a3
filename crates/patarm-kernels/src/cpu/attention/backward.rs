//! Exact gradient of attention from the stored log-sum-exp (Dao et al.,
//! arXiv 2205.14135, section 3.1 and appendix B).
//!
//! With `P = exp(S - lse)`, `D = rowsum(d_out · out)` and `c = 1 / sqrt(head_dim)`:
//! `d_v = Pᵀ d_out`, `d_S = c P (d_out vᵀ - D)`, `d_q = d_S k`, `d_k = d_Sᵀ q`.

use super::shares::{self, Copies, Copy};
use super::tile::{self, BlockSlots, GROUP, HeadView, KEY_PANELS, Panels};
use super::{Inputs, KEY_INDEX, Piece, softmax_scale};
use crate::attention_plan::KEY_BLOCK;
use crate::cpu::Cpu;
use crate::cpu::math::exp;
use crate::cpu::simd::{Kernel, LANES, Lanes, Simd};
use crate::cpu::threads::Parts;

/// What the backward pass reads beside the forward's inputs.
#[derive(Clone, Copy)]
pub(crate) struct Outputs<'a> {
    pub(crate) out: &'a [f32],
    pub(crate) log_sum_exp: &'a [f32],
    pub(crate) d_out: &'a [f32],
}

/// Sets `d_q`; adds to `d_k` and `d_v`.
pub(crate) fn backward(
    cpu: &Cpu,
    inputs: Inputs<'_>,
    outputs: Outputs<'_>,
    [d_q, d_k, d_v]: [&mut [f32]; 3],
) {
    let shape = inputs.shape;
    let shares = shares::deal(inputs.plan, shape.kv_heads);
    let copies = Copies::new(&shares, shape);
    let mut buffer = cpu.memory.take(copies.len());
    let d_queries = Parts::new(d_q, shape.heads / shape.kv_heads * shape.head_dim);
    let mut tasks = copies.cut(buffer.host_mut());
    cpu.threads.each_chunk(&mut tasks, 1, |task, copy| {
        let head = HeadView::new(shape, task % shape.kv_heads);
        for copy in copy {
            copy.d_keys.fill([0.0; LANES]);
            copy.d_values.fill([0.0; LANES]);
            for &piece in &shares[task / shape.kv_heads].pieces {
                let chunk = Chunk { inputs, outputs, piece, head };
                let found = cpu.isa.run(ChunkBackward { chunk, copy });
                store_queries(&chunk, &found, &d_queries);
            }
        }
    });
    copies.add_to(cpu, buffer.host(), 0, d_k, shape.head_dim);
    copies.add_to(cpu, buffer.host(), 1, d_v, shape.head_dim);
}

#[derive(Clone, Copy)]
struct Chunk<'a> {
    inputs: Inputs<'a>,
    outputs: Outputs<'a>,
    piece: Piece<'a>,
    head: HeadView,
}

#[expect(unsafe_code, reason = "tasks write disjoint queries and heads")]
fn store_queries(chunk: &Chunk<'_>, d_queries: &[Lanes], d_q: &Parts<'_, f32>) {
    let Chunk { inputs, piece, head, .. } = chunk;
    let panels = tile::dim_panels(head.dim);
    for j in 0..piece.len {
        let part = (piece.query() + j) * inputs.shape.kv_heads + head.kv_head;
        // SAFETY: every query belongs to one piece of one share, and a task is
        // alone with its share and key head.
        let d_q = unsafe { d_q.part(part) };
        for (h, d_q) in d_q.chunks_exact_mut(head.dim).enumerate() {
            let row = j * head.sharing + h;
            let from = d_queries[row * panels..][..panels].as_flattened();
            d_q.copy_from_slice(&from[..head.dim]);
        }
    }
}

struct ChunkBackward<'a, 'b> {
    chunk: Chunk<'a>,
    copy: &'a mut Copy<'b>,
}

impl Kernel for ChunkBackward<'_, '_> {
    type Output = Vec<Lanes>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<Lanes> {
        let Chunk { inputs, piece, head, .. } = self.chunk;
        let panels = tile::dim_panels(head.dim);
        let rows = Rows::new(&self.chunk);
        let padded = rows.len.next_multiple_of(GROUP);
        let mut d_queries = vec![[0.0; LANES]; padded * panels];
        let mut block = GatheredBlock::new(head.dim);
        let mut slopes = Slopes::new(padded);
        let zeros = vec![0.0; head.dim];
        for index in 0..piece.num_blocks() {
            let slots = BlockSlots::of(piece.run, index);
            block.gather(simd, &inputs, slots.as_slice(), &head);
            slopes.first = first_row(&piece, &head, index);
            for row in (slopes.first..rows.len).step_by(GROUP) {
                let group = RowGroup::new(&self.chunk, &rows, &zeros, row, index);
                group.slopes(simd, &block, &mut slopes);
                let d_queries = &mut d_queries[row * panels..][..GROUP * panels];
                group.add_query_gradient(simd, &block, &slopes, row, d_queries);
            }
            let keys = KeyGradient { matrix: &slopes.scores, values: &rows.q };
            let slots = slots.counted_from(self.copy.first_slot);
            keys.add(simd, slopes.first, slots.as_slice(), self.copy.d_keys);
            let values = KeyGradient { matrix: &slopes.weights, values: &rows.d_out };
            values.add(simd, slopes.first, slots.as_slice(), self.copy.d_values);
        }
        d_queries
    }
}

/// First row of the group that holds the first query to see block `index`.
fn first_row(piece: &Piece<'_>, head: &HeadView, index: usize) -> usize {
    let start = index * KEY_BLOCK;
    let first = piece.run.first_position + piece.first;
    let query = if piece.run.causal { start.saturating_sub(first) } else { 0 };
    query * head.sharing / GROUP * GROUP
}

/// The chunk's queries and output gradients along, and a number each.
struct Rows {
    len: usize,
    /// `[dimension panel][padded row]`, zero beyond the last row.
    q: Vec<Lanes>,
    d_out: Vec<Lanes>,
    log_sum_exp: Vec<f32>,
    /// `rowsum(d_out · out)`.
    delta: Vec<f32>,
}

impl Rows {
    fn new(chunk: &Chunk<'_>) -> Self {
        let Chunk { inputs, outputs, piece, head } = chunk;
        let len = piece.len * head.sharing;
        let padded = len.next_multiple_of(GROUP);
        let panels = tile::dim_panels(head.dim);
        let empty = vec![[0.0; LANES]; panels * padded];
        let mut rows = Self {
            len,
            q: empty.clone(),
            d_out: empty,
            log_sum_exp: vec![0.0; padded],
            delta: vec![0.0; padded],
        };
        for row in 0..len {
            let start = head.query_start(piece.query(), row);
            let d_out = &outputs.d_out[start..][..head.dim];
            tile::write_along(&inputs.q[start..][..head.dim], row, padded, &mut rows.q);
            tile::write_along(d_out, row, padded, &mut rows.d_out);
            rows.log_sum_exp[row] = outputs.log_sum_exp[head.scalar_index(piece.query(), row)];
            let out = &outputs.out[start..][..head.dim];
            rows.delta[row] = out.iter().zip(d_out).map(|(a, b)| a * b).sum();
        }
        rows
    }
}

/// A block of keys across and along, and its values across.
struct GatheredBlock {
    keys_across: Vec<Lanes>,
    values_across: Vec<Lanes>,
    keys_along: Vec<Lanes>,
}

impl GatheredBlock {
    fn new(dim: usize) -> Self {
        let across = vec![[0.0; LANES]; KEY_PANELS * tile::across_rows(dim)];
        Self {
            keys_across: across.clone(),
            values_across: across,
            keys_along: vec![[0.0; LANES]; tile::dim_panels(dim) * tile::ALONG_ROWS],
        }
    }

    #[inline(always)]
    fn gather<S: Simd>(&mut self, simd: S, inputs: &Inputs<'_>, slots: &[usize], head: &HeadView) {
        tile::gather_across(simd, inputs.k, slots, head, &mut self.keys_across);
        tile::gather_across(simd, inputs.v, slots, head, &mut self.values_across);
        tile::gather_along(inputs.k, slots, head, &mut self.keys_along);
    }
}

/// Weights and gradients of scores of a chunk with one block: `[row][key]`.
struct Slopes {
    /// Rows before this one do not see the block.
    first: usize,
    weights: Vec<[Lanes; KEY_PANELS]>,
    scores: Vec<[Lanes; KEY_PANELS]>,
}

impl Slopes {
    fn new(rows: usize) -> Self {
        let empty = vec![[[0.0; LANES]; KEY_PANELS]; rows];
        Self { first: 0, weights: empty.clone(), scores: empty }
    }
}

/// Four rows of the chunk.
struct RowGroup<'a> {
    row: usize,
    queries: [&'a [f32]; GROUP],
    d_out: [&'a [f32]; GROUP],
    log_sum_exp: &'a [f32],
    delta: &'a [f32],
    /// Keys of the block that each row sees; 0 for rows beyond the last.
    seen: [usize; GROUP],
    scale: f32,
}

impl<'a> RowGroup<'a> {
    #[inline(always)]
    fn new(chunk: &Chunk<'a>, rows: &'a Rows, zeros: &'a [f32], row: usize, block: usize) -> Self {
        let Chunk { inputs, outputs, piece, head } = *chunk;
        let mut group = Self {
            row,
            queries: [zeros; GROUP],
            d_out: [zeros; GROUP],
            log_sum_exp: &rows.log_sum_exp[row..row + GROUP],
            delta: &rows.delta[row..row + GROUP],
            seen: [0; GROUP],
            scale: softmax_scale(head.dim),
        };
        for r in 0..GROUP.min(rows.len - row) {
            let start = head.query_start(piece.query(), row + r);
            let j = piece.first + (row + r) / head.sharing;
            group.queries[r] = &inputs.q[start..][..head.dim];
            group.d_out[r] = &outputs.d_out[start..][..head.dim];
            group.seen[r] = tile::seen_in_block(piece.run, j, block);
        }
        group
    }

    fn most_seen(&self) -> usize {
        self.seen.into_iter().fold(0, usize::max)
    }

    /// Weights and score gradients of the group's rows; zero where masked.
    #[inline(always)]
    fn slopes<S: Simd>(&self, simd: S, block: &GatheredBlock, slopes: &mut Slopes) {
        let (zero, scale) = (simd.splat(0.0), simd.splat(self.scale));
        let scores = self.products(simd, self.queries, &block.keys_across);
        let d_weights = self.products(simd, self.d_out, &block.values_across);
        for p in 0..KEY_PANELS {
            let index = simd.load(&KEY_INDEX[p]);
            for r in 0..GROUP {
                let limit = simd.splat(self.seen[r] as f32);
                let score = simd.mul(simd.load(&scores[r][p]), scale);
                let weight = exp(simd, simd.sub(score, simd.splat(self.log_sum_exp[r])));
                let slope = simd.sub(simd.load(&d_weights[r][p]), simd.splat(self.delta[r]));
                let slope = simd.mul(simd.mul(weight, scale), slope);
                let row = self.row + r;
                simd.store(
                    simd.select_less(index, limit, weight, zero),
                    &mut slopes.weights[row][p],
                );
                simd.store(simd.select_less(index, limit, slope, zero), &mut slopes.scores[row][p]);
            }
        }
    }

    /// Products of the group's rows with the panels that any of them sees: others
    /// were not gathered, and count as zero.
    #[inline(always)]
    fn products<S: Simd>(
        &self,
        simd: S,
        rows: [&[f32]; GROUP],
        across: &[Lanes],
    ) -> [[Lanes; KEY_PANELS]; GROUP] {
        let mut products = [[[0.0; LANES]; KEY_PANELS]; GROUP];
        let height = tile::across_rows(rows[0].len());
        let panels = Panels::new(across, height, self.most_seen().div_ceil(LANES));
        panels.multiply(simd, (rows, simd.splat(1.0)), &mut products);
        products
    }

    /// `d_q += d_S k`.
    #[inline(always)]
    fn add_query_gradient<S: Simd>(
        &self,
        simd: S,
        block: &GatheredBlock,
        slopes: &Slopes,
        row: usize,
        d_queries: &mut [Lanes],
    ) {
        let seen = self.most_seen();
        let mut rows: [&[f32]; GROUP] = [&[]; GROUP];
        for r in 0..GROUP {
            rows[r] = &slopes.scores[row + r].as_flattened()[..seen];
        }
        let count = d_queries.len() / GROUP;
        let keys = Panels::new(&block.keys_along, tile::ALONG_ROWS, count);
        keys.accumulate(simd, rows, d_queries);
    }
}

/// A sum over the rows of a chunk for every key of a block.
struct KeyGradient<'a> {
    /// `[row][key]`.
    matrix: &'a [[Lanes; KEY_PANELS]],
    /// `[dimension panel][row]`.
    values: &'a [Lanes],
}

impl KeyGradient<'_> {
    /// `gradient[slots[key]] += Σ_rows matrix[row][key] · values[row]`, over the rows
    /// from `first` on.
    #[inline(always)]
    fn add<S: Simd>(&self, simd: S, first: usize, slots: &[usize], gradient: &mut [Lanes]) {
        const GROUPS: usize = KEY_BLOCK / GROUP;
        let height = self.matrix.len();
        let panels = self.values.len() / height;
        let matrix = self.matrix[first..].as_flattened().as_flattened().as_chunks::<GROUP>().0;
        let columns = |keys: usize| matrix.get(keys..).unwrap_or(&[]).iter().step_by(GROUPS);
        for (keys, slots) in slots.chunks(GROUP).enumerate() {
            let panel = |p: usize| &self.values[p * height..][first..height];
            let zero = [simd.splat(0.0); GROUP];
            let mut p = 0;
            while S::MANY_REGISTERS && p + 2 <= panels {
                let pair = [panel(p), panel(p + 1)];
                let sums = tile::add_transposed_products(simd, columns(keys), pair, [zero; 2]);
                add_to_slots(simd, sums[0], slots, (&mut gradient[p..], panels));
                add_to_slots(simd, sums[1], slots, (&mut gradient[p + 1..], panels));
                p += 2;
            }
            for p in p..panels {
                let one = [panel(p)];
                let sums = tile::add_transposed_products(simd, columns(keys), one, [zero]);
                add_to_slots(simd, sums[0], slots, (&mut gradient[p..], panels));
            }
        }
    }
}

/// `gradient[slots[n] · panels] += sums[n]`.
#[inline(always)]
fn add_to_slots<S: Simd>(
    simd: S,
    sums: [S::V; GROUP],
    slots: &[usize],
    (gradient, panels): (&mut [Lanes], usize),
) {
    for (sum, &slot) in sums.iter().zip(slots) {
        let to = &mut gradient[slot * panels];
        simd.store(simd.add(simd.load(to), *sum), to);
    }
}
