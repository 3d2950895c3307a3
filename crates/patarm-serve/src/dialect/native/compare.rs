//! `POST /v1/compare`: which of several responses to one prompt is better.
//!
//! Two responses may be shown to the judge together, in both orders. More than two, and
//! models that write nothing, are compared by the scores of each response.

use axum::response::Response;
use patarm_reward::model::PairwiseVerdict;
use patarm_reward::serving::{Answer, Ask, CompareAsk, Family, JudgeAsk, ModelCard};
use patarm_text::{Conversation, Item, Preference, Task};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ItemScore, Prompt, TaskName};
use crate::dialect::Dialect;
use crate::exchange::{Exchange, Route, json};
use crate::fault::{Fault, FaultCode};

/// Most responses of a request.
const MAX_RESPONSES: usize = 64;

/// A request to compare responses.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareRequest {
    /// Which model; the first where it is not given.
    pub model: Option<String>,
    /// The prompt of all responses.
    pub prompt: Prompt,
    /// The responses, two or more.
    pub responses: Vec<String>,
    /// Kind of work.
    pub task: Option<TaskName>,
    /// Judgements of each response, or in each order.
    pub votes: Option<usize>,
    /// How to compare; `pointwise` where it is not given.
    pub mode: Option<CompareMode>,
}

/// How responses are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CompareMode {
    /// Each is scored alone; the higher score is better.
    Pointwise,
    /// The judge sees two at a time, in both orders; orders that disagree make a tie.
    Pairwise,
}

/// The outcome of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CompareReply {
    /// Which model compared.
    pub model: String,
    /// How.
    pub mode: CompareMode,
    /// Index of the best response; null for a tie, or when nothing is known.
    pub best: Option<usize>,
    /// Scores, in the order of the responses; pointwise only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<ItemScore>,
    /// Whether both orders say the same; pairwise only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_consistent: Option<bool>,
    /// The judge's texts; pairwise only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<CompareVote>,
}

/// One vote of a pairwise comparison.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CompareVote {
    /// Whether the second response was shown first.
    pub is_swapped: bool,
    /// Index of the response it prefers; null for a tie or no verdict.
    pub best: Option<usize>,
    /// Why there is no verdict, as one of a closed list of kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Everything the judge wrote.
    pub text: String,
}

/// The route.
pub(crate) struct Compare;

impl Route for Compare {
    const PATH: &'static str = "/v1/compare";
    const DIALECT: Dialect = Dialect::Native;
    const ABOUT: &'static str = "Which of several responses to one prompt is better.";
    type Request = CompareRequest;
    type Reply = CompareReply;

    async fn answer(exchange: &Exchange, request: CompareRequest) -> Result<Response, Fault> {
        let card = exchange.app.core().host(request.model.as_deref())?.card();
        let num_responses = request.responses.len();
        if !(2..=MAX_RESPONSES).contains(&num_responses) {
            let message = format!("{num_responses} responses, must lie in 2..={MAX_RESPONSES}");
            return Err(Fault::bad_request(message));
        }
        let question = Question {
            model: request.model,
            prompt: request.prompt.into_conversation(),
            task: request.task.and_then(Into::into),
            votes: request.votes.unwrap_or(card.votes).max(1),
        };
        match request.mode.unwrap_or(CompareMode::Pointwise) {
            CompareMode::Pointwise => pointwise(exchange, card, question, request.responses).await,
            CompareMode::Pairwise => pairwise(exchange, card, question, request.responses).await,
        }
    }
}

struct Question {
    model: Option<String>,
    prompt: Conversation,
    task: Option<Task>,
    votes: usize,
}

async fn pointwise(
    exchange: &Exchange,
    card: &ModelCard,
    question: Question,
    responses: Vec<String>,
) -> Result<Response, Fault> {
    let Question { model, prompt, task, votes } = question;
    let ask = |response| {
        let item = Item { prompt: prompt.clone(), response };
        Ask::Judge(JudgeAsk::new(item, task, votes))
    };
    let asks = responses.into_iter().map(ask).collect();
    let answers = exchange.run(model.as_deref(), asks).await?;
    let results: Vec<ItemScore> =
        answers.into_iter().map(|answer| ItemScore::new(None, card, answer)).collect();
    let scores: Vec<Option<f64>> = results.iter().map(|result| result.score).collect();
    json(&CompareReply {
        model: card.name.clone(),
        mode: CompareMode::Pointwise,
        best: only_best(&scores),
        results,
        is_consistent: None,
        votes: Vec::new(),
    })
}

/// The index of the highest score, unless it is shared or a score is missing.
fn only_best(scores: &[Option<f64>]) -> Option<usize> {
    let scores: Vec<f64> = scores.iter().copied().collect::<Option<_>>()?;
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut best = scores.iter().enumerate().filter(|(_, score)| **score == highest);
    let (index, _) = best.next()?;
    best.next().is_none().then_some(index)
}

async fn pairwise(
    exchange: &Exchange,
    card: &ModelCard,
    question: Question,
    responses: Vec<String>,
) -> Result<Response, Fault> {
    if card.family != Family::Generative {
        let message = "this model scores one response at a time: use mode pointwise";
        return Err(Fault::new(FaultCode::Unsupported, message));
    }
    let Ok(responses) = <[String; 2]>::try_from(responses) else {
        return Err(Fault::bad_request("mode pairwise takes two responses"));
    };
    let Question { model, prompt, task, votes } = question;
    let request = patarm_reward::model::CompareRequest { prompt, responses, task };
    let ask = Ask::Compare(CompareAsk { request, votes });
    let answer = exchange.run(model.as_deref(), vec![ask]).await?.pop();
    match answer.unwrap_or_else(|| Err(Fault::plain(FaultCode::Internal)))? {
        Answer::Verdict(verdict) => json(&pairwise_reply(card, verdict)),
        _ => Err(Fault::plain(FaultCode::Internal)),
    }
}

fn pairwise_reply(card: &ModelCard, verdict: PairwiseVerdict) -> CompareReply {
    let in_order = verdict.in_order.into_iter().map(|vote| (false, vote));
    let swapped = verdict.swapped.into_iter().map(|vote| (true, vote));
    let votes = in_order.chain(swapped).map(|(is_swapped, vote)| CompareVote {
        is_swapped,
        best: vote.verdict.ok().and_then(index),
        fault: vote.verdict.err().map(|fault| fault.name().to_owned()),
        text: vote.text,
    });
    CompareReply {
        model: card.name.clone(),
        mode: CompareMode::Pairwise,
        best: index(verdict.verdict),
        results: Vec::new(),
        is_consistent: Some(verdict.is_consistent),
        votes: votes.collect(),
    }
}

fn index(preference: Preference) -> Option<usize> {
    match preference {
        Preference::First => Some(0),
        Preference::Second => Some(1),
        Preference::Tie | Preference::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_alone_at_the_top() {
        assert_eq!(only_best(&[Some(1.0), Some(3.0), Some(2.0)]), Some(1));
        assert_eq!(only_best(&[Some(3.0), Some(3.0), Some(2.0)]), None);
        assert_eq!(only_best(&[Some(3.0), None]), None);
    }
}
