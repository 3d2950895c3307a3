//! The figures of an evaluation and its records, as they stand in files.

use std::collections::BTreeMap;

use patarm_reward::judgement::Judgement;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::output::OfficialFile;
use crate::{calibration::Calibration, interval::Estimate, metrics::Outcome};

/// Version of [`Summary`] and [`ItemRecord`] as written.
pub const SCHEMA_VERSION: u32 = 1;

/// A figure with its 95 % interval; `null` where there is nothing to measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// The figure.
    pub value: Option<f64>,
    /// Lower and upper end of its interval.
    pub ci95: Option<[f64; 2]>,
    /// Number of items, pairs or steps it is measured on.
    pub n: usize,
}

impl From<Estimate> for Metric {
    fn from(estimate: Estimate) -> Self {
        let ci95 = estimate.interval.map(|interval| [interval.low, interval.high]);
        Self { value: estimate.value, ci95, n: estimate.n }
    }
}

/// Figures by name.
pub type Metrics = BTreeMap<String, Metric>;

/// The result of an evaluation; `summary.json` of a result folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Version of this structure; see [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name of the benchmark.
    pub benchmark: String,
    /// The model, as it names itself, or the file of answers.
    pub model: String,
    /// Seed and resolved configuration.
    pub settings: BTreeMap<String, Value>,
    /// Figures by name; the names are documented for each benchmark.
    pub metrics: Metrics,
    /// What was counted: items, rows, faults by kind.
    pub counts: BTreeMap<String, u64>,
    /// The first problems behind those counts, with file and line or item.
    pub problems: Vec<String>,
    /// Parts of the benchmark that are not there, or not whole.
    pub missing: Vec<String>,
    /// The same figures for judges that need no model: `longer_wins`, `random`, and
    /// `base` where base scores were given.
    pub baselines: BTreeMap<String, Metrics>,
    /// Calibration of win probabilities, where margins allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Structured results that are no single figure: histograms, matrices.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, Value>,
}

/// One item of an evaluation; a line of `items.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemRecord {
    /// The item's id.
    pub id: String,
    /// Part of the benchmark, where there are parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// Items with the same number share a prompt and are resampled together.
    pub cluster: usize,
    /// How the item came out as a whole.
    pub outcome: Outcome,
    /// Credit between 0 and 1 with ties and faults at 0.
    pub strict: f64,
    /// Credit between 0 and 1 with ties and faults at one half (or at chance).
    pub half_credit: f64,
    /// Lengths of the responses or steps in characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lengths: Vec<usize>,
    /// Scores of the responses or steps; `null` where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<Option<f64>>,
    /// Verdicts on pairs of responses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<VerdictRecord>,
    /// Indices of the responses that the data calls better.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub right: Vec<usize>,
    /// What went wrong, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// Whatever else the benchmark records.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, Value>,
}

/// A verdict on two responses as they were shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictRecord {
    /// Index of the response shown first.
    pub first: usize,
    /// Index of the response shown second.
    pub second: usize,
    /// `first`, `second` or `tie`; `null` where it could not be read.
    pub verdict: Option<String>,
}

/// What a judge wrote of one response or pair; a line of `judgements.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgementRecord {
    /// The item's id.
    pub item: String,
    /// Index of the response; of the one shown first for a pair.
    pub response: usize,
    /// Index of the response shown second, for a pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<usize>,
    /// The text.
    pub text: String,
    /// The score, for a single response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// The expected score, for a single response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_score: Option<f64>,
    /// The kind of format fault, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

impl JudgementRecord {
    /// The record of a judgement of a single response.
    #[must_use]
    pub fn of(item: &str, response: usize, judgement: &Judgement) -> Self {
        Self {
            item: item.to_owned(),
            response,
            second: None,
            text: judgement.text.clone(),
            score: judgement.score.ok(),
            expected_score: judgement.expected_score,
            fault: judgement.score.err().map(|fault| fault.name().to_owned()),
        }
    }
}

/// Everything an evaluation leaves behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The figures.
    pub summary: Summary,
    /// One record an item, in the order of the data.
    pub items: Vec<ItemRecord>,
    /// What the judge wrote, where it wrote.
    pub judgements: Vec<JudgementRecord>,
    /// The benchmark's own files.
    pub files: Vec<OfficialFile>,
}
