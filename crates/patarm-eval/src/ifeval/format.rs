//! Instructions about the form of the response.

use regex::Regex;

use super::arguments::{Arguments, InstructionError};
use super::response::Variant;
use crate::python::{
    json,
    text::{self, SPACE},
};

/// A constant regular expression, compiled once. The engine takes time linear in the text.
macro_rules! pattern {
    ($pattern:expr) => {{
        static PATTERN: std::sync::LazyLock<regex::Regex> = std::sync::LazyLock::new(|| {
            regex::Regex::new($pattern).expect("a constant pattern compiles")
        });
        &*PATTERN
    }};
}
pub(crate) use pattern;

/// `detectable_format:number_bullet_lists`: exactly so many lines that begin with `*` (and no second
/// one) or `-`.
#[derive(Clone, Debug)]
pub struct Bullets(usize);

impl Bullets {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        arguments.count("num_bullets").map(Self)
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        let stars = pattern!(&format!(r"(?m)^[{SPACE}]*\*[^*].*$"));
        let hyphens = pattern!(&format!(r"(?m)^[{SPACE}]*-.*$"));
        let count = |bullet: &Regex| bullet.find_iter(&response.text).count();
        count(stars) + count(hyphens) == self.0
    }
}

/// `detectable_format:constrained_response`: one of three stock answers occurs.
pub(super) fn is_stock_answer(response: &Variant<'_>) -> bool {
    ["My answer is yes.", "My answer is no.", "My answer is maybe."]
        .iter()
        .any(|answer| response.text.contains(answer))
}

/// `detectable_format:number_highlighted_sections`: at least so many non-empty `*…*` and `**…**`; one
/// of the latter counts for both.
#[derive(Clone, Debug)]
pub struct Highlights(usize);

impl Highlights {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        arguments.count("num_highlights").map(Self)
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        let is_filled = |inner: &str| !text::strip(inner).is_empty();
        let single = pattern!(r"\*[^\n*]*\*").find_iter(&response.text);
        let single = single.filter(|found| is_filled(found.as_str().trim_matches('*')));
        let double = pattern!(r"\*\*[^\n*]*\*\*").find_iter(&response.text);
        let double = double.filter(|found| {
            let inner = found.as_str().strip_prefix("**").unwrap_or_default();
            is_filled(inner.strip_suffix("**").unwrap_or(inner))
        });
        single.count() + double.count() >= self.0
    }
}

/// `detectable_format:multiple_sections`: at least so many headings of a word and a number.
#[derive(Clone, Debug)]
pub struct Sections {
    heading: Regex,
    bound: usize,
}

impl Sections {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        let splitter = text::strip(arguments.text("section_spliter")?);
        if splitter.chars().count() > crate::python::pattern::MAX_KEYWORD_CHARS {
            return Err(arguments.error("the section splitter is too long"));
        }
        let heading = format!(r"[{SPACE}]?{}[{SPACE}]?\d+[{SPACE}]?", regex::escape(splitter));
        let heading = Regex::new(&heading).map_err(|error| arguments.error(error.to_string()))?;
        Ok(Self { heading, bound: arguments.count("num_sections")? })
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        self.heading.find_iter(&response.text).count() >= self.bound
    }
}

/// `detectable_format:json_format`: the whole response, out of a code fence, is JSON to Python.
pub(super) fn is_json(response: &Variant<'_>) -> bool {
    let mut inner = text::strip(&response.text);
    for fence in ["```json", "```Json", "```JSON", "```"] {
        inner = inner.strip_prefix(fence).unwrap_or(inner);
    }
    json::is_json(text::strip(inner.strip_suffix("```").unwrap_or(inner)))
}

/// `detectable_format:title`: a title between `<<` and `>>` that is not blank.
pub(super) fn has_title(response: &Variant<'_>) -> bool {
    pattern!(r"<<[^\n]+>>").find_iter(&response.text).any(|found| {
        let inner = found.as_str().trim_start_matches('<').trim_end_matches('>');
        !text::strip(inner).is_empty()
    })
}
