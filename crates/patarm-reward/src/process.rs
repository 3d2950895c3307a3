//! Process rewards: a number for each step of a solution.
//!
//! The prompt and every step are segments of a path, a marker at the end of each step;
//! the number of a step is read at the last token of its marker. As attention looks back
//! only, a later step changes no earlier number, and solutions that begin alike share
//! the computation of what they share.
//!
//! Two-class heads, value heads and the probability of one token against another all
//! come down to one number u a row ([`StepReader`]): the score is σ(u), or u itself.
//! Losses are those of Math-Shepherd (Wang et al., arXiv 2312.08935: cross-entropy on
//! hard labels or on the share of completions that end well) and of ReasonFlux-PRM
//! (arXiv 2506.18896: squared error on steps and on the whole trajectory; see
//! [`crate::reasonflux`] for its targets).
//!
//! # Deviations
//! - A step is encoded apart from its neighbours, so that no token straddles two steps.
//!   Tokenizing the whole text at once may join the last character of a step with the
//!   marker, and then the score of the last step changes when another one follows.
//! - The number of the trajectory is read with the same head after what ends the turn;
//!   how ReasonFlux-PRM reads it is not known.

mod model;
mod reader;
mod selection;
mod text;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use model::{ProcessRewardModel, StepRows, Trajectory, step_rows};
pub use reader::{StepNumbers, StepReader};
pub use selection::{
    aggregate, best_of, best_of_n, mix_rewards, mixed_advantages, select_top, trajectory_score,
};
pub use text::{EncodedSolution, StepText};

use crate::pair_loss::{sigmoid, softplus};

/// What a score is compared with its label by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepLossKind {
    /// −y log σ(u) − (1 − y) log(1 − σ(u)); labels lie in 0..=1.
    #[default]
    CrossEntropy,
    /// (score − y)².
    SquaredError,
}

/// The loss of a solution:
/// λ_step · mean over labelled steps + λ_final · the term of the trajectory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StepLossConfig {
    /// The term.
    pub kind: StepLossKind,
    /// λ_step.
    pub step_weight: f64,
    /// λ_final; trajectories without a label have no term.
    pub trajectory_weight: f64,
}

impl Default for StepLossConfig {
    fn default() -> Self {
        Self { kind: StepLossKind::CrossEntropy, step_weight: 1.0, trajectory_weight: 0.0 }
    }
}

/// How u becomes a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// σ(u).
    Logistic,
    /// u.
    Identity,
}

impl Link {
    /// The score.
    #[must_use]
    pub fn score(self, u: f64) -> f64 {
        match self {
            Self::Logistic => sigmoid(u),
            Self::Identity => u,
        }
    }

    /// Its derivative by u.
    fn slope(self, u: f64) -> f64 {
        match self {
            Self::Logistic => sigmoid(u) * sigmoid(-u),
            Self::Identity => 1.0,
        }
    }
}

/// The numbers of a solution, or the labels for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SolutionNumbers<'a, T> {
    /// One a step.
    pub steps: &'a [T],
    /// That of the whole.
    pub trajectory: Option<f64>,
}

/// Value and gradient of a solution's loss.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SolutionTerm {
    /// The loss.
    pub loss: f64,
    /// By each step's u.
    pub d_steps: Vec<f64>,
    /// By the trajectory's u.
    pub d_trajectory: f64,
}

/// The loss of a solution by its u's.
#[must_use]
pub fn solution_loss(
    u: SolutionNumbers<'_, f64>,
    labels: SolutionNumbers<'_, Option<f64>>,
    link: Link,
    config: &StepLossConfig,
) -> SolutionTerm {
    let labelled = labels.steps.iter().flatten().count();
    let weight = config.step_weight / labelled.max(1) as f64;
    let mut term = SolutionTerm::default();
    for (u, label) in u.steps.iter().zip(labels.steps) {
        let (loss, slope) = label.map_or((0.0, 0.0), |label| point(*u, label, link, config.kind));
        term.loss += weight * loss;
        term.d_steps.push(weight * slope);
    }
    if let (Some(u), Some(label)) = (u.trajectory, labels.trajectory) {
        let (loss, slope) = point(u, label, link, config.kind);
        term.loss += config.trajectory_weight * loss;
        term.d_trajectory = config.trajectory_weight * slope;
    }
    term
}

/// Loss and slope of one number. Cross-entropy reads u as a log-odds whatever the link.
fn point(u: f64, label: f64, link: Link, kind: StepLossKind) -> (f64, f64) {
    match kind {
        StepLossKind::CrossEntropy => (softplus(u) - label * u, sigmoid(u) - label),
        StepLossKind::SquaredError => {
            let difference = link.score(u) - label;
            (difference * difference, 2.0 * difference * link.slope(u))
        }
    }
}
