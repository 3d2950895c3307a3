//! `POST /score`, and vLLM's bodies on `/v1/score`: texts against texts.
//!
//! The first text is read as a prompt, the second as the response to it.

use axum::response::Response;
use patarm_reward::serving::{Ask, JudgeAsk};
use patarm_text::Item;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Usage, shown, usage};
use crate::dialect::input::Texts;
use crate::dialect::{Dialect, markup, scoring};
use crate::exchange::{Exchange, Route, json};
use crate::fault::{Fault, FaultCode};

/// Names the first texts go by.
const FIRST: [&str; 4] = ["queries", "text_1", "data_1", "query"];

/// Texts to be scored against texts: one against many, or as many as there are.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct PairScoreRequest {
    /// Which model; the first where it is not given.
    #[serde(default)]
    pub model: Option<String>,
    /// The prompts: one, or as many as responses.
    #[serde(alias = "text_1", alias = "data_1", alias = "query")]
    pub queries: Texts,
    /// The responses.
    #[serde(alias = "text_2", alias = "data_2", alias = "items")]
    pub documents: Texts,
    /// Raw number (false), or mapped to 0..=1 (true or not given).
    #[serde(default, alias = "activation")]
    pub use_activation: Option<bool>,
    /// Scoring by label tokens; not there.
    #[serde(default)]
    pub label_token_ids: Option<Vec<u32>>,
}

/// Scores in vLLM's form.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PairScoreReply {
    /// Identity of the answer.
    pub id: String,
    /// `list`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Which model scored.
    pub model: String,
    /// One entry a pair.
    pub data: Vec<PairScored>,
    /// Tokens read.
    pub usage: Usage,
}

/// The score of one pair.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PairScored {
    /// Which pair.
    pub index: usize,
    /// `score`.
    pub object: String,
    /// The number.
    pub score: f64,
}

/// Whether a body on `/v1/score` is vLLM's rather than ours.
pub(crate) fn is_pair_score(body: &Value) -> bool {
    FIRST.iter().any(|name| body.get(name).is_some())
}

/// The work in a list of prompts and a list of responses.
pub(super) fn pairs(
    prompts: &[String],
    responses: Vec<String>,
    votes: usize,
) -> Result<Vec<Ask>, Fault> {
    if prompts.len() != 1 && prompts.len() != responses.len() {
        let message = format!(
            "{} queries and {} documents: give one query, or as many as documents",
            prompts.len(),
            responses.len()
        );
        return Err(Fault::bad_request(message));
    }
    let each = responses.into_iter().enumerate().map(|(index, response)| {
        let prompt = if prompts.len() == 1 { &prompts[0] } else { &prompts[index] };
        let item = Item { prompt: markup::conversation(prompt), response };
        Ask::Judge(JudgeAsk::new(item, None, votes))
    });
    Ok(each.collect())
}

/// Answers a body on either route.
pub(crate) async fn answer(
    exchange: &Exchange,
    request: PairScoreRequest,
) -> Result<Response, Fault> {
    if request.label_token_ids.is_some() {
        let message = "label_token_ids: the probability of label tokens is not served";
        return Err(Fault::new(FaultCode::Unsupported, message));
    }
    let votes = exchange.app.core().host(request.model.as_deref())?.card().votes;
    let asks = pairs(&request.queries.0, request.documents.0, votes)?;
    let numbers = scoring::numbers(exchange, request.model.as_deref(), asks).await?;
    let activated = request.use_activation.unwrap_or(true);
    let data = numbers.numbers.iter().enumerate().map(|(index, number)| PairScored {
        index,
        object: "score".into(),
        score: shown(number, activated),
    });
    json(&PairScoreReply {
        id: format!("score-{}", exchange.id),
        object: "list".into(),
        created: exchange.created_s,
        data: data.collect(),
        usage: usage(&numbers),
        model: numbers.model,
    })
}

/// The route.
pub(crate) struct PairScore;

impl Route for PairScore {
    const PATH: &'static str = "/score";
    const DIALECT: Dialect = Dialect::Vllm;
    const ABOUT: &'static str = "Scores of responses to prompts, for vLLM's clients.";
    type Request = PairScoreRequest;
    type Reply = PairScoreReply;

    async fn answer(exchange: &Exchange, request: PairScoreRequest) -> Result<Response, Fault> {
        answer(exchange, request).await
    }
}
