//! Operations on flat arrays, and AdamW.

use super::core::{
    Core, Grid, THREADS, bytes_of_f32, bytes_of_u64, input, number, offset, output, scratch,
};
use super::device::Argument;
use crate::backend::AdamW;
use crate::buffer::Buffer;
use crate::moments::{BLOCK, Moments};

/// Elements of a block that sums squares, and most blocks: they fix the order of the
/// sum.
const SUM_ELEMENTS: usize = 4096;
const MAX_SUMS: usize = 1024;
/// A block of threads takes a block of moments.
const _: () = assert!(THREADS as usize == BLOCK);

fn length(len: usize) -> Argument<'static> {
    Argument::U64(len as u64)
}

pub(crate) fn axpy(core: &Core, scale: f32, x: &Buffer, y: &mut Buffer) {
    let arguments = [Argument::F32(scale), input(x), output(y), length(x.len())];
    core.launch("axpy", Grid::over(x.len()), &arguments);
}

pub(crate) fn swiglu(core: &Core, gate: &Buffer, up: &Buffer, out: &mut Buffer) {
    let arguments = [input(gate), input(up), output(out), length(gate.len())];
    core.launch("swiglu", Grid::over(gate.len()), &arguments);
}

pub(crate) fn swiglu_backward(
    core: &Core,
    [gate, up, d_out]: [&Buffer; 3],
    d_gate: &mut Buffer,
    d_up: &mut Buffer,
) {
    let len = gate.len();
    let [gate, up, d_out] = [gate, up, d_out].map(input);
    let arguments = [gate, up, d_out, output(d_gate), output(d_up), length(len)];
    core.launch("swiglu_backward", Grid::over(len), &arguments);
}

/// `accumulator[0] += Σ x²`, partial sums in f64 and in a fixed order.
pub(crate) fn add_sum_of_squares(core: &Core, x: &Buffer, accumulator: &mut Buffer) {
    let sums = x.len().div_ceil(SUM_ELEMENTS).min(MAX_SUMS);
    let partial = core.take(sums * size_of::<f64>());
    let arguments = [input(x), length(x.len()), scratch(&partial)];
    core.launch("sum_of_squares", Grid::blocks(sums), &arguments);
    let arguments = [scratch(&partial), Argument::U32(number(sums)), output(accumulator)];
    core.launch("add_partial_squares", Grid::blocks(1), &arguments);
}

/// One step on one parameter; the clip is computed where the norm is.
pub(crate) fn adamw(
    core: &Core,
    parameter: &mut Buffer,
    (gradient, sum_of_squares): (&Buffer, &Buffer),
    (first, second): (&mut Buffer, &mut Buffer),
    step: &AdamW,
) {
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(step.step as f64);
    let learning_rate = f64::from(step.learning_rate);
    let numbers = bytes_of_f32(&[
        step.gradient_scale,
        step.max_norm,
        step.beta1,
        step.beta2,
        (learning_rate / correction(step.beta1)) as f32,
        (1.0 / correction(step.beta2).sqrt()) as f32,
        step.eps,
        (1.0 - learning_rate * f64::from(step.weight_decay)) as f32,
    ]);
    let len = parameter.len();
    let parameter = output(parameter);
    let (gradient, squares) = (input(gradient), input(sum_of_squares));
    let (numbers, elements) = (Argument::Bytes(&numbers), length(len));
    match step.moments {
        Moments::Single => {
            let moments = [output(first), output(second)];
            let [first, second] = moments;
            let arguments = [parameter, gradient, first, second, squares, numbers, elements];
            core.launch("adamw", Grid::over(len), &arguments);
        }
        Moments::EightBits => {
            let moments = eight_bits(first, second, len);
            let (moments, step) = (Argument::Bytes(&moments), Argument::U32(step.step as u32));
            let arguments = [parameter, gradient, moments, squares, numbers, step, elements];
            core.launch("adamw_eight_bits", Grid::over(len), &arguments);
        }
    }
}

/// The layout of `EightBits` in `elementwise.cu`.
fn eight_bits(first: &mut Buffer, second: &mut Buffer, len: usize) -> Vec<u8> {
    let codes = [first, second].map(|buffer| buffer.device_mut().address());
    let scales = codes.map(|at| offset(at, len.div_ceil(BLOCK) * BLOCK, size_of::<u8>()));
    bytes_of_u64(&[codes, scales].concat())
}
