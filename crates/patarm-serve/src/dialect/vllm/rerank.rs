//! `POST /rerank` and `/v1/rerank`: responses to a prompt, best first. Bodies with `texts`
//! on `/rerank` are text-embeddings-inference's.

use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::score::pairs;
use super::{Usage, shown, usage};
use crate::dialect::input::Texts;
use crate::dialect::tei::{self, RerankTexts};
use crate::dialect::{Dialect, scoring};
use crate::exchange::{Exchange, Route, json};
use crate::fault::Fault;

/// A prompt and responses to it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct RerankRequest {
    /// Which model; the first where it is not given.
    #[serde(default)]
    pub model: Option<String>,
    /// The prompt.
    pub query: String,
    /// The responses.
    pub documents: Texts,
    /// How many of the best to answer with; 0 or not given = all.
    #[serde(default)]
    pub top_n: Option<usize>,
    /// Raw number (false), or mapped to 0..=1 (true or not given).
    #[serde(default, alias = "activation")]
    pub use_activation: Option<bool>,
}

/// A body on `/rerank`, whoever's it is.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "Value")]
#[schemars(!try_from, untagged)]
pub(crate) enum AnyRerank {
    /// vLLM's: `documents`.
    Vllm(RerankRequest),
    /// text-embeddings-inference's: `texts`.
    Tei(RerankTexts),
}

impl TryFrom<Value> for AnyRerank {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let request = match value.get("texts").is_some() {
            true => serde_json::from_value(value).map(Self::Tei),
            false => serde_json::from_value(value).map(Self::Vllm),
        };
        request.map_err(|error| error.to_string())
    }
}

/// Responses, best first.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct RerankReply {
    /// Identity of the answer.
    pub id: String,
    /// Which model scored.
    pub model: String,
    /// Tokens read.
    pub usage: Usage,
    /// The responses.
    pub results: Vec<Ranked>,
}

/// One response in its place.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Ranked {
    /// Where it stood in the request.
    pub index: usize,
    /// The response.
    pub document: Document,
    /// Its score.
    pub relevance_score: f64,
}

/// A response as an object.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Document {
    /// The text.
    pub text: String,
}

async fn answer(exchange: &Exchange, request: RerankRequest) -> Result<Response, Fault> {
    let votes = exchange.app.core().host(request.model.as_deref())?.card().votes;
    let texts = request.documents.0;
    let asks = pairs(&[request.query], texts.clone(), votes)?;
    let numbers = scoring::numbers(exchange, request.model.as_deref(), asks).await?;
    let activated = request.use_activation.unwrap_or(true);
    let each = numbers.numbers.iter().zip(texts).enumerate();
    let mut results: Vec<Ranked> = each
        .map(|(index, (number, text))| Ranked {
            index,
            document: Document { text },
            relevance_score: shown(number, activated),
        })
        .collect();
    // Equal scores keep the order of the request.
    results.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score));
    if let Some(top) = request.top_n.filter(|top| *top > 0) {
        results.truncate(top);
    }
    json(&RerankReply {
        id: format!("rerank-{}", exchange.id),
        usage: usage(&numbers),
        model: numbers.model,
        results,
    })
}

/// The route that two dialects share.
pub(crate) struct Rerank;

impl Route for Rerank {
    const PATH: &'static str = "/rerank";
    const DIALECT: Dialect = Dialect::Vllm;
    const ABOUT: &'static str = "Responses to a prompt, best first.";
    type Request = AnyRerank;
    type Reply = RerankReply;

    async fn answer(exchange: &Exchange, request: AnyRerank) -> Result<Response, Fault> {
        match request {
            AnyRerank::Vllm(request) => answer(exchange, request).await,
            AnyRerank::Tei(request) => tei::rerank(exchange, request).await,
        }
    }
}

/// The route that is vLLM's alone.
pub(crate) struct RerankV1;

impl Route for RerankV1 {
    const PATH: &'static str = "/v1/rerank";
    const DIALECT: Dialect = Dialect::Vllm;
    const ABOUT: &'static str = "Responses to a prompt, best first.";
    type Request = RerankRequest;
    type Reply = RerankReply;

    async fn answer(exchange: &Exchange, request: RerankRequest) -> Result<Response, Fault> {
        answer(exchange, request).await
    }
}
