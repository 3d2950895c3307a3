//! The preference-aware reward with the score integrated out.
//!
//! After its rubric and evaluation a judgement holds a whole distribution over what
//! follows the score tag. The sampled rule looks at one draw of it; this one uses all
//! of it: the last step of the sampled estimator, taken in expectation. It is unbiased
//! given the text before the score, the two side means and the deviation, and varies
//! less. It is an addition of this project (method notes, section 14), not part of the
//! published method.
//!
//! An *outcome* is an admissible score with its terminator, or ⊥, everything else.
//! All results are frozen numbers: no gradient flows through means, rewards or
//! deviations.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::judgement::FormatFault;
use crate::par::{OnEmptySide, ParConfig};

/// Differences this close (in score points) to 0 or to the threshold count as equal
/// to it: means of expectations carry rounding that a step function would amplify.
const TIE_TOLERANCE: f64 = 1e-9;
/// A rollout with less admissible mass than this has no expected score.
const MIN_ADMISSIBLE_MASS: f64 = 1e-9;
/// How far the probabilities of a rollout may sum above one before they are refused.
const MASS_TOLERANCE: f64 = 1e-3;
/// Deviations up to this are zero, in reward points.
const MIN_SIGMA: f64 = 1e-12;

/// Every choice of the rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MarginalConfig {
    /// Grades, penalties and the policy for an empty side. `broken_tags_score` and
    /// `format_combine` change nothing here: a broken judgement has no distribution.
    pub par: ParConfig,
    /// Divide both terms by the group's deviation; otherwise only centre.
    pub std_normalise: bool,
    /// Added to the deviation, in reward points.
    pub eps: f64,
    /// How strongly a pair whose scores lie on one end of the scale is drawn back to its
    /// middle, in reward points; 0 = not at all.
    ///
    /// The rule compares scores of one pair, so nothing in it holds their common level,
    /// and a level that drifts to an end of the scale leaves no room for differences.
    /// With u(s) the score's place between −1 and 1 and ū that of the pair's mean, every
    /// score earns a further −k ū u(s): the same for both sides, so that neither is
    /// preferred by it. The counterpart of centring a scalar reward (Eisenstein et al.,
    /// arXiv 2312.09244; `center_rewards_coefficient` in TRL). An addition of this project.
    pub center_coefficient: f64,
}

impl Default for MarginalConfig {
    fn default() -> Self {
        Self { par: ParConfig::default(), std_normalise: true, eps: 1e-6, center_coefficient: 0.0 }
    }
}

/// One judgement as the rule sees it.
#[derive(Clone, Debug, PartialEq)]
pub enum MarginalRollout {
    /// Rubric and evaluation are well formed, so the score distribution was read.
    Read {
        /// Probability of every admissible score, terminator included, at the
        /// rollout's temperature; aligned with the grid. What is missing to one is ⊥.
        probabilities: Vec<f64>,
        /// What was wrong with the text that was actually sampled from here on.
        fault: Option<FormatFault>,
    },
    /// The text before the score is broken; the judgement enters with its penalty.
    Broken(FormatFault),
}

/// What one judgement contributes to the update.
#[derive(Clone, Debug, PartialEq)]
pub struct MarginalReward {
    /// e: mean of the admissible scores under their renormalised probabilities.
    pub expected_score: Option<f64>,
    /// Probability of ⊥; 0 for a broken judgement.
    pub invalid_mass: f64,
    /// J: the expected reward; the penalty for a broken judgement.
    pub expected_reward: f64,
    /// Advantage of every token before the score: (J − J̄) / σ.
    pub prefix_advantage: f64,
    /// Advantage of every token after the score: the sampled format reward, centred
    /// in the group, / σ.
    pub suffix_advantage: f64,
    /// (R(s) − J) / σ for every grid score; empty for a broken judgement.
    pub score_advantages: Vec<f64>,
    /// (R(⊥) − J) / σ.
    pub invalid_advantage: f64,
    /// Derivative of the objective (to be raised) by log p(s) at the rollout's own
    /// parameters, with ⊥ as the complement of the scores: p(s) (A(s) − A(⊥)).
    pub score_coefficients: Vec<f64>,
}

/// One side of a pair after the rule: one group.
#[derive(Clone, Debug, PartialEq)]
pub struct MarginalSide {
    /// s̄: mean of the expected scores.
    pub mean: Option<f64>,
    /// R(s) for every grid score.
    pub score_rewards: Vec<f64>,
    /// R(⊥).
    pub invalid_reward: f64,
    /// J̄: mean of the expected rewards; `None` for an empty group.
    pub expected_reward: Option<f64>,
    /// σ: deviation of the reward within and between judgements.
    pub sigma: f64,
    /// One entry a judgement.
    pub rollouts: Vec<MarginalReward>,
    /// Whether each judgement takes part in the update.
    pub mask: Vec<bool>,
}

/// A pair after the rule.
#[derive(Clone, Debug, PartialEq)]
pub struct MarginalOutcome {
    /// Judgements of the preferred response.
    pub chosen: MarginalSide,
    /// Judgements of the other response.
    pub rejected: MarginalSide,
    /// Whether at least one side has no expected score.
    pub empty_side: bool,
}

/// Rewards and advantages of a pair.
///
/// `grid` holds the admissible scores in ascending order.
///
/// # Errors
/// When the grid is empty, unordered or not finite, or a rollout's probabilities are
/// not one a grid score, negative, not finite, or sum above one.
pub fn par_marginal(
    grid: &[f64],
    chosen: &[MarginalRollout],
    rejected: &[MarginalRollout],
    config: &MarginalConfig,
) -> Result<MarginalOutcome> {
    check_grid(grid)?;
    let read_c = chosen.iter().map(|rollout| read(grid, rollout)).collect::<Result<Vec<_>>>()?;
    let read_r = rejected.iter().map(|rollout| read(grid, rollout)).collect::<Result<Vec<_>>>()?;
    let (mean_c, mean_r) = (side_mean(&read_c), side_mean(&read_r));
    let empty_side = mean_c.is_none() || mean_r.is_none();
    let mut rewards_c = score_rewards(grid, mean_c, mean_r, &config.par, 1.0);
    let mut rewards_r = score_rewards(grid, mean_r, mean_c, &config.par, -1.0);
    if let (Some(mean_c), Some(mean_r)) = (mean_c, mean_r) {
        let pull = centring(grid, (mean_c + mean_r) / 2.0, config.center_coefficient);
        for rewards in [&mut rewards_c, &mut rewards_r] {
            rewards.iter_mut().zip(&pull).for_each(|(reward, pull)| *reward += pull);
        }
    }
    let finish = |rollouts: &[ReadRollout], mean, rewards| {
        let mut side = group(rollouts, rewards, config);
        side.mean = mean;
        if empty_side && config.par.on_empty_side == OnEmptySide::DropPair {
            side.mask.fill(false);
        }
        side
    };
    Ok(MarginalOutcome {
        chosen: finish(&read_c, mean_c, rewards_c),
        rejected: finish(&read_r, mean_r, rewards_r),
        empty_side,
    })
}

fn check_grid(grid: &[f64]) -> Result<()> {
    let ascending = grid.windows(2).all(|pair| pair[0] < pair[1]);
    if grid.is_empty() || !ascending || !grid.iter().all(|score| score.is_finite()) {
        let message = "the score grid must be a non-empty ascending list of finite numbers";
        return Err(Error::new(ErrorKind::Input, message));
    }
    Ok(())
}

/// A rollout with its outcome probabilities checked and completed.
struct ReadRollout {
    /// Empty for a broken judgement.
    probabilities: Vec<f64>,
    invalid_mass: f64,
    expected_score: Option<f64>,
    /// What was wrong with the sampled text.
    fault: Option<FormatFault>,
}

fn read(grid: &[f64], rollout: &MarginalRollout) -> Result<ReadRollout> {
    let (probabilities, fault) = match rollout {
        MarginalRollout::Broken(fault) => {
            let fault = Some(*fault);
            return Ok(ReadRollout {
                probabilities: Vec::new(),
                invalid_mass: 0.0,
                expected_score: None,
                fault,
            });
        }
        MarginalRollout::Read { probabilities, fault } => (probabilities, *fault),
    };
    if probabilities.len() != grid.len() {
        let message = format!("{} probabilities for {} scores", probabilities.len(), grid.len());
        return Err(Error::new(ErrorKind::Input, message));
    }
    let mass: f64 = probabilities.iter().sum();
    let negative = probabilities.iter().any(|&p| p.is_nan() || p < 0.0);
    if negative || mass > 1.0 + MASS_TOLERANCE {
        let message = format!("score probabilities must be 0 or more and sum to at most 1: {mass}");
        return Err(Error::new(ErrorKind::Input, message));
    }
    let scale = mass.max(1.0);
    let probabilities: Vec<f64> = probabilities.iter().map(|p| p / scale).collect();
    let weighted: f64 = probabilities.iter().zip(grid).map(|(p, s)| p * s).sum();
    let admissible = mass / scale;
    let expected_score = (admissible > MIN_ADMISSIBLE_MASS).then(|| weighted / admissible);
    let invalid_mass = (1.0 - admissible).max(0.0);
    Ok(ReadRollout { probabilities, invalid_mass, expected_score, fault })
}

fn side_mean(rollouts: &[ReadRollout]) -> Option<f64> {
    let scores: Vec<f64> = rollouts.iter().filter_map(|rollout| rollout.expected_score).collect();
    (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
}

/// R(s) = f(sign · (s − s̄ of the other side)), or the policy where a side is empty.
fn score_rewards(
    grid: &[f64],
    own_mean: Option<f64>,
    other_mean: Option<f64>,
    config: &ParConfig,
    sign: f64,
) -> Vec<f64> {
    let (Some(_), Some(other)) = (own_mean, other_mean) else {
        let fails = config.on_empty_side == OnEmptySide::FailPair;
        return vec![if fails { config.format_bad_score } else { 0.0 }; grid.len()];
    };
    let threshold = config.f.threshold();
    grid.iter()
        .map(|score| {
            let delta = sign * (score - other);
            config.f.reward(delta > TIE_TOLERANCE, delta > threshold + TIE_TOLERANCE)
        })
        .collect()
}

/// What draws a pair with mean `level` back to the middle: −k ū u(s) for every score.
fn centring(grid: &[f64], level: f64, coefficient: f64) -> Vec<f64> {
    let (lowest, highest) = (grid[0], grid[grid.len() - 1]);
    let (middle, half) = ((lowest + highest) / 2.0, (highest - lowest) / 2.0);
    if half == 0.0 {
        return vec![0.0; grid.len()];
    }
    let place = |score: f64| (score - middle) / half;
    grid.iter().map(|&score| -coefficient * place(level) * place(score)).collect()
}

/// Everything about one group that follows from its outcome rewards.
fn group(
    rollouts: &[ReadRollout],
    score_rewards: Vec<f64>,
    config: &MarginalConfig,
) -> MarginalSide {
    let invalid_reward = config.par.format_bad_score;
    let rewards =
        OutcomeRewards { score_rewards: &score_rewards, invalid_reward, par: &config.par };
    let expected: Vec<f64> = rollouts.iter().map(|r| rewards.mean(r, |reward| reward)).collect();
    let format: Vec<f64> =
        rollouts.iter().map(|r| r.fault.map_or(0.0, |f| config.par.format_reward(f))).collect();
    let centre = mean(&expected);
    let around = |reward: f64| (reward - centre.unwrap_or(0.0)).powi(2);
    let squares: Vec<f64> = rollouts.iter().map(|r| rewards.mean(r, around)).collect();
    let sigma = mean(&squares).unwrap_or(0.0).sqrt();
    let scale = scale(sigma, config);
    let format_centre = mean(&format).unwrap_or(0.0);
    let advantages = rollouts
        .iter()
        .zip(expected.iter().zip(&format))
        .map(|(rollout, (&own, &format))| MarginalReward {
            prefix_advantage: (own - centre.unwrap_or(0.0)) * scale,
            suffix_advantage: (format - format_centre) * scale,
            ..rewards.advantages(rollout, own, scale)
        })
        .collect();
    MarginalSide {
        mean: None,
        score_rewards,
        invalid_reward,
        expected_reward: centre,
        sigma,
        rollouts: advantages,
        mask: vec![true; rollouts.len()],
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn scale(sigma: f64, config: &MarginalConfig) -> f64 {
    match config.std_normalise {
        false => 1.0,
        true if sigma <= MIN_SIGMA => 0.0,
        true => 1.0 / (sigma + config.eps),
    }
}

/// The reward of every outcome of one side.
struct OutcomeRewards<'a> {
    score_rewards: &'a [f64],
    invalid_reward: f64,
    par: &'a ParConfig,
}

impl OutcomeRewards<'_> {
    /// Σ p(o) g(R(o)) of one rollout.
    fn mean(&self, rollout: &ReadRollout, g: impl Fn(f64) -> f64) -> f64 {
        if let (true, Some(fault)) = (rollout.probabilities.is_empty(), rollout.fault) {
            return g(self.par.format_reward(fault));
        }
        let scores = rollout.probabilities.iter().zip(self.score_rewards);
        let admissible: f64 = scores.map(|(p, &reward)| p * g(reward)).sum();
        admissible + rollout.invalid_mass * g(self.invalid_reward)
    }

    /// The outcome advantages of one rollout with expected reward `own`.
    fn advantages(&self, rollout: &ReadRollout, own: f64, scale: f64) -> MarginalReward {
        let read = !rollout.probabilities.is_empty();
        let invalid_advantage = if read { (self.invalid_reward - own) * scale } else { 0.0 };
        let score_advantages: Vec<f64> = (self.score_rewards.iter())
            .take(rollout.probabilities.len())
            .map(|reward| (reward - own) * scale)
            .collect();
        let score_coefficients = (rollout.probabilities.iter().zip(&score_advantages))
            .map(|(p, advantage)| p * (advantage - invalid_advantage))
            .collect();
        MarginalReward {
            expected_score: rollout.expected_score,
            invalid_mass: rollout.invalid_mass,
            expected_reward: own,
            prefix_advantage: 0.0,
            suffix_advantage: 0.0,
            score_advantages,
            invalid_advantage,
            score_coefficients,
        }
    }
}

#[cfg(test)]
mod tests;
