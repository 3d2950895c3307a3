//! A tokenizer from the vocabulary inside a GGUF file (`tokenizer.ggml.*`).

use std::collections::HashSet;

use tokenizers::SplitDelimiterBehavior;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

use super::added::{AddedToken, AddedTokens};
use super::decode::Vocabulary;
use super::save::Definition;
use super::{SpecialIds, Tokenizer};
use crate::error::{Error, ErrorKind, Result};

/// Vocabularies larger than this are refused.
const MAX_TOKENS: usize = 4 << 20;
/// Merge lists longer than this are refused.
const MAX_MERGES: usize = 8 << 20;

/// Token types of the GGUF format.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Tokens that end a turn or a text in the model families this crate knows,
/// where they are control tokens: generation must stop at any of them, and a
/// GGUF header names only one.
const END_TOKENS: [&str; 6] =
    ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>"];

/// What a GGUF header says about its vocabulary.
#[derive(Clone, Debug, Default)]
pub struct GgufParts {
    /// `tokenizer.ggml.model`; only `gpt2` (byte-level BPE) is supported.
    pub model: String,
    /// `tokenizer.ggml.pre`, the name of the pre-tokenizer.
    pub pre: String,
    /// `tokenizer.ggml.tokens`, by id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`, by id; empty means all normal.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.merges`, `left right`, most urgent first.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: bool,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

impl From<patarm_files::GgufTokenizer> for GgufParts {
    fn from(found: patarm_files::GgufTokenizer) -> Self {
        Self {
            model: found.model,
            pre: found.pre.unwrap_or_default(),
            tokens: found.tokens,
            token_types: found.token_types,
            merges: found.merges,
            bos: found.bos_token_id,
            eos: found.eos_token_id,
            pad: found.padding_token_id,
            add_bos: found.add_bos_token,
            chat_template: found.chat_template,
        }
    }
}

/// The pre-tokenizers of the supported families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Gpt2,
    SmolLm,
    Qwen2,
    Llama3,
}

/// Splitting rule of Qwen2 and later Qwen vocabularies.
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Splitting rule of Llama 3: as above, but up to three digits together.
const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Family {
    fn from_name(pre: &str) -> Result<Self> {
        match pre {
            "gpt-2" | "gpt2" | "default" | "" => Ok(Self::Gpt2),
            "smollm" => Ok(Self::SmolLm),
            "qwen2" | "deepseek-r1-qwen" => Ok(Self::Qwen2),
            "llama-bpe" | "llama3" | "llama-v3" => Ok(Self::Llama3),
            other => Err(damaged(format!(
                "pre-tokenizer {other:?} is not supported (known: gpt-2, smollm, qwen2, llama-bpe)"
            ))),
        }
    }

    fn pre_tokenizer(self) -> Result<PreTokenizerWrapper> {
        let whole = ByteLevel::new(false, false, true).into();
        let bytes_only = ByteLevel::new(false, false, false).into();
        Ok(match self {
            Self::Gpt2 => whole,
            Self::SmolLm => Sequence::new(vec![Digits::new(true).into(), whole]).into(),
            Self::Qwen2 => Sequence::new(vec![split(QWEN2_SPLIT)?, bytes_only]).into(),
            Self::Llama3 => Sequence::new(vec![split(LLAMA3_SPLIT)?, bytes_only]).into(),
        })
    }
}

fn split(pattern: &str) -> Result<PreTokenizerWrapper> {
    let pattern = SplitPattern::Regex(pattern.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
    split.map(Into::into).map_err(|source| {
        Error::with_source(ErrorKind::Tokenizer, "splitting rule does not compile", source)
    })
}

pub(super) fn from_parts(parts: GgufParts) -> Result<Tokenizer> {
    check(&parts)?;
    let family = Family::from_name(&parts.pre)?;
    let added = added_tokens(&parts);
    let size = parts.tokens.len();
    let entries: Vec<(&str, u32)> = parts
        .tokens
        .iter()
        .map(String::as_str)
        .zip(0..)
        .filter(|&(_, id)| !matches!(token_type(&parts, id), CONTROL | UNUSED))
        .collect();
    let vocabulary = Vocabulary::byte_level(size, entries.iter().map(|&(text, id)| (id, text)));
    // The first of several entries with the same text keeps it.
    let vocab: Vocab = entries.iter().rev().map(|&(text, id)| (text.to_owned(), id)).collect();
    let control: HashSet<&str> =
        added.iter().filter(|token| token.control).map(|token| token.text.as_str()).collect();
    let merges = merge_pairs(&parts.merges, &control)?;
    let plain = byte_level_bpe(family, vocab, merges)?;
    let special = special_ids(&parts, &added);
    let mut tokenizer = Tokenizer {
        plain,
        added,
        vocabulary,
        special: SpecialIds::default(),
        chat_template: parts.chat_template.clone(),
        definition: Definition::Gguf(Box::new(parts)),
    };
    tokenizer.set_special_ids(special)?;
    Ok(tokenizer)
}

fn check(parts: &GgufParts) -> Result<()> {
    if parts.model != "gpt2" {
        let context = format!(
            "tokenizer model {:?} is not supported; use the model's tokenizer.json instead",
            parts.model
        );
        return Err(damaged(context));
    }
    let (tokens, merges) = (parts.tokens.len(), parts.merges.len());
    if tokens > MAX_TOKENS || merges > MAX_MERGES {
        let context = format!("{tokens} tokens and {merges} merges are beyond what is accepted");
        return Err(Error::new(ErrorKind::Limit, context));
    }
    let types = parts.token_types.len();
    if tokens == 0 || (types != 0 && types != tokens) {
        return Err(damaged(format!("vocabulary has {tokens} tokens but {types} token types")));
    }
    Ok(())
}

fn token_type(parts: &GgufParts, id: u32) -> i32 {
    parts.token_types.get(id as usize).copied().unwrap_or(1)
}

fn added_tokens(parts: &GgufParts) -> AddedTokens {
    let tokens = parts.tokens.iter().zip(0..).filter_map(|(text, id)| {
        let control = match token_type(parts, id) {
            CONTROL => true,
            USER_DEFINED => false,
            _ => return None,
        };
        Some(AddedToken::new(id, text.clone(), control))
    });
    AddedTokens::new(tokens.collect())
}

/// Splits the merges; drops those that would make or use a control token, so
/// that no text can be merged into one.
fn merge_pairs(merges: &[String], control: &HashSet<&str>) -> Result<Merges> {
    let mut pairs = Vec::with_capacity(merges.len());
    for (index, merge) in merges.iter().enumerate() {
        let Some((left, right)) = merge.split_once(' ') else {
            return Err(damaged(format!("merge {index} is {merge:?}, not two pieces")));
        };
        let merged = [left, right].concat();
        if ![left, right, merged.as_str()].iter().any(|text| control.contains(text)) {
            pairs.push((left.to_owned(), right.to_owned()));
        }
    }
    Ok(pairs)
}

fn byte_level_bpe(family: Family, vocab: Vocab, merges: Merges) -> Result<tokenizers::Tokenizer> {
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(family == Family::Llama3)
        .build()
        .map_err(|source| {
            Error::with_source(ErrorKind::Tokenizer, "vocabulary and merges do not fit", source)
        })?;
    let mut plain = tokenizers::Tokenizer::new(model);
    plain.with_pre_tokenizer(Some(family.pre_tokenizer()?));
    if family == Family::Qwen2 {
        plain.with_normalizer(Some(NFC));
    }
    Ok(plain)
}

fn special_ids(parts: &GgufParts, added: &AddedTokens) -> SpecialIds {
    let mut eos: Vec<u32> = parts.eos.into_iter().collect();
    for text in END_TOKENS {
        let control = added.iter().find(|token| token.control && token.text == text);
        if let Some(token) = control
            && !eos.contains(&token.id)
        {
            eos.push(token.id);
        }
    }
    SpecialIds { bos: parts.bos, eos, pad: parts.pad, add_bos: parts.add_bos }
}

fn damaged(context: String) -> Error {
    Error::new(ErrorKind::Tokenizer, context)
}
