//! `POST /classify`, in vLLM's form and in SGLang's: the body tells which.

use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Sequences, Usage, shown, usage};
use crate::dialect::sglang::{self, NativeRequest};
use crate::dialect::{Dialect, scoring};
use crate::exchange::{Exchange, Route, json};
use crate::fault::Fault;

/// Sequences to be scored, as vLLM or as SGLang takes them.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "Value")]
#[schemars(!try_from, untagged)]
pub enum ClassifyRequest {
    /// vLLM: `input` or `messages`.
    Vllm(Sequences),
    /// SGLang: `text` or `input_ids`.
    Sglang(NativeRequest),
}

impl TryFrom<Value> for ClassifyRequest {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let is_sglang = value.get("text").is_some() || value.get("input_ids").is_some();
        let request = match is_sglang {
            true => serde_json::from_value(value).map(Self::Sglang),
            false => serde_json::from_value(value).map(Self::Vllm),
        };
        request.map_err(|error| error.to_string())
    }
}

/// Scores in vLLM's form.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ClassifyReply {
    /// Identity of the answer.
    pub id: String,
    /// `list`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Which model scored.
    pub model: String,
    /// One entry a sequence.
    pub data: Vec<Classified>,
    /// Tokens read.
    pub usage: Usage,
}

/// The score of one sequence.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Classified {
    /// Which sequence.
    pub index: usize,
    /// There are no labels: null.
    pub label: Option<String>,
    /// One number.
    pub probs: Vec<f64>,
    /// 1.
    pub num_classes: usize,
}

/// The route.
pub(crate) struct Classify;

impl Route for Classify {
    const PATH: &'static str = "/classify";
    const DIALECT: Dialect = Dialect::Vllm;
    const ABOUT: &'static str = "Scores of sequences, for vLLM's and SGLang's clients.";
    type Request = ClassifyRequest;
    type Reply = ClassifyReply;

    async fn answer(exchange: &Exchange, request: ClassifyRequest) -> Result<Response, Fault> {
        let request = match request {
            ClassifyRequest::Vllm(request) => request,
            ClassifyRequest::Sglang(request) => return sglang::classify(exchange, request).await,
        };
        let model = request.model.clone();
        let activated = request.activated();
        let votes = exchange.app.core().host(model.as_deref())?.card().votes;
        let asks = request.asks(votes)?;
        let numbers = scoring::numbers(exchange, model.as_deref(), asks).await?;
        let data = numbers.numbers.iter().enumerate().map(|(index, number)| Classified {
            index,
            label: None,
            probs: vec![shown(number, activated)],
            num_classes: 1,
        });
        json(&ClassifyReply {
            id: format!("classify-{}", exchange.id),
            object: "list".into(),
            created: exchange.created_s,
            data: data.collect(),
            usage: usage(&numbers),
            model: numbers.model,
        })
    }
}
