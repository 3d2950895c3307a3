//! Pair accuracy under every rule, its baselines and its length bias.
//!
//! An accuracy is never one number here: ties count 0 (strict) and one half, and
//! pairs with a format fault count as wrong (one half under half credit) and are
//! left out, all four beside each other.

use std::collections::{BTreeMap, HashMap};

use patarm_text::Preference;
use serde::{Deserialize, Serialize};

use crate::{
    distribution::correlation,
    interval::{Estimate, Interval, Resampling, cluster_bootstrap, wilson},
};

/// How one labelled pair came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The preferred response scored higher.
    Right,
    /// It scored lower.
    Wrong,
    /// Both scored the same.
    Tie,
    /// At least one side has no score.
    Fault,
}

impl Outcome {
    /// The outcome of two scores; `None` is a side without a usable score.
    /// A score that is not a number is a fault, never a tie.
    #[must_use]
    pub fn of_scores(chosen: Option<f64>, rejected: Option<f64>) -> Self {
        let (Some(chosen), Some(rejected)) = (chosen, rejected) else {
            return Self::Fault;
        };
        match chosen.partial_cmp(&rejected) {
            None => Self::Fault,
            Some(std::cmp::Ordering::Greater) => Self::Right,
            Some(std::cmp::Ordering::Less) => Self::Wrong,
            Some(std::cmp::Ordering::Equal) => Self::Tie,
        }
    }

    /// The outcome of preferring the first (right) or the second (wrong) of two.
    #[must_use]
    pub fn of_preference(preference: Preference) -> Self {
        match preference {
            Preference::First => Self::Right,
            Preference::Second => Self::Wrong,
            Preference::Tie => Self::Tie,
            Preference::Unknown => Self::Fault,
        }
    }

    /// Credit with ties and faults at 0.
    #[must_use]
    pub fn strict_credit(self) -> f64 {
        f64::from(u8::from(self == Self::Right))
    }

    /// Credit with ties and faults at one half.
    #[must_use]
    pub fn half_credit(self) -> f64 {
        match self {
            Self::Right => 1.0,
            Self::Wrong => 0.0,
            Self::Tie | Self::Fault => 0.5,
        }
    }
}

/// An outcome with the prompt it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusteredOutcome {
    /// Number of the prompt; pairs of one prompt are resampled together.
    pub cluster: usize,
    /// How the pair came out.
    pub outcome: Outcome,
}

/// Accuracy of a set of pairs under every rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// Number of pairs.
    pub num_pairs: usize,
    /// Number of different prompts.
    pub num_prompts: usize,
    /// Pairs whose preferred response scored higher.
    pub num_right: usize,
    /// Pairs whose preferred response scored lower.
    pub num_wrong: usize,
    /// Pairs with equal scores.
    pub num_ties: usize,
    /// Pairs with a side that has no score.
    pub num_faults: usize,
    /// Ties and faults count 0.
    pub strict: Estimate,
    /// Ties and faults count one half.
    pub half_credit: Estimate,
    /// Ties count 0, pairs with a fault are left out.
    pub strict_without_faults: Estimate,
    /// Ties count one half, pairs with a fault are left out.
    pub half_credit_without_faults: Estimate,
    /// Ties over all pairs.
    pub tie_share: Option<f64>,
    /// Pairs with a fault over all pairs.
    pub fault_share: Option<f64>,
}

/// Counts of one prompt or one resample, as the bootstrap adds them.
type Counts = [f64; 4];

const RIGHT: usize = 0;
const WRONG: usize = 1;
const TIE: usize = 2;
const FAULT: usize = 3;

/// Measures accuracy with intervals: Wilson's where every prompt has one pair and
/// the credit is 0 or 1, otherwise the bootstrap clustered by prompt. Where the
/// bootstrap has no spread (all pairs alike), Wilson's interval on the number of
/// prompts stands in, so that no figure looks more certain than its sample allows.
#[must_use]
pub fn accuracy(pairs: &[ClusteredOutcome], resampling: Resampling) -> Accuracy {
    let clusters = counts_by_cluster(pairs);
    let total = clusters.iter().fold([0.0; 4], add);
    let values = figures(&total);
    let bootstrapped = cluster_bootstrap(&clusters, resampling, figures);
    let num_pairs = pairs.len();
    let num_scored = num_pairs - total[FAULT] as usize;
    let single = clusters.len() == num_pairs;
    let estimate = |index: usize| {
        let n = if index < 2 { num_pairs } else { num_scored };
        let is_proportion = index.is_multiple_of(2);
        let units = n.min(clusters.len());
        let interval = values[index].map(|value| match bootstrapped[index] {
            Some(interval) if !(single && is_proportion) && interval.low < interval.high => {
                interval
            }
            _ => wilson(value * units as f64, units),
        });
        Estimate { value: values[index], interval, n }
    };
    let share = |count: f64| (num_pairs > 0).then(|| count / num_pairs as f64);
    Accuracy {
        num_pairs,
        num_prompts: clusters.len(),
        num_right: total[RIGHT] as usize,
        num_wrong: total[WRONG] as usize,
        num_ties: total[TIE] as usize,
        num_faults: total[FAULT] as usize,
        strict: estimate(0),
        half_credit: estimate(1),
        strict_without_faults: estimate(2),
        half_credit_without_faults: estimate(3),
        tie_share: share(total[TIE]),
        fault_share: share(total[FAULT]),
    }
}

/// Strict and half credit with faults counted, then both with faults left out.
fn figures(counts: &Counts) -> [Option<f64>; 4] {
    let [right, wrong, tie, fault] = *counts;
    let scored = right + wrong + tie;
    let ratio = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
    [
        ratio(right, scored + fault),
        ratio(right + (tie + fault) / 2.0, scored + fault),
        ratio(right, scored),
        ratio(right + tie / 2.0, scored),
    ]
}

fn counts_by_cluster(pairs: &[ClusteredOutcome]) -> Vec<Counts> {
    grouped(pairs.iter().map(|pair| {
        let mut counts = [0.0; 4];
        counts[match pair.outcome {
            Outcome::Right => RIGHT,
            Outcome::Wrong => WRONG,
            Outcome::Tie => TIE,
            Outcome::Fault => FAULT,
        }] = 1.0;
        (pair.cluster, counts)
    }))
}

/// Adds vectors by cluster; clusters stand in the order of their first member.
pub(crate) fn grouped<const K: usize>(
    members: impl Iterator<Item = (usize, [f64; K])>,
) -> Vec<[f64; K]> {
    let mut place: HashMap<usize, usize> = HashMap::new();
    let mut sums: Vec<[f64; K]> = Vec::new();
    for (cluster, values) in members {
        let index = *place.entry(cluster).or_insert_with(|| {
            sums.push([0.0; K]);
            sums.len() - 1
        });
        sums[index] = add(sums[index], &values);
    }
    sums
}

fn add<const K: usize>(mut sum: [f64; K], values: &[f64; K]) -> [f64; K] {
    for (total, value) in sum.iter_mut().zip(values) {
        *total += value;
    }
    sum
}

/// Accuracy by name of subset, in alphabetical order.
#[must_use]
pub fn accuracy_by_name<'a>(
    pairs: impl Iterator<Item = (&'a str, ClusteredOutcome)>,
    resampling: Resampling,
) -> BTreeMap<String, Accuracy> {
    let mut by_name: BTreeMap<&str, Vec<ClusteredOutcome>> = BTreeMap::new();
    for (name, pair) in pairs {
        by_name.entry(name).or_default().push(pair);
    }
    by_name
        .into_iter()
        .map(|(name, pairs)| (name.to_owned(), accuracy(&pairs, resampling)))
        .collect()
}

/// What a coin scores on `n` pairs: one half, and the range that holds 95 % of
/// coins (normal approximation of the binomial distribution).
#[must_use]
pub fn coin_baseline(n: usize) -> Estimate {
    let half = if n == 0 { 0.5 } else { (1.96 * (0.25 / n as f64).sqrt()).min(0.5) };
    let interval = Interval { low: 0.5 - half, high: 0.5 + half };
    Estimate { value: Some(0.5), interval: Some(interval), n }
}

/// One scored pair as the length statistics see it. Lengths are in characters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LengthPair {
    /// Score of the preferred response.
    pub chosen_score: Option<f64>,
    /// Score of the other response.
    pub rejected_score: Option<f64>,
    /// Length of the preferred response.
    pub chosen_length: usize,
    /// Length of the other response.
    pub rejected_length: usize,
    /// The pair's outcome and prompt.
    pub clustered: ClusteredOutcome,
}

/// How far a model follows length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthBias {
    /// Pearson's correlation of score and length over all scored responses.
    pub correlation: Option<f64>,
    /// Accuracy (ties and faults at one half) where the preferred response is longer.
    pub chosen_longer: Estimate,
    /// The same where it is shorter.
    pub chosen_shorter: Estimate,
}

/// Measures length bias.
#[must_use]
pub fn length_bias(pairs: &[LengthPair], resampling: Resampling) -> LengthBias {
    let points: Vec<(f64, f64)> = pairs
        .iter()
        .flat_map(|p| [(p.chosen_score, p.chosen_length), (p.rejected_score, p.rejected_length)])
        .filter_map(|(score, length)| Some((score?, length as f64)))
        .collect();
    let half_credit = |keep: fn(&LengthPair) -> bool| {
        let kept: Vec<_> = pairs.iter().filter(|p| keep(p)).map(|p| p.clustered).collect();
        accuracy(&kept, resampling).half_credit
    };
    LengthBias {
        correlation: correlation(&points),
        chosen_longer: half_credit(|p| p.chosen_length > p.rejected_length),
        chosen_shorter: half_credit(|p| p.chosen_length < p.rejected_length),
    }
}

/// The accuracy of preferring the longer response.
#[must_use]
pub fn longer_wins(pairs: &[LengthPair], resampling: Resampling) -> Accuracy {
    let outcomes: Vec<ClusteredOutcome> = pairs
        .iter()
        .map(|p| ClusteredOutcome {
            cluster: p.clustered.cluster,
            outcome: Outcome::of_scores(
                Some(p.chosen_length as f64),
                Some(p.rejected_length as f64),
            ),
        })
        .collect();
    accuracy(&outcomes, resampling)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RESAMPLING: Resampling = Resampling { resamples: 200, seed: 3 };

    fn independent(outcomes: &[Outcome]) -> Vec<ClusteredOutcome> {
        outcomes
            .iter()
            .enumerate()
            .map(|(cluster, &outcome)| ClusteredOutcome { cluster, outcome })
            .collect()
    }

    #[test]
    fn outcome_of_every_kind_of_score() {
        assert_eq!(Outcome::of_scores(Some(2.0), Some(1.0)), Outcome::Right);
        assert_eq!(Outcome::of_scores(Some(1.0), Some(2.0)), Outcome::Wrong);
        assert_eq!(Outcome::of_scores(Some(0.0), Some(-0.0)), Outcome::Tie);
        assert_eq!(Outcome::of_scores(None, Some(1.0)), Outcome::Fault);
        assert_eq!(Outcome::of_scores(Some(1.0), None), Outcome::Fault);
        assert_eq!(Outcome::of_scores(Some(f64::NAN), Some(1.0)), Outcome::Fault);
    }

    #[test]
    fn four_rules_on_one_set() {
        use Outcome::{Fault, Right, Tie, Wrong};
        let measured = accuracy(&independent(&[Right, Right, Wrong, Tie, Fault]), RESAMPLING);
        assert_eq!(measured.strict.value, Some(0.4));
        assert_eq!(measured.half_credit.value, Some(0.6));
        assert_eq!(measured.strict_without_faults.value, Some(0.5));
        assert_eq!(measured.half_credit_without_faults.value, Some(0.625));
        assert_eq!((measured.tie_share, measured.fault_share), (Some(0.2), Some(0.2)));
        assert_eq!((measured.strict.n, measured.strict_without_faults.n), (5, 4));
        assert_eq!(measured.strict.interval, Some(wilson(2.0, 5)));
    }

    #[test]
    fn degenerate_sets() {
        let empty = accuracy(&[], RESAMPLING);
        assert_eq!((empty.strict.value, empty.strict.interval), (None, None));
        assert_eq!(empty.tie_share, None);

        let tied = accuracy(&independent(&[Outcome::Tie; 8]), RESAMPLING);
        assert_eq!((tied.strict.value, tied.half_credit.value), (Some(0.0), Some(0.5)));
        assert_eq!(tied.half_credit.interval, Some(wilson(4.0, 8)));

        let failed = accuracy(&independent(&[Outcome::Fault; 8]), RESAMPLING);
        assert_eq!((failed.strict.value, failed.half_credit.value), (Some(0.0), Some(0.5)));
        assert_eq!(failed.strict_without_faults.value, None);
        assert_eq!(failed.strict_without_faults.n, 0);
    }

    #[test]
    fn certain_sets_keep_an_interval_of_their_prompts() {
        let pairs: Vec<_> =
            (0..40).map(|i| ClusteredOutcome { cluster: i / 4, outcome: Outcome::Right }).collect();
        let measured = accuracy(&pairs, RESAMPLING);
        assert_eq!(measured.num_prompts, 10);
        assert_eq!(measured.strict.interval, Some(wilson(10.0, 10)));
    }

    #[test]
    fn names_are_measured_apart() {
        let pairs = independent(&[Outcome::Right, Outcome::Wrong, Outcome::Right]);
        let named = ["b", "a", "b"].into_iter().zip(pairs);
        let measured = accuracy_by_name(named, RESAMPLING);
        assert_eq!(measured.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(measured["a"].strict.value, Some(0.0));
        assert_eq!(measured["b"].strict.value, Some(1.0));
    }

    #[test]
    fn a_length_judge_is_found_out() {
        let pairs: Vec<LengthPair> = (0..20usize)
            .map(|i| {
                let (chosen_length, rejected_length) = if i < 15 { (30, 10) } else { (10, 30) };
                let scores = (Some(chosen_length as f64), Some(rejected_length as f64));
                LengthPair {
                    chosen_score: scores.0,
                    rejected_score: scores.1,
                    chosen_length,
                    rejected_length,
                    clustered: ClusteredOutcome {
                        cluster: i,
                        outcome: Outcome::of_scores(scores.0, scores.1),
                    },
                }
            })
            .collect();
        let bias = length_bias(&pairs, RESAMPLING);
        assert_eq!(bias.correlation, Some(1.0));
        assert_eq!(bias.chosen_longer.value, Some(1.0));
        assert_eq!(bias.chosen_shorter.value, Some(0.0));
        assert_eq!(longer_wins(&pairs, RESAMPLING).strict.value, Some(0.75));
    }

    #[test]
    fn coin_baseline_narrows_with_pairs() {
        let interval = coin_baseline(100).interval.expect("always given");
        assert!((interval.low - 0.402).abs() < 1e-9);
        assert_eq!(coin_baseline(0).interval, Some(Interval { low: 0.0, high: 1.0 }));
    }

    fn outcomes() -> impl Strategy<Value = Vec<Outcome>> {
        let one = prop::sample::select(vec![
            Outcome::Right,
            Outcome::Wrong,
            Outcome::Tie,
            Outcome::Fault,
        ]);
        prop::collection::vec(one, 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn intervals_hold_their_figure(outcomes in outcomes()) {
            let measured = accuracy(&independent(&outcomes), RESAMPLING);
            prop_assert!(measured.strict.value <= measured.half_credit.value);
            for estimate in [measured.strict, measured.half_credit] {
                let (value, interval) = (estimate.value.unwrap(), estimate.interval.unwrap());
                prop_assert!(0.0 <= interval.low && interval.high <= 1.0);
                prop_assert!(interval.contains(value), "{value} {interval:?}");
            }
        }

        /// Exchanging the sides of every pair mirrors half-credit accuracy.
        #[test]
        fn swapped_labels_mirror(outcomes in outcomes()) {
            let swapped: Vec<Outcome> = outcomes.iter().map(|outcome| match outcome {
                Outcome::Right => Outcome::Wrong,
                Outcome::Wrong => Outcome::Right,
                &other => other,
            }).collect();
            let of = |o: &[Outcome]| accuracy(&independent(o), RESAMPLING).half_credit.value.unwrap();
            prop_assert!((of(&outcomes) + of(&swapped) - 1.0).abs() < 1e-12);
        }
    }
}
