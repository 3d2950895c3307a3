//! What is worth logging about a judgement and never rewarded.
//!
//! How weights and criterion scores combine in the published method is unknown, so
//! these are observations, not conditions.

use serde::{Deserialize, Serialize};

use super::rubric_lines::without_marker;
use super::scale::{ScoreKind, ScoreScale};
use crate::rubric::Rubric;

/// At most this many unknown tag names are kept.
const MAX_OTHER_TAGS: usize = 16;
/// A tag name longer than this is no tag.
const MAX_TAG_NAME: usize = 32;
/// Weights may miss 100 by this much, in per cent.
const WEIGHT_TOLERANCE: f64 = 0.5;
/// The weighted mean may miss the score by this much, in points: rounding.
const MEAN_TOLERANCE: f64 = 0.5;

/// Observations about one judgement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Diagnostics {
    /// Lines of the criteria section that state no criterion.
    pub unparsed_lines: usize,
    /// Sum of the stated weights, in per cent; `None` unless every criterion has one.
    pub weight_sum: Option<f64>,
    /// Whether the weights sum to 100.
    pub weights_sum_to_100: Option<bool>,
    /// Weighted mean of the criterion scores found in the evaluation; `None` unless
    /// every criterion has a weight and a score.
    pub weighted_mean: Option<f64>,
    /// Whether that mean rounds to the score.
    pub weighted_mean_is_score: Option<bool>,
    /// Names of tags outside the grammar, in order of appearance, each once.
    pub other_tags: Vec<String>,
}

/// What the observations are made from.
pub(super) struct Observed<'a> {
    pub(super) rubric: &'a Rubric,
    pub(super) unparsed_lines: usize,
    pub(super) evaluation: &'a str,
    pub(super) score: Option<f64>,
    pub(super) scale: &'a ScoreScale,
    pub(super) body: &'a str,
    pub(super) known_tags: &'a [&'a str],
}

impl Diagnostics {
    pub(super) fn new(observed: &Observed<'_>) -> Self {
        let criteria = &observed.rubric.criteria;
        let weights: Option<Vec<f64>> = criteria.iter().map(|c| c.weight).collect();
        let weight_sum =
            weights.filter(|weights| !weights.is_empty()).map(|w| w.iter().sum::<f64>());
        let weighted_mean = weight_sum.and_then(|sum| weighted_mean(observed, sum));
        let is_score = |mean: f64| Some((mean - observed.score?).abs() <= MEAN_TOLERANCE);
        Self {
            unparsed_lines: observed.unparsed_lines,
            weight_sum,
            weights_sum_to_100: weight_sum.map(|sum| (sum - 100.0).abs() <= WEIGHT_TOLERANCE),
            weighted_mean,
            weighted_mean_is_score: weighted_mean.and_then(is_score),
            other_tags: other_tags(observed.body, observed.known_tags),
        }
    }
}

fn weighted_mean(observed: &Observed<'_>, weight_sum: f64) -> Option<f64> {
    let mut total = 0.0;
    for criterion in &observed.rubric.criteria {
        let score = criterion_score(observed.evaluation, &criterion.name, observed.scale)?;
        total += criterion.weight? * score;
    }
    (weight_sum > 0.0).then(|| total / weight_sum)
}

/// The first number within the scale on the first line that begins with the name.
fn criterion_score(evaluation: &str, name: &str, scale: &ScoreScale) -> Option<f64> {
    let scale = ScoreScale { kind: ScoreKind::Decimal, ..*scale };
    let line = evaluation
        .lines()
        .map(|line| without_marker(line.trim()))
        .find_map(|line| line.strip_prefix(name))?;
    line.split(|c: char| !c.is_ascii_digit() && c != '.')
        .map(|number| number.trim_matches('.'))
        .find_map(|number| scale.parse(number).ok())
}

fn other_tags(body: &str, known: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (at, _) in body.match_indices('<') {
        let rest = &body[at + 1..];
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        let length = rest.bytes().take(MAX_TAG_NAME + 1).take_while(|b| is_name_byte(*b)).count();
        let name = &rest[..length];
        let is_tag = length > 0 && length <= MAX_TAG_NAME && rest[length..].starts_with('>');
        if is_tag && !known.contains(&name) && !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
        if names.len() == MAX_OTHER_TAGS {
            break;
        }
    }
    names
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}
