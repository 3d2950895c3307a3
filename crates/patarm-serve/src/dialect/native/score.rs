//! `POST /v1/score`: one number for each item.

use axum::response::Response;
use patarm_reward::model::{Reward, TokenValue};
use patarm_reward::serving::{Answer, Ask, JudgeAsk, ModelCard};
use patarm_text::Item;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ItemError, Prompt, TaskName};
use crate::dialect::Dialect;
use crate::dialect::vllm::{self, PairScoreRequest};
use crate::exchange::{Exchange, Route, json};
use crate::fault::Fault;

/// A request for scores.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoreRequest {
    /// Which model; the first where it is not given.
    pub model: Option<String>,
    /// What to score.
    pub items: Vec<ItemRequest>,
    /// Judgements an item, for models that write any.
    pub votes: Option<usize>,
    /// Whether to tell the value of every token or step of a response, for models that
    /// give any.
    #[serde(default)]
    pub tokens: bool,
}

/// One item.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ItemRequest {
    /// Comes back with the score.
    pub id: Option<String>,
    /// The prompt.
    pub prompt: Prompt,
    /// The response.
    pub response: String,
    /// Kind of work.
    pub task: Option<TaskName>,
}

/// Scores in the order of the items.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ScoreReply {
    /// Which model scored.
    pub model: String,
    /// One result an item.
    pub results: Vec<ItemScore>,
    /// Tokens read.
    pub prompt_tokens: usize,
}

/// The score of one item, or why it has none.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ItemScore {
    /// The item's id, where it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The number, as the model gives it.
    pub score: Option<f64>,
    /// Standard deviation of the votes' numbers; 0 for one vote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// Votes with a usable number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_votes: Option<usize>,
    /// Variance of the number, for models that give a distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance: Option<f64>,
    /// Probability of each rating from 1 on, for models that give a distribution.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub distribution: Vec<f64>,
    /// The value of every scored token in order, where it was asked for and the model
    /// gives any; the texts together are the response and what ends its turn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenScore>,
    /// The value of every step in order, where it was asked for and the model gives any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepScore>,
    /// Why there is no score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ItemError>,
}

/// The value of one step of a response.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct StepScore {
    /// Its first character in the response.
    pub start: usize,
    /// The character after its last.
    pub end: usize,
    /// Its value.
    pub value: f64,
}

impl StepScore {
    /// The steps of a reward.
    pub(crate) fn of(reward: &Reward) -> Vec<Self> {
        let spans = reward.step_spans.iter().zip(&reward.step_values);
        spans.map(|(&(start, end), &value)| Self { start, end, value }).collect()
    }
}

/// The value of one token.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TokenScore {
    /// Its text; empty for a token that only completes a character.
    pub text: String,
    /// Its value.
    pub value: f64,
}

impl From<&TokenValue> for TokenScore {
    fn from(token: &TokenValue) -> Self {
        Self { text: token.text.clone(), value: token.value }
    }
}

impl ItemScore {
    /// The result of one item.
    pub(crate) fn new(id: Option<String>, card: &ModelCard, result: Result<Answer, Fault>) -> Self {
        let vote = result
            .as_ref()
            .map_err(Fault::clone)
            .and_then(|answer| card.number(answer).map_err(Fault::from));
        let (error, vote) = match vote {
            Ok(vote) => (None, Some(vote)),
            Err(fault) => (Some(ItemError::from(&fault)), None),
        };
        let reward = match result {
            Ok(Answer::Reward(reward)) => *reward,
            _ => Reward::default(),
        };
        Self {
            id,
            score: vote.map(|vote| vote.value),
            spread: vote.map(|vote| vote.spread),
            valid_votes: vote.map(|vote| vote.num_valid),
            variance: reward.variance,
            tokens: reward.token_values.iter().map(TokenScore::from).collect(),
            steps: StepScore::of(&reward),
            distribution: reward.distribution,
            error,
        }
    }

    /// The same without values of tokens and steps.
    fn without_parts(self) -> Self {
        Self { tokens: Vec::new(), steps: Vec::new(), ..self }
    }
}

/// A body on `/v1/score`: ours, or vLLM's, which has texts against texts.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "Value")]
#[schemars(!try_from, untagged)]
pub(crate) enum AnyScore {
    /// Ours: `items` with prompt and response.
    Native(ScoreRequest),
    /// vLLM's: `queries` and `documents`.
    Pairs(PairScoreRequest),
}

impl TryFrom<Value> for AnyScore {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let request = match vllm::is_pair_score(&value) {
            true => serde_json::from_value(value).map(Self::Pairs),
            false => serde_json::from_value(value).map(Self::Native),
        };
        request.map_err(|error| error.to_string())
    }
}

/// The route.
pub(crate) struct Score;

impl Route for Score {
    const PATH: &'static str = "/v1/score";
    const DIALECT: Dialect = Dialect::Native;
    const ABOUT: &'static str = "One number for each prompt and response.";
    type Request = AnyScore;
    type Reply = ScoreReply;

    async fn answer(exchange: &Exchange, request: AnyScore) -> Result<Response, Fault> {
        let request = match request {
            AnyScore::Native(request) => request,
            AnyScore::Pairs(request) => return vllm::answer_score(exchange, request).await,
        };
        let host = exchange.app.core().host(request.model.as_deref())?;
        let votes = request.votes.unwrap_or(host.card().votes).max(1);
        let (mut ids, mut asks) = (Vec::new(), Vec::new());
        for ItemRequest { id, prompt, response, task } in request.items {
            ids.push(id);
            let item = Item { prompt: prompt.into_conversation(), response };
            asks.push(Ask::Judge(JudgeAsk::new(item, task.and_then(Into::into), votes)));
        }
        let ticket = exchange.submit(request.model.as_deref(), asks).await?;
        let prompt_tokens = ticket.num_prompt_tokens().iter().sum();
        let answers = ticket.collect().await;
        let card = host.card();
        let result = |(id, answer)| {
            let result = ItemScore::new(id, card, answer);
            if request.tokens { result } else { result.without_parts() }
        };
        json(&ScoreReply {
            model: card.name.clone(),
            results: ids.into_iter().zip(answers).map(result).collect(),
            prompt_tokens,
        })
    }
}
