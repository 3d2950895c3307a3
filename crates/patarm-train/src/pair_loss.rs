//! From the judgements of a pair to the gradient of their log-probabilities.
//!
//! The first pass over a batch of rollouts freezes what the method freezes:
//! rewards, means, deviations and old probabilities. Later passes over the same
//! rollouts move only the new log-probabilities.

use patarm_models::{CompletionTargets, TargetStatistics};
use patarm_reward::advantage::{AdvantageConfig, group_advantages};
use patarm_reward::judgement::FormatFault;
use patarm_reward::par::{ParOutcome, ParScore, par};
use patarm_reward::par_marginal::{MarginalConfig, MarginalOutcome, MarginalRollout, par_marginal};
use patarm_reward::policy_loss::outcome::{Outcomes, outcome_loss};
use patarm_reward::policy_loss::{LossLevel, TokenBatch, policy_loss};

use crate::error::Error;
use crate::recipe::{GrpoConfig, ScoreEstimator};

/// A parsed judgement with the targets it has in a forest.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedJudgement {
    /// Its targets.
    pub targets: CompletionTargets,
    /// Its score as the reward rule sees it. With the marginal estimator the
    /// judgement ends before its score, and this says whether the text so far is sound.
    pub score: ParScore,
    /// Tokens of the score within the judgement (sampled estimators).
    pub score_tokens: std::ops::Range<usize>,
}

/// What is frozen about one judgement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrozenJudgement {
    /// Advantage of each of its tokens.
    pub advantages: Vec<f64>,
    /// Old log-probability of each of its tokens.
    pub old_logprobs: Vec<f64>,
    /// Old probability of each score; empty unless the score is integrated out.
    pub old_scores: Vec<f64>,
    /// Advantage of each score.
    pub score_advantages: Vec<f64>,
    /// Advantage of "no admissible score".
    pub invalid_advantage: f64,
}

/// What is frozen about one pair.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FrozenPair {
    /// Judgements of `[chosen, rejected]`.
    pub sides: [Vec<FrozenJudgement>; 2],
    /// For the log.
    pub report: PairReport,
}

/// What a pair shows the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PairReport {
    /// Mean score of `[chosen, rejected]`, where a side has one.
    pub means: [Option<f64>; 2],
    /// Mean preference reward of both sides.
    pub par: f64,
    /// Mean format reward of both sides.
    pub format: f64,
    /// Deviation of the reward within `[chosen, rejected]`; 0 = no signal.
    pub deviations: [f64; 2],
    /// The outcome of the sampled rule, for the causes of missing signal.
    pub outcome: Option<ParOutcome>,
    /// Probability of no admissible score, mean over judgements (marginal).
    pub invalid_mass: f64,
}

impl PairReport {
    /// 1 when the chosen side has the higher mean, ½ on a tie, 0 otherwise; `None`
    /// when a side has no mean.
    #[must_use]
    pub fn credit(&self) -> Option<f64> {
        let [chosen, rejected] = self.means;
        let (chosen, rejected) = (chosen?, rejected?);
        Some(if chosen > rejected {
            1.0
        } else if chosen == rejected {
            0.5
        } else {
            0.0
        })
    }
}

/// Freezes rewards and old probabilities of a pair, given its first forward.
///
/// # Errors
/// When the reward rule refuses its input.
pub fn freeze(
    sides: &[Vec<PlacedJudgement>; 2],
    statistics: &TargetStatistics,
    grid: &[f64],
    config: &GrpoConfig,
) -> Result<FrozenPair, Error> {
    match config.estimator {
        ScoreEstimator::Marginal => freeze_marginal(sides, statistics, grid, config),
        ScoreEstimator::Sampled | ScoreEstimator::SampledScoreOnly => {
            Ok(freeze_sampled(sides, statistics, config))
        }
    }
}

fn old_logprobs(judgement: &PlacedJudgement, statistics: &TargetStatistics) -> Vec<f64> {
    judgement.targets.text.clone().map(|target| f64::from(statistics.logprob(target))).collect()
}

/// Log-probability of every score branch of a judgement.
fn score_logprobs(judgement: &PlacedJudgement, statistics: &TargetStatistics) -> Vec<f64> {
    let sum = |branch: &std::ops::Range<usize>| {
        branch.clone().map(|n| f64::from(statistics.logprob(n))).sum()
    };
    judgement.targets.branches.iter().map(sum).collect()
}

/// Probability of every score branch; empty for a broken judgement.
fn score_probabilities(judgement: &PlacedJudgement, statistics: &TargetStatistics) -> Vec<f64> {
    score_logprobs(judgement, statistics).into_iter().map(f64::exp).collect()
}

fn freeze_sampled(
    sides: &[Vec<PlacedJudgement>; 2],
    statistics: &TargetStatistics,
    config: &GrpoConfig,
) -> FrozenPair {
    let scores =
        |side: &[PlacedJudgement]| side.iter().map(|one| one.score).collect::<Vec<ParScore>>();
    let outcome = par(&scores(&sides[0]), &scores(&sides[1]), &config.par);
    let advantage =
        AdvantageConfig { std_normalise: config.std_normalise, ..AdvantageConfig::default() };
    let mut frozen = FrozenPair::default();
    for (index, side) in [&outcome.chosen, &outcome.rejected].into_iter().enumerate() {
        let group = group_advantages(&side.totals(), &side.mask, &advantage);
        frozen.report.means[index] = side.mean;
        frozen.report.deviations[index] = group.std;
        frozen.sides[index] = sides[index]
            .iter()
            .zip(&group.values)
            .map(|(one, advantage)| frozen_sampled_judgement(one, *advantage, statistics, config))
            .collect();
    }
    let rewards: Vec<_> = outcome.chosen.rewards.iter().chain(&outcome.rejected.rewards).collect();
    let count = rewards.len().max(1) as f64;
    frozen.report.par = rewards.iter().map(|reward| reward.par).sum::<f64>() / count;
    frozen.report.format = rewards.iter().map(|reward| reward.format).sum::<f64>() / count;
    frozen.report.outcome = Some(outcome);
    frozen
}

fn frozen_sampled_judgement(
    one: &PlacedJudgement,
    advantage: f64,
    statistics: &TargetStatistics,
    config: &GrpoConfig,
) -> FrozenJudgement {
    let old_logprobs = old_logprobs(one, statistics);
    let advantages = match config.estimator {
        ScoreEstimator::SampledScoreOnly => {
            let weight = score_token_weight(one, config.loss.level);
            (0..old_logprobs.len())
                .map(
                    |token| {
                        if one.score_tokens.contains(&token) { advantage * weight } else { 0.0 }
                    },
                )
                .collect()
        }
        ScoreEstimator::Sampled | ScoreEstimator::Marginal => vec![advantage; old_logprobs.len()],
    };
    FrozenJudgement { advantages, old_logprobs, ..FrozenJudgement::default() }
}

/// What a token of the score counts when no other token carries the advantage.
///
/// A sequence-level loss divides by the length of the judgement; the score's tokens
/// together shall weigh one judgement, as the integrated score does, or the control
/// would differ from it by that length too.
fn score_token_weight(one: &PlacedJudgement, level: LossLevel) -> f64 {
    match level {
        LossLevel::Token => 1.0,
        LossLevel::Sequence => one.targets.text.len() as f64 / one.score_tokens.len().max(1) as f64,
    }
}

fn freeze_marginal(
    sides: &[Vec<PlacedJudgement>; 2],
    statistics: &TargetStatistics,
    grid: &[f64],
    config: &GrpoConfig,
) -> Result<FrozenPair, Error> {
    let read = |one: &PlacedJudgement| match one.score.score {
        Err(fault) => MarginalRollout::Broken(fault),
        Ok(_) => MarginalRollout::Read {
            probabilities: score_probabilities(one, statistics),
            fault: None::<FormatFault>,
        },
    };
    let rollouts = |side: &[PlacedJudgement]| side.iter().map(read).collect::<Vec<_>>();
    let rule = MarginalConfig {
        par: config.par,
        std_normalise: config.std_normalise,
        center_coefficient: config.center_coefficient,
        ..MarginalConfig::default()
    };
    let outcome = par_marginal(grid, &rollouts(&sides[0]), &rollouts(&sides[1]), &rule)
        .map_err(|error| Error::Data(error.to_string()))?;
    let mut frozen =
        FrozenPair { report: marginal_report(&outcome, sides, config), ..FrozenPair::default() };
    for (index, side) in [&outcome.chosen, &outcome.rejected].into_iter().enumerate() {
        for ((one, reward), is_used) in sides[index].iter().zip(&side.rollouts).zip(&side.mask) {
            let old_logprobs = old_logprobs(one, statistics);
            if !is_used {
                let advantages = vec![0.0; old_logprobs.len()];
                frozen.sides[index].push(FrozenJudgement {
                    advantages,
                    old_logprobs,
                    ..Default::default()
                });
                continue;
            }
            let prefix = reward.prefix_advantage * config.text_weight;
            frozen.sides[index].push(FrozenJudgement {
                advantages: vec![prefix; old_logprobs.len()],
                old_logprobs,
                old_scores: score_probabilities(one, statistics),
                score_advantages: reward.score_advantages.clone(),
                invalid_advantage: reward.invalid_advantage,
            });
        }
    }
    Ok(frozen)
}

fn marginal_report(
    outcome: &MarginalOutcome,
    sides: &[Vec<PlacedJudgement>; 2],
    config: &GrpoConfig,
) -> PairReport {
    let both = [&outcome.chosen, &outcome.rejected];
    let expected: f64 =
        both.iter().flat_map(|side| &side.rollouts).map(|one| one.expected_reward).sum();
    let invalid: f64 =
        both.iter().flat_map(|side| &side.rollouts).map(|one| one.invalid_mass).sum();
    let faults = sides.iter().flatten().filter_map(|one| one.score.score.err());
    let count = sides.iter().flatten().count().max(1) as f64;
    let format = faults.map(|fault| config.par.format_reward(fault)).sum::<f64>();
    let format = (format + invalid * config.par.format_bad_score) / count;
    PairReport {
        means: both.map(|side| side.mean),
        par: expected / count - format,
        format,
        deviations: both.map(|side| side.sigma),
        outcome: None,
        invalid_mass: invalid / count,
    }
}

/// Denominators of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Denominator {
    /// Tokens (or sequences) of the whole batch, by the loss level.
    pub value: f64,
}

/// Sums of one update, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossReport {
    /// Policy loss, score terms included.
    pub loss: f64,
    /// Unweighted KL estimate, as the loss averages it.
    pub kl: f64,
    /// Tokens whose gradient the clip stopped.
    pub num_clipped: usize,
}

/// Adds the gradient of one judgement's loss to `d_logprobs` (one entry a target).
///
/// # Errors
/// When the loss refuses its input.
pub fn judgement_loss(
    (placed, frozen): (&PlacedJudgement, &FrozenJudgement),
    (statistics, reference): (&TargetStatistics, Option<&TargetStatistics>),
    config: &GrpoConfig,
    denominator: Denominator,
    d_logprobs: &mut [f32],
) -> Result<LossReport, Error> {
    let text = placed.targets.text.clone();
    let mut report = LossReport::default();
    if text.is_empty() {
        return Ok(report);
    }
    let refuse = |error: patarm_reward::Error| Error::Data(error.to_string());
    let new = old_logprobs(placed, statistics);
    let reference = reference.map(|statistics| old_logprobs(placed, statistics));
    let batch = TokenBatch {
        logprobs_new: &new,
        logprobs_old: &frozen.old_logprobs,
        logprobs_reference: reference.as_deref(),
        advantages: &frozen.advantages,
        lengths: &[new.len()],
    };
    let loss = policy_loss(&batch, &config.loss, denominator.value).map_err(refuse)?;
    for (target, derivative) in text.zip(&loss.d_logprobs) {
        d_logprobs[target] += *derivative as f32;
    }
    report.loss += loss.loss;
    report.kl += loss.kl;
    report.num_clipped += loss.num_clipped;
    if !frozen.old_scores.is_empty() {
        let outcomes = Outcomes {
            logprobs_new: &score_logprobs(placed, statistics),
            probabilities_old: &frozen.old_scores,
            advantages: &frozen.score_advantages,
            invalid_advantage: frozen.invalid_advantage,
        };
        let loss = outcome_loss(&outcomes, config.loss.clip, denominator.value).map_err(refuse)?;
        // The log-probability of a score is the sum over its tokens.
        for (branch, derivative) in placed.targets.branches.iter().zip(&loss.d_logprobs) {
            branch.clone().for_each(|target| d_logprobs[target] += *derivative as f32);
        }
        report.loss += loss.loss;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_weighs_scores_alike_in_long_and_short_judgements() {
        for (tokens, score_tokens) in [(7, 5..6), (40, 36..37), (40, 35..37)] {
            let one = PlacedJudgement {
                targets: CompletionTargets { text: 3..3 + tokens, branches: Vec::new() },
                score: ParScore::valid(5.0),
                score_tokens: score_tokens.clone(),
            };
            let of_one_token = score_token_weight(&one, LossLevel::Sequence) / tokens as f64;
            assert!((of_one_token * score_tokens.len() as f64 - 1.0).abs() < 1e-12);
            assert_eq!(score_token_weight(&one, LossLevel::Token), 1.0);
        }
    }
}
