//! What rewards say of responses that are known to pass or to fail.
//!
//! The figures by which SoliReward (arXiv 2512.22170) tells a model that orders well
//! from one that can be exploited: how far rewards of passing responses lie apart, and
//! how large an advantage the best of a group gets from that.

use patarm_models::kernels::random;

/// Added to a group's deviation, outside the root, as group-relative policy
/// optimisation commonly does.
const EPS: f64 = 1e-6;
/// Stream of the draws of groups.
const GROUP_STREAM: u64 = 0x9a55;

/// How groups are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Number of groups.
    pub count: usize,
    /// Responses in each.
    pub size: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Groups {
    fn default() -> Self {
        Self { count: 256, size: 8, seed: 0 }
    }
}

/// Figures over the rewards of passing and failing responses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PassFail {
    /// Share of all pairs of a passing and a failing response in which the first has the
    /// higher reward, equal ones at one half: the area under the ROC curve.
    pub auc: f64,
    /// Best F1 over all thresholds, classes weighted by their size.
    pub best_weighted_f1: f64,
    /// Mean reward of passing responses.
    pub pass_mean: f64,
    /// Variance of it.
    pub pass_variance: f64,
    /// Mean reward of failing responses.
    pub fail_mean: f64,
    /// Variance of it.
    pub fail_variance: f64,
    /// Largest z-score of a group, mean over groups of passing responses and as many
    /// failing ones.
    pub top_advantage: f64,
    /// Deviation of the z-scores of the passing responses of a group, mean over groups.
    pub pass_advantage_spread: f64,
}

impl PassFail {
    /// Measures rewards; `None` unless there are two of each kind, all finite.
    #[must_use]
    pub fn of(passes: &[f64], fails: &[f64], groups: Groups) -> Option<Self> {
        let is_finite = passes.iter().chain(fails).all(|value| value.is_finite());
        if passes.len() < 2 || fails.len() < 2 || !is_finite {
            return None;
        }
        let (pass_mean, pass_variance) = moments(passes);
        let (fail_mean, fail_variance) = moments(fails);
        let (top_advantage, pass_advantage_spread) = advantages(passes, fails, groups);
        Some(Self {
            auc: auc(passes, fails),
            best_weighted_f1: best_weighted_f1(passes, fails),
            pass_mean,
            pass_variance,
            fail_mean,
            fail_variance,
            top_advantage,
            pass_advantage_spread,
        })
    }

    /// Names and values, for metrics.
    #[must_use]
    pub fn figures(&self) -> [(&'static str, f64); 8] {
        [
            ("pass_fail_auc", self.auc),
            ("best_weighted_f1", self.best_weighted_f1),
            ("pass_mean", self.pass_mean),
            ("pass_variance", self.pass_variance),
            ("fail_mean", self.fail_mean),
            ("fail_variance", self.fail_variance),
            ("group_top_advantage", self.top_advantage),
            ("group_pass_advantage_spread", self.pass_advantage_spread),
        ]
    }
}

/// Area under the ROC curve by ranks (Mann and Whitney 1947), equal rewards at their
/// mean rank.
#[must_use]
pub fn auc(passes: &[f64], fails: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = passes.iter().map(|reward| (*reward, true)).collect();
    all.extend(fails.iter().map(|reward| (*reward, false)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut rank_sum, mut below) = (0.0, 0);
    for equal in all.chunk_by(|a, b| a.0 == b.0) {
        let mean_rank = below as f64 + (equal.len() as f64 + 1.0) / 2.0;
        rank_sum += mean_rank * equal.iter().filter(|(_, passes)| *passes).count() as f64;
        below += equal.len();
    }
    let (p, f) = (passes.len() as f64, fails.len() as f64);
    (rank_sum - p * (p + 1.0) / 2.0) / (p * f)
}

/// Best class-weighted F1 when everything from a threshold up is said to pass.
fn best_weighted_f1(passes: &[f64], fails: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = passes.iter().map(|reward| (*reward, true)).collect();
    all.extend(fails.iter().map(|reward| (*reward, false)));
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (p, f) = (passes.len() as f64, fails.len() as f64);
    let f1 = |right: f64, said: f64, are: f64| 2.0 * right / (said + are);
    let weighted = |true_pass: f64, false_pass: f64| {
        let of_passes = f1(true_pass, true_pass + false_pass, p);
        let of_fails = f1(f - false_pass, f - false_pass + p - true_pass, f);
        (p * of_passes + f * of_fails) / (p + f)
    };
    let (mut true_pass, mut false_pass) = (0.0, 0.0);
    let mut best = weighted(0.0, 0.0);
    for equal in all.chunk_by(|a, b| a.0 == b.0) {
        let right = equal.iter().filter(|(_, passes)| *passes).count() as f64;
        true_pass += right;
        false_pass += equal.len() as f64 - right;
        best = f64::max(best, weighted(true_pass, false_pass));
    }
    best
}

/// Mean largest z-score of groups that are half passing, and mean deviation of the
/// z-scores of their passing members.
fn advantages(passes: &[f64], fails: &[f64], groups: Groups) -> (f64, f64) {
    let half = (groups.size / 2).max(2);
    let (mut top, mut spread) = (0.0, 0.0);
    for group in 0..groups.count {
        let draw = |from: &[f64], side: u64, n: usize| {
            let place = [GROUP_STREAM, group as u64, side, n as u64];
            from[random::below(from.len(), groups.seed, &place)]
        };
        let mut rewards: Vec<f64> = (0..half).map(|n| draw(passes, 0, n)).collect();
        rewards.extend((0..half).map(|n| draw(fails, 1, n)));
        let (mean, variance) = moments(&rewards);
        let scores: Vec<f64> =
            rewards.iter().map(|reward| (reward - mean) / (variance.sqrt() + EPS)).collect();
        top += scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        spread += moments(&scores[..half]).1.sqrt();
    }
    let count = groups.count.max(1) as f64;
    (top / count, spread / count)
}

/// Mean and variance (over n − 1).
fn moments(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, squares / (values.len().max(2) - 1) as f64)
}

#[cfg(test)]
mod tests;
