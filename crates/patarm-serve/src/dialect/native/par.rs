//! `POST /v1/par`: rewards that need several rollouts, for callers that each hold one.
//!
//! What a cohort is and what happens to one is in [`crate::cohort`]; here is how bodies
//! are read, how callers wait, and how answers are written. A caller waits at most
//! `wait_ms`; what is not complete by then is `pending`, stays counted, and is asked
//! again with the same ids.

mod wait;
mod wire;

pub(crate) use wait::CohortService;
pub use wire::{
    GroupPlace, PairPlace, ParReply, ParRequest, RolloutReply, RolloutRequest, RolloutStatus,
};

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use patarm_reward::judgement::FormatFault;
use patarm_reward::par::ParScore;
use patarm_reward::serving::{Ask, JudgeAsk};
use patarm_text::Item;

use super::{ItemError, ItemRequest};
use crate::cohort::{Arrival, CohortState};
use crate::dialect::Dialect;
use crate::exchange::{Exchange, Route, json, refuse};
use crate::fault::{Fault, FaultCode};
use crate::router::{App, Routes};
use wire::{Checked, Content};

/// Longest wait of one request where it names none, in milliseconds.
const DEFAULT_WAIT_MS: u64 = 30_000;
/// Time kept for writing the answer before the deadline of the request.
const MARGIN: Duration = Duration::from_millis(500);

pub(super) fn add(routes: Routes) -> Routes {
    routes.post::<Par>().get(
        "/v1/par/{cohort_id}",
        "Where a cohort stands; DELETE cancels it.",
        get(state).delete(cancel),
    )
}

/// The route.
pub(crate) struct Par;

impl Route for Par {
    const PATH: &'static str = "/v1/par";
    const DIALECT: Dialect = Dialect::Native;
    const ABOUT: &'static str =
        "Preference-aware or group-relative rewards, once all rollouts have arrived.";
    type Request = ParRequest;
    type Reply = ParReply;

    async fn answer(exchange: &Exchange, request: ParRequest) -> Result<Response, Fault> {
        let app = &exchange.app;
        let num_rollouts = request.rollouts.len();
        if num_rollouts > app.config().limits.max_items {
            let most = app.config().limits.max_items;
            let message = format!("{num_rollouts} rollouts, at most {most}");
            return Err(Fault::new(FaultCode::TooManyItems, message));
        }
        let wait = Duration::from_millis(request.wait_ms.unwrap_or(DEFAULT_WAIT_MS));
        let now = tokio::time::Instant::now();
        let latest = exchange.deadline.checked_sub(MARGIN).unwrap_or(now);
        let until = now.checked_add(wait).map_or(latest, |until| until.min(latest));
        let format = &app.config().cohorts.format;
        let checked = request.rollouts.into_iter().map(|rollout| rollout.check(format)).collect();
        let arrivals = score_items(exchange, checked).await?;
        let (ids, arrivals): (Vec<_>, Vec<_>) = arrivals.into_iter().unzip();
        let results = app.cohorts().gather(arrivals, until, app.shutdown()).await;
        let replies = ids.into_iter().zip(results);
        let results = replies.map(|(id, result)| RolloutReply::new(id, result)).collect();
        json(&ParReply { results })
    }
}

/// Has the model score the responses among the rollouts; what cannot be scored for a
/// reason of the server's is refused and may be sent again.
async fn score_items(
    exchange: &Exchange,
    checked: Vec<Checked>,
) -> Result<Vec<(wire::RolloutId, Result<Arrival, ItemError>)>, Fault> {
    let cohorts = exchange.app.cohorts();
    let mut asks = Vec::new();
    let mut known = Vec::with_capacity(checked.len());
    for Checked { id, result } in checked {
        let result = result.map(|(draft, content)| {
            let score = match content {
                Content::Score(score) => Some(score),
                // A caller who asks again must not have its response scored again.
                Content::Item(item) => cohorts.known_score(&id).or_else(|| {
                    asks.push(item_ask(exchange, item));
                    None
                }),
            };
            (draft, score)
        });
        known.push((id, result));
    }
    let votes = if asks.is_empty() { Vec::new() } else { score_all(exchange, asks).await? };
    let mut votes = votes.into_iter();
    let arrival = |(id, result): (wire::RolloutId, _)| {
        let result = match result {
            Err(error) => Err(error),
            Ok((draft, Some(score))) => Ok(wire::arrival(&id, draft, score)),
            Ok((draft, None)) => match votes.next() {
                Some(Ok(score)) => Ok(wire::arrival(&id, draft, score)),
                Some(Err(fault)) => Err(ItemError::from(&fault)),
                None => Err(ItemError::from(&Fault::plain(FaultCode::Internal))),
            },
        };
        (id, result)
    };
    Ok(known.into_iter().map(arrival).collect())
}

fn item_ask(exchange: &Exchange, item: ItemRequest) -> Ask {
    let votes = exchange.app.core().hosts().first().map_or(1, |host| host.card().votes);
    let ItemRequest { prompt, response, task, .. } = item;
    let item = Item { prompt: prompt.into_conversation(), response };
    Ask::Judge(JudgeAsk::new(item, task.and_then(Into::into), votes.max(1)))
}

/// Scores in the order of the asks; judgements without a usable score count as a bad
/// score, as they do when a caller sends them.
async fn score_all(
    exchange: &Exchange,
    asks: Vec<Ask>,
) -> Result<Vec<Result<ParScore, Fault>>, Fault> {
    let card = match exchange.app.core().host(None) {
        Ok(host) => host.card(),
        Err(fault) => return Ok(asks.iter().map(|_| Err(fault.clone())).collect()),
    };
    let answers = exchange.run(None, asks).await?;
    let score = |answer: Result<_, Fault>| {
        let number = answer.and_then(|answer| card.number(&answer).map_err(Fault::from));
        match number {
            Ok(vote) => Ok(ParScore::valid(vote.value)),
            Err(fault) if fault.code == FaultCode::Unscored => {
                Ok(ParScore::fault(FormatFault::ScoreAbsent))
            }
            Err(fault) => Err(fault),
        }
    };
    Ok(answers.into_iter().map(score).collect())
}

async fn state(
    State(app): State<Arc<App>>,
    Path(cohort_id): Path<String>,
    headers: HeaderMap,
) -> Response {
    guarded(&app, &headers, || found(app.cohorts().state(&cohort_id)))
}

async fn cancel(
    State(app): State<Arc<App>>,
    Path(cohort_id): Path<String>,
    headers: HeaderMap,
) -> Response {
    guarded(&app, &headers, || {
        app.cohorts().cancel(&cohort_id);
        found(app.cohorts().state(&cohort_id))
    })
}

fn found(state: Option<CohortState>) -> Result<CohortState, Fault> {
    let unknown = || Fault::new(FaultCode::NotFound, "there is no such cohort, or not any more");
    state.ok_or_else(unknown)
}

fn guarded(
    app: &App,
    headers: &HeaderMap,
    look: impl FnOnce() -> Result<CohortState, Fault>,
) -> Response {
    match app.keys().check(headers).and_then(|_| look()) {
        Ok(state) => axum::Json(state).into_response(),
        Err(fault) => refuse(Dialect::Native, &fault, ""),
    }
}

#[cfg(test)]
mod tests;
