//! AdamW (Loshchilov & Hutter, arXiv 1711.05101, algorithm 2) in one pass.

mod eight_bits;

use super::Cpu;
use super::simd::{Kernel, LANES, Simd};
use super::threads::ELEMENTS;
use crate::backend::AdamW;
use crate::moments::Moments;

/// The numbers of one step that every element shares.
#[derive(Clone, Copy)]
struct Step {
    /// What gradients are multiplied by: the caller's scale and the clip.
    gradient_scale: f32,
    beta1: f32,
    beta2: f32,
    /// Learning rate over the first moment's bias correction.
    step_size: f32,
    /// One over the root of the second moment's bias correction.
    root_correction: f32,
    eps: f32,
    /// `1 - learning_rate · weight_decay`.
    keep: f32,
}

impl Step {
    fn new(step: &AdamW, sum_of_squares: f32) -> Self {
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(step.step as f64);
        let learning_rate = f64::from(step.learning_rate);
        Self {
            gradient_scale: step.gradient_scale * clip(step, sum_of_squares),
            beta1: step.beta1,
            beta2: step.beta2,
            step_size: (learning_rate / correction(step.beta1)) as f32,
            root_correction: (1.0 / correction(step.beta2).sqrt()) as f32,
            eps: step.eps,
            keep: (1.0 - learning_rate * f64::from(step.weight_decay)) as f32,
        }
    }
}

/// `min(1, max_norm / (g + 1e-6))` with `g` the norm of the scaled gradients.
fn clip(step: &AdamW, sum_of_squares: f32) -> f32 {
    if step.max_norm <= 0.0 {
        return 1.0;
    }
    let norm = f64::from(sum_of_squares).sqrt() * f64::from(step.gradient_scale).abs();
    (f64::from(step.max_norm) / (norm + 1e-6)).min(1.0) as f32
}

pub(crate) fn update(
    cpu: &Cpu,
    (parameter, gradient): (&mut [f32], &[f32]),
    (first, second): (&mut [f32], &mut [f32]),
    sum_of_squares: f32,
    step: &AdamW,
) {
    let numbers = Step::new(step, sum_of_squares);
    match step.moments {
        Moments::Single => single(cpu, (parameter, gradient), (first, second), numbers),
        Moments::EightBits => {
            let step = (numbers, step.step as u32);
            eight_bits::update(cpu, (parameter, gradient), (first, second), step);
        }
    }
}

fn single(
    cpu: &Cpu,
    (parameter, gradient): (&mut [f32], &[f32]),
    (first, second): (&mut [f32], &mut [f32]),
    step: Step,
) {
    let values = parameter.chunks_mut(ELEMENTS).zip(gradient.chunks(ELEMENTS));
    let moments = first.chunks_mut(ELEMENTS).zip(second.chunks_mut(ELEMENTS));
    let mut updates: Vec<_> = values
        .zip(moments)
        .map(|((parameter, gradient), moments)| {
            Some(Update { step, operands: Operands { parameter, gradient, moments } })
        })
        .collect();
    cpu.threads.each_chunk(&mut updates, 1, |_, update| {
        update.iter_mut().filter_map(Option::take).for_each(|update| cpu.isa.run(update));
    });
}

/// Parts of equal length of a parameter and what belongs to it.
struct Operands<'a> {
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    /// First and second.
    moments: (&'a mut [f32], &'a mut [f32]),
}

struct Update<'a> {
    step: Step,
    operands: Operands<'a>,
}

impl Kernel for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        advance(simd, self.step, self.operands);
    }
}

#[inline(always)]
fn advance<S: Simd>(simd: S, step: Step, operands: Operands<'_>) {
    let (keep, scale, eps) =
        (simd.splat(step.keep), simd.splat(step.gradient_scale), simd.splat(step.eps));
    let (beta1, rest1) = (simd.splat(step.beta1), simd.splat(1.0 - step.beta1));
    let (beta2, rest2) = (simd.splat(step.beta2), simd.splat(1.0 - step.beta2));
    let (step_size, root) = (simd.splat(-step.step_size), simd.splat(step.root_correction));
    let Operands { parameter, gradient, moments: (first, second) } = operands;
    let moments = first.chunks_mut(LANES).zip(second.chunks_mut(LANES));
    let values = parameter.chunks_mut(LANES).zip(gradient.chunks(LANES));
    for ((parameter, gradient), (first, second)) in values.zip(moments) {
        let gradient = simd.mul(simd.load_part(gradient, 0.0), scale);
        let m = simd.mul(beta1, simd.load_part(first, 0.0));
        let m = simd.mul_add(rest1, gradient, m);
        let v = simd.mul(beta2, simd.load_part(second, 0.0));
        let v = simd.mul_add(simd.mul(rest2, gradient), gradient, v);
        let divisor = simd.mul_add(simd.sqrt(v), root, eps);
        let kept = simd.mul(simd.load_part(parameter, 0.0), keep);
        let value = simd.mul_add(step_size, simd.div(m, divisor), kept);
        simd.store_part(m, first);
        simd.store_part(v, second);
        simd.store_part(value, parameter);
    }
}
