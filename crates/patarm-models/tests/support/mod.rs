//! Shared pieces of the model tests.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses a part")]

use std::path::PathBuf;
use std::sync::Arc;

use patarm_models::kernels::{Backend, Cpu, CpuOptions, Precision};
use patarm_models::{
    Decoder, Forest, ForwardOptions, Gradients, ParameterId, SegmentId, TargetRows,
};

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

/// Two pairs that share prompts, and the rows of the last tokens.
pub fn pairs() -> (Forest, Vec<usize>) {
    let mut forest = Forest::new();
    let mut rows = Vec::new();
    for (prompt, sides) in
        [([5, 6, 7], [vec![8, 9], vec![10]]), ([11, 12, 13], [vec![1, 2, 3], vec![4, 4]])]
    {
        let root = forest.add(None, &prompt);
        for side in sides {
            let leaf = forest.add(Some(root), &side);
            rows.push(forest.last_row(leaf));
        }
    }
    (forest, rows)
}

/// Σ sin(value · (n + 1)), a loss whose gradient no symmetry makes zero, and its gradient.
pub fn loss_of(values: &[f32]) -> (f64, Vec<f32>) {
    let each = values.iter().enumerate();
    let weighted = |n: usize, value: f32| f64::from(value) * (n + 1) as f64;
    let loss = each.clone().map(|(n, value)| weighted(n, *value).sin()).sum();
    let gradient = each.map(|(n, value)| (weighted(n, *value).cos() * (n + 1) as f64) as f32);
    (loss, gradient.collect())
}

/// How far a parameter is moved, and how far apart both gradients may be.
#[derive(Clone, Copy)]
pub struct Differences {
    pub step: f32,
    pub tolerance: f64,
}

/// Holds the largest element of a parameter's gradient against central differences.
pub fn check_parameter(
    decoder: &mut Decoder,
    (id, gradients): (ParameterId, &Gradients),
    Differences { step, tolerance }: Differences,
    loss: &dyn Fn(&Decoder) -> f64,
    name: &str,
) {
    let gradient = gradients.get(id).expect("trainable").host().to_vec();
    let largest =
        (0..gradient.len()).max_by(|a, b| gradient[*a].abs().total_cmp(&gradient[*b].abs()));
    let element = largest.expect("elements");
    let mut moved = |by: f32| {
        decoder.parameters.get_mut(id).value.host_mut()[element] += by;
        let value = loss(decoder);
        decoder.parameters.get_mut(id).value.host_mut()[element] -= by;
        value
    };
    let numeric = (moved(step) - moved(-step)) / f64::from(2.0 * step);
    let exact = f64::from(gradient[element]);
    let parameter = &decoder.parameters.get(id).name;
    assert!(exact != 0.0, "{name} {parameter}: no gradient");
    assert!(
        (numeric - exact).abs() <= tolerance * exact.abs().max(0.05),
        "{name} {parameter}: {exact} by the backward, {numeric} by differences"
    );
}
