//! The CUDA backend. Nothing of CUDA is linked: libraries are found at run time, and
//! the kernels of this folder's `.cu` files are compiled for the device found.
//!
//! Everything is in `f32` as on the CPU, except that in bfloat16 precision the
//! operands of products with prepared weights, and of the products inside attention,
//! are rounded (sums in `f32`). Sums are made in a fixed order, without atomic
//! operations on floating point, so that a run repeats itself on one device with one
//! version of the libraries. Values differ from the CPU's within a tolerance, and with
//! the number of rows of a product, because the vendor's library chooses by shape.

mod attention;
mod blas;
mod compiler;
mod core;
mod device;
mod driver;
mod elementwise;
mod emulator;
mod libraries;
mod linear;
mod memory;
mod program;
mod recording;
mod rows;
mod sampler;
mod statistics;

use std::path::PathBuf;
use std::sync::Arc;

use self::core::{Core, bytes_of_f32};
use crate::attention_plan::{AttentionPlan, AttentionShape};
use crate::backend::{
    AdamW, Backend, ChosenTokens, LinearShape, NormShape, RopeTurn, RotatedNorm, Rotation,
    StatisticsGradient, StatisticsShape, TokenStatistics, Update,
};
use crate::buffer::Buffer;
use crate::checks::{
    check, check_adamw, check_attention, check_ids, check_linear, check_norm, check_rope,
    check_rotated_norm, check_sample, check_statistics,
};
use crate::cpu::Precision;
use crate::quantised::QuantisedMatrix;
use crate::sampling::SamplingOptions;
use attention::{Attention, PlanTables, Results};
use device::{Device, Element};
pub use device::{DeviceFault, FaultKind};
pub use emulator::Emulator;
pub(crate) use memory::Block;

/// Settings of a CUDA backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CudaOptions {
    /// Number of the device, from 0.
    pub ordinal: usize,
    /// Arithmetic of products with weights and inside attention.
    pub precision: Precision,
    /// Folders searched for CUDA's libraries before the system's own places.
    pub library_folders: Vec<PathBuf>,
    /// Folder that keeps compiled kernels; `None`: they are compiled at every start.
    pub cache: Option<PathBuf>,
}

/// The CUDA backend.
#[derive(Debug)]
pub struct Cuda {
    core: Core,
    plans: PlanTables,
    precision: Precision,
}

impl Cuda {
    /// Opens a device.
    ///
    /// # Errors
    /// Of kind [`FaultKind::Missing`] where there is no such device, or a library is
    /// missing; the message says which, and what to do. [`FaultKind::Device`] in
    /// [`Precision::Quantised`], which is not offered.
    pub fn open(options: &CudaOptions) -> Result<Self, DeviceFault> {
        let CudaOptions { ordinal, precision, library_folders, cache } = options;
        if *precision == Precision::Quantised {
            let message =
                "weights do not stay quantised on a CUDA device; choose another precision";
            return Err(DeviceFault::new(FaultKind::Device, message));
        }
        let gpu = driver::Gpu::open(*ordinal, library_folders, cache.clone())?;
        Ok(Self::on(Arc::new(gpu), *precision))
    }

    /// The same operations on an [`Emulator`], for tests.
    ///
    /// # Panics
    /// In [`Precision::Quantised`].
    #[must_use]
    pub fn emulated(emulator: Emulator, precision: Precision) -> Self {
        assert_ne!(precision, Precision::Quantised, "weights do not stay quantised here");
        Self::on(Arc::new(emulator), precision)
    }

    fn on(device: Arc<dyn Device>, precision: Precision) -> Self {
        Self { core: Core::new(device), plans: PlanTables::default(), precision }
    }

    /// Name and architecture of the device.
    #[must_use]
    pub fn device_name(&self) -> String {
        self.core.device.name()
    }

    fn attention<'a>(
        &'a self,
        inputs: [&'a Buffer; 3],
        plan: &'a AttentionPlan,
        shape: AttentionShape,
    ) -> Attention<'a> {
        check_attention(inputs, plan, shape);
        let element = match self.precision {
            Precision::Bf16 => Element::Bf16,
            // No backend is made in quantised precision.
            Precision::F32 | Precision::Quantised => Element::F32,
        };
        Attention { core: &self.core, tables: &self.plans, element, plan, shape, inputs }
    }
}

impl Backend for Cuda {
    fn name(&self) -> String {
        format!("cuda-{}-{}", self.device_name(), self.precision.name())
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn recorded(&self, work: &mut dyn FnMut()) {
        self.core.record(work);
    }

    fn prepare_weight(&self, weight: &mut Buffer, rows: usize, columns: usize) {
        weight.prepare(rows, columns);
    }

    /// # Panics
    /// Always: no CUDA backend has that precision.
    fn quantised_weight(&self, _: &QuantisedMatrix<'_>) -> Buffer {
        panic!("weights do not stay quantised on a CUDA device")
    }

    fn alloc(&self, len: usize) -> Buffer {
        self.core.buffer(len)
    }

    fn peak_memory_bytes(&self) -> Option<u64> {
        Some(self.core.memory.peak_bytes())
    }

    fn upload(&self, data: &[f32]) -> Buffer {
        Buffer::on_device(self.core.upload_bytes(&bytes_of_f32(data)), data.len())
    }

    fn download(&self, buffer: &Buffer, data: &mut [f32]) {
        check(buffer, data.len(), "download");
        self.core.download(buffer.device(), data);
    }

    fn fill(&self, buffer: &mut Buffer, value: f32) {
        let len = buffer.len();
        linear::fill(&self.core, buffer.device_mut().address(), value, len);
    }

    fn copy(&self, from: &Buffer, from_start: usize, to: &mut Buffer, to_start: usize, len: usize) {
        assert!(from_start + len <= from.len(), "copy: source");
        assert!(to_start + len <= to.len(), "copy: destination");
        self.core.copy((from.device(), from_start), (to.device_mut(), to_start), len);
    }

    fn axpy(&self, scale: f32, x: &Buffer, y: &mut Buffer) {
        check(y, x.len(), "axpy");
        elementwise::axpy(&self.core, scale, x, y);
    }

    fn gather_rows(&self, table: &Buffer, ids: &[u32], dim: usize, out: &mut Buffer) {
        check(out, ids.len() * dim, "gather_rows");
        check_ids(ids, table, dim, "gather_rows");
        rows::gather(&self.core, table, ids, dim, out);
    }

    fn scatter_add_rows(&self, rows: &Buffer, ids: &[u32], dim: usize, table: &mut Buffer) {
        check(rows, ids.len() * dim, "scatter_add_rows");
        check_ids(ids, table, dim, "scatter_add_rows");
        rows::scatter_add(&self.core, rows, ids, dim, table);
    }

    fn scatter_rows(&self, rows: &Buffer, ids: &[u32], dim: usize, table: &mut Buffer) {
        check(rows, ids.len() * dim, "scatter_rows");
        check_ids(ids, table, dim, "scatter_rows");
        rows::scatter(&self.core, rows, ids, dim, table);
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
        rows::rms_norm(&self.core, (x, weight), shape, out, inv_rms);
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
        let backward = rows::NormBackward { x, weight, inv_rms, d_out, shape };
        backward.input_gradient(&self.core, d_x);
        if let Some(d_weight) = d_weight {
            check(d_weight, shape.dim, "rms_norm_backward: d_weight");
            backward.add_weight_gradient(&self.core, d_weight);
        }
    }

    fn linear(
        &self,
        x: &Buffer,
        weight: &Buffer,
        bias: Option<&Buffer>,
        shape: LinearShape,
        scale: f32,
        out: (&mut Buffer, Update),
    ) {
        check_linear(x, weight, out.0, shape);
        if let Some(bias) = bias {
            check(bias, shape.output, "linear: bias");
        }
        let forward = linear::Forward { x, weight, bias, shape, scale };
        forward.compute(&self.core, self.precision, out);
    }

    fn linear_backward_input(
        &self,
        d_out: &Buffer,
        weight: &Buffer,
        shape: LinearShape,
        scale: f32,
        d_x: (&mut Buffer, Update),
    ) {
        check_linear(d_x.0, weight, d_out, shape);
        linear::backward_input(&self.core, self.precision, (d_out, weight), (shape, scale), d_x);
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
        let element = linear::element_with(self.precision, weight);
        linear::backward_weight(&self.core, element, (d_out, x), (shape, scale), d_weight);
    }

    fn bias_backward(&self, d_out: &Buffer, tokens: usize, d_bias: &mut Buffer) {
        check(d_out, tokens * d_bias.len(), "bias_backward");
        rows::add_column_sums(&self.core, d_out, tokens, d_bias);
    }

    fn rope(&self, x: &mut Buffer, rotation: Rotation<'_>, turn: RopeTurn) {
        check_rope(x, &rotation);
        rows::rope(&self.core, x, rotation, turn);
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
        rows::rotated_norm(&self.core, (x, weight), operation, out, inv_rms);
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
        rows::rotated_norm_backward(&self.core, (x, weight, inv_rms), operation, d_out, d_x);
        if let Some(d_weight) = d_weight {
            // What turned back lies in place of the gradient.
            let shape = operation.norm_shape();
            let operands = rows::NormBackward { x, weight, inv_rms, d_out, shape };
            operands.add_weight_gradient(&self.core, d_weight);
        }
    }

    fn swiglu(&self, gate: &Buffer, up: &Buffer, out: &mut Buffer) {
        check(up, gate.len(), "swiglu: up");
        check(out, gate.len(), "swiglu: out");
        elementwise::swiglu(&self.core, gate, up, out);
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
        elementwise::swiglu_backward(&self.core, [gate, up, d_out], d_gate, d_up);
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
        check(out, q.len(), "attention: out");
        check(log_sum_exp, shape.queries * shape.heads, "attention: log_sum_exp");
        self.attention([q, k, v], plan, shape).forward(out, log_sum_exp);
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
        for buffer in [out, d_out, &*d_q] {
            check(buffer, q.len(), "attention_backward: queries");
        }
        check(d_k, k.len(), "attention_backward: d_k");
        check(d_v, v.len(), "attention_backward: d_v");
        check(log_sum_exp, shape.queries * shape.heads, "attention_backward: log_sum_exp");
        let results = Results { out, log_sum_exp, d_out };
        self.attention([q, k, v], plan, shape).backward(&results, d_q, (d_k, d_v));
    }

    fn token_statistics(
        &self,
        hidden: &Buffer,
        weight: &Buffer,
        chosen: &ChosenTokens,
        shape: StatisticsShape,
    ) -> TokenStatistics {
        check_statistics([hidden, weight], chosen, shape);
        let operands = (hidden, weight);
        statistics::Statistics::new(&self.core, self.precision, operands, chosen, shape).forward()
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
        check(d_hidden, hidden.len(), "token_statistics_backward: d_hidden");
        check(gradient.chosen, chosen.ids.len(), "token_statistics_backward: chosen");
        check(gradient.log_sum_exp, shape.rows, "token_statistics_backward: log_sum_exp");
        if let Some(entropy) = gradient.entropy {
            check(entropy, shape.rows, "token_statistics_backward: entropy");
        }
        if let Some(d_weight) = d_weight.as_deref() {
            check(d_weight, weight.len(), "token_statistics_backward: d_weight");
        }
        let operands = (hidden, weight);
        statistics::Statistics::new(&self.core, self.precision, operands, chosen, shape)
            .backward(statistics, &gradient, d_hidden, d_weight);
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
        let operands = (hidden, weight);
        sampler::sample(&self.core, self.precision, operands, (shape, options), (ids, logprobs));
    }

    fn add_sum_of_squares(&self, x: &Buffer, accumulator: &mut Buffer) {
        assert!(!accumulator.is_empty(), "add_sum_of_squares: accumulator");
        elementwise::add_sum_of_squares(&self.core, x, accumulator);
    }

    fn adamw(
        &self,
        parameter: &mut Buffer,
        gradient: &Buffer,
        moments: (&mut Buffer, &mut Buffer),
        sum_of_squares: &Buffer,
        step: &AdamW,
    ) {
        check_adamw(parameter, gradient, [&*moments.0, &*moments.1], step);
        elementwise::adamw(&self.core, parameter, (gradient, sum_of_squares), moments, step);
    }
}
