//! SGLang: the native form of `/classify`, and rewards as embeddings on `/v1/embeddings`.
//!
//! Rewards are raw in both, as SGLang gives them.

use axum::response::{IntoResponse, Response};
use patarm_reward::serving::{Ask, SpecialTokens};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::Input;
use super::vector::{Encoding, Vector};
use super::vllm::Usage;
use super::{Dialect, scoring};
use crate::exchange::{Exchange, Route, json};
use crate::fault::Fault;
use crate::router::Routes;

/// Sequences to be scored, as SGLang's own `/classify` takes them.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct NativeRequest {
    /// Text or a list of texts.
    #[serde(default)]
    pub text: Option<Input>,
    /// Token ids or a list of them.
    #[serde(default)]
    pub input_ids: Option<Input>,
    /// Identity of the request, one or one a sequence; comes back.
    #[serde(default)]
    pub rid: serde_json::Value,
}

/// The reward of one sequence.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct NativeReply {
    /// One number.
    pub embedding: Vec<f64>,
    /// What belongs to it.
    pub meta_info: MetaInfo,
}

/// What belongs to a reward.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct MetaInfo {
    /// Identity of the sequence.
    pub id: String,
    /// Tokens read.
    pub prompt_tokens: usize,
    /// Seconds from the body to the answer.
    pub e2e_latency: f64,
    /// Always null: nothing was generated.
    pub finish_reason: Option<String>,
}

/// Answers SGLang's form of `/classify`: one object for one sequence, a list for a list.
pub(crate) async fn classify(
    exchange: &Exchange,
    request: NativeRequest,
) -> Result<Response, Fault> {
    let started = tokio::time::Instant::now();
    let (input, special) = match (request.text, request.input_ids) {
        (Some(text), None) => (text, SpecialTokens::Add),
        (None, Some(ids)) => (ids, SpecialTokens::Omit),
        _ => return Err(Fault::bad_request("give either text or input_ids")),
    };
    let is_list = input.is_list;
    let each = input.sequences.into_iter();
    let asks = each.map(|one| Ask::Sequence(one.into_sequence(special))).collect();
    let numbers = scoring::numbers(exchange, None, asks).await?;
    let e2e_latency = started.elapsed().as_secs_f64();
    let places = numbers.numbers.iter().zip(&numbers.prompt_tokens).enumerate();
    let mut replies: Vec<NativeReply> = places
        .map(|(index, (number, prompt_tokens))| NativeReply {
            embedding: vec![number.raw],
            meta_info: MetaInfo {
                id: own_id(&request.rid, index)
                    .unwrap_or_else(|| format!("{}-{index}", exchange.id)),
                prompt_tokens: *prompt_tokens,
                e2e_latency,
                finish_reason: None,
            },
        })
        .collect();
    match replies.pop() {
        Some(only) if !is_list && replies.is_empty() => json(&only),
        last => {
            replies.extend(last);
            json(&replies)
        }
    }
}

fn own_id(rid: &serde_json::Value, index: usize) -> Option<String> {
    rid.as_str().or_else(|| rid.get(index)?.as_str()).map(str::to_owned)
}

/// Sequences to be scored, in the form of an embeddings request.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct EmbeddingsRequest {
    /// Which model; the first where it is not given.
    #[serde(default)]
    pub model: Option<String>,
    /// Text, token ids, or a list of either.
    pub input: Input,
    /// How numbers are written.
    #[serde(default)]
    pub encoding_format: Option<Encoding>,
}

/// Rewards in the form of embeddings.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct EmbeddingsReply {
    /// `list`.
    pub object: String,
    /// Which model scored.
    pub model: String,
    /// One entry a sequence.
    pub data: Vec<Embedding>,
    /// Tokens read.
    pub usage: Usage,
}

/// The reward of one sequence.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Embedding {
    /// `embedding`.
    pub object: String,
    /// Which sequence.
    pub index: usize,
    /// One number.
    pub embedding: Vector,
}

/// The route.
pub(crate) struct Embeddings;

impl Route for Embeddings {
    const PATH: &'static str = "/v1/embeddings";
    const DIALECT: Dialect = Dialect::Sglang;
    const ABOUT: &'static str =
        "Rewards in the form of embeddings, as verl reads them from SGLang.";
    type Request = EmbeddingsRequest;
    type Reply = EmbeddingsReply;

    async fn answer(exchange: &Exchange, request: EmbeddingsRequest) -> Result<Response, Fault> {
        let each = request.input.sequences.into_iter();
        let asks = each.map(|one| Ask::Sequence(one.into_sequence(SpecialTokens::Add))).collect();
        let numbers = scoring::numbers(exchange, request.model.as_deref(), asks).await?;
        let encoding = request.encoding_format.unwrap_or_default();
        let data = numbers.numbers.iter().enumerate().map(|(index, number)| Embedding {
            object: "embedding".into(),
            index,
            embedding: Vector::new(vec![number.raw], encoding),
        });
        Ok(json(&EmbeddingsReply {
            object: "list".into(),
            data: data.collect(),
            usage: Usage::read(numbers.total_tokens()),
            model: numbers.model,
        })?
        .into_response())
    }
}

pub(super) fn add(routes: Routes) -> Routes {
    routes.post::<Embeddings>()
}
