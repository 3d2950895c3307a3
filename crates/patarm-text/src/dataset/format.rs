//! The formats of rows, and telling them apart.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::error::{ReadError, ReadErrorKind};

/// What the rows of a file look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `prompt`, `chosen`, `rejected`, as strings or message lists; also with
    /// `instruction` (and `input`) or `question` for the prompt, with scores of
    /// both sides (UltraFeedback), or a `subset` (RewardBench).
    Explicit,
    /// `chosen` and `rejected` only, whole conversations that share their prompt,
    /// as message lists or as strings.
    Implicit,
    /// `chosen` and `rejected` only, as `"\n\nHuman: …\n\nAssistant: …"`.
    Transcript,
    /// `conversations` and the two answers, messages as `from` and `value`.
    ShareGpt,
    /// `instruction`, `input`, `output` of two, `choice_label`.
    RewardBench,
    /// `input`, `output_1`, `output_2`, `label` of 1 or 2.
    LlmBar,
    /// `instruction`, `input`, `response1`, `response2`, one label an annotator,
    /// 0 for a tie.
    PandaLm,
    /// `instruction`, `output_1`, `output_2`, `preference` from 1 to 2.
    AlpacaEval,
    /// Two rows a pair: `pair_id`, `side`, `preferred_side`, `prompt`,
    /// `response`, `task`.
    PatarmRows,
    /// [`Comparison`](crate::Comparison) as it serialises.
    Native,
}

impl Format {
    /// Every format, in the order in which they are tried.
    pub const ALL: [Self; 10] = [
        Self::Native,
        Self::PatarmRows,
        Self::ShareGpt,
        Self::RewardBench,
        Self::PandaLm,
        Self::LlmBar,
        Self::AlpacaEval,
        Self::Explicit,
        Self::Transcript,
        Self::Implicit,
    ];

    /// The name on the command line and in recipes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Explicit => "trl",
            Self::Implicit => "implicit",
            Self::Transcript => "transcript",
            Self::ShareGpt => "sharegpt",
            Self::RewardBench => "rewardbench",
            Self::LlmBar => "llmbar",
            Self::PandaLm => "pandalm",
            Self::AlpacaEval => "alpacaeval",
            Self::PatarmRows => "patarm-rows",
            Self::Native => "native",
        }
    }

    /// The format a row belongs to, by its fields.
    pub(super) fn detect(row: &Value) -> Result<Self, ReadError> {
        let Some(fields) = row.as_object() else {
            return Err(unknown(kind_name(row).to_owned()));
        };
        let fits = Self::ALL.into_iter().find(|format| format.fits(fields));
        fits.ok_or_else(|| {
            let names: Vec<&str> = fields.keys().take(12).map(String::as_str).collect();
            unknown(format!("fields {}", names.join(", ")))
        })
    }

    fn fits(self, fields: &Map<String, Value>) -> bool {
        let given = |name: &&str| fields.get(*name).is_some_and(|value| !value.is_null());
        let has = |names: &[&str]| names.iter().all(given);
        let answers = has(&["chosen", "rejected"]);
        match self {
            Self::Native => has(&["first", "second", "label"]),
            Self::PatarmRows => has(&["pair_id", "side", "preferred_side"]),
            Self::ShareGpt => has(&["conversations"]) && answers,
            Self::RewardBench => has(&["output", "choice_label"]),
            Self::PandaLm => has(&["response1", "response2", "annotator1"]),
            Self::LlmBar => has(&["input", "output_1", "output_2", "label"]),
            Self::AlpacaEval => has(&["instruction", "output_1", "output_2", "preference"]),
            Self::Explicit => {
                answers && ["prompt", "instruction", "question"].iter().any(|name| has(&[name]))
            }
            Self::Transcript => answers && fields["chosen"].as_str().is_some_and(is_transcript),
            Self::Implicit => answers || has(&["chosen_messages", "rejected_messages"]),
        }
    }
}

/// Whether a text begins as a transcript does.
pub(super) fn is_transcript(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with("Human:") || text.starts_with("Assistant:")
}

fn unknown(found: String) -> ReadError {
    ReadError::new(ReadErrorKind::UnknownFormat { found })
}

/// What a JSON value is, in words.
pub(super) fn kind_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    /// # Errors
    /// The names there are, when this is none of them.
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|format| format.name()).collect();
            format!("unknown data format {name:?}; known are {}", names.join(", "))
        })
    }
}
