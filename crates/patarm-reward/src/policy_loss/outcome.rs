//! The clipped loss over a whole set of outcomes instead of one sampled token.
//!
//! For the score-marginalised rule: Σ_o p_old(o) · min(ρ_o Â_o, clip(ρ_o) Â_o) with
//! ρ_o = p(o) / p_old(o), over every admissible score and ⊥, everything else, whose
//! probability is the complement. Written without the division, so that outcomes the
//! old policy gave no mass need no special case.

use super::ClipRange;
use crate::error::{Error, ErrorKind, Result};

/// One rollout's outcomes.
#[derive(Clone, Copy, Debug)]
pub struct Outcomes<'a> {
    /// log p(s) of every admissible score under the policy being updated; `s` numbers.
    pub logprobs_new: &'a [f64],
    /// p_old(s) of the same; `s` numbers.
    pub probabilities_old: &'a [f64],
    /// Advantage of each score; `s` numbers.
    pub advantages: &'a [f64],
    /// Advantage of ⊥.
    pub invalid_advantage: f64,
}

/// The loss of one rollout's outcomes.
#[derive(Clone, Debug, PartialEq)]
pub struct OutcomeLoss {
    /// What is minimised.
    pub loss: f64,
    /// Derivative by every log p(s), ⊥ moving as the complement; `s` numbers.
    pub d_logprobs: Vec<f64>,
    /// Old probability of the outcomes on which the clip stopped the gradient.
    pub clipped_mass: f64,
}

/// The clipped loss over all outcomes, divided by `denominator`.
///
/// # Errors
/// When lengths disagree or the denominator is not positive and finite.
pub fn outcome_loss(
    outcomes: &Outcomes<'_>,
    clip: ClipRange,
    denominator: f64,
) -> Result<OutcomeLoss> {
    let scores = outcomes.logprobs_new.len();
    if outcomes.probabilities_old.len() != scores || outcomes.advantages.len() != scores {
        let message = format!(
            "{scores} new outcome probabilities, {} old, {} advantages",
            outcomes.probabilities_old.len(),
            outcomes.advantages.len()
        );
        return Err(Error::new(ErrorKind::Input, message));
    }
    if !(denominator.is_finite() && denominator > 0.0) {
        let message = format!("denominator {denominator}: must be a finite number above 0");
        return Err(Error::new(ErrorKind::Input, message));
    }
    let new: Vec<f64> = outcomes.logprobs_new.iter().map(|logprob| logprob.exp()).collect();
    let complement = |probabilities: &[f64]| (1.0 - probabilities.iter().sum::<f64>()).max(0.0);
    let invalid = term(
        complement(&new),
        complement(outcomes.probabilities_old),
        outcomes.invalid_advantage,
        clip,
    );
    let mut result = OutcomeLoss {
        loss: -invalid.value,
        d_logprobs: Vec::with_capacity(scores),
        clipped_mass: 0.0,
    };
    if invalid.clipped {
        result.clipped_mass += complement(outcomes.probabilities_old);
    }
    for (s, &p) in new.iter().enumerate() {
        let old = outcomes.probabilities_old[s];
        let score = term(p, old, outcomes.advantages[s], clip);
        result.loss -= score.value;
        // ⊥ loses what a score gains: dp(⊥)/d log p(s) = −p(s).
        result.d_logprobs.push(-p * (score.slope - invalid.slope) / denominator);
        if score.clipped {
            result.clipped_mass += old;
        }
    }
    result.loss /= denominator;
    Ok(result)
}

struct Term {
    value: f64,
    /// Derivative by p.
    slope: f64,
    clipped: bool,
}

/// min(p A, clamp(p, p_old (1 − low), p_old (1 + high)) A).
fn term(p: f64, old: f64, advantage: f64, clip: ClipRange) -> Term {
    let plain = p * advantage;
    let bounded = p.clamp(old * (1.0 - clip.low), old * (1.0 + clip.high)) * advantage;
    let clipped = bounded < plain;
    Term { value: plain.min(bounded), slope: if clipped { 0.0 } else { advantage }, clipped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::par_marginal::{MarginalConfig, MarginalRollout, par_marginal};

    const CLIP: ClipRange = ClipRange { low: 0.2, high: 0.3 };

    fn logs(p: &[f64]) -> Vec<f64> {
        p.iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn value_by_hand() {
        // Ratios 1.5 (clipped at 1.3 for A = 2), 0.5 (A = −1: clipped at 0.8), and ⊥
        // 1.0 with A = −3.
        let outcomes = Outcomes {
            logprobs_new: &logs(&[0.6, 0.2]),
            probabilities_old: &[0.4, 0.4],
            advantages: &[2.0, -1.0],
            invalid_advantage: -3.0,
        };
        let result = outcome_loss(&outcomes, CLIP, 2.0).unwrap();
        let objective = 0.4 * 1.3 * 2.0 - 0.4 * 0.8 - 0.2 * 3.0;
        assert!((result.loss + objective / 2.0).abs() < 1e-12);
        assert!((result.clipped_mass - 0.8).abs() < 1e-12);
        assert!((result.d_logprobs[0] - 0.6 * -3.0 / 2.0).abs() < 1e-12);
    }

    #[test]
    fn derivative_is_the_difference() {
        let new = [0.35, 0.18, 0.07, 0.0003];
        let old = [0.3, 0.25, 0.05, 0.0];
        let advantages = [1.2, -0.7, 0.4, -2.0];
        for invalid_advantage in [-1.5, 0.6] {
            let at = |logprobs: &[f64]| {
                let outcomes = Outcomes {
                    logprobs_new: logprobs,
                    probabilities_old: &old,
                    advantages: &advantages,
                    invalid_advantage,
                };
                outcome_loss(&outcomes, CLIP, 3.0).unwrap()
            };
            let base = logs(&new);
            let result = at(&base);
            for s in 0..new.len() {
                let moved = |step: f64| {
                    let mut logprobs = base.clone();
                    logprobs[s] += step;
                    at(&logprobs).loss
                };
                let numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                assert!((numeric - result.d_logprobs[s]).abs() < 1e-8, "{s}");
            }
        }
    }

    #[test]
    fn at_the_old_policy_it_is_the_coefficient_of_the_rule() {
        let probabilities = vec![0.1, 0.2, 0.4, 0.1, 0.1];
        let grid = [1.0, 2.0, 3.0, 4.0, 5.0];
        let rollout = |p: Vec<f64>| [MarginalRollout::Read { probabilities: p, fault: None }];
        let outcome = par_marginal(
            &grid,
            &rollout(probabilities.clone()),
            &rollout(vec![0.0, 0.0, 1.0, 0.0, 0.0]),
            &MarginalConfig::default(),
        )
        .unwrap();
        let reward = &outcome.chosen.rollouts[0];
        let outcomes = Outcomes {
            logprobs_new: &logs(&probabilities),
            probabilities_old: &probabilities,
            advantages: &reward.score_advantages,
            invalid_advantage: reward.invalid_advantage,
        };
        let result = outcome_loss(&outcomes, CLIP, 1.0).unwrap();
        for (d, coefficient) in result.d_logprobs.iter().zip(&reward.score_coefficients) {
            assert!((d + coefficient).abs() < 1e-9);
        }
        assert!(result.loss.abs() < 1e-9, "advantages are centred");
    }

    #[test]
    fn lengths_and_denominators_are_checked() {
        let outcomes = Outcomes {
            logprobs_new: &[-1.0],
            probabilities_old: &[],
            advantages: &[0.0],
            invalid_advantage: 0.0,
        };
        assert!(outcome_loss(&outcomes, CLIP, 1.0).is_err());
        let fine = Outcomes { probabilities_old: &[0.5], ..outcomes };
        assert!(outcome_loss(&fine, CLIP, 0.0).is_err());
        assert!(outcome_loss(&fine, CLIP, 1.0).is_ok());
    }
}
