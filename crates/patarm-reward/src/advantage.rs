//! Advantages of a group of rewards, and why some groups teach nothing.
//!
//! The group z-score of GRPO: reward minus group mean, over the group's standard
//! deviation. The common open implementation uses ddof = 1 and adds eps = 1e-6 outside
//! the root; Think-RM adds it inside. The two sides of a pair are two groups.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::par::{ParReward, ParSide};

/// Where eps joins the deviation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsPlace {
    /// sqrt(variance + eps).
    Inside,
    /// sqrt(variance) + eps.
    #[default]
    Outside,
}

/// How rewards become advantages.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdvantageConfig {
    /// Divide by the group's standard deviation; otherwise only centre.
    pub std_normalise: bool,
    /// Delta degrees of freedom of the deviation: 1 = sample, 0 = population.
    pub ddof: usize,
    /// Keeps the division finite, in reward points (outside) or their square (inside).
    pub eps: f64,
    /// Where eps joins the deviation.
    pub eps_place: EpsPlace,
}

impl Default for AdvantageConfig {
    fn default() -> Self {
        Self { std_normalise: true, ddof: 1, eps: 1e-6, eps_place: EpsPlace::Outside }
    }
}

impl AdvantageConfig {
    /// Refuses values without a meaning.
    ///
    /// # Errors
    /// When eps is negative or not finite, or ddof is above 1.
    pub fn validate(&self) -> Result<()> {
        if !self.eps.is_finite() || self.eps < 0.0 {
            let message = format!("eps = {}: must be a finite number, 0 or more", self.eps);
            return Err(Error::new(ErrorKind::Config, message));
        }
        if self.ddof > 1 {
            let message = format!("ddof = {}: must be 0 or 1", self.ddof);
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(())
    }

    fn divisor(&self, variance: f64) -> f64 {
        match self.eps_place {
            _ if !self.std_normalise => 1.0,
            EpsPlace::Inside => (variance + self.eps).sqrt(),
            EpsPlace::Outside => variance.sqrt() + self.eps,
        }
    }
}

/// Advantages of one group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupAdvantages {
    /// One advantage a reward, in order; 0 for rewards outside the mask.
    pub values: Vec<f64>,
    /// Mean reward of the members; `None` for an empty group.
    pub mean: Option<f64>,
    /// Standard deviation with the configured ddof; 0 for a group of one.
    pub std: f64,
    /// Whether the group holds no contrast: fewer than two members, or all equal.
    pub zero_variance: bool,
}

/// Advantages of the rewards whose mask is set.
///
/// `mask` aligns with `rewards`; rewards beyond its end are left out. A group without
/// contrast gets zeros exactly, whatever the rounding of its mean.
#[must_use]
pub fn group_advantages(
    rewards: &[f64],
    mask: &[bool],
    config: &AdvantageConfig,
) -> GroupAdvantages {
    let kept = |i: usize| mask.get(i).copied().unwrap_or(false);
    let members: Vec<f64> =
        rewards.iter().enumerate().filter(|&(i, _)| kept(i)).map(|(_, &r)| r).collect();
    let zero_variance = members.iter().all(|&reward| reward == members[0]);
    let mean = (!members.is_empty()).then(|| members.iter().sum::<f64>() / members.len() as f64);
    let Some(centre) = mean.filter(|_| !zero_variance) else {
        return GroupAdvantages { values: vec![0.0; rewards.len()], mean, std: 0.0, zero_variance };
    };
    let squares: f64 = members.iter().map(|reward| (reward - centre).powi(2)).sum();
    let freedom = members.len().saturating_sub(config.ddof).max(1);
    let variance = squares / freedom as f64;
    let divisor = config.divisor(variance);
    let values = rewards
        .iter()
        .enumerate()
        .map(|(i, reward)| if kept(i) { (reward - centre) / divisor } else { 0.0 })
        .collect();
    GroupAdvantages { values, mean, std: variance.sqrt(), zero_variance }
}

/// Why a group of preference-aware rewards holds no contrast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ZeroVarianceCause {
    /// No judgement is on the right side of the other mean.
    AllWrong,
    /// Every judgement earned the same positive grade.
    OneGrade,
    /// No judgement has a usable format.
    AllFormatFailures,
    /// Equal totals of unlike judgements, or a masked group.
    Other,
}

/// The cause, where the rewards of a side hold no contrast.
#[must_use]
pub fn zero_variance_cause(side: &ParSide) -> Option<ZeroVarianceCause> {
    let rewards = side.rewards.as_slice();
    let first = rewards.first()?;
    let every = |holds: &dyn Fn(&ParReward) -> bool| rewards.iter().all(holds);
    if !every(&|reward| reward.total == first.total) {
        return None;
    }
    let cause = if !side.mask.iter().all(|&kept| kept) {
        ZeroVarianceCause::Other
    } else if every(&|reward| reward.format < 0.0) {
        ZeroVarianceCause::AllFormatFailures
    } else if every(&|reward| reward.format == 0.0 && reward.par == 0.0) {
        ZeroVarianceCause::AllWrong
    } else if every(&|reward| reward.format == 0.0 && reward.par == first.par) {
        ZeroVarianceCause::OneGrade
    } else {
        ZeroVarianceCause::Other
    };
    Some(cause)
}

/// Groups without contrast, by cause: to be logged at every step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZeroVarianceCounts {
    /// Groups seen.
    pub groups: usize,
    /// No judgement on the right side.
    pub all_wrong: usize,
    /// One positive grade.
    pub one_grade: usize,
    /// No usable format.
    pub all_format_failures: usize,
    /// Anything else.
    pub other: usize,
}

impl ZeroVarianceCounts {
    /// Counts one group.
    pub fn add(&mut self, side: &ParSide) {
        self.groups += 1;
        match zero_variance_cause(side) {
            None => {}
            Some(ZeroVarianceCause::AllWrong) => self.all_wrong += 1,
            Some(ZeroVarianceCause::OneGrade) => self.one_grade += 1,
            Some(ZeroVarianceCause::AllFormatFailures) => self.all_format_failures += 1,
            Some(ZeroVarianceCause::Other) => self.other += 1,
        }
    }

    /// Groups without contrast.
    #[must_use]
    pub fn total(&self) -> usize {
        self.all_wrong + self.one_grade + self.all_format_failures + self.other
    }

    /// Share of groups without contrast, 0 when none was seen.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.groups == 0 { 0.0 } else { self.total() as f64 / self.groups as f64 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::judgement::FormatFault;
    use crate::par::{ParConfig, ParScore, par};

    fn close(actual: &[f64], expected: &[f64]) {
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() < 1e-9, "{actual:?} against {expected:?}");
        }
        assert_eq!(actual.len(), expected.len());
    }

    #[test]
    fn eps_inside_and_outside_the_root() {
        let rewards = [1.0, 3.0];
        let config = AdvantageConfig { eps: 2.0, ..AdvantageConfig::default() };
        let outside = group_advantages(&rewards, &[true; 2], &config);
        close(&outside.values, &[-1.0 / (2f64.sqrt() + 2.0), 1.0 / (2f64.sqrt() + 2.0)]);
        let inside = AdvantageConfig { eps_place: EpsPlace::Inside, ..config };
        close(&group_advantages(&rewards, &[true; 2], &inside).values, &[-0.5, 0.5]);
    }

    #[test]
    fn ddof_and_centring() {
        let config = AdvantageConfig { eps: 0.0, ddof: 0, ..AdvantageConfig::default() };
        close(&group_advantages(&[1.0, 3.0], &[true; 2], &config).values, &[-1.0, 1.0]);
        let centred = AdvantageConfig { std_normalise: false, ..config };
        close(&group_advantages(&[1.0, 4.0, 1.0], &[true; 3], &centred).values, &[-1.0, 2.0, -1.0]);
    }

    #[test]
    fn correct_and_signed_rewards_have_equal_advantages() {
        let config = AdvantageConfig { eps: 0.0, ..AdvantageConfig::default() };
        let zero_one = group_advantages(&[1.0, 0.0, 0.0, 1.0, 1.0], &[true; 5], &config);
        let signed = group_advantages(&[1.0, -1.0, -1.0, 1.0, 1.0], &[true; 5], &config);
        close(&zero_one.values, &signed.values);
    }

    #[test]
    fn masked_rewards_leave_no_trace() {
        let config = AdvantageConfig::default();
        let masked = group_advantages(&[1.0, 99.0, 3.0], &[true, false, true], &config);
        let without = group_advantages(&[1.0, 3.0], &[true; 2], &config);
        close(&masked.values, &[without.values[0], 0.0, without.values[1]]);
        let none = group_advantages(&[1.0, 2.0], &[false; 2], &config);
        assert!(none.zero_variance && none.mean.is_none());
        close(&none.values, &[0.0, 0.0]);
        let empty = group_advantages(&[], &[], &config);
        assert!(empty.zero_variance && empty.values.is_empty());
    }

    #[test]
    fn equal_rewards_are_zero_to_the_last_bit() {
        let config = AdvantageConfig { eps: 0.0, ..AdvantageConfig::default() };
        let group = group_advantages(&[0.1; 3], &[true; 3], &config);
        assert!(group.zero_variance);
        assert_eq!(group.values, [0.0; 3]);
    }

    fn valid(scores: &[i32]) -> Vec<ParScore> {
        scores.iter().map(|&score| ParScore::valid(f64::from(score))).collect()
    }

    #[test]
    fn causes_of_the_golden_examples() {
        let bad = |n| vec![ParScore::fault(FormatFault::ScoreOutOfRange); n];
        let pairs = [
            (valid(&[8, 6]), valid(&[5, 7]), [0, 0, 0]),
            (valid(&[5, 5]), valid(&[5, 5]), [2, 0, 0]),
            (valid(&[3, 4]), valid(&[7, 8]), [2, 0, 0]),
            (valid(&[10, 10]), valid(&[1, 1]), [0, 2, 0]),
            ([valid(&[8, 5, 9]), bad(1)].concat(), bad(4), [0, 0, 1]),
        ];
        for (chosen, rejected, expected) in pairs {
            let outcome = par(&chosen, &rejected, &ParConfig::default());
            let mut counts = ZeroVarianceCounts::default();
            counts.add(&outcome.chosen);
            counts.add(&outcome.rejected);
            assert_eq!([counts.all_wrong, counts.one_grade, counts.all_format_failures], expected);
            assert_eq!(counts.total(), expected.iter().sum::<usize>());
            assert_eq!(counts.groups, 2);
        }
    }

    #[test]
    fn configuration_is_checked() {
        assert!(AdvantageConfig::default().validate().is_ok());
        assert!(AdvantageConfig { ddof: 2, ..AdvantageConfig::default() }.validate().is_err());
        assert!(AdvantageConfig { eps: -1.0, ..AdvantageConfig::default() }.validate().is_err());
    }

    proptest! {
        #[test]
        fn sums_to_zero_and_ignores_scale(rewards in prop::collection::vec(-2.0f64..2.0, 2..9)) {
            let config = AdvantageConfig { eps: 0.0, ..AdvantageConfig::default() };
            let mask = vec![true; rewards.len()];
            let group = group_advantages(&rewards, &mask, &config);
            prop_assert!(group.values.iter().sum::<f64>().abs() < 1e-6);
            let scaled: Vec<f64> = rewards.iter().map(|r| 3.0 * r + 5.0).collect();
            let other = group_advantages(&scaled, &mask, &config);
            for (a, b) in group.values.iter().zip(&other.values) {
                prop_assert!((a - b).abs() < 1e-6);
            }
        }
    }
}
