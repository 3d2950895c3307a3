//! Whole training steps and generation.

use std::sync::Arc;

use patarm_models::kernels::{Backend, Precision, SamplingOptions};
use patarm_models::{
    AdamWConfig, Decoder, DecoderShape, Engine, EngineLimits, Forest, ForwardOptions,
    GenerationRequest, Gradients, Optimizer, OptimizerStates, TargetRows, agrees_with_cpu,
};

use crate::{below, close, cpu, devices, download, unrecorded};

/// A small decoder with everything a real one may have.
fn shape(qkv_bias: bool, qk_norm: bool, tied: bool) -> DecoderShape {
    DecoderShape {
        hidden: 48,
        intermediate: 80,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        vocab: 150,
        norm_eps: 1e-5,
        inverse_frequencies: (0..8).map(|n| 10_000f32.powf(-(n as f32) / 8.0)).collect(),
        max_positions: 512,
        qkv_bias,
        qk_norm,
        tied,
    }
}

fn tokens(len: usize, stream: u64) -> Vec<u32> {
    (0..len).map(|n| below(150, stream, n) as u32).collect()
}

/// A prompt, two responses, two judgements each.
fn forest() -> (Forest, TargetRows) {
    let (mut forest, mut targets) = (Forest::new(), TargetRows::new());
    let prompt = forest.add(None, &tokens(40, 50));
    for response in 0..2 {
        let response = forest.add(Some(prompt), &tokens(9, 51 + response));
        for judgement in 0..2 {
            let leaf = forest.add(Some(response), &tokens(5, 60 + judgement));
            targets.push_segment(&forest, leaf, 0);
        }
    }
    (forest, targets)
}

/// Two steps: log-probabilities before each and parameters at the end.
fn train(backend: &Arc<dyn Backend>, shape: DecoderShape) -> Vec<Vec<f32>> {
    let mut decoder = Decoder::random(Arc::clone(backend), shape, 3);
    let mut optimizer = Optimizer::new(backend.as_ref(), &decoder.parameters, OptimizerStates::F32);
    let (forest, targets) = forest();
    let mut results = Vec::new();
    for _ in 0..2 {
        let mut gradients = Gradients::zeros(backend.as_ref(), &decoder.parameters);
        let saved = decoder.forward(&forest, &ForwardOptions::default()).expect("forward");
        let statistics = decoder.target_statistics(&saved.hidden, &targets, 1.0);
        let d_logprobs = vec![-0.1; statistics.logprobs.len()];
        let d_hidden = decoder.target_statistics_backward(
            &saved,
            &statistics,
            &d_logprobs,
            None,
            &mut gradients,
        );
        decoder.backward(&saved, &d_hidden, &[], &mut gradients);
        let config = AdamWConfig::default();
        optimizer.update(
            backend.as_ref(),
            &mut decoder.parameters,
            &gradients,
            &config,
            (1e-3, 1.0),
        );
        results.push(statistics.logprobs);
        let ids = decoder.parameters.iter().map(|(id, _)| id).collect::<Vec<_>>();
        let gradients = ids.iter().filter_map(|&id| gradients.get(id));
        results.extend(gradients.map(|gradient| download(backend.as_ref(), gradient)));
    }
    results
}

#[test]
fn training_steps() {
    for (precision, tolerance) in [(Precision::F32, 2e-4), (Precision::Bf16, 3e-2)] {
        let shapes =
            [shape(false, false, true), shape(true, false, false), shape(false, true, true)];
        for shape in shapes {
            // Single operations have met threads in the other order.
            let Some(cuda) = devices(precision).into_iter().next() else { return };
            let expected = train(&(Arc::new(cpu(precision)) as _), shape.clone());
            let found = train(&(Arc::new(cuda) as _), shape.clone());
            assert_eq!(found.len(), expected.len());
            for (n, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(expected.iter().any(|&x| x != 0.0), "{precision:?} {n} is zero");
                close(&format!("{precision:?} {n}"), found, expected, tolerance);
            }
        }
    }
}

#[test]
fn the_check_before_a_device_is_chosen() {
    for precision in [Precision::F32, Precision::Bf16] {
        if let Some(cuda) = devices(precision).into_iter().next() {
            assert!(agrees_with_cpu(&(Arc::new(cuda) as _)).expect("runs"), "{precision:?}");
        }
    }
}

/// Prompts that share a prefix.
fn generate(backend: Arc<dyn Backend>) -> Vec<(Vec<u32>, Vec<f32>)> {
    let decoder = Decoder::random(backend, shape(false, true, true), 3);
    let limits = EngineLimits { slots: 1024, max_active: 8, prefill_tokens: 32, page: 4 };
    let mut engine = Engine::new(&decoder, limits);
    for sequence in 0..5 {
        let sampling = SamplingOptions {
            temperature: 1.0,
            top_k: 20,
            top_p: 0.95,
            min_p: 0.0,
            seed: 7,
            sequence,
            position: 0,
        };
        let request = GenerationRequest {
            prompt: vec![tokens(30, 70), tokens(3, 71 + sequence)],
            max_new_tokens: 6,
            sampling,
            stop_ids: vec![],
            stop_rule: None,
            readout: vec![],
        };
        engine.submit(request).expect("fits");
    }
    let mut generations = engine.run();
    generations.sort_by_key(|generation| generation.id);
    generations.into_iter().map(|generation| (generation.tokens, generation.logprobs)).collect()
}

#[test]
fn generation() {
    let devices = devices(Precision::F32);
    if devices.is_empty() {
        return;
    }
    let expected = generate(Arc::new(cpu(Precision::F32)));
    for cuda in devices.into_iter().chain(unrecorded()) {
        for (found, expected) in generate(Arc::new(cuda)).iter().zip(&expected) {
            assert_eq!(found.0, expected.0);
            close("logprobs", &found.1, &expected.1, 1e-4);
        }
    }
}
