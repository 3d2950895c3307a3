//! Instructions about words and letters that occur or do not.

use super::arguments::{Arguments, InstructionError, Relation};
use super::response::Variant;
use crate::python::pattern::Keyword;

fn keyword(arguments: &Arguments<'_>, word: &str) -> Result<Keyword, InstructionError> {
    Keyword::new(word).map_err(|message| arguments.error(message))
}

fn keywords(
    arguments: &mut Arguments<'_>,
    name: &'static str,
) -> Result<Vec<Keyword>, InstructionError> {
    let words = arguments.texts(name)?;
    words.into_iter().map(|word| keyword(arguments, word)).collect()
}

/// `keywords:existence`: every keyword occurs, anywhere and in any case.
#[derive(Clone, Debug)]
pub struct Existence(Vec<Keyword>);

impl Existence {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        keywords(arguments, "keywords").map(Self)
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        self.0.iter().all(|keyword| keyword.is_in(response.folded()))
    }
}

/// `keywords:forbidden_words`: no word occurs as a whole word, in any case.
#[derive(Clone, Debug)]
pub struct Forbidden(Vec<Keyword>);

impl Forbidden {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        keywords(arguments, "forbidden_words").map(Self)
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        !self.0.iter().any(|keyword| keyword.is_word_in(response.folded()))
    }
}

/// `keywords:frequency`: a keyword occurs less often than, or at least, a number of times.
#[derive(Clone, Debug)]
pub struct Frequency {
    keyword: Keyword,
    bound: usize,
    relation: Relation,
}

impl Frequency {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        let word = crate::python::text::strip(arguments.text("keyword")?);
        Ok(Self {
            keyword: keyword(arguments, word)?,
            bound: arguments.count("frequency")?,
            relation: arguments.relation("relation")?,
        })
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        self.relation.holds(self.keyword.count_in(response.folded()), self.bound)
    }
}

/// `keywords:letter_frequency`: a letter occurs less often than, or at least, a number of times; case
/// does not count.
#[derive(Clone, Debug)]
pub struct LetterFrequency {
    letter: String,
    bound: usize,
    relation: Relation,
}

impl LetterFrequency {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        let letter = arguments.text("letter")?;
        if letter.chars().count() != 1 {
            return Err(arguments.error(format!("letter {letter:?} is not one character")));
        }
        Ok(Self {
            letter: letter.to_lowercase(),
            bound: arguments.count("let_frequency")?,
            relation: arguments.relation("let_relation")?,
        })
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        self.relation.holds(response.lower().matches(&self.letter).count(), self.bound)
    }
}
