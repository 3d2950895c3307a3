//! What a judge says of a response.

use serde::{Deserialize, Serialize};

use crate::rubric::Rubric;

/// Why a judgement carries no usable score. A closed list: rates are reported by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormatFault {
    /// A required tag is missing or unclosed.
    MissingTag,
    /// The tags are there, out of order.
    TagOrder,
    /// No well-formed score tag after the evaluation, or an empty one.
    ScoreAbsent,
    /// The score is not a number of the declared kind.
    ScoreNotNumber,
    /// The score lies outside the scale.
    ScoreOutOfRange,
    /// Generation hit its token limit before the score.
    Truncated,
}

impl FormatFault {
    /// Every kind, in report order.
    pub const ALL: [Self; 6] = [
        Self::MissingTag,
        Self::TagOrder,
        Self::ScoreAbsent,
        Self::ScoreNotNumber,
        Self::ScoreOutOfRange,
        Self::Truncated,
    ];

    /// The name used in files and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingTag => "missing_tag",
            Self::TagOrder => "tag_order",
            Self::ScoreAbsent => "score_absent",
            Self::ScoreNotNumber => "score_not_number",
            Self::ScoreOutOfRange => "score_out_of_range",
            Self::Truncated => "truncated",
        }
    }

    /// Whether the tags themselves are broken (format reward −1.5) rather than
    /// only the score (−1.0). Source: method section 4.3, recalled.
    #[must_use]
    pub fn is_broken_tags(self) -> bool {
        matches!(self, Self::MissingTag | Self::TagOrder | Self::Truncated)
    }
}

/// One judgement of one response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Everything the judge generated.
    pub text: String,
    /// Criteria the judge wrote.
    pub rubric: Rubric,
    /// The evaluation paragraphs.
    pub evaluation: String,
    /// The score, or why there is none.
    pub score: Result<f64, FormatFault>,
    /// A number that reads well although the tags around it are broken; used only by
    /// `broken_tags_score = "use"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readable_score: Option<f64>,
    /// Expectation of the score under the judge's own distribution, where it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_score: Option<f64>,
    /// Number of generated tokens.
    pub num_tokens: usize,
    /// Sum of the log-probabilities of the generated tokens, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprob: Option<f64>,
}
