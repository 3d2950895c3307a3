//! The seam between the decoder and a device.
//!
//! No operation returns a number to the host: losses, norms and sampled ids stay
//! in buffers until [`Backend::download`] asks for them, so that a device may
//! queue work. Shapes are checked with assertions: a wrong shape is a bug of the
//! caller, never a consequence of user input.

use crate::attention_plan::{AttentionPlan, AttentionShape};
use crate::buffer::Buffer;
use crate::checks::check_slots;
use crate::cpu::Precision;
use crate::moments::Moments;
use crate::quantised::QuantisedMatrix;
use crate::sampling::SamplingOptions;

/// Whether an operation overwrites its output or adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// `out = value`.
    Set,
    /// `out += value`.
    Add,
}

/// `y[t, o] = x[t, i] · w[o, i]ᵀ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearShape {
    /// Rows `t`.
    pub tokens: usize,
    /// Inner width `i`.
    pub input: usize,
    /// Output width `o`.
    pub output: usize,
}

/// Rows of a root-mean-square normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormShape {
    /// Rows (tokens, or tokens × heads for a per-head norm).
    pub rows: usize,
    /// Width of a row; the weight has as many entries.
    pub dim: usize,
    /// Added to the mean square.
    pub eps: f32,
}

/// A rotary embedding: what every head of every token is rotated by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotation<'a> {
    /// Position of each token.
    pub positions: &'a [u32],
    /// A frequency for each pair of a head.
    pub inverse_frequencies: &'a [f32],
    /// Heads per token.
    pub heads: usize,
}

impl Rotation<'_> {
    /// Heads of all tokens.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.positions.len() * self.heads
    }

    /// Width of a head: two numbers a pair.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        2 * self.inverse_frequencies.len()
    }
}

/// Norms of the heads of every token and the rotation after them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RotatedNorm<'a> {
    /// What comes after the norms.
    pub rotation: Rotation<'a>,
    /// Added to the mean square of a head.
    pub eps: f32,
}

impl RotatedNorm<'_> {
    /// The normalisation alone: a row for each head of each token.
    #[must_use]
    pub fn norm_shape(&self) -> NormShape {
        NormShape { rows: self.rotation.rows(), dim: self.rotation.head_dim(), eps: self.eps }
    }
}

/// Direction of the rotation: the gradient of a rotation is the rotation back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeTurn {
    /// By `+angle`.
    Forward,
    /// By `-angle`.
    Backward,
}

/// The ids whose logits are wanted, per row, in compressed rows:
/// row `r` wants `ids[offsets[r]..offsets[r + 1]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChosenTokens {
    /// `rows + 1` ascending offsets into `ids`, starting at 0.
    pub offsets: Vec<usize>,
    /// Token ids, each below the vocabulary size.
    pub ids: Vec<u32>,
}

/// Sizes of a linear → log-probability call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StatisticsShape {
    /// Rows.
    pub rows: usize,
    /// Width `d` of a hidden state.
    pub dim: usize,
    /// Vocabulary size `v`.
    pub vocab: usize,
    /// Logits are divided by this before anything else is computed (1 = plain).
    pub temperature: f32,
    /// Rows, from the first on, whose logits the device may keep for the backward
    /// instead of computing them again; 0 where none will follow.
    pub kept_rows: usize,
}

/// What linear → log-probability returns per row, without storing rows × vocabulary
/// unless asked to. All values are of the tempered logits `z / temperature`.
#[derive(Debug)]
pub struct TokenStatistics {
    /// Logits of the chosen ids, in the order of [`ChosenTokens::ids`].
    pub chosen: Buffer,
    /// Log-sum-exp of each row's logits.
    pub log_sum_exp: Buffer,
    /// Entropy of each row's distribution, in nats.
    pub entropy: Buffer,
    /// Logits of the first rows, whole chunks of them, in an order of the device's own.
    pub(crate) logits: Option<Buffer>,
}

/// Gradients with respect to [`TokenStatistics`].
#[derive(Debug)]
pub struct StatisticsGradient<'a> {
    /// d loss / d chosen logit.
    pub chosen: &'a Buffer,
    /// d loss / d log-sum-exp.
    pub log_sum_exp: &'a Buffer,
    /// d loss / d entropy; `None` when the loss ignores entropy.
    pub entropy: Option<&'a Buffer>,
}

/// One step of AdamW (Loshchilov & Hutter, arXiv 1711.05101, algorithm 2) with
/// bias correction folded into the step size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the corrected second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// 1 for the first step.
    pub step: u64,
    /// Gradients are multiplied by this first (for instance 1 / denominator).
    pub gradient_scale: f32,
    /// Global-norm clipping: with the (scaled) global norm `g` in the buffer,
    /// gradients are multiplied by `min(1, max_norm / (g + 1e-6))`; 0 switches it off.
    pub max_norm: f32,
    /// How the moments are kept.
    pub moments: Moments,
}

/// Slots of a [`Backend::key_table`] come in groups of this many.
pub const SLOTS_TOGETHER: usize = 16;

/// A device that owns buffers and runs operations on them.
///
/// Object-safe, so that a device is chosen at run time and no code above this
/// crate is generic over it.
#[expect(clippy::too_many_arguments, reason = "operands of fused operations are named one by one")]
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// Short name of device and instruction set, such as `cpu-avx512f`.
    fn name(&self) -> String;

    /// Arithmetic of the products with prepared weights.
    fn precision(&self) -> Precision;

    /// Runs work that consists of many short operations. On the CPU it moves to one of
    /// the device's threads, which then share the operations without being woken, and
    /// without the caller waiting, for each.
    fn together(&self, work: &mut (dyn FnMut() + Send)) {
        work();
    }

    /// Runs work that queues many short operations and brings nothing to the host. A device
    /// may record it and start all of it at once; where that fails the work is run again, so
    /// that it must not depend on having run before.
    fn recorded(&self, work: &mut dyn FnMut()) {
        work();
    }

    /// Makes a buffer the weight `[rows, columns]` of linear maps: products with it
    /// may use lower precision, and the device may keep a form of its own beside
    /// the values, which it makes anew after they change. Buffers that were not
    /// prepared are multiplied in `f32`.
    fn prepare_weight(&self, weight: &mut Buffer, rows: usize, columns: usize);

    /// The weight of linear maps in the form that its file has, without a copy of its
    /// values: products with it round the other operand to eight bits a block.
    ///
    /// Such a buffer serves as the weight of [`Backend::linear`],
    /// [`Backend::linear_backward_input`], [`Backend::token_statistics`] (and its
    /// backward into the hidden rows) and [`Backend::sample`], as the table of
    /// [`Backend::gather_rows`], and as the source of [`Backend::copy`] and
    /// [`Backend::download`], which give the file's values. Gradients with respect to
    /// the other operand are those of the unrounded product, in `f32`. It never
    /// changes, and has no gradient itself.
    ///
    /// # Panics
    /// When the parts of the matrix do not fit together, or the backend's precision is
    /// not [`Precision::Quantised`] and it does not offer this.
    fn quantised_weight(&self, matrix: &QuantisedMatrix<'_>) -> Buffer;

    /// A buffer of `len` elements with unspecified contents, reused from the pool
    /// where one fits.
    fn alloc(&self, len: usize) -> Buffer;

    /// A buffer of zeros.
    fn zeros(&self, len: usize) -> Buffer {
        let mut buffer = self.alloc(len);
        self.fill(&mut buffer, 0.0);
        buffer
    }

    /// The most memory of its own that a device has given at one time, in bytes; `None`
    /// where memory is the process's. What a driver or its libraries take for themselves
    /// is not counted.
    fn peak_memory_bytes(&self) -> Option<u64> {
        None
    }

    /// Copies host data into a new buffer.
    fn upload(&self, data: &[f32]) -> Buffer;

    /// Copies a buffer to the host. `data` is as long as the buffer.
    fn download(&self, buffer: &Buffer, data: &mut [f32]);

    /// Sets every element.
    fn fill(&self, buffer: &mut Buffer, value: f32);

    /// `to[to_start..to_start + len] = from[from_start..from_start + len]`.
    fn copy(&self, from: &Buffer, from_start: usize, to: &mut Buffer, to_start: usize, len: usize);

    /// `y += scale · x`, element by element.
    fn axpy(&self, scale: f32, x: &Buffer, y: &mut Buffer);

    /// `out[n] = table[ids[n]]`: rows of width `dim`. Embedding lookup and row gather.
    fn gather_rows(&self, table: &Buffer, ids: &[u32], dim: usize, out: &mut Buffer);

    /// `table[ids[n]] += rows[n]`, in order of `n`. Gradient of [`Backend::gather_rows`].
    fn scatter_add_rows(&self, rows: &Buffer, ids: &[u32], dim: usize, table: &mut Buffer);

    /// A table for the keys of `slots` tokens, rows of `width`, heads of `head_dim`, in
    /// the form that attention reads fastest: [`Backend::scatter_rows`] writes it and
    /// [`Backend::attention`] reads it, nothing else does. Contents are unspecified; it
    /// has `slots · width` elements.
    ///
    /// # Panics
    /// When `slots` is no multiple of [`SLOTS_TOGETHER`].
    fn key_table(&self, slots: usize, width: usize, _head_dim: usize) -> Buffer {
        check_slots(slots);
        self.alloc(slots * width)
    }

    /// `table[ids[n]] = rows[n]`: writes keys and values into cache slots.
    fn scatter_rows(&self, rows: &Buffer, ids: &[u32], dim: usize, table: &mut Buffer);

    /// `out = x · inv_rms · weight` with `inv_rms = 1 / sqrt(mean(x²) + eps)`;
    /// stores `inv_rms` per row. `out` may not alias `x`.
    fn rms_norm(
        &self,
        x: &Buffer,
        weight: &Buffer,
        shape: NormShape,
        out: &mut Buffer,
        inv_rms: &mut Buffer,
    );

    /// Gradient of [`Backend::rms_norm`]: `d_x` is set or added to, `d_weight` added to
    /// when given.
    fn rms_norm_backward(
        &self,
        x: &Buffer,
        weight: &Buffer,
        inv_rms: &Buffer,
        d_out: &Buffer,
        shape: NormShape,
        d_x: (&mut Buffer, Update),
        d_weight: Option<&mut Buffer>,
    );

    /// `out (+)= scale · x · wᵀ`, plus `bias` where given.
    fn linear(
        &self,
        x: &Buffer,
        weight: &Buffer,
        bias: Option<&Buffer>,
        shape: LinearShape,
        scale: f32,
        out: (&mut Buffer, Update),
    );

    /// `d_x (+)= scale · d_out · w`.
    fn linear_backward_input(
        &self,
        d_out: &Buffer,
        weight: &Buffer,
        shape: LinearShape,
        scale: f32,
        d_x: (&mut Buffer, Update),
    );

    /// `d_weight += scale · d_outᵀ · x`, in the arithmetic of products with `weight`,
    /// whose values are not read.
    ///
    /// # Panics
    /// When the weight is quantised: it has no gradient.
    fn linear_backward_weight(
        &self,
        d_out: &Buffer,
        x: &Buffer,
        weight: &Buffer,
        shape: LinearShape,
        scale: f32,
        d_weight: &mut Buffer,
    );

    /// `d_bias += column sums of d_out`.
    fn bias_backward(&self, d_out: &Buffer, tokens: usize, d_bias: &mut Buffer);

    /// Rotates pairs `(n, n + head_dim / 2)` of every head in place by
    /// `positions[token] · inverse_frequencies[n]` (half-split layout).
    ///
    /// # Shapes
    /// `x`: `[tokens, heads, head_dim]`.
    fn rope(&self, x: &mut Buffer, rotation: Rotation<'_>, turn: RopeTurn);

    /// [`Backend::rms_norm`] of every head, then [`Backend::rope`], in one pass.
    ///
    /// # Shapes
    /// `x`, `out`: `[tokens, heads, head_dim]`; `weight`: `[head_dim]`; `inv_rms`:
    /// `[tokens, heads]`.
    fn rotated_norm(
        &self,
        x: &Buffer,
        weight: &Buffer,
        operation: RotatedNorm<'_>,
        out: &mut Buffer,
        inv_rms: &mut Buffer,
    );

    /// Gradient of [`Backend::rotated_norm`]: `d_x` is set, `d_weight` added to when
    /// given; `d_out` may be overwritten.
    fn rotated_norm_backward(
        &self,
        x: &Buffer,
        weight: &Buffer,
        inv_rms: &Buffer,
        d_out: &mut Buffer,
        operation: RotatedNorm<'_>,
        d_x: &mut Buffer,
        d_weight: Option<&mut Buffer>,
    );

    /// `out = silu(gate) · up`.
    fn swiglu(&self, gate: &Buffer, up: &Buffer, out: &mut Buffer);

    /// Gradient of [`Backend::swiglu`]; both outputs are set.
    fn swiglu_backward(
        &self,
        gate: &Buffer,
        up: &Buffer,
        d_out: &Buffer,
        d_gate: &mut Buffer,
        d_up: &mut Buffer,
    );

    /// Softmax attention over the spans of each run, scaled by `1 / sqrt(head_dim)`.
    ///
    /// # Shapes
    /// `q`, `out`: `[queries, heads, head_dim]`; `k`, `v`: `[slots, kv_heads, head_dim]`;
    /// `log_sum_exp`: `[queries, heads]`.
    fn attention(
        &self,
        q: &Buffer,
        k: &Buffer,
        v: &Buffer,
        plan: &AttentionPlan,
        shape: AttentionShape,
        out: &mut Buffer,
        log_sum_exp: &mut Buffer,
    );

    /// Exact gradient of [`Backend::attention`] from the stored log-sum-exp.
    /// `d_q` is set; `d_k` and `d_v` are added to.
    fn attention_backward(
        &self,
        q: &Buffer,
        k: &Buffer,
        v: &Buffer,
        out: &Buffer,
        log_sum_exp: &Buffer,
        d_out: &Buffer,
        plan: &AttentionPlan,
        shape: AttentionShape,
        d_q: &mut Buffer,
        d_k: &mut Buffer,
        d_v: &mut Buffer,
    );

    /// Linear → log-probability: for each hidden row the logits of the chosen ids,
    /// the log-sum-exp and the entropy, computed in chunks of the vocabulary.
    ///
    /// # Shapes
    /// `hidden`: `[rows, dim]`; `weight`: `[vocab, dim]`.
    fn token_statistics(
        &self,
        hidden: &Buffer,
        weight: &Buffer,
        chosen: &ChosenTokens,
        shape: StatisticsShape,
    ) -> TokenStatistics;

    /// Gradient of [`Backend::token_statistics`]; recomputes logits that were not kept,
    /// in chunks.
    /// `d_hidden` is set, `d_weight` added to when given.
    ///
    /// # Panics
    /// When a gradient of a quantised weight is asked for.
    fn token_statistics_backward(
        &self,
        hidden: &Buffer,
        weight: &Buffer,
        chosen: &ChosenTokens,
        shape: StatisticsShape,
        statistics: &TokenStatistics,
        gradient: StatisticsGradient<'_>,
        d_hidden: &mut Buffer,
        d_weight: Option<&mut Buffer>,
    );

    /// Draws one token per row of `hidden · weightᵀ`.
    ///
    /// `options[r]` rules row `r`; its random number is a function of
    /// (seed, sequence, position) alone. `ids[r]` receives the id (exact in `f32`
    /// up to 2²⁴) and `logprobs[r]` its log-probability under the *full* tempered
    /// distribution (temperature 1 for greedy rows), before top-k, top-p and min-p.
    fn sample(
        &self,
        hidden: &Buffer,
        weight: &Buffer,
        shape: StatisticsShape,
        options: &[SamplingOptions],
        ids: &mut Buffer,
        logprobs: &mut Buffer,
    );

    /// `accumulator[0] += Σ x²` in f64-accurate order-fixed summation.
    fn add_sum_of_squares(&self, x: &Buffer, accumulator: &mut Buffer);

    /// One AdamW step on one parameter; `sum_of_squares[0]` holds the squared global
    /// norm of the *unscaled* gradients, and the two buffers of moments are as long as
    /// [`Moments::buffer_len`] says.
    fn adamw(
        &self,
        parameter: &mut Buffer,
        gradient: &Buffer,
        moments: (&mut Buffer, &mut Buffer),
        sum_of_squares: &Buffer,
        step: &AdamW,
    );
}
