//! Step benchmarks: does a model see which step of a solution is wrong?
//!
//! [`StepItem`]s come from the benchmarks' own files ([`data`]), [`StepAnswer`]s from
//! a file of step scores ([`answers`]) or from a model ([`models`]). A score becomes
//! a verdict on its step through a stated [`threshold`]. [`prmbench`] then measures
//! every step, [`first_error`] the place of the first mistake; [`crate::benchmarks::steps`]
//! puts them together.
//!
//! Steps are counted from 0 everywhere in this module; the benchmarks' own counting
//! is turned into that where they are read.

pub mod answers;
pub mod data;
pub mod evaluator;
pub mod first_error;
pub mod models;
pub mod prmbench;
#[cfg(test)]
mod tests;
pub mod threshold;

use patarm_text::{Conversation, LabelledSolution, Solution};
use serde::{Deserialize, Serialize};

/// A solution in steps, and what is known of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepItem {
    /// Identity within the benchmark, as score files name it.
    pub id: String,
    /// Number of the problem, in order of appearance; solutions of one problem are
    /// resampled together.
    pub cluster: usize,
    /// Error class, task or source.
    pub subset: String,
    /// The problem.
    pub problem: String,
    /// The steps, in order.
    pub steps: Vec<String>,
    /// What is known of the steps.
    pub truth: StepTruth,
}

/// What a benchmark says of the steps of a solution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepTruth {
    /// For each step whether it is right.
    EveryStep(Vec<bool>),
    /// The first wrong step; `None` when there is none.
    FirstWrong(Option<usize>),
}

impl StepItem {
    /// Problem and steps.
    #[must_use]
    pub fn solution(&self) -> Solution {
        Solution { prompt: Conversation::from_user(&self.problem), steps: self.steps.clone() }
    }

    /// The solution with its labels, 1 for right and 0 for wrong. Where only the first
    /// mistake is known, the steps before it are right; those after it follow from a
    /// mistake and have no label.
    #[must_use]
    pub fn labelled(&self) -> LabelledSolution {
        let number = |is_right: bool| Some(f64::from(u8::from(is_right)));
        let labels = match &self.truth {
            StepTruth::EveryStep(labels) => labels.iter().map(|right| number(*right)).collect(),
            StepTruth::FirstWrong(None) => vec![number(true); self.steps.len()],
            StepTruth::FirstWrong(Some(first)) => (0..self.steps.len())
                .map(|step| if step > *first { None } else { number(step < *first) })
                .collect(),
        };
        LabelledSolution {
            labels,
            subset: Some(self.subset.clone()),
            ..LabelledSolution::unlabelled(self.id.clone(), self.solution())
        }
    }
}

impl StepTruth {
    /// The first wrong step; `None` when there is none.
    #[must_use]
    pub fn first_wrong(&self) -> Option<usize> {
        match self {
            Self::EveryStep(is_right) => is_right.iter().position(|right| !right),
            Self::FirstWrong(place) => *place,
        }
    }
}

/// What a model says of the steps of a solution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepAnswer {
    /// A finite number for each step, larger for better steps.
    Scores(Vec<f64>),
    /// The first wrong step; `None` when it sees none.
    FirstWrong(Option<usize>),
}

/// Why an item has no usable answer. Other items are unaffected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepFault {
    /// Nothing was said of the item.
    #[error("no answer for the item")]
    Missing,
    /// The answer is null, or a step has no number.
    #[error("a step has no score")]
    Unscored,
    /// A score is infinite or not a number.
    #[error("a score is not a finite number")]
    NotFinite,
    /// There are more or fewer scores than steps.
    #[error("{given} scores for {steps} steps")]
    WrongCount {
        /// Scores given.
        given: usize,
        /// Steps of the item.
        steps: usize,
    },
    /// The step named does not exist.
    #[error("step {place} is named, the solution has {steps}")]
    NoSuchStep {
        /// The step named, from 0.
        place: usize,
        /// Steps of the item.
        steps: usize,
    },
    /// The benchmark judges every step, and only the first mistake is named.
    #[error("this benchmark needs a score for each step")]
    NeedsScores,
    /// The model failed or its answer cannot be read.
    #[error("{0}")]
    Model(String),
}

impl StepFault {
    /// The name of the kind, for counts.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unscored => "unscored",
            Self::NotFinite => "not_finite",
            Self::WrongCount { .. } => "wrong_count",
            Self::NoSuchStep { .. } => "no_such_step",
            Self::NeedsScores => "needs_scores",
            Self::Model(_) => "model",
        }
    }
}

impl StepAnswer {
    /// The answer, if it fits a solution of so many steps.
    ///
    /// # Errors
    /// Another number of scores, a score that is not finite, a step that is not there.
    pub fn checked(self, num_steps: usize) -> Result<Self, StepFault> {
        match &self {
            Self::Scores(scores) if scores.len() != num_steps => {
                Err(StepFault::WrongCount { given: scores.len(), steps: num_steps })
            }
            Self::Scores(scores) if scores.iter().any(|s| !s.is_finite()) => {
                Err(StepFault::NotFinite)
            }
            Self::FirstWrong(Some(place)) if *place >= num_steps => {
                Err(StepFault::NoSuchStep { place: *place, steps: num_steps })
            }
            _ => Ok(self),
        }
    }

    /// The first step held to be wrong: the one named, or the first whose score is
    /// not above `threshold`.
    #[must_use]
    pub fn first_wrong(&self, threshold: f64) -> Option<usize> {
        match self {
            Self::Scores(scores) => scores.iter().position(|&score| !is_right(score, threshold)),
            Self::FirstWrong(place) => *place,
        }
    }
}

/// Whether a score says that its step is right: strictly above the threshold, as in
/// PRMBench's toolkit (`ssmisya/PRMBench`, `docs/document.md`, label = score > threshold).
#[must_use]
pub fn is_right(score: f64, threshold: f64) -> bool {
    score > threshold
}

/// An item and what a model says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered<'a> {
    /// The item.
    pub item: &'a StepItem,
    /// The answer, checked against the item.
    pub answer: Result<StepAnswer, StepFault>,
}
