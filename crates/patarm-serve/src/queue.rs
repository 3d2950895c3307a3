//! The bounded, fair queue in front of a model.
//!
//! Every client has a line of its own. The next piece of work is taken from the client
//! that was given the fewest tokens so far; a client that was away starts level with
//! the others, so that idling saves nothing up (start-time fair queueing: P. Goyal,
//! H. Vin, H. Cheng, 1996, section 2, with weights 1).

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use patarm_reward::serving::{Prepared, WorkId};
use tokio::sync::mpsc::UnboundedSender;

use crate::core::Update;
use crate::fault::{Fault, FaultCode};

/// Whose work it is, for fairness.
pub(crate) type ClientId = u64;

/// Work on its way to an engine.
pub(crate) struct Job {
    pub(crate) id: WorkId,
    pub(crate) work: Prepared,
    pub(crate) reply: UnboundedSender<(WorkId, Update)>,
    pub(crate) queued_at: Instant,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    pub(crate) jobs: usize,
    pub(crate) tokens: usize,
}

#[derive(Default)]
struct Line {
    jobs: VecDeque<Job>,
    /// Tokens given to this client, counted from the common start.
    served: u64,
}

#[derive(Default)]
struct State {
    lines: HashMap<ClientId, Line>,
    /// The level at which a client that was away comes in.
    level: u64,
    num_jobs: usize,
    num_tokens: usize,
    cancelled: Vec<WorkId>,
    is_closed: bool,
}

/// See the [module documentation](self).
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    capacity: Capacity,
}

impl Queue {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), capacity }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all jobs of a request or none. `tokens_per_s` turns what is waiting into
    /// the time after which a refused client may try again.
    pub(crate) fn push(
        &self,
        client: ClientId,
        jobs: Vec<Job>,
        tokens_per_s: f64,
    ) -> Result<(), Fault> {
        let tokens: usize = jobs.iter().map(|job| job.work.cost()).sum();
        let mut state = self.state();
        if state.is_closed {
            return Err(Fault::plain(FaultCode::Unavailable));
        }
        let is_full = state.num_jobs + jobs.len() > self.capacity.jobs
            || state.num_tokens + tokens > self.capacity.tokens;
        // An empty queue takes one request whatever it weighs; limits on requests bound it.
        if is_full && state.num_jobs > 0 {
            let wait = state.num_tokens as f64 / tokens_per_s.max(1.0);
            return Err(Fault::busy(wait.ceil() as u64));
        }
        state.num_jobs += jobs.len();
        state.num_tokens += tokens;
        let level = state.level;
        let line = state.lines.entry(client).or_default();
        if line.jobs.is_empty() {
            line.served = line.served.max(level);
        }
        line.jobs.extend(jobs);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The next job that weighs no more than `room`.
    pub(crate) fn pop(&self, room: usize) -> Option<Job> {
        let mut state = self.state();
        let waiting = state.lines.iter().filter(|(_, line)| !line.jobs.is_empty());
        let client = *waiting.min_by_key(|(client, line)| (line.served, **client))?.0;
        let line = state.lines.get_mut(&client)?;
        if line.jobs.front().is_none_or(|job| job.work.cost() > room) {
            return None;
        }
        let job = line.jobs.pop_front()?;
        let start = line.served;
        line.served += job.work.cost() as u64;
        let is_over = line.jobs.is_empty();
        state.level = state.level.max(start);
        state.num_jobs -= 1;
        state.num_tokens -= job.work.cost();
        if is_over {
            state.forget_idle();
        }
        Some(job)
    }

    /// Forgets work: what waits is dropped, what runs is named by
    /// [`Queue::take_cancelled`].
    pub(crate) fn cancel(&self, client: ClientId, ids: &[WorkId]) {
        let mut state = self.state();
        let mut left = ids.to_vec();
        let (mut num_jobs, mut num_tokens) = (0, 0);
        if let Some(line) = state.lines.get_mut(&client) {
            line.jobs.retain(|job| {
                let Some(at) = left.iter().position(|id| *id == job.id) else { return true };
                left.swap_remove(at);
                num_jobs += 1;
                num_tokens += job.work.cost();
                false
            });
        }
        state.num_jobs -= num_jobs;
        state.num_tokens -= num_tokens;
        state.cancelled.extend(left);
        state.forget_idle();
        drop(state);
        self.changed.notify_one();
    }

    /// Work that was cancelled after it had left the queue.
    pub(crate) fn take_cancelled(&self) -> Vec<WorkId> {
        std::mem::take(&mut self.state().cancelled)
    }

    /// Waits until there is something to do; `false` when there never will be again.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state();
        while state.num_jobs == 0 && state.cancelled.is_empty() {
            if state.is_closed {
                return false;
            }
            let waited = self.changed.wait_timeout(state, Duration::from_secs(60));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Drops everything and takes nothing more: the model or the server is gone.
    pub(crate) fn fail(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.lines.clear();
        (state.num_jobs, state.num_tokens) = (0, 0);
        drop(state);
        self.changed.notify_all();
    }

    /// Whether it takes no more work.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Jobs and tokens waiting.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let state = self.state();
        (state.num_jobs, state.num_tokens)
    }
}

impl State {
    /// A client without work that is not ahead of the others has nothing to remember.
    fn forget_idle(&mut self) {
        let level = self.level;
        self.lines.retain(|_, line| !line.jobs.is_empty() || line.served > level);
        if self.num_jobs == 0 {
            // Nobody waits: everybody starts level.
            self.lines.clear();
            self.level = 0;
        }
    }
}

#[cfg(test)]
mod tests;
