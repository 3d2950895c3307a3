//! text-embeddings-inference: `/predict`, `/rerank` (with `texts`), `/info`.
//!
//! A model with one class is given a sigmoid there unless the request says
//! `raw_scores: true`; a judge's score is mapped to 0..=1 along its scale instead.

use std::borrow::Cow;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use patarm_reward::serving::{Ask, JudgeAsk, Sequence, SpecialTokens};
use patarm_text::Item;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::scoring::Number;
use super::{Dialect, markup, scoring};
use crate::exchange::{Exchange, Route, json as json_reply};
use crate::fault::Fault;
use crate::router::{App, Routes};

/// One input: a text, or a pair of prompt and response.
#[derive(Clone, Debug, PartialEq, Eq)]
enum One {
    Single(String),
    Pair(String, String),
}

/// A text, a pair `[a, b]`, or a list of lists of one or two texts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct PredictInput {
    inputs: Vec<One>,
    is_list: bool,
}

impl TryFrom<Value> for PredictInput {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let form = || "inputs is a text, a pair of texts, or a list of lists of them".to_owned();
        match value {
            Value::String(text) => Ok(Self { inputs: vec![One::Single(text)], is_list: false }),
            Value::Array(entries) if entries.iter().any(Value::is_string) => {
                let pair: [String; 2] =
                    serde_json::from_value(Value::Array(entries)).map_err(|_| form())?;
                let [first, second] = pair;
                Ok(Self { inputs: vec![One::Pair(first, second)], is_list: false })
            }
            Value::Array(entries) => {
                let one = |entry: Value| {
                    let texts: Vec<String> = serde_json::from_value(entry).map_err(|_| form())?;
                    let mut texts = texts.into_iter();
                    match (texts.next(), texts.next(), texts.next()) {
                        (Some(text), None, None) => Ok(One::Single(text)),
                        (Some(first), Some(second), None) => Ok(One::Pair(first, second)),
                        _ => Err(form()),
                    }
                };
                let inputs = entries.into_iter().map(one).collect::<Result<_, _>>()?;
                Ok(Self { inputs, is_list: true })
            }
            _ => Err(form()),
        }
    }
}

impl JsonSchema for PredictInput {
    fn schema_name() -> Cow<'static, str> {
        "PredictInput".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let text = json!({ "type": "string" });
        let pair = json!({ "type": "array", "items": text, "minItems": 1, "maxItems": 2 });
        json_schema!({
            "description": "A text, a pair of prompt and response, or a list of lists of them.",
            "oneOf": [text, pair, { "type": "array", "items": pair }],
        })
    }
}

/// Texts to be scored.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct PredictRequest {
    /// What to score.
    pub inputs: PredictInput,
    /// Whether a text that is too long may be cut; it is refused either way.
    #[serde(default)]
    pub truncate: Option<bool>,
    /// Raw number, or mapped to 0..=1.
    #[serde(default)]
    pub raw_scores: bool,
}

/// The score of one input.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Prediction {
    /// The number.
    pub score: f64,
    /// The only label there is.
    pub label: String,
}

/// A prompt and responses to it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct RerankTexts {
    /// The prompt.
    pub query: String,
    /// The responses.
    pub texts: Vec<String>,
    /// Whether a text that is too long may be cut; it is refused either way.
    #[serde(default)]
    pub truncate: Option<bool>,
    /// Raw number, or mapped to 0..=1.
    #[serde(default)]
    pub raw_scores: bool,
    /// Whether texts come back.
    #[serde(default)]
    pub return_text: bool,
}

/// One response in its place.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct RankedText {
    /// Where it stood in the request.
    pub index: usize,
    /// Its score.
    pub score: f64,
    /// The response, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

fn shown(number: &Number, raw: bool) -> f64 {
    if raw { number.raw } else { number.unit }
}

fn ask(one: One, votes: usize) -> Ask {
    match one {
        One::Single(text) => {
            Ask::Sequence(Sequence::Text { text, special_tokens: SpecialTokens::Add })
        }
        One::Pair(prompt, response) => {
            let item = Item { prompt: markup::conversation(&prompt), response };
            Ask::Judge(JudgeAsk::new(item, None, votes))
        }
    }
}

async fn predict(exchange: &Exchange, request: PredictRequest) -> Result<Response, Fault> {
    let votes = exchange.app.core().host(None)?.card().votes;
    let PredictInput { inputs, is_list } = request.inputs;
    let asks = inputs.into_iter().map(|one| ask(one, votes)).collect();
    let numbers = scoring::numbers(exchange, None, asks).await?.numbers;
    let predictions = numbers.iter().map(|number| {
        vec![Prediction { score: shown(number, request.raw_scores), label: "LABEL_0".into() }]
    });
    let mut predictions: Vec<Vec<Prediction>> = predictions.collect();
    match predictions.pop() {
        Some(only) if !is_list && predictions.is_empty() => json_reply(&only),
        last => {
            predictions.extend(last);
            json_reply(&predictions)
        }
    }
}

/// Answers a body with `texts` on `/rerank`.
pub(crate) async fn rerank(exchange: &Exchange, request: RerankTexts) -> Result<Response, Fault> {
    let votes = exchange.app.core().host(None)?.card().votes;
    let RerankTexts { query, texts, raw_scores, return_text, .. } = request;
    let pair = |text: &String| ask(One::Pair(query.clone(), text.clone()), votes);
    let asks = texts.iter().map(pair).collect();
    let numbers = scoring::numbers(exchange, None, asks).await?.numbers;
    let mut ranked: Vec<RankedText> = numbers
        .iter()
        .zip(texts)
        .enumerate()
        .map(|(index, (number, text))| RankedText {
            index,
            score: shown(number, raw_scores),
            text: return_text.then_some(text),
        })
        .collect();
    // Equal scores keep the order of the request.
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    json_reply(&ranked)
}

/// The route.
pub(crate) struct Predict;

impl Route for Predict {
    const PATH: &'static str = "/predict";
    const DIALECT: Dialect = Dialect::Tei;
    const ABOUT: &'static str =
        "Scores of texts or of pairs, for text-embeddings-inference's clients.";
    type Request = PredictRequest;
    type Reply = Vec<Prediction>;

    async fn answer(exchange: &Exchange, request: PredictRequest) -> Result<Response, Fault> {
        predict(exchange, request).await
    }
}

/// The same at the root, where clients of hosted endpoints send it.
pub(crate) struct Root;

impl Route for Root {
    const PATH: &'static str = "/";
    const DIALECT: Dialect = Dialect::Tei;
    const ABOUT: &'static str = "As /predict, for clients that know an address and no route.";
    type Request = PredictRequest;
    type Reply = Vec<Prediction>;

    async fn answer(exchange: &Exchange, request: PredictRequest) -> Result<Response, Fault> {
        predict(exchange, request).await
    }
}

async fn info(State(app): State<std::sync::Arc<App>>) -> Response {
    let limits = app.core().limits();
    let Some(host) = app.core().hosts().first() else {
        return axum::Json(json!({})).into_response();
    };
    let card = host.card();
    let labels = json!({ "id2label": { "0": "LABEL_0" }, "label2id": { "LABEL_0": 0 } });
    axum::Json(json!({
        "model_id": card.name,
        "model_sha": card.revision,
        "model_dtype": "float32",
        "model_type": match card.family.takes_sequences() {
            true => json!({ "classifier": labels }),
            false => json!({ "reranker": labels }),
        },
        "max_concurrent_requests": limits.max_connections,
        "max_input_length": card.max_tokens.min(u32::MAX as usize),
        "max_batch_tokens": limits.max_batch_tokens,
        "max_batch_requests": Value::Null,
        "max_client_batch_size": limits.max_items,
        "auto_truncate": false,
        "tokenization": TOKENIZATION,
        "version": env!("CARGO_PKG_VERSION"),
    }))
    .into_response()
}

/// The one rule of how text becomes tokens, for people who compare scores.
const TOKENIZATION: &str = "prompt and response: the model's own chat template, contents never \
    yield control tokens; plain input: control tokens recognised, the tokenizer's special tokens \
    added unless the request or the dialect says otherwise; nothing is ever cut";

pub(super) fn add(routes: Routes) -> Routes {
    routes.post::<Predict>().post::<Root>().get(
        "/info",
        "What is served, in text-embeddings-inference's form.",
        get(info),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_inputs() {
        let parse = |value: Value| serde_json::from_value::<PredictInput>(value);
        let single = |text: &str| One::Single(text.into());
        let pair = |a: &str, b: &str| One::Pair(a.into(), b.into());
        let text = parse(json!("a")).unwrap();
        assert_eq!(text, PredictInput { inputs: vec![single("a")], is_list: false });
        let one = parse(json!(["a", "b"])).unwrap();
        assert_eq!(one, PredictInput { inputs: vec![pair("a", "b")], is_list: false });
        let many = parse(json!([["a"], ["b", "c"]])).unwrap();
        assert_eq!(many, PredictInput { inputs: vec![single("a"), pair("b", "c")], is_list: true });
        for wrong in
            [json!(["a"]), json!(["a", "b", "c"]), json!([[]]), json!([["a", "b", "c"]]), json!(3)]
        {
            assert!(parse(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
