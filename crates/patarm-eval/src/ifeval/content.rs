//! Instructions about parts the response must have.

use super::arguments::{Arguments, InstructionError};
use super::format::pattern;
use super::response::Variant;
use crate::python::text::{self, SPACE};

/// `detectable_content:number_placeholders`: at least so many `[…]` within a line.
#[derive(Clone, Debug)]
pub struct Placeholders(usize);

impl Placeholders {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        arguments.count("num_placeholders").map(Self)
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        pattern!(r"\[.*?\]").find_iter(&response.text).count() >= self.0
    }
}

/// `detectable_content:postscript`: a postscript marker occurs, in any case; the two usual ones may
/// have white space after a full stop.
#[derive(Clone, Debug)]
pub enum Postscript {
    /// `P.S.`
    Ps,
    /// `P.P.S`
    Pps,
    /// Another marker, in lower case.
    Other(String),
}

impl Postscript {
    pub(super) fn new(arguments: &mut Arguments<'_>) -> Result<Self, InstructionError> {
        Ok(match text::strip(arguments.text("postscript_marker")?) {
            "P.S." => Self::Ps,
            "P.P.S" => Self::Pps,
            "" => return Err(arguments.error("the postscript marker is blank")),
            other => Self::Other(other.to_lowercase()),
        })
    }

    pub(super) fn holds(&self, response: &Variant<'_>) -> bool {
        let lower = response.lower();
        match self {
            Self::Ps => pattern!(&format!(r"p\.[{SPACE}]?s\.")).is_match(lower),
            Self::Pps => pattern!(&format!(r"p\.[{SPACE}]?p\.[{SPACE}]?s")).is_match(lower),
            Self::Other(marker) => lower.contains(marker.as_str()),
        }
    }
}
