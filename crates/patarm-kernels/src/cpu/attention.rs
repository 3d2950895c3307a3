//! Softmax attention over the spans of each run (online softmax: Milakov &
//! Gimelshein, arXiv 1805.02867).
//!
//! # Bit for bit
//!
//! A query's arithmetic is fixed by its own position: blocks of [`KEY_BLOCK`] keys
//! from position 0 on; within a block each score is one chain of multiply-adds
//! over the head's dimensions, each output dimension one chain over the keys.
//! What other queries are computed beside it, and where its keys are stored,
//! decides only which lane or row it occupies. A masked key has weight 0 and adds
//! exactly nothing.

mod shares;
mod source;
mod tile;

pub(crate) mod backward;

use super::Cpu;
use super::math::exp;
use super::simd::{Kernel, LANES, Lanes, Simd};
use super::threads::Parts;
use crate::attention_plan::{AttentionPlan, AttentionShape, KEY_BLOCK, QueryRun};
use source::{BlockSource, Gathered, InPlace};
use tile::{BlockSlots, GROUP, HeadView, KEY_PANELS};

/// Queries that are computed together and share gathered blocks.
const TILE_QUERIES: usize = 24;

/// From this many tiles on, a thread takes all heads of a tile.
const MANY_TILES: usize = 16;

/// Calls with fewer multiplications than this stay on the calling thread: one query
/// behind a few hundred keys is done before another thread has woken up.
const PARALLEL_WORK: usize = 1 << 20;

/// Inputs of one attention call.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    pub(crate) plan: &'a AttentionPlan,
    pub(crate) shape: AttentionShape,
}

/// How a table holds keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keys {
    /// A row a slot.
    Rows,
    /// As [`Backend::key_table`](crate::Backend::key_table) has it.
    Across,
}

/// Some consecutive queries of one run.
#[derive(Clone, Copy, Debug)]
struct Piece<'a> {
    run: &'a QueryRun,
    /// First query, counted within the run.
    first: usize,
    len: usize,
}

impl Piece<'_> {
    fn query(&self) -> usize {
        self.run.query + self.first
    }

    /// Number of blocks the last query of the piece sees.
    fn num_blocks(&self) -> usize {
        if self.run.causal {
            self.run.keys_seen(self.first + self.len - 1).div_ceil(KEY_BLOCK)
        } else {
            tile::num_blocks(self.run)
        }
    }
}

/// Cuts runs into pieces and collects pieces that begin with the same keys until a
/// tile is full.
fn tiles(plan: &AttentionPlan) -> Vec<Vec<Piece<'_>>> {
    let mut tiles = Vec::new();
    let mut tile: Vec<Piece<'_>> = Vec::new();
    let mut queries = 0;
    let mut beginning = BlockSlots::empty();
    for run in &plan.runs {
        let begins = BlockSlots::of(run, 0);
        if begins.as_slice() != beginning.as_slice() && !tile.is_empty() {
            tiles.push(std::mem::take(&mut tile));
            queries = 0;
        }
        beginning = begins;
        let mut first = 0;
        while first < run.len {
            let len = (run.len - first).min(TILE_QUERIES - queries);
            tile.push(Piece { run, first, len });
            (first, queries) = (first + len, queries + len);
            if queries == TILE_QUERIES {
                tiles.push(std::mem::take(&mut tile));
                queries = 0;
            }
        }
    }
    if !tile.is_empty() {
        tiles.push(tile);
    }
    tiles
}

/// Computes `out` and `log_sum_exp`.
pub(crate) fn forward(
    cpu: &Cpu,
    inputs: Inputs<'_>,
    keys: Keys,
    (out, log_sum_exp): (&mut [f32], &mut [f32]),
) {
    let Inputs { q, k, v, shape, .. } = inputs;
    let tiles = tiles(inputs.plan);
    let sharing = shape.heads / shape.kv_heads;
    let out = Parts::new(out, sharing * shape.head_dim);
    let log_sum_exp = Parts::new(log_sum_exp, sharing);
    let attend = |pieces: &[Piece<'_>], kv_head: usize| {
        let head = HeadView::new(shape, kv_head);
        let states = match keys {
            Keys::Rows => {
                let source = Gathered::new([k, v], head);
                cpu.isa.run(TileForward { q, pieces, head, source })
            }
            Keys::Across => {
                let source = InPlace::new([k, v], shape, kv_head);
                cpu.isa.run(TileForward { q, pieces, head, source })
            }
        };
        store_tile(pieces, &head, shape, &states, &out, &log_sum_exp);
    };
    if num_multiplications(&inputs) < PARALLEL_WORK {
        for tile in &tiles {
            (0..shape.kv_heads).for_each(|kv_head| attend(tile, kv_head));
        }
    } else if tiles.len() < MANY_TILES {
        cpu.threads.each(tiles.len() * shape.kv_heads, |task| {
            attend(&tiles[task / shape.kv_heads], task % shape.kv_heads);
        });
    } else {
        // The heads of a key lie beside each other in memory.
        cpu.threads.each(tiles.len(), |tile| {
            (0..shape.kv_heads).for_each(|kv_head| attend(&tiles[tile], kv_head));
        });
    }
}

/// Multiplications of a call, masked ones included.
fn num_multiplications(inputs: &Inputs<'_>) -> usize {
    let AttentionShape { heads, head_dim, .. } = inputs.shape;
    let runs = inputs.plan.runs.iter();
    let pairs = runs.map(|run| run.len.saturating_mul(run.visible_keys()));
    pairs.fold(0, usize::saturating_add).saturating_mul(2 * heads * head_dim)
}

/// The online softmax of the rows of a tile.
struct States {
    max: Vec<f32>,
    sum: Vec<f32>,
    /// `[row][dimension panel]`.
    weighted: Vec<Lanes>,
}

impl States {
    fn new(rows: usize, panels: usize) -> Self {
        Self {
            max: vec![f32::NEG_INFINITY; rows],
            sum: vec![0.0; rows],
            weighted: vec![[0.0; LANES]; rows * panels],
        }
    }
}

/// Rows of a piece, rounded up to whole groups.
fn padded_rows(piece: &Piece<'_>, head: &HeadView) -> usize {
    (piece.len * head.sharing).next_multiple_of(GROUP)
}

#[expect(unsafe_code, reason = "tasks write disjoint queries and heads")]
fn store_tile(
    pieces: &[Piece<'_>],
    head: &HeadView,
    shape: AttentionShape,
    states: &States,
    out: &Parts<'_, f32>,
    log_sum_exp: &Parts<'_, f32>,
) {
    let panels = tile::dim_panels(head.dim);
    let mut start = 0;
    for piece in pieces {
        for j in 0..piece.len {
            let part = (piece.query() + j) * shape.kv_heads + head.kv_head;
            // SAFETY: every query belongs to one piece of one tile, and a task is
            // alone with its tile and key head.
            let (out, lse) = unsafe { (out.part(part), log_sum_exp.part(part)) };
            for (h, (out, lse)) in out.chunks_exact_mut(head.dim).zip(lse).enumerate() {
                let row = start + j * head.sharing + h;
                let weighted = states.weighted[row * panels..][..panels].as_flattened();
                let sum = states.sum[row];
                let scale = if sum > 0.0 || sum.is_nan() { 1.0 / sum } else { 0.0 };
                for (out, x) in out.iter_mut().zip(weighted) {
                    // Adding zero turns -0 into 0, whichever keys were masked.
                    *out = x * scale + 0.0;
                }
                *lse = (f64::from(states.max[row]) + f64::from(sum).ln()) as f32;
            }
        }
        start += padded_rows(piece, head);
    }
}

struct TileForward<'a, B> {
    q: &'a [f32],
    pieces: &'a [Piece<'a>],
    head: HeadView,
    source: B,
}

impl<B: BlockSource> Kernel for TileForward<'_, B> {
    type Output = States;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> States {
        let Self { q, pieces, head, mut source } = self;
        let rows = pieces.iter().map(|piece| padded_rows(piece, &head)).sum();
        let mut states = States::new(rows, tile::dim_panels(head.dim));
        let zeros = vec![0.0; head.dim];
        let blocks = pieces.iter().map(Piece::num_blocks).max().unwrap_or(0);
        for block in 0..blocks {
            let mut start = 0;
            for piece in pieces {
                if block < piece.num_blocks() {
                    source.turn_to(simd, piece.run, block);
                    for row in (0..piece.len * head.sharing).step_by(GROUP) {
                        let group = Group::new(q, &zeros, piece, &head, row, block);
                        group.attend(simd, &mut source, start + row, &mut states);
                    }
                }
                start += padded_rows(piece, &head);
            }
        }
        states
    }
}

/// Four rows (queries times heads) of a piece.
struct Group<'a> {
    queries: [&'a [f32]; GROUP],
    /// Keys of the block that each row sees; 0 for rows beyond the last.
    seen: [usize; GROUP],
    scale: f32,
}

impl<'a> Group<'a> {
    #[inline(always)]
    fn new(
        q: &'a [f32],
        zeros: &'a [f32],
        piece: &Piece<'_>,
        head: &HeadView,
        row: usize,
        block: usize,
    ) -> Self {
        let mut group =
            Self { queries: [zeros; GROUP], seen: [0; GROUP], scale: softmax_scale(head.dim) };
        for r in 0..GROUP.min(piece.len * head.sharing - row) {
            let j = piece.first + (row + r) / head.sharing;
            group.queries[r] = &q[head.query_start(piece.query(), row + r)..][..head.dim];
            group.seen[r] = tile::seen_in_block(piece.run, j, block);
        }
        group
    }

    fn most_seen(&self) -> usize {
        self.seen.into_iter().fold(0, usize::max)
    }

    /// Adds one block to the online softmax of the group's rows.
    #[inline(always)]
    fn attend<S: Simd>(
        &self,
        simd: S,
        source: &mut impl BlockSource,
        row: usize,
        states: &mut States,
    ) {
        let seen = self.most_seen();
        if seen == 0 {
            return;
        }
        let dim = self.queries[0].len();
        let mut weights = [[[0.0; LANES]; KEY_PANELS]; GROUP];
        source.scores(simd, (self.queries, simd.splat(self.scale)), seen, &mut weights);
        let mut correction = [1.0; GROUP];
        for r in 0..GROUP {
            if self.seen[r] > 0 {
                let (max, sum) = (&mut states.max[row + r], &mut states.sum[row + r]);
                correction[r] = softmax_row(simd, &mut weights[r], self.seen[r], max, sum);
            } else {
                weights[r] = [[0.0; LANES]; KEY_PANELS];
            }
        }
        let weights = weights.each_ref().map(|row| &row.as_flattened()[..seen]);
        let panels = tile::dim_panels(dim);
        let weighted = &mut states.weighted[row * panels..][..GROUP * panels];
        for (row, &correction) in weighted.chunks_exact_mut(panels).zip(&correction) {
            for old in row {
                simd.store(simd.mul(simd.load(old), simd.splat(correction)), old);
            }
        }
        source.add_values(simd, weights, weighted);
    }
}

/// `1 / sqrt(head_dim)`.
fn softmax_scale(dim: usize) -> f32 {
    (1.0 / (dim as f64).sqrt()) as f32
}

/// Turns one row of scores into weights relative to the new maximum, and returns
/// what earlier weights must be multiplied by.
#[inline(always)]
fn softmax_row<S: Simd>(
    simd: S,
    row: &mut [Lanes; KEY_PANELS],
    seen: usize,
    max: &mut f32,
    sum: &mut f32,
) -> f32 {
    let mut largest = simd.splat(*max);
    let limit = simd.splat(seen as f32);
    for (p, scores) in row.iter_mut().enumerate() {
        let masked = simd.select_less(
            simd.load(&KEY_INDEX[p]),
            limit,
            simd.load(scores),
            simd.splat(f32::NEG_INFINITY),
        );
        largest = simd.max(masked, largest);
        simd.store(masked, scores);
    }
    let largest = simd.largest(largest);
    let mut total = simd.splat(0.0);
    for scores in row.iter_mut() {
        let weight = exp(simd, simd.sub(simd.load(scores), simd.splat(largest)));
        total = simd.add(total, weight);
        simd.store(weight, scores);
    }
    let correction = scalar_exp(simd, *max - largest);
    *sum = *sum * correction + simd.sum(total);
    *max = largest;
    correction
}

#[inline(always)]
fn scalar_exp<S: Simd>(simd: S, x: f32) -> f32 {
    simd.spill(exp(simd, simd.splat(x)))[0]
}

/// Number of each key within its block.
const KEY_INDEX: [Lanes; KEY_PANELS] = {
    let mut index = [[0.0; LANES]; KEY_PANELS];
    let mut n = 0;
    while n < KEY_BLOCK {
        index[n / LANES][n % LANES] = n as f32;
        n += 1;
    }
    index
};
