//! Instructions about how the response begins, ends and is put together.

use super::arguments::{Arguments, InstructionError};
use super::response::Variant;
use crate::python::text::strip;

/// `startend:end_checker`: the response ends with a phrase, in any case and within double quotes.
#[derive(Clone, Debug)]
pub struct Ending(String);

impl Ending {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        let phrase = arguments.text("end_phrase")?;
        Ok(Self(strip(&strip(phrase).to_lowercase()).to_owned()))
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        strip(&response.text).trim_matches('"').to_lowercase().ends_with(&self.0)
    }
}

/// `startend:quotation`: the response begins and ends with a double quote.
pub(super) fn is_quoted(response: &Variant<'_>) -> bool {
    let text = strip(&response.text);
    text.len() > 1 && text.starts_with('"') && text.ends_with('"')
}

/// `combination:repeat_prompt`: the response begins with the request, in any case.
#[derive(Clone, Debug)]
pub struct Repetition(String);

impl Repetition {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        arguments.text("prompt_to_repeat").map(|prompt| Self(strip(prompt).to_lowercase()))
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        strip(&response.text).to_lowercase().starts_with(&self.0)
    }
}

/// `combination:two_responses`: two different parts between `******`; a blank part is only allowed at
/// either end.
pub(super) fn has_two_responses(response: &Variant<'_>) -> bool {
    let parts: Vec<&str> = response.text.split("******").map(strip).collect();
    let inner = parts.get(1..parts.len() - 1).unwrap_or_default();
    if inner.iter().any(|part| part.is_empty()) {
        return false;
    }
    let filled: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    matches!(filled.as_slice(), [first, second] if first != second)
}

/// `punctuation:no_comma`: no comma.
pub(super) fn has_no_comma(response: &Variant<'_>) -> bool {
    !response.text.contains(',')
}
