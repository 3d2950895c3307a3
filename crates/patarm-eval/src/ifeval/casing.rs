//! Instructions about language and upper or lower case.

use super::arguments::{Arguments, InstructionError, Relation};
use super::response::Variant;
use crate::python::text;

/// `language:response_language`: the detected language has this code.
#[derive(Clone, Debug)]
pub struct Language(String);

impl Language {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        arguments.text("language").map(|code| Self(code.to_owned()))
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        response.is_in_language(&self.0)
    }
}

/// `change_case:english_capital`: all upper case, and English.
pub(super) fn is_english_upper(response: &Variant<'_>) -> bool {
    text::is_upper(&response.text) && response.is_in_language("en")
}

/// `change_case:english_lowercase`: all lower case, and English.
pub(super) fn is_english_lower(response: &Variant<'_>) -> bool {
    text::is_lower(&response.text) && response.is_in_language("en")
}

/// `change_case:capital_word_frequency`: fewer than, or at least, so many tokens in upper case.
#[derive(Clone, Debug)]
pub struct UpperWords {
    bound: usize,
    relation: Relation,
}

impl UpperWords {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        let bound = arguments.count("capital_frequency")?;
        Ok(Self { bound, relation: arguments.relation("capital_relation")? })
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        let tokens = response.tokens();
        let num_upper = tokens.iter().filter(|token| text::is_upper(token)).count();
        self.relation.holds(num_upper, self.bound)
    }
}
