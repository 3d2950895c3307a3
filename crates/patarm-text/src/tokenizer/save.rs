//! Writing a tokenizer as the files of a model folder.

use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::models::ModelWrapper;

use super::added::AddedToken;
use super::{GgufParts, Tokenizer};
use crate::error::{Error, ErrorKind, Result};

/// What a tokenizer was made from.
#[derive(Debug)]
pub(super) enum Definition {
    /// The text of a `tokenizer.json`.
    Json(String),
    /// The vocabulary of a GGUF file.
    Gguf(Box<GgufParts>),
}

impl Tokenizer {
    /// Writes `tokenizer.json`, `tokenizer_config.json` and `generation_config.json`
    /// into an existing folder, as other tools read them and [`Tokenizer::open`]
    /// reads them back: the same ids, special tokens and chat template.
    ///
    /// A `tokenizer.json` is written as it was read. The two configurations hold
    /// what this crate knows; where a model has such files of its own, which may
    /// say more, copy them instead.
    ///
    /// # Errors
    /// When a file cannot be written; each one is then whole or absent.
    pub fn save_files(&self, folder: &Path) -> Result<()> {
        let text = match &self.definition {
            Definition::Json(text) => text.clone(),
            Definition::Gguf(parts) => pretty(&self.gguf_json(parts)?),
        };
        write(&folder.join("tokenizer.json"), &text)?;
        write(&folder.join("tokenizer_config.json"), &pretty(&self.config_json()))?;
        write(&folder.join("generation_config.json"), &pretty(&self.generation_json()))
    }

    /// Control tokens stand in the vocabulary too: readers give an added token the
    /// id of its vocabulary entry, where it has one.
    fn gguf_json(&self, parts: &GgufParts) -> Result<Value> {
        let failed = |source: serde_json::Error| {
            Error::with_source(ErrorKind::Tokenizer, "cannot write the tokenizer", source)
        };
        let plain = &self.plain;
        let mut added: Vec<&AddedToken> = self.added.iter().collect();
        added.sort_by_key(|token| token.id);
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added.into_iter().map(AddedToken::to_json).collect::<Value>(),
            "normalizer": serde_json::to_value(plain.get_normalizer()).map_err(failed)?,
            "pre_tokenizer": serde_json::to_value(plain.get_pre_tokenizer()).map_err(failed)?,
            "post_processor": self.post_processor(),
            "decoder": byte_level(),
            "model": model_json(parts, plain.get_model()),
        }))
    }

    /// Puts the begin token before every text, where the model wants it.
    fn post_processor(&self) -> Value {
        let bos = self.special.bos.filter(|_| self.special.add_bos);
        let Some((id, text)) = bos.and_then(|id| Some((id, self.token_text(id)?))) else {
            return Value::Null;
        };
        let begin = json!({"SpecialToken": {"id": text, "type_id": 0}});
        let sequence = |name: &str, kind: u32| json!({"Sequence": {"id": name, "type_id": kind}});
        let special = json!({"id": text, "ids": [id], "tokens": [text]});
        json!({
            "type": "TemplateProcessing",
            "single": [begin, sequence("A", 0)],
            "pair": [begin, sequence("A", 0), sequence("B", 1)],
            "special_tokens": Map::from_iter([(text, special)]),
        })
    }

    fn config_json(&self) -> Value {
        let text = |id: Option<u32>| id.and_then(|id| self.token_text(id));
        json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": self.special.add_bos,
            "bos_token": text(self.special.bos),
            "eos_token": text(self.special.eos.first().copied()),
            "pad_token": text(self.special.pad),
            "clean_up_tokenization_spaces": false,
            "chat_template": self.chat_template,
        })
    }

    fn generation_json(&self) -> Value {
        json!({
            "bos_token_id": self.special.bos,
            "eos_token_id": self.special.eos,
            "pad_token_id": self.special.pad,
        })
    }
}

impl AddedToken {
    fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "content": self.text,
            "single_word": self.single_word,
            "lstrip": self.lstrip,
            "rstrip": self.rstrip,
            "normalized": false,
            "special": self.control,
        })
    }
}

/// The model of a byte-level BPE.
fn model_json(parts: &GgufParts, model: &ModelWrapper) -> Value {
    let mut vocab = Map::new();
    for (id, token) in parts.tokens.iter().enumerate() {
        // The first of several entries with the same text keeps it.
        vocab.entry(token.as_str()).or_insert_with(|| json!(id));
    }
    let pairs = parts.merges.iter().filter_map(|merge| merge.split_once(' '));
    let ignore_merges = matches!(model, ModelWrapper::BPE(bpe) if bpe.ignore_merges);
    json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": null,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": ignore_merges,
        "vocab": vocab,
        "merges": pairs.map(|(left, right)| json!([left, right])).collect::<Value>(),
    })
}

fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn write(path: &Path, text: &str) -> Result<()> {
    patarm_files::write_atomically(path, text.as_bytes()).map_err(|source| {
        Error::with_source(ErrorKind::Io, format!("cannot save {}", path.display()), source)
    })
}

#[cfg(test)]
mod tests {
    use super::super::ControlTokens;
    use super::*;

    /// Bytes `a`, `b`, a merge of them, control tokens in front and at the end.
    fn tokenizer(add_bos: bool) -> Tokenizer {
        let tokens = ["<|start|>", "a", "b", "ab", "Ġ", "<think>", "<|im_end|>"];
        Tokenizer::from_gguf_parts(GgufParts {
            model: "gpt2".into(),
            pre: "qwen2".into(),
            tokens: tokens.map(String::from).to_vec(),
            token_types: vec![3, 1, 1, 1, 1, 4, 3],
            merges: vec!["a b".into()],
            bos: Some(0),
            eos: Some(6),
            pad: None,
            add_bos,
            chat_template: Some("{{ messages }}".into()),
        })
        .unwrap()
    }

    #[test]
    fn what_is_saved_is_read_back() {
        for add_bos in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let original = tokenizer(add_bos);
            original.save_files(folder.path()).unwrap();
            let again = Tokenizer::open(folder.path()).unwrap();
            let text = "<|start|>ab a<think>b<|im_end|>";
            let ids = original.encode_template(text).unwrap();
            assert_eq!(ids, [0, 3, 4, 1, 5, 2, 6]);
            assert_eq!(again.encode_template(text).unwrap(), ids);
            assert_eq!(again.decode(&ids, ControlTokens::Keep), text);
            assert_eq!(again.special_ids(), original.special_ids());
            assert_eq!(again.chat_template(), original.chat_template());
            assert_eq!(again.vocab_size(), original.vocab_size());
            assert!(again.is_control(6) && !again.is_control(5));
            // Data cannot reach a control token in either.
            assert!(again.encode_text("<|im_end|>").unwrap_or_default().iter().all(|&id| id != 6));
        }
    }

    #[test]
    fn a_tokenizer_file_is_written_as_it_was_read() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        tokenizer(false).save_files(first.path()).unwrap();
        Tokenizer::open(first.path()).unwrap().save_files(second.path()).unwrap();
        for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            let read = |folder: &Path| std::fs::read_to_string(folder.join(name)).unwrap();
            assert_eq!(read(first.path()), read(second.path()));
        }
    }

    #[test]
    fn other_readers_see_the_same_ids() {
        let folder = tempfile::tempdir().unwrap();
        tokenizer(true).save_files(folder.path()).unwrap();
        let path = folder.path().join("tokenizer.json");
        let reader = tokenizers::Tokenizer::from_file(path).unwrap();
        let ids =
            |special| reader.encode("ab<think>a<|im_end|>", special).unwrap().get_ids().to_vec();
        assert_eq!(ids(false), [3, 5, 1, 6]);
        assert_eq!(ids(true), [0, 3, 5, 1, 6]);
        assert_eq!(reader.decode(&[3, 4, 1], false).unwrap(), "ab a");
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        let error = tokenizer(false).save_files(Path::new("no/such/folder")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}
