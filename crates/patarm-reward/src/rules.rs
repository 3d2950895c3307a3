//! Rule rewards of verdicts: what a comparison judge earns, and how its verdicts
//! become advantages of the compared responses.

use patarm_text::Preference;

use crate::error::{Error, ErrorKind, Result};

/// 1 for the right verdict, else 0; a verdict that could not be parsed is wrong.
///
/// A tie is right only where the label is a tie. Used for pairwise judges (ToolRM,
/// Think-RM binary, PaTaRM's pairwise mode).
#[must_use]
pub fn correctness(verdict: Option<Preference>, label: Preference) -> f64 {
    let right = label != Preference::Unknown && verdict == Some(label);
    if right { 1.0 } else { 0.0 }
}

/// +1 for the right verdict, else −1. Source: RM-R1.
#[must_use]
pub fn signed_correctness(verdict: Option<Preference>, label: Preference) -> f64 {
    2.0 * correctness(verdict, label) - 1.0
}

/// The table of the six-level scale: 1 for the exact level, ½ for the right sign,
/// else 0. Levels are ±1, ±2, ±3, negative when the first response is better; any
/// other number earns 0. Source: Think-RM.
#[must_use]
pub fn graded_sign(verdict: Option<i32>, label: i32) -> f64 {
    let is_level = |level: i32| (1..=3).contains(&level.unsigned_abs());
    match verdict {
        Some(level) if !is_level(level) || !is_level(label) => 0.0,
        Some(level) if level == label => 1.0,
        Some(level) if level.signum() == label.signum() => 0.5,
        _ => 0.0,
    }
}

/// Pairwise differences within one group of responses: d(i, j) stands for
/// r(i) − r(j), so that d(j, i) = −d(i, j). Source: Think-RM.
#[derive(Clone, Debug, PartialEq)]
pub struct SkewSymmetricGroup {
    size: usize,
    /// Row-major `size` × `size`.
    differences: Vec<f64>,
}

impl SkewSymmetricGroup {
    /// The matrix of a group of `size` responses from the signed verdicts of its
    /// unordered pairs (0,1), (0,2), …, (1,2), …: positive when the *second* response of
    /// the pair is better; `None` (not parsed) counts as no difference.
    ///
    /// # Errors
    /// When there is not one verdict a pair, or a verdict is not finite.
    pub fn from_verdicts(size: usize, verdicts: &[Option<f64>]) -> Result<Self> {
        let pairs = size.checked_mul(size.saturating_sub(1)).map(|twice| twice / 2);
        if pairs != Some(verdicts.len()) {
            let message = format!("{} verdicts for a group of {size} responses", verdicts.len());
            return Err(Error::new(ErrorKind::Input, message));
        }
        if verdicts.iter().flatten().any(|verdict| !verdict.is_finite()) {
            return Err(Error::new(ErrorKind::Input, "a verdict is not a finite number"));
        }
        let mut differences = vec![0.0; size * size];
        let mut next = verdicts.iter();
        for i in 0..size {
            for j in i + 1..size {
                let verdict = next.next().copied().flatten().unwrap_or(0.0);
                differences[i * size + j] = -verdict;
                differences[j * size + i] = verdict;
            }
        }
        Ok(Self { size, differences })
    }

    /// d(i, j).
    ///
    /// # Panics
    /// When an index is not below the group size.
    #[must_use]
    pub fn difference(&self, i: usize, j: usize) -> f64 {
        assert!(i < self.size && j < self.size, "({i}, {j}) in a group of {}", self.size);
        self.differences[i * self.size + j]
    }

    /// A(i) = (1/G) Σ_j d(i, j) / sqrt(Σ d² / (2 G (G − 1)) + eps).
    ///
    /// When d(i, j) = r(i) − r(j) this is the group z-score with ddof = 1. A group
    /// without differences, or of fewer than two responses, gets zeros.
    #[must_use]
    pub fn advantages(&self, eps: f64) -> Vec<f64> {
        let size = self.size as f64;
        let squares: f64 = self.differences.iter().map(|d| d * d).sum();
        if self.size < 2 || squares == 0.0 {
            return vec![0.0; self.size];
        }
        let deviation = (squares / (2.0 * size * (size - 1.0)) + eps).sqrt();
        self.differences
            .chunks_exact(self.size)
            .map(|row| row.iter().sum::<f64>() / size / deviation)
            .collect()
    }
}

/// The confidence-weighted difference of a binary verdict: ±1 over the length of the
/// reasoning in characters, so that a long deliberation counts as low confidence.
/// Positive when the second response is better. Source: Think-RM.
#[must_use]
pub fn length_weighted_verdict(verdict: Preference, reasoning_chars: usize) -> f64 {
    let sign = match verdict {
        Preference::First => -1.0,
        Preference::Second => 1.0,
        Preference::Tie | Preference::Unknown => 0.0,
    };
    sign / reasoning_chars.max(1) as f64
}

/// Every score minus the mean of the others; 0 for a group of one. Source: RLOO (Ahmadian
/// et al., 2024, arXiv 2402.14740).
#[must_use]
pub fn leave_one_out(scores: &[f64]) -> Vec<f64> {
    let sum: f64 = scores.iter().sum();
    let others = scores.len().saturating_sub(1);
    let advantage = |score: &f64| match others {
        0 => 0.0,
        _ => score - (sum - score) / others as f64,
    };
    scores.iter().map(advantage).collect()
}

/// The share of the other scores that every score beats, a tie counting half; ½ for a
/// group of one. Depends on the order of the scores alone, so that a drifting scale
/// changes nothing.
#[must_use]
pub fn win_rates(scores: &[f64]) -> Vec<f64> {
    let others = scores.len().saturating_sub(1);
    let rate = |score: &f64| {
        let below = scores.iter().filter(|other| *other < score).count() as f64;
        let equal = scores.iter().filter(|other| *other == score).count() as f64;
        // A score is equal to itself.
        (below + (equal - 1.0) / 2.0) / others as f64
    };
    match others {
        0 => vec![0.5; scores.len()],
        _ => scores.iter().map(rate).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::advantage::{AdvantageConfig, group_advantages};

    #[test]
    fn correctness_table() {
        use Preference::{First, Second, Tie, Unknown};
        for (verdict, label, expected) in [
            (Some(First), First, 1.0),
            (Some(Second), First, 0.0),
            (Some(Tie), First, 0.0),
            (Some(Tie), Tie, 1.0),
            (None, First, 0.0),
            (Some(Unknown), Unknown, 0.0),
        ] {
            assert_eq!(correctness(verdict, label), expected, "{verdict:?}, {label:?}");
            assert_eq!(signed_correctness(verdict, label), 2.0 * expected - 1.0);
        }
    }

    #[test]
    fn graded_sign_table_of_36() {
        let levels = [-3, -2, -1, 1, 2, 3];
        let total: f64 =
            levels.iter().flat_map(|&v| levels.iter().map(move |&l| graded_sign(Some(v), l))).sum();
        assert_eq!(total, 6.0 + 0.5 * 12.0);
        assert_eq!(graded_sign(Some(2), 2), 1.0);
        assert_eq!(graded_sign(Some(-1), -3), 0.5);
        assert_eq!(graded_sign(Some(1), -1), 0.0);
        for invalid in [None, Some(0), Some(4), Some(i32::MIN)] {
            assert_eq!(graded_sign(invalid, 3), 0.0);
        }
        assert_eq!(graded_sign(Some(0), 0), 0.0);
    }

    fn close(actual: &[f64], expected: &[f64]) {
        assert_eq!(actual.len(), expected.len());
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() < 5e-5, "{actual:?} against {expected:?}");
        }
    }

    #[test]
    fn transitive_group_of_four() {
        let group = SkewSymmetricGroup::from_verdicts(4, &[Some(-1.0); 6]).unwrap();
        close(&group.advantages(0.0), &[1.0607, 0.3536, -0.3536, -1.0607]);
        assert_eq!(group.difference(0, 3), 1.0);
        assert_eq!(group.difference(3, 0), -1.0);
    }

    #[test]
    fn cycles_pairs_and_trivial_groups() {
        let cycle =
            SkewSymmetricGroup::from_verdicts(3, &[Some(-1.0), Some(1.0), Some(-1.0)]).unwrap();
        close(&cycle.advantages(0.0), &[0.0; 3]);
        let pair = SkewSymmetricGroup::from_verdicts(2, &[Some(1.0)]).unwrap();
        close(&pair.advantages(0.0), &[-f64::sqrt(0.5), f64::sqrt(0.5)]);
        let unparsed = SkewSymmetricGroup::from_verdicts(2, &[None]).unwrap();
        assert_eq!(unparsed.advantages(0.0), [0.0; 2]);
        let one = SkewSymmetricGroup::from_verdicts(1, &[]).unwrap();
        assert_eq!(one.advantages(1e-6), [0.0]);
        assert!(SkewSymmetricGroup::from_verdicts(0, &[]).unwrap().advantages(0.0).is_empty());
        assert!(SkewSymmetricGroup::from_verdicts(3, &[None]).is_err());
        assert!(SkewSymmetricGroup::from_verdicts(2, &[Some(f64::NAN)]).is_err());
        assert!(SkewSymmetricGroup::from_verdicts(usize::MAX, &[]).is_err());
    }

    #[test]
    fn long_reasoning_counts_less() {
        assert_eq!(length_weighted_verdict(Preference::Second, 4), 0.25);
        assert_eq!(length_weighted_verdict(Preference::First, 0), -1.0);
        assert_eq!(length_weighted_verdict(Preference::Tie, 7), 0.0);
    }

    #[test]
    fn scores_against_the_rest_of_their_group() {
        assert_eq!(leave_one_out(&[2.0, 4.0, 9.0]), [-4.5, -1.5, 6.0]);
        assert_eq!(leave_one_out(&[3.0]), [0.0]);
        assert_eq!(win_rates(&[2.0, 9.0, 4.0]), [0.0, 1.0, 0.5]);
        assert_eq!(win_rates(&[1.0, 1.0, 5.0]), [0.25, 0.25, 1.0]);
        assert_eq!(win_rates(&[7.0]), [0.5]);
        assert!(leave_one_out(&[]).is_empty() && win_rates(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn win_rates_average_one_half_and_see_only_order(
            scores in prop::collection::vec(-5i8..5, 1..9),
        ) {
            let points: Vec<f64> = scores.iter().map(|&s| f64::from(s)).collect();
            let rates = win_rates(&points);
            let mean = rates.iter().sum::<f64>() / rates.len() as f64;
            prop_assert!((mean - 0.5).abs() < 1e-12);
            let stretched: Vec<f64> = points.iter().map(|s| s.exp()).collect();
            prop_assert_eq!(rates, win_rates(&stretched));
        }

        #[test]
        fn leave_one_out_is_the_centred_score_stretched(
            scores in prop::collection::vec(-5.0f64..5.0, 2..9),
        ) {
            let n = scores.len() as f64;
            let mean = scores.iter().sum::<f64>() / n;
            for (score, advantage) in scores.iter().zip(leave_one_out(&scores)) {
                prop_assert!((advantage - (score - mean) * n / (n - 1.0)).abs() < 1e-9);
            }
        }

        #[test]
        fn differences_of_scalars_give_the_z_score(r in prop::collection::vec(-3.0f64..3.0, 2..7)) {
            let n = r.len();
            let verdicts: Vec<_> =
                (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).map(|(i, j)| Some(r[j] - r[i])).collect();
            let group = SkewSymmetricGroup::from_verdicts(n, &verdicts).unwrap();
            let config = AdvantageConfig { eps: 0.0, ..AdvantageConfig::default() };
            let z = group_advantages(&r, &vec![true; n], &config);
            for (a, b) in group.advantages(0.0).iter().zip(&z.values) {
                prop_assert!((a - b).abs() < 1e-6);
            }
        }

        #[test]
        fn advantages_sum_to_zero_and_ignore_scale(
            v in prop::collection::vec(prop::option::of(-3.0f64..3.0), 6),
        ) {
            let group = SkewSymmetricGroup::from_verdicts(4, &v).unwrap();
            let a = group.advantages(0.0);
            prop_assert!(a.iter().sum::<f64>().abs() < 1e-9);
            let scaled: Vec<_> = v.iter().map(|v| v.map(|v| -2.0 * v)).collect();
            let b = SkewSymmetricGroup::from_verdicts(4, &scaled).unwrap().advantages(0.0);
            for (x, y) in a.iter().zip(&b) {
                prop_assert!((x + y).abs() < 1e-9);
            }
        }
    }
}
