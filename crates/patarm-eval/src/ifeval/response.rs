//! A response with the variants of the loose criterion.

use std::cell::OnceCell;

use crate::ifbench;
use crate::language;
use crate::nltk::{parameters::Parameters, sentences, words};
use crate::python::{pattern::Folded, text};

/// Longest response that is checked, in bytes; a longer one follows nothing.
pub const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// A response ready for verification. What several instructions ask about it is computed once.
#[derive(Debug)]
pub struct Response<'p> {
    /// The distinct variants that are not blank; the first is the response itself, if it counts.
    variants: Vec<Variant<'p>>,
    /// Whether the response as it is may follow anything.
    counts: bool,
}

impl<'p> Response<'p> {
    /// Prepares a response; `parameters` are those of the sentence splitter.
    #[must_use]
    pub fn new(response: &str, parameters: &'p Parameters) -> Self {
        if response.len() > MAX_RESPONSE_BYTES {
            return Self { variants: Vec::new(), counts: false };
        }
        let mut distinct = Vec::<String>::new();
        for text in loose_variants(response) {
            if !text::strip(&text).is_empty() && !distinct.contains(&text) {
                distinct.push(text);
            }
        }
        let counts = distinct.first().is_some_and(|first| first == response);
        let variants = distinct.into_iter().map(|text| Variant::new(text, parameters)).collect();
        Self { variants, counts }
    }

    /// The response as it is, unless it is blank.
    pub(crate) fn strict(&self) -> Option<&Variant<'p>> {
        self.variants.first().filter(|_| self.counts)
    }

    /// The distinct variants that are not blank.
    pub(crate) fn variants(&self) -> &[Variant<'p>] {
        &self.variants
    }
}

/// The eight texts of the loose criterion, the response itself first.
fn loose_variants(response: &str) -> [String; 8] {
    let lines: Vec<&str> = response.split('\n').collect();
    let last = lines.len() - 1;
    let joined = |from: usize, to: usize| {
        text::strip(&lines.get(from..to).unwrap_or_default().join("\n")).to_owned()
    };
    let [first, end, both] = [joined(1, last + 1), joined(0, last), joined(1, last)];
    let bare = |text: &str| text.replace('*', "");
    [response.to_owned(), bare(response), bare(&first), bare(&end), bare(&both), first, end, both]
}

/// One text, with what has been found out about it.
#[derive(Debug)]
pub(crate) struct Variant<'p> {
    pub(crate) text: String,
    parameters: &'p Parameters,
    lower: OnceCell<String>,
    folded: OnceCell<Folded>,
    language: OnceCell<Option<String>>,
    num_sentences: OnceCell<usize>,
}

impl<'p> Variant<'p> {
    pub(crate) fn new(text: String, parameters: &'p Parameters) -> Self {
        Self {
            text,
            parameters,
            lower: OnceCell::new(),
            folded: OnceCell::new(),
            language: OnceCell::new(),
            num_sentences: OnceCell::new(),
        }
    }

    /// `str.lower()`.
    pub(crate) fn lower(&self) -> &str {
        self.lower.get_or_init(|| self.text.to_lowercase())
    }

    /// The text for keyword searches.
    pub(crate) fn folded(&self) -> &Folded {
        self.folded.get_or_init(|| Folded::new(&self.text))
    }

    /// Whether its language is `code`; true where no language can be told.
    pub(crate) fn is_in_language(&self, code: &str) -> bool {
        let detected = self.language.get_or_init(|| language::detect(&self.text));
        detected.as_ref().is_none_or(|detected| detected == code)
    }

    pub(crate) fn num_sentences(&self) -> usize {
        *self.num_sentences.get_or_init(|| sentences::num_sentences(&self.text, self.parameters))
    }

    /// The tokens of `nltk.word_tokenize`.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.tokens_of(&self.text)
    }

    /// The tokens of a part of it.
    pub(crate) fn tokens_of(&self, part: &str) -> Vec<String> {
        words::tokens(part, self.parameters)
    }

    /// Sentences by the rules of IFBench.
    pub(crate) fn rule_sentences(&self) -> Vec<String> {
        ifbench::sentences::split(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variants(response: &str) -> Vec<String> {
        let response = Response::new(response, Parameters::english());
        response.variants().iter().map(|variant| variant.text.clone()).collect()
    }

    #[test]
    fn variants_are_the_eight_of_the_benchmark() {
        let found = variants("a\n *b* \nc");
        let expected =
            ["a\n *b* \nc", "a\n b \nc", "b \nc", "a\n b", "b", "*b* \nc", "a\n *b*", "*b*"];
        assert_eq!(found, expected);
    }

    #[test]
    fn equal_and_blank_variants_are_left_out() {
        assert_eq!(variants("one line"), ["one line"]);
        assert!(variants(" \n ").is_empty());
        // Only asterisks: without them nothing is left.
        assert_eq!(variants("***"), ["***"]);
    }

    #[test]
    fn a_blank_or_overlong_response_does_not_count() {
        for text in ["", " \n\u{1c}", &"x".repeat(MAX_RESPONSE_BYTES + 1)] {
            assert!(Response::new(text, Parameters::english()).strict().is_none());
        }
        assert!(Response::new("x", Parameters::english()).strict().is_some());
    }
}
