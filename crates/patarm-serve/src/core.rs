//! Models behind queues: what every dialect submits to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use patarm_reward::model::ItemFault;
use patarm_reward::serving::{Answer, Ask, ModelCard, Prepared, ServedModel, ServedText, WorkId};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::config::Limits;
use crate::fault::{Fault, FaultCode};
use crate::metrics::Metrics;
use crate::queue::{Capacity, ClientId, Job, Queue};
use crate::worker::{self, Pace};

/// A model with its queue and its thread.
pub struct Host {
    text: Arc<dyn ServedText>,
    queue: Arc<Queue>,
    pace: Arc<Pace>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// What the model is.
    #[must_use]
    pub fn card(&self) -> &ModelCard {
        self.text.card()
    }

    /// Pieces of work and tokens that wait.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        self.queue.depth()
    }

    /// Whether the model's thread can go on.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.queue.is_closed()
    }
}

/// All models.
pub struct Core {
    hosts: Vec<Host>,
    limits: Limits,
    next_id: AtomicU64,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Core {
    /// Starts a thread for every model.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(
        models: Vec<Box<dyn ServedModel>>,
        limits: Limits,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let mut hosts = Vec::with_capacity(models.len());
        for model in models {
            let text = model.text();
            let capacity = Capacity { jobs: limits.max_queue, tokens: limits.max_queue_tokens };
            let queue = Arc::new(Queue::new(capacity));
            let pace = Arc::new(Pace::default());
            let own = worker::Worker {
                queue: Arc::clone(&queue),
                pace: Arc::clone(&pace),
                metrics: Arc::clone(metrics),
                card: text.card().clone(),
                max_tokens: limits.max_batch_tokens,
            };
            let name = format!("engine {}", text.card().name);
            let thread =
                std::thread::Builder::new().name(name).spawn(move || own.run(model.as_ref()))?;
            hosts.push(Host { text, queue, pace, thread: Some(thread) });
        }
        let metrics = Arc::clone(metrics);
        Ok(Self { hosts, limits, next_id: AtomicU64::new(1), metrics })
    }

    /// The models, in the order they were named.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The limits on requests.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The model a request names; the first where it names none.
    ///
    /// # Errors
    /// When there is no such model.
    pub fn host(&self, name: Option<&str>) -> Result<&Host, Fault> {
        let found = match name {
            None | Some("") => self.hosts.first(),
            Some(name) => self.hosts.iter().find(|host| host.card().name == name),
        };
        found.ok_or_else(|| Fault::plain(FaultCode::ModelNotFound))
    }

    /// Prepares and queues the items of a request: all of them or, when the server is
    /// full, none. An item that cannot be prepared fails alone.
    ///
    /// # Errors
    /// When there are too many items or the server is full.
    pub async fn submit(&self, host: &Host, client: u64, asks: Vec<Ask>) -> Result<Ticket, Fault> {
        if asks.len() > self.limits.max_items {
            let message = format!("{} items, at most {}", asks.len(), self.limits.max_items);
            return Err(Fault::new(FaultCode::TooManyItems, message));
        }
        if let Some(votes) = asks.iter().map(votes).find(|votes| *votes > self.limits.max_votes) {
            let message = format!("{votes} votes, at most {}", self.limits.max_votes);
            return Err(Fault::new(FaultCode::TooManyItems, message));
        }
        let started = Instant::now();
        let text = Arc::clone(&host.text);
        let prepare = move || asks.into_iter().map(|ask| text.prepare(ask)).collect::<Vec<_>>();
        let prepared = tokio::task::spawn_blocking(prepare)
            .await
            .map_err(|_| Fault::plain(FaultCode::Internal))?;
        self.metrics.phase(&host.card().name, "prepare", started.elapsed());
        self.queue(host, client, prepared)
    }

    fn queue(
        &self,
        host: &Host,
        client: ClientId,
        prepared: Vec<Result<Prepared, ItemFault>>,
    ) -> Result<Ticket, Fault> {
        let first_id = self.next_id.fetch_add(prepared.len() as u64, Ordering::Relaxed);
        let (reply, updates) = mpsc::unbounded_channel();
        let mut ticket = Ticket {
            queue: Arc::clone(&host.queue),
            client,
            first_id,
            open: Vec::with_capacity(prepared.len()),
            refused: Vec::new(),
            num_prompt_tokens: Vec::with_capacity(prepared.len()),
            updates,
        };
        let mut jobs = Vec::with_capacity(prepared.len());
        let queued_at = Instant::now();
        for (index, work) in prepared.into_iter().enumerate() {
            let id = WorkId(first_id + index as u64);
            ticket.open.push(work.is_ok());
            ticket.num_prompt_tokens.push(work.as_ref().map_or(0, Prepared::num_prompt_tokens));
            match work {
                Ok(work) => jobs.push(Job { id, work, reply: reply.clone(), queued_at }),
                Err(fault) => ticket.refused.push((index, fault.into())),
            }
        }
        if !jobs.is_empty() {
            let pushed = host.queue.push(client, jobs, host.pace.tokens_per_s());
            if let Err(fault) = pushed {
                ticket.open.clear();
                return Err(fault);
            }
        }
        Ok(ticket)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Whoever still waits has had the time that draining allows.
        self.hosts.iter().for_each(|host| host.queue.fail());
        for host in &mut self.hosts {
            if let Some(thread) = host.thread.take() {
                // A thread that panicked has said so in its queue.
                let _ = thread.join();
            }
        }
    }
}

fn votes(ask: &Ask) -> usize {
    match ask {
        Ask::Judge(judge) => judge.votes,
        Ask::Compare(compare) => compare.votes,
        Ask::Sequence(_) | Ask::Chat(_) => 1,
    }
}

/// News of one item of a request.
#[derive(Debug)]
pub enum Update {
    /// More text of one of its judgements or answers.
    Text {
        /// Which vote.
        vote: usize,
        /// What was added.
        text: String,
    },
    /// It is done.
    Done(Result<Answer, Fault>),
}

/// A request on its way. Dropping it cancels what is not done.
pub struct Ticket {
    queue: Arc<Queue>,
    client: ClientId,
    first_id: u64,
    /// Which items are not done.
    open: Vec<bool>,
    refused: Vec<(usize, Fault)>,
    num_prompt_tokens: Vec<usize>,
    updates: UnboundedReceiver<(WorkId, Update)>,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("open", &self.open).finish_non_exhaustive()
    }
}

impl Ticket {
    /// Tokens each item has to be read; 0 for items that were refused.
    #[must_use]
    pub fn num_prompt_tokens(&self) -> &[usize] {
        &self.num_prompt_tokens
    }

    /// The next news with the place of its item; `None` when every item is done.
    pub async fn next(&mut self) -> Option<(usize, Update)> {
        if let Some((index, fault)) = self.refused.pop() {
            return Some((index, Update::Done(Err(fault))));
        }
        let waiting = self.open.iter().position(|open| *open)?;
        let (index, update) = match self.updates.recv().await {
            Some((id, update)) => ((id.0 - self.first_id) as usize, update),
            // The model is gone, and with it everything it had.
            None => (waiting, Update::Done(Err(Fault::plain(FaultCode::Internal)))),
        };
        if matches!(update, Update::Done(_))
            && let Some(open) = self.open.get_mut(index)
        {
            *open = false;
        }
        Some((index, update))
    }

    /// Waits for every item; results stand in the order of the items.
    pub async fn collect(mut self) -> Vec<Result<Answer, Fault>> {
        let lost = || Err(Fault::plain(FaultCode::Internal));
        let mut results: Vec<Result<Answer, Fault>> = self.open.iter().map(|_| lost()).collect();
        while let Some((index, update)) = self.next().await {
            if let Update::Done(result) = update
                && let Some(place) = results.get_mut(index)
            {
                *place = result;
            }
        }
        results
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let open = self.open.iter().enumerate().filter(|(_, open)| **open);
        let ids: Vec<WorkId> =
            open.map(|(index, _)| WorkId(self.first_id + index as u64)).collect();
        if !ids.is_empty() {
            self.queue.cancel(self.client, &ids);
        }
    }
}
