//! Two results on the same pairs: difference, interval, exact test, by subset.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    benchmark::ItemRecord,
    interval::{Estimate, Resampling, cluster_bootstrap},
    metrics::{Outcome, grouped},
    pairs::{Evaluated, PairRecord},
    significance::{holm, mcnemar_exact},
};

/// Version of [`ComparisonResult`] as written.
pub const SCHEMA_VERSION: u32 = 1;

/// The second result against the first, on the pairs both have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComparisonResult {
    /// Version of this structure; see [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Model of the first result.
    pub first_model: String,
    /// Model of the second result.
    pub second_model: String,
    /// How intervals were made.
    pub resampling: Resampling,
    /// Pairs only the first result has.
    pub num_only_in_first: usize,
    /// Pairs only the second result has.
    pub num_only_in_second: usize,
    /// Over all common pairs.
    pub overall: Difference,
    /// By subset, for pairs that name one.
    pub subsets: BTreeMap<String, SubsetDifference>,
}

/// The difference of two models on the same pairs, second minus first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Number of pairs.
    pub num_pairs: usize,
    /// Strict accuracy of the first.
    pub first_strict: Option<f64>,
    /// Strict accuracy of the second.
    pub second_strict: Option<f64>,
    /// Difference of strict accuracies, interval clustered by prompt.
    pub strict: Estimate,
    /// Half-credit accuracy of the first.
    pub first_half_credit: Option<f64>,
    /// Half-credit accuracy of the second.
    pub second_half_credit: Option<f64>,
    /// Difference of half-credit accuracies, interval clustered by prompt.
    pub half_credit: Estimate,
    /// Pairs the first alone has strictly right.
    pub num_only_first_right: usize,
    /// Pairs the second alone has strictly right.
    pub num_only_second_right: usize,
    /// McNemar's exact two-sided p-value on those two counts.
    pub mcnemar_p: f64,
}

/// A subset's difference, corrected for the number of subsets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubsetDifference {
    /// The difference.
    pub difference: Difference,
    /// McNemar's p-value after Holm's correction over all subsets.
    pub holm_p: f64,
}

/// An item as one of the results saw it.
#[derive(Clone, Copy)]
struct Side {
    strict: f64,
    half_credit: f64,
    is_right: bool,
}

/// An item as both results saw it.
struct Common<'a> {
    cluster: usize,
    subset: Option<&'a str>,
    first: Side,
    second: Side,
}

impl Side {
    fn of_pair(outcome: Outcome) -> Self {
        Self {
            strict: outcome.strict_credit(),
            half_credit: outcome.half_credit(),
            is_right: outcome == Outcome::Right,
        }
    }

    fn of_item(item: &ItemRecord) -> Self {
        let ItemRecord { strict, half_credit, outcome, .. } = item;
        Self { strict: *strict, half_credit: *half_credit, is_right: *outcome == Outcome::Right }
    }
}

/// Sets `second` against `first` on the pairs both have.
///
/// # Errors
/// When they have no pair in common, or a common id stands for different pairs
/// (another label or other lengths).
pub fn compare(
    first: &Evaluated,
    second: &Evaluated,
    resampling: Resampling,
) -> Result<ComparisonResult> {
    let identity = |r: &PairRecord| (r.chosen_index, r.chosen_length, r.rejected_length);
    let joined = joined(&first.records, &second.records, |r| &r.id, identity)?;
    let pairs: Vec<Common<'_>> = joined
        .iter()
        .map(|(one, other)| Common {
            cluster: one.cluster,
            subset: one.subset.as_deref(),
            first: Side::of_pair(one.outcome),
            second: Side::of_pair(other.outcome),
        })
        .collect();
    let models = [first.result.model.as_str(), second.result.model.as_str()];
    let counts = [first.records.len(), second.records.len()];
    Ok(compared(&pairs, models, counts, resampling))
}

/// Sets the items of the second model against those of the first, on the items both
/// have: strict and half credit of an item, whatever a benchmark makes of them, and
/// McNemar's test on whether its outcome is right.
///
/// # Errors
/// As [`compare`].
pub fn compare_items(
    (first_model, first): (&str, &[ItemRecord]),
    (second_model, second): (&str, &[ItemRecord]),
    resampling: Resampling,
) -> Result<ComparisonResult> {
    let identity = |item: &ItemRecord| (item.right.clone(), item.lengths.clone());
    let joined = joined(first, second, |item| &item.id, identity)?;
    let pairs: Vec<Common<'_>> = joined
        .iter()
        .map(|(one, other)| Common {
            cluster: one.cluster,
            subset: one.subset.as_deref(),
            first: Side::of_item(one),
            second: Side::of_item(other),
        })
        .collect();
    let counts = [first.len(), second.len()];
    Ok(compared(&pairs, [first_model, second_model], counts, resampling))
}

/// Records of both results with the same id, in the order of the first.
fn joined<'a, T, I: PartialEq>(
    first: &'a [T],
    second: &'a [T],
    id: impl Fn(&T) -> &str,
    identity: impl Fn(&T) -> I,
) -> Result<Vec<(&'a T, &'a T)>> {
    let by_id: HashMap<&str, &T> = second.iter().map(|record| (id(record), record)).collect();
    let mut pairs = Vec::new();
    for record in first {
        let Some(other) = by_id.get(id(record)) else {
            continue;
        };
        if identity(record) != identity(other) {
            return Err(Error::bad_input(format!(
                "item {:?} differs between the results; evaluate both on the same data",
                id(record)
            )));
        }
        pairs.push((record, *other));
    }
    if pairs.is_empty() {
        return Err(Error::bad_input(
            "the results have no item in common; evaluate both on the same data",
        ));
    }
    Ok(pairs)
}

fn compared(
    pairs: &[Common<'_>],
    [first_model, second_model]: [&str; 2],
    [num_first, num_second]: [usize; 2],
    resampling: Resampling,
) -> ComparisonResult {
    let mut by_subset: BTreeMap<&str, Vec<&Common<'_>>> = BTreeMap::new();
    for pair in pairs {
        if let Some(name) = pair.subset {
            by_subset.entry(name).or_default().push(pair);
        }
    }
    let differences: Vec<Difference> =
        by_subset.values().map(|pairs| difference(pairs, resampling)).collect();
    let p_values: Vec<f64> = differences.iter().map(|d| d.mcnemar_p).collect();
    let subsets = by_subset
        .keys()
        .zip(differences.into_iter().zip(holm(&p_values)))
        .map(|(name, (difference, holm_p))| {
            ((*name).to_owned(), SubsetDifference { difference, holm_p })
        })
        .collect();
    ComparisonResult {
        schema_version: SCHEMA_VERSION,
        first_model: first_model.to_owned(),
        second_model: second_model.to_owned(),
        resampling,
        num_only_in_first: num_first - pairs.len(),
        num_only_in_second: num_second.saturating_sub(pairs.len()),
        overall: difference(&pairs.iter().collect::<Vec<_>>(), resampling),
        subsets,
    }
}

fn difference(pairs: &[&Common<'_>], resampling: Resampling) -> Difference {
    let credits = |pair: &Common<'_>| {
        let Common { first, second, .. } = pair;
        [first.strict, second.strict, first.half_credit, second.half_credit, 1.0]
    };
    let clusters = grouped(pairs.iter().map(|pair| (pair.cluster, credits(pair))));
    let total = pairs.iter().fold([0.0; 5], |mut sum, pair| {
        sum.iter_mut().zip(credits(pair)).for_each(|(s, c)| *s += c);
        sum
    });
    let differences = |sums: &[f64; 5]| {
        let mean = |part: f64| (sums[4] > 0.0).then(|| part / sums[4]);
        [mean(sums[1] - sums[0]), mean(sums[3] - sums[2])]
    };
    let values = differences(&total);
    let intervals = cluster_bootstrap(&clusters, resampling, differences);
    let estimate = |i: usize| Estimate { value: values[i], interval: intervals[i], n: pairs.len() };
    let mean = |part: f64| (total[4] > 0.0).then(|| part / total[4]);
    let count = |first: bool, second: bool| {
        pairs.iter().filter(|p| p.first.is_right == first && p.second.is_right == second).count()
    };
    let (only_first, only_second) = (count(true, false), count(false, true));
    Difference {
        num_pairs: pairs.len(),
        first_strict: mean(total[0]),
        second_strict: mean(total[1]),
        strict: estimate(0),
        first_half_credit: mean(total[2]),
        second_half_credit: mean(total[3]),
        half_credit: estimate(1),
        num_only_first_right: only_first,
        num_only_second_right: only_second,
        mcnemar_p: mcnemar_exact(only_first, only_second),
    }
}
