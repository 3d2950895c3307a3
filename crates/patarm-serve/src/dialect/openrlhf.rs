//! OpenRLHF's remote reward: `POST /get_reward`.
//!
//! The client makes tensors of what comes back: every list is as long as the request's,
//! `extra_logs` holds numbers only, with the same keys for every sample, and a client that
//! spreads a batch over several addresses sends empty lists to some of them.

use axum::response::Response;
use patarm_reward::serving::{Ask, JudgeAsk, Sequence, SpecialTokens};
use patarm_text::Item;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dialect, markup, scoring};
use crate::exchange::{Exchange, Route, json};
use crate::fault::Fault;
use crate::router::Routes;

/// Rollouts to be scored.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct RewardRequest {
    /// Prompt and response as the policy saw and wrote them, control tokens spelt out.
    pub query: Vec<String>,
    /// The prompts alone; needed by judges, which read prompt and response apart.
    #[serde(default)]
    pub prompts: Vec<String>,
    /// Labels of the data set; not used.
    #[serde(default)]
    #[schemars(with = "Vec<serde_json::Value>")]
    pub labels: serde_json::Value,
}

/// Rewards in the order of the rollouts.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct RewardReply {
    /// As the model gives them; less the mean and over the deviation that its checkpoint
    /// declares, where it does.
    pub rewards: Vec<f64>,
    /// Mapped to 0..=1, for dynamic filtering.
    pub scores: Vec<f64>,
    /// More numbers, for the trainer's log.
    pub extra_logs: ExtraLogs,
}

/// Numbers for the trainer's log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ExtraLogs {
    /// Standard deviation of the votes.
    pub vote_spread: Vec<f64>,
    /// Votes with a usable number.
    pub valid_votes: Vec<f64>,
    /// 1 where the reward stands in for one that does not exist.
    pub faults: Vec<f64>,
}

/// The route.
pub(crate) struct GetReward;

impl Route for GetReward {
    const PATH: &'static str = "/get_reward";
    const DIALECT: Dialect = Dialect::OpenRlhf;
    const ABOUT: &'static str = "Rewards for OpenRLHF's remote_url.";
    type Request = RewardRequest;
    type Reply = RewardReply;

    async fn answer(exchange: &Exchange, request: RewardRequest) -> Result<Response, Fault> {
        let card = exchange.app.core().host(None)?.card();
        let asks = match card.family.takes_sequences() {
            true => request.query.into_iter().map(sequence).collect(),
            false => items(request, card.votes)?,
        };
        let numbers = scoring::numbers(exchange, None, asks).await?.numbers;
        let flag = |is_set: bool| f64::from(u8::from(is_set));
        json(&RewardReply {
            rewards: numbers.iter().map(|number| card.normalised(number.raw)).collect(),
            scores: numbers.iter().map(|number| number.unit).collect(),
            extra_logs: ExtraLogs {
                vote_spread: numbers.iter().map(|number| number.spread).collect(),
                valid_votes: numbers.iter().map(|number| number.num_valid as f64).collect(),
                faults: numbers.iter().map(|number| flag(number.is_fault)).collect(),
            },
        })
    }
}

/// The text is complete: its own special tokens are in it.
fn sequence(text: String) -> Ask {
    Ask::Sequence(Sequence::Text { text, special_tokens: SpecialTokens::Omit })
}

fn items(request: RewardRequest, votes: usize) -> Result<Vec<Ask>, Fault> {
    let RewardRequest { query, prompts, .. } = request;
    if prompts.len() != query.len() {
        let message =
            format!("{} prompts for {} queries: must be as many", prompts.len(), query.len());
        return Err(Fault::bad_request(message));
    }
    let each = query.iter().zip(&prompts).enumerate().map(|(index, (query, prompt))| {
        let response = query.strip_prefix(prompt.as_str()).ok_or_else(|| {
            Fault::bad_request(format!("query {index} does not begin with its prompt"))
        })?;
        let response = markup::response(response).to_owned();
        let item = Item { prompt: markup::conversation(prompt), response };
        Ok(Ask::Judge(JudgeAsk::new(item, None, votes)))
    });
    each.collect()
}

pub(super) fn add(routes: Routes) -> Routes {
    routes.post::<GetReward>()
}
