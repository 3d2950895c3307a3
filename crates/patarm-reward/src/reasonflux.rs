//! Targets of ReasonFlux-PRM (arXiv 2506.18896) for trajectory–response traces.
//!
//! A trace is a long thinking trajectory s_1..s_T followed by a tidy response a_1..a_M.
//! Each thinking step gets three scores: alignment with the response,
//! coherence with the step before it, and quality as a judge sees it; their aggregate
//! is Σ_k softmax(scores)_k · score_k. The trajectory gets the share of solutions, written
//! by a policy that was shown the trajectory's template, that are right.
//!
//! Everything here is from reading notes of the paper, three of which agree unless said
//! otherwise; no training code was released.
//!
//! # Deviations
//! - Notes disagree on alignment: by the same index, or the best over the response. The
//!   default is the best, as it exists whatever T and M are.
//! - τ, the number of unrelated steps, and whether the true successor is part of the
//!   denominator are not known: they are arguments. The first step is compared with the
//!   prompt.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::pair_loss::log_sum_exp;

/// Which step of the response a thinking step is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alignment {
    /// The most similar one.
    #[default]
    Max,
    /// The one of the same index; both must have as many steps.
    Index,
}

/// What the successor's similarity is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denominator {
    /// The unrelated steps and the successor: the score is at most 0.
    #[default]
    WithSuccessor,
    /// The unrelated steps alone.
    UnrelatedOnly,
}

/// How coherence is measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoherenceConfig {
    /// Temperature τ.
    pub temperature: f64,
    /// What is in the denominator.
    pub denominator: Denominator,
}

impl Default for CoherenceConfig {
    /// τ as is usual for such losses; the paper's is not known.
    fn default() -> Self {
        Self { temperature: 0.1, denominator: Denominator::WithSuccessor }
    }
}

/// cos(a, b); 0 where one of them has no direction.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

/// r_ali of every thinking step by the embeddings of steps and response.
///
/// # Errors
/// When the response has no step, or [`Alignment::Index`] meets another number of steps.
pub fn alignment(steps: &[Vec<f32>], response: &[Vec<f32>], how: Alignment) -> Result<Vec<f64>> {
    if response.is_empty() {
        return Err(Error::new(ErrorKind::Input, "the response has no step to align with"));
    }
    if how == Alignment::Index && steps.len() != response.len() {
        let message = format!(
            "alignment by index needs as many thinking steps ({}) as response steps ({})",
            steps.len(),
            response.len()
        );
        return Err(Error::new(ErrorKind::Input, message));
    }
    let best = |step: &Vec<f32>| {
        response.iter().map(|other| cosine(step, other)).fold(f64::NEG_INFINITY, f64::max)
    };
    Ok(match how {
        Alignment::Max => steps.iter().map(best).collect(),
        Alignment::Index => steps.iter().zip(response).map(|(a, b)| cosine(a, b)).collect(),
    })
}

/// r_coh of one step: log of exp(cos(previous, step)/τ) over the sum of the same for
/// unrelated steps. 0 where there are no unrelated steps.
#[must_use]
pub fn coherence(
    (previous, step): (&[f32], &[f32]),
    unrelated: &[&[f32]],
    config: &CoherenceConfig,
) -> f64 {
    if unrelated.is_empty() {
        return 0.0;
    }
    let logit = |other: &[f32]| cosine(previous, other) / config.temperature;
    let own = logit(step);
    let mut logits: Vec<f64> = unrelated.iter().map(|other| logit(other)).collect();
    if config.denominator == Denominator::WithSuccessor {
        logits.push(own);
    }
    own - log_sum_exp(logits.iter().copied())
}

/// r_step = Σ_k softmax(scores)_k · score_k; 0 for no score.
#[must_use]
pub fn aggregate(scores: &[f64]) -> f64 {
    if scores.is_empty() {
        return 0.0;
    }
    let total = log_sum_exp(scores.iter().copied());
    scores.iter().map(|score| (score - total).exp() * score).sum()
}

/// r_final: the share of right solutions; `None` for no solution.
#[must_use]
pub fn trajectory_reward(is_right: &[bool]) -> Option<f64> {
    let right = is_right.iter().filter(|right| **right).count();
    (!is_right.is_empty()).then(|| right as f64 / is_right.len() as f64)
}

/// A trace's embeddings and judgements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace<'a> {
    /// Embedding of the prompt, before the first step.
    pub prompt: &'a [f32],
    /// Embeddings of the thinking steps.
    pub steps: &'a [Vec<f32>],
    /// Embeddings of the response's steps.
    pub response: &'a [Vec<f32>],
    /// What a judge says of each thinking step; `None` where it says nothing.
    pub quality: &'a [Option<f64>],
    /// Embeddings of steps of other traces.
    pub unrelated: &'a [&'a [f32]],
}

/// How targets are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetConfig {
    /// Alignment.
    pub alignment: Alignment,
    /// Coherence.
    pub coherence: CoherenceConfig,
}

/// The scores of a thinking step and their aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepTarget {
    /// r_ali.
    pub alignment: f64,
    /// r_qua, where a judge gave one.
    pub quality: Option<f64>,
    /// r_coh.
    pub coherence: f64,
    /// r_step over those that are there.
    pub step: f64,
}

/// The targets of every thinking step.
///
/// # Errors
/// As [`alignment`], or when there is not one quality a step.
pub fn targets(trace: &Trace<'_>, config: &TargetConfig) -> Result<Vec<StepTarget>> {
    if trace.quality.len() != trace.steps.len() {
        let message = format!("{} qualities for {} steps", trace.quality.len(), trace.steps.len());
        return Err(Error::new(ErrorKind::Input, message));
    }
    let aligned = alignment(trace.steps, trace.response, config.alignment)?;
    let mut previous = trace.prompt;
    let mut targets = Vec::with_capacity(trace.steps.len());
    for ((step, alignment), quality) in trace.steps.iter().zip(aligned).zip(trace.quality) {
        let coherence = coherence((previous, step), trace.unrelated, &config.coherence);
        let scores: Vec<f64> =
            [Some(alignment), *quality, Some(coherence)].into_iter().flatten().collect();
        targets.push(StepTarget {
            alignment,
            quality: *quality,
            coherence,
            step: aggregate(&scores),
        });
        previous = step;
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use patarm_models::kernels::random;

    #[test]
    fn aggregates_are_the_golden_values() {
        for (scores, expected) in [
            ([1.0, 0.0, 0.0], 0.5761),
            ([0.9, 0.5, 0.1], 0.6039),
            ([0.5, 0.5, 0.5], 0.5),
            ([0.8, 0.6, -2.0], 0.6223),
        ] {
            assert!((aggregate(&scores) - expected).abs() < 1e-4, "{scores:?}");
        }
        assert_eq!(aggregate(&[]), 0.0);
    }

    proptest! {
        #[test]
        fn an_aggregate_lies_between_mean_and_maximum_in_any_order(
            scores in proptest::collection::vec(-30.0..30.0f64, 1..6),
        ) {
            let value = aggregate(&scores);
            let mean = scores.iter().sum::<f64>() / scores.len() as f64;
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(mean - 1e-9 <= value && value <= largest + 1e-9);
            let mut reversed = scores;
            reversed.reverse();
            prop_assert!((aggregate(&reversed) - value).abs() < 1e-9);
        }
    }

    #[test]
    fn coherence_with_the_successor_is_at_most_zero() {
        let (previous, step, other) = ([1.0, 0.0], [0.8, 0.6], [0.0, 1.0]);
        let with = CoherenceConfig::default();
        let without = CoherenceConfig { denominator: Denominator::UnrelatedOnly, ..with };
        let pair = (&previous[..], &step[..]);
        assert!(coherence(pair, &[&other], &with) < 0.0);
        assert!(coherence(pair, &[&other], &without) > 0.0);
        // Identical similarities: −log of how many there are.
        let same: Vec<&[f32]> = vec![&step; 7];
        assert!((coherence(pair, &same, &without) + 7.0_f64.ln()).abs() < 1e-6);
        assert!((coherence(pair, &same, &with) + 8.0_f64.ln()).abs() < 1e-6);
        assert_eq!(coherence(pair, &[], &with), 0.0);
    }

    #[test]
    fn alignment_is_the_best_or_the_same_index() {
        let steps = vec![vec![1.0, 0.0], vec![0.0, 1.0]];
        let response = vec![vec![0.0, 2.0], vec![3.0, 0.0]];
        assert_eq!(alignment(&steps, &response, Alignment::Max).unwrap(), [1.0, 1.0]);
        assert_eq!(alignment(&steps, &response, Alignment::Index).unwrap(), [0.0, 0.0]);
        let message = alignment(&steps, &response[..1], Alignment::Index).unwrap_err().to_string();
        assert!(message.contains("(2)") && message.contains("(1)"), "{message}");
        assert!(alignment(&steps, &[], Alignment::Max).is_err());
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 1.0]), 0.0);
    }

    #[test]
    fn trajectory_rewards_are_shares() {
        assert_eq!(trajectory_reward(&[true, false, false, true]), Some(0.5));
        assert_eq!(trajectory_reward(&[false; 3]), Some(0.0));
        assert_eq!(trajectory_reward(&[]), None);
    }

    /// A random walk: each step resembles the one before it, and others do not.
    #[test]
    fn coherence_tells_successors_from_strangers() {
        let dimensions = 16;
        let normal = |key: &[u64]| random::normal(3, key) as f32;
        let trace = |number: u64| -> Vec<Vec<f32>> {
            let mut at: Vec<f32> = (0..dimensions).map(|d| normal(&[number, 0, d])).collect();
            let step = |t: u64| {
                for (d, x) in at.iter_mut().enumerate() {
                    *x = 0.8 * *x + 0.6 * normal(&[number, t, d as u64]);
                }
                at.clone()
            };
            (1..6).map(step).collect()
        };
        let traces: Vec<Vec<Vec<f32>>> = (0..30).map(trace).collect();
        let config = CoherenceConfig::default();
        let (mut right, mut all) = (0.0, 0.0);
        for (number, own) in traces.iter().enumerate() {
            let other = &traces[(number + 7) % traces.len()];
            let unrelated: Vec<&[f32]> =
                traces[(number + 11) % traces.len()].iter().map(Vec::as_slice).collect();
            for t in 1..own.len() {
                let of = |step: &[f32]| coherence((&own[t - 1], step), &unrelated, &config);
                right += f64::from(u8::from(of(&own[t]) > of(&other[t])));
                all += 1.0;
            }
        }
        assert!(right / all > 0.8, "{}", right / all);
    }

    #[test]
    fn targets_join_the_three_scores() {
        let steps = vec![vec![1.0, 0.0], vec![0.0, 1.0]];
        let unrelated: Vec<&[f32]> = vec![&[1.0, 1.0]];
        let trace = Trace {
            prompt: &[1.0, 0.0],
            steps: &steps,
            response: &steps,
            quality: &[Some(0.9), None],
            unrelated: &unrelated,
        };
        let config = TargetConfig::default();
        let found = targets(&trace, &config).unwrap();
        let first = found[0];
        assert!((first.step - aggregate(&[1.0, 0.9, first.coherence])).abs() < 1e-12);
        assert!((found[1].step - aggregate(&[1.0, found[1].coherence])).abs() < 1e-12);
        assert!(found[1].coherence < first.coherence, "a jump coheres less than a repeat");
        let short = Trace { quality: &[None], ..trace };
        assert!(targets(&short, &config).unwrap_err().to_string().contains("1 qualities for 2"));
    }
}
