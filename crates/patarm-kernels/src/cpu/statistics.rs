//! Linear → log-probability: statistics of `hidden · weightᵀ`, which exists as a whole
//! only where a backward asked for it. Rows are taken in chunks, the vocabulary in tiles.

use std::ops::Range;

use super::Cpu;
use super::bf16::PANEL;
use super::linear::{LinearMap, Matrix, Product, Weight};
use super::math::exp;
use super::simd::{Kernel, LANES, Simd};
use crate::backend::{
    ChosenTokens, LinearShape, StatisticsGradient, StatisticsShape, TokenStatistics, Update,
};
use crate::buffer::Buffer;

/// Rows whose logits exist at one time.
const ROWS: usize = 256;
/// Columns whose logits exist at one time;
/// whole panels of a packed weight.
const TILE: usize = 96 * PANEL;
/// A last tile narrower than this is joined to the one before it, so that every
/// tile takes the same path through the product.
const NARROW: usize = 64;
/// Rows of one piece of elementwise work.
const PIECE: usize = 4;

/// The tiles of a vocabulary, in order.
pub(crate) fn tiles(vocab: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let end = if vocab - start < TILE + NARROW { vocab } else { start + TILE };
        let tile = start..end;
        start = end;
        (!tile.is_empty()).then_some(tile)
    })
}

/// Log-sum-exp and entropy of a row, built up tile by tile. Sums are relative to
/// the largest logit so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowState {
    pub(crate) max: f32,
    /// `Σ exp(z - max)`.
    pub(crate) sum: f64,
    /// `Σ exp(z - max) (z - max)`.
    weighted: f64,
}

impl RowState {
    pub(crate) fn new() -> Self {
        Self { max: f32::NEG_INFINITY, sum: 0.0, weighted: 0.0 }
    }

    pub(crate) fn log_sum_exp(&self) -> f32 {
        (f64::from(self.max) + self.sum.ln()) as f32
    }

    /// `H = lse - E[z]`.
    fn entropy(&self) -> f32 {
        (self.sum.ln() - self.weighted / self.sum) as f32
    }

    /// Moves the reference point up to `max`.
    fn raise(&mut self, max: f32) {
        if self.max == f32::NEG_INFINITY {
            self.max = max;
        }
        let shift = f64::from(self.max) - f64::from(max);
        let factor = shift.exp();
        self.weighted = factor * (self.weighted + self.sum * shift);
        self.sum *= factor;
        self.max = max;
    }
}

/// Adds one tile of a row's logits, each multiplied by `scale` first.
pub(crate) struct AddTile<'a> {
    pub(crate) logits: &'a [f32],
    pub(crate) scale: f32,
    pub(crate) state: &'a mut RowState,
}

impl Kernel for AddTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (lowest, scale) = (f32::NEG_INFINITY, simd.splat(self.scale));
        let mut largest = simd.splat(self.state.max);
        for logits in self.logits.chunks(LANES) {
            largest = simd.max(simd.mul(simd.load_part(logits, lowest), scale), largest);
        }
        let largest = simd.largest(largest);
        if largest == lowest {
            return;
        }
        let (mut sum, mut weighted) = (simd.splat(0.0), simd.splat(0.0));
        for logits in self.logits.chunks(LANES) {
            let tempered = simd.mul(simd.load_part(logits, f32::MIN), scale);
            let below = simd.sub(tempered, simd.splat(largest));
            // So far below that its weight is zero; keeps 0 · ∞ out.
            let floor = simd.splat(-1e4);
            let below = simd.select_less(below, floor, floor, below);
            let weight = exp(simd, below);
            sum = simd.add(sum, weight);
            weighted = simd.mul_add(weight, below, weighted);
        }
        self.state.raise(largest);
        self.state.sum += f64::from(simd.sum(sum));
        self.state.weighted += f64::from(simd.sum(weighted));
    }
}

/// Operands shared by both directions.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    pub(crate) hidden: &'a [f32],
    pub(crate) weight: Weight<'a>,
    pub(crate) chosen: &'a ChosenTokens,
    pub(crate) shape: StatisticsShape,
}

impl<'a> Operands<'a> {
    fn scale(&self) -> f32 {
        1.0 / self.shape.temperature
    }

    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let rows = self.shape.rows;
        (0..rows).step_by(ROWS).map(move |start| start..rows.min(start + ROWS))
    }

    /// Rows whose logits are kept: whole chunks.
    fn kept_rows(&self) -> usize {
        let StatisticsShape { rows, kept_rows, .. } = self.shape;
        if kept_rows >= rows { rows } else { kept_rows / ROWS * ROWS }
    }

    /// Logits (not tempered) of some rows and columns, row by row.
    fn logits(&self, cpu: &Cpu, rows: &Range<usize>, columns: &Range<usize>, out: &mut [f32]) {
        let StatisticsShape { dim, vocab, .. } = self.shape;
        let map = LinearMap {
            x: self.hidden_rows(rows),
            weight: self.weight,
            shape: LinearShape { tokens: rows.len(), input: dim, output: vocab },
            scale: 1.0,
        };
        map.columns(cpu, columns.clone(), out, Update::Set);
    }

    fn hidden_rows(&self, rows: &Range<usize>) -> &'a [f32] {
        &self.hidden[rows.start * self.shape.dim..rows.end * self.shape.dim]
    }

    /// Values of some rows of the weight; those of a quantised one are made in `scratch`.
    fn weight_rows<'b>(
        &self,
        cpu: &Cpu,
        columns: &Range<usize>,
        scratch: &'b mut Buffer,
    ) -> &'b [f32]
    where
        'a: 'b,
    {
        let (dim, values) = (self.shape.dim, columns.len() * self.shape.dim);
        match self.weight {
            Weight::Dense(weight) => &weight.values[columns.start * dim..][..values],
            Weight::Quantised(packed) => {
                let scratch = &mut scratch.host_mut()[..values];
                packed.dequantise(cpu, columns.clone(), scratch);
                scratch
            }
        }
    }

    /// Elements of the scratch that [`Operands::weight_rows`] needs.
    fn scratch_len(&self) -> usize {
        match self.weight {
            Weight::Quantised(_) => (TILE + NARROW).min(self.shape.vocab) * self.shape.dim,
            Weight::Dense(_) => 0,
        }
    }

    /// `(index into the chosen ids, offset into the tile's logits)` for every chosen
    /// id of some rows that lies in a tile.
    fn chosen_in(
        &self,
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) -> impl Iterator<Item = (usize, usize)> {
        let ChosenTokens { offsets, ids } = self.chosen;
        rows.clone().flat_map(move |row| {
            (offsets[row]..offsets[row + 1]).filter_map(move |n| {
                let column = (ids[n] as usize).checked_sub(columns.start)?;
                let at = (row - rows.start) * columns.len() + column;
                (column < columns.len()).then_some((n, at))
            })
        })
    }

    fn buffer_len(&self) -> usize {
        ROWS.min(self.shape.rows) * (TILE + NARROW).min(self.shape.vocab)
    }
}

pub(crate) fn forward(cpu: &Cpu, operands: Operands<'_>) -> TokenStatistics {
    let rows = operands.shape.rows;
    let mut statistics = TokenStatistics {
        chosen: cpu.memory.take(operands.chosen.ids.len()),
        log_sum_exp: cpu.memory.take(rows),
        entropy: cpu.memory.take(rows),
        logits: None,
    };
    let (scale, kept_rows) = (operands.scale(), operands.kept_rows());
    let mut kept = cpu.memory.take(kept_rows * operands.shape.vocab);
    let mut scratch = cpu.memory.take(operands.buffer_len());
    for rows in operands.chunks() {
        let mut states = vec![RowState::new(); rows.len()];
        for columns in tiles(operands.shape.vocab) {
            let logits = if rows.end <= kept_rows {
                &mut kept.host_mut()[kept_tile(&rows, &columns, operands.shape.vocab)]
            } else {
                &mut scratch.host_mut()[..rows.len() * columns.len()]
            };
            operands.logits(cpu, &rows, &columns, logits);
            add_tiles(cpu, logits, scale, &mut states);
            for (n, at) in operands.chosen_in(&rows, &columns) {
                statistics.chosen.host_mut()[n] = logits[at] * scale;
            }
        }
        for (row, state) in rows.zip(&states) {
            statistics.log_sum_exp.host_mut()[row] = state.log_sum_exp();
            statistics.entropy.host_mut()[row] = state.entropy();
        }
    }
    statistics.logits = (kept_rows > 0).then_some(kept);
    statistics
}

/// Where the logits of a chunk and a tile are kept: chunk after chunk, tile after tile.
fn kept_tile(rows: &Range<usize>, columns: &Range<usize>, vocab: usize) -> Range<usize> {
    let start = rows.start * vocab + rows.len() * columns.start;
    start..start + rows.len() * columns.len()
}

/// Adds a tile of every row to the row's state.
fn add_tiles(cpu: &Cpu, logits: &[f32], scale: f32, states: &mut [RowState]) {
    let width = logits.len() / states.len().max(1);
    cpu.threads.each_chunk(states, PIECE, |n, states| {
        let logits = &logits[n * PIECE * width..];
        for (state, logits) in states.iter_mut().zip(logits.chunks_exact(width)) {
            cpu.isa.run(AddTile { logits, scale, state });
        }
    });
}

/// Sets `d_hidden`; adds to `d_weight` where given.
pub(crate) fn backward(
    cpu: &Cpu,
    operands: Operands<'_>,
    statistics: &TokenStatistics,
    gradient: &StatisticsGradient<'_>,
    d_hidden: &mut [f32],
    mut d_weight: Option<&mut [f32]>,
) {
    let dim = operands.shape.dim;
    let precision = operands.weight.precision();
    let kept = statistics.logits.as_ref().map_or(&[][..], Buffer::host);
    let quantised = matches!(operands.weight, Weight::Quantised(_));
    assert!(!quantised || d_weight.is_none(), "a quantised weight has no gradient");
    let mut logits = cpu.memory.take(operands.buffer_len());
    let mut scratch = cpu.memory.take(operands.scratch_len());
    for rows in operands.chunks() {
        for columns in tiles(operands.shape.vocab) {
            let width = columns.len();
            let logits = &mut logits.host_mut()[..rows.len() * width];
            match kept.get(kept_tile(&rows, &columns, operands.shape.vocab)) {
                Some(kept) => cpu.threads.each_chunk(logits, PIECE * width, |n, logits| {
                    logits.copy_from_slice(&kept[n * PIECE * width..][..logits.len()]);
                }),
                None => operands.logits(cpu, &rows, &columns, logits),
            }
            let slopes = Slopes { statistics, gradient, scale: operands.scale() };
            slopes.replace_logits(cpu, rows.start, width, logits);
            for (n, at) in operands.chosen_in(&rows, &columns) {
                logits[at] += gradient.chosen.host()[n] * operands.scale();
            }
            let d_logits = Matrix::rows(logits, width);
            let into_hidden = Product {
                size: [rows.len(), dim, width],
                left: d_logits,
                right: Matrix::rows(operands.weight_rows(cpu, &columns, &mut scratch), dim),
                scale: 1.0,
                update: if columns.start == 0 { Update::Set } else { Update::Add },
            };
            into_hidden.compute(cpu, precision, &mut d_hidden[rows.start * dim..]);
            if let Some(d_weight) = d_weight.as_deref_mut() {
                let into_weight = Product {
                    size: [width, dim, rows.len()],
                    left: d_logits.transposed(),
                    right: Matrix::rows(operands.hidden_rows(&rows), dim),
                    scale: 1.0,
                    update: Update::Add,
                };
                into_weight.compute(cpu, precision, &mut d_weight[columns.start * dim..]);
            }
        }
    }
}

/// What the gradient of a logit is made of.
struct Slopes<'a> {
    statistics: &'a TokenStatistics,
    gradient: &'a StatisticsGradient<'a>,
    scale: f32,
}

impl Slopes<'_> {
    /// Replaces logits by the gradient through log-sum-exp and entropy:
    /// with `p = exp(z - lse)`, `d_z = d_lse p - d_entropy p (log p + H)`.
    fn replace_logits(&self, cpu: &Cpu, first_row: usize, width: usize, logits: &mut [f32]) {
        cpu.threads.each_chunk(logits, PIECE * width, |n, logits| {
            for (r, logits) in logits.chunks_exact_mut(width).enumerate() {
                let row = first_row + n * PIECE + r;
                let d_entropy =
                    self.gradient.entropy.map_or(0.0, |d_entropy| d_entropy.host()[row]);
                let entropy = self.statistics.entropy.host()[row];
                let d_log_sum_exp = self.gradient.log_sum_exp.host()[row];
                cpu.isa.run(SlopeRow {
                    logits,
                    scale: self.scale,
                    log_sum_exp: self.statistics.log_sum_exp.host()[row],
                    constant: (d_log_sum_exp - d_entropy * entropy) * self.scale,
                    slope: -d_entropy * self.scale,
                });
            }
        });
    }
}

/// `z ← p (constant + slope · log p)`.
struct SlopeRow<'a> {
    logits: &'a mut [f32],
    scale: f32,
    log_sum_exp: f32,
    constant: f32,
    slope: f32,
}

impl Kernel for SlopeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (scale, lse) = (simd.splat(self.scale), simd.splat(self.log_sum_exp));
        let (constant, slope) = (simd.splat(self.constant), simd.splat(self.slope));
        for logits in self.logits.chunks_mut(LANES) {
            let log_p = simd.sub(simd.mul(simd.load_part(logits, 0.0), scale), lse);
            let p = exp(simd, log_p);
            simd.store_part(simd.mul(p, simd.mul_add(slope, log_p, constant)), logits);
        }
    }
}
