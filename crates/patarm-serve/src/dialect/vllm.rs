//! vLLM's pooling routes: `/classify`, `/pooling`, `/score`, `/rerank`.
//!
//! A model with one label is given a sigmoid there unless the request says
//! `use_activation: false`; a judge's score is mapped to 0..=1 along its scale instead.
//! Plain `input` is tokenised with special tokens on, chat messages with them off.

mod classify;
mod pooling;
mod rerank;
mod score;

pub use classify::{ClassifyReply, ClassifyRequest};
pub use pooling::{PoolingReply, PoolingRequest};
pub use rerank::{RerankReply, RerankRequest};
pub use score::{PairScoreReply, PairScoreRequest};
pub(crate) use score::{answer as answer_score, is_pair_score};

use patarm_reward::serving::{Ask, JudgeAsk, Sequence, SpecialTokens};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{ChatMessage, Input, conversation, split_response};
use super::scoring::{Number, Numbers};
use crate::fault::{Fault, FaultCode};
use crate::router::Routes;

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Usage {
    /// Tokens read.
    pub prompt_tokens: usize,
    /// All tokens.
    pub total_tokens: usize,
    /// Tokens written: none.
    pub completion_tokens: usize,
}

impl Usage {
    pub(crate) fn read(prompt_tokens: usize) -> Self {
        Self { prompt_tokens, total_tokens: prompt_tokens, completion_tokens: 0 }
    }
}

/// What several routes take: `input` or `messages`, and how to read them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct Sequences {
    /// Which model; the first where it is not given.
    #[serde(default)]
    pub model: Option<String>,
    /// Text, token ids, or a list of either.
    #[serde(default)]
    pub input: Option<Input>,
    /// A conversation, in place of `input`.
    #[serde(default)]
    pub messages: Option<Vec<ChatMessage>>,
    /// Whether special tokens are put around text; on for `input`.
    #[serde(default)]
    pub add_special_tokens: Option<bool>,
    /// Whether the conversation ends with what introduces the next turn.
    #[serde(default)]
    pub add_generation_prompt: bool,
    /// Longest input; an input that is longer is refused, not cut.
    #[serde(default)]
    pub truncate_prompt_tokens: Option<i64>,
    /// Raw number (false), or mapped to 0..=1 (true or not given).
    #[serde(default)]
    pub use_activation: Option<bool>,
    /// What `use_activation` was called before.
    #[serde(default)]
    pub activation: Option<bool>,
    /// What it was called before that.
    #[serde(default)]
    pub softmax: Option<bool>,
}

impl Sequences {
    /// Whether numbers are mapped to 0..=1.
    fn activated(&self) -> bool {
        self.use_activation.or(self.activation).or(self.softmax).unwrap_or(true)
    }

    /// The work in it.
    fn asks(self, votes: usize) -> Result<Vec<Ask>, Fault> {
        if self.truncate_prompt_tokens.is_some() {
            let message = "truncate_prompt_tokens: inputs are never cut, because that would \
                           change what is scored";
            return Err(Fault::new(FaultCode::Unsupported, message));
        }
        match (self.input, self.messages) {
            (Some(input), None) => {
                let special = match self.add_special_tokens.unwrap_or(true) {
                    true => SpecialTokens::Add,
                    false => SpecialTokens::Omit,
                };
                let sequences = input.sequences.into_iter();
                Ok(sequences.map(|one| Ask::Sequence(one.into_sequence(special))).collect())
            }
            (None, Some(messages)) => {
                let conversation = conversation(messages).map_err(Fault::bad_request)?;
                Ok(vec![chat_ask(conversation, self.add_generation_prompt, votes)])
            }
            _ => Err(Fault::bad_request("give either input or messages")),
        }
    }
}

/// A conversation that ends with the model's turn is a prompt and its response.
fn chat_ask(conversation: patarm_text::Conversation, ends_open: bool, votes: usize) -> Ask {
    if ends_open {
        return Ask::Sequence(Sequence::Conversation { conversation, ends_open });
    }
    match split_response(conversation) {
        Ok(item) => Ask::Judge(JudgeAsk::new(item, None, votes)),
        Err(conversation) => Ask::Sequence(Sequence::Conversation { conversation, ends_open }),
    }
}

fn shown(number: &Number, activated: bool) -> f64 {
    if activated { number.unit } else { number.raw }
}

fn usage(numbers: &Numbers) -> Usage {
    Usage::read(numbers.total_tokens())
}

pub(super) fn add(routes: Routes) -> Routes {
    routes
        .post::<classify::Classify>()
        .post::<pooling::Pooling>()
        .post::<score::PairScore>()
        .post::<rerank::Rerank>()
        .post::<rerank::RerankV1>()
}
