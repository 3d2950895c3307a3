//! Judges on the embedded engine: prompts as token segments, scores as
//! distributions.
//!
//! A judgement is generated up to its score tag. What follows is read off the
//! model rather than sampled token by token: every admissible score is a branch
//! below the judgement, its probability is exact, and all that remains is the
//! probability of no score at all.

mod completer;
mod judge;
mod text;

pub use completer::EmbeddedCompleter;
pub use judge::{EmbeddedJudge, JudgeSettings, ReadOut, Splice};
pub(crate) use judge::{fault_of, sequence};
pub(crate) use text::chat_frame;
pub use text::{JudgeText, Outcome, Terminator};

use patarm_models::kernels::SamplingOptions;
use patarm_models::{
    Decoder, Engine, EngineLimits, Error, Generation, GenerationRequest, StopReason,
};

use crate::observer::Observer;

/// One judgement to be generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgeCall {
    /// The judge prompt as token segments; equal leading segments are shared.
    pub prompt: Vec<Vec<u32>>,
    /// Identity of the random stream, unique within a seed.
    pub sequence: u64,
}

/// Where generation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopAt {
    /// Right after the opening score tag.
    BeforeScore,
    /// Right after the closing score tag.
    AfterScore,
    /// At the end of the turn.
    EndOfTurn,
}

/// How judgements are generated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgeSampling {
    /// Seed.
    pub seed: u64,
    /// 0 = greedy.
    pub temperature: f64,
    /// Nucleus; 1 = off.
    pub top_p: f64,
    /// Longest judgement in tokens.
    pub max_tokens: usize,
    /// Where generation ends.
    pub stop: StopAt,
    /// Whether the score distribution is read at the end.
    pub read_scores: bool,
}

/// A generated judgement, not parsed yet.
#[derive(Clone, Debug, PartialEq)]
pub struct RawJudgement {
    /// Generated ids.
    pub tokens: Vec<u32>,
    /// Log-probability of each.
    pub logprobs: Vec<f32>,
    /// The generated text; control tokens are left out.
    pub text: String,
    /// Whether the wanted tag was reached.
    pub is_complete: bool,
    /// Whether the token limit ended it.
    pub is_truncated: bool,
    /// Log-probability of each admissible score, where read.
    pub score_logprobs: Vec<f64>,
}

/// Generates every call on one engine; results stand in the order of the calls,
/// each failing alone when its prompt does not fit.
///
/// Interruption returns what is finished; the rest is cancelled and incomplete.
pub fn generate(
    decoder: &Decoder,
    text: &JudgeText,
    calls: &[JudgeCall],
    sampling: &JudgeSampling,
    observer: &dyn Observer,
) -> Vec<Result<RawJudgement, Error>> {
    let mut engine = Engine::new(decoder, limits(calls, text, sampling));
    let mut results: Vec<Option<Result<RawJudgement, Error>>> =
        (0..calls.len()).map(|_| None).collect();
    let mut submitted = std::collections::HashMap::new();
    for (index, call) in calls.iter().enumerate() {
        match engine.submit(request(call, text, sampling)) {
            Ok(id) => {
                submitted.insert(id, index);
            }
            Err(error) => results[index] = Some(Err(error)),
        }
    }
    let mut done = 0;
    while !engine.is_idle() {
        if observer.is_interrupted() {
            submitted.keys().for_each(|id| engine.cancel(*id));
        }
        for generation in engine.step() {
            done += 1;
            if let Some(&index) = submitted.get(&generation.id) {
                results[index] = Some(Ok(RawJudgement::from_generation(text, generation)));
            }
        }
        observer.advance(done, "");
    }
    results
        .into_iter()
        .map(|result| result.unwrap_or_else(|| Ok(RawJudgement::missing())))
        .collect()
}

impl RawJudgement {
    /// What an interrupted call has.
    fn missing() -> Self {
        Self {
            tokens: Vec::new(),
            logprobs: Vec::new(),
            text: String::new(),
            is_complete: false,
            is_truncated: true,
            score_logprobs: Vec::new(),
        }
    }
}

impl RawJudgement {
    /// A finished generation as text.
    pub(crate) fn from_generation(text: &JudgeText, generation: Generation) -> Self {
        Self {
            text: text.decode(&generation.tokens),
            is_complete: generation.stop == StopReason::StopRule,
            is_truncated: matches!(generation.stop, StopReason::MaxTokens | StopReason::Cancelled),
            tokens: generation.tokens,
            logprobs: generation.logprobs,
            score_logprobs: generation.readout,
        }
    }
}

/// What the engine is asked for one judgement.
pub(crate) fn request(
    call: &JudgeCall,
    text: &JudgeText,
    sampling: &JudgeSampling,
) -> GenerationRequest {
    let readout = match sampling.read_scores {
        true => text.outcomes().iter().map(|outcome| outcome.tokens.clone()).collect(),
        false => Vec::new(),
    };
    GenerationRequest {
        prompt: call.prompt.clone(),
        max_new_tokens: sampling.max_tokens,
        sampling: SamplingOptions {
            temperature: sampling.temperature as f32,
            top_k: 0,
            top_p: sampling.top_p as f32,
            min_p: 0.0,
            seed: sampling.seed,
            sequence: call.sequence,
            position: 0,
        },
        stop_ids: text.stop_ids().to_vec(),
        stop_rule: Some(text.stop_rule(sampling.stop)),
        readout,
    }
}

/// A cache large enough for what is asked, within bounds.
fn limits(calls: &[JudgeCall], text: &JudgeText, sampling: &JudgeSampling) -> EngineLimits {
    let branches: usize = text.outcomes().iter().map(|outcome| outcome.tokens.len()).sum();
    let own = sampling.max_tokens + branches + 1;
    let prompts: Vec<usize> =
        calls.iter().map(|call| call.prompt.iter().map(Vec::len).sum()).collect();
    let longest = prompts.iter().max().copied().unwrap_or(0) + own;
    let all: usize = prompts.iter().map(|len| len + own).sum();
    let default = EngineLimits::default();
    EngineLimits { slots: all.min(default.slots).max(longest), ..default }
}
