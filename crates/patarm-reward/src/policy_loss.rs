//! The clipped policy-gradient loss, its KL term and their derivatives.
//!
//! Pure functions of log-probabilities: value and derivative by every new
//! log-probability. The ratio is π_new / π_old with PPO's pessimistic clip, the two
//! ends apart as in DAPO; the denominator is an argument, so that micro-batches and
//! workers add up to the same number.

pub mod kl;
pub mod outcome;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use kl::KlEstimator;

/// Log ratios are held within ± this before they are raised, so that one diverged
/// token cannot make the loss infinite; its derivative is 0 beyond.
pub(crate) const MAX_LOG_RATIO: f64 = 20.0;

/// How far a ratio may move from one before it stops to pay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipRange {
    /// The ratio is clipped at 1 − low from below.
    pub low: f64,
    /// The ratio is clipped at 1 + high from above.
    pub high: f64,
}

impl Default for ClipRange {
    fn default() -> Self {
        Self { low: 0.2, high: 0.2 }
    }
}

impl ClipRange {
    /// Refuses ranges that clip everything or nothing meaningful.
    ///
    /// # Errors
    /// When `low` is outside 0..=1 or `high` is negative or not finite.
    pub fn validate(&self) -> Result<()> {
        let low = (0.0..=1.0).contains(&self.low);
        let high = self.high.is_finite() && self.high >= 0.0;
        if low && high {
            return Ok(());
        }
        let message = format!(
            "clip range ({}, {}): low must lie in 0..=1 and high be a finite number, 0 or more",
            self.low, self.high
        );
        Err(Error::new(ErrorKind::Config, message))
    }
}

/// What a ratio is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RatioLevel {
    /// Every token has its own ratio.
    #[default]
    Token,
    /// All tokens of a sequence share exp(mean log ratio), as in GSPO.
    Sequence,
}

/// What the denominator counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossLevel {
    /// Every token weighs the same; the denominator counts tokens.
    #[default]
    Token,
    /// Every sequence weighs the same; the denominator counts sequences.
    Sequence,
}

/// Every choice of the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyLossConfig {
    /// Where ratios are clipped.
    pub clip: ClipRange,
    /// What a ratio is taken over.
    pub ratio: RatioLevel,
    /// What the denominator counts.
    pub level: LossLevel,
    /// Estimator of the KL to the reference policy.
    pub kl_estimator: KlEstimator,
    /// Weight of the KL term.
    pub kl_coefficient: f64,
}

/// Flat per-token numbers of whole sequences, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct TokenBatch<'a> {
    /// Log-probability of each token under the policy being updated; `t` numbers.
    pub logprobs_new: &'a [f64],
    /// The same under the policy that generated them; `t` numbers.
    pub logprobs_old: &'a [f64],
    /// The same under the reference policy; `t` numbers where there is a KL term.
    pub logprobs_reference: Option<&'a [f64]>,
    /// Advantage of each token; `t` numbers.
    pub advantages: &'a [f64],
    /// Tokens of each sequence; sums to `t`.
    pub lengths: &'a [usize],
}

/// The loss of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyLoss {
    /// What is minimised: policy part plus weighted KL part.
    pub loss: f64,
    /// The policy part.
    pub policy: f64,
    /// The KL part before its weight.
    pub kl: f64,
    /// Derivative of `loss` by every new log-probability; `t` numbers.
    pub d_logprobs: Vec<f64>,
    /// Tokens on which the clip stopped the gradient.
    pub num_clipped: usize,
    /// Mean of the token ratios π_new / π_old.
    pub mean_ratio: f64,
}

/// Value, derivative and clip state of one ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioLoss {
    /// −min(ρA, clip(ρ)A).
    pub loss: f64,
    /// Derivative by the log ratio.
    pub d_log_ratio: f64,
    /// ρ.
    pub ratio: f64,
    /// Whether the clip stopped the gradient.
    pub clipped: bool,
}

/// The clipped loss of one ratio: −min(ρA, clip(ρ, 1 − low, 1 + high) A) with
/// ρ = exp(`log_ratio`). Source: PPO (Schulman et al., 2017), ends apart: DAPO.
#[must_use]
pub fn clipped_ratio_loss(log_ratio: f64, advantage: f64, clip: ClipRange) -> RatioLoss {
    let held = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
    let ratio = held.exp();
    let plain = ratio * advantage;
    let bounded = ratio.clamp(1.0 - clip.low, 1.0 + clip.high) * advantage;
    let clipped = bounded < plain;
    let moves = !clipped && held == log_ratio;
    RatioLoss {
        loss: -plain.min(bounded),
        d_log_ratio: if moves { -plain } else { 0.0 },
        ratio,
        clipped,
    }
}

/// The loss of a batch of sequences over `denominator` (tokens or sequences, by
/// [`LossLevel`]) and its derivative.
///
/// # Errors
/// When lengths disagree, a KL term has no reference, or the denominator is not
/// positive and finite.
pub fn policy_loss(
    batch: &TokenBatch<'_>,
    config: &PolicyLossConfig,
    denominator: f64,
) -> Result<PolicyLoss> {
    check(batch, config, denominator)?;
    let tokens = batch.logprobs_new.len();
    let mut result = PolicyLoss { d_logprobs: vec![0.0; tokens], ..PolicyLoss::default() };
    let mut start = 0;
    let mut ratio_sum = 0.0;
    for &length in batch.lengths {
        let end = start + length;
        let weight = match config.level {
            LossLevel::Token => 1.0 / denominator,
            LossLevel::Sequence => 1.0 / (denominator * length.max(1) as f64),
        };
        let sequence = Sequence { batch, start, end, weight };
        ratio_sum += match config.ratio {
            RatioLevel::Token => sequence.add_token_ratios(config.clip, &mut result),
            RatioLevel::Sequence => sequence.add_sequence_ratio(config.clip, &mut result),
        };
        sequence.add_kl(config, &mut result);
        start = end;
    }
    result.loss = result.policy + config.kl_coefficient * result.kl;
    result.mean_ratio = if tokens == 0 { 1.0 } else { ratio_sum / tokens as f64 };
    Ok(result)
}

fn check(batch: &TokenBatch<'_>, config: &PolicyLossConfig, denominator: f64) -> Result<()> {
    let tokens = batch.logprobs_new.len();
    let total = batch.lengths.iter().try_fold(0usize, |sum, &length| sum.checked_add(length));
    let same = batch.logprobs_old.len() == tokens
        && batch.advantages.len() == tokens
        && batch.logprobs_reference.is_none_or(|reference| reference.len() == tokens)
        && total == Some(tokens);
    if !same {
        let message = format!(
            "{tokens} new log-probabilities, {} old, {} advantages, {:?} in sequences",
            batch.logprobs_old.len(),
            batch.advantages.len(),
            total
        );
        return Err(Error::new(ErrorKind::Input, message));
    }
    if config.kl_estimator != KlEstimator::Off && batch.logprobs_reference.is_none() {
        let message = "a KL term needs the reference's log-probabilities";
        return Err(Error::new(ErrorKind::Input, message));
    }
    if !(denominator.is_finite() && denominator > 0.0) {
        let message = format!("denominator {denominator}: must be a finite number above 0");
        return Err(Error::new(ErrorKind::Input, message));
    }
    Ok(())
}

/// One sequence of a batch and the weight of each of its tokens.
struct Sequence<'a> {
    batch: &'a TokenBatch<'a>,
    start: usize,
    end: usize,
    weight: f64,
}

impl Sequence<'_> {
    fn log_ratio(&self, t: usize) -> f64 {
        self.batch.logprobs_new[t] - self.batch.logprobs_old[t]
    }

    /// Adds the policy part; returns the sum of the ratios.
    fn add_token_ratios(&self, clip: ClipRange, result: &mut PolicyLoss) -> f64 {
        let mut ratio_sum = 0.0;
        for t in self.start..self.end {
            let token = clipped_ratio_loss(self.log_ratio(t), self.batch.advantages[t], clip);
            result.policy += self.weight * token.loss;
            result.d_logprobs[t] += self.weight * token.d_log_ratio;
            result.num_clipped += usize::from(token.clipped);
            ratio_sum += token.ratio;
        }
        ratio_sum
    }

    /// The same with one ratio for the sequence, whose log is the mean log ratio.
    fn add_sequence_ratio(&self, clip: ClipRange, result: &mut PolicyLoss) -> f64 {
        let length = (self.end - self.start).max(1) as f64;
        let mean = (self.start..self.end).map(|t| self.log_ratio(t)).sum::<f64>() / length;
        let mut d_mean = 0.0;
        let mut ratio_sum = 0.0;
        for &advantage in &self.batch.advantages[self.start..self.end] {
            let token = clipped_ratio_loss(mean, advantage, clip);
            result.policy += self.weight * token.loss;
            d_mean += self.weight * token.d_log_ratio;
            result.num_clipped += usize::from(token.clipped);
            ratio_sum += token.ratio;
        }
        for derivative in &mut result.d_logprobs[self.start..self.end] {
            *derivative += d_mean / length;
        }
        ratio_sum
    }

    fn add_kl(&self, config: &PolicyLossConfig, result: &mut PolicyLoss) {
        let Some(reference) = self.batch.logprobs_reference else {
            return;
        };
        for t in self.start..self.end {
            let term = config.kl_estimator.term(self.batch.logprobs_new[t], reference[t]);
            result.kl += self.weight * term.value;
            result.d_logprobs[t] += self.weight * config.kl_coefficient * term.d_logprob;
        }
    }
}

#[cfg(test)]
mod tests;
