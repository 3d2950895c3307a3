//! Ids to text: byte-level vocabularies directly, others through their decoder.

use std::sync::LazyLock;

use super::{ControlTokens, Tokenizer};

/// How the entries of a vocabulary spell text.
#[derive(Debug)]
pub(super) enum Vocabulary {
    /// Every entry is a run of bytes.
    ByteLevel {
        /// All bytes, entry after entry.
        bytes: Vec<u8>,
        /// Where each entry ends.
        ends: Vec<usize>,
    },
    /// Entries need the tokenizer's own decoder (sentence pieces, word pieces).
    Decoder {
        /// One more than the largest id.
        size: usize,
    },
}

impl Vocabulary {
    /// A byte-level vocabulary from `(id, spelling)` entries in any order.
    pub(super) fn byte_level<'a>(
        size: usize,
        entries: impl Iterator<Item = (u32, &'a str)>,
    ) -> Self {
        let mut spellings: Vec<Option<&str>> = vec![None; size];
        for (id, spelling) in entries {
            if let Some(slot) = spellings.get_mut(id as usize) {
                *slot = Some(spelling);
            }
        }
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(size);
        for spelling in spellings {
            push_bytes(spelling.unwrap_or_default(), &mut bytes);
            ends.push(bytes.len());
        }
        Self::ByteLevel { bytes, ends }
    }

    /// The bytes of an entry, where the vocabulary keeps them.
    pub(super) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let Self::ByteLevel { bytes, ends } = self else { return None };
        let end = *ends.get(id as usize)?;
        let start = if id == 0 { 0 } else { ends[id as usize - 1] };
        bytes.get(start..end)
    }

    pub(super) fn size(&self) -> usize {
        match self {
            Self::ByteLevel { ends, .. } => ends.len(),
            Self::Decoder { size } => *size,
        }
    }
}

/// The byte behind each character of the byte-level alphabet of GPT-2: printable
/// Latin-1 characters stand for themselves, the other 68 bytes, in order, for
/// `U+0100` onwards.
static BYTE_OF_CHAR: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut table = [None; 0x144];
    let mut next = 0x100;
    for byte in 0..=u8::MAX {
        let index = if matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) {
            usize::from(byte)
        } else {
            next += 1;
            next - 1
        };
        table[index] = Some(byte);
    }
    table
});

/// Appends the bytes of an entry. Characters outside the alphabet stand for
/// their own UTF-8 bytes.
fn push_bytes(spelling: &str, bytes: &mut Vec<u8>) {
    for c in spelling.chars() {
        match BYTE_OF_CHAR.get(c as usize).copied().flatten() {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Turns a stream of ids into text, piece by piece, never cutting a character.
///
/// The pieces together equal [`Tokenizer::decode`] of all ids at once.
#[derive(Clone, Debug)]
pub struct DecodeStream {
    control: ControlTokens,
    /// Bytes of a character that is not complete yet.
    pending: Vec<u8>,
    /// Ids since the last added token, for vocabularies with their own decoder.
    run: Vec<u32>,
    /// How many bytes of the run's text were handed out.
    given: usize,
}

/// Where a run of a vocabulary with its own decoder is cut, to bound the work.
const MAX_RUN: usize = 4096;

impl DecodeStream {
    /// A stream at its beginning.
    #[must_use]
    pub fn new(control: ControlTokens) -> Self {
        Self { control, pending: Vec::new(), run: Vec::new(), given: 0 }
    }

    /// Takes one id; returns the text that is certain by now, often one token's.
    #[must_use]
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if let Some(token) = tokenizer.added.token(id) {
            let mut text = self.finish(tokenizer);
            if !token.control || self.control == ControlTokens::Keep {
                text.push_str(&token.text);
            }
            return text;
        }
        match &tokenizer.vocabulary {
            Vocabulary::ByteLevel { bytes, ends } => {
                let Some(&end) = ends.get(id as usize) else {
                    return String::new();
                };
                let start = if id == 0 { 0 } else { ends[id as usize - 1] };
                self.pending.extend_from_slice(&bytes[start..end]);
                take_complete(&mut self.pending)
            }
            Vocabulary::Decoder { .. } => self.push_to_run(tokenizer, id),
        }
    }

    /// Ends the stream; an incomplete character becomes `U+FFFD`.
    #[must_use]
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> String {
        let mut text = String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned();
        if !self.run.is_empty() {
            let whole = tokenizer.plain.decode(&self.run, false).unwrap_or_default();
            text.push_str(whole.get(self.given..).unwrap_or_default());
            self.run.clear();
            self.given = 0;
        }
        text
    }

    fn push_to_run(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        self.run.push(id);
        let whole = tokenizer.plain.decode(&self.run, false).unwrap_or_default();
        // A decoder shows an unfinished character as U+FFFD: wait for the rest.
        if whole.ends_with('\u{FFFD}') && self.run.len() < MAX_RUN {
            return String::new();
        }
        let text = whole.get(self.given..).unwrap_or_default().to_owned();
        self.given += text.len();
        text
    }
}

/// Takes everything from `pending` but a character that may still be completed.
fn take_complete(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut used = 0;
    for chunk in pending.utf8_chunks() {
        text.push_str(chunk.valid());
        used += chunk.valid().len();
        let invalid = chunk.invalid();
        if invalid.is_empty() {
            continue;
        }
        let at_end = used + invalid.len() == pending.len();
        if at_end && is_unfinished(invalid) {
            break;
        }
        text.push('\u{FFFD}');
        used += invalid.len();
    }
    pending.drain(..used);
    text
}

fn is_unfinished(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabet_covers_every_byte_once() {
        let mut seen: Vec<u8> = BYTE_OF_CHAR.iter().copied().flatten().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=255).collect::<Vec<u8>>());
        let mut bytes = Vec::new();
        push_bytes("Ġaé", &mut bytes);
        assert_eq!(bytes, [b' ', b'a', 0xE9]);
        for c in tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet() {
            assert!(BYTE_OF_CHAR[c as usize].is_some(), "{c:?}");
        }
    }

    #[test]
    fn incomplete_characters_wait_and_broken_ones_do_not() {
        let mut pending = "a語".as_bytes()[..3].to_vec();
        assert_eq!(take_complete(&mut pending), "a");
        assert_eq!(pending.len(), 2);
        pending.push(b'z');
        assert_eq!(take_complete(&mut pending), "\u{FFFD}z");
        assert!(pending.is_empty());
    }
}
