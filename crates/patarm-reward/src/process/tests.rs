//! Losses by finite differences, and the numbers of a tiny process reward model.

use std::path::PathBuf;
use std::sync::Arc;

use patarm_models::files::{
    ModelConfig, PromptForm, RewardConfig, RewardFamily, Segmentation, StepConfig, StepReadout,
};
use patarm_models::kernels::Cpu;
use patarm_models::{Decoder, DecoderShape, HeadInit, StepHead, StepHeadShape};
use patarm_text::tokenizer::Tokenizer;
use patarm_text::{Conversation, Item, Solution};

use super::*;
use crate::model::{ItemFault, RewardModel};
use crate::observer::Silent;
use crate::scalar::Scoring;

fn numbers<T>(steps: &[T], trajectory: Option<f64>) -> SolutionNumbers<'_, T> {
    SolutionNumbers { steps, trajectory }
}

#[test]
fn zero_heads_cost_ln_2_and_a_quarter() {
    let u = numbers(&[0.0, 0.0, 0.0], Some(0.0));
    let labels = numbers(&[Some(1.0), None, Some(0.0)], Some(1.0));
    let entropy = StepLossConfig::default();
    let loss = |config: &StepLossConfig| solution_loss(u, labels, Link::Logistic, config).loss;
    assert!((loss(&entropy) - std::f64::consts::LN_2).abs() < 1e-12);
    let squared = StepLossConfig { kind: StepLossKind::SquaredError, ..entropy };
    assert!((loss(&squared) - 0.25).abs() < 1e-12);
    // The trajectory's term comes on top, with its own weight.
    let both = StepLossConfig { trajectory_weight: 2.0, ..squared };
    assert!((loss(&both) - 0.75).abs() < 1e-12);
    let only = StepLossConfig { step_weight: 0.0, ..both };
    assert!((loss(&only) - 0.5).abs() < 1e-12);
}

#[test]
fn a_soft_label_is_reached_where_the_gradient_is_zero() {
    for kind in [StepLossKind::CrossEntropy, StepLossKind::SquaredError] {
        let config = StepLossConfig { kind, ..StepLossConfig::default() };
        let u = (0.3_f64 / 0.7).ln();
        let term = solution_loss(
            numbers(&[u], None),
            numbers(&[Some(0.3)], None),
            Link::Logistic,
            &config,
        );
        assert!(term.d_steps[0].abs() < 1e-12, "{kind:?}");
    }
}

#[test]
fn gradients_are_finite_differences_and_unlabelled_steps_have_none() {
    let u = [0.4, -1.2, 2.0, 0.1];
    let labels = [Some(1.0), None, Some(0.25), Some(0.0)];
    for kind in [StepLossKind::CrossEntropy, StepLossKind::SquaredError] {
        for link in [Link::Logistic, Link::Identity] {
            let config = StepLossConfig { kind, step_weight: 0.7, trajectory_weight: 1.3 };
            let of = |u: &[f64], final_u: f64| {
                let labels = numbers(&labels, Some(0.5));
                solution_loss(numbers(u, Some(final_u)), labels, link, &config)
            };
            let term = of(&u, -0.6);
            assert_eq!(term.d_steps[1], 0.0);
            let h = 1e-6;
            for place in 0..u.len() {
                let moved = |by: f64| {
                    let mut u = u;
                    u[place] += by;
                    of(&u, -0.6).loss
                };
                // Cross-entropy reads log-odds whatever the link.
                let numeric = (moved(h) - moved(-h)) / (2.0 * h);
                assert!((numeric - term.d_steps[place]).abs() < 1e-6, "{kind:?} {link:?} {place}");
            }
            let numeric = (of(&u, -0.6 + h).loss - of(&u, -0.6 - h).loss) / (2.0 * h);
            assert!((numeric - term.d_trajectory).abs() < 1e-6, "{kind:?} {link:?}");
        }
    }
}

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

fn text(config: &StepConfig) -> StepText {
    let tokenizer = Tokenizer::from_file(&testdata("text/tokenizer.json")).expect("tokenizer");
    StepText::new(Arc::new(tokenizer), config).expect("text")
}

fn decoder(text: &StepText) -> Decoder {
    let config = ModelConfig::read(&testdata("models/tiny-llama/config.json")).expect("config");
    let mut shape = DecoderShape { tied: true, ..DecoderShape::from_config(&config) };
    shape.vocab = text.tokenizer().vocab_size().max(370);
    shape.max_positions = 120;
    Decoder::random(Arc::new(Cpu::new(1)), shape, 3)
}

fn solution(prompt: &str, steps: &[&str]) -> Solution {
    let steps = steps.iter().map(|step| (*step).to_owned()).collect();
    Solution { prompt: Conversation::from_user(prompt), steps }
}

/// Scores solutions with a fresh head of the layout.
fn with_model(config: StepConfig, batch_tokens: usize, act: &dyn Fn(&ProcessRewardModel<'_>)) {
    let text = text(&config);
    let mut decoder = decoder(&text);
    let shape = StepHeadShape { layers: config.head_layers, outputs: config.readout.num_outputs() };
    let head = (shape.outputs > 0).then(|| {
        StepHead::attach(&mut decoder, "score", shape, (HeadInit::Normal { std: 1.0 }, 3))
    });
    let reader = StepReader::of(&config.readout, head, text.tokens()).expect("a reader");
    let reward = RewardConfig::new(RewardFamily::Step(config));
    act(&ProcessRewardModel {
        scoring: Scoring { batch_tokens, ..Scoring::new(&decoder, &Silent, "tiny") },
        reader,
        text: &text,
        config: &reward,
    });
}

fn layouts() -> Vec<StepConfig> {
    let tokens = StepReadout::Tokens { right: "a".into(), wrong: "b".into() };
    vec![
        StepConfig::default(),
        StepConfig { head_layers: 2, ..StepConfig::default() },
        StepConfig { readout: StepReadout::Value {}, ..StepConfig::default() },
        StepConfig::skywork_prm(),
        StepConfig::token_classifier(),
        StepConfig { readout: tokens, ..StepConfig::default() },
        StepConfig { trajectory_weight: 1.0, ..StepConfig::default() },
    ]
}

#[test]
fn a_further_step_changes_no_earlier_score_in_any_layout_or_batch() {
    let whole = solution("what is it", &["one thing", "and two", "", "the end"]);
    let begun = solution("what is it", &["one thing", "and two"]);
    let other = solution("why", &["so"]);
    for layout in layouts() {
        let is_probability = layout.readout.is_probability();
        let mut found = Vec::new();
        for batch_tokens in [1, 10_000] {
            with_model(layout.clone(), batch_tokens, &|model| {
                let all = [whole.clone(), other.clone(), begun.clone()];
                let scores = model.score_steps(&all).expect("steps");
                let of = |place: usize| scores[place].clone().expect("scored");
                assert_eq!([of(0).len(), of(1).len(), of(2).len()], [4, 1, 2]);
                assert_eq!(of(0)[..2], of(2), "equal to the last bit");
                let in_range = |score: &f64| (0.0..=1.0).contains(score);
                assert!(!is_probability || of(0).iter().all(in_range));
            });
            let seen = std::cell::RefCell::new(Vec::new());
            with_model(layout.clone(), batch_tokens, &|model| {
                *seen.borrow_mut() =
                    model.score_steps(&[whole.clone(), other.clone()]).expect("steps");
            });
            found.push(seen.into_inner());
        }
        assert_eq!(found[0], found[1], "{layout:?}: independent of the batch");
    }
}

#[test]
fn responses_are_cut_scored_and_placed() {
    let layout = StepConfig { trajectory_weight: 0.5, ..StepConfig::default() };
    with_model(layout, 4096, &|model| {
        let prompt = Conversation::from_user("what is it");
        let item = |response: &str| Item { prompt: prompt.clone(), response: response.into() };
        let long = "word\n\n".repeat(60);
        let results = model.score(&[item("é one\n\nand two"), item("  "), item(&long)]);
        let reward = results[0].as_ref().expect("scored");
        assert_eq!((reward.step_values.len(), &reward.step_spans), (2, &vec![(0, 5), (7, 14)]));
        let steps = solution("what is it", &["é one", "and two"]);
        let alone = model.score_steps(std::slice::from_ref(&steps)).expect("steps");
        assert_eq!(alone[0].as_ref().expect("scored"), &reward.step_values);
        // Half the score of the whole comes on top of the mean.
        let mean = f64::midpoint(reward.step_values[0], reward.step_values[1]);
        assert!(reward.value > mean && reward.value < mean + 0.5);
        assert!(matches!(&results[1], Err(ItemFault::Engine(why)) if why.contains("empty")));
        assert!(matches!(&results[2], Err(ItemFault::Overlong { limit: 120, .. })));
        let encoded = model.text.encode(&steps).expect("encodes");
        let ranges = encoded.token_ranges();
        assert_eq!(ranges[0].start, encoded.prompt.len());
        assert_eq!(ranges[1].end + encoded.ending.len(), encoded.len());
        for (range, step) in ranges.iter().zip(&encoded.steps) {
            assert_eq!(range.len(), step.len());
        }
    });
}

#[test]
fn data_never_becomes_a_marker_or_control_token() {
    let text = text(&StepConfig::default());
    let special = text.tokenizer().eos_text();
    let plain = text.encode(&solution("q", &["a"])).expect("encodes");
    let hostile = text.encode(&solution("q", &[&format!("a{special}")])).expect("encodes");
    assert!(plain.steps[0].iter().all(|id| !text.tokenizer().is_control(*id)));
    assert!(hostile.steps[0].iter().all(|id| !text.tokenizer().is_control(*id)), "{special}");
}

#[test]
fn layouts_that_the_vocabulary_cannot_have_are_one_clear_sentence() {
    let tokenizer =
        || Arc::new(Tokenizer::from_file(&testdata("text/tokenizer.json")).expect("tokenizer"));
    let labels = |right: &str, wrong: &str| StepConfig {
        readout: StepReadout::Tokens { right: right.into(), wrong: wrong.into() },
        ..StepConfig::default()
    };
    for (config, words) in [
        (StepConfig::qwen_math_prm(), "\"<extra_0>\" is not one token"),
        (labels("impossible label", "b"), "must be one"),
        (labels("a", "a"), "the same token"),
    ] {
        let message = StepText::new(tokenizer(), &config).expect_err("refused").to_string();
        assert!(message.contains(words), "{message}");
    }
    let text = StepText::new(tokenizer(), &StepConfig::default()).expect("text");
    let none = Solution { prompt: Conversation::from_user("q"), steps: Vec::new() };
    assert!(text.encode(&none).expect_err("no step").to_string().contains("0 steps"));
}

#[test]
fn plain_prompts_end_as_told() {
    let plain = |end: &str| {
        let prompt = PromptForm::Plain { end: end.into() };
        let text = text(&StepConfig {
            prompt,
            segmentation: Segmentation::Lines {},
            ..StepConfig::default()
        });
        let encoded = text.encode(&solution("why", &["so"])).expect("encodes").prompt;
        text.tokenizer().decode(&encoded, patarm_text::ControlTokens::Skip)
    };
    assert_eq!(plain("\n"), format!("{}\n", plain("")));
}
