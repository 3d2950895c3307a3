//! `POST /pooling`: the number as a vector of one.

use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Sequences, Usage, shown, usage};
use crate::dialect::vector::{Encoding, Vector};
use crate::dialect::{Dialect, scoring};
use crate::exchange::{Exchange, Route, json};
use crate::fault::{Fault, FaultCode};

/// Sequences to be scored.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "Value")]
#[schemars(!try_from)]
pub struct PoolingRequest {
    /// What to score.
    #[schemars(flatten)]
    pub sequences: Sequences,
    /// `classify`, or not given.
    pub task: Option<String>,
    /// How numbers are written.
    pub encoding_format: Encoding,
}

impl TryFrom<Value> for PoolingRequest {
    type Error = String;

    fn try_from(mut value: Value) -> Result<Self, String> {
        let mut take = |name: &str| {
            let object = value.as_object_mut();
            object.and_then(|object| object.remove(name)).unwrap_or(Value::Null)
        };
        let (task, encoding) = (take("task"), take("encoding_format"));
        let wrong = |error: serde_json::Error| error.to_string();
        let encoding: Option<Encoding> = serde_json::from_value(encoding).map_err(wrong)?;
        Ok(Self {
            task: serde_json::from_value(task).map_err(wrong)?,
            encoding_format: encoding.unwrap_or_default(),
            sequences: serde_json::from_value(value).map_err(wrong)?,
        })
    }
}

/// Numbers in vLLM's form.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PoolingReply {
    /// Identity of the answer.
    pub id: String,
    /// `list`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Which model scored.
    pub model: String,
    /// One entry a sequence.
    pub data: Vec<Pooled>,
    /// Tokens read.
    pub usage: Usage,
}

/// The number of one sequence.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Pooled {
    /// Which sequence.
    pub index: usize,
    /// `pooling`.
    pub object: String,
    /// One number.
    pub data: Vector,
}

/// The route.
pub(crate) struct Pooling;

impl Route for Pooling {
    const PATH: &'static str = "/pooling";
    const DIALECT: Dialect = Dialect::Vllm;
    const ABOUT: &'static str = "Scores of sequences as vectors of one number.";
    type Request = PoolingRequest;
    type Reply = PoolingReply;

    async fn answer(exchange: &Exchange, request: PoolingRequest) -> Result<Response, Fault> {
        let PoolingRequest { sequences, task, encoding_format } = request;
        if task.as_deref().is_some_and(|task| task != "classify") {
            let message = "task: only classify is there, one number for a sequence";
            return Err(Fault::new(FaultCode::Unsupported, message));
        }
        let (model, activated) = (sequences.model.clone(), sequences.activated());
        let votes = exchange.app.core().host(model.as_deref())?.card().votes;
        let asks = sequences.asks(votes)?;
        let numbers = scoring::numbers(exchange, model.as_deref(), asks).await?;
        let data = numbers.numbers.iter().enumerate().map(|(index, number)| Pooled {
            index,
            object: "pooling".into(),
            data: Vector::new(vec![shown(number, activated)], encoding_format),
        });
        json(&PoolingReply {
            id: format!("pool-{}", exchange.id),
            object: "list".into(),
            created: exchange.created_s,
            data: data.collect(),
            usage: usage(&numbers),
            model: numbers.model,
        })
    }
}
