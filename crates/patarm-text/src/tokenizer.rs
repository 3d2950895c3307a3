//! Text to token ids and back, with data kept apart from control tokens.
//!
//! A [`Tokenizer`] has two ways in. [`Tokenizer::encode_template`] recognises the
//! vocabulary's added tokens (`<|im_end|>`, `<think>` and the like) and is meant for
//! text we wrote ourselves: chat templates and judge instructions.
//! [`Tokenizer::encode_text`] recognises none of them and is meant for data: a
//! response that spells out `<|im_end|>` becomes ordinary letters. The guarantee
//! is structural: control tokens are taken out of the vocabulary that data is
//! encoded with, so no input can reach their ids.

mod added;
mod decode;
mod gguf;
mod json;
mod open;
mod save;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use decode::DecodeStream;
pub use gguf::GgufParts;

use crate::error::{Error, ErrorKind, Result};
use added::{AddedTokens, Piece};
use decode::Vocabulary;
use save::Definition;

/// Texts longer than this many bytes are refused.
pub const MAX_TEXT_BYTES: usize = 64 << 20;

/// What to do with control tokens when turning ids into text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlTokens {
    /// Write them out as their text.
    Keep,
    /// Leave them out.
    Skip,
}

/// The ids with a role of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Put before a text, where the model wants it.
    pub bos: Option<u32>,
    /// Any of these ends a turn or a text.
    pub eos: Vec<u32>,
    /// Fills rows of unequal length; may equal an end token.
    pub pad: Option<u32>,
    /// Whether the model was trained with `bos` before every text.
    pub add_bos: bool,
}

/// A tokenizer with its control tokens and the chat template found beside it.
#[derive(Debug)]
pub struct Tokenizer {
    /// Knows no added token and no control token.
    plain: tokenizers::Tokenizer,
    added: AddedTokens,
    vocabulary: Vocabulary,
    special: SpecialIds,
    chat_template: Option<String>,
    /// What it was made from, for writing it again.
    definition: Definition,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. Truncation, padding and automatic
    /// begin-of-text tokens that the file may ask for are left out: ids are those
    /// of the text and nothing else.
    ///
    /// # Errors
    /// When the file cannot be read, is larger than 256 MiB, or is not a tokenizer
    /// this crate understands.
    pub fn from_file(path: &Path) -> Result<Self> {
        json::from_file(path)
    }

    /// Builds a tokenizer from the vocabulary a GGUF file carries.
    ///
    /// # Errors
    /// When the parts contradict each other or ask for an unknown pre-tokenizer.
    pub fn from_gguf_parts(parts: GgufParts) -> Result<Self> {
        gguf::from_parts(parts)
    }

    /// Opens the tokenizer of a model: a folder with `tokenizer.json`, such a file
    /// itself, or a `.gguf` file. End tokens and the chat template are taken from
    /// the files beside it.
    ///
    /// # Errors
    /// When no tokenizer is found there, or the one found is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        open::open(path)
    }

    /// Token ids of data. No added token is recognised.
    ///
    /// # Errors
    /// When the text is longer than [`MAX_TEXT_BYTES`], or the vocabulary cannot
    /// spell it.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        check_length(text)?;
        self.encode_plain(text)
    }

    /// Token ids of text we wrote ourselves; added tokens are recognised.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_text`].
    pub fn encode_template(&self, text: &str) -> Result<Vec<u32>> {
        check_length(text)?;
        let mut ids = Vec::new();
        for piece in self.added.split(text) {
            match piece {
                Piece::Token(id) => ids.push(id),
                Piece::Text(part) => ids.extend(self.encode_plain(part)?),
            }
        }
        Ok(ids)
    }

    /// The text of some ids. Bytes that are not UTF-8 become `U+FFFD`; ids outside
    /// the vocabulary add nothing.
    #[must_use]
    pub fn decode(&self, ids: &[u32], control: ControlTokens) -> String {
        let mut stream = DecodeStream::new(control);
        let mut text = String::new();
        for &id in ids {
            text.push_str(&stream.push(self, id));
        }
        text.push_str(&stream.finish(self));
        text
    }

    /// The id of a token given by its text: of an added token, or of a
    /// vocabulary entry spelt as the vocabulary spells it.
    #[must_use]
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.added.id(token).or_else(|| self.plain.token_to_id(token))
    }

    /// The text of an added token, or the vocabulary's own spelling of any other.
    #[must_use]
    pub fn token_text(&self, id: u32) -> Option<String> {
        match self.added.token(id) {
            Some(token) => Some(token.text.clone()),
            None => self.plain.id_to_token(id),
        }
    }

    /// The bytes an id stands for, which need not be whole characters; `None` outside the
    /// vocabulary.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        if let Some(token) = self.added.token(id) {
            return Some(token.text.clone().into_bytes());
        }
        if id as usize >= self.vocab_size() {
            return None;
        }
        match self.vocabulary.bytes(id) {
            Some(bytes) => Some(bytes.to_vec()),
            None => self.plain.decode(&[id], false).ok().map(String::into_bytes),
        }
    }

    /// Whether an id is a control token, one that data can never produce.
    #[must_use]
    pub fn is_control(&self, id: u32) -> bool {
        self.added.token(id).is_some_and(|token| token.control)
    }

    /// One more than the largest id.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.size()
    }

    /// Ids that end a turn or a text.
    #[must_use]
    pub fn eos_ids(&self) -> &[u32] {
        &self.special.eos
    }

    /// Ids with a role of their own.
    #[must_use]
    pub fn special_ids(&self) -> &SpecialIds {
        &self.special
    }

    /// Replaces the ids with a role of their own.
    ///
    /// # Errors
    /// When one of them is not in the vocabulary.
    pub fn set_special_ids(&mut self, special: SpecialIds) -> Result<()> {
        let size = self.vocab_size();
        let all = special.eos.iter().chain(&special.bos).chain(&special.pad);
        if let Some(id) = all.copied().find(|&id| id as usize >= size) {
            let context = format!("special token id {id} is outside the vocabulary of {size}");
            return Err(Error::new(ErrorKind::Tokenizer, context));
        }
        self.special = special;
        Ok(())
    }

    /// The text of the begin-of-text token, empty where there is none: what chat
    /// templates call `bos_token`.
    #[must_use]
    pub fn bos_text(&self) -> String {
        self.special.bos.and_then(|id| self.token_text(id)).unwrap_or_default()
    }

    /// The text of the first end token, empty where there is none: what chat
    /// templates call `eos_token`.
    #[must_use]
    pub fn eos_text(&self) -> String {
        self.special.eos.first().and_then(|&id| self.token_text(id)).unwrap_or_default()
    }

    /// Source of the chat template found with the tokenizer.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let encoding = self.plain.encode_fast(text, false).map_err(|source| {
            Error::with_source(ErrorKind::Encoding, "cannot turn the text into tokens", source)
        })?;
        Ok(encoding.get_ids().to_vec())
    }
}

fn check_length(text: &str) -> Result<()> {
    if text.len() <= MAX_TEXT_BYTES {
        return Ok(());
    }
    let context = format!("text of {} bytes is longer than {MAX_TEXT_BYTES}", text.len());
    Err(Error::new(ErrorKind::Limit, context))
}
