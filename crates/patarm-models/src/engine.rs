//! The generation engine: continuous batching over a tree of shared prefixes.
//!
//! It knows token ids and nothing else. A request names the segments of its
//! prompt; equal segments below equal parents are stored and computed once, for
//! as long as anybody uses them and memory allows. A sequence gets slots of the cache
//! as it grows; where none are left, the youngest gives its own up and is computed
//! again later. Every request draws from its own counter-based stream, and every value
//! depends on its own path alone, so results do not depend on what else is in the batch.

mod prefix_tree;
mod readout;
mod sequence;

use std::collections::VecDeque;
use std::fmt;

use patarm_kernels::{AttentionPlan, Buffer, QueryRun, SamplingOptions};

use crate::decoder::Decoder;
use crate::error::{Error, ErrorKind};
use crate::kv_cache::KvCache;
use prefix_tree::{NodeId, PrefixTree};
use sequence::{Active, Drawn, Waiting, branch_slots, most_slots};

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
    /// Slots that a growing sequence gets at a time, at least 1.
    pub page: usize,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self { slots: 16_384, max_active: 96, prefill_tokens: 2_048, page: 64 }
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
    /// How often a sequence gave its slots to an older one.
    pub preemptions: u64,
    /// Generated tokens that were computed again afterwards.
    pub recomputed_tokens: u64,
}

/// Generates for many requests at once. See the [module documentation](self).
pub struct Engine<'a> {
    decoder: &'a Decoder,
    cache: KvCache,
    tree: PrefixTree,
    limits: EngineLimits,
    waiting: VecDeque<Waiting>,
    /// The oldest first.
    active: Vec<Active>,
    /// Cancelled without slots, and to be returned by the next step.
    cancelled: Vec<Generation>,
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
        let limits = EngineLimits { page: limits.page.max(1), ..limits };
        Self {
            decoder,
            cache: KvCache::new(decoder.backend.as_ref(), &decoder.shape, limits.slots),
            tree: PrefixTree::default(),
            limits,
            waiting: VecDeque::new(),
            active: Vec::new(),
            cancelled: Vec::new(),
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
        let needed = prompt + most_slots(&request);
        if needed > self.limits.slots {
            return Err(Error::new(ErrorKind::Overlong {
                tokens: needed,
                limit: self.limits.slots,
            }));
        }
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back(Waiting { id, request, drawn: Drawn::default() });
        Ok(id)
    }

    /// Ends a request early; if it has begun, it is returned by the next
    /// [`Engine::step`] with what it has. Unknown ids are ignored.
    pub fn cancel(&mut self, id: RequestId) {
        if let Some(index) = self.active.iter().position(|active| active.id == id) {
            let active = self.active.remove(index);
            let generation = self.finish(active, StopReason::Cancelled, Vec::new());
            self.cancelled.push(generation);
        }
        if let Some(index) = self.waiting.iter().position(|waiting| waiting.id == id)
            && let Some(waiting) = self.waiting.remove(index)
            && !waiting.drawn.tokens.is_empty()
        {
            let Drawn { tokens, logprobs } = waiting.drawn;
            let (stop, readout) = (StopReason::Cancelled, Vec::new());
            self.cancelled.push(Generation { id, tokens, logprobs, stop, readout });
        }
    }

    /// Running sequences and the tokens each has by now.
    pub fn progress(&self) -> impl Iterator<Item = (RequestId, &[u32])> {
        self.active.iter().map(|active| (active.id, active.drawn.tokens.as_slice()))
    }

    /// Whether nothing is queued or running.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.active.is_empty() && self.cancelled.is_empty()
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
        let mut finished = std::mem::take(&mut self.cancelled);
        self.grow();
        let running = self.active.len();
        self.admit();
        if self.active.is_empty() {
            return finished;
        }
        let hidden = self.next_hidden(running);
        self.sample(&hidden);
        finished.extend(self.collect());
        finished
    }

    /// Gives every running sequence the slots of its next token, the oldest first; where
    /// there are none, the youngest ones wait.
    fn grow(&mut self) {
        let mut index = 0;
        while let Some(active) = self.active.get(index) {
            let lacking = active.lacking(self.limits.page);
            if self.tree.make_room(&mut self.cache, lacking)
                && let Some(slots) = self.cache.take(lacking)
            {
                self.active[index].own.append(slots);
                index += 1;
            } else {
                // This one, where it is the youngest. Alone it has all it can need: more
                // was refused when it was submitted.
                self.preempt_youngest();
            }
        }
    }

    fn preempt_youngest(&mut self) {
        if let Some(Active { id, request, leaf, own, branches, drawn, .. }) = self.active.pop() {
            self.cache.give_back(own);
            self.cache.give_back(branches);
            self.tree.release(leaf);
            self.waiting.push_front(Waiting { id, request, drawn });
            self.counters.preemptions += 1;
        }
    }

    fn admit(&mut self) {
        let running = self.active.len();
        while self.active.len() < self.limits.max_active {
            let Some(waiting) = self.waiting.front() else {
                break;
            };
            let needed = self.tree.missing_tokens(&waiting.request.prompt)
                + waiting.first_slots(self.limits.page)
                + branch_slots(&waiting.request);
            // Who runs already should not have to give way to this one soon.
            let page = self.limits.page;
            let growth: usize = self.active.iter().map(|active| active.growth(page)).sum();
            if !self.tree.make_room(&mut self.cache, needed + growth) {
                break;
            }
            let Some(waiting) = self.waiting.pop_front() else {
                break;
            };
            match self.start(waiting) {
                Ok(active) => self.active.push(active),
                Err(waiting) => {
                    self.waiting.push_front(*waiting);
                    break;
                }
            }
        }
        self.prefill();
        self.recompute(running);
    }

    /// Takes slots for a request; gives it back where evicted prefixes were its own.
    fn start(&mut self, waiting: Waiting) -> Result<Active, Box<Waiting>> {
        let mut leaf = None;
        for segment in &waiting.request.prompt {
            match self.tree.acquire(leaf, segment, &mut self.cache) {
                Some((node, shared)) => {
                    if shared {
                        self.counters.shared_tokens += segment.len() as u64;
                    }
                    leaf = Some(node);
                }
                None => {
                    self.release_path(leaf);
                    return Err(Box::new(waiting));
                }
            }
        }
        let first = waiting.first_slots(self.limits.page);
        let branches = branch_slots(&waiting.request);
        let room = self.tree.make_room(&mut self.cache, first + branches);
        let own = if room { self.cache.take(first) } else { None };
        let Some(((leaf, own), branches)) = leaf.zip(own).zip(self.cache.take(branches)) else {
            self.release_path(leaf);
            return Err(Box::new(waiting));
        };
        let (path, depth) = self.tree.path(leaf);
        let Waiting { id, request, drawn } = waiting;
        let last_hidden = None;
        Ok(Active { id, request, leaf, path, depth, own, branches, drawn, last_hidden })
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
                    spans,
                    causal: true,
                });
                slots.extend(self.tree.slots(node));
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

    /// Computes what sequences from the `running`th on had drawn before they gave their
    /// slots up, one after the other: that is seldom.
    fn recompute(&mut self, running: usize) {
        for index in running..self.active.len() {
            let active = &self.active[index];
            let drawn = active.drawn.tokens.len();
            if drawn == 0 {
                continue;
            }
            let plan = AttentionPlan { runs: vec![active.run(0, drawn)] };
            let positions: Vec<u32> = (0..drawn).map(|n| (active.depth + n) as u32).collect();
            let slots: Vec<u32> = active.own.numbers(0..drawn).collect();
            let target = (&mut self.cache, slots.as_slice());
            let hidden =
                self.decoder.forward_cached(&active.drawn.tokens, &positions, &plan, target);
            self.counters.recomputed_tokens += drawn as u64;
            self.active[index].last_hidden = Some(self.row_of(&hidden, drawn - 1));
        }
    }

    fn row_of(&self, hidden: &Buffer, row: usize) -> Buffer {
        let dim = self.decoder.shape.hidden;
        let mut out = self.decoder.backend.alloc(dim);
        self.decoder.backend.copy(hidden, row * dim, &mut out, 0, dim);
        out
    }

    /// Hidden states that predict the next token of every active sequence: the
    /// first `running` by a decode step, the rest from their prompt or from what was
    /// computed again.
    fn next_hidden(&mut self, running: usize) -> Buffer {
        let dim = self.decoder.shape.hidden;
        let backend = self.decoder.backend.as_ref();
        let mut all = backend.alloc(self.active.len() * dim);
        if running > 0
            && let Some(decoded) = self.decode(running)
        {
            backend.copy(&decoded, 0, &mut all, 0, running * dim);
        }
        for (index, active) in self.active.iter_mut().enumerate().skip(running) {
            let again = active.last_hidden.take();
            if let Some(row) = again.as_ref().or_else(|| self.tree.last_hidden(active.leaf)) {
                backend.copy(row, 0, &mut all, index * dim, dim);
            }
        }
        all
    }

    /// The hidden states after the last token of the first `running` sequences.
    fn decode(&mut self, running: usize) -> Option<Buffer> {
        let (mut tokens, mut positions, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        let mut plan = AttentionPlan::default();
        for (index, active) in self.active[..running].iter().enumerate() {
            let last = active.drawn.tokens.len() - 1;
            tokens.push(active.drawn.tokens[last]);
            positions.push((active.depth + last) as u32);
            slots.extend(active.own.numbers(last..last + 1));
            plan.runs.push(active.run(index, 1));
        }
        self.counters.decoded_tokens += tokens.len() as u64;
        let (decoder, cache) = (self.decoder, &mut self.cache);
        let mut hidden = None;
        decoder.backend.recorded(&mut || {
            let target = (&mut *cache, slots.as_slice());
            hidden = Some(decoder.forward_cached(&tokens, &positions, &plan, target));
        });
        hidden
    }

    fn sample(&mut self, hidden: &Buffer) {
        let backend = self.decoder.backend.as_ref();
        let rows = self.active.len();
        let options: Vec<SamplingOptions> = self
            .active
            .iter()
            .map(|active| SamplingOptions {
                position: active.drawn.tokens.len() as u64,
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
            active.drawn.tokens.push(id as u32);
            active.drawn.logprobs.push(logprob);
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

    fn finish(&mut self, active: Active, stop: StopReason, readout: Vec<f64>) -> Generation {
        self.cache.give_back(active.own);
        self.cache.give_back(active.branches);
        self.tree.release(active.leaf);
        let Drawn { tokens, logprobs } = active.drawn;
        Generation { id: active.id, tokens, logprobs, stop, readout }
    }
}
