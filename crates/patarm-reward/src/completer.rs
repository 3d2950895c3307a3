//! Text in, text out: the seam between a judge and whatever generates.

use patarm_text::Conversation;
use serde::{Deserialize, Serialize};

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Completion {
    /// The generated text.
    pub text: String,
    /// Generated tokens, where known.
    pub num_tokens: usize,
    /// Whether the token limit ended it.
    pub truncated: bool,
    /// Log-probability of each generated token, where the source gives them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

/// What became of one request.
pub type CompletionResult = Result<Completion, CompletionError>;

/// Is told of every result with the place of its request, in the order of completion.
pub type OnDone<'a> = &'a mut dyn FnMut(usize, &CompletionResult);

/// Anything that completes conversations: the embedded engine or a remote server.
pub trait Completer: Send + Sync {
    /// Completes every request; results stand in the order of the requests, each
    /// failing alone.
    fn complete(&self, requests: &[CompletionRequest]) -> Vec<CompletionResult>;

    /// The same, telling `on_done` of every result as soon as it is there: once for
    /// each request, so that results can be kept even if the run ends early.
    fn complete_each(
        &self,
        requests: &[CompletionRequest],
        on_done: OnDone<'_>,
    ) -> Vec<CompletionResult> {
        let results = self.complete(requests);
        for (i, result) in results.iter().enumerate() {
            on_done(i, result);
        }
        results
    }

    /// A name for reports and cache keys.
    fn name(&self) -> String;
}
