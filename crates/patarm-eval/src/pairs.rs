//! The `pairs` benchmark: any file of comparisons, scored response by response.
//!
//! [`evaluate_pairs`] asks a model, [`pairs_from_rewards`] takes rewards that are
//! at hand (so that several readouts of one run cost one run), and
//! [`pairs_from_scores`] takes a file of scores or verdicts and needs no model.
//! All three end in the same [`PairsResult`].

mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use patarm_reward::model::{Evaluator, ItemFault, Measurement, Reward, RewardModel};
use patarm_text::{Comparison, Item, Preference};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    calibration::{Calibration, calibrate},
    distribution::{Bins, Histogram, Summary},
    interval::{Estimate, Resampling},
    metrics::{
        Accuracy, ClusteredOutcome, LengthBias, LengthPair, accuracy, accuracy_by_name,
        coin_baseline, length_bias, longer_wins,
    },
    scores::{OrderSummary, ScoreTable},
};

use record::labelled_pairs;
pub use record::{JudgementFaults, PairRecord, Readout};

/// Version of [`PairsResult`] and [`PairRecord`] as written.
pub const SCHEMA_VERSION: u32 = 1;

/// What a caller decides about an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairsOptions {
    /// Bootstrap resamples and their seed.
    pub resampling: Resampling,
    /// Which number of a reward is compared.
    pub readout: Readout,
    /// Whatever else should stand in the result: votes, temperature, seed of the
    /// judge, hashes of data and model.
    pub settings: BTreeMap<String, serde_json::Value>,
}

/// Comparisons that have no place in an accuracy, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// Labelled as ties.
    pub tie_labels: usize,
    /// Not labelled.
    pub unlabelled: usize,
}

/// Scores of the two sides and their difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreStatistics {
    /// Scores of preferred responses.
    pub chosen: Summary,
    /// Scores of the others.
    pub rejected: Summary,
    /// Chosen minus rejected, pairs with both.
    pub margin: Summary,
    /// Histogram of the preferred responses' scores.
    pub chosen_histogram: Histogram,
    /// Histogram of the others' scores, over the same bins.
    pub rejected_histogram: Histogram,
    /// Histogram of the margins.
    pub margin_histogram: Histogram,
}

/// What no model is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baselines {
    /// Preferring the longer response, in characters.
    pub longer_wins: Accuracy,
    /// A coin, with the range that holds 95 % of coins.
    pub random: Estimate,
}

/// The result of an evaluation on pairs; `result.json` of a result folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairsResult {
    /// Version of this structure; see [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Always `pairs`.
    pub benchmark: String,
    /// The model, as it names itself.
    pub model: String,
    /// The options in force.
    pub options: PairsOptions,
    /// Comparisons given.
    pub num_comparisons: usize,
    /// Comparisons left out, by reason.
    pub skipped: Skipped,
    /// Accuracy over all labelled pairs.
    pub accuracy: Accuracy,
    /// Accuracy by subset, for pairs that name one.
    pub subsets: BTreeMap<String, Accuracy>,
    /// Accuracy by task, for pairs that name one.
    pub tasks: BTreeMap<String, Accuracy>,
    /// Accuracy without a model.
    pub baselines: Baselines,
    /// Scores and margins; `None` when only verdicts are known.
    pub scores: Option<ScoreStatistics>,
    /// How far the model follows length.
    pub length_bias: LengthBias,
    /// Calibration of win probabilities, where margins allow it.
    pub calibration: Option<Calibration>,
    /// Format faults of single judgements, where judgements are known.
    pub judgements: Option<JudgementFaults>,
    /// Agreement over both orders, where verdicts were given.
    pub orders: Option<OrderSummary>,
    /// Rows of a scores file that belong to no comparison here.
    pub num_unused_rows: usize,
}

/// A result with the pairs behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// The figures.
    pub result: PairsResult,
    /// One record a labelled pair, in the order of the data.
    pub records: Vec<PairRecord>,
}

/// Scores both sides of every labelled comparison and measures the outcome.
///
/// # Errors
/// When the model answers with another number of rewards than it was given items,
/// or two comparisons share an id.
pub fn evaluate_pairs(
    model: &dyn RewardModel,
    comparisons: &[Comparison],
    options: &PairsOptions,
) -> Result<Evaluated> {
    let rewards = model.score(&pair_items(comparisons));
    pairs_from_rewards(&model.name(), comparisons, &rewards, options)
}

/// The items [`pairs_from_rewards`] wants rewards for: first and second of every
/// comparison that prefers one of them, in the order of the data.
#[must_use]
pub fn pair_items(comparisons: &[Comparison]) -> Vec<Item> {
    comparisons
        .iter()
        .filter(|c| c.chosen_rejected().is_some())
        .flat_map(|c| [c.first.clone(), c.second.clone()])
        .collect()
}

/// Measures rewards of the items of [`pair_items`].
///
/// # Errors
/// When the number of rewards is not that of the items, or two comparisons share an id.
pub fn pairs_from_rewards(
    model_name: &str,
    comparisons: &[Comparison],
    rewards: &[Result<Reward, ItemFault>],
    options: &PairsOptions,
) -> Result<Evaluated> {
    let pairs = labelled_pairs(comparisons)?;
    if rewards.len() != 2 * pairs.len() {
        return Err(Error::bad_input(format!(
            "model {model_name} gave {} rewards for {} responses; it must give one each",
            rewards.len(),
            2 * pairs.len()
        )));
    }
    let sides = rewards.chunks_exact(2);
    let records =
        pairs.iter().zip(sides).map(|(pair, sides)| pair.scored(sides, options.readout)).collect();
    let known = Known {
        model: model_name,
        judgements: JudgementFaults::of_rewards(rewards),
        orders: None,
        num_unused_rows: 0,
    };
    Ok(assemble((comparisons.len(), skipped(comparisons)), records, options, known))
}

/// Measures scores or verdicts computed elsewhere.
///
/// A labelled comparison without a row, or with a row for one side only, counts as
/// a fault.
///
/// # Errors
/// When two comparisons share an id.
pub fn pairs_from_scores(
    name: &str,
    comparisons: &[Comparison],
    table: &ScoreTable,
    options: &PairsOptions,
) -> Result<Evaluated> {
    let pairs = labelled_pairs(comparisons)?;
    let records: Vec<PairRecord> = pairs.iter().map(|pair| pair.looked_up(table)).collect();
    let ids: Vec<&str> = comparisons.iter().map(|c| c.id.as_str()).collect();
    let known = Known {
        model: name,
        judgements: None,
        orders: table.order_summary(&ids),
        num_unused_rows: table.num_rows_without(&ids),
    };
    Ok(assemble((comparisons.len(), skipped(comparisons)), records, options, known))
}

/// What is known beside the records.
pub(crate) struct Known<'a> {
    pub(crate) model: &'a str,
    pub(crate) judgements: Option<JudgementFaults>,
    pub(crate) orders: Option<OrderSummary>,
    pub(crate) num_unused_rows: usize,
}

/// The result of records out of so many comparisons.
pub(crate) fn assemble(
    (num_comparisons, skipped): (usize, Skipped),
    records: Vec<PairRecord>,
    options: &PairsOptions,
    known: Known<'_>,
) -> Evaluated {
    let resampling = options.resampling;
    let outcomes: Vec<ClusteredOutcome> = records.iter().map(PairRecord::clustered).collect();
    let lengths: Vec<LengthPair> = records.iter().map(PairRecord::length_pair).collect();
    let margins: Vec<(usize, f64)> =
        records.iter().filter_map(|r| Some((r.cluster, r.margin()?))).collect();
    let subset_of = |r: &PairRecord| r.subset.clone();
    let task_of = |r: &PairRecord| r.task.map(|task| task.name().to_owned());
    let result = PairsResult {
        schema_version: SCHEMA_VERSION,
        benchmark: "pairs".to_owned(),
        model: known.model.to_owned(),
        options: options.clone(),
        num_comparisons,
        skipped,
        accuracy: accuracy(&outcomes, resampling),
        subsets: by_name(&records, subset_of, resampling),
        tasks: by_name(&records, task_of, resampling),
        baselines: Baselines {
            longer_wins: longer_wins(&lengths, resampling),
            random: coin_baseline(records.len()),
        },
        scores: score_statistics(&records),
        length_bias: length_bias(&lengths, resampling),
        calibration: calibrate(&margins),
        judgements: known.judgements,
        orders: known.orders,
        num_unused_rows: known.num_unused_rows,
    };
    Evaluated { result, records }
}

fn skipped(comparisons: &[Comparison]) -> Skipped {
    let count = |label| comparisons.iter().filter(|c| c.label == label).count();
    Skipped { tie_labels: count(Preference::Tie), unlabelled: count(Preference::Unknown) }
}

fn by_name(
    records: &[PairRecord],
    name: impl Fn(&PairRecord) -> Option<String>,
    resampling: Resampling,
) -> BTreeMap<String, Accuracy> {
    let named: Vec<(String, ClusteredOutcome)> =
        records.iter().filter_map(|r| Some((name(r)?, r.clustered()))).collect();
    accuracy_by_name(named.iter().map(|(name, pair)| (name.as_str(), *pair)), resampling)
}

fn score_statistics(records: &[PairRecord]) -> Option<ScoreStatistics> {
    let chosen: Vec<f64> = records.iter().filter_map(|r| r.chosen_score).collect();
    let rejected: Vec<f64> = records.iter().filter_map(|r| r.rejected_score).collect();
    let margins: Vec<f64> = records.iter().filter_map(PairRecord::margin).collect();
    if chosen.is_empty() && rejected.is_empty() {
        return None;
    }
    let both: Vec<f64> = chosen.iter().chain(&rejected).copied().collect();
    let bins = Bins::fitting(&both);
    Some(ScoreStatistics {
        chosen: Summary::of(&chosen),
        rejected: Summary::of(&rejected),
        margin: Summary::of(&margins),
        chosen_histogram: Histogram::over(&chosen, bins),
        rejected_histogram: Histogram::over(&rejected, bins),
        margin_histogram: Histogram::over(&margins, Bins::fitting(&margins)),
    })
}

/// The evaluator a training loop is given: pair accuracy, ties and faults at one half.
#[derive(Clone, Debug)]
pub struct PairsEvaluator {
    comparisons: Vec<Comparison>,
    options: PairsOptions,
}

impl PairsEvaluator {
    /// An evaluator on these comparisons.
    ///
    /// # Errors
    /// When two comparisons share an id, or none prefers a side.
    pub fn new(comparisons: Vec<Comparison>, options: PairsOptions) -> Result<Self> {
        if labelled_pairs(&comparisons)?.is_empty() {
            return Err(Error::bad_input(
                "no comparison prefers a side; an evaluation needs at least one labelled pair",
            ));
        }
        Ok(Self { comparisons, options })
    }

    /// The full result, for callers that want more than one number.
    ///
    /// # Errors
    /// As [`evaluate_pairs`].
    pub fn evaluate_fully(&self, model: &dyn RewardModel) -> Result<Evaluated> {
        evaluate_pairs(model, &self.comparisons, &self.options)
    }
}

impl Evaluator for PairsEvaluator {
    /// NaN when the model does not answer with one reward an item.
    fn evaluate(&self, model: &dyn RewardModel) -> f64 {
        let evaluated = self.evaluate_fully(model);
        evaluated.ok().and_then(|e| e.result.accuracy.half_credit.value).unwrap_or(f64::NAN)
    }

    fn measure(&self, model: &dyn RewardModel) -> Measurement {
        let Ok(Evaluated { result, records }) = self.evaluate_fully(model) else {
            return Measurement { accuracy: f64::NAN, ..Measurement::default() };
        };
        let rewards: Vec<f64> =
            records.iter().flat_map(|r| [r.chosen_score, r.rejected_score]).flatten().collect();
        let all = Summary::of(&rewards);
        Measurement {
            accuracy: result.accuracy.half_credit.value.unwrap_or(f64::NAN),
            margin: result.scores.and_then(|scores| scores.margin.mean),
            expected_calibration_error: result.calibration.map(|c| c.expected_calibration_error),
            mean: all.mean,
            deviation: all.deviation,
        }
    }

    fn comparisons(&self) -> &[Comparison] {
        &self.comparisons
    }
}
