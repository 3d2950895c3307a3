//! What a rollout says of itself and of its cohort.

use patarm_reward::par::ParScore;
use serde::{Deserialize, Serialize};

use super::rule::GroupRule;

/// Longest id of a cohort or a rollout, in bytes.
const MAX_ID_BYTES: usize = 256;

/// One of the two responses of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Side {
    /// Side 0.
    First,
    /// Side 1.
    Second,
}

impl Side {
    /// 0 or 1.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }

    /// The opposite side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

impl TryFrom<u8> for Side {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            0 => Ok(Self::First),
            1 => Ok(Self::Second),
            other => Err(format!("a side is 0 or 1, not {other}")),
        }
    }
}

impl From<Side> for u8 {
    fn from(side: Side) -> Self {
        side.index() as Self
    }
}

/// What all members of a cohort must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declaration {
    /// Judgements of both responses of a preference pair.
    Pair {
        /// The response that people preferred.
        preferred: Side,
        /// How many judgements of each side there will be.
        expected: [usize; 2],
    },
    /// Rollouts of one prompt, rewarded relative to each other.
    Group {
        /// How many there will be.
        expected: usize,
        /// What they are rewarded with.
        rule: GroupRule,
    },
}

impl Declaration {
    /// Expected rollouts a slot: a slot is a side of a pair, or the whole group.
    #[must_use]
    pub fn expected(&self) -> Vec<usize> {
        match self {
            Self::Pair { expected, .. } => expected.to_vec(),
            Self::Group { expected, .. } => vec![*expected],
        }
    }

    /// Expected rollouts in all; saturates.
    #[must_use]
    pub fn size(&self) -> usize {
        self.expected().into_iter().fold(0, usize::saturating_add)
    }
}

/// Where in its cohort a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What its sender knows of the cohort.
    pub declaration: Declaration,
    /// 0 or 1 for a side, 0 in a group.
    pub(super) slot: usize,
}

impl Place {
    /// A judgement of `side`, in a pair of which `preferred` is the better side.
    #[must_use]
    pub fn in_pair(side: Side, preferred: Side, expected: [usize; 2]) -> Self {
        Self { declaration: Declaration::Pair { preferred, expected }, slot: side.index() }
    }

    /// A member of a group.
    #[must_use]
    pub fn in_group(expected: usize, rule: GroupRule) -> Self {
        Self { declaration: Declaration::Group { expected, rule }, slot: 0 }
    }
}

/// A rollout as it arrives.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// The cohort; one id a pair (or group) and step.
    pub cohort_id: String,
    /// The rollout within it; the same id means the same rollout, sent again.
    pub rollout_id: String,
    /// Where it stands.
    pub place: Place,
    /// Its score, or why it has none.
    pub score: ParScore,
}

impl Arrival {
    /// What is wrong with the arrival by itself, whatever the cohort.
    pub(super) fn fault(&self, max_cohort_size: usize) -> Option<String> {
        for (field, id) in [("cohort_id", &self.cohort_id), ("rollout_id", &self.rollout_id)] {
            if id.is_empty() || id.len() > MAX_ID_BYTES {
                return Some(format!("{field} must have 1 to {MAX_ID_BYTES} bytes"));
            }
        }
        let numbers = [self.score.score.ok(), self.score.readable];
        if numbers.into_iter().flatten().any(|number| !number.is_finite()) {
            return Some("a score must be a finite number".to_owned());
        }
        let declaration = &self.place.declaration;
        if declaration.expected().contains(&0) {
            return Some("every expected count must be at least 1".to_owned());
        }
        (declaration.size() > max_cohort_size).then(|| {
            format!(
                "{} rollouts expected; this server takes at most {max_cohort_size} a cohort",
                declaration.size()
            )
        })
    }
}
