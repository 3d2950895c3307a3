//! Whether a device computes what the CPU computes, on one small training step.
//!
//! A driver, a library or a kernel that has never met a certain device may be wrong
//! without saying so. The step runs forward and backward over a tree before a device is
//! chosen that nobody named; the optimiser and the sampler it leaves out.

use std::sync::Arc;

use patarm_kernels::{Backend, Cpu, CpuOptions, Precision, random};

use crate::decoder::{Decoder, ForwardOptions};
use crate::error::Error;
use crate::forest::Forest;
use crate::parameters::Gradients;
use crate::shape::DecoderShape;
use crate::targets::TargetRows;

/// Head width of most models.
const HEAD: usize = 64;
const VOCAB: usize = 300;
/// Largest difference, relative to the largest value of a result: what the two may differ
/// by because they add in another order, or round operands to bfloat16 (eight
/// bits, over a few dozen roundings in a row).
const SINGLE: f32 = 1e-3;
const ROUNDED: f32 = 6e-2;

/// Whether log-probabilities and gradients of a small step are those of the CPU.
///
/// # Errors
/// When the step does not fit the backend.
pub fn agrees_with_cpu(backend: &Arc<dyn Backend>) -> Result<bool, Error> {
    let precision = backend.precision();
    let options = CpuOptions { threads: 1, precision, ..CpuOptions::default() };
    let Some(cpu) = Cpu::with_options(&options) else { return Ok(false) };
    let tolerance = match precision {
        Precision::F32 => SINGLE,
        Precision::Bf16 | Precision::Quantised => ROUNDED,
    };
    let (found, expected) = (step(backend)?, step(&(Arc::new(cpu) as _))?);
    let mut pairs = found.iter().zip(&expected);
    Ok(found.len() == expected.len() && pairs.all(|(a, b)| is_close(a, b, tolerance)))
}

fn is_close(found: &[f32], expected: &[f32], tolerance: f32) -> bool {
    // A result of smaller values is held to a thousandth, not to nothing.
    let largest = expected.iter().fold(1e-3_f32, |largest, x| largest.max(x.abs()));
    let mut pairs = found.iter().zip(expected);
    // A NaN is not close.
    found.len() == expected.len() && pairs.all(|(a, b)| (a - b).abs() <= tolerance * largest)
}

/// Log-probabilities, and the gradient of every parameter.
fn step(backend: &Arc<dyn Backend>) -> Result<Vec<Vec<f32>>, Error> {
    let decoder = Decoder::random(Arc::clone(backend), shape(), 1);
    let (forest, targets) = forest();
    let mut gradients = Gradients::zeros(backend.as_ref(), &decoder.parameters);
    let saved = decoder.forward(&forest, &ForwardOptions::default())?;
    let statistics = decoder.target_statistics_for_backward(&saved.hidden, &targets, 1.0);
    let slopes = vec![-0.1; statistics.logprobs.len()];
    let d_hidden =
        decoder.target_statistics_backward(&saved, &statistics, &slopes, None, &mut gradients);
    decoder.backward(&saved, &d_hidden, &[], &mut gradients);
    let mut results = vec![statistics.logprobs];
    for gradient in decoder.parameters.iter().filter_map(|(id, _)| gradients.get(id)) {
        let mut values = vec![0.0; gradient.len()];
        backend.download(gradient, &mut values);
        results.push(values);
    }
    Ok(results)
}

fn shape() -> DecoderShape {
    DecoderShape {
        hidden: 2 * HEAD,
        intermediate: 3 * HEAD,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: HEAD,
        vocab: VOCAB,
        norm_eps: 1e-5,
        inverse_frequencies: (0..HEAD / 2).map(|n| 0.75_f32.powi(n as i32)).collect(),
        max_positions: 512,
        qkv_bias: true,
        qk_norm: true,
        tied: true,
    }
}

/// A prompt and two responses, longer than a block of keys.
fn forest() -> (Forest, TargetRows) {
    let tokens = |len: usize, stream: u64| -> Vec<u32> {
        (0..len).map(|n| random::below(VOCAB, 5, &[stream, n as u64]) as u32).collect()
    };
    let (mut forest, mut targets) = (Forest::new(), TargetRows::new());
    let prompt = forest.add(None, &tokens(70, 0));
    for response in 1..3 {
        let leaf = forest.add(Some(prompt), &tokens(20, response));
        targets.push_segment(&forest, leaf, 0);
    }
    (forest, targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_agrees_with_itself_in_every_precision() {
        for precision in [Precision::F32, Precision::Bf16] {
            let options = CpuOptions { threads: 2, precision, ..CpuOptions::default() };
            let cpu = Cpu::with_options(&options).expect("detected instructions are present");
            assert!(agrees_with_cpu(&(Arc::new(cpu) as _)).expect("runs"));
        }
        assert!(agrees_with_cpu(&(Arc::new(Cpu::portable(1)) as _)).expect("runs"));
    }

    #[test]
    fn numbers_that_differ_or_are_none_are_seen() {
        assert!(is_close(&[1.0, -2.0], &[1.001, -2.001], 1e-3));
        assert!(!is_close(&[1.0, -2.0], &[1.01, -2.0], 1e-3));
        assert!(!is_close(&[f32::NAN, -2.0], &[1.0, -2.0], 1e-3));
        assert!(!is_close(&[1.0], &[1.0, 0.0], 1e-3));
        // Small gradients are held to their own size.
        assert!(!is_close(&[2e-3, 0.0], &[1e-3, 0.0], 1e-3));
    }

    /// What a wrong kernel looks like from above: bfloat16 where single precision was
    /// promised.
    #[test]
    fn rounded_products_do_not_pass_for_single_precision() {
        let options = CpuOptions { precision: Precision::Bf16, ..CpuOptions::default() };
        let cpu = Cpu::with_options(&options).expect("detected instructions are present");
        let [rounded, single] =
            [cpu, Cpu::new(1)].map(|cpu| step(&(Arc::new(cpu) as _)).expect("runs"));
        let mut pairs = rounded.iter().zip(&single);
        assert!(pairs.clone().any(|(a, b)| !is_close(a, b, SINGLE)));
        assert!(pairs.all(|(a, b)| is_close(a, b, ROUNDED)));
    }
}
