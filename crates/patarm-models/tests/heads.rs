//! Heads: gradients by finite differences, batch against single, and files.

mod support;

use patarm_models::files::{ModelFiles, RewardConfig, RewardFamily, StoredType, open_model};
use patarm_models::reward_checkpoint::{load_head, save_reward_adapter, save_reward_model};
use patarm_models::{
    Decoder, ErrorKind, Forest, ForwardOptions, Gradients, HeadInit, LinearHead, LoraConfig,
    checkpoint,
};
use support::{Differences, check_parameter, cpu, loss_of, pairs, testdata};

const NORMAL: HeadInit = HeadInit::Normal { std: 0.5 };
const DIFFERENCES: Differences = Differences { step: 2e-3, tolerance: 2e-2 };
const MODELS: [&str; 3] = ["tiny-llama", "tiny-qwen2", "tiny-qwen3"];

fn open(name: &str) -> (ModelFiles, Decoder) {
    let files = open_model(&testdata("models").join(name)).expect("model");
    let decoder = Decoder::body_from_files(cpu(), &files).expect("decoder");
    (files, decoder)
}

fn scalar() -> RewardConfig {
    RewardConfig { mean: Some(0.25), std: Some(1.5), ..RewardConfig::new(RewardFamily::Scalar {}) }
}

fn loss(decoder: &Decoder, head: &LinearHead) -> f64 {
    let (forest, rows) = pairs();
    let (hidden, _) = decoder.infer(&forest, &[]).expect("runs");
    loss_of(&head.forward(decoder, &hidden, &rows).values).0
}

#[test]
fn gradients_through_the_head_are_finite_differences() {
    for name in MODELS {
        let (_, mut decoder) = open(name);
        let head = LinearHead::attach(&mut decoder, "score", 2, (NORMAL, 1));
        let (forest, rows) = pairs();
        let saved = decoder.forward(&forest, &ForwardOptions::default()).expect("runs");
        let output = head.forward(&decoder, &saved.hidden, &rows);
        assert_eq!(output.values.len(), 8);
        let (_, d_values) = loss_of(&output.values);
        let mut gradients = Gradients::zeros(decoder.backend.as_ref(), &decoder.parameters);
        let d_hidden = head.backward(&decoder, &output, &d_values, &mut gradients);
        decoder.backward(&saved, &d_hidden, &[], &mut gradients);
        let checked = [
            head.linear.weight,
            decoder.final_norm,
            decoder.blocks[1].down.weight,
            decoder.blocks[0].q.weight,
            decoder.embedding,
        ];
        for id in checked {
            check_parameter(&mut decoder, (id, &gradients), DIFFERENCES, &|d| loss(d, &head), name);
        }
    }
}

#[test]
fn a_value_does_not_depend_on_what_else_is_in_the_forest() {
    for name in MODELS {
        let (_, mut decoder) = open(name);
        let head = LinearHead::attach(&mut decoder, "score", 1, (NORMAL, 1));
        let (forest, rows) = pairs();
        let (hidden, _) = decoder.infer(&forest, &[]).expect("runs");
        let together = head.forward(&decoder, &hidden, &rows).values;
        let saved = decoder.forward(&forest, &ForwardOptions::default()).expect("runs");
        assert_eq!(head.forward(&decoder, &saved.hidden, &rows).values, together);
        let paths: [&[u32]; 4] =
            [&[5, 6, 7, 8, 9], &[5, 6, 7, 10], &[11, 12, 13, 1, 2, 3], &[11, 12, 13, 4, 4]];
        for (path, expected) in paths.iter().zip(&together) {
            let mut alone = Forest::new();
            let root = alone.add(None, path);
            let (hidden, _) = decoder.infer(&alone, &[]).expect("runs");
            let value = head.forward(&decoder, &hidden, &[alone.last_row(root)]).values[0];
            assert_eq!(value.to_bits(), expected.to_bits(), "{name}");
        }
    }
}

#[test]
fn a_zero_head_gives_zero() {
    let (_, mut decoder) = open("tiny-llama");
    let head = LinearHead::attach(&mut decoder, "score", 1, (HeadInit::Zero {}, 1));
    let (forest, rows) = pairs();
    let (hidden, _) = decoder.infer(&forest, &[]).expect("runs");
    assert_eq!(head.forward(&decoder, &hidden, &rows).values, [0.0; 4]);
}

#[test]
fn a_saved_model_scores_the_same_and_one_without_head_is_refused() {
    for name in MODELS {
        let (files, mut decoder) = open(name);
        let head = LinearHead::attach(&mut decoder, "score", 1, (NORMAL, 1));
        let expected = loss(&decoder, &head);
        let saved = tempfile::tempdir().expect("folder");
        save_reward_model(saved.path(), &decoder, (&files.config, &scalar()), StoredType::F32)
            .expect("saves");
        let reward = RewardConfig::read(saved.path()).expect("reads").expect("a reward model");
        assert_eq!(reward, scalar());
        let files = open_model(saved.path()).expect("opens");
        assert!(!files.weights.contains("lm_head.weight"), "{name}: no output matrix is stored");
        let mut again = Decoder::body_from_files(cpu(), &files).expect("loads");
        let head = load_head(&mut again, &files, &reward, 1).expect("has its head");
        assert_eq!(loss(&again, &head), expected, "{name}");

        let (bare, mut decoder) = open(name);
        let error = load_head(&mut decoder, &bare, &reward, 1).expect_err("has none");
        assert!(matches!(error.kind(), ErrorKind::MissingHead(_)), "{error}");
        assert!(error.to_string().contains("random head is never"), "{error}");
    }
}

#[test]
fn an_adapter_saves_trains_and_reloads_its_head() {
    let (_, mut decoder) = open("tiny-qwen3");
    let head = LinearHead::attach(&mut decoder, "score", 1, (NORMAL, 1));
    let lora = LoraConfig { rank: 2, alpha: 4.0, ..LoraConfig::default() };
    decoder.attach_adapter(&lora, 5).expect("attaches");
    assert!(decoder.parameters.get(head.linear.weight).trainable, "the head trains");
    for (_, entry) in decoder.parameters.iter().filter(|(_, entry)| entry.trainable) {
        assert!(entry.is_head || entry.name.contains(".lora_"), "{} trains", entry.name);
    }
    let b = decoder.blocks[0].q.low_rank.expect("adapter").b;
    decoder.parameters.get_mut(b).value.host_mut().fill(0.3);
    let expected = loss(&decoder, &head);

    let saved = tempfile::tempdir().expect("folder");
    save_reward_adapter(saved.path(), &decoder, (&lora, &scalar()), "tiny").expect("saves");
    assert_eq!(RewardConfig::read(saved.path()).expect("reads"), Some(scalar()));
    let (_, mut again) = open("tiny-qwen3");
    let head = LinearHead::attach(&mut again, "score", 1, (HeadInit::Zero {}, 0));
    checkpoint::load_adapter(saved.path(), &mut again).expect("loads");
    assert_eq!(loss(&again, &head), expected);
    again.merge_adapter();
    assert!((loss(&again, &head) - expected).abs() < 1e-3, "merging keeps the head");

    // The adapter of a model that writes text has no head.
    let (_, mut plain) = open("tiny-qwen3");
    plain.attach_adapter(&lora, 5).expect("attaches");
    let headless = tempfile::tempdir().expect("folder");
    checkpoint::save_adapter(headless.path(), &plain, &lora, "tiny").expect("saves");
    let (_, mut again) = open("tiny-qwen3");
    LinearHead::attach(&mut again, "score", 1, (HeadInit::Zero {}, 0));
    let error = checkpoint::load_adapter(headless.path(), &mut again).expect_err("has none");
    assert!(matches!(error.kind(), ErrorKind::MissingHead(_)), "{error}");
}

#[test]
fn a_head_of_another_size_is_refused() {
    let (files, mut decoder) = open("tiny-llama");
    LinearHead::attach(&mut decoder, "score", 2, (NORMAL, 1));
    let saved = tempfile::tempdir().expect("folder");
    save_reward_model(saved.path(), &decoder, (&files.config, &scalar()), StoredType::F32)
        .expect("saves");
    let files = open_model(saved.path()).expect("opens");
    let mut again = Decoder::body_from_files(cpu(), &files).expect("loads");
    let error = load_head(&mut again, &files, &scalar(), 1).expect_err("two outputs");
    assert!(matches!(error.kind(), ErrorKind::Shape { .. }), "{error}");
}
