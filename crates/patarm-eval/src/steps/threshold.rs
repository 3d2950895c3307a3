//! From step scores to verdicts on steps: one number, stated, never chosen on the
//! items it is used on.

use serde::{Deserialize, Serialize};

use super::{Answered, StepAnswer};
use crate::{Error, Result, interval::quantile, random};

/// Candidates tried when a threshold is chosen: so many quantiles of the scores.
const NUM_CANDIDATES: usize = 100;

/// Where the threshold comes from. A step is held to be right when its score is
/// strictly above it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ThresholdRule {
    /// This number, as the benchmarks' own programs take 0.5 for probabilities.
    Fixed(f64),
    /// The best one on a share of the problems, drawn by `seed`, which are then left
    /// out of every figure.
    TunedOnShare {
        /// Share of the problems, between 0 and 1.
        share: f64,
        /// Seed of the draw.
        seed: u64,
    },
    /// The best one on one subset, which is then left out of every figure (as the
    /// ProcessBench paper, arXiv 2412.06559 section 4.1, does with GSM8K, though it
    /// goes on to report that subset).
    TunedOnSubset(String),
}

impl ThresholdRule {
    /// Parses `0.5`, `tune:0.2` or `tune:SUBSET`.
    ///
    /// # Errors
    /// When it is none of these, or the share lies outside (0, 1).
    pub fn parse(text: &str, seed: u64) -> Result<Self> {
        let refused = || {
            Error::bad_input(format!(
                "threshold {text:?} is not a finite number, `tune:SHARE` (0 to 1) or `tune:SUBSET`"
            ))
        };
        let Some(tuned) = text.strip_prefix("tune:") else {
            let number = text.parse::<f64>().ok().filter(|t| t.is_finite());
            return number.map(Self::Fixed).ok_or_else(refused);
        };
        match tuned.parse::<f64>() {
            Ok(share) if 0.0 < share && share < 1.0 => Ok(Self::TunedOnShare { share, seed }),
            Ok(_) => Err(refused()),
            Err(_) if tuned.is_empty() => Err(refused()),
            Err(_) => Ok(Self::TunedOnSubset(tuned.to_owned())),
        }
    }

    fn is_for_tuning(&self, answered: &Answered<'_>) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::TunedOnShare { share, seed } => {
                let draw = random::draw(*seed, answered.item.cluster as u64);
                (draw as f64) < *share * u64::MAX as f64
            }
            Self::TunedOnSubset(name) => answered.item.subset == *name,
        }
    }
}

/// A threshold, and the items it was not chosen on.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied<'a> {
    /// The number.
    pub threshold: f64,
    /// How many items chose it.
    pub num_tuning_items: usize,
    /// The items the figures are measured on.
    pub measured: Vec<Answered<'a>>,
}

/// Applies a rule. `objective` says how good a threshold is on the tuning items
/// (larger is better, `None` when that cannot be said); of equals the smallest wins.
///
/// # Errors
/// When no item is left to tune on or to measure, or no tuning item carries scores.
pub fn apply<'a>(
    rule: &ThresholdRule,
    answered: Vec<Answered<'a>>,
    objective: impl Fn(&[Answered<'a>], f64) -> Option<f64>,
) -> Result<Applied<'a>> {
    if let ThresholdRule::Fixed(threshold) = rule {
        return Ok(Applied { threshold: *threshold, num_tuning_items: 0, measured: answered });
    }
    let (tuning, measured): (Vec<_>, Vec<_>) =
        answered.into_iter().partition(|a| rule.is_for_tuning(a));
    if tuning.is_empty() || measured.is_empty() {
        return Err(Error::bad_input(format!(
            "a threshold is chosen on some items and used on others, and here {} would choose and \
             {} be measured; give another share or subset, or a fixed threshold",
            tuning.len(),
            measured.len()
        )));
    }
    let candidates = candidates(&tuning);
    let rated = candidates.iter().filter_map(|&t| Some((t, objective(&tuning, t)?)));
    let best = rated.reduce(|best, next| if next.1 > best.1 { next } else { best });
    let (threshold, _) = best.ok_or_else(|| {
        Error::bad_input("no item that was to choose the threshold has step scores")
    })?;
    Ok(Applied { threshold, num_tuning_items: tuning.len(), measured })
}

/// A number below all scores and their quantiles, each once.
fn candidates(tuning: &[Answered<'_>]) -> Vec<f64> {
    let mut scores: Vec<f64> = tuning
        .iter()
        .filter_map(|a| match &a.answer {
            Ok(StepAnswer::Scores(scores)) => Some(scores.as_slice()),
            _ => None,
        })
        .flatten()
        .copied()
        .collect();
    scores.sort_by(f64::total_cmp);
    let below = scores.first().map(|lowest| lowest - 1.0);
    let quantiles =
        (0..NUM_CANDIDATES).filter_map(|i| quantile(&scores, i as f64 / NUM_CANDIDATES as f64));
    let mut candidates: Vec<f64> = below.into_iter().chain(quantiles).collect();
    candidates.dedup();
    candidates
}
