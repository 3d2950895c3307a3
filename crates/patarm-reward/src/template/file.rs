//! The template file and the values that fill its placeholders.

use std::fmt;

use patarm_text::Task;
use serde::{Deserialize, Serialize};

use super::{ColdStartStyle, RubricMode};
use crate::task::primary_rubric;
use crate::verdict::{JudgementTags, ScoreScale, rubric_lines};

/// The version of the file format.
const VERSION: u32 = 1;
/// A judgement longer than this is no judgement.
const MAX_JUDGEMENT_TOKENS: usize = 1 << 17;

/// A judge template as it stands in its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TemplateFile {
    version: u32,
    pub(super) name: String,
    #[serde(default)]
    pub(super) about: String,
    pub(super) max_judgement_tokens: usize,
    #[serde(default)]
    pub(super) cold_start: ColdStartStyle,
    #[serde(default)]
    pub(super) scale: ScoreScale,
    #[serde(default)]
    pub(super) tags: JudgementTags,
    #[serde(default)]
    primary: PrimaryTexts,
    pub(super) modes: Modes,
    pub(super) layouts: Layouts,
}

/// Texts that stand in for a task's primary rubric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PrimaryTexts {
    chat: Option<String>,
    code: Option<String>,
    math: Option<String>,
    safety: Option<String>,
    instruction_following: Option<String>,
}

/// What each rubric mode says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Modes {
    primary: ModeTexts,
    generated: ModeTexts,
    both: ModeTexts,
}

/// The texts of one mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModeTexts {
    /// Stands for `{{rubric}}`.
    #[serde(default)]
    rubric: String,
    /// Stands for `{{instructions}}` in the pointwise layout.
    pub(super) pointwise: String,
    /// The same in the pairwise layout.
    pub(super) pairwise: String,
}

/// The order of things in a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Layouts {
    pub(super) pointwise: String,
    pub(super) pairwise: String,
}

impl Modes {
    pub(super) fn of(&self, mode: RubricMode) -> &ModeTexts {
        match mode {
            RubricMode::Primary => &self.primary,
            RubricMode::Generated => &self.generated,
            RubricMode::Both => &self.both,
        }
    }
}

impl TemplateFile {
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!("version {} is not {VERSION}, the one known", self.version));
        }
        if self.name.trim().is_empty() {
            return Err("name is empty".into());
        }
        if !(1..=MAX_JUDGEMENT_TOKENS).contains(&self.max_judgement_tokens) {
            return Err(format!(
                "max_judgement_tokens = {}: must lie in 1..={MAX_JUDGEMENT_TOKENS}",
                self.max_judgement_tokens
            ));
        }
        self.tags.validate().map_err(|error| error.to_string())?;
        self.scale.validate().map_err(|error| error.to_string())?;
        for mode in [RubricMode::Primary, RubricMode::Generated, RubricMode::Both] {
            let texts = self.modes.of(mode);
            for text in [&texts.rubric, &texts.pointwise, &texts.pairwise] {
                Values::check(text, &INNER).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn primary_text(&self, task: Task) -> String {
        let given = match task {
            Task::Chat => &self.primary.chat,
            Task::Code => &self.primary.code,
            Task::Math => &self.primary.math,
            Task::Safety => &self.primary.safety,
            Task::InstructionFollowing => &self.primary.instruction_following,
        };
        given.clone().unwrap_or_else(|| {
            let rubric = primary_rubric(task);
            let lines: Vec<String> = rubric.criteria.iter().map(rubric_lines::format).collect();
            lines.join("\n")
        })
    }

    pub(super) fn values(&self, task: Task, mode: RubricMode, instructions: &str) -> Values {
        let inner = Values(vec![
            ("task", task.name().to_owned()),
            ("primary", self.primary_text(task)),
            ("min", format!("{}", self.scale.min)),
            ("max", format!("{}", self.scale.max)),
        ]);
        let rubric = inner.fill(&self.modes.of(mode).rubric);
        let instructions = inner.fill(instructions);
        let mut all = inner;
        all.0.push(("rubric", rubric));
        all.0.push(("instructions", instructions));
        all
    }
}

/// Placeholders that the texts of a mode may hold.
const INNER: [&str; 4] = ["task", "primary", "min", "max"];
/// Placeholders that a layout may hold besides the data.
pub(super) const OUTER: [&str; 6] = ["task", "primary", "min", "max", "rubric", "instructions"];

/// What stands for each placeholder. All of it is template text; data is never filled
/// in, so that nothing in it is ever read as a placeholder.
pub(super) struct Values(Vec<(&'static str, String)>);

impl Values {
    pub(super) fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        for piece in pieces(text) {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Placeholder(name) => {
                    let value = self.0.iter().find(|(known, _)| *known == name);
                    filled.push_str(value.map_or("", |(_, value)| value));
                }
            }
        }
        filled
    }

    pub(super) fn check(text: &str, known: &[&str]) -> Result<(), UnknownPlaceholder> {
        for piece in pieces(text) {
            if let Piece::Placeholder(name) = piece
                && !known.contains(&name)
            {
                return Err(UnknownPlaceholder { name: name.to_owned(), known: known.join(", ") });
            }
        }
        Ok(())
    }
}

/// A placeholder nobody fills.
#[derive(Debug)]
pub(super) struct UnknownPlaceholder {
    pub(super) name: String,
    pub(super) known: String,
}

impl fmt::Display for UnknownPlaceholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "placeholder {:?} is unknown here; known are {}", self.name, self.known)
    }
}

/// A stretch of text or a placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Placeholder(&'a str),
}

/// The pieces of a text in order; `{{` without `}}` is text.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, following)) = after.split_once("}}") else {
            break;
        };
        pieces.push(Piece::Text(before));
        pieces.push(Piece::Placeholder(name.trim()));
        rest = following;
    }
    pieces.push(Piece::Text(rest));
    pieces
}
