//! One model stored both ways must give the same weights under the same names.

use std::collections::BTreeMap;

use super::*;
use crate::bytes::FileBytes;
use crate::error::ErrorKind;
use crate::gguf::TensorType;
use crate::model_files::{ModelFiles, open_model};
use crate::safetensors_writer::{StoredType, write_safetensors};
use crate::test_support::{as_gguf, gguf_metadata, testdata};

fn tiny(name: &str) -> ModelFiles {
    open_model(&testdata(&format!("models/{name}"))).unwrap()
}

#[test]
fn gguf_and_safetensors_give_the_same_weights() {
    for name in ["tiny-llama", "tiny-qwen2", "tiny-qwen3"] {
        let folder = tiny(name);
        let bytes = as_gguf(&folder.config, &folder.weights).to_bytes();
        let file = GgufFile::parse(FileBytes::owned(bytes)).unwrap();
        let config = ModelConfig::from_gguf(&file).unwrap();
        let gguf = WeightSource::from_gguf(file, &config).unwrap();
        assert_eq!(gguf.names(), folder.weights.names(), "{name}");
        for weight in gguf.names() {
            let same = gguf.read(weight).unwrap() == folder.weights.read(weight).unwrap();
            assert!(same, "{name}: {weight} differs");
        }
    }
}

#[test]
fn rows_are_reordered_head_by_head() {
    // Two heads of four rows of one value: interleaved pairs (0, 1) and (2, 3)
    // become the half-split pairs (0, 2) and (1, 3).
    let stored = [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0];
    let rows = half_split_rows(&stored, &[8, 1], 2, "t").unwrap();
    assert_eq!(rows, [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0]);
    assert!(half_split_rows(&stored, &[8], 2, "t").is_err());
    assert!(half_split_rows(&stored, &[8, 1], 3, "t").is_err());
    assert!(half_split_rows(&stored, &[8, 1], 0, "t").is_err());
}

#[test]
fn every_architecture_has_the_names_it_should() {
    let has = |model: &ModelFiles, name: &str| model.weights.contains(name);
    let (llama, qwen2, qwen3) = (tiny("tiny-llama"), tiny("tiny-qwen2"), tiny("tiny-qwen3"));
    let bias = "model.layers.1.self_attn.q_proj.bias";
    let norm = "model.layers.1.self_attn.q_norm.weight";
    assert_eq!([has(&llama, bias), has(&qwen2, bias), has(&qwen3, bias)], [false, true, false]);
    assert_eq!([has(&llama, norm), has(&qwen2, norm), has(&qwen3, norm)], [false, false, true]);
    assert_eq!([has(&llama, LM_HEAD), has(&qwen2, LM_HEAD)], [false, true]);
    assert_eq!(qwen3.weights.shape("model.layers.0.self_attn.o_proj.weight").unwrap(), [36, 48]);
}

#[test]
fn a_tied_model_hides_a_head_that_was_stored_anyway() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    let tensors: [(&str, &[usize], &[f32]); 2] = [(LM_HEAD, &[1], &[1.0]), ("other", &[1], &[2.0])];
    write_safetensors(&path, tensors, StoredType::F32, &BTreeMap::new()).unwrap();
    let open = |config: &ModelConfig| {
        WeightSource::from_safetensors(SafetensorsSet::open_file(&path).unwrap(), config)
    };
    let tied = open(&tiny("tiny-llama").config);
    assert_eq!(tied.names(), ["other"]);
    assert_eq!(tied.read(LM_HEAD).unwrap_err().kind(), ErrorKind::MissingTensor);
    let untied = open(&tiny("tiny-qwen2").config);
    assert_eq!(untied.read(LM_HEAD).unwrap().values, [1.0]);
}

#[test]
fn a_shape_that_was_not_asked_for_is_refused_with_both() {
    let model = tiny("tiny-llama");
    let error = model.weights.read_shaped("model.norm.weight", &[33]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shape);
    assert!(error.to_string().contains("[32]") && error.to_string().contains("[33]"), "{error}");
    assert_eq!(model.weights.read_shaped("model.norm.weight", &[32]).unwrap().len(), 32);
}

#[test]
fn quantised_rows_are_reordered_like_their_values() {
    let folder = tiny("tiny-llama");
    let heads = folder.config.num_attention_heads;
    let (rows, columns) = (heads * folder.config.head_dim, 64);
    let mut writer = gguf_metadata(&folder.config);
    let stored = (0..rows * columns / 32 * 20).map(|n| (n * 37 % 59) as u8).collect();
    writer.tensor_bytes("blk.0.attn_q.weight", &[rows, columns], TensorType::Q4_1, stored);
    let file = GgufFile::parse(FileBytes::owned(writer.to_bytes())).unwrap();
    let weights = WeightSource::from_gguf(file, &folder.config).unwrap();
    let name = "model.layers.0.self_attn.q_proj.weight";
    let parts = weights.read_quantised(name, &[rows, columns]).unwrap().unwrap();
    assert_eq!(parts.values(), weights.read(name).unwrap().values);
    assert!(weights.read_quantised(name, &[columns, rows]).is_err());
    let embedding = "model.embed_tokens.weight";
    let shape = folder.weights.shape(embedding).unwrap();
    assert_eq!(folder.weights.read_quantised(embedding, shape).unwrap(), None);
}
