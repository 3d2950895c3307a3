//! Drawing one token per row.
//!
//! Filters act in the order temperature, top-k, top-p, min-p: top-p counts
//! probability within what top-k kept, min-p compares with the most likely token,
//! and what is left is drawn from in proportion. Equal logits are ordered by id.

use super::Cpu;
use super::linear::{LinearMap, Weight};
use super::math::exp;
use super::simd::{Isa, Kernel, LANES, Simd};
use super::statistics::{AddTile, RowState, tiles};
use crate::backend::{LinearShape, StatisticsShape, Update};
use crate::random;
use crate::sampling::{SampledToken, SamplingOptions};

/// Rows whose logits exist at one time.
const ROWS: usize = 64;
/// Weights are added up in stretches of this many tokens before one is picked.
const STRETCH: usize = 1024;
/// Most likely tokens looked at first when the filters leave their number open.
const FIRST_CANDIDATES: usize = 256;

pub(crate) fn sample(
    cpu: &Cpu,
    (hidden, weight): (&[f32], Weight<'_>),
    shape: StatisticsShape,
    options: &[SamplingOptions],
    ids: &mut [f32],
    logprobs: &mut [f32],
) {
    let StatisticsShape { rows, dim, vocab, .. } = shape;
    let mut logits = cpu.memory.take(rows.min(ROWS) * vocab);
    for start in (0..rows).step_by(ROWS) {
        let tokens = ROWS.min(rows - start);
        let map = LinearMap {
            x: &hidden[start * dim..][..tokens * dim],
            weight,
            shape: LinearShape { tokens, input: dim, output: vocab },
            scale: 1.0,
        };
        let logits = &mut logits.host_mut()[..tokens * vocab];
        map.compute(cpu, logits, Update::Set);
        let outputs = (&mut ids[start..][..tokens], 1);
        cpu.threads.each_chunk_of_two(
            outputs,
            (&mut logprobs[start..][..tokens], 1),
            |n, id, logprob| {
                let row = &logits[n * vocab..][..vocab];
                let drawn = draw(cpu.isa, row, &options[start + n]);
                (id[0], logprob[0]) = (drawn.id as f32, drawn.logprob);
            },
        );
    }
}

/// Draws from one row of logits.
fn draw(isa: Isa, logits: &[f32], options: &SamplingOptions) -> SampledToken {
    let greedy = options.temperature == 0.0;
    let scale = if greedy { 1.0 } else { 1.0 / options.temperature };
    let mut state = RowState::new();
    for tile in tiles(logits.len()) {
        isa.run(AddTile { logits: &logits[tile], scale, state: &mut state });
    }
    let row = Row { isa, logits, scale, state };
    let usable = state.max.is_finite() && state.sum.is_finite();
    let id = if greedy || !usable {
        most_likely(logits)
    } else {
        let u = random::uniform(options.seed, &[options.sequence, options.position]);
        if keeps_all(options, logits.len()) { row.pick(u) } else { row.pick_filtered(u, options) }
    };
    SampledToken { id: id as u32, logprob: logits[id] * scale - state.log_sum_exp() }
}

fn keeps_all(options: &SamplingOptions, vocab: usize) -> bool {
    (options.top_k == 0 || options.top_k >= vocab) && options.top_p >= 1.0 && options.min_p <= 0.0
}

/// The lowest id among the largest logits; a NaN is never chosen before a number.
fn most_likely(logits: &[f32]) -> usize {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > logits[best] || (logits[best].is_nan() && !logit.is_nan()) {
            best = id;
        }
    }
    best
}

/// A row of logits with its statistics.
struct Row<'a> {
    isa: Isa,
    logits: &'a [f32],
    scale: f32,
    state: RowState,
}

impl Row<'_> {
    /// The first token, in order of id, at which the cumulative probability
    /// exceeds `u`.
    fn pick(&self, u: f64) -> usize {
        let mut weights = vec![0.0; STRETCH];
        let stretches: Vec<f64> = self
            .logits
            .chunks(STRETCH)
            .map(|logits| {
                let weights = &mut weights[..logits.len()];
                self.isa.run(Weights { logits, scale: self.scale, max: self.state.max, weights })
            })
            .collect();
        let (stretch, rest) = walk(stretches.iter().copied(), u * stretches.iter().sum::<f64>());
        let logits = self.logits.chunks(STRETCH).nth(stretch).unwrap_or(&[]);
        let weights = &mut weights[..logits.len()];
        self.isa.run(Weights { logits, scale: self.scale, max: self.state.max, weights });
        stretch * STRETCH + walk(weights.iter().map(|&weight| f64::from(weight)), rest).0
    }

    fn pick_filtered(&self, u: f64, options: &SamplingOptions) -> usize {
        let kept = self.filtered(options);
        let total: f64 = kept.iter().map(|&(_, weight)| weight).sum();
        let (n, _) = walk(kept.iter().map(|&(_, weight)| weight), u * total);
        kept[n].0
    }

    /// The tokens the filters keep, most likely first, with their weights relative
    /// to the most likely one. Never empty.
    fn filtered(&self, options: &SamplingOptions) -> Vec<(usize, f64)> {
        let mut kept = self.candidates(options);
        let total = match options.top_k {
            0 => self.state.sum,
            _ => kept.iter().map(|&(_, weight)| weight).sum(),
        };
        if options.top_p < 1.0 {
            let (last, _) = reach(&kept, f64::from(options.top_p) * total);
            kept.truncate(last + 1);
        }
        let enough = kept.partition_point(|&(_, weight)| weight >= f64::from(options.min_p));
        kept.truncate(enough.max(1));
        kept
    }

    /// The `top_k` most likely tokens, or as many as top-p and min-p can need.
    fn candidates(&self, options: &SamplingOptions) -> Vec<(usize, f64)> {
        let vocab = self.logits.len();
        let mut order: Vec<u64> = (0..vocab).map(|id| self.sort_key(id)).collect();
        let mut count = match options.top_k {
            0 => FIRST_CANDIDATES.min(vocab),
            k => k.min(vocab),
        };
        loop {
            order.select_nth_unstable(count - 1);
            order[..count].sort_unstable();
            let ids = order[..count].iter().map(|key| (key & 0xffff_ffff) as usize);
            let found: Vec<_> = ids.map(|id| (id, self.weight(id))).collect();
            let (_, reached) = reach(&found, f64::from(options.top_p) * self.state.sum);
            let reached = reached && options.top_p < 1.0;
            let below = found[count - 1].1 < f64::from(options.min_p);
            if options.top_k != 0 || count == vocab || reached || below {
                return found;
            }
            count = (count * 8).min(vocab);
        }
    }

    /// Ascending keys are descending logits, then ascending ids; NaN comes last.
    fn sort_key(&self, id: usize) -> u64 {
        let logit = self.logits[id];
        let bits = if logit.is_nan() { f32::NEG_INFINITY } else { logit }.to_bits();
        // Bits of a float, made to descend as it ascends.
        let descending = if bits >> 31 == 0 { !bits & 0x7fff_ffff } else { bits };
        u64::from(descending) << 32 | id as u64
    }

    fn weight(&self, id: usize) -> f64 {
        let tempered = self.logits[id] * self.scale;
        let weight = f64::from(tempered - self.state.max).exp();
        if weight.is_nan() { 0.0 } else { weight }
    }
}

/// Index at which the cumulative weight reaches `target`, or the last one and
/// `false`.
fn reach(weights: &[(usize, f64)], target: f64) -> (usize, bool) {
    let mut sum = 0.0;
    for (n, &(_, weight)) in weights.iter().enumerate() {
        sum += weight;
        if sum >= target {
            return (n, true);
        }
    }
    (weights.len() - 1, false)
}

/// The first index at which the cumulative weight exceeds `target`, and what of
/// `target` lies within it. Where rounding leaves none, the last with a weight.
fn walk(weights: impl Iterator<Item = f64>, target: f64) -> (usize, f64) {
    let (mut before, mut last) = (0.0, (0, 0.0));
    for (n, weight) in weights.enumerate() {
        if weight > 0.0 {
            last = (n, target - before);
        }
        if before + weight > target {
            break;
        }
        before += weight;
    }
    last
}

/// `exp(scale · z - max)` of some logits, and the sum.
struct Weights<'a> {
    logits: &'a [f32],
    scale: f32,
    max: f32,
    weights: &'a mut [f32],
}

impl Kernel for Weights<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let (scale, max) = (simd.splat(self.scale), simd.splat(self.max));
        let mut sum = simd.splat(0.0);
        for (logits, weights) in self.logits.chunks(LANES).zip(self.weights.chunks_mut(LANES)) {
            let tempered = simd.mul(simd.load_part(logits, f32::NEG_INFINITY), scale);
            let weight = exp(simd, simd.sub(tempered, max));
            sum = simd.add(sum, weight);
            simd.store_part(weight, weights);
        }
        f64::from(simd.sum(sum))
    }
}

#[cfg(test)]
mod tests;
