//! `POST /v1/judge`: rubric, evaluation and score of one response, as they are written.

use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use patarm_reward::judgement::Judgement;
use patarm_reward::model::Reward;
use patarm_reward::serving::{Answer, Ask, Delivery, JudgeAsk, ModelCard};
use patarm_text::Item;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ItemError, Prompt, StepScore, TaskName, TokenScore};
use crate::core::{Ticket, Update};
use crate::dialect::Dialect;
use crate::exchange::{Exchange, InFlight, KEEP_ALIVE, Route, json as json_reply};
use crate::fault::{Fault, FaultCode};

/// A request for judgements of one response.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeRequest {
    /// Which model; the first where it is not given.
    pub model: Option<String>,
    /// The prompt.
    pub prompt: Prompt,
    /// The response.
    pub response: String,
    /// Kind of work.
    pub task: Option<TaskName>,
    /// Judgements.
    pub votes: Option<usize>,
    /// Whether to send server-sent events while the judge writes.
    #[serde(default)]
    pub stream: bool,
}

/// What the judge says.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct JudgeReply {
    /// Which model judged.
    pub model: String,
    /// The combined number; null when no judgement has a usable score.
    pub score: Option<f64>,
    /// Standard deviation of the votes' numbers.
    pub spread: Option<f64>,
    /// Votes with a usable number.
    pub valid_votes: usize,
    /// Smallest and largest score, where the scale has ends.
    pub scale: Option<[f64; 2]>,
    /// The votes; none from models that write nothing.
    pub judgements: Vec<JudgementReply>,
    /// Variance of the number, for models that give a distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance: Option<f64>,
    /// The value of every scored token in order, for models that give any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenScore>,
    /// The value of every step in order, for models that give any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepScore>,
    /// Tokens read.
    pub prompt_tokens: usize,
}

/// One vote.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct JudgementReply {
    /// Everything the judge wrote.
    pub text: String,
    /// The criteria it set itself.
    pub criteria: Vec<CriterionReply>,
    /// Its evaluation.
    pub evaluation: String,
    /// The score it wrote.
    pub score: Option<f64>,
    /// The expectation under its own distribution, where that was read.
    pub expected_score: Option<f64>,
    /// Why there is no score, as one of a closed list of kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Tokens written.
    pub num_tokens: usize,
}

/// One criterion of a rubric.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CriterionReply {
    /// Its name.
    pub name: String,
    /// What it asks.
    pub description: String,
    /// Its weight.
    pub weight: Option<f64>,
}

impl From<&Judgement> for JudgementReply {
    fn from(judgement: &Judgement) -> Self {
        let criteria = judgement.rubric.criteria.iter().map(|criterion| CriterionReply {
            name: criterion.name.clone(),
            description: criterion.description.clone(),
            weight: criterion.weight,
        });
        Self {
            text: judgement.text.clone(),
            criteria: criteria.collect(),
            evaluation: judgement.evaluation.clone(),
            score: judgement.score.ok(),
            expected_score: judgement.expected_score,
            fault: judgement.score.err().map(|fault| fault.name().to_owned()),
            num_tokens: judgement.num_tokens,
        }
    }
}

impl JudgeReply {
    fn new(card: &ModelCard, answer: &Answer, prompt_tokens: usize) -> Self {
        let vote = card.number(answer).ok();
        let judgements = match answer {
            Answer::Judgements(judgements) => judgements.iter().map(Into::into).collect(),
            _ => Vec::new(),
        };
        let nothing = Reward::default();
        let reward = match answer {
            Answer::Reward(reward) => reward,
            _ => &nothing,
        };
        Self {
            model: card.name.clone(),
            score: vote.map(|vote| vote.value),
            spread: vote.map(|vote| vote.spread),
            valid_votes: vote.map_or(0, |vote| vote.num_valid),
            scale: card.scale.map(|(low, high)| [low, high]),
            judgements,
            variance: reward.variance,
            tokens: reward.token_values.iter().map(TokenScore::from).collect(),
            steps: StepScore::of(reward),
            prompt_tokens,
        }
    }
}

/// The route.
pub(crate) struct Judge;

impl Route for Judge {
    const PATH: &'static str = "/v1/judge";
    const DIALECT: Dialect = Dialect::Native;
    const ABOUT: &'static str = "Rubric, evaluation and score of one response; streams on demand.";
    type Request = JudgeRequest;
    type Reply = JudgeReply;

    async fn answer(exchange: &Exchange, request: JudgeRequest) -> Result<Response, Fault> {
        let host = exchange.app.core().host(request.model.as_deref())?;
        let item = Item { prompt: request.prompt.into_conversation(), response: request.response };
        let votes = request.votes.unwrap_or(host.card().votes).max(1);
        let mut ask = JudgeAsk::new(item, request.task.and_then(Into::into), votes);
        if request.stream {
            ask.delivery = Delivery::Streamed;
        }
        let ticket = exchange.submit(request.model.as_deref(), vec![Ask::Judge(ask)]).await?;
        let prompt_tokens = ticket.num_prompt_tokens().iter().sum();
        let card = host.card();
        if request.stream {
            let state = Streaming {
                ticket,
                card: card.clone(),
                prompt_tokens,
                deadline: exchange.deadline,
                is_over: false,
                _in_flight: InFlight::new(&exchange.app),
            };
            let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
            return Ok(Sse::new(events(state)).keep_alive(keep_alive).into_response());
        }
        let mut answers = ticket.collect().await;
        let answer = answers.pop().unwrap_or_else(|| Err(Fault::plain(FaultCode::Internal)))?;
        json_reply(&JudgeReply::new(card, &answer, prompt_tokens))
    }
}

struct Streaming {
    ticket: Ticket,
    card: ModelCard,
    prompt_tokens: usize,
    deadline: tokio::time::Instant,
    is_over: bool,
    _in_flight: InFlight,
}

/// `text` events `{"vote", "text"}` while the judge writes, then one `done` with the
/// whole reply or one `error`.
fn events(state: Streaming) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(state, |mut state| async move {
        if state.is_over {
            return None;
        }
        let next = tokio::time::timeout_at(state.deadline, state.ticket.next()).await;
        let event = match next {
            Ok(Some((_, Update::Text { vote, text }))) => Event::default()
                .event("text")
                .data(json!({ "vote": vote, "text": text }).to_string()),
            Ok(Some((_, Update::Done(Ok(answer))))) => {
                state.is_over = true;
                let reply = JudgeReply::new(&state.card, &answer, state.prompt_tokens);
                let data = serde_json::to_string(&reply).unwrap_or_default();
                Event::default().event("done").data(data)
            }
            Ok(Some((_, Update::Done(Err(fault))))) => state.failed(&fault),
            Ok(None) => state.failed(&Fault::plain(FaultCode::Internal)),
            Err(_) => state.failed(&Fault::plain(FaultCode::DeadlineExceeded)),
        };
        Some((Ok(event), state))
    })
}

impl Streaming {
    fn failed(&mut self, fault: &Fault) -> Event {
        self.is_over = true;
        let error = serde_json::to_string(&ItemError::from(fault)).unwrap_or_default();
        Event::default().event("error").data(error)
    }
}
