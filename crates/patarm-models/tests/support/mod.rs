//! Shared pieces of the model tests.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses a part")]

use std::path::PathBuf;
use std::sync::Arc;

use patarm_models::kernels::{Backend, Cpu, CpuOptions, Precision};
use patarm_models::{Decoder, Forest, ForwardOptions, Gradients, SegmentId, TargetRows};

/// A file of the shared test data.
pub fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

/// The CPU.
pub fn cpu() -> Arc<dyn Backend> {
    Arc::new(Cpu::new(2))
}

/// A tiny model of the shared test data.
pub fn tiny(name: &str) -> Decoder {
    Decoder::load(cpu(), &testdata("models").join(name)).expect("tiny model loads")
}

/// A backend in bfloat16, emulated where the processor lacks it.
pub fn bf16(threads: usize) -> Arc<dyn Backend> {
    let options = CpuOptions { threads, precision: Precision::Bf16, ..CpuOptions::default() };
    Arc::new(Cpu::with_options(&options).expect("detected instructions are present"))
}

/// A tiny model in single precision and in bfloat16.
pub fn tiny_in_both(name: &str) -> [Decoder; 2] {
    [cpu(), bf16(2)].map(|backend| {
        Decoder::load(backend, &testdata("models").join(name)).expect("tiny model loads")
    })
}

/// Roots of a forest, all tokens but the first of each a target.
pub fn rows(sequences: &[Vec<u32>]) -> (Forest, TargetRows, Vec<SegmentId>) {
    let (mut forest, mut targets, mut roots) = (Forest::new(), TargetRows::new(), Vec::new());
    for sequence in sequences {
        let root = forest.add(None, sequence);
        targets.push_segment(&forest, root, 1);
        roots.push(root);
    }
    (forest, targets, roots)
}

/// Loss `-Σ weight · logprob` and its gradients.
pub fn loss_and_gradients(
    decoder: &Decoder,
    forest: &Forest,
    targets: &TargetRows,
    weights: &[f32],
    options: &ForwardOptions,
) -> (f64, Gradients) {
    let mut gradients = Gradients::zeros(decoder.backend.as_ref(), &decoder.parameters);
    let saved = decoder.forward(forest, options).expect("forward");
    let statistics = decoder.target_statistics(&saved.hidden, targets, 1.0);
    let loss = -statistics.logprobs.iter().zip(weights).map(|(l, w)| f64::from(l * w)).sum::<f64>();
    let d_logprobs: Vec<f32> = weights.iter().map(|weight| -weight).collect();
    let d_hidden =
        decoder.target_statistics_backward(&saved, &statistics, &d_logprobs, None, &mut gradients);
    decoder.backward(&saved, &d_hidden, &[], &mut gradients);
    (loss, gradients)
}

/// Norm of the difference over norm of the reference.
pub fn relative_error(found: &[f32], reference: &[f32]) -> f64 {
    let difference: f64 = found.iter().zip(reference).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let norm: f64 = reference.iter().map(|b| f64::from(*b).powi(2)).sum();
    (difference / norm.max(1e-30)).sqrt()
}
