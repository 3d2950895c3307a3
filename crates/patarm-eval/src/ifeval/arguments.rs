//! Arguments of an instruction.

use serde_json::{Map, Value};

use crate::python::text::strip;

/// Most characters of a text argument.
const MAX_TEXT_CHARS: usize = 100_000;

/// Most keywords of one instruction.
const MAX_KEYWORDS: usize = 1000;

/// An instruction that cannot be checked: which, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("instruction {id}: {message}")]
pub struct InstructionError {
    id: String,
    message: String,
}

impl InstructionError {
    pub(crate) fn new(id: &str, message: impl Into<String>) -> Self {
        Self { id: id.to_owned(), message: message.into() }
    }

    /// The instruction's id as it was given.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// How a count is compared with its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Below the bound.
    LessThan,
    /// The bound or more.
    AtLeast,
}

impl Relation {
    /// Whether `count` stands in this relation to `bound`.
    #[must_use]
    pub fn holds(self, count: usize, bound: usize) -> bool {
        match self {
            Self::LessThan => count < bound,
            Self::AtLeast => count >= bound,
        }
    }
}

/// Reads the arguments of one instruction and knows which of them were asked for.
pub(crate) struct Arguments<'a> {
    id: &'a str,
    values: &'a Map<String, Value>,
    read: Vec<&'static str>,
}

impl<'a> Arguments<'a> {
    pub(crate) fn new(id: &'a str, values: &'a Map<String, Value>) -> Self {
        Self { id, values, read: Vec::new() }
    }

    /// Refuses arguments that the instruction does not have.
    pub(crate) fn finish(self) -> Result<(), InstructionError> {
        let unknown = self
            .values
            .iter()
            .find(|(name, value)| !value.is_null() && !self.read.contains(&name.as_str()));
        match unknown {
            Some((name, _)) => Err(self.error(format!("it has no argument {name:?}"))),
            None => Ok(()),
        }
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> InstructionError {
        InstructionError::new(self.id, message)
    }

    fn value(&mut self, name: &'static str) -> Result<&'a Value, InstructionError> {
        self.read.push(name);
        let value = self.values.get(name).filter(|value| !value.is_null());
        value.ok_or_else(|| self.error(format!("argument {name:?} is missing")))
    }

    /// A count: a whole number of 0 or more, also where it is written as a float.
    pub(crate) fn count(&mut self, name: &'static str) -> Result<usize, InstructionError> {
        let value = self.value(name)?;
        let whole = value.as_u64().or_else(|| {
            let float = value.as_f64().filter(|f| f.fract() == 0.0 && (0.0..9e15).contains(f))?;
            Some(float as u64)
        });
        whole.and_then(|count| usize::try_from(count).ok()).ok_or_else(|| {
            self.error(format!("argument {name:?} is {value}, not a whole number of 0 or more"))
        })
    }

    /// A count of 1 or more.
    pub(crate) fn positive(&mut self, name: &'static str) -> Result<usize, InstructionError> {
        match self.count(name)? {
            0 => Err(self.error(format!("argument {name:?} is 0; it must be 1 or more"))),
            count => Ok(count),
        }
    }

    /// A text that is not empty.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<&'a str, InstructionError> {
        let text = self.value(name)?.as_str().filter(|text| !text.is_empty());
        text.filter(|text| text.chars().count() <= MAX_TEXT_CHARS).ok_or_else(|| {
            self.error(format!(
                "argument {name:?} is not a text of 1 to {MAX_TEXT_CHARS} characters"
            ))
        })
    }

    /// A text without white space around it that is not empty.
    pub(crate) fn stripped_text(
        &mut self,
        name: &'static str,
    ) -> Result<&'a str, InstructionError> {
        let text = strip(self.text(name)?);
        if text.is_empty() {
            return Err(self.error(format!("argument {name:?} is blank")));
        }
        Ok(text)
    }

    /// A list of texts that is not empty.
    pub(crate) fn texts(&mut self, name: &'static str) -> Result<Vec<&'a str>, InstructionError> {
        let list = self.value(name)?.as_array();
        let texts: Option<Vec<&str>> = list
            .filter(|list| (1..=MAX_KEYWORDS).contains(&list.len()))
            .and_then(|list| list.iter().map(Value::as_str).collect());
        texts.ok_or_else(|| {
            self.error(format!("argument {name:?} is not a list of 1 to {MAX_KEYWORDS} texts"))
        })
    }

    /// `"less than"` or `"at least"`.
    pub(crate) fn relation(&mut self, name: &'static str) -> Result<Relation, InstructionError> {
        match self.text(name)? {
            "less than" => Ok(Relation::LessThan),
            "at least" => Ok(Relation::AtLeast),
            other => Err(self.error(format!(
                "argument {name:?} is {other:?}; it must be \"less than\" or \"at least\""
            ))),
        }
    }
}
