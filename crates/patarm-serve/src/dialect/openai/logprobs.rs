//! Log-probabilities of written tokens.

use patarm_reward::serving::{ChatAnswer, ChatToken};
use schemars::JsonSchema;
use serde::Serialize;

/// Log-probabilities of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Logprobs {
    /// One entry a token.
    pub content: Vec<TokenLogprob>,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TokenLogprob {
    /// Its text; bytes that are no whole character show as U+FFFD.
    pub token: String,
    /// Its log-probability.
    pub logprob: f64,
    /// Its bytes; null where the engine does not tell.
    pub bytes: Option<Vec<u8>>,
    /// The most probable tokens at its place, as many as were asked for.
    pub top_logprobs: Vec<Alternative>,
}

/// A token that could have been written.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Alternative {
    /// Its text; bytes that are no whole character show as U+FFFD.
    pub token: String,
    /// Its log-probability.
    pub logprob: f64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Logprobs {
    pub(super) fn of(answer: &ChatAnswer) -> Self {
        Self { content: answer.tokens.iter().map(token).collect() }
    }
}

fn token(token: &ChatToken) -> TokenLogprob {
    let alternative = |(bytes, logprob): &(Vec<u8>, f64)| Alternative {
        token: String::from_utf8_lossy(bytes).into_owned(),
        logprob: *logprob,
        bytes: bytes.clone(),
    };
    TokenLogprob {
        token: String::from_utf8_lossy(&token.bytes).into_owned(),
        logprob: token.logprob,
        bytes: (!token.bytes.is_empty()).then(|| token.bytes.clone()),
        top_logprobs: token.alternatives.iter().map(alternative).collect(),
    }
}
