//! Added tokens, and cutting them out of a text before anything else sees it.
//!
//! The rule is that of Hugging Face tokenizers: leftmost match, the longest token
//! where several start at the same place; `lstrip` and `rstrip` swallow the
//! whitespace beside a token, `single_word` asks for word boundaries.

use std::collections::HashMap;

use serde::Deserialize;

/// One added token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct AddedToken {
    /// Id.
    pub(super) id: u32,
    /// What is matched.
    #[serde(rename = "content")]
    pub(super) text: String,
    /// Whether decoding may leave it out and data must never produce it.
    #[serde(rename = "special", default)]
    pub(super) control: bool,
    /// Swallows whitespace on its left.
    #[serde(default)]
    pub(super) lstrip: bool,
    /// Swallows whitespace on its right.
    #[serde(default)]
    pub(super) rstrip: bool,
    /// Matches whole words only.
    #[serde(default)]
    pub(super) single_word: bool,
}

impl AddedToken {
    /// A token without any stripping.
    pub(super) fn new(id: u32, text: String, control: bool) -> Self {
        Self { id, text, control, lstrip: false, rstrip: false, single_word: false }
    }
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Ordinary text, never empty.
    Text(&'a str),
    /// An added token.
    Token(u32),
}

/// All added tokens of a vocabulary.
#[derive(Clone, Debug, Default)]
pub(super) struct AddedTokens {
    tokens: Vec<AddedToken>,
    by_text: HashMap<String, usize>,
    by_id: HashMap<u32, usize>,
    /// Indices by first byte, longest first.
    by_first: HashMap<u8, Vec<usize>>,
}

impl AddedTokens {
    /// Keeps the first of several tokens with the same text; ignores empty ones.
    pub(super) fn new(tokens: Vec<AddedToken>) -> Self {
        let mut all = Self::default();
        for token in tokens {
            let Some(&first) = token.text.as_bytes().first() else {
                continue;
            };
            if all.by_text.contains_key(&token.text) {
                continue;
            }
            let index = all.tokens.len();
            all.by_text.insert(token.text.clone(), index);
            all.by_id.entry(token.id).or_insert(index);
            all.by_first.entry(first).or_default().push(index);
            all.tokens.push(token);
        }
        for candidates in all.by_first.values_mut() {
            candidates.sort_by_key(|&index| std::cmp::Reverse(all.tokens[index].text.len()));
        }
        all
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &AddedToken> {
        self.tokens.iter()
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.by_text.get(text).map(|&index| self.tokens[index].id)
    }

    pub(super) fn token(&self, id: u32) -> Option<&AddedToken> {
        self.by_id.get(&id).map(|&index| &self.tokens[index])
    }

    /// Cuts a text into added tokens and what lies between them.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        let mut done = 0;
        let mut at = 0;
        while at < text.len() {
            let Some(token) = self.match_at(text, at) else {
                at += 1;
                continue;
            };
            let (start, end) = widen(token, text, done, at);
            if start > done {
                pieces.push(Piece::Text(&text[done..start]));
            }
            pieces.push(Piece::Token(token.id));
            done = end;
            at = end;
        }
        if done < text.len() {
            pieces.push(Piece::Text(&text[done..]));
        }
        pieces
    }

    fn match_at(&self, text: &str, at: usize) -> Option<&AddedToken> {
        let bytes = text.as_bytes();
        self.by_first.get(&bytes[at])?.iter().map(|&index| &self.tokens[index]).find(|token| {
            bytes[at..].starts_with(token.text.as_bytes())
                && (!token.single_word || stands_alone(text, at, at + token.text.len()))
        })
    }
}

fn widen(token: &AddedToken, text: &str, done: usize, at: usize) -> (usize, usize) {
    let mut start = at;
    let mut end = at + token.text.len();
    if token.lstrip {
        start = done + text[done..at].trim_end().len();
    }
    if token.rstrip {
        end = text.len() - text[end..].trim_start().len();
    }
    (start, end)
}

fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    !text[..start].chars().next_back().is_some_and(is_word)
        && !text[end..].chars().next().is_some_and(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(texts: &[&str]) -> AddedTokens {
        let list = texts.iter().zip(0..).map(|(t, id)| AddedToken::new(id, t.to_string(), true));
        AddedTokens::new(list.collect())
    }

    #[test]
    fn leftmost_then_longest() {
        let added = tokens(&["<a>", "<a><b>", "b>"]);
        assert_eq!(added.split("x<a><b>y"), [Piece::Text("x"), Piece::Token(1), Piece::Text("y")]);
        assert_eq!(added.split("<a>b>"), [Piece::Token(0), Piece::Token(2)]);
        assert_eq!(added.split(""), []);
    }

    #[test]
    fn multibyte_text_around_tokens_is_kept_whole() {
        let added = tokens(&["é", "<a>"]);
        assert_eq!(
            added.split("日<a>é語"),
            [Piece::Text("日"), Piece::Token(1), Piece::Token(0), Piece::Text("語")]
        );
    }

    #[test]
    fn stripping_and_word_boundaries() {
        let mut mask = AddedToken::new(7, "<mask>".into(), true);
        mask.lstrip = true;
        mask.rstrip = true;
        let mut word = AddedToken::new(8, "cat".into(), false);
        word.single_word = true;
        let added = AddedTokens::new(vec![mask, word]);
        assert_eq!(
            added.split("a \n<mask>  b concat cat"),
            [Piece::Text("a"), Piece::Token(7), Piece::Text("b concat "), Piece::Token(8)]
        );
    }
}
