//! Heads read at the ends of steps: gradients by finite differences, prefixes, files.

mod support;

use patarm_models::files::{RewardConfig, RewardFamily, StepConfig, StoredType, open_model};
use patarm_models::reward_checkpoint::save_reward_model;
use patarm_models::{
    Decoder, ErrorKind, Forest, ForwardOptions, Gradients, HeadInit, ParameterId, StepHead,
    StepHeadShape,
};
use support::{Differences, check_parameter, cpu, loss_of, testdata};

const NORMAL: HeadInit = HeadInit::Normal { std: 0.5 };
const DIFFERENCES: Differences = Differences { step: 1e-3, tolerance: 3e-2 };
const ONE: StepHeadShape = StepHeadShape { layers: 1, outputs: 2 };
const TWO: StepHeadShape = StepHeadShape { layers: 2, outputs: 2 };

fn decoder(name: &str) -> Decoder {
    let files = open_model(&testdata("models").join(name)).expect("model");
    Decoder::body_from_files(cpu(), &files).expect("decoder")
}

/// A prompt and three steps in a row, and the rows at their ends.
fn steps() -> (Forest, Vec<usize>) {
    let mut forest = Forest::new();
    let mut last = forest.add(None, &[5, 6, 7]);
    let mut rows = Vec::new();
    for step in [&[8, 9][..], &[10], &[1, 2, 3]] {
        last = forest.add(Some(last), step);
        rows.push(forest.last_row(last));
    }
    (forest, rows)
}

fn loss(decoder: &Decoder, head: &StepHead) -> f64 {
    let (forest, rows) = steps();
    let (hidden, _) = decoder.infer(&forest, &[]).expect("runs");
    loss_of(&head.forward(decoder, &hidden, &rows).values).0
}

#[test]
fn gradients_through_one_and_two_layers_are_finite_differences() {
    for shape in [ONE, TWO] {
        let mut decoder = decoder("tiny-qwen2");
        let head = StepHead::attach(&mut decoder, "score", shape, (NORMAL, 1));
        let (forest, rows) = steps();
        let saved = decoder.forward(&forest, &ForwardOptions::default()).expect("runs");
        let output = head.forward(&decoder, &saved.hidden, &rows);
        assert_eq!(output.values.len(), 6);
        let (_, d_values) = loss_of(&output.values);
        let mut gradients = Gradients::zeros(decoder.backend.as_ref(), &decoder.parameters);
        let d_hidden = head.backward(&decoder, &output, &d_values, &mut gradients);
        decoder.backward(&saved, &d_hidden, &[], &mut gradients);
        let of_head = decoder.parameters.iter().filter(|(_, parameter)| parameter.is_head);
        let mut checked: Vec<ParameterId> = of_head.map(|(id, _)| id).collect();
        assert_eq!(checked.len(), 2 * shape.layers, "each layer has a matrix and a bias");
        checked.extend([decoder.final_norm, decoder.blocks[0].q.weight]);
        for id in checked {
            check_parameter(&mut decoder, (id, &gradients), DIFFERENCES, &|d| loss(d, &head), "");
        }
    }
}

#[test]
fn a_later_step_changes_no_earlier_value() {
    let mut decoder = decoder("tiny-llama");
    let head = StepHead::attach(&mut decoder, "score", TWO, (NORMAL, 1));
    let (forest, rows) = steps();
    let (hidden, _) = decoder.infer(&forest, &[]).expect("runs");
    let all = head.forward(&decoder, &hidden, &rows).values;
    let mut shorter = Forest::new();
    let prompt = shorter.add(None, &[5, 6, 7]);
    let first = shorter.add(Some(prompt), &[8, 9]);
    let (hidden, _) = decoder.infer(&shorter, &[]).expect("runs");
    let alone = head.forward(&decoder, &hidden, &[shorter.last_row(first)]).values;
    assert_eq!(alone, all[..2], "equal to the last bit");
}

#[test]
fn heads_survive_their_files_and_a_missing_layer_is_refused() {
    for (layers, shape) in [(1, ONE), (2, TWO)] {
        let source = open_model(&testdata("models/tiny-qwen2")).expect("model");
        let mut decoder = Decoder::body_from_files(cpu(), &source).expect("decoder");
        let head = StepHead::attach(&mut decoder, "score", shape, (NORMAL, 1));
        let steps = StepConfig { head_layers: layers, ..StepConfig::default() };
        let reward = RewardConfig::new(RewardFamily::Step(steps));
        let folder = tempfile::tempdir().expect("folder");
        let described = (&source.config, &reward);
        save_reward_model(folder.path(), &decoder, described, StoredType::F32).expect("saves");
        assert_eq!(RewardConfig::read(folder.path()).expect("reads"), Some(reward));
        let files = open_model(folder.path()).expect("opens");
        let mut again = Decoder::body_from_files(cpu(), &files).expect("decoder");
        let loaded = StepHead::load(&mut again, &files, "score", shape).expect("has its head");
        assert_eq!(loss(&again, &loaded), loss(&decoder, &head));
        let other = StepHeadShape { layers: 3 - layers, ..shape };
        let mut again = Decoder::body_from_files(cpu(), &files).expect("decoder");
        let error = StepHead::load(&mut again, &files, "score", other).expect_err("other layers");
        assert!(matches!(error.kind(), ErrorKind::MissingHead(_)), "{error}");
    }
}
