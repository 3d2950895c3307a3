//! The JSON of requests and answers, and what an answer means.

use std::time::Duration;

use patarm_text::{Message, Role};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::completer::CompletionRequest;

/// Server messages are shown up to this many characters.
const MAX_MESSAGE_CHARS: usize = 300;

/// What one attempt came to.
pub(super) enum Attempt {
    /// An answer.
    Done(Answer),
    /// A failure that may pass.
    Passing { message: String, retry_after: Option<Duration> },
    /// A failure that will not pass.
    Refused(String),
}

/// The part of an answer that counts.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) num_tokens: usize,
    pub(super) truncated: bool,
    pub(super) logprobs: Option<Vec<f64>>,
}

/// The body of a chat completion request.
pub(super) fn request_body(model: &str, request: &CompletionRequest, logprobs: bool) -> Vec<u8> {
    let messages: Vec<Value> = request.prompt.messages.iter().map(message).collect();
    let mut body = json!({
        "model": model,
        "messages": messages,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        // Some servers hold seeds in 32 bits with a sign.
        "seed": request.seed & 0x7fff_ffff,
        "stream": false,
    });
    if !request.stop.is_empty() {
        body["stop"] = json!(request.stop);
    }
    if logprobs {
        body["logprobs"] = json!(true);
    }
    body.to_string().into_bytes()
}

fn message(message: &Message) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut value = json!({ "role": role, "content": message.plain_text() });
    if !message.tool_calls.is_empty() {
        let call = |call: &patarm_text::ToolCall| {
            json!({
                "id": call.id.clone().unwrap_or_default(),
                "type": "function",
                "function": { "name": call.name, "arguments": call.arguments },
            })
        };
        value["tool_calls"] = message.tool_calls.iter().map(call).collect();
    }
    value
}

#[derive(Deserialize)]
struct WireAnswer {
    choices: Vec<WireChoice>,
    #[serde(default)]
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct WireChoice {
    message: WireMessage,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    logprobs: Option<WireLogprobs>,
}

#[derive(Deserialize)]
struct WireMessage {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default)]
    completion_tokens: usize,
}

#[derive(Deserialize)]
struct WireLogprobs {
    #[serde(default)]
    content: Option<Vec<WireLogprob>>,
}

#[derive(Deserialize)]
struct WireLogprob {
    logprob: f64,
}

/// What an HTTP answer means.
pub(super) fn classify(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Attempt {
    match status {
        200..=299 => match parse(body) {
            Ok(answer) => Attempt::Done(answer),
            Err(message) => Attempt::Passing { message, retry_after },
        },
        408 | 409 | 425 | 429 | 500..=599 => {
            Attempt::Passing { message: status_message(status, body), retry_after }
        }
        _ => Attempt::Refused(status_message(status, body)),
    }
}

/// What a failed exchange means: connections come back, wrong addresses do not.
pub(super) fn transport(error: &ureq::Error) -> Attempt {
    let message = shorten(&error.to_string());
    match error {
        ureq::Error::BadUri(_)
        | ureq::Error::Http(_)
        | ureq::Error::InvalidProxyUrl
        | ureq::Error::RequireHttpsOnly(_)
        | ureq::Error::TlsRequired => Attempt::Refused(message),
        _ => Attempt::Passing { message, retry_after: None },
    }
}

fn parse(body: &[u8]) -> Result<Answer, String> {
    let answer: WireAnswer = serde_json::from_slice(body)
        .map_err(|error| shorten(&format!("the answer is no chat completion: {error}")))?;
    let choice = answer.choices.into_iter().next().ok_or("the answer holds no choice")?;
    let logprobs: Option<Vec<f64>> = choice
        .logprobs
        .and_then(|logprobs| logprobs.content)
        .map(|tokens| tokens.into_iter().map(|token| token.logprob).collect());
    let counted = logprobs.as_ref().map_or(0, Vec::len);
    Ok(Answer {
        text: choice.message.content.unwrap_or_default(),
        num_tokens: answer.usage.map_or(counted, |usage| usage.completion_tokens),
        truncated: choice.finish_reason.as_deref() == Some("length"),
        logprobs,
    })
}

/// The server's own words where it gives any, after the status.
fn status_message(status: u16, body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let words = json.as_ref().and_then(|json| {
        let error = json.get("error").unwrap_or(json);
        error.get("message").or(Some(error)).and_then(Value::as_str).map(str::to_owned)
    });
    let words = words.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    shorten(format!("status {status}: {}", words.trim()).trim_end_matches([':', ' ']))
}

/// One printable line of bounded length.
fn shorten(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_MESSAGE_CHARS).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use patarm_text::Conversation;

    use super::*;

    fn request() -> CompletionRequest {
        CompletionRequest {
            prompt: Conversation::from_user("Judge \"this\"."),
            max_tokens: 40,
            temperature: 0.5,
            top_p: 1.0,
            stop: Vec::new(),
            seed: u64::MAX,
        }
    }

    #[test]
    fn request_json() {
        let body: Value = serde_json::from_slice(&request_body("m", &request(), false)).unwrap();
        let expected = json!({
            "model": "m",
            "messages": [{ "role": "user", "content": "Judge \"this\"." }],
            "max_tokens": 40, "temperature": 0.5, "top_p": 1.0,
            "seed": 0x7fff_ffff, "stream": false,
        });
        assert_eq!(body, expected);
        let with = CompletionRequest { stop: vec!["</s>".into()], ..request() };
        let body: Value = serde_json::from_slice(&request_body("m", &with, true)).unwrap();
        assert_eq!((&body["stop"], &body["logprobs"]), (&json!(["</s>"]), &json!(true)));
    }

    #[test]
    fn answers() {
        let body = json!({
            "choices": [{
                "message": { "content": "fine" },
                "finish_reason": "length",
                "logprobs": { "content": [{ "logprob": -0.5 }, { "logprob": -1.0 }] },
            }],
            "usage": { "completion_tokens": 2, "prompt_tokens": 7 },
        });
        let answer = parse(body.to_string().as_bytes()).unwrap();
        let logprobs = Some(vec![-0.5, -1.0]);
        let expected = Answer { text: "fine".into(), num_tokens: 2, truncated: true, logprobs };
        assert_eq!(answer, expected);
        let bare = parse(br#"{"choices":[{"message":{"content":null}}]}"#).unwrap();
        assert_eq!((bare.text.as_str(), bare.num_tokens, bare.truncated), ("", 0, false));
        assert!(parse(br#"{"choices":[]}"#).is_err());
        assert!(parse(b"<html>").is_err());
    }

    #[test]
    fn messages_of_failures() {
        let openai = status_message(400, br#"{"error":{"message":"too long"}}"#);
        assert_eq!(openai, "status 400: too long");
        assert_eq!(status_message(401, br#"{"error":"no key"}"#), "status 401: no key");
        assert_eq!(status_message(404, br#"{"message":"no model"}"#), "status 404: no model");
        assert_eq!(status_message(502, b""), "status 502");
        let long = status_message(500, "x\n\u{1b}[31m".repeat(500).as_bytes());
        assert!(long.chars().count() <= MAX_MESSAGE_CHARS && !long.contains(['\n', '\u{1b}']));
    }
}
