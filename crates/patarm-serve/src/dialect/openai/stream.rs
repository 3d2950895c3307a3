//! Answers as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use patarm_reward::serving::Answer;
use serde_json::{Value, json};

use super::chat::{ChatUsage, StreamOptions, choice, finish_reason};
use super::stop::Holdback;
use crate::core::{Ticket, Update};
use crate::dialect::Dialect;
use crate::exchange::{Exchange, InFlight, KEEP_ALIVE};
use crate::fault::{Fault, FaultCode};

/// What every event repeats.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
}

/// What a stream is like.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) stops: Vec<String>,
    pub(super) logprobs: bool,
    pub(super) options: StreamOptions,
    pub(super) prompt_tokens: usize,
}

struct Streaming {
    ticket: Ticket,
    head: Head,
    settings: Settings,
    holdbacks: Vec<Holdback>,
    completion_tokens: usize,
    ready: VecDeque<String>,
    deadline: tokio::time::Instant,
    request_id: String,
    is_over: bool,
    _in_flight: InFlight,
}

/// Streams the answers of a ticket. A fault before the first news is an ordinary error.
pub(super) async fn respond(
    exchange: &Exchange,
    mut ticket: Ticket,
    head: Head,
    settings: Settings,
) -> Result<Response, Fault> {
    let num_choices = ticket.num_prompt_tokens().len();
    let first = ticket.next().await;
    if let Some((_, Update::Done(Err(fault)))) = first {
        return Err(fault);
    }
    let mut state = Streaming {
        ticket,
        head,
        settings,
        holdbacks: vec![Holdback::default(); num_choices],
        completion_tokens: 0,
        ready: VecDeque::new(),
        deadline: exchange.deadline,
        request_id: exchange.id.clone(),
        is_over: false,
        _in_flight: InFlight::new(&exchange.app),
    };
    for index in 0..num_choices {
        let delta = json!({ "role": "assistant", "content": "" });
        state.push_delta(index, &delta, None, &Value::Null);
    }
    state.take(first);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events(state)).keep_alive(keep_alive).into_response())
}

fn events(state: Streaming) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(state, |mut state| async move {
        loop {
            if let Some(data) = state.ready.pop_front() {
                return Some((Ok(Event::default().data(data)), state));
            }
            if state.is_over {
                return None;
            }
            match tokio::time::timeout_at(state.deadline, state.ticket.next()).await {
                Ok(news) => state.take(news),
                Err(_) => state.fail(&Fault::plain(FaultCode::DeadlineExceeded)),
            }
        }
    })
}

impl Streaming {
    fn take(&mut self, news: Option<(usize, Update)>) {
        match news {
            Some((index, Update::Text { text, .. })) => {
                let Some(holdback) = self.holdbacks.get_mut(index) else { return };
                let text = holdback.push(&text, &self.settings.stops);
                self.push_text(index, &text);
            }
            Some((index, Update::Done(Ok(Answer::Chat(answer))))) => {
                let rest = self.holdbacks.get_mut(index).map(Holdback::finish);
                self.push_text(index, &rest.unwrap_or_default());
                self.completion_tokens += answer.num_tokens;
                let whole = choice(index, &answer, &self.settings.stops, self.settings.logprobs);
                let logprobs = json!(whole.logprobs);
                self.push_delta(index, &json!({}), Some(finish_reason(&answer)), &logprobs);
            }
            Some((_, Update::Done(Err(fault)))) => self.fail(&fault),
            Some((_, Update::Done(Ok(_)))) => self.fail(&Fault::plain(FaultCode::Internal)),
            None => self.end(),
        }
    }

    fn push_text(&mut self, index: usize, text: &str) {
        if !text.is_empty() {
            self.push_delta(index, &json!({ "content": text }), None, &Value::Null);
        }
    }

    fn push_delta(
        &mut self,
        index: usize,
        delta: &Value,
        finish_reason: Option<&str>,
        logprobs: &Value,
    ) {
        let choice = json!({
            "index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs,
        });
        let chunk = self.chunk(&json!([choice]), &Value::Null);
        self.ready.push_back(chunk);
    }

    fn chunk(&self, choices: &Value, usage: &Value) -> String {
        let mut chunk = json!({
            "id": self.head.id,
            "object": "chat.completion.chunk",
            "created": self.head.created,
            "model": self.head.model,
            "choices": choices,
        });
        if self.settings.options.include_usage {
            chunk["usage"] = usage.clone();
        }
        chunk.to_string()
    }

    fn end(&mut self) {
        if self.settings.options.include_usage {
            let usage = ChatUsage::new(self.settings.prompt_tokens, self.completion_tokens);
            let chunk = self.chunk(&json!([]), &json!(usage));
            self.ready.push_back(chunk);
        }
        self.ready.push_back("[DONE]".into());
        self.is_over = true;
    }

    fn fail(&mut self, fault: &Fault) {
        self.ready.push_back(Dialect::OpenAi.error(fault, &self.request_id).to_string());
        self.is_over = true;
    }
}
