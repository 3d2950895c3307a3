//! Values and gradients against PyTorch, stored by `testdata/make_goldens.py`.

mod support;

use patarm_files::SafetensorsFile;
use patarm_models::{ActivationPolicy, Decoder, ForwardOptions, checkpoint};
use serde_json::Value;
use support::{cpu, loss_and_gradients, relative_error, rows, testdata, tiny};

fn golden(name: &str) -> (Value, SafetensorsFile) {
    let text = std::fs::read_to_string(testdata(&format!("goldens/{name}.json"))).expect("golden");
    let tensors =
        SafetensorsFile::open(&testdata(&format!("goldens/{name}.safetensors"))).expect("golden");
    (serde_json::from_str(&text).expect("json"), tensors)
}

fn sequences(golden: &Value) -> Vec<Vec<u32>> {
    serde_json::from_value(golden["sequences"].clone()).expect("ids")
}

#[track_caller]
fn check(decoder: &Decoder, name: &str, activations: ActivationPolicy) {
    let (golden, tensors) = golden(name);
    let (forest, targets, _) = rows(&sequences(&golden));
    let weights = vec![1.0 / targets.len() as f32; targets.len()];
    let options = ForwardOptions { activations, ..ForwardOptions::default() };
    let (loss, gradients) = loss_and_gradients(decoder, &forest, &targets, &weights, &options);
    let expected = golden["loss"].as_f64().expect("loss");
    assert!((loss - expected).abs() < 1e-4, "{name}: loss {loss}, PyTorch {expected}");
    let mut compared = 0;
    for (id, parameter) in decoder.parameters.iter().filter(|(_, parameter)| parameter.trainable) {
        let reference =
            tensors.read(&format!("grad.{}", parameter.name)).expect("gradient is stored");
        let found = gradients.get(id).expect("trainable parameters have gradients").host();
        let error = relative_error(found, &reference);
        assert!(error <= 1e-4, "{name}: gradient of {} is off by {error:e}", parameter.name);
        assert!(found.iter().any(|value| *value != 0.0), "{} has no gradient", parameter.name);
        compared += 1;
    }
    let stored = tensors.tensors().filter(|(name, _)| name.starts_with("grad.")).count();
    assert_eq!(compared, stored, "every stored gradient was compared");
}

#[test]
fn log_probabilities_equal_pytorch() {
    for name in ["tiny-llama", "tiny-qwen2", "tiny-qwen3"] {
        let (golden, _) = golden(name);
        let decoder = tiny(name);
        let (forest, targets, _) = rows(&sequences(&golden));
        let saved = decoder.forward(&forest, &ForwardOptions::default()).expect("forward");
        let statistics = decoder.target_statistics(&saved.hidden, &targets, 1.0);
        let stored: Vec<Vec<Option<f32>>> =
            serde_json::from_value(golden["logprobs"].clone()).expect("logprobs");
        let expected: Vec<f32> = stored.into_iter().flatten().flatten().collect();
        assert_eq!(expected.len(), statistics.logprobs.len());
        for (found, expected) in statistics.logprobs.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4, "{name}: {found} is not {expected}");
        }
    }
}

#[test]
fn gradients_of_every_parameter_equal_pytorch() {
    for name in ["tiny-llama", "tiny-qwen2", "tiny-qwen3"] {
        check(&tiny(name), name, ActivationPolicy::Keep);
    }
}

#[test]
fn recomputed_activations_give_the_same_gradients() {
    for name in ["tiny-llama", "tiny-qwen3"] {
        check(&tiny(name), name, ActivationPolicy::Recompute);
    }
}

#[test]
fn a_stored_adapter_gives_the_values_and_gradients_of_peft() {
    let mut decoder = tiny("tiny-llama");
    let config = checkpoint::load_adapter(&testdata("models/tiny-llama-lora"), &mut decoder)
        .expect("adapter");
    assert_eq!((config.rank, config.alpha), (4, 8.0));
    check(&decoder, "tiny-llama-lora", ActivationPolicy::Keep);
}

#[test]
fn merging_an_adapter_changes_no_value() {
    let mut decoder = tiny("tiny-llama");
    checkpoint::load_adapter(&testdata("models/tiny-llama-lora"), &mut decoder).expect("adapter");
    let (golden, _) = golden("tiny-llama-lora");
    let (forest, targets, _) = rows(&sequences(&golden));
    let logprobs = |decoder: &Decoder| {
        let saved = decoder.forward(&forest, &ForwardOptions::default()).expect("forward");
        decoder.target_statistics(&saved.hidden, &targets, 1.0).logprobs
    };
    let before = logprobs(&decoder);
    decoder.merge_adapter();
    let after = logprobs(&decoder);
    for (a, b) in before.iter().zip(&after) {
        assert!((a - b).abs() < 1e-4, "{a} became {b}");
    }
}

#[test]
fn a_saved_model_and_adapter_load_unchanged() {
    let folder = std::env::temp_dir().join(format!("patarm-models-goldens-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let decoder = tiny("tiny-qwen3");
    let files = patarm_files::open_model(&testdata("models/tiny-qwen3")).expect("files");
    checkpoint::save_model(&folder, &decoder, &files.config, patarm_files::StoredType::F32)
        .expect("save");
    let again = Decoder::load(cpu(), &folder).expect("load");
    for ((_, a), (_, b)) in decoder.parameters.iter().zip(again.parameters.iter()) {
        assert_eq!((a.name.as_str(), a.value.host()), (b.name.as_str(), b.value.host()));
    }
    let mut adapted = tiny("tiny-llama");
    let config = checkpoint::load_adapter(&testdata("models/tiny-llama-lora"), &mut adapted)
        .expect("adapter");
    checkpoint::save_adapter(&folder, &adapted, &config, "tiny-llama").expect("save");
    let mut reread = tiny("tiny-llama");
    assert_eq!(checkpoint::load_adapter(&folder, &mut reread).expect("load").rank, 4);
    std::fs::remove_dir_all(&folder).expect("clean up");
}
