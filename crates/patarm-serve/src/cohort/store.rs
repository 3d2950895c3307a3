//! All cohorts of a server.

use std::collections::{BTreeSet, HashMap};

use patarm_reward::par::ParScore;
use schemars::JsonSchema;
use serde::Serialize;

use super::arrival::Arrival;
use super::config::{CohortConfig, OnTimeout};
use super::life::{Ended, Ending, Open};
use super::rule::Answer;

/// A caller that waits for its answer.
pub trait Waiter {
    /// Whether it has gone away and would not read an answer.
    fn is_gone(&self) -> bool;
}

/// An answer on its way to a caller.
#[derive(Debug, PartialEq)]
pub struct Delivery<W> {
    /// Who gets it.
    pub waiter: W,
    /// The reward, or why there is none.
    pub result: Result<Answer, Refusal>,
}

/// Why a rollout gets no reward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The arrival makes no sense by itself.
    Invalid(String),
    /// It declares another kind, label, rule or count than the cohort was opened with.
    Conflict,
    /// Its id is taken by a rollout with another score or side.
    OtherContent,
    /// All rollouts of its side are there already.
    SideFull,
    /// The cohort ran out of time.
    TimedOut {
        /// What was there, by side.
        received: Vec<usize>,
        /// What had been declared, by side.
        expected: Vec<usize>,
    },
    /// The cohort was cancelled.
    Cancelled,
    /// The cohort is complete, without this rollout.
    Over,
    /// A limit is reached; later there may be room.
    Busy,
}

impl Refusal {
    /// The name in replies and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_rollout",
            Self::Conflict => "cohort_conflict",
            Self::OtherContent => "rollout_conflict",
            Self::SideFull => "cohort_side_full",
            Self::TimedOut { .. } => "cohort_timed_out",
            Self::Cancelled => "cohort_cancelled",
            Self::Over => "cohort_over",
            Self::Busy => "cohort_busy",
        }
    }

    /// One sentence for the person who reads it.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Invalid(what) => what.clone(),
            Self::Conflict => "other members of this cohort declared another kind, preferred \
                side, rule or expected count; use one cohort id a pair (or group) and step"
                .to_owned(),
            Self::OtherContent => {
                "this rollout id came before with another score or side; give every rollout an \
                 id of its own"
                    .to_owned()
            }
            Self::SideFull => "all expected rollouts of this side have arrived".to_owned(),
            Self::TimedOut { received, expected } => {
                format!("the cohort ran out of time with {received:?} of {expected:?} rollouts")
            }
            Self::Cancelled => "the cohort was cancelled".to_owned(),
            Self::Over => "the cohort was completed without this rollout".to_owned(),
            Self::Busy => "too many cohorts or rollouts are held; try again later".to_owned(),
        }
    }
}

/// Where a cohort stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CohortPhase {
    /// Waiting for members.
    Open,
    /// Complete and answered.
    Complete,
    /// Out of time; its members were refused.
    TimedOut,
    /// Out of time; its members were answered from what was there.
    Partial,
    /// Cancelled.
    Cancelled,
}

/// A look at one cohort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CohortState {
    /// Where it stands.
    pub phase: CohortPhase,
    /// Rollouts that have arrived, by side (one number for a group).
    pub received: Vec<usize>,
    /// Rollouts that had been declared, by side (one number for a group).
    pub expected: Vec<usize>,
    /// Callers that wait, gone ones included.
    pub waiting: usize,
    /// Milliseconds until the time-out (open) or until it is forgotten (ended).
    pub remaining_ms: u64,
}

/// Sums over the life of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CohortCounts {
    /// Cohorts open now.
    pub open: u64,
    /// Rollouts held now, in open and ended cohorts.
    pub rollouts_held: u64,
    /// Cohorts opened.
    pub opened: u64,
    /// Cohorts completed.
    pub completed: u64,
    /// Cohorts that ran out of time.
    pub timed_out: u64,
    /// Cohorts cancelled.
    pub cancelled: u64,
    /// Ended cohorts forgotten early to make room.
    pub evicted: u64,
    /// Rollouts that came again with the same content.
    pub repeated: u64,
    /// Rollouts refused on arrival.
    pub refused: u64,
}

/// All cohorts of a server.
///
/// Times are milliseconds of one clock that the caller reads; a clock that goes back is
/// treated as standing still. Every call first does what had become due by then, so that
/// results depend on the times given and not on how often [`Cohorts::expire`] is called.
#[derive(Debug)]
pub struct Cohorts<W> {
    config: CohortConfig,
    now_ms: u64,
    open: HashMap<String, Open<W>>,
    ended: HashMap<String, Ended>,
    /// Time-outs of open cohorts, soonest first.
    deadlines: BTreeSet<(u64, String)>,
    /// When ended cohorts are forgotten, soonest first.
    forgettings: BTreeSet<(u64, String)>,
    counts: CohortCounts,
}

impl<W: Waiter> Cohorts<W> {
    /// No cohorts yet.
    #[must_use]
    pub fn new(config: CohortConfig) -> Self {
        Self {
            config,
            now_ms: 0,
            open: HashMap::new(),
            ended: HashMap::new(),
            deadlines: BTreeSet::new(),
            forgettings: BTreeSet::new(),
            counts: CohortCounts::default(),
        }
    }

    /// A rollout arrives with its caller. Returns all answers that are due now, which
    /// may be that of this caller, of others, or of nobody.
    #[must_use]
    pub fn arrive(&mut self, arrival: &Arrival, waiter: W, now_ms: u64) -> Vec<Delivery<W>> {
        let mut deliveries = self.expire(now_ms);
        let refused = |counts: &mut CohortCounts, waiter: W, refusal: Refusal| {
            counts.refused += 1;
            Delivery { waiter, result: Err(refusal) }
        };
        if let Some(fault) = arrival.fault(self.config.max_cohort_size) {
            deliveries.push(refused(&mut self.counts, waiter, Refusal::Invalid(fault)));
            return deliveries;
        }
        if let Some(ended) = self.ended.get(&arrival.cohort_id) {
            match ended.ask(arrival) {
                Ok(answer) => {
                    self.counts.repeated += 1;
                    deliveries.push(Delivery { waiter, result: Ok(answer) });
                }
                Err(refusal) => deliveries.push(refused(&mut self.counts, waiter, refusal)),
            }
            return deliveries;
        }
        match self.join(arrival, waiter) {
            Ok(()) => deliveries.extend(self.complete(&arrival.cohort_id)),
            Err((waiter, refusal)) => {
                deliveries.push(refused(&mut self.counts, waiter, refusal));
            }
        }
        deliveries
    }

    /// Ends what is out of time and forgets what is old.
    #[must_use]
    pub fn expire(&mut self, now_ms: u64) -> Vec<Delivery<W>> {
        self.now_ms = self.now_ms.max(now_ms);
        let mut deliveries = Vec::new();
        while let Some(id) = pop_due(&mut self.deadlines, self.now_ms) {
            deliveries.extend(self.time_out(id));
        }
        while let Some(id) = pop_due(&mut self.forgettings, self.now_ms) {
            self.forget(&id);
        }
        deliveries
    }

    /// Cancels a cohort, if it is open; says whether it was.
    #[must_use]
    pub fn cancel(&mut self, cohort_id: &str, now_ms: u64) -> (bool, Vec<Delivery<W>>) {
        let mut deliveries = self.expire(now_ms);
        let Some(open) = self.take_open(cohort_id) else {
            return (false, deliveries);
        };
        self.counts.cancelled += 1;
        let forget_ms = self.forget_ms(self.now_ms);
        let (ended, refused) = open.refuse(Ending::Cancelled, &Refusal::Cancelled, forget_ms);
        self.keep(cohort_id.to_owned(), ended);
        deliveries.extend(refused);
        (true, deliveries)
    }

    /// Where a cohort stands at the time of the last call; `None` for one that is
    /// unknown or forgotten.
    #[must_use]
    pub fn state(&self, cohort_id: &str) -> Option<CohortState> {
        if let Some(open) = self.open.get(cohort_id) {
            return Some(CohortState {
                phase: CohortPhase::Open,
                received: open.received().to_vec(),
                expected: open.declaration.expected(),
                waiting: open.num_waiters(),
                remaining_ms: open.deadline_ms.saturating_sub(self.now_ms),
            });
        }
        let ended = self.ended.get(cohort_id)?;
        Some(CohortState {
            phase: match ended.ending {
                Ending::Complete => CohortPhase::Complete,
                Ending::TimedOut => CohortPhase::TimedOut,
                Ending::Partial => CohortPhase::Partial,
                Ending::Cancelled => CohortPhase::Cancelled,
            },
            received: ended.received.clone(),
            expected: ended.declaration.expected(),
            waiting: 0,
            remaining_ms: ended.forget_ms.saturating_sub(self.now_ms),
        })
    }

    /// The score of a rollout that has arrived before and is not forgotten.
    #[must_use]
    pub fn known_score(&self, cohort_id: &str, rollout_id: &str) -> Option<ParScore> {
        let open = self.open.get(cohort_id).and_then(|open| open.score(rollout_id));
        open.or_else(|| self.ended.get(cohort_id).and_then(|ended| ended.score(rollout_id)))
    }

    /// When [`Cohorts::expire`] has something to do next.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        let first = |set: &BTreeSet<(u64, String)>| set.first().map(|(at, _)| *at);
        first(&self.deadlines).into_iter().chain(first(&self.forgettings)).min()
    }

    /// Counters and gauges.
    #[must_use]
    pub fn counts(&self) -> CohortCounts {
        CohortCounts { open: self.open.len() as u64, ..self.counts }
    }

    fn join(&mut self, arrival: &Arrival, waiter: W) -> Result<(), (W, Refusal)> {
        let id = &arrival.cohort_id;
        let is_repeat =
            self.open.get(id).is_some_and(|open| open.score(&arrival.rollout_id).is_some());
        if !is_repeat && !self.make_room() {
            return Err((waiter, Refusal::Busy));
        }
        if !self.open.contains_key(id) {
            if self.open.len() >= self.config.max_open {
                return Err((waiter, Refusal::Busy));
            }
            let deadline_ms = self.now_ms.saturating_add(self.config.timeout_ms);
            self.open.insert(id.clone(), Open::new(arrival.place.declaration, deadline_ms));
            self.deadlines.insert((deadline_ms, id.clone()));
            self.counts.opened += 1;
        }
        if let Some(open) = self.open.get_mut(id) {
            open.join(arrival, waiter)?;
        }
        if is_repeat {
            self.counts.repeated += 1;
        } else {
            self.counts.rollouts_held += 1;
        }
        Ok(())
    }

    /// Room for one more rollout, if need be by forgetting ended cohorts.
    fn make_room(&mut self) -> bool {
        while self.counts.rollouts_held >= self.config.max_rollouts as u64 {
            let Some((_, id)) = self.forgettings.pop_first() else {
                return false;
            };
            self.counts.evicted += 1;
            self.forget(&id);
        }
        true
    }

    fn complete(&mut self, cohort_id: &str) -> Vec<Delivery<W>> {
        if !self.open.get(cohort_id).is_some_and(Open::is_complete) {
            return Vec::new();
        }
        let Some(open) = self.take_open(cohort_id) else {
            return Vec::new();
        };
        self.counts.completed += 1;
        let forget_ms = self.forget_ms(self.now_ms);
        let (ended, answers) = open.answer(Ending::Complete, &self.config.par, forget_ms);
        self.keep(cohort_id.to_owned(), ended);
        answers
    }

    fn time_out(&mut self, cohort_id: String) -> Vec<Delivery<W>> {
        let Some(open) = self.take_open(&cohort_id) else {
            return Vec::new();
        };
        self.counts.timed_out += 1;
        let forget_ms = self.forget_ms(open.deadline_ms);
        let (ended, deliveries) = match self.config.on_timeout {
            OnTimeout::Partial => open.answer(Ending::Partial, &self.config.par, forget_ms),
            OnTimeout::Fail => {
                let refusal = Refusal::TimedOut {
                    received: open.received().to_vec(),
                    expected: open.declaration.expected(),
                };
                open.refuse(Ending::TimedOut, &refusal, forget_ms)
            }
        };
        self.keep(cohort_id, ended);
        deliveries
    }

    fn take_open(&mut self, cohort_id: &str) -> Option<Open<W>> {
        let open = self.open.remove(cohort_id)?;
        self.deadlines.remove(&(open.deadline_ms, cohort_id.to_owned()));
        Some(open)
    }

    fn keep(&mut self, cohort_id: String, ended: Ended) {
        self.forgettings.insert((ended.forget_ms, cohort_id.clone()));
        self.ended.insert(cohort_id, ended);
    }

    fn forget(&mut self, cohort_id: &str) {
        if let Some(ended) = self.ended.remove(cohort_id) {
            self.counts.rollouts_held -= ended.num_members() as u64;
        }
    }

    fn forget_ms(&self, end_ms: u64) -> u64 {
        end_ms.saturating_add(self.config.retain_ms)
    }
}

fn pop_due(set: &mut BTreeSet<(u64, String)>, now_ms: u64) -> Option<String> {
    let is_due = set.first().is_some_and(|(at, _)| *at <= now_ms);
    if is_due { set.pop_first().map(|(_, id)| id) } else { None }
}
