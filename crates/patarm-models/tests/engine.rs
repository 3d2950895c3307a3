//! The generation engine: equal to plain forwards, whatever else it is doing.

mod support;

use patarm_models::kernels::SamplingOptions;
use patarm_models::{
    Decoder, Engine, EngineLimits, Forest, ForwardOptions, Generation, GenerationRequest,
    StopReason, TargetRows,
};
use support::{tiny, tiny_in_both};

fn request(prompt: &[&[u32]], sequence: u64) -> GenerationRequest {
    GenerationRequest {
        prompt: prompt.iter().map(|segment| segment.to_vec()).collect(),
        max_new_tokens: 12,
        sampling: SamplingOptions {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 7,
            sequence,
            position: 0,
        },
        stop_ids: vec![],
        stop_rule: None,
        readout: vec![],
    }
}

fn run(
    decoder: &Decoder,
    requests: Vec<GenerationRequest>,
    limits: EngineLimits,
) -> Vec<Generation> {
    let mut engine = Engine::new(decoder, limits);
    for request in requests {
        engine.submit(request).expect("fits");
    }
    engine.run()
}

fn roomy() -> EngineLimits {
    EngineLimits { slots: 4096, max_active: 64, prefill_tokens: 64, page: 64 }
}

fn several() -> Vec<GenerationRequest> {
    let shared: Vec<u32> = (1..40).collect();
    (0..9)
        .map(|n| {
            let own = [n % 3 + 1, 5, 6];
            request(&[&shared, &own[..(n % 3 + 1) as usize], &[8]], u64::from(n))
        })
        .collect()
}

#[test]
fn a_generation_does_not_depend_on_what_runs_beside_it() {
    let names = ["tiny-llama", "tiny-qwen2", "tiny-qwen3"];
    for decoder in names.into_iter().flat_map(tiny_in_both) {
        let name = decoder.backend.name();
        let together = run(&decoder, several(), roomy());
        let tight = EngineLimits { slots: 60, max_active: 2, prefill_tokens: 8, page: 64 };
        let squeezed = run(&decoder, several(), tight);
        for (n, alone) in several().into_iter().enumerate() {
            let alone = run(&decoder, vec![alone], roomy());
            assert_eq!(alone[0].tokens, together[n].tokens, "{name}");
            assert_eq!(alone[0].logprobs, together[n].logprobs, "{name}");
            assert_eq!(squeezed[n].logprobs, together[n].logprobs, "{name}");
        }
    }
}

#[test]
fn sequences_that_give_way_end_as_if_they_had_not() {
    for decoder in tiny_in_both("tiny-qwen3") {
        let asked = || {
            several().into_iter().map(|mut request| {
                request.readout = vec![vec![4], vec![11, 3, 2]];
                let length = 5 + request.sampling.sequence as usize % 6;
                request.stop_rule = Some(Box::new(move |tokens| tokens.len() == length));
                request
            })
        };
        let expected = run(&decoder, asked().collect(), roomy());
        // Prompts take 48 slots of these, sequences up to 15 each.
        let limits = EngineLimits { slots: 90, page: 2, ..roomy() };
        let mut engine = Engine::new(&decoder, limits);
        for request in asked() {
            engine.submit(request).expect("fits");
        }
        let found = engine.run();
        assert_eq!(found, expected, "{}", decoder.backend.name());
        let counters = engine.counters();
        assert!(counters.preemptions > 0 && counters.recomputed_tokens > 0, "{counters:?}");
        let drawn: usize = found.iter().map(|one| one.tokens.len()).sum();
        assert!(counters.recomputed_tokens < 10 * drawn as u64, "{counters:?}");
    }
}

#[test]
fn a_sequence_takes_no_more_slots_than_it_grows_to() {
    let decoder = tiny("tiny-llama");
    let asked = || {
        (0..8).map(|n| {
            let mut request = request(&[&[1, 2, 3]], n);
            request.max_new_tokens = 100;
            request.stop_rule = Some(Box::new(|tokens| tokens.len() == 6));
            request
        })
    };
    // All that they might need is ten times as much.
    let mut engine = Engine::new(&decoder, EngineLimits { slots: 110, page: 4, ..roomy() });
    for request in asked() {
        engine.submit(request).expect("fits");
    }
    engine.step();
    assert_eq!(engine.progress().count(), 8, "all of them run at once");
    assert_eq!(engine.run(), run(&decoder, asked().collect(), roomy()));
    assert_eq!(engine.counters().preemptions, 0);
}

#[test]
fn a_sequence_cancelled_while_it_waits_for_slots_keeps_what_it_has() {
    let decoder = tiny("tiny-llama");
    let mut engine = Engine::new(&decoder, EngineLimits { slots: 26, page: 2, ..roomy() });
    let ids: Vec<_> =
        (0..3).map(|n| engine.submit(request(&[&[1, 2]], n)).expect("fits")).collect();
    while engine.counters().preemptions == 0 {
        engine.step();
    }
    let waiting = ids.into_iter().rfind(|id| engine.progress().all(|(running, _)| running != *id));
    let waiting = waiting.expect("one waits");
    engine.cancel(waiting);
    let rest = engine.run();
    let cancelled = rest.iter().find(|one| one.id == waiting).expect("returned");
    assert_eq!(cancelled.stop, StopReason::Cancelled);
    assert!(!cancelled.tokens.is_empty());
}

#[test]
fn rollout_log_probabilities_equal_the_training_forward_bit_for_bit() {
    for decoder in tiny_in_both("tiny-llama") {
        for (request, generation) in several().into_iter().zip(run(&decoder, several(), roomy())) {
            let prompt: Vec<u32> = request.prompt.concat();
            let mut forest = Forest::new();
            let root = forest.add(None, &prompt);
            let leaf = forest.add(Some(root), &generation.tokens);
            let mut targets = TargetRows::new();
            targets.push_segment(&forest, leaf, 0);
            let saved = decoder.forward(&forest, &ForwardOptions::default()).expect("forward");
            let statistics = decoder.target_statistics(&saved.hidden, &targets, 1.0);
            assert_eq!(statistics.logprobs, generation.logprobs, "{}", decoder.backend.name());
        }
    }
}

#[test]
fn read_out_probabilities_equal_a_plain_forward() {
    let decoder = tiny("tiny-qwen3");
    let branches = vec![vec![4], vec![4, 9], vec![11, 3, 2]];
    let mut asked = request(&[&[1, 2, 3], &[9, 8]], 3);
    asked.readout.clone_from(&branches);
    asked.stop_rule = Some(Box::new(|tokens| tokens.len() == 5));
    let generation = &run(&decoder, vec![asked], roomy())[0];
    assert_eq!(generation.stop, StopReason::StopRule);
    for (branch, found) in branches.iter().zip(&generation.readout) {
        let mut row = vec![1, 2, 3, 9, 8];
        row.extend(&generation.tokens);
        let start = row.len();
        row.extend(branch);
        let mut forest = Forest::new();
        let root = forest.add(None, &row);
        let mut targets = TargetRows::new();
        targets.push_segment(&forest, root, start);
        let saved = decoder.forward(&forest, &ForwardOptions::default()).expect("forward");
        let statistics = decoder.target_statistics(&saved.hidden, &targets, 1.0);
        let expected: f64 = statistics.logprobs.iter().map(|logprob| f64::from(*logprob)).sum();
        assert_eq!(*found, expected);
    }
}

#[test]
fn shared_prefixes_are_computed_once() {
    let decoder = tiny("tiny-llama");
    let mut engine = Engine::new(&decoder, roomy());
    for n in 0..8 {
        engine.submit(request(&[&[1; 30], &[2; 5]], n)).expect("fits");
    }
    engine.run();
    assert_eq!(engine.counters().prefill_tokens, 35);
    assert_eq!(engine.counters().shared_tokens, 7 * 35);
}

#[test]
fn cancelled_and_stopped_sequences_end_early() {
    let decoder = tiny("tiny-llama");
    let mut engine = Engine::new(&decoder, roomy());
    let cancelled = engine.submit(request(&[&[1, 2]], 0)).expect("fits");
    let going = engine.submit(request(&[&[1, 2]], 1)).expect("fits");
    engine.step();
    engine.cancel(cancelled);
    let finished = engine.run();
    assert_eq!(finished.iter().map(|one| one.id).collect::<Vec<_>>(), [cancelled, going]);
    assert_eq!(finished[0].stop, StopReason::Cancelled);
    assert_eq!(finished[0].tokens.len(), 1);
    assert_eq!(finished[1].stop, StopReason::MaxTokens);

    let first = finished[1].tokens[0];
    let mut stops = request(&[&[1, 2]], 1);
    stops.stop_ids = vec![first];
    let stopped = run(&decoder, vec![stops], roomy());
    assert_eq!((stopped[0].stop, stopped[0].tokens.len()), (StopReason::StopToken, 1));
}

#[test]
fn what_can_never_fit_is_refused_at_once() {
    let decoder = tiny("tiny-llama");
    let mut engine = Engine::new(&decoder, EngineLimits { slots: 20, ..roomy() });
    assert!(engine.submit(request(&[&[1; 30]], 0)).is_err());
    assert!(engine.submit(request(&[&[1, 2], &[]], 0)).is_err());
    assert!(engine.submit(request(&[&[1, 70_000]], 0)).is_err());
    let mut long = Engine::new(&decoder, roomy());
    assert!(long.submit(request(&[&[1; 250]], 0)).is_err(), "the model has 256 positions");
}
