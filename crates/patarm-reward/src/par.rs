//! The preference-aware reward: comparisons in, a reward for every judgement out.
//!
//! Every judgement of one response is compared with the *mean score of the other
//! response*: δ = s − s̄ᵣ on the chosen side, δ = s̄ᶜ − s on the rejected side. A
//! judgement on the right side earns f(δ), any other 0, and a broken format costs its
//! penalty. Source: PaTaRM (arXiv 2510.24235) as restated in section 4 of the method
//! notes; values that nobody outside has confirmed are configuration.

mod difference;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::judgement::{FormatFault, Judgement};
use difference::Scores;

/// How much a positive difference earns; a difference of 0 or less always earns 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Grade {
    /// `low` up to and including `threshold`, `high` above it.
    Graded {
        /// The largest difference that still earns `low`, in score points.
        #[serde(default = "default_threshold")]
        threshold: f64,
        /// Reward of a small difference.
        #[serde(default = "default_low")]
        low: f64,
        /// Reward of a large difference.
        #[serde(default = "default_high")]
        high: f64,
    },
    /// The same for every positive difference.
    Constant {
        /// Reward of any positive difference.
        #[serde(default = "default_value")]
        value: f64,
    },
}

fn default_threshold() -> f64 {
    2.0
}

fn default_low() -> f64 {
    1.2
}

fn default_high() -> f64 {
    1.4
}

fn default_value() -> f64 {
    1.3
}

impl Default for Grade {
    fn default() -> Self {
        Self::Graded { threshold: 2.0, low: 1.2, high: 1.4 }
    }
}

impl Grade {
    /// The constant variant with its default value.
    #[must_use]
    pub fn constant() -> Self {
        Self::Constant { value: default_value() }
    }

    pub(crate) fn threshold(&self) -> f64 {
        match *self {
            Self::Graded { threshold, .. } => threshold,
            Self::Constant { .. } => 0.0,
        }
    }

    /// The reward of a difference of which is known whether it is positive and
    /// whether it exceeds the threshold.
    pub(crate) fn reward(&self, positive: bool, large: bool) -> f64 {
        match *self {
            _ if !positive => 0.0,
            Self::Graded { high, .. } if large => high,
            Self::Graded { low, .. } => low,
            Self::Constant { value } => value,
        }
    }
}

/// How the preference part and the format part make one reward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormatCombine {
    /// Their sum.
    #[default]
    Add,
    /// The format part alone wherever there is a format fault.
    Replace,
}

/// What becomes of a number that can be read although the tags are broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrokenTagsScore {
    /// It does not count: not in its side's mean, no preference part.
    #[default]
    Ignore,
    /// It counts like any other, beside the format penalty.
    Use,
}

/// What happens to a pair of which one side has no usable score at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnEmptySide {
    /// Usable judgements of the other side earn 0, the others keep their penalty.
    #[default]
    Zero,
    /// Usable judgements get the bad-score penalty, the others keep their penalty.
    FailPair,
    /// The pair is masked out of the update.
    DropPair,
}

/// Every choice of the rule. Defaults: method notes, section 13.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParConfig {
    /// Reward of a positive difference.
    pub f: Grade,
    /// Penalty of missing or misplaced tags.
    pub format_missing_tags: f64,
    /// Penalty of an unusable score within intact tags.
    pub format_bad_score: f64,
    /// How the parts are combined.
    pub format_combine: FormatCombine,
    /// Numbers behind broken tags.
    pub broken_tags_score: BrokenTagsScore,
    /// Pairs with a side that has no usable score.
    pub on_empty_side: OnEmptySide,
}

impl Default for ParConfig {
    fn default() -> Self {
        Self {
            f: Grade::default(),
            format_missing_tags: -1.5,
            format_bad_score: -1.0,
            format_combine: FormatCombine::default(),
            broken_tags_score: BrokenTagsScore::default(),
            on_empty_side: OnEmptySide::default(),
        }
    }
}

impl ParConfig {
    /// Refuses values that would turn the rule around.
    ///
    /// # Errors
    /// Names the field when a value is not finite, a reward is not positive, `high` is
    /// below `low`, the threshold is negative or a penalty is positive.
    pub fn validate(&self) -> Result<()> {
        match self.f {
            Grade::Graded { threshold, low, high } => {
                check("f.graded.threshold", threshold, threshold >= 0.0, "0 or more")?;
                check("f.graded.low", low, low > 0.0, "above 0")?;
                check("f.graded.high", high, high >= low, "at least f.graded.low")?;
            }
            Grade::Constant { value } => {
                check("f.constant.value", value, value > 0.0, "above 0")?;
            }
        }
        for (field, value) in [
            ("format_missing_tags", self.format_missing_tags),
            ("format_bad_score", self.format_bad_score),
        ] {
            check(field, value, value <= 0.0, "0 or less")?;
        }
        Ok(())
    }

    /// The format reward of a fault.
    #[must_use]
    pub fn format_reward(&self, fault: FormatFault) -> f64 {
        if fault.is_broken_tags() { self.format_missing_tags } else { self.format_bad_score }
    }
}

fn check(field: &str, value: f64, holds: bool, expected: &str) -> Result<()> {
    if value.is_finite() && holds {
        return Ok(());
    }
    let message = format!("{field} = {value}: must be a finite number, {expected}");
    Err(Error::new(ErrorKind::Config, message))
}

/// What the rule needs to know of one judgement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParScore {
    /// The score, or why there is none.
    pub score: std::result::Result<f64, FormatFault>,
    /// A number that could be read behind broken tags.
    pub readable: Option<f64>,
}

impl ParScore {
    /// A judgement with a score; a number that is not finite counts as a bad score.
    #[must_use]
    pub fn valid(score: f64) -> Self {
        Self { score: Ok(score), readable: None }
    }

    /// A judgement without a score.
    #[must_use]
    pub fn fault(fault: FormatFault) -> Self {
        Self { score: Err(fault), readable: None }
    }

    fn format_fault(&self) -> Option<FormatFault> {
        match self.score {
            Ok(score) if score.is_finite() => None,
            Ok(_) => Some(FormatFault::ScoreNotNumber),
            Err(fault) => Some(fault),
        }
    }

    /// The number that takes part in the comparison.
    fn usable(&self, broken_tags: BrokenTagsScore) -> Option<f64> {
        let number = match (self.score, broken_tags) {
            (Ok(score), _) => Some(score),
            (Err(fault), BrokenTagsScore::Use) if fault.is_broken_tags() => self.readable,
            (Err(_), _) => None,
        };
        number.filter(|score| score.is_finite())
    }
}

impl From<&Judgement> for ParScore {
    fn from(judgement: &Judgement) -> Self {
        Self { score: judgement.score, readable: judgement.readable_score }
    }
}

/// The reward of one judgement, by component.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParReward {
    /// The preference part f(δ).
    pub par: f64,
    /// The format part, 0 or a penalty.
    pub format: f64,
    /// What the judgement is rewarded with.
    pub total: f64,
}

/// One side of a pair after the rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParSide {
    /// One reward a judgement, in the order given.
    pub rewards: Vec<ParReward>,
    /// Mean of the usable scores, where there is one.
    pub mean: Option<f64>,
    /// Whether each judgement takes part in the update.
    pub mask: Vec<bool>,
}

impl ParSide {
    /// The totals alone.
    #[must_use]
    pub fn totals(&self) -> Vec<f64> {
        self.rewards.iter().map(|reward| reward.total).collect()
    }
}

/// A pair after the rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParOutcome {
    /// Judgements of the preferred response.
    pub chosen: ParSide,
    /// Judgements of the other response.
    pub rejected: ParSide,
    /// Whether at least one side had no usable score.
    pub empty_side: bool,
}

impl ParOutcome {
    /// s̄ of the chosen side − s̄ of the rejected side, where both exist.
    #[must_use]
    pub fn margin(&self) -> Option<f64> {
        Some(self.chosen.mean? - self.rejected.mean?)
    }
}

/// Rewards every judgement of a pair.
///
/// Differences of scores with at most six decimals are compared in integers, so that
/// δ = threshold lands in the low grade whatever the rounding of a mean (section 4.6).
#[must_use]
pub fn par(chosen: &[ParScore], rejected: &[ParScore], config: &ParConfig) -> ParOutcome {
    let usable_c = usable(chosen, config.broken_tags_score);
    let usable_r = usable(rejected, config.broken_tags_score);
    let scores_c = Scores::new(&usable_c);
    let scores_r = Scores::new(&usable_r);
    let empty_side = scores_c.is_empty() || scores_r.is_empty();
    let par_c = preference_rewards(&usable_c, &scores_r, config, 1);
    let par_r = preference_rewards(&usable_r, &scores_c, config, -1);
    ParOutcome {
        chosen: side(chosen, &par_c, &scores_c, config, empty_side),
        rejected: side(rejected, &par_r, &scores_r, config, empty_side),
        empty_side,
    }
}

fn usable(scores: &[ParScore], broken_tags: BrokenTagsScore) -> Vec<Option<f64>> {
    scores.iter().map(|score| score.usable(broken_tags)).collect()
}

/// f(sign · (s − s̄ of the other side)) for every usable score, 0 for the rest.
fn preference_rewards(
    own: &[Option<f64>],
    other: &Scores,
    config: &ParConfig,
    sign: i8,
) -> Vec<f64> {
    let threshold = config.f.threshold();
    own.iter()
        .map(|score| {
            let Some(comparison) = score.and_then(|s| other.compare(s, sign, threshold)) else {
                return 0.0;
            };
            config.f.reward(comparison.positive, comparison.large)
        })
        .collect()
}

fn side(
    scores: &[ParScore],
    preference: &[f64],
    own: &Scores,
    config: &ParConfig,
    empty_side: bool,
) -> ParSide {
    let rewards = scores
        .iter()
        .zip(preference)
        .map(|(score, &par)| {
            let fault = score.format_fault();
            let mut format = fault.map_or(0.0, |fault| config.format_reward(fault));
            if empty_side && fault.is_none() && config.on_empty_side == OnEmptySide::FailPair {
                format = config.format_bad_score;
            }
            combine(par, format, fault.is_some(), config.format_combine)
        })
        .collect();
    let kept = !(empty_side && config.on_empty_side == OnEmptySide::DropPair);
    ParSide { rewards, mean: own.mean(), mask: vec![kept; scores.len()] }
}

fn combine(par: f64, format: f64, faulty: bool, how: FormatCombine) -> ParReward {
    let par = if faulty && how == FormatCombine::Replace { 0.0 } else { par };
    ParReward { par, format, total: par + format }
}

#[cfg(test)]
mod tests;
