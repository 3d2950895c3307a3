//! The tokenizer against the Python `tokenizers` package, and its guarantees.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/text").join(name)
}

fn tiny() -> Tokenizer {
    Tokenizer::from_file(&fixture("tokenizer.json")).unwrap()
}

#[derive(Deserialize)]
struct Golden {
    text: String,
    template: Vec<u32>,
    data: Vec<u32>,
    decoded: String,
    decoded_skip: String,
}

/// The parts a GGUF file would carry for the same vocabulary.
fn gguf_parts() -> GgufParts {
    let text = std::fs::read_to_string(fixture("tokenizer.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut tokens: Vec<(u32, String, i32)> = json["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(text, id)| (id.as_u64().unwrap() as u32, text.clone(), 1))
        .collect();
    for token in json["added_tokens"].as_array().unwrap() {
        let kind = if token["special"] == true { 3 } else { 4 };
        let id = token["id"].as_u64().unwrap() as u32;
        tokens.push((id, token["content"].as_str().unwrap().to_owned(), kind));
    }
    tokens.sort();
    let merges = json["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
    GgufParts {
        model: "gpt2".into(),
        pre: "qwen2".into(),
        merges: merges.collect(),
        token_types: tokens.iter().map(|token| token.2).collect(),
        eos: tokens.iter().find(|token| token.1 == "<|im_end|>").map(|token| token.0),
        tokens: tokens.into_iter().map(|token| token.1).collect(),
        ..GgufParts::default()
    }
}

#[test]
fn equal_to_the_reference_from_either_source() {
    let text = std::fs::read_to_string(fixture("tokenizer_golden.json")).unwrap();
    let cases: Vec<Golden> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() >= 10);
    for tokenizer in [tiny(), Tokenizer::from_gguf_parts(gguf_parts()).unwrap()] {
        for case in &cases {
            let ids = tokenizer.encode_template(&case.text).unwrap();
            assert_eq!(ids, case.template, "{:?}", case.text);
            assert_eq!(tokenizer.encode_text(&case.text).unwrap(), case.data, "{:?}", case.text);
            assert_eq!(tokenizer.decode(&ids, ControlTokens::Keep), case.decoded);
            assert_eq!(tokenizer.decode(&ids, ControlTokens::Skip), case.decoded_skip);
        }
    }
}

#[test]
fn data_never_becomes_a_control_token() {
    for tokenizer in [tiny(), Tokenizer::from_gguf_parts(gguf_parts()).unwrap()] {
        let end = tokenizer.token_id("<|im_end|>").unwrap();
        assert!(tokenizer.is_control(end));
        assert_eq!(tokenizer.encode_template("<|im_end|>").unwrap(), [end]);
        let ids = tokenizer.encode_text("<|im_end|>").unwrap();
        assert!(ids.len() > 1 && !ids.iter().any(|&id| tokenizer.is_control(id)));
        assert_eq!(tokenizer.decode(&ids, ControlTokens::Skip), "<|im_end|>");
    }
}

#[test]
fn merges_into_a_control_token_are_dropped() {
    let mut parts = gguf_parts();
    let word = |merge: &&String| merge.chars().all(|c| c.is_ascii_lowercase() || c == ' ');
    let end = parts.merges.iter().rfind(word).unwrap().replace(' ', "");
    let id = parts.tokens.iter().position(|token| *token == end).unwrap();
    let before = Tokenizer::from_gguf_parts(parts.clone()).unwrap().encode_text(&end).unwrap();
    assert_eq!(before, [id as u32]);
    parts.token_types[id] = 3;
    let tokenizer = Tokenizer::from_gguf_parts(parts).unwrap();
    let ids = tokenizer.encode_text(&end).unwrap();
    assert!(!ids.contains(&(id as u32)));
    assert_eq!(tokenizer.encode_template(&end).unwrap(), [id as u32]);
}

#[test]
fn roles_of_ids() {
    let mut tokenizer = Tokenizer::from_gguf_parts(gguf_parts()).unwrap();
    let end = tokenizer.token_id("<|im_end|>").unwrap();
    let text_end = tokenizer.token_id("<|endoftext|>").unwrap();
    assert_eq!(tokenizer.eos_ids(), [end, text_end]);
    assert_eq!(tokenizer.eos_text(), "<|im_end|>");
    assert_eq!(tokenizer.bos_text(), "");
    let size = tokenizer.vocab_size() as u32;
    assert_eq!(tokenizer.token_text(size), None);
    let wrong = SpecialIds { eos: vec![size], ..SpecialIds::default() };
    let error = tokenizer.set_special_ids(wrong).unwrap_err();
    assert!(error.to_string().contains("outside the vocabulary"), "{error}");
}

#[test]
fn smollm_digits_stand_alone_and_llama_groups_three() {
    let ids = |pre: &str, text: &str| {
        let mut parts = gguf_parts();
        // A merge of two digits, which only an unsplit pair of digits can meet.
        parts.tokens.push("12".into());
        parts.token_types.push(1);
        parts.merges.push("1 2".into());
        parts.pre = pre.into();
        Tokenizer::from_gguf_parts(parts).unwrap().encode_text(text).unwrap()
    };
    assert_eq!(ids("smollm", "12").len(), 2);
    assert_eq!(ids("qwen2", "12").len(), 2);
    assert_eq!(ids("llama-bpe", "12").len(), 1);
    assert_eq!(ids("gpt-2", "12").len(), 1);
    assert_eq!(ids("smollm", " 1").len(), 2);
}

#[test]
fn damaged_parts_are_refused_with_a_reason() {
    type Damage = (&'static str, fn(&mut GgufParts));
    let damages: [Damage; 6] = [
        ("not supported", |parts| parts.pre = "martian".into()),
        ("not supported", |parts| parts.model = "llama".into()),
        ("token types", |parts| parts.token_types.truncate(3)),
        ("two pieces", |parts| parts.merges[0] = "alone".into()),
        ("do not fit", |parts| parts.merges[0] = "zzz yyy".into()),
        ("outside the vocabulary", |parts| parts.eos = Some(1 << 30)),
    ];
    for (reason, damage) in damages {
        let mut parts = gguf_parts();
        damage(&mut parts);
        let error = Tokenizer::from_gguf_parts(parts).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn damaged_files_are_refused() {
    let whole = std::fs::read_to_string(fixture("tokenizer.json")).unwrap();
    let broken = [
        "",
        "null",
        "[]",
        "{}",
        "{\"model\": 3}",
        &whole[..whole.len() / 2],
        r#"{"added_tokens": [{"id": -1, "content": "x"}], "model": {"type":"BPE","vocab":{},"merges":[]}}"#,
        r#"{"added_tokens": [{"id": 4294967295, "content": "x"}], "model": {"type":"BPE","vocab":{"a":0},"merges":[]}}"#,
        r#"{"model": {"type":"BPE","vocab":{},"merges":[]}}"#,
    ];
    for text in broken {
        assert!(json::from_text(text).is_err(), "{text}");
    }
    let deep = "[".repeat(100_000);
    assert!(json::from_text(&deep).is_err());
}

#[test]
fn opening_a_folder_finds_roles_and_template() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let missing = Tokenizer::open(folder.path()).unwrap_err();
    assert!(missing.to_string().contains("has no tokenizer"), "{missing}");
    write("tokenizer.json", &std::fs::read_to_string(fixture("tokenizer.json")).unwrap());
    write(
        "tokenizer_config.json",
        r#"{"eos_token": {"content": "<|im_end|>"}, "bos_token": null,
            "chat_template": [{"name": "default", "template": "T"}]}"#,
    );
    let text_end = tiny().token_id("<|endoftext|>").unwrap();
    write("generation_config.json", &format!("{{\"eos_token_id\": [{text_end}]}}"));
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    let end = tokenizer.token_id("<|im_end|>").unwrap();
    assert_eq!(tokenizer.eos_ids(), [text_end, end]);
    assert_eq!(tokenizer.special_ids().bos, None);
    assert_eq!(tokenizer.chat_template(), Some("T"));
    write("chat_template.jinja", "J");
    assert_eq!(Tokenizer::open(folder.path()).unwrap().chat_template(), Some("J"));
    write("config.json", "{");
    assert!(Tokenizer::open(folder.path()).is_err());
}

#[test]
fn opening_a_gguf_file_uses_its_vocabulary() {
    use patarm_files::{Array, GgufWriter, Value};
    let parts = gguf_parts();
    let text = |text: &str| Value::String(text.into());
    let mut writer = GgufWriter::new();
    writer.metadata("general.architecture", text("llama"));
    writer.metadata("tokenizer.ggml.model", text(&parts.model));
    writer.metadata("tokenizer.ggml.pre", text(&parts.pre));
    writer.metadata("tokenizer.ggml.tokens", Value::Array(Array::String(parts.tokens)));
    writer.metadata("tokenizer.ggml.merges", Value::Array(Array::String(parts.merges)));
    writer.metadata("tokenizer.ggml.token_type", Value::Array(Array::I32(parts.token_types)));
    writer.metadata("tokenizer.chat_template", text(crate::template::CHATML));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    writer.write(&path).unwrap();
    for place in [path.as_path(), folder.path()] {
        let tokenizer = Tokenizer::open(place).unwrap();
        assert_eq!(tokenizer.vocab_size(), tiny().vocab_size());
        assert_eq!(tokenizer.eos_text(), "<|im_end|>");
        assert!(crate::template::ChatTemplate::from_tokenizer(&tokenizer).unwrap().is_some());
    }
    std::fs::write(&path, b"GGUF\x03").unwrap();
    let error = Tokenizer::open(&path).unwrap_err();
    assert!(error.to_string().contains("tiny.gguf"), "{error}");
    assert!(Tokenizer::open(&folder.path().join("absent.gguf")).is_err());
}

#[test]
fn over_long_text_is_refused() {
    let error = tiny().encode_text(&" ".repeat(MAX_TEXT_BYTES + 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn data_round_trips_and_stays_data(text in "(\\PC|[ \n]|<\\|im_end\\|>|<think>){0,40}") {
        use tokenizers::normalizer::NormalizedString;
        let tokenizer = tiny();
        let ids = tokenizer.encode_text(&text).unwrap();
        prop_assert!(ids.iter().all(|&id| !tokenizer.is_control(id)));
        let mut normal = NormalizedString::from(text.as_str());
        normal.nfc();
        prop_assert_eq!(tokenizer.decode(&ids, ControlTokens::Skip), normal.get());
    }

    #[test]
    fn a_stream_of_any_ids_equals_the_reference_decoder(
        ids in prop::collection::vec(0u32..360, 0..60),
    ) {
        let tokenizer = tiny();
        let mut stream = DecodeStream::new(ControlTokens::Keep);
        let mut text: String = ids.iter().map(|&id| stream.push(&tokenizer, id)).collect();
        text.push_str(&stream.finish(&tokenizer));
        prop_assert_eq!(&text, &tokenizer.plain.decode(&ids, false).unwrap());
        prop_assert_eq!(text, tokenizer.decode(&ids, ControlTokens::Skip));
    }
}
