//! IFBench: 58 further instructions whose following a program can check (Pyatkin et al.,
//! *Generalizing Verifiable Instruction Following*, 2025, arXiv:2507.02833; rules of the code of
//! allenai/IFBench, restated).
//!
//! Three are refused by name, because what decides them is not a rule but a resource:
//! [`REFUSED`]. Where the reference stops with an error on a response (a division by zero, an
//! index out of range), the response does not follow the instruction here.

mod counts;
mod csv;
mod custom;
mod layout;
mod marks;
mod repetition;
pub(crate) mod sentences;
mod words;

use serde_json::{Map, Value};

use crate::ifeval::{InstructionError, Response, Verdict, arguments::Arguments, response::Variant};
use crate::nltk::parameters::Parameters;

/// A rule with its arguments.
type Rule = Box<dyn Fn(&Variant<'_>) -> bool + Send + Sync>;

/// Instructions that are not checked, and why.
pub const REFUSED: [(&str, &str); 3] = [
    ("ratio:stop_words", "it depends on NLTK's list of stop words, which has no clear licence"),
    ("words:odd_even_syllables", "it depends on the syllable dictionary of the package syllapy"),
    ("words:start_verb", "it depends on NLTK's part-of-speech tagger"),
];

/// The ids that are checked, sorted.
pub const IDS: [&str; 55] = [
    "count:conjunctions",
    "count:keywords_multiple",
    "count:numbers",
    "count:person_names",
    "count:pronouns",
    "count:punctuation",
    "count:unique_word_count",
    "count:word_count_range",
    "count:words_japanese",
    "custom:character_reverse",
    "custom:csv_city",
    "custom:csv_quotes",
    "custom:csv_special_character",
    "custom:date_format_list",
    "custom:european_capitals_sort",
    "custom:mcq_count_length",
    "custom:multiples",
    "custom:reverse_newline",
    "custom:sentence_alphabet",
    "custom:word_reverse",
    "format:emoji",
    "format:line_indent",
    "format:list",
    "format:newline",
    "format:no_bullets_bullets",
    "format:no_whitespace",
    "format:options",
    "format:output_template",
    "format:parentheses",
    "format:quote_unquote",
    "format:quotes",
    "format:sub-bullets",
    "format:thesis",
    "format:title_case",
    "ratio:overlap",
    "ratio:sentence_balance",
    "ratio:sentence_type",
    "ratio:sentence_words",
    "repeat:repeat_change",
    "repeat:repeat_simple",
    "repeat:repeat_span",
    "sentence:alliteration_increment",
    "sentence:increment",
    "sentence:keyword",
    "words:alphabet",
    "words:consonants",
    "words:keywords_specific_position",
    "words:last_first",
    "words:no_consecutive",
    "words:palindrome",
    "words:paragraph_last_first",
    "words:prime_lengths",
    "words:repeats",
    "words:vowel",
    "words:words_position",
];

/// An instruction with its arguments.
pub struct Instruction {
    rule: Rule,
}

impl std::fmt::Debug for Instruction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instruction").finish_non_exhaustive()
    }
}

impl Instruction {
    /// Reads an instruction; arguments that are null count as absent.
    ///
    /// # Errors
    ///
    /// The id is not one of [`IDS`], or an argument is missing, unknown or out of range.
    pub fn new(id: &str, arguments: &Map<String, Value>) -> Result<Self, InstructionError> {
        let mut arguments = Arguments::new(id, arguments);
        let families = [
            counts::rule,
            words::rule,
            sentences::rule,
            layout::rule,
            repetition::rule,
            custom::rule,
        ];
        for family in families {
            if let Some(rule) = family(id, &mut arguments)? {
                arguments.finish()?;
                return Ok(Self { rule });
            }
        }
        let refused = REFUSED.iter().find(|(refused, _)| *refused == id);
        Err(arguments.error(match refused {
            Some((_, why)) => format!("it is not checked here: {why}"),
            None => "it is not an instruction of IFBench".to_owned(),
        }))
    }

    /// Checks a response strictly and loosely, by the same eight variants as IFEval.
    #[must_use]
    pub fn verify(&self, response: &Response<'_>) -> Verdict {
        let strict = response.strict().is_some_and(|text| (self.rule)(text));
        let loose = strict || response.variants().iter().any(|text| (self.rule)(text));
        Verdict { strict, loose }
    }
}

/// Checks one instruction, with the built-in parameters of the sentence splitter.
///
/// # Errors
///
/// As [`Instruction::new`].
pub fn verify(
    id: &str,
    arguments: &Map<String, Value>,
    _prompt: &str,
    response: &str,
) -> Result<Verdict, InstructionError> {
    let instruction = Instruction::new(id, arguments)?;
    Ok(instruction.verify(&Response::new(response, Parameters::english())))
}

/// A rule without arguments.
fn plain(rule: impl Fn(&Variant<'_>) -> bool + Send + Sync + 'static) -> Option<Rule> {
    Some(Box::new(rule))
}

#[cfg(test)]
mod tests;
