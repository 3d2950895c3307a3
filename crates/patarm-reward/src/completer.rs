//! Text in, text out: the seam between a judge and whatever generates.

use patarm_text::Conversation;

/// One request for a completion.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRequest {
    /// What the model is asked.
    pub prompt: Conversation,
    /// Generation limit in tokens.
    pub max_tokens: usize,
    /// 0 = greedy.
    pub temperature: f64,
    /// Nucleus threshold; 1 = off.
    pub top_p: f64,
    /// Generation ends after any of these strings.
    pub stop: Vec<String>,
    /// Seed of this request; servers that ignore seeds are still sent it.
    pub seed: u64,
}

/// A finished completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The generated text.
    pub text: String,
    /// Generated tokens, where known.
    pub num_tokens: usize,
    /// Whether the token limit ended it.
    pub truncated: bool,
    /// Log-probability of each generated token, where the source gives them.
    pub logprobs: Option<Vec<f64>>,
}

/// Why a request has no completion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompletionError {
    /// The remote engine refused or kept failing.
    #[error("{engine} failed after {attempts} attempts: {message}")]
    Failed {
        /// Which engine.
        engine: String,
        /// How often it was asked.
        attempts: usize,
        /// The last reason.
        message: String,
    },
    /// The prompt does not fit the model.
    #[error("the prompt has {tokens} tokens, more than the {limit} that fit")]
    Overlong {
        /// Tokens of the prompt plus the generation limit.
        tokens: usize,
        /// What fits.
        limit: usize,
    },
    /// The run was interrupted.
    #[error("interrupted")]
    Interrupted,
}

/// Anything that completes conversations: the embedded engine or a remote server.
pub trait Completer: Send + Sync {
    /// Completes every request; results stand in the order of the requests, each
    /// failing alone.
    fn complete(&self, requests: &[CompletionRequest]) -> Vec<Result<Completion, CompletionError>>;

    /// A name for reports and cache keys.
    fn name(&self) -> String;
}
