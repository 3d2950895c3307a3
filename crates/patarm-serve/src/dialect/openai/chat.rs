//! `POST /v1/chat/completions`.

use axum::response::Response;
use patarm_reward::serving::{Answer, Ask, ChatAnswer, ChatAsk, Delivery};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::logprobs::Logprobs;
use super::{stop, stream};
use crate::dialect::Dialect;
use crate::dialect::input::{ChatMessage, Texts, conversation};
use crate::exchange::{Exchange, Route, json};
use crate::fault::{Fault, FaultCode};

/// Most stop strings, as in the protocol.
const MAX_STOPS: usize = 4;
/// Most alternatives of a token, as in the protocol.
const MAX_TOP_LOGPROBS: usize = 20;
/// Longest stop string, in bytes.
const MAX_STOP_BYTES: usize = 256;

/// A request for answers.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct ChatRequest {
    /// Which model; the first where it is not given.
    #[serde(default)]
    pub model: Option<String>,
    /// The conversation.
    pub messages: Vec<ChatMessage>,
    /// Generation limit in tokens.
    #[serde(default)]
    pub max_completion_tokens: Option<usize>,
    /// The same by its older name.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// 0 = greedy; 1 where it is not given.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// Nucleus threshold; 1 = off.
    #[serde(default)]
    pub top_p: Option<f64>,
    /// Answers wanted.
    #[serde(default)]
    pub n: Option<usize>,
    /// Seed of the draws; 0 where it is not given.
    #[serde(default)]
    pub seed: Option<i64>,
    /// Generation ends before any of these.
    #[serde(default)]
    pub stop: Option<Texts>,
    /// Whether to tell the log-probability of every token.
    #[serde(default)]
    pub logprobs: Option<bool>,
    /// Most probable tokens to tell at the place of every token, 0 to 20; with `logprobs`.
    #[serde(default)]
    pub top_logprobs: Option<usize>,
    /// Whether to send server-sent events while the model writes.
    #[serde(default)]
    pub stream: Option<bool>,
    /// What to send with them.
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// Only `{"type": "text"}` is there.
    #[serde(default)]
    pub response_format: Value,
    /// Tools are not there.
    #[serde(default)]
    pub tools: Value,
}

/// What a stream carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct StreamOptions {
    /// Whether a last event tells the tokens.
    #[serde(default)]
    pub include_usage: bool,
}

/// Answers.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ChatReply {
    /// Identity of the answer.
    pub id: String,
    /// `chat.completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Which model wrote.
    pub model: String,
    /// The answers.
    pub choices: Vec<Choice>,
    /// Tokens read and written.
    pub usage: ChatUsage,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Choice {
    /// Which answer.
    pub index: usize,
    /// What was written.
    pub message: Written,
    /// `stop` or `length`.
    pub finish_reason: String,
    /// Log-probabilities, where they were asked for.
    pub logprobs: Option<Logprobs>,
}

/// A message that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Written {
    /// `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ChatUsage {
    /// Tokens read.
    pub prompt_tokens: usize,
    /// Tokens written.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
}

impl ChatUsage {
    pub(super) fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        let total_tokens = prompt_tokens + completion_tokens;
        Self { prompt_tokens, completion_tokens, total_tokens }
    }
}

/// A request whose settings were checked.
struct Checked {
    model: Option<String>,
    ask: ChatAsk,
    num_choices: usize,
    logprobs: bool,
    stream: Option<StreamOptions>,
}

fn unsupported(what: &str) -> Fault {
    Fault::new(FaultCode::Unsupported, what)
}

impl ChatRequest {
    fn check(self, max_choices: usize) -> Result<Checked, Fault> {
        let logprobs = self.logprobs.unwrap_or(false);
        let top_logprobs = self.top_logprobs.unwrap_or(0);
        if top_logprobs > MAX_TOP_LOGPROBS || (top_logprobs > 0 && !logprobs) {
            let message = format!("top_logprobs must lie in 0..={MAX_TOP_LOGPROBS}, with logprobs");
            return Err(Fault::bad_request(message));
        }
        if !matches!(&self.response_format, Value::Null) && self.response_format["type"] != "text" {
            return Err(unsupported("response_format: only text is there"));
        }
        if self.tools.as_array().is_some_and(|tools| !tools.is_empty()) {
            return Err(unsupported("tools: a judge calls none"));
        }
        let num_choices = self.n.unwrap_or(1);
        if !(1..=max_choices).contains(&num_choices) {
            return Err(Fault::bad_request(format!("n must lie in 1..={max_choices}")));
        }
        let conversation = conversation(self.messages).map_err(Fault::bad_request)?;
        let stream = self.stream.unwrap_or(false);
        let ask = ChatAsk {
            max_tokens: positive(self.max_completion_tokens.or(self.max_tokens))?,
            temperature: within("temperature", self.temperature, 2.0)?,
            top_p: within("top_p", self.top_p, 1.0)?,
            stop: stops(self.stop)?,
            seed: self.seed.unwrap_or(0) as u64,
            choice: 0,
            top_logprobs,
            delivery: if stream { Delivery::Streamed } else { Delivery::Whole },
            conversation,
        };
        Ok(Checked {
            model: self.model,
            ask,
            num_choices,
            logprobs,
            stream: stream.then(|| self.stream_options.unwrap_or_default()),
        })
    }
}

fn positive(tokens: Option<usize>) -> Result<Option<usize>, Fault> {
    match tokens {
        Some(0) => Err(Fault::bad_request("max_tokens must be at least 1")),
        other => Ok(other),
    }
}

fn within(name: &str, value: Option<f64>, high: f64) -> Result<f64, Fault> {
    let value = value.unwrap_or(1.0);
    match (0.0..=high).contains(&value) {
        true => Ok(value),
        false => Err(Fault::bad_request(format!("{name} must lie in 0..={high}"))),
    }
}

fn stops(stop: Option<Texts>) -> Result<Vec<String>, Fault> {
    let stops = stop.map_or_else(Vec::new, |texts| texts.0);
    let is_fine = |stop: &String| !stop.is_empty() && stop.len() <= MAX_STOP_BYTES;
    if stops.len() > MAX_STOPS || !stops.iter().all(is_fine) {
        let message = format!("stop: at most {MAX_STOPS} strings of 1 to {MAX_STOP_BYTES} bytes");
        return Err(Fault::bad_request(message));
    }
    Ok(stops)
}

/// A finished answer as a choice.
pub(super) fn choice(
    index: usize,
    answer: &ChatAnswer,
    conversation_stops: &[String],
    logprobs: bool,
) -> Choice {
    Choice {
        index,
        message: Written {
            role: "assistant".into(),
            content: stop::cut(&answer.text, conversation_stops).to_owned(),
        },
        finish_reason: finish_reason(answer).into(),
        logprobs: logprobs.then(|| Logprobs::of(answer)),
    }
}

pub(super) fn finish_reason(answer: &ChatAnswer) -> &'static str {
    if answer.truncated { "length" } else { "stop" }
}

/// The route.
pub(crate) struct Chat;

impl Route for Chat {
    const PATH: &'static str = "/v1/chat/completions";
    const DIALECT: Dialect = Dialect::OpenAi;
    const ABOUT: &'static str = "Answers of a generative judge to a conversation.";
    type Request = ChatRequest;
    type Reply = ChatReply;

    async fn answer(exchange: &Exchange, request: ChatRequest) -> Result<Response, Fault> {
        let checked = request.check(exchange.app.config().limits.max_votes)?;
        let Checked { model, ask, num_choices, logprobs, stream } = checked;
        let stops = ask.stop.clone();
        let choices = (0..num_choices as u64).map(|choice| ChatAsk { choice, ..ask.clone() });
        let asks = choices.map(Ask::Chat).collect();
        let ticket = exchange.submit(model.as_deref(), asks).await?;
        let card = exchange.app.core().host(model.as_deref())?.card();
        let prompt_tokens = ticket.num_prompt_tokens().first().copied().unwrap_or(0);
        let head = stream::Head {
            id: format!("chatcmpl-{}", exchange.id),
            created: exchange.created_s,
            model: card.name.clone(),
        };
        if let Some(options) = stream {
            let settings = stream::Settings { stops, logprobs, options, prompt_tokens };
            return stream::respond(exchange, ticket, head, settings).await;
        }
        let (mut choices, mut completion_tokens) = (Vec::new(), 0);
        for (index, answer) in ticket.collect().await.into_iter().enumerate() {
            let Answer::Chat(answer) = answer? else {
                return Err(Fault::plain(FaultCode::Internal));
            };
            completion_tokens += answer.num_tokens;
            choices.push(choice(index, &answer, &stops, logprobs));
        }
        json(&ChatReply {
            id: head.id,
            object: "chat.completion".into(),
            created: head.created,
            model: head.model,
            choices,
            usage: ChatUsage::new(prompt_tokens, completion_tokens),
        })
    }
}

/// A conversation to be continued, for tests of settings.
#[cfg(test)]
fn parse(body: Value) -> Result<(patarm_text::Conversation, usize), Fault> {
    let request: ChatRequest = serde_json::from_value(body).map_err(Fault::bad_request)?;
    let checked = request.check(8)?;
    Ok((checked.ask.conversation, checked.num_choices))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_checked() {
        let with = |key: &str, value: Value| {
            let mut body = json!({ "messages": [{ "role": "user", "content": "q" }] });
            body[key] = value;
            parse(body)
        };
        assert_eq!(with("n", json!(3)).unwrap().1, 3);
        assert!(with("response_format", json!({ "type": "text" })).is_ok());
        assert!(with("tools", json!([])).is_ok());
        for (key, value) in [
            ("n", json!(0)),
            ("n", json!(9)),
            ("temperature", json!(-0.1)),
            ("temperature", json!(2.1)),
            ("top_p", json!(1.1)),
            ("max_tokens", json!(0)),
            ("stop", json!([""])),
            ("stop", json!(["a", "b", "c", "d", "e"])),
            ("top_logprobs", json!(5)),
            ("top_logprobs", json!(21)),
            ("response_format", json!({ "type": "json_object" })),
            ("tools", json!([{}])),
            ("messages", json!([])),
        ] {
            assert!(with(key, value.clone()).is_err(), "{key}: {value}");
        }
    }
}
