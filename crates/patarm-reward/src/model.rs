//! The traits everything stands on: reward models, judges, evaluators.

use patarm_text::{Comparison, Conversation, Item, Preference, Solution, Task};
use serde::{Deserialize, Serialize};

use crate::judgement::{FormatFault, Judgement};

/// A reward and whatever else its family knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reward {
    /// The number.
    pub value: f64,
    /// The judgements behind it, for generative judges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judgements: Vec<Judgement>,
    /// `(value − mean) / std` with the statistics stored in the checkpoint, where it
    /// has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalised: Option<f64>,
    /// Variance of the value, for models that give a distribution and for ensembles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variance: Option<f64>,
    /// Probability of each rating, lowest first, for ordinal models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distribution: Vec<f64>,
    /// A value for each token of the response, for token-level models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_values: Vec<TokenValue>,
    /// A value for each step of the response, for process reward models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_values: Vec<f64>,
    /// Where each of these steps stands in the response, in characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_spans: Vec<(usize, usize)>,
}

impl Reward {
    /// A reward that is a number and nothing else.
    #[must_use]
    pub fn of(value: f64) -> Self {
        Self { value, ..Self::default() }
    }
}

/// The value of one token of a response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenValue {
    /// The token's text; empty for a token that only completes a character.
    pub text: String,
    /// Its value.
    pub value: f64,
}

/// Why one item has no reward. Other items of the call are unaffected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ItemFault {
    /// No judgement of the item had a usable score; why, for each.
    #[error("none of {} judgements carries a usable score", .0.len())]
    Unparsed(Vec<FormatFault>),
    /// The item does not fit the model.
    #[error("the item has {tokens} tokens, more than the {limit} that fit")]
    Overlong {
        /// Tokens of the item.
        tokens: usize,
        /// What fits.
        limit: usize,
    },
    /// The model cannot do what was asked.
    #[error("{0}")]
    Unsupported(String),
    /// The engine failed.
    #[error("{0}")]
    Engine(String),
}

impl ItemFault {
    /// The fault of an item none of whose judgements has a number.
    #[must_use]
    pub fn unparsed(judgements: &[Judgement]) -> Self {
        Self::Unparsed(judgements.iter().filter_map(|judgement| judgement.score.err()).collect())
    }
}

/// Anything that gives a response a number.
pub trait RewardModel {
    /// Scores every item; results stand in the order of the items, each failing alone.
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>>;

    /// A value for each step of every solution whose steps are known; `None` where the
    /// model gives no such values.
    fn score_steps(&self, _solutions: &[Solution]) -> Option<Vec<StepScores>> {
        None
    }

    /// A name for reports.
    fn name(&self) -> String;
}

/// A value for each step of a solution, or why there are none.
pub type StepScores = Result<Vec<f64>, ItemFault>;

/// How a judge is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeRequest {
    /// What to judge.
    pub item: Item,
    /// Kind of work; `None` = detect.
    pub task: Option<Task>,
}

/// A generative judge that reads one response at a time.
pub trait PointwiseJudge {
    /// `votes` judgements of every request; results stand in the order of the requests.
    fn judge(
        &self,
        requests: &[JudgeRequest],
        votes: usize,
    ) -> Vec<Result<Vec<Judgement>, ItemFault>>;

    /// A name for reports.
    fn name(&self) -> String;
}

/// What a pairwise judge is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompareRequest {
    /// The prompt of both responses.
    pub prompt: Conversation,
    /// The responses, first and second.
    pub responses: [String; 2],
    /// Kind of work; `None` = detect.
    pub task: Option<Task>,
}

/// One vote of a pairwise judge, in terms of the request: not of the order shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairwiseVote {
    /// Everything the judge generated.
    pub text: String,
    /// Which response is better, or why there is no verdict.
    pub verdict: Result<Preference, FormatFault>,
}

/// The verdict over both orders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairwiseVerdict {
    /// Which response is better; a tie when the orders disagree.
    pub verdict: Preference,
    /// Whether both orders say the same.
    pub is_consistent: bool,
    /// Votes with the first response shown first.
    pub in_order: Vec<PairwiseVote>,
    /// Votes with the second response shown first.
    pub swapped: Vec<PairwiseVote>,
}

/// A generative judge that reads two responses at a time.
pub trait PairwiseJudge {
    /// `votes` votes on every request with its first response shown first; results
    /// stand in the order of the requests.
    fn compare_as_shown(
        &self,
        requests: &[CompareRequest],
        votes: usize,
    ) -> Vec<Result<Vec<PairwiseVote>, ItemFault>>;

    /// The verdict on every request from `votes` judgements in each order; results
    /// stand in the order of the requests.
    fn compare(
        &self,
        requests: &[CompareRequest],
        votes: usize,
    ) -> Vec<Result<PairwiseVerdict, ItemFault>>;

    /// A name for reports.
    fn name(&self) -> String;
}

/// What held-out comparisons say of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measurement {
    /// Share of pairs in which the preferred side has the higher reward; ties and faults
    /// count one half.
    pub accuracy: f64,
    /// Mean of chosen minus rejected.
    pub margin: Option<f64>,
    /// Expected calibration error of win probabilities read from the margins.
    pub expected_calibration_error: Option<f64>,
    /// Mean of all rewards.
    pub mean: Option<f64>,
    /// Standard deviation of all rewards.
    pub deviation: Option<f64>,
}

/// Measures a reward model on held-out comparisons: the seam that lets training
/// evaluate without depending on the evaluation crate.
pub trait Evaluator {
    /// Accuracy (ties at one half) of `model` on the evaluator's comparisons.
    fn evaluate(&self, model: &dyn RewardModel) -> f64;

    /// Accuracy and, where the evaluator knows more, the rest.
    fn measure(&self, model: &dyn RewardModel) -> Measurement {
        Measurement { accuracy: self.evaluate(model), ..Measurement::default() }
    }

    /// The comparisons.
    fn comparisons(&self) -> &[Comparison];
}
