//! Preference data: two items and a label.

use serde::{Deserialize, Serialize};

use crate::conversation::Conversation;

/// What kind of work a prompt asks for; selects the primary rubric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Open conversation.
    Chat,
    /// Programming.
    Code,
    /// Mathematics.
    Math,
    /// Requests that may do harm.
    Safety,
    /// Explicit, checkable instructions.
    InstructionFollowing,
}

impl Task {
    /// Every task, in the order of their documentation.
    pub const ALL: [Self; 5] =
        [Self::Chat, Self::Code, Self::Math, Self::Safety, Self::InstructionFollowing];

    /// The name used in files and prompts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Code => "code",
            Self::Math => "math",
            Self::Safety => "safety",
            Self::InstructionFollowing => "instruction_following",
        }
    }
}

/// A prompt and one response to it: what a pointwise reward model scores.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Item {
    /// The conversation up to the response.
    pub prompt: Conversation,
    /// The response.
    pub response: String,
}

/// Which of two items is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preference {
    /// The first.
    First,
    /// The second.
    Second,
    /// Neither.
    Tie,
    /// Not labelled.
    Unknown,
}

impl Preference {
    /// The preference of the swapped comparison.
    #[must_use]
    pub fn swap(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
            other => other,
        }
    }
}

/// Two items and a label. The items usually share their prompt, but need not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Identity, unique within a data set.
    pub id: String,
    /// The first item.
    pub first: Item,
    /// The second item.
    pub second: Item,
    /// Which is preferred.
    pub label: Preference,
    /// How strongly, where the data says (its own unit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// Kind of work, where the data says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Subset of a benchmark or kind of corruption, where the data says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
}

impl Comparison {
    /// The preferred and the other item; `None` for ties and unlabelled pairs.
    #[must_use]
    pub fn chosen_rejected(&self) -> Option<(&Item, &Item)> {
        match self.label {
            Preference::First => Some((&self.first, &self.second)),
            Preference::Second => Some((&self.second, &self.first)),
            Preference::Tie | Preference::Unknown => None,
        }
    }

    /// The same comparison with its sides exchanged, label included.
    #[must_use]
    pub fn swap(&self) -> Self {
        Self {
            first: self.second.clone(),
            second: self.first.clone(),
            label: self.label.swap(),
            ..self.clone()
        }
    }
}
