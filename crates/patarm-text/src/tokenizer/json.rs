//! A tokenizer from a `tokenizer.json` file.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

use super::added::{AddedToken, AddedTokens};
use super::decode::Vocabulary;
use super::save::Definition;
use super::{SpecialIds, Tokenizer};
use crate::error::{Error, ErrorKind, Result};

/// Larger files are refused; the largest published ones are about 35 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Ids beyond this are taken for damage rather than for a vocabulary.
const MAX_ID: u32 = 16 << 20;

pub(super) fn from_file(path: &Path) -> Result<Tokenizer> {
    let text = super::open::read_limited(path, MAX_FILE_BYTES)?;
    from_text(&text).map_err(|error| {
        let context = format!("cannot use tokenizer file {}", path.display());
        Error::with_source(error.kind(), context, error)
    })
}

pub(super) fn from_text(text: &str) -> Result<Tokenizer> {
    let mut json: Value = serde_json::from_str(text)
        .map_err(|source| Error::with_source(ErrorKind::Tokenizer, "not JSON", source))?;
    let added = take_added(&mut json)?;
    make_plain(&mut json, &added);
    let byte_level = has_type(&json["decoder"], "ByteLevel");
    let plain: tokenizers::Tokenizer = serde_json::from_value(json)
        .map_err(|source| Error::with_source(ErrorKind::Tokenizer, "not a tokenizer", source))?;
    let vocab = plain.get_vocab(false);
    let size = vocabulary_size(&vocab, &added)?;
    let vocabulary = if byte_level {
        Vocabulary::byte_level(size, vocab.iter().map(|(text, &id)| (id, text.as_str())))
    } else {
        Vocabulary::Decoder { size }
    };
    let special = SpecialIds::default();
    let definition = Definition::Json(text.to_owned());
    Ok(Tokenizer { plain, added, vocabulary, special, chat_template: None, definition })
}

fn take_added(json: &mut Value) -> Result<AddedTokens> {
    let Some(list) = json.get_mut("added_tokens").map(Value::take) else {
        return Ok(AddedTokens::default());
    };
    let tokens: Option<Vec<AddedToken>> = serde_json::from_value(list).map_err(|source| {
        Error::with_source(ErrorKind::Tokenizer, "field \"added_tokens\" is damaged", source)
    })?;
    Ok(AddedTokens::new(tokens.unwrap_or_default()))
}

/// Leaves only what turns data into ids: no added tokens, no template, no
/// truncation or padding, and no control token in the vocabulary.
fn make_plain(json: &mut Value, added: &AddedTokens) {
    let Some(fields) = json.as_object_mut() else {
        return;
    };
    fields.insert("added_tokens".into(), Value::Array(Vec::new()));
    for name in ["post_processor", "truncation", "padding"] {
        fields.insert(name.into(), Value::Null);
    }
    let Some(model) = fields.get_mut("model").and_then(Value::as_object_mut) else {
        return;
    };
    // The unknown token stays: it stands for text that cannot be spelt, and
    // models that have one refuse to work without it.
    let unknown = model.get("unk_token").and_then(Value::as_str).map(str::to_owned);
    let control: HashSet<&str> = added
        .iter()
        .filter(|token| token.control && Some(&token.text) != unknown.as_ref())
        .map(|token| token.text.as_str())
        .collect();
    if let Some(vocab) = model.get_mut("vocab").and_then(Value::as_object_mut) {
        vocab.retain(|text, _| !control.contains(text.as_str()));
    }
    if let Some(merges) = model.get_mut("merges").and_then(Value::as_array_mut) {
        merges.retain(|merge| !touches(merge, &control));
    }
}

/// Whether a merge, `"left right"` or `["left", "right"]`, makes or uses one of
/// these tokens.
fn touches(merge: &Value, control: &HashSet<&str>) -> bool {
    let (left, right) = match merge {
        Value::String(text) => text.split_once(' ').unwrap_or((text, "")),
        Value::Array(pair) => (text_at(pair, 0), text_at(pair, 1)),
        _ => return false,
    };
    [left, right, [left, right].concat().as_str()].iter().any(|text| control.contains(text))
}

fn text_at(pair: &[Value], index: usize) -> &str {
    pair.get(index).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a component, or one within a sequence, has this type.
fn has_type(component: &Value, name: &str) -> bool {
    component["type"] == name
        || ["decoders", "pretokenizers"].iter().any(|list| {
            component[*list].as_array().is_some_and(|all| all.iter().any(|c| c["type"] == name))
        })
}

fn vocabulary_size(
    vocab: &std::collections::HashMap<String, u32>,
    added: &AddedTokens,
) -> Result<usize> {
    let largest = vocab.values().copied().chain(added.iter().map(|token| token.id)).max();
    match largest {
        Some(id) if id <= MAX_ID => Ok(id as usize + 1),
        Some(id) => {
            Err(Error::new(ErrorKind::Limit, format!("token id {id} is larger than {MAX_ID}")))
        }
        None => Err(Error::new(ErrorKind::Tokenizer, "the vocabulary is empty")),
    }
}
