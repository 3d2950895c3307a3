//! slime's remote reward model: the whole JSON answer is the reward.
//!
//! `POST /slime` answers with a number, `POST /slime/object` with an object, for clients
//! that are given a `--reward-key` (`reward` or `score`).

use axum::response::Response;
use patarm_reward::serving::{Ask, JudgeAsk};
use patarm_text::Item;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::LoosePrompt;
use super::scoring::{self, Number};
use super::{Dialect, markup};
use crate::exchange::{Exchange, Route, json};
use crate::fault::{Fault, FaultCode};
use crate::router::Routes;

/// A rollout to be scored.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct SlimeRequest {
    /// The prompt: text, templated or not, or messages.
    pub prompt: LoosePrompt,
    /// The response.
    pub response: String,
    /// The label of the data set; not used.
    #[serde(default)]
    pub label: serde_json::Value,
}

/// The reward with what belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct SlimeObject {
    /// As the model gives it.
    pub reward: f64,
    /// Mapped to 0..=1.
    pub score: f64,
    /// Standard deviation of the votes.
    pub vote_spread: f64,
}

async fn number(exchange: &Exchange, request: SlimeRequest) -> Result<Number, Fault> {
    let votes = exchange.app.core().host(None)?.card().votes;
    let response = markup::response(&request.response).to_owned();
    let item = Item { prompt: request.prompt.0, response };
    let asks = vec![Ask::Judge(JudgeAsk::new(item, None, votes))];
    let numbers = scoring::numbers(exchange, None, asks).await?.numbers;
    numbers.first().copied().ok_or_else(|| Fault::plain(FaultCode::Internal))
}

/// The route that answers with a number.
pub(crate) struct Slime;

impl Route for Slime {
    const PATH: &'static str = "/slime";
    const DIALECT: Dialect = Dialect::Slime;
    const ABOUT: &'static str = "The reward of one rollout as a bare number.";
    type Request = SlimeRequest;
    type Reply = f64;

    async fn answer(exchange: &Exchange, request: SlimeRequest) -> Result<Response, Fault> {
        json(&number(exchange, request).await?.raw)
    }
}

/// The route that answers with an object.
pub(crate) struct Object;

impl Route for Object {
    const PATH: &'static str = "/slime/object";
    const DIALECT: Dialect = Dialect::Slime;
    const ABOUT: &'static str = "The reward of one rollout as an object, for --reward-key.";
    type Request = SlimeRequest;
    type Reply = SlimeObject;

    async fn answer(exchange: &Exchange, request: SlimeRequest) -> Result<Response, Fault> {
        let Number { raw, unit, spread, .. } = number(exchange, request).await?;
        json(&SlimeObject { reward: raw, score: unit, vote_spread: spread })
    }
}

pub(super) fn add(routes: Routes) -> Routes {
    routes.post::<Slime>().post::<Object>()
}
