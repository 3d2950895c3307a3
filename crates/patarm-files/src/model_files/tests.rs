//! What `open_model` finds, and what it says when it finds nothing.

use super::*;
use crate::gguf_writer::GgufWriter;
use crate::test_support::{as_gguf, testdata};

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn with_tokenizer(writer: &mut GgufWriter) {
    writer.metadata("tokenizer.ggml.model", "gpt2");
    writer.metadata("tokenizer.ggml.pre", "smollm");
    writer.metadata("tokenizer.ggml.tokens", strings(&["a", "b", "ab"]));
    writer.metadata("tokenizer.ggml.merges", strings(&["a b"]));
    writer.metadata("tokenizer.ggml.token_type", vec![1_i32, 1, 1]);
    writer.metadata("tokenizer.ggml.add_bos_token", true);
    writer.metadata("tokenizer.chat_template", "{{ messages }}");
}

#[test]
fn a_folder_is_opened_with_the_end_tokens_of_both_files() {
    let folder = tempfile::tempdir().unwrap();
    let source = testdata("models/tiny-llama");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let model = open_model(folder.path()).unwrap();
    assert_eq!(model.config.eos_token_ids, [2]);
    assert!(matches!(model.tokenizer, TokenizerSource::Missing));

    std::fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id":[5,2]}"#)
        .unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let model = open_model(folder.path()).unwrap();
    assert_eq!(model.config.eos_token_ids, [2, 5]);
    let TokenizerSource::Files(files) = model.tokenizer else { panic!("no tokenizer found") };
    assert_eq!(files.tokenizer, folder.path().join("tokenizer.json"));
    assert_eq!(files.tokenizer_config, None);
    assert!(files.generation_config.is_some());
}

#[test]
fn a_gguf_file_brings_its_tokenizer() {
    let source = open_model(&testdata("models/tiny-qwen2")).unwrap();
    let mut writer = as_gguf(&source.config, &source.weights);
    with_tokenizer(&mut writer);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    writer.write(&path).unwrap();

    // The file itself, and the folder that holds it alone.
    for path in [path.as_path(), folder.path()] {
        let model = open_model(path).unwrap();
        assert_eq!(model.config, source.config);
        let TokenizerSource::Gguf(tokenizer) = model.tokenizer else { panic!("no tokenizer") };
        assert_eq!(tokenizer.tokens, ["a", "b", "ab"]);
        assert_eq!(tokenizer.merges, ["a b"]);
        assert_eq!(tokenizer.pre.as_deref(), Some("smollm"));
        assert_eq!(tokenizer.eos_token_id, Some(2));
        assert!(tokenizer.add_bos_token && !tokenizer.add_eos_token);
        assert_eq!(tokenizer.chat_template.as_deref(), Some("{{ messages }}"));
    }
    writer.write(&folder.path().join("second.gguf")).unwrap();
    let error = open_model(folder.path()).unwrap_err();
    assert!(error.to_string().contains("2 .gguf files"), "{error}");
}

#[test]
fn lists_of_a_tokenizer_must_have_one_length() {
    let mut writer = GgufWriter::new();
    with_tokenizer(&mut writer);
    writer.metadata("tokenizer.ggml.scores", vec![0.0_f32]);
    let file = GgufFile::parse(crate::bytes::FileBytes::owned(writer.to_bytes())).unwrap();
    let error = GgufTokenizer::read(file.metadata()).unwrap_err();
    assert_eq!(error.to_string(), "`tokenizer.ggml.scores` has 1 entries for 3 tokens");
}

#[test]
fn nothing_there_is_said_clearly() {
    let folder = tempfile::tempdir().unwrap();
    let missing = open_model(&folder.path().join("none")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(open_model(folder.path()).unwrap_err().kind(), ErrorKind::NotFound);
    let empty = folder.path().join("empty.gguf");
    std::fs::write(&empty, b"").unwrap();
    let error = open_model(&empty).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("empty.gguf"), "{error}");
}

#[test]
fn an_adapter_is_not_taken_for_a_model() {
    let error = open_model(&testdata("models/tiny-llama-lora")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("is an adapter"), "{error}");
}

#[test]
fn a_broken_configuration_names_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    std::fs::write(&config, "{\"model_type\": \"llama\",\n oops").unwrap();
    let error = open_model(folder.path()).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("line 2"), "{error}");
}
