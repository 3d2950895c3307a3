//! Query attention: gradients by finite differences, company, parameter counts, files.

mod support;

use patarm_models::files::{ModelFiles, RewardConfig, RewardFamily, StoredType, open_model};
use patarm_models::reward_checkpoint::{
    fresh_scalar_head, load_scalar_head, save_reward_adapter, save_reward_model,
};
use patarm_models::{
    Decoder, DecoderShape, ErrorKind, Forest, ForwardOptions, Gradients, HeadInit, LoraConfig,
    ScalarHead, checkpoint,
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

fn config() -> RewardConfig {
    RewardConfig::new(RewardFamily::Hpqa { layers: vec![1, 2], heads: 4 })
}

fn values(decoder: &Decoder, head: &ScalarHead) -> Vec<f32> {
    let (forest, rows) = pairs();
    head.infer(decoder, &forest, &rows).expect("runs").values().to_vec()
}

#[test]
fn gradients_through_head_taps_and_decoder_are_finite_differences() {
    for name in MODELS {
        let (_, mut decoder) = open(name);
        let head = fresh_scalar_head(&mut decoder, &config(), (NORMAL, 1)).expect("fits");
        let (forest, rows) = pairs();
        let options = ForwardOptions { taps: head.taps(&decoder), ..ForwardOptions::default() };
        assert_eq!(options.taps, [0], "the last layer is the final state");
        let saved = decoder.forward(&forest, &options).expect("runs");
        let output = head.forward(&decoder, &saved, (&forest, &rows));
        assert_eq!(output.values(), values(&decoder, &head));
        let (_, d_values) = loss_of(output.values());
        let mut gradients = Gradients::zeros(decoder.backend.as_ref(), &decoder.parameters);
        head.backward(&decoder, (&saved, &output), &d_values, &mut gradients);
        let mut checked: Vec<_> = decoder
            .parameters
            .iter()
            .filter(|(_, entry)| entry.is_head && !entry.name.ends_with("k_proj.bias"))
            .map(|(id, _)| id)
            .collect();
        checked.extend([
            decoder.final_norm,
            decoder.blocks[1].down.weight,
            decoder.blocks[0].q.weight,
            decoder.embedding,
        ]);
        for id in checked {
            let loss = |decoder: &Decoder| loss_of(&values(decoder, &head)).0;
            check_parameter(&mut decoder, (id, &gradients), DIFFERENCES, &loss, name);
        }
    }
}

#[test]
fn tokens_of_other_items_get_no_attention_wherever_they_stand() {
    for name in MODELS {
        let (_, mut decoder) = open(name);
        let head = fresh_scalar_head(&mut decoder, &config(), (NORMAL, 1)).expect("fits");
        let together = values(&decoder, &head);
        let paths: [&[u32]; 4] =
            [&[5, 6, 7, 8, 9], &[5, 6, 7, 10], &[11, 12, 13, 1, 2, 3], &[11, 12, 13, 4, 4]];
        for (path, expected) in paths.iter().zip(&together) {
            // Alone, and with strangers to the left and to the right, as padding stands.
            for (before, after) in [(0, 0), (9, 0), (0, 9), (70, 70)] {
                let mut forest = Forest::new();
                if before > 0 {
                    forest.add(None, &vec![3; before]);
                }
                let root = forest.add(None, path);
                if after > 0 {
                    forest.add(None, &vec![2; after]);
                }
                let rows = [forest.last_row(root)];
                let value = head.infer(&decoder, &forest, &rows).expect("runs").values()[0];
                assert_eq!(value.to_bits(), expected.to_bits(), "{name} {before} {after}");
            }
        }
        // A token never seen elsewhere stands in the second item alone: the gradient of
        // the first item's value by its embedding is exactly zero.
        let mut forest = Forest::new();
        let rows = [&[5u32, 6, 7][..], &[8, 9, 10]].map(|path| {
            let root = forest.add(None, path);
            forest.last_row(root)
        });
        let options = ForwardOptions { taps: head.taps(&decoder), ..ForwardOptions::default() };
        let saved = decoder.forward(&forest, &options).expect("runs");
        let output = head.forward(&decoder, &saved, (&forest, &rows));
        let mut gradients = Gradients::zeros(decoder.backend.as_ref(), &decoder.parameters);
        head.backward(&decoder, (&saved, &output), &[1.0, 0.0], &mut gradients);
        let d_embedding = gradients.get(decoder.embedding).expect("trainable").host();
        let of_token =
            |id: usize| &d_embedding[id * decoder.shape.hidden..(id + 1) * decoder.shape.hidden];
        assert!(of_token(5).iter().any(|d| *d != 0.0));
        assert!((8..=10).all(|id| of_token(id).iter().all(|d| *d == 0.0)), "{name}");
    }
}

#[test]
fn a_zero_output_gives_zero_and_shapes_that_do_not_fit_are_told() {
    let (_, mut decoder) = open("tiny-llama");
    let head = fresh_scalar_head(&mut decoder, &config(), (HeadInit::Zero {}, 1)).expect("fits");
    assert_eq!(values(&decoder, &head), [0.0; 4]);
    for (layers, heads, what) in [
        (vec![1, 3], 4, "layer 3"),
        (vec![0, 1], 4, "layer 0"),
        (vec![2, 2], 4, "twice"),
        (Vec::new(), 4, "at least one"),
        (vec![1, 2], 7, "do not divide"),
        (vec![1, 2], 0, "do not divide"),
    ] {
        let (_, mut decoder) = open("tiny-llama");
        let config = RewardConfig::new(RewardFamily::Hpqa { layers, heads });
        let error = fresh_scalar_head(&mut decoder, &config, (NORMAL, 1)).expect_err(what);
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn parameter_counts_are_the_published_arithmetic() {
    for (width, expected) in [(896, 16_880_640), (576, 6_981_120)] {
        let (files, _) = open("tiny-llama");
        let mut shape = DecoderShape::from_config(&files.config);
        shape.hidden = width;
        (shape.heads, shape.kv_heads, shape.head_dim) = (1, 1, 2);
        (shape.intermediate, shape.layers, shape.vocab) = (1, 4, 4);
        let mut decoder = Decoder::random(cpu(), shape, 1);
        let family = RewardFamily::Hpqa { layers: vec![1, 2, 3, 4], heads: 8 };
        fresh_scalar_head(&mut decoder, &RewardConfig::new(family), (NORMAL, 1)).expect("fits");
        let count: usize = decoder
            .parameters
            .iter()
            .filter(|(_, entry)| entry.is_head)
            .map(|(_, entry)| entry.value.len())
            .sum();
        assert_eq!(count, expected);
    }
}

#[test]
fn models_and_adapters_survive_their_files_and_a_missing_part_is_refused() {
    let (files, mut decoder) = open("tiny-qwen3");
    let head = fresh_scalar_head(&mut decoder, &config(), (NORMAL, 1)).expect("fits");
    let expected = values(&decoder, &head);
    let saved = tempfile::tempdir().expect("folder");
    save_reward_model(saved.path(), &decoder, (&files.config, &config()), StoredType::F32)
        .expect("saves");
    let reward = RewardConfig::read(saved.path()).expect("reads").expect("a reward model");
    assert_eq!(reward, config());
    let files = open_model(saved.path()).expect("opens");
    let mut again = Decoder::body_from_files(cpu(), &files).expect("loads");
    let head = load_scalar_head(&mut again, &files, &reward).expect("has its head");
    assert_eq!(values(&again, &head), expected);

    let (bare, mut decoder) = open("tiny-qwen3");
    let error = load_scalar_head(&mut decoder, &bare, &reward).expect_err("has none");
    assert!(matches!(error.kind(), ErrorKind::MissingHead(_)), "{error}");

    let (_, mut decoder) = open("tiny-qwen3");
    fresh_scalar_head(&mut decoder, &config(), (NORMAL, 1)).expect("fits");
    let lora = LoraConfig { rank: 2, alpha: 4.0, ..LoraConfig::default() };
    decoder.attach_adapter(&lora, 5).expect("attaches");
    let folder = tempfile::tempdir().expect("folder");
    save_reward_adapter(folder.path(), &decoder, (&lora, &config()), "tiny").expect("saves");
    let (_, mut again) = open("tiny-qwen3");
    let head = fresh_scalar_head(&mut again, &config(), (HeadInit::Zero {}, 0)).expect("fits");
    checkpoint::load_adapter(folder.path(), &mut again).expect("loads");
    assert_eq!(values(&again, &head), expected, "a fresh adapter changes nothing");
}
