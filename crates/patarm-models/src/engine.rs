//! The generation engine: continuous batching over a tree of shared prefixes.
//!
//! It knows token ids and nothing else. A request names the segments of its
//! prompt; equal segments below equal parents are stored and computed once, for
//! as long as anybody uses them and memory allows. Every request draws from its
//! own counter-based stream, and every value depends on its own path alone, so
//! results do not depend on what else is in the batch.

mod prefix_tree;
mod readout;

use std::collections::VecDeque;
use std::fmt;

use patarm_kernels::{AttentionPlan, Buffer, QueryRun, SamplingOptions, Span};

use crate::decoder::Decoder;
use crate::error::{Error, ErrorKind};
use crate::kv_cache::KvCache;
use prefix_tree::{NodeId, PrefixTree};

/// Decides after each token whether a sequence is complete, given all tokens
/// generated so far.
pub type StopRule = Box<dyn FnMut(&[u32]) -> bool + Send>;

/// One sequence to generate.
pub struct GenerationRequest {
    /// The prompt as segments; equal leading segments are shared between requests.
    pub prompt: Vec<Vec<u32>>,
    /// Generation limit.
    pub max_new_tokens: usize,
    /// How tokens are drawn; `sequence` must be unique within a seed, `position` is
    /// ignored.
    pub sampling: SamplingOptions,
    /// Generation ends after any of these ids.
    pub stop_ids: Vec<u32>,
    /// Generation ends when this says so.
    pub stop_rule: Option<StopRule>,
    /// Continuations whose log-probability is wanted once generation has ended,
    /// whole and given everything before, at temperature 1; each non-empty. Read only
    /// when the stop rule ended the sequence.
    pub readout: Vec<Vec<u32>>,
}

impl fmt::Debug for GenerationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerationRequest")
            .field("prompt_segments", &self.prompt.len())
            .field("max_new_tokens", &self.max_new_tokens)
            .field("sampling", &self.sampling)
            .finish_non_exhaustive()
    }
}

/// Identity of a submitted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(u64);

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A stop id was drawn.
    StopToken,
    /// The stop rule said so.
    StopRule,
    /// The limit was reached.
    MaxTokens,
    /// The caller cancelled it.
    Cancelled,
}

/// A finished sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Which request.
    pub id: RequestId,
    /// Generated tokens, the stop token included.
    pub tokens: Vec<u32>,
    /// Log-probability of each token under the full tempered distribution.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub stop: StopReason,
    /// Log-probability of each read-out continuation; empty unless the stop rule
    /// ended the sequence.
    pub readout: Vec<f64>,
}

/// Memory limits of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Slots of the key/value cache: tokens of all prompts and sequences held.
    pub slots: usize,
    /// Sequences generated at the same time.
    pub max_active: usize,
    /// Prompt tokens computed in one forward.
    pub prefill_tokens: usize,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self { slots: 16_384, max_active: 96, prefill_tokens: 2_048 }
    }
}

/// How many tokens an engine has computed, by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineCounters {
    /// Prompt tokens computed.
    pub prefill_tokens: u64,
    /// Prompt tokens found in the prefix tree.
    pub shared_tokens: u64,
    /// Tokens generated.
    pub decoded_tokens: u64,
}

struct Waiting {
    id: RequestId,
    request: GenerationRequest,
}

struct Active {
    id: RequestId,
    request: GenerationRequest,
    leaf: NodeId,
    path: Vec<Span>,
    depth: usize,
    own: Span,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
}

/// Generates for many requests at once. See the [module documentation](self).
pub struct Engine<'a> {
    decoder: &'a Decoder,
    cache: KvCache,
    tree: PrefixTree,
    limits: EngineLimits,
    waiting: VecDeque<Waiting>,
    active: Vec<Active>,
    next_id: u64,
    counters: EngineCounters,
}

impl fmt::Debug for Engine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("limits", &self.limits)
            .field("waiting", &self.waiting.len())
            .field("active", &self.active.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Engine<'a> {
    /// An idle engine.
    #[must_use]
    pub fn new(decoder: &'a Decoder, limits: EngineLimits) -> Self {
        Self {
            decoder,
            cache: KvCache::new(decoder.backend.as_ref(), &decoder.shape, limits.slots),
            tree: PrefixTree::default(),
            limits,
            waiting: VecDeque::new(),
            active: Vec::new(),
            next_id: 0,
            counters: EngineCounters::default(),
        }
    }

    /// Tokens computed so far.
    #[must_use]
    pub fn counters(&self) -> EngineCounters {
        self.counters
    }

    /// Queues a request.
    ///
    /// # Errors
    /// When the prompt is empty, has an empty segment or a foreign id, or can never
    /// fit the model or the cache.
    pub fn submit(&mut self, request: GenerationRequest) -> Result<RequestId, Error> {
        if request.prompt.is_empty() || request.prompt.iter().any(Vec::is_empty) {
            return Err(Error::new(ErrorKind::Unsupported("a prompt segment is empty".into())));
        }
        let prompt: usize = request.prompt.iter().map(Vec::len).sum();
        let longest = request.readout.iter().map(Vec::len).max().unwrap_or(0);
        let total = prompt + request.max_new_tokens + longest;
        for segment in request.prompt.iter().chain(&request.readout) {
            self.decoder.check(segment, total)?;
        }
        let needed = prompt + own_slots(&request);
        if needed > self.limits.slots {
            return Err(Error::new(ErrorKind::Overlong {
                tokens: needed,
                limit: self.limits.slots,
            }));
        }
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back(Waiting { id, request });
        Ok(id)
    }

    /// Ends a request early; it is returned by the next [`Engine::step`] with what
    /// it has. Unknown ids are ignored.
    pub fn cancel(&mut self, id: RequestId) {
        for active in self.active.iter_mut().filter(|active| active.id == id) {
            active.request.max_new_tokens = 0;
        }
        self.waiting.retain(|waiting| waiting.id != id);
    }

    /// Running sequences and the tokens each has by now.
    pub fn progress(&self) -> impl Iterator<Item = (RequestId, &[u32])> {
        self.active.iter().map(|active| (active.id, active.tokens.as_slice()))
    }

    /// Whether nothing is queued or running.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.active.is_empty()
    }

    /// Runs until idle and returns every generation in the order of submission.
    pub fn run(&mut self) -> Vec<Generation> {
        let mut finished = Vec::new();
        while !self.is_idle() {
            finished.extend(self.step());
        }
        finished.sort_by_key(|generation| generation.id);
        finished
    }

    /// Admits what fits, advances every running sequence by one token, and returns
    /// those that ended.
    pub fn step(&mut self) -> Vec<Generation> {
        let (decoder, mut finished) = (self.decoder, Vec::new());
        decoder.backend.together(&mut || finished = self.advance());
        finished
    }

    fn advance(&mut self) -> Vec<Generation> {
        let cancelled = self.take_finished(|active| active.request.max_new_tokens == 0);
        let mut finished: Vec<Generation> = cancelled
            .into_iter()
            .map(|active| self.finish(active, StopReason::Cancelled, Vec::new()))
            .collect();
        let running = self.active.len();
        self.admit();
        if self.active.is_empty() {
            // Only fragmentation by unused prefixes can be in the way.
            while let Some(span) = self.tree.evict() {
                self.cache.give_back(span);
            }
            self.admit();
        }
        if self.active.is_empty() {
            return finished;
        }
        let hidden = self.next_hidden(running);
        self.sample(&hidden);
        finished.extend(self.collect());
        finished
    }

    fn admit(&mut self) {
        while self.active.len() < self.limits.max_active {
            let Some(waiting) = self.waiting.front() else {
                break;
            };
            let needed =
                self.tree.missing_tokens(&waiting.request.prompt) + own_slots(&waiting.request);
            if !self.make_room(needed) {
                break;
            }
            let Some(Waiting { id, request }) = self.waiting.pop_front() else {
                break;
            };
            match self.start(id, request) {
                Ok(active) => self.active.push(active),
                Err(waiting) => {
                    self.waiting.push_front(*waiting);
                    break;
                }
            }
        }
        self.prefill();
    }

    /// Evicts unused prefixes until `needed` slots are free.
    fn make_room(&mut self, needed: usize) -> bool {
        while self.cache.num_free() < needed {
            match self.tree.evict() {
                Some(span) => self.cache.give_back(span),
                None => return false,
            }
        }
        true
    }

    /// Takes slots for a request; gives it back where fragmentation forbids.
    fn start(&mut self, id: RequestId, request: GenerationRequest) -> Result<Active, Box<Waiting>> {
        let mut leaf = None;
        for segment in &request.prompt {
            match self.tree.acquire(leaf, segment, &mut self.cache) {
                Some((node, shared)) => {
                    if shared {
                        self.counters.shared_tokens += segment.len() as u64;
                    }
                    leaf = Some(node);
                }
                None => {
                    self.release_path(leaf);
                    return Err(Box::new(Waiting { id, request }));
                }
            }
        }
        let own = loop {
            if let Some(own) = self.cache.take(own_slots(&request)) {
                break Some(own);
            }
            match self.tree.evict() {
                Some(span) => self.cache.give_back(span),
                None => break None,
            }
        };
        match (leaf, own) {
            (Some(leaf), Some(own)) => {
                let (path, depth) = self.tree.path(leaf);
                Ok(Active {
                    id,
                    request,
                    leaf,
                    path,
                    depth,
                    own,
                    tokens: Vec::new(),
                    logprobs: Vec::new(),
                })
            }
            (leaf, _) => {
                self.release_path(leaf);
                Err(Box::new(Waiting { id, request }))
            }
        }
    }

    fn release_path(&mut self, leaf: Option<NodeId>) {
        if let Some(leaf) = leaf {
            self.tree.release(leaf);
        }
    }

    /// Computes every prefix that has slots but no keys yet.
    fn prefill(&mut self) {
        for chunk in self.tree.pending_chunks(self.limits.prefill_tokens) {
            let (mut tokens, mut positions, mut slots) = (Vec::new(), Vec::new(), Vec::new());
            let (mut plan, mut last_rows) = (AttentionPlan::default(), Vec::new());
            for &node in &chunk {
                let (spans, depth) = self.tree.path(node);
                let segment = self.tree.tokens(node);
                let first_position = depth - segment.len();
                plan.runs.push(QueryRun {
                    query: tokens.len(),
                    len: segment.len(),
                    first_position,
                    spans: spans.clone(),
                    causal: true,
                });
                if let Some(own) = spans.last() {
                    slots.extend((own.slot..own.slot + own.len).map(|slot| slot as u32));
                }
                positions.extend((first_position..depth).map(|position| position as u32));
                tokens.extend_from_slice(segment);
                last_rows.push(tokens.len() - 1);
            }
            let target = (&mut self.cache, slots.as_slice());
            let hidden = self.decoder.forward_cached(&tokens, &positions, &plan, target);
            self.counters.prefill_tokens += tokens.len() as u64;
            for (node, row) in chunk.into_iter().zip(last_rows) {
                self.tree.set_last_hidden(node, self.row_of(&hidden, row));
            }
        }
    }

    fn row_of(&self, hidden: &Buffer, row: usize) -> Buffer {
        let dim = self.decoder.shape.hidden;
        let mut out = self.decoder.backend.alloc(dim);
        self.decoder.backend.copy(hidden, row * dim, &mut out, 0, dim);
        out
    }

    /// Hidden states that predict the next token of every active sequence: the
    /// first `running` by a decode step, the rest from their prompt.
    fn next_hidden(&mut self, running: usize) -> Buffer {
        let dim = self.decoder.shape.hidden;
        let backend = self.decoder.backend.as_ref();
        let mut all = backend.alloc(self.active.len() * dim);
        if running > 0 {
            let decoded = self.decode(running);
            backend.copy(&decoded, 0, &mut all, 0, running * dim);
        }
        for (index, active) in self.active.iter().enumerate().skip(running) {
            if let Some(row) = self.tree.last_hidden(active.leaf) {
                backend.copy(row, 0, &mut all, index * dim, dim);
            }
        }
        all
    }

    fn decode(&mut self, running: usize) -> Buffer {
        let (mut tokens, mut positions, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        let mut plan = AttentionPlan::default();
        for (index, active) in self.active[..running].iter().enumerate() {
            let generated = active.tokens.len();
            let position = active.depth + generated - 1;
            tokens.push(active.tokens[generated - 1]);
            positions.push(position as u32);
            slots.push((active.own.slot + generated - 1) as u32);
            plan.runs.push(active.run(index, 1));
        }
        self.counters.decoded_tokens += tokens.len() as u64;
        self.decoder.forward_cached(&tokens, &positions, &plan, (&mut self.cache, &slots))
    }

    fn sample(&mut self, hidden: &Buffer) {
        let backend = self.decoder.backend.as_ref();
        let rows = self.active.len();
        let options: Vec<SamplingOptions> = self
            .active
            .iter()
            .map(|active| SamplingOptions {
                position: active.tokens.len() as u64,
                ..active.request.sampling
            })
            .collect();
        let (mut ids, mut logprobs) = (backend.alloc(rows), backend.alloc(rows));
        let shape = self.decoder.statistics_shape(rows, 1.0);
        let weight = self.decoder.parameters.value(self.decoder.output);
        backend.sample(hidden, weight, shape, &options, &mut ids, &mut logprobs);
        let (mut host_ids, mut host_logprobs) = (vec![0.0; rows], vec![0.0; rows]);
        backend.download(&ids, &mut host_ids);
        backend.download(&logprobs, &mut host_logprobs);
        for (active, (id, logprob)) in
            self.active.iter_mut().zip(host_ids.into_iter().zip(host_logprobs))
        {
            active.tokens.push(id as u32);
            active.logprobs.push(logprob);
        }
    }

    fn collect(&mut self) -> Vec<Generation> {
        let mut ended = Vec::new();
        let mut going = Vec::with_capacity(self.active.len());
        for mut active in std::mem::take(&mut self.active) {
            match active.stop_reason() {
                Some(reason) => ended.push((active, reason)),
                None => going.push(active),
            }
        }
        self.active = going;
        let readouts = readout::read(self, &ended);
        let each = ended.into_iter().zip(readouts);
        each.map(|((active, reason), readout)| self.finish(active, reason, readout)).collect()
    }

    fn take_finished(&mut self, ended: impl Fn(&Active) -> bool) -> Vec<Active> {
        let (finished, going) = std::mem::take(&mut self.active).into_iter().partition(ended);
        self.active = going;
        finished
    }

    fn finish(&mut self, active: Active, stop: StopReason, readout: Vec<f64>) -> Generation {
        self.cache.give_back(active.own);
        self.tree.release(active.leaf);
        Generation {
            id: active.id,
            tokens: active.tokens,
            logprobs: active.logprobs,
            stop,
            readout,
        }
    }
}

/// Slots a request needs beyond its prompt: its tokens and its read-out branches.
fn own_slots(request: &GenerationRequest) -> usize {
    request.max_new_tokens
        + request.readout.iter().map(|branch| branch.len() - 1).sum::<usize>()
        + 1
}

impl Active {
    /// The run of the last `len` generated tokens, as query rows from `query`.
    fn run(&self, query: usize, len: usize) -> QueryRun {
        let generated = self.tokens.len();
        let mut spans = self.path.clone();
        spans.push(Span { slot: self.own.slot, len: generated });
        QueryRun { query, len, first_position: self.depth + generated - len, spans, causal: true }
    }

    fn stop_reason(&mut self) -> Option<StopReason> {
        let last = self.tokens.last()?;
        if self.request.stop_ids.contains(last) {
            return Some(StopReason::StopToken);
        }
        if let Some(rule) = &mut self.request.stop_rule
            && rule(&self.tokens)
        {
            return Some(StopReason::StopRule);
        }
        (self.tokens.len() >= self.request.max_new_tokens).then_some(StopReason::MaxTokens)
    }
}
