//! The thread of a model: queue in, engine steps, results out.
//!
//! A step that panics takes nobody along. The engine is made anew, and everything it
//! was working on is done again, one piece at a time, until the piece that panics does
//! so alone; only that one fails. Work is deterministic, so text that was streamed
//! before is not streamed again. Where a new engine would fail as well (a lost device),
//! the model is given up, and the server says that it is not ready.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use patarm_reward::model::ItemFault;
use patarm_reward::serving::{
    Answer, Counters, Crash, Event, ModelCard, Prepared, ServedEngine, ServedModel, WorkId,
};
use tokio::sync::mpsc::UnboundedSender;

use crate::core::Update;
use crate::fault::{Fault, FaultCode};
use crate::metrics::Metrics;
use crate::queue::{Job, Queue};

/// Panics of engines that were not working on anything, after which a model is given up.
const MAX_IDLE_PANICS: usize = 3;
/// How much the latest step counts in the estimate of speed.
const PACE_WEIGHT: f64 = 0.1;

/// How fast a model works, for telling refused clients when to come back.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    bits: AtomicU64,
}

impl Pace {
    /// Tokens of finished work a second; 0 before there was any.
    pub(crate) fn tokens_per_s(&self) -> f64 {
        f64::from_bits(self.bits.load(Ordering::Relaxed))
    }

    fn observe(&self, tokens: usize, seconds: f64) {
        let now = tokens as f64 / seconds.max(1e-6);
        let before = self.tokens_per_s();
        let next = if before > 0.0 { before + PACE_WEIGHT * (now - before) } else { now };
        self.bits.store(next.to_bits(), Ordering::Relaxed);
    }
}

/// What the thread of a model needs.
pub(crate) struct Worker {
    pub(crate) queue: Arc<Queue>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) card: ModelCard,
    /// Tokens worked on at the same time.
    pub(crate) max_tokens: usize,
}

/// Work the engine has.
struct Running {
    work: Prepared,
    reply: UnboundedSender<(WorkId, Update)>,
    started_at: Instant,
    /// Bytes of each vote's text that were reported.
    reported: Vec<usize>,
    /// Bytes of each vote's text since it was last submitted.
    generated: Vec<usize>,
}

/// What is under way.
#[derive(Default)]
struct Desk {
    running: BTreeMap<WorkId, Running>,
    /// Work that was under way when an engine panicked; done again one at a time.
    suspects: VecDeque<WorkId>,
    held_tokens: usize,
    finished_tokens: usize,
}

impl Worker {
    /// Serves until the queue is closed; what it holds then is dropped.
    pub(crate) fn run(&self, model: &dyn ServedModel) {
        let mut desk = Desk::default();
        let mut idle_panics = 0;
        loop {
            let lived = catch_unwind(AssertUnwindSafe(|| self.live(model, &mut desk)));
            let Err(payload) = lived else { return };
            let Crash { message, lasting } = Crash::of(payload.as_ref());
            idle_panics = if desk.running.is_empty() { idle_panics + 1 } else { 0 };
            self.metrics.panic(&self.card.name);
            let held = desk.running.len();
            tracing::error!(model = self.card.name, held, lasting, message, "engine crashed");
            if lasting || idle_panics == MAX_IDLE_PANICS {
                // Dropping the senders tells everybody who waits.
                self.queue.fail();
                return;
            }
            self.blame(&mut desk);
        }
    }

    /// Finds out who panicked: alone is proof, otherwise everybody is tried again.
    fn blame(&self, desk: &mut Desk) {
        // Only what had been submitted can be to blame.
        let submitted: Vec<WorkId> =
            desk.running.keys().filter(|id| !desk.suspects.contains(id)).copied().collect();
        if let [only] = submitted.as_slice() {
            self.finish(desk, *only, Err(Fault::plain(FaultCode::Internal)));
            return;
        }
        desk.suspects.extend(submitted);
        for running in desk.running.values_mut() {
            running.generated.clear();
        }
    }

    /// One engine's life, until the queue is closed.
    fn live(&self, model: &dyn ServedModel, desk: &mut Desk) {
        let mut engine = model.engine();
        let mut seen = Counters::default();
        loop {
            if self.queue.is_closed() {
                return;
            }
            self.drop_cancelled(engine.as_mut(), desk);
            let admitted = self.admit(engine.as_mut(), desk);
            if engine.is_idle() {
                if admitted || !desk.suspects.is_empty() {
                    continue;
                }
                if !self.queue.wait() {
                    return;
                }
                continue;
            }
            if admitted {
                self.metrics.batch_tokens(&self.card.name, desk.held_tokens);
            }
            self.step(engine.as_mut(), desk);
            let counters = engine.counters();
            self.metrics.tokens(&self.card.name, &seen, &counters);
            seen = counters;
        }
    }

    fn step(&self, engine: &mut dyn ServedEngine, desk: &mut Desk) {
        let start = Instant::now();
        desk.finished_tokens = 0;
        let mut events = Vec::new();
        engine.step(&mut |event| events.push(event));
        for event in events {
            match event {
                Event::Text { id, vote, text } => report_text(desk, id, vote, &text),
                Event::Done { id, result } => {
                    self.finish(desk, id, result.map_err(|fault| self.fault(fault)));
                }
            }
        }
        if desk.finished_tokens > 0 {
            self.pace.observe(desk.finished_tokens, start.elapsed().as_secs_f64());
        }
    }

    /// What the engine says of itself goes to the log, not to the client.
    fn fault(&self, fault: ItemFault) -> Fault {
        if let ItemFault::Engine(message) = &fault {
            tracing::warn!(model = self.card.name, message, "engine failed an item");
        }
        fault.into()
    }

    fn drop_cancelled(&self, engine: &mut dyn ServedEngine, desk: &mut Desk) {
        for id in self.queue.take_cancelled() {
            if desk.take(id).is_some() {
                engine.cancel(id);
                self.metrics.cancelled(&self.card.name);
            }
        }
    }

    /// Hands the engine what fits; says whether there was anything.
    fn admit(&self, engine: &mut dyn ServedEngine, desk: &mut Desk) -> bool {
        if !desk.suspects.is_empty() {
            if !engine.is_idle() {
                return false;
            }
            let Some(id) = desk.suspects.pop_front() else { return false };
            if let Some(running) = desk.running.get(&id) {
                engine.submit(id, running.work.clone());
            }
            return true;
        }
        let mut admitted = false;
        loop {
            // A piece that is larger than everything allowed goes alone.
            let room = match desk.running.is_empty() {
                true => usize::MAX,
                false => self.max_tokens.saturating_sub(desk.held_tokens),
            };
            let Some(job) = self.queue.pop(room) else { return admitted };
            self.start(engine, desk, job);
            admitted = true;
        }
    }

    fn start(&self, engine: &mut dyn ServedEngine, desk: &mut Desk, job: Job) {
        self.metrics.phase(&self.card.name, "queue", job.queued_at.elapsed());
        let running = Running {
            work: job.work.clone(),
            reply: job.reply,
            started_at: Instant::now(),
            reported: Vec::new(),
            generated: Vec::new(),
        };
        desk.held_tokens += job.work.cost();
        desk.running.insert(job.id, running);
        engine.submit(job.id, job.work);
    }

    fn finish(&self, desk: &mut Desk, id: WorkId, result: Result<Answer, Fault>) {
        let Some(running) = desk.take(id) else { return };
        self.metrics.phase(&self.card.name, "compute", running.started_at.elapsed());
        desk.finished_tokens += running.work.cost();
        if let Ok(answer) = &result {
            self.metrics.answer(&self.card, answer);
        }
        // A client that has gone does not read it.
        let _ = running.reply.send((id, Update::Done(result)));
    }
}

impl Desk {
    fn take(&mut self, id: WorkId) -> Option<Running> {
        let running = self.running.remove(&id)?;
        self.suspects.retain(|other| *other != id);
        self.held_tokens -= running.work.cost();
        Some(running)
    }
}

/// Passes text on, but not what was passed on before the work was started again.
fn report_text(desk: &mut Desk, id: WorkId, vote: usize, text: &str) {
    let Some(running) = desk.running.get_mut(&id) else { return };
    for lengths in [&mut running.generated, &mut running.reported] {
        if lengths.len() <= vote {
            lengths.resize(vote + 1, 0);
        }
    }
    let begin = running.generated[vote];
    running.generated[vote] += text.len();
    let known = running.reported[vote].saturating_sub(begin);
    if let Some(fresh) = text.get(known..)
        && !fresh.is_empty()
    {
        running.reported[vote] = running.generated[vote];
        let _ = running.reply.send((id, Update::Text { vote, text: fresh.to_owned() }));
    }
}

#[cfg(test)]
mod tests;
