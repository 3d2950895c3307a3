//! One sequence in the engine: waiting, or running with its slots.

use patarm_kernels::{Buffer, QueryRun, Span};

use super::prefix_tree::NodeId;
use super::{GenerationRequest, RequestId, StopReason};
use crate::kv_cache::Slots;

/// What has been drawn of a sequence.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    pub(super) tokens: Vec<u32>,
    pub(super) logprobs: Vec<f32>,
}

/// A request without slots: new, or one that gave its slots to an older one.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: RequestId,
    pub(super) request: GenerationRequest,
    pub(super) drawn: Drawn,
}

impl Waiting {
    /// Slots that it begins with, beyond its prompt and its read-out branches: what it has
    /// drawn and `page` more, or all that it can ever need.
    pub(super) fn first_slots(&self, page: usize) -> usize {
        (self.drawn.tokens.len() + page).min(token_slots(&self.request))
    }
}

/// A running sequence.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) id: RequestId,
    pub(super) request: GenerationRequest,
    pub(super) leaf: NodeId,
    /// Where the prompt lies, and its length.
    pub(super) path: Vec<Span>,
    pub(super) depth: usize,
    /// Slots of drawn tokens, some of them still to come, and of read-out branches.
    pub(super) own: Slots,
    pub(super) branches: Slots,
    pub(super) drawn: Drawn,
    /// Hidden state after the last drawn token, where it is known before the next step: the
    /// sequence had to be computed again.
    pub(super) last_hidden: Option<Buffer>,
}

impl Active {
    /// How many slots the next step lacks; `page` at a time, but no more than it can ever
    /// need.
    pub(super) fn lacking(&self, page: usize) -> usize {
        if self.own.len() > self.drawn.tokens.len() {
            return 0;
        }
        self.growth(page)
    }

    /// Slots that it would take when it next grows.
    pub(super) fn growth(&self, page: usize) -> usize {
        page.min(token_slots(&self.request) - self.own.len())
    }

    /// The run of the last `len` drawn tokens, as query rows from `query`.
    pub(super) fn run(&self, query: usize, len: usize) -> QueryRun {
        let drawn = self.drawn.tokens.len();
        let spans = self.spans();
        QueryRun { query, len, first_position: self.depth + drawn - len, spans, causal: true }
    }

    /// Where prompt and drawn tokens lie.
    pub(super) fn spans(&self) -> Vec<Span> {
        let mut spans = self.path.clone();
        spans.extend(self.own.spans(0..self.drawn.tokens.len()));
        spans
    }

    pub(super) fn stop_reason(&mut self) -> Option<StopReason> {
        let tokens = &self.drawn.tokens;
        let last = tokens.last()?;
        if self.request.stop_ids.contains(last) {
            return Some(StopReason::StopToken);
        }
        if let Some(rule) = &mut self.request.stop_rule
            && rule(tokens)
        {
            return Some(StopReason::StopRule);
        }
        (tokens.len() >= self.request.max_new_tokens).then_some(StopReason::MaxTokens)
    }
}

/// Slots that the tokens of a request can need at most.
fn token_slots(request: &GenerationRequest) -> usize {
    request.max_new_tokens + 1
}

/// Slots of its read-out branches.
pub(super) fn branch_slots(request: &GenerationRequest) -> usize {
    request.readout.iter().map(|branch| branch.len() - 1).sum()
}

/// All slots that a request can need beyond its prompt.
pub(super) fn most_slots(request: &GenerationRequest) -> usize {
    token_slots(request) + branch_slots(request)
}
