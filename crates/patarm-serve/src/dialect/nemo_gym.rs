//! NeMo Gym's generative comparison: `POST /compare`, rewards of a group of responses.
//!
//! Its own judge sees two responses at a time and gives each 1 to 5, and a ranking from 1
//! (the first is much better) to 6. Here each response is scored alone, its score is
//! mapped to 1..=5, and neighbours in the circle of responses are compared by these
//! numbers, so that the parts mean what they mean there.

use axum::response::Response;
use patarm_reward::serving::{Ask, JudgeAsk};
use patarm_text::{Conversation, Item, Message, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::input::{ChatMessage, content_text, conversation};
use super::{Dialect, markup};
use crate::exchange::{Exchange, Route, json};
use crate::fault::{Fault, FaultCode};
use crate::router::Routes;

/// The reward of a response without a usable score: the middle of 1..=5.
const NEUTRAL: f64 = 3.0;

/// Responses to be compared.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct CompareRequest {
    /// What was said before.
    pub conversation_history: Vec<ChatMessage>,
    /// The responses: objects of the responses protocol, or texts.
    pub response_objs: Vec<ResponseObject>,
    /// What to judge by.
    #[serde(default)]
    pub principle: Option<String>,
}

/// One response, whatever form it has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Value")]
#[schemars(with = "Value")]
pub struct ResponseObject(String);

impl TryFrom<Value> for ResponseObject {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        if let Value::String(text) = value {
            return Ok(Self(text));
        }
        let outputs = value["output"].as_array().ok_or("a response is text or has an output")?;
        let mut text = String::new();
        for output in outputs.iter().filter(|output| output["type"] == "message") {
            text.push_str(&content_text(output["content"].clone())?);
        }
        Ok(Self(text))
    }
}

/// Rewards in the order of the responses.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CompareReply {
    /// From 1 to 5.
    pub rewards: Vec<f64>,
    /// Each response with the next one.
    pub comparison_results: Vec<Comparison>,
    /// Counts.
    pub metrics: CompareMetrics,
}

/// Two responses side by side.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Comparison {
    /// Index of the first.
    pub response_i: usize,
    /// Index of the second.
    pub response_j: usize,
    /// Reward of the first.
    pub score_1: f64,
    /// Reward of the second.
    pub score_2: f64,
    /// From 1 (the first is much better) to 6 (the second is).
    pub ranking: f64,
}

/// Counts of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CompareMetrics {
    /// Responses.
    pub num_responses: usize,
    /// Responses without a usable score.
    pub num_unparsed: usize,
    /// Mean reward.
    pub mean_reward: f64,
}

/// The route.
pub(crate) struct Compare;

impl Route for Compare {
    const PATH: &'static str = "/compare";
    const DIALECT: Dialect = Dialect::NemoGym;
    const ABOUT: &'static str = "Rewards of a group of responses, for NeMo Gym.";
    type Request = CompareRequest;
    type Reply = CompareReply;

    async fn answer(exchange: &Exchange, request: CompareRequest) -> Result<Response, Fault> {
        let card = exchange.app.core().host(None)?.card();
        let prompt = prompt(request.conversation_history, request.principle)?;
        let ask = |ResponseObject(text): ResponseObject| {
            let response = markup::response(&text).to_owned();
            Ask::Judge(JudgeAsk::new(Item { prompt: prompt.clone(), response }, None, card.votes))
        };
        let asks = request.response_objs.into_iter().map(ask).collect();
        let (mut rewards, mut num_unparsed) = (Vec::new(), 0);
        for answer in exchange.run(None, asks).await? {
            match answer.and_then(|answer| card.number(&answer).map_err(Fault::from)) {
                Ok(vote) => rewards.push(1.0 + 4.0 * card.to_unit(vote.value)),
                Err(fault) if fault.code == FaultCode::Unscored => {
                    rewards.push(NEUTRAL);
                    num_unparsed += 1;
                }
                Err(fault) => return Err(fault),
            }
        }
        json(&reply(rewards, num_unparsed))
    }
}

fn prompt(history: Vec<ChatMessage>, principle: Option<String>) -> Result<Conversation, Fault> {
    let mut prompt = conversation(history).map_err(Fault::bad_request)?;
    if let Some(principle) = principle.filter(|principle| !principle.trim().is_empty()) {
        let text = format!("Judge the response by this principle: {principle}");
        prompt.messages.push(Message::text(Role::System, text));
    }
    Ok(prompt)
}

fn reply(rewards: Vec<f64>, num_unparsed: usize) -> CompareReply {
    let num_responses = rewards.len();
    let pairs = if num_responses < 2 { 0 } else { num_responses };
    let comparisons = (0..pairs).map(|i| {
        let j = (i + 1) % num_responses;
        Comparison {
            response_i: i,
            response_j: j,
            score_1: rewards[i],
            score_2: rewards[j],
            ranking: ranking(rewards[i], rewards[j]),
        }
    });
    let comparison_results = comparisons.collect();
    let mean_reward = rewards.iter().sum::<f64>() / num_responses.max(1) as f64;
    let metrics = CompareMetrics { num_responses, num_unparsed, mean_reward };
    CompareReply { rewards, comparison_results, metrics }
}

/// 3.5 for equal rewards, 1 or 6 where they lie as far apart as they can.
fn ranking(first: f64, second: f64) -> f64 {
    (3.5 - (first - second) * 2.5 / 4.0).clamp(1.0, 6.0)
}

pub(super) fn add(routes: Routes) -> Routes {
    routes.post::<Compare>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rankings() {
        assert_eq!(ranking(3.0, 3.0), 3.5);
        assert_eq!(ranking(5.0, 1.0), 1.0);
        assert_eq!(ranking(1.0, 5.0), 6.0);
    }

    #[test]
    fn groups_are_compared_in_a_circle() {
        let circle = reply(vec![1.0, 5.0, 3.0], 0);
        let pairs: Vec<_> =
            circle.comparison_results.iter().map(|c| (c.response_i, c.response_j)).collect();
        assert_eq!(pairs, [(0, 1), (1, 2), (2, 0)]);
        assert_eq!(circle.metrics.mean_reward, 3.0);
        assert!(reply(vec![2.0], 0).comparison_results.is_empty());
        assert_eq!(reply(Vec::new(), 0).metrics.mean_reward, 0.0);
    }

    #[test]
    fn responses_of_the_responses_protocol() {
        let object = json!({ "output": [
            { "type": "reasoning", "summary": [] },
            { "type": "message", "content": [{ "type": "output_text", "text": "a" }] },
            { "type": "message", "content": [{ "type": "output_text", "text": "b" }] },
        ]});
        assert_eq!(serde_json::from_value::<ResponseObject>(object).unwrap().0, "ab");
        assert_eq!(serde_json::from_value::<ResponseObject>(json!("a")).unwrap().0, "a");
        assert!(serde_json::from_value::<ResponseObject>(json!({})).is_err());
    }
}
