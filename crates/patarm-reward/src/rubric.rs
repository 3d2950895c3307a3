//! Rubrics: the criteria a judgement is made under.

use serde::{Deserialize, Serialize};

/// Where a criterion comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Fixed for the task.
    Primary,
    /// Written by the judge for this prompt.
    Generated,
}

/// One criterion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Criterion {
    /// Short name.
    pub name: String,
    /// What to look for.
    pub description: String,
    /// Weight in per cent, where stated.
    pub weight: Option<f64>,
    /// Where it comes from.
    pub origin: Origin,
}

/// The criteria of one judgement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rubric {
    /// In the order they were given.
    pub criteria: Vec<Criterion>,
}
