//! The 25 instructions.

use serde_json::{Map, Value};

use super::arguments::{Arguments, InstructionError};
use super::response::{Response, Variant};
use super::{Verdict, casing, content, format, keywords, length, position};

/// The ids of the instructions, sorted.
pub const IDS: [&str; 25] = [
    "change_case:capital_word_frequency",
    "change_case:english_capital",
    "change_case:english_lowercase",
    "combination:repeat_prompt",
    "combination:two_responses",
    "detectable_content:number_placeholders",
    "detectable_content:postscript",
    "detectable_format:constrained_response",
    "detectable_format:json_format",
    "detectable_format:multiple_sections",
    "detectable_format:number_bullet_lists",
    "detectable_format:number_highlighted_sections",
    "detectable_format:title",
    "keywords:existence",
    "keywords:forbidden_words",
    "keywords:frequency",
    "keywords:letter_frequency",
    "language:response_language",
    "length_constraints:nth_paragraph_first_word",
    "length_constraints:number_paragraphs",
    "length_constraints:number_sentences",
    "length_constraints:number_words",
    "punctuation:no_comma",
    "startend:end_checker",
    "startend:quotation",
];

/// An instruction with its arguments.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant is described by its own type or function")]
pub enum Instruction {
    UpperWords(casing::UpperWords),
    EnglishUpper,
    EnglishLower,
    Repetition(position::Repetition),
    TwoResponses,
    Placeholders(content::Placeholders),
    Postscript(content::Postscript),
    StockAnswer,
    Json,
    Sections(format::Sections),
    Bullets(format::Bullets),
    Highlights(format::Highlights),
    Title,
    Existence(keywords::Existence),
    Forbidden(keywords::Forbidden),
    Frequency(keywords::Frequency),
    LetterFrequency(keywords::LetterFrequency),
    Language(casing::Language),
    FirstWord(length::FirstWord),
    Paragraphs(length::Paragraphs),
    Sentences(length::Sentences),
    Words(length::Words),
    NoComma,
    Ending(position::Ending),
    Quotation,
}

impl Instruction {
    /// Reads an instruction; arguments that are null count as absent.
    ///
    /// # Errors
    ///
    /// The id is not one of [`IDS`], or an argument is missing, unknown or out of range. The
    /// benchmark's code draws a missing argument at random instead.
    pub fn new(id: &str, arguments: &Map<String, Value>) -> Result<Self, InstructionError> {
        let mut arguments = Arguments::new(id, arguments);
        let instruction = Self::read(id, &mut arguments)?;
        arguments.finish()?;
        Ok(instruction)
    }

    fn read(id: &str, a: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        Ok(match id {
            "change_case:capital_word_frequency" => Self::UpperWords(casing::UpperWords::new(a)?),
            "change_case:english_capital" => Self::EnglishUpper,
            "change_case:english_lowercase" => Self::EnglishLower,
            "combination:repeat_prompt" => Self::Repetition(position::Repetition::new(a)?),
            "combination:two_responses" => Self::TwoResponses,
            "detectable_content:number_placeholders" => {
                Self::Placeholders(content::Placeholders::new(a)?)
            }
            "detectable_content:postscript" => Self::Postscript(content::Postscript::new(a)?),
            "detectable_format:constrained_response" => Self::StockAnswer,
            "detectable_format:json_format" => Self::Json,
            "detectable_format:multiple_sections" => Self::Sections(format::Sections::new(a)?),
            "detectable_format:number_bullet_lists" => Self::Bullets(format::Bullets::new(a)?),
            "detectable_format:number_highlighted_sections" => {
                Self::Highlights(format::Highlights::new(a)?)
            }
            "detectable_format:title" => Self::Title,
            "keywords:existence" => Self::Existence(keywords::Existence::new(a)?),
            "keywords:forbidden_words" => Self::Forbidden(keywords::Forbidden::new(a)?),
            "keywords:frequency" => Self::Frequency(keywords::Frequency::new(a)?),
            "keywords:letter_frequency" => {
                Self::LetterFrequency(keywords::LetterFrequency::new(a)?)
            }
            "language:response_language" => Self::Language(casing::Language::new(a)?),
            "length_constraints:nth_paragraph_first_word" => {
                Self::FirstWord(length::FirstWord::new(a)?)
            }
            "length_constraints:number_paragraphs" => Self::Paragraphs(length::Paragraphs::new(a)?),
            "length_constraints:number_sentences" => Self::Sentences(length::Sentences::new(a)?),
            "length_constraints:number_words" => Self::Words(length::Words::new(a)?),
            "punctuation:no_comma" => Self::NoComma,
            "startend:end_checker" => Self::Ending(position::Ending::new(a)?),
            "startend:quotation" => Self::Quotation,
            _ => return Err(a.error("it is not one of the 25 instructions of IFEval")),
        })
    }

    /// Checks a response strictly and loosely.
    #[must_use]
    pub fn verify(&self, response: &Response<'_>) -> Verdict {
        let strict = response.strict().is_some_and(|text| self.holds(text));
        let loose = strict || response.variants().iter().any(|text| self.holds(text));
        Verdict { strict, loose }
    }

    fn holds(&self, text: &Variant<'_>) -> bool {
        match self {
            Self::UpperWords(rule) => rule.holds(text),
            Self::EnglishUpper => casing::is_english_upper(text),
            Self::EnglishLower => casing::is_english_lower(text),
            Self::Repetition(rule) => rule.holds(text),
            Self::TwoResponses => position::has_two_responses(text),
            Self::Placeholders(rule) => rule.holds(text),
            Self::Postscript(rule) => rule.holds(text),
            Self::StockAnswer => format::is_stock_answer(text),
            Self::Json => format::is_json(text),
            Self::Sections(rule) => rule.holds(text),
            Self::Bullets(rule) => rule.holds(text),
            Self::Highlights(rule) => rule.holds(text),
            Self::Title => format::has_title(text),
            Self::Existence(rule) => rule.holds(text),
            Self::Forbidden(rule) => rule.holds(text),
            Self::Frequency(rule) => rule.holds(text),
            Self::LetterFrequency(rule) => rule.holds(text),
            Self::Language(rule) => rule.holds(text),
            Self::FirstWord(rule) => rule.holds(text),
            Self::Paragraphs(rule) => rule.holds(text),
            Self::Sentences(rule) => rule.holds(text),
            Self::Words(rule) => rule.holds(text),
            Self::NoComma => position::has_no_comma(text),
            Self::Ending(rule) => rule.holds(text),
            Self::Quotation => position::is_quoted(text),
        }
    }
}
