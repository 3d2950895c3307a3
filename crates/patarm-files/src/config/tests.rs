//! Configurations accepted, refused, and written back.

use serde_json::json;

use super::*;
use crate::bytes::FileBytes;
use crate::error::ErrorKind;
use crate::gguf_writer::GgufWriter;
use crate::test_support::{gguf_metadata, testdata};

fn tiny(name: &str) -> ModelConfig {
    ModelConfig::read(&testdata(&format!("models/{name}/config.json"))).unwrap()
}

fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 100, "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0, "rope_scaling": null, "tie_word_embeddings": true,
        "max_position_embeddings": 512, "hidden_act": "silu", "eos_token_id": [2, 3],
    })
}

/// The Llama above with one field replaced.
fn with(field: &str, value: Value) -> Result<ModelConfig> {
    let mut config = llama();
    config[field] = value;
    read(&config)
}

fn read(config: &Value) -> Result<ModelConfig> {
    ModelConfig::from_json(config.as_object().unwrap())
}

#[test]
fn the_older_form_is_read() {
    let config = read(&llama()).unwrap();
    assert_eq!(config.architecture, Architecture::Llama);
    assert_eq!(config.head_dim, 16);
    assert_eq!(config.rope_theta, 100_000.0);
    assert_eq!(config.rope_scaling, None);
    assert!(config.tie_word_embeddings);
    assert_eq!(config.eos_token_ids, [2, 3]);
    assert_eq!(config.bos_token_id, None);
    assert!(!config.qkv_bias() && !config.qk_norm());
    assert_eq!((config.query_width(), config.key_value_width()), (64, 32));
}

#[test]
fn the_newer_form_is_read() {
    let config = tiny("tiny-qwen3");
    assert_eq!(config.architecture, Architecture::Qwen3);
    assert_eq!((config.hidden_size, config.head_dim, config.query_width()), (36, 12, 48));
    assert_eq!(config.rope_theta, 500_000.0);
    assert_eq!(config.rms_norm_eps, 1e-6);
    assert!(config.qk_norm() && config.tie_word_embeddings);
    let config = tiny("tiny-qwen2");
    assert!(config.qkv_bias() && !config.tie_word_embeddings);
    assert_eq!(config.rope_theta, 1_000_000.0);
}

#[test]
fn absent_fields_take_the_defaults_of_their_class() {
    let mut config = llama();
    let object = config.as_object_mut().unwrap();
    for field in ["num_key_value_heads", "rope_theta", "max_position_embeddings", "rms_norm_eps"] {
        object.shift_remove(field);
    }
    let read = read(&config).unwrap();
    assert_eq!(read.num_key_value_heads, 4);
    assert_eq!(read.rope_theta, 10_000.0);
    assert_eq!(read.max_position_embeddings, 2_048);
    assert_eq!(read.rms_norm_eps, 1e-6);
}

#[test]
fn what_is_written_reads_back_the_same() {
    let scaled = with(
        "rope_scaling",
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
    );
    let configs = [tiny("tiny-llama"), tiny("tiny-qwen2"), tiny("tiny-qwen3"), scaled.unwrap()];
    for config in configs {
        let written = config.to_json("bfloat16");
        assert_eq!(written["torch_dtype"], "bfloat16");
        assert_eq!(ModelConfig::from_json(&written).unwrap(), config);
    }
}

#[test]
fn settings_that_are_not_supported_are_refused_by_name() {
    for (field, value) in [
        ("model_type", json!("mistral")),
        ("hidden_act", json!("gelu")),
        ("mlp_bias", json!(true)),
        ("attention_bias", json!(true)),
        ("sliding_window", json!(4096)),
        ("use_sliding_window", json!(true)),
        ("layer_types", json!(["full_attention", "sliding_attention"])),
        ("rope_scaling", json!({"type": "linear", "factor": 2.0})),
        ("rope_parameters", json!({"rope_type": "yarn", "factor": 2.0})),
        ("partial_rotary_factor", json!(0.5)),
        ("rope_interleaved", json!(true)),
        ("quantization_config", json!({"bits": 4})),
    ] {
        let error = with(field, value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(&format!("`{field}`")), "{error}");
    }
}

#[test]
fn settings_that_change_nothing_are_accepted() {
    for (field, value) in [
        ("attention_bias", json!(false)),
        ("rope_scaling", json!({"rope_type": "default"})),
        ("layer_types", json!(["full_attention", "full_attention"])),
        ("sliding_window", json!(null)),
        ("pretraining_tp", json!(1)),
        ("some_field_of_the_future", json!([])),
    ] {
        assert_eq!(with(field, value).unwrap(), read(&llama()).unwrap(), "{field}");
    }
    let mut qwen2 = llama();
    qwen2["model_type"] = json!("qwen2");
    qwen2["sliding_window"] = json!(32_768);
    qwen2["use_sliding_window"] = json!(false);
    assert!(read(&qwen2).is_ok());
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    for (field, value, kind) in [
        ("hidden_size", json!(0), ErrorKind::Malformed),
        ("hidden_size", json!(-64), ErrorKind::Malformed),
        ("hidden_size", json!(1_u64 << 60), ErrorKind::Limit),
        ("hidden_size", json!(66), ErrorKind::Malformed),
        ("vocab_size", json!(u64::MAX), ErrorKind::Limit),
        ("num_hidden_layers", json!(1_000_000), ErrorKind::Limit),
        ("num_attention_heads", json!("4"), ErrorKind::Malformed),
        ("num_attention_heads", json!(0), ErrorKind::Malformed),
        ("num_key_value_heads", json!(3), ErrorKind::Malformed),
        ("num_key_value_heads", json!(0), ErrorKind::Malformed),
        ("head_dim", json!(15), ErrorKind::Malformed),
        ("rms_norm_eps", json!(0.0), ErrorKind::Malformed),
        ("rope_theta", json!(-1.0), ErrorKind::Malformed),
        ("eos_token_id", json!(1_u64 << 40), ErrorKind::Malformed),
        ("eos_token_id", json!("</s>"), ErrorKind::Malformed),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0}), ErrorKind::Malformed),
    ] {
        let described = format!("{field} = {value}");
        let error = with(field, value).expect_err(&described);
        assert_eq!(error.kind(), kind, "{described}: {error}");
    }
    for field in ["hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"] {
        let mut config = llama();
        config.as_object_mut().unwrap().shift_remove(field);
        assert!(read(&config).unwrap_err().to_string().contains(field));
    }
}

#[test]
fn frequencies_equal_those_of_transformers() {
    let golden = std::fs::read(testdata("goldens/rope.json")).unwrap();
    let cases: Value = serde_json::from_slice(&golden).unwrap();
    for case in cases.as_array().unwrap() {
        let mut config = llama();
        config["head_dim"] = case["head_dim"].clone();
        config["rope_parameters"] = case["rope_parameters"].clone();
        let frequencies = read(&config).unwrap().inverse_frequencies();
        let expected = case["inverse_frequencies"].as_array().unwrap();
        assert_eq!(frequencies.len(), expected.len());
        for (found, expected) in frequencies.iter().zip(expected) {
            let expected = expected.as_f64().unwrap();
            assert!((found - expected).abs() <= 1e-6 * expected, "{found} {expected}");
        }
    }
}

fn from_gguf(writer: &GgufWriter) -> Result<ModelConfig> {
    let file = GgufFile::parse(FileBytes::owned(writer.to_bytes())).unwrap();
    ModelConfig::from_gguf(&file)
}

/// GGUF metadata of a tiny model with an embedding, which the reader looks at.
fn gguf(config: &ModelConfig) -> GgufWriter {
    let mut writer = gguf_metadata(config);
    let shape = [config.vocab_size, config.hidden_size];
    writer.tensor_f32("token_embd.weight", &shape, &vec![0.0; shape[0] * shape[1]]).unwrap();
    if !config.tie_word_embeddings {
        writer.tensor_f32("output.weight", &shape, &vec![0.0; shape[0] * shape[1]]).unwrap();
    }
    writer
}

#[test]
fn gguf_metadata_describe_the_same_model() {
    for name in ["tiny-llama", "tiny-qwen2", "tiny-qwen3"] {
        let config = tiny(name);
        assert_eq!(from_gguf(&gguf(&config)).unwrap(), config, "{name}");
    }
}

#[test]
fn llama_3_scaling_is_recovered_from_its_divisors() {
    let mut config = tiny("tiny-llama");
    config.rope_theta = 500_000.0;
    let plain = config.inverse_frequencies();
    config.rope_scaling = Some(RopeScaling {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8_192,
    });
    let scaled = config.inverse_frequencies();
    let mut divisors: Vec<f32> =
        plain.iter().zip(&scaled).map(|(plain, scaled)| (plain / scaled) as f32).collect();
    let write = |divisors: &[f32]| {
        let mut writer = gguf(&config);
        writer.tensor_f32("rope_freqs.weight", &[divisors.len()], divisors).unwrap();
        from_gguf(&writer)
    };
    assert_eq!(write(&divisors).unwrap(), config);
    assert_eq!(write(&divisors[1..]).unwrap_err().kind(), ErrorKind::Malformed);
    divisors[0] = 1.5;
    assert_eq!(write(&divisors).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn gguf_settings_that_are_not_supported_are_refused() {
    let config = tiny("tiny-llama");
    let refused = |key: &str, value: crate::gguf::Value| {
        let mut writer = gguf(&config);
        writer.metadata(key, value);
        let error = from_gguf(&writer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(key), "{error}");
    };
    refused("llama.expert_count", 8_u32.into());
    refused("llama.attention.sliding_window", 128_u32.into());
    refused("llama.rope.scaling.type", "yarn".into());
    refused("llama.rope.dimension_count", 4_u32.into());

    let mut biased = gguf(&config);
    biased.tensor_f32("blk.0.attn_q.bias", &[1], &[0.0]).unwrap();
    assert_eq!(from_gguf(&biased).unwrap_err().kind(), ErrorKind::Unsupported);

    let mut other = GgufWriter::new();
    other.metadata("general.architecture", "gemma3");
    assert!(from_gguf(&other).unwrap_err().to_string().contains("gemma3"));
    assert!(from_gguf(&GgufWriter::new()).is_err());
}
