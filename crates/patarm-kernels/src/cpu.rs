//! The CPU backend: every core, the widest vector instructions present.
//!
//! Results do not depend on the number of threads. [`CpuOptions`] choose the
//! instructions and the arithmetic; products in `f32` use the same library on all.

mod adamw;
mod ahead;
mod attention;
mod bf16;
mod each_row;
mod elementwise;
mod linear;
mod math;
mod norm;
mod options;
mod quantised;
mod rope;
mod rows;
mod sampler;
mod simd;
mod statistics;
mod swiglu;
mod threads;

use std::sync::Arc;

use crate::attention_plan::{AttentionPlan, AttentionShape};
use crate::backend::{
    AdamW, Backend, ChosenTokens, LinearShape, NormShape, RopeTurn, RotatedNorm, Rotation,
    SLOTS_TOGETHER, StatisticsGradient, StatisticsShape, TokenStatistics, Update,
};
use crate::buffer::{Buffer, Pool};
use crate::checks::{
    check, check_adamw, check_attention, check_ids, check_linear, check_norm, check_rope,
    check_rotated_norm, check_sample, check_slots, check_statistics,
};
use crate::quantised::QuantisedMatrix;
use crate::sampling::SamplingOptions;
use bf16::Multiplier;
use linear::{DenseWeight, LinearMap, Matrix, Product, Weight};
use options::Kernels;
pub use options::{CpuOptions, Instructions, Precision};
pub(crate) use quantised::Packed;
use rope::Rotations;
use simd::Isa;
use simd::dots::Bytes;
use threads::Threads;

/// The CPU backend.
#[derive(Debug)]
pub struct Cpu {
    threads: Threads,
    isa: Isa,
    multiplier: Multiplier,
    bytes: Bytes,
    precision: Precision,
    memory: Arc<Pool>,
    rotations: rope::RotationTables,
}

impl Cpu {
    /// A backend in single precision on `threads` threads (0 stands for one per
    /// core) and the fastest instructions.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self::with_kernels(threads, Kernels::detect(), Precision::F32)
    }

    /// A backend in single precision whose own kernels use no instructions beyond
    /// the baseline, for comparison.
    #[must_use]
    pub fn portable(threads: usize) -> Self {
        Self::with_kernels(threads, Kernels::portable(), Precision::F32)
    }

    /// A backend as asked for; `None` where the processor lacks the instructions.
    #[must_use]
    pub fn with_options(options: &CpuOptions) -> Option<Self> {
        let kernels = options.instructions.resolve()?;
        Some(Self::with_kernels(options.threads, kernels, options.precision))
    }

    fn with_kernels(threads: usize, kernels: Kernels, precision: Precision) -> Self {
        let Kernels { isa, multiplier, bytes } = kernels;
        Self {
            threads: Threads::new(threads),
            isa,
            multiplier,
            bytes,
            precision,
            memory: Arc::default(),
            rotations: rope::RotationTables::default(),
        }
    }

    /// Arithmetic of products with a buffer.
    fn precision_with(&self, weight: &Buffer) -> Precision {
        match weight.weight() {
            Some(_) if self.precision == Precision::Bf16 => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    /// The weight `[rows, columns]` in a buffer.
    fn weight<'a>(&self, weight: &'a Buffer, rows: usize, columns: usize) -> Weight<'a> {
        let check = |shape| {
            assert_eq!(shape, (rows, columns), "a weight keeps the shape it was prepared with");
        };
        if let Some(packed) = weight.packed() {
            check((packed.rows, packed.columns));
            return Weight::Quantised(packed);
        }
        let prepared = weight.weight();
        if let Some(prepared) = prepared {
            check((prepared.rows, prepared.columns));
        }
        let precision = self.precision_with(weight);
        Weight::Dense(DenseWeight { values: weight.host(), precision, prepared })
    }
}

impl Backend for Cpu {
    fn name(&self) -> String {
        let instructions = match self.precision {
            Precision::F32 => self.isa.name(),
            Precision::Bf16 => self.multiplier.name(self.isa),
            Precision::Quantised => self.bytes.name(),
        };
        format!("cpu-{instructions}")
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn together(&self, work: &mut (dyn FnMut() + Send)) {
        self.threads.install(work);
    }

    fn prepare_weight(&self, weight: &mut Buffer, rows: usize, columns: usize) {
        weight.prepare(rows, columns);
    }

    fn quantised_weight(&self, matrix: &QuantisedMatrix<'_>) -> Buffer {
        Buffer::from_packed(Packed::new(matrix))
    }

    fn alloc(&self, len: usize) -> Buffer {
        self.memory.take(len)
    }

    fn upload(&self, data: &[f32]) -> Buffer {
        let mut buffer = self.alloc(data.len());
        elementwise::copy(self, data, buffer.host_mut());
        buffer
    }

    fn download(&self, buffer: &Buffer, data: &mut [f32]) {
        check(buffer, data.len(), "download");
        if let Some(packed) = buffer.packed() {
            return packed.dequantise(self, 0..packed.rows, data);
        }
        elementwise::copy(self, buffer.host(), data);
    }

    fn fill(&self, buffer: &mut Buffer, value: f32) {
        elementwise::fill(self, buffer.host_mut(), value);
    }

    fn copy(&self, from: &Buffer, from_start: usize, to: &mut Buffer, to_start: usize, len: usize) {
        let to = &mut to.host_mut()[to_start..to_start + len];
        if let Some(packed) = from.packed() {
            let whole = from_start.is_multiple_of(packed.columns);
            assert!(whole && len.is_multiple_of(packed.columns), "copy: whole rows of a weight");
            let rows = from_start / packed.columns..(from_start + len) / packed.columns;
            return packed.dequantise(self, rows, to);
        }
        elementwise::copy(self, &from.host()[from_start..from_start + len], to);
    }

    fn axpy(&self, scale: f32, x: &Buffer, y: &mut Buffer) {
        check(y, x.len(), "axpy");
        elementwise::axpy(self, scale, x.host(), y.host_mut());
    }

    fn gather_rows(&self, table: &Buffer, ids: &[u32], dim: usize, out: &mut Buffer) {
        check(out, ids.len() * dim, "gather_rows");
        check_ids(ids, table, dim, "gather_rows");
        if let Some(packed) = table.packed() {
            assert_eq!(packed.columns, dim, "gather_rows: width of a quantised table");
            return packed.gather(self, ids, out.host_mut());
        }
        rows::gather(self, table.host(), ids, dim, out.host_mut());
    }

    fn scatter_add_rows(&self, rows: &Buffer, ids: &[u32], dim: usize, table: &mut Buffer) {
        check(rows, ids.len() * dim, "scatter_add_rows");
        check_ids(ids, table, dim, "scatter_add_rows");
        rows::scatter_add(rows.host(), ids, dim, table.host_mut());
    }

    fn key_table(&self, slots: usize, width: usize, head_dim: usize) -> Buffer {
        const { assert!(SLOTS_TOGETHER == simd::LANES, "a group of slots is a vector") };
        check_slots(slots);
        let table = self.memory.take(slots * width);
        // Values of other widths would straddle vectors.
        if head_dim.is_multiple_of(simd::LANES) { table.into_key_panels(width) } else { table }
    }

    fn scatter_rows(&self, rows: &Buffer, ids: &[u32], dim: usize, table: &mut Buffer) {
        check(rows, ids.len() * dim, "scatter_rows");
        check_ids(ids, table, dim, "scatter_rows");
        match table.key_panels() {
            Some(width) => {
                assert_eq!(width, dim, "a table keeps the width it was made with");
                rows::scatter_across(rows.host(), ids, dim, table.host_mut());
            }
            None => rows::scatter(rows.host(), ids, dim, table.host_mut()),
        }
    }

    fn rms_norm(
        &self,
        x: &Buffer,
        weight: &Buffer,
        shape: NormShape,
        out: &mut Buffer,
        inv_rms: &mut Buffer,
    ) {
        check_norm(&[x, out], weight, inv_rms, shape);
        let results = (out.host_mut(), inv_rms.host_mut());
        norm::forward(self, (x.host(), weight.host()), shape, None, results);
    }

    fn rms_norm_backward(
        &self,
        x: &Buffer,
        weight: &Buffer,
        inv_rms: &Buffer,
        d_out: &Buffer,
        shape: NormShape,
        d_x: (&mut Buffer, Update),
        d_weight: Option<&mut Buffer>,
    ) {
        check_norm(&[x, d_out, d_x.0], weight, inv_rms, shape);
        let d_weight = d_weight.map(|d_weight| {
            check(d_weight, shape.dim, "rms_norm_backward: d_weight");
            d_weight.host_mut()
        });
        let operands = norm::Backward {
            x: x.host(),
            weight: weight.host(),
            inv_rms: inv_rms.host(),
            d_out: d_out.host(),
            rotations: None,
        };
        operands.compute(self, d_x.0.host_mut(), d_x.1, d_weight);
    }

    fn linear(
        &self,
        x: &Buffer,
        weight: &Buffer,
        bias: Option<&Buffer>,
        shape: LinearShape,
        scale: f32,
        (out, update): (&mut Buffer, Update),
    ) {
        check_linear(x, weight, out, shape);
        let out = out.host_mut();
        let update = match bias {
            Some(bias) => {
                check(bias, shape.output, "linear: bias");
                linear::spread_bias(&self.threads, bias.host(), out, update);
                Update::Add
            }
            None => update,
        };
        let weight = self.weight(weight, shape.output, shape.input);
        let map = LinearMap { x: x.host(), weight, shape, scale };
        map.compute(self, out, update);
    }

    fn linear_backward_input(
        &self,
        d_out: &Buffer,
        weight: &Buffer,
        shape: LinearShape,
        scale: f32,
        (d_x, update): (&mut Buffer, Update),
    ) {
        check_linear(d_x, weight, d_out, shape);
        if let Some(packed) = weight.packed() {
            let product = quantised::IntoInput { d_out: d_out.host(), weight: packed, scale };
            return product.compute(self, d_x.host_mut(), update);
        }
        let product = Product {
            size: [shape.tokens, shape.input, shape.output],
            left: Matrix::rows(d_out.host(), shape.output),
            right: Matrix::rows(weight.host(), shape.input),
            scale,
            update,
        };
        product.compute(self, self.precision_with(weight), d_x.host_mut());
    }

    fn linear_backward_weight(
        &self,
        d_out: &Buffer,
        x: &Buffer,
        weight: &Buffer,
        shape: LinearShape,
        scale: f32,
        d_weight: &mut Buffer,
    ) {
        check_linear(x, d_weight, d_out, shape);
        assert!(!weight.is_quantised(), "a quantised weight has no gradient");
        let product = Product {
            size: [shape.output, shape.input, shape.tokens],
            left: Matrix::rows(d_out.host(), shape.output).transposed(),
            right: Matrix::rows(x.host(), shape.input),
            scale,
            update: Update::Add,
        };
        product.compute(self, self.precision_with(weight), d_weight.host_mut());
    }

    fn bias_backward(&self, d_out: &Buffer, tokens: usize, d_bias: &mut Buffer) {
        check(d_out, tokens * d_bias.len(), "bias_backward");
        rows::add_column_sums(self, d_out.host(), d_bias.len(), d_bias.host_mut());
    }

    fn rope(&self, x: &mut Buffer, rotation: Rotation<'_>, turn: RopeTurn) {
        check_rope(x, &rotation);
        Rotations::new(self, rotation).rotate(self, x.host_mut(), turn);
    }

    fn rotated_norm(
        &self,
        x: &Buffer,
        weight: &Buffer,
        operation: RotatedNorm<'_>,
        out: &mut Buffer,
        inv_rms: &mut Buffer,
    ) {
        check_rotated_norm(&[x, out], weight, inv_rms, &operation);
        let rotations = Rotations::new(self, operation.rotation);
        let (operands, shape) = ((x.host(), weight.host()), operation.norm_shape());
        let results = (out.host_mut(), inv_rms.host_mut());
        norm::forward(self, operands, shape, Some(&rotations), results);
    }

    fn rotated_norm_backward(
        &self,
        x: &Buffer,
        weight: &Buffer,
        inv_rms: &Buffer,
        d_out: &mut Buffer,
        operation: RotatedNorm<'_>,
        d_x: &mut Buffer,
        d_weight: Option<&mut Buffer>,
    ) {
        check_rotated_norm(&[x, d_out, d_x], weight, inv_rms, &operation);
        if let Some(d_weight) = &d_weight {
            check(d_weight, weight.len(), "rotated_norm_backward: d_weight");
        }
        let rotations = Rotations::new(self, operation.rotation);
        let operands = norm::Backward {
            x: x.host(),
            weight: weight.host(),
            inv_rms: inv_rms.host(),
            d_out: d_out.host(),
            rotations: Some(&rotations),
        };
        let d_weight = d_weight.map(Buffer::host_mut);
        operands.compute(self, d_x.host_mut(), Update::Set, d_weight);
    }

    fn swiglu(&self, gate: &Buffer, up: &Buffer, out: &mut Buffer) {
        check(up, gate.len(), "swiglu: up");
        check(out, gate.len(), "swiglu: out");
        swiglu::forward(self, gate.host(), up.host(), out.host_mut());
    }

    fn swiglu_backward(
        &self,
        gate: &Buffer,
        up: &Buffer,
        d_out: &Buffer,
        d_gate: &mut Buffer,
        d_up: &mut Buffer,
    ) {
        for buffer in [up, d_out, &*d_gate, &*d_up] {
            check(buffer, gate.len(), "swiglu_backward");
        }
        let inputs = [gate.host(), up.host(), d_out.host()];
        swiglu::backward(self, inputs, d_gate.host_mut(), d_up.host_mut());
    }

    fn attention(
        &self,
        q: &Buffer,
        k: &Buffer,
        v: &Buffer,
        plan: &AttentionPlan,
        shape: AttentionShape,
        out: &mut Buffer,
        log_sum_exp: &mut Buffer,
    ) {
        check_attention([q, k, v], plan, shape);
        let inputs = attention::Inputs { q: q.host(), k: k.host(), v: v.host(), plan, shape };
        check(out, q.len(), "attention: out");
        check(log_sum_exp, shape.queries * shape.heads, "attention: log_sum_exp");
        let keys = match k.key_panels() {
            Some(_) => attention::Keys::Across,
            None => attention::Keys::Rows,
        };
        attention::forward(self, inputs, keys, (out.host_mut(), log_sum_exp.host_mut()));
    }

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
    ) {
        check_attention([q, k, v], plan, shape);
        let inputs = attention::Inputs { q: q.host(), k: k.host(), v: v.host(), plan, shape };
        for buffer in [out, d_out, &*d_q] {
            check(buffer, q.len(), "attention_backward: queries");
        }
        check(d_k, k.len(), "attention_backward: d_k");
        check(d_v, v.len(), "attention_backward: d_v");
        check(log_sum_exp, shape.queries * shape.heads, "attention_backward: log_sum_exp");
        let outputs = attention::backward::Outputs {
            out: out.host(),
            log_sum_exp: log_sum_exp.host(),
            d_out: d_out.host(),
        };
        let gradients = [d_q.host_mut(), d_k.host_mut(), d_v.host_mut()];
        attention::backward::backward(self, inputs, outputs, gradients);
    }

    fn token_statistics(
        &self,
        hidden: &Buffer,
        weight: &Buffer,
        chosen: &ChosenTokens,
        shape: StatisticsShape,
    ) -> TokenStatistics {
        check_statistics([hidden, weight], chosen, shape);
        let weight = self.weight(weight, shape.vocab, shape.dim);
        let hidden = hidden.host();
        let operands = statistics::Operands { hidden, weight, chosen, shape };
        statistics::forward(self, operands)
    }

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
    ) {
        check_statistics([hidden, weight], chosen, shape);
        let weight = self.weight(weight, shape.vocab, shape.dim);
        let hidden = hidden.host();
        let operands = statistics::Operands { hidden, weight, chosen, shape };
        check(d_hidden, hidden.len(), "token_statistics_backward: d_hidden");
        check(gradient.chosen, chosen.ids.len(), "token_statistics_backward: chosen");
        check(gradient.log_sum_exp, shape.rows, "token_statistics_backward: log_sum_exp");
        if let Some(entropy) = gradient.entropy {
            check(entropy, shape.rows, "token_statistics_backward: entropy");
        }
        let d_weight = d_weight.map(|d_weight| {
            check(d_weight, shape.vocab * shape.dim, "token_statistics_backward: d_weight");
            d_weight.host_mut()
        });
        let d_hidden = d_hidden.host_mut();
        statistics::backward(self, operands, statistics, &gradient, d_hidden, d_weight);
    }

    fn sample(
        &self,
        hidden: &Buffer,
        weight: &Buffer,
        shape: StatisticsShape,
        options: &[SamplingOptions],
        ids: &mut Buffer,
        logprobs: &mut Buffer,
    ) {
        check_sample([hidden, weight, ids, logprobs], shape, options.len());
        let (ids, logprobs) = (ids.host_mut(), logprobs.host_mut());
        let weight = self.weight(weight, shape.vocab, shape.dim);
        sampler::sample(self, (hidden.host(), weight), shape, options, ids, logprobs);
    }

    fn add_sum_of_squares(&self, x: &Buffer, accumulator: &mut Buffer) {
        let sum = &mut accumulator.host_mut()[0];
        *sum = (f64::from(*sum) + elementwise::sum_of_squares(self, x.host())) as f32;
    }

    fn adamw(
        &self,
        parameter: &mut Buffer,
        gradient: &Buffer,
        (first, second): (&mut Buffer, &mut Buffer),
        sum_of_squares: &Buffer,
        step: &AdamW,
    ) {
        check_adamw(parameter, gradient, [first, second], step);
        let moments = (first.host_mut(), second.host_mut());
        let values = (parameter.host_mut(), gradient.host());
        adamw::update(self, values, moments, sum_of_squares.host()[0], step);
    }
}

#[cfg(test)]
mod tests;
