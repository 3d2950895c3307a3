//! Callers that wait for their cohorts.
//!
//! There is no task that watches the clock: every caller sleeps until its own cohort is
//! due and then has everything that is due ended. Where nobody waits, nobody need be
//! told, and the next caller finds the cohorts as if they had ended in time.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use patarm_reward::par::ParScore;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep_until};

use super::wire::{Outcome, RolloutId};
use crate::cohort::{
    Answer, Arrival, CohortConfig, CohortCounts, CohortState, Cohorts, Delivery, Refusal, Waiter,
};
use crate::dialect::native::ItemError;
use crate::shutdown::Shutdown;

/// The other end of a caller.
#[derive(Debug)]
struct Caller(oneshot::Sender<Result<Answer, Refusal>>);

impl Waiter for Caller {
    fn is_gone(&self) -> bool {
        self.0.is_closed()
    }
}

/// All cohorts of a server and the clock they live by.
#[derive(Debug)]
pub(crate) struct CohortService {
    cohorts: Mutex<Cohorts<Caller>>,
    started: Instant,
    /// Requests that may wait at the same time: fewer than there are connections, so
    /// that the rollouts they wait for still get through.
    waiting: Semaphore,
}

/// A rollout on its way to an outcome.
enum Seat {
    Done(Outcome),
    Waiting { id: String, answer: oneshot::Receiver<Result<Answer, Refusal>> },
}

impl CohortService {
    /// No cohorts yet.
    #[must_use]
    pub(crate) fn new(config: CohortConfig, max_waiting: usize) -> Self {
        Self {
            cohorts: Mutex::new(Cohorts::new(config)),
            started: Instant::now(),
            waiting: Semaphore::new(max_waiting.clamp(1, Semaphore::MAX_PERMITS)),
        }
    }

    /// Adds rollouts and waits for their cohorts: until `until`, or until the server is
    /// asked to stop, or not at all where too many wait already.
    pub(super) async fn gather(
        &self,
        arrivals: Vec<Result<Arrival, ItemError>>,
        until: Instant,
        shutdown: &Shutdown,
    ) -> Vec<Outcome> {
        let seats: Vec<Seat> = arrivals.into_iter().map(|arrival| self.seat(arrival)).collect();
        let place = self.waiting.try_acquire().ok();
        let until = if place.is_some() { until } else { Instant::now() };
        let mut end = std::pin::pin!(async {
            tokio::select! {
                () = sleep_until(until) => {}
                () = shutdown.triggered() => {}
            }
        });
        let mut is_over = false;
        let mut outcomes = Vec::with_capacity(seats.len());
        for seat in seats {
            outcomes.push(match seat {
                Seat::Done(outcome) => outcome,
                Seat::Waiting { id, answer } if is_over => self.look(&id, answer),
                Seat::Waiting { id, answer } => {
                    self.wait(&id, answer, end.as_mut(), &mut is_over).await
                }
            });
        }
        outcomes
    }

    /// The score of a rollout that has arrived before.
    pub(super) fn known_score(&self, id: &RolloutId) -> Option<ParScore> {
        self.lock().known_score(&id.cohort, &id.rollout)
    }

    /// Where a cohort stands.
    pub(super) fn state(&self, cohort_id: &str) -> Option<CohortState> {
        self.expire();
        self.lock().state(cohort_id)
    }

    /// Cancels a cohort, if it is open.
    pub(super) fn cancel(&self, cohort_id: &str) {
        let (_, deliveries) = self.lock().cancel(cohort_id, self.now_ms());
        deliver(deliveries);
    }

    /// Counters and gauges, for metrics.
    pub(crate) fn counts(&self) -> CohortCounts {
        self.expire();
        self.lock().counts()
    }

    fn seat(&self, arrival: Result<Arrival, ItemError>) -> Seat {
        let arrival = match arrival {
            Ok(arrival) => arrival,
            Err(error) => return Seat::Done(Outcome::Refused(error)),
        };
        let (sender, mut answer) = oneshot::channel();
        let deliveries = self.lock().arrive(&arrival, Caller(sender), self.now_ms());
        deliver(deliveries);
        match answer.try_recv() {
            Ok(result) => Seat::Done(result.into()),
            Err(_) => Seat::Waiting { id: arrival.cohort_id, answer },
        }
    }

    async fn wait(
        &self,
        id: &str,
        mut answer: oneshot::Receiver<Result<Answer, Refusal>>,
        mut end: Pin<&mut impl Future<Output = ()>>,
        is_over: &mut bool,
    ) -> Outcome {
        loop {
            let remaining = self.lock().state(id).map_or(0, |state| state.remaining_ms);
            let due = Instant::now() + Duration::from_millis(remaining.max(1));
            tokio::select! {
                biased;
                result = &mut answer => return match result {
                    Ok(result) => result.into(),
                    Err(_) => Outcome::Pending(None),
                },
                () = end.as_mut() => {
                    *is_over = true;
                    return self.look(id, answer);
                }
                () = sleep_until(due) => self.expire(),
            }
        }
    }

    /// The outcome as it is now.
    fn look(&self, id: &str, mut answer: oneshot::Receiver<Result<Answer, Refusal>>) -> Outcome {
        match answer.try_recv() {
            Ok(result) => result.into(),
            Err(_) => Outcome::Pending(self.lock().state(id)),
        }
    }

    fn expire(&self) {
        let deliveries = self.lock().expire(self.now_ms());
        deliver(deliveries);
    }

    /// Milliseconds on a clock that nobody can set.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Cohorts<Caller>> {
        self.cohorts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn deliver(deliveries: Vec<Delivery<Caller>>) {
    for Delivery { waiter, result } in deliveries {
        // A caller that went away hears nothing.
        let _ = waiter.0.send(result);
    }
}
