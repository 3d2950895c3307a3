//! Instructions about the number of words, sentences and paragraphs.

use super::arguments::{Arguments, InstructionError, Relation};
use super::format::pattern;
use super::response::Variant;
use crate::python::text::{self, SPACE};

/// `length_constraints:number_words`: runs of word characters.
#[derive(Clone, Debug)]
pub struct Words {
    bound: usize,
    relation: Relation,
}

impl Words {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        Ok(Self { bound: arguments.count("num_words")?, relation: arguments.relation("relation")? })
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        self.relation.holds(text::num_words(&response.text), self.bound)
    }
}

/// `length_constraints:number_sentences`: sentences of the Punkt splitter.
#[derive(Clone, Debug)]
pub struct Sentences {
    bound: usize,
    relation: Relation,
}

impl Sentences {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        let bound = arguments.count("num_sentences")?;
        Ok(Self { bound, relation: arguments.relation("relation")? })
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        self.relation.holds(response.num_sentences(), self.bound)
    }
}

/// `length_constraints:number_paragraphs`: parts between `***`, exactly so many. A blank part at
/// either end does not count; one inside fails.
#[derive(Clone, Debug)]
pub struct Paragraphs(usize);

impl Paragraphs {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        arguments.count("num_paragraphs").map(Self)
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        let divider = pattern!(&format!(r"[{SPACE}]?\*\*\*[{SPACE}]?"));
        let parts: Vec<&str> = divider.split(&response.text).collect();
        let is_blank = |part: &&str| text::strip(part).is_empty();
        let inner = parts.get(1..parts.len() - 1).unwrap_or_default();
        if inner.iter().any(is_blank) {
            return false;
        }
        parts.iter().filter(|part| !is_blank(part)).count() == self.0
    }
}

/// `length_constraints:nth_paragraph_first_word`: so many paragraphs between blank lines, and the
/// n-th begins with a word.
#[derive(Clone, Debug)]
pub struct FirstWord {
    num_paragraphs: usize,
    nth: usize,
    word: String,
}

impl FirstWord {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        let num_paragraphs = arguments.count("num_paragraphs")?;
        let nth = arguments.count("nth_paragraph")?;
        if !(1..=num_paragraphs).contains(&nth) {
            return Err(arguments.error(format!("there is no paragraph {nth} of {num_paragraphs}")));
        }
        Ok(Self { num_paragraphs, nth, word: arguments.text("first_word")?.to_lowercase() })
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        let paragraphs: Vec<&str> = response.text.split("\n\n").collect();
        let is_filled = |paragraph: &&&str| !text::strip(paragraph).is_empty();
        let num_filled = paragraphs.iter().filter(is_filled).count();
        // The n-th is counted among all parts, the number among those that are not blank.
        let nth = paragraphs.get(self.nth - 1).filter(|_| self.nth <= num_filled);
        let Some(first) = nth.and_then(|paragraph| text::split(paragraph).next()) else {
            return false;
        };
        let word = first.trim_start_matches('\'').trim_start_matches('"');
        let letters = word.chars().take_while(|c| !matches!(c, '.' | ',' | '?' | '!' | '\'' | '"'));
        num_filled == self.num_paragraphs
            && letters.flat_map(char::to_lowercase).eq(self.word.chars())
    }
}
