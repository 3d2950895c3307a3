//! One cohort: open, then ended.

use std::collections::HashMap;

use patarm_reward::par::{ParConfig, ParScore};

use super::arrival::{Arrival, Declaration};
use super::rule::{Answer, rewards};
use super::store::{Delivery, Refusal, Waiter};

/// Most callers waiting for one rollout at once: its sender and a few retries.
const MAX_WAITERS: usize = 8;

/// A cohort that still waits for members.
#[derive(Debug)]
pub(super) struct Open<W> {
    pub(super) declaration: Declaration,
    /// When its time is over.
    pub(super) deadline_ms: u64,
    received: Vec<usize>,
    members: HashMap<String, Member<W>>,
}

#[derive(Debug)]
struct Member<W> {
    slot: usize,
    score: ParScore,
    waiters: Vec<W>,
}

/// How a cohort ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Complete,
    /// Out of time; its members were refused.
    TimedOut,
    /// Out of time; its members were answered from what was there.
    Partial,
    Cancelled,
}

/// A cohort of the past, kept for callers who ask again.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) declaration: Declaration,
    pub(super) ending: Ending,
    pub(super) received: Vec<usize>,
    /// When it is forgotten.
    pub(super) forget_ms: u64,
    /// Scores and answers by rollout id; no answers where the members were refused.
    members: HashMap<String, (ParScore, Option<Answer>)>,
}

impl<W: Waiter> Open<W> {
    pub(super) fn new(declaration: Declaration, deadline_ms: u64) -> Self {
        let received = vec![0; declaration.expected().len()];
        Self { declaration, deadline_ms, received, members: HashMap::new() }
    }

    pub(super) fn received(&self) -> &[usize] {
        &self.received
    }

    pub(super) fn num_waiters(&self) -> usize {
        self.members.values().map(|member| member.waiters.len()).sum()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.received == self.declaration.expected()
    }

    /// The score of a member.
    pub(super) fn score(&self, rollout_id: &str) -> Option<ParScore> {
        self.members.get(rollout_id).map(|member| member.score)
    }

    /// Takes a rollout in; the caller waits from now on.
    ///
    /// Gives the waiter back with the reason where the rollout does not fit.
    pub(super) fn join(&mut self, arrival: &Arrival, waiter: W) -> Result<(), (W, Refusal)> {
        if self.declaration != arrival.place.declaration {
            return Err((waiter, Refusal::Conflict));
        }
        let slot = arrival.place.slot;
        if let Some(member) = self.members.get_mut(&arrival.rollout_id) {
            return member.wait_again(arrival, waiter);
        }
        if self.received[slot] >= self.declaration.expected()[slot] {
            return Err((waiter, Refusal::SideFull));
        }
        self.received[slot] += 1;
        let member = Member { slot, score: arrival.score, waiters: vec![waiter] };
        self.members.insert(arrival.rollout_id.clone(), member);
        Ok(())
    }

    /// Ends with an answer for every member.
    pub(super) fn answer(
        self,
        ending: Ending,
        config: &ParConfig,
        forget_ms: u64,
    ) -> (Ended, Vec<Delivery<W>>) {
        let mut members: Vec<(String, Member<W>)> = self.members.into_iter().collect();
        // An order of its own, so that sums do not depend on the order of arrival.
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        let scores: Vec<_> = members.iter().map(|(_, m)| (m.slot, m.score)).collect();
        let answers = rewards(&self.declaration, &scores, config);
        let mut deliveries = Vec::new();
        let mut kept = HashMap::with_capacity(members.len());
        for ((rollout_id, member), answer) in members.into_iter().zip(answers) {
            deliver(&mut deliveries, member.waiters, &Ok(answer.clone()));
            kept.insert(rollout_id, (member.score, Some(answer)));
        }
        let (declaration, received) = (self.declaration, self.received);
        (Ended { declaration, ending, received, forget_ms, members: kept }, deliveries)
    }

    /// Ends without answers.
    pub(super) fn refuse(
        self,
        ending: Ending,
        refusal: &Refusal,
        forget_ms: u64,
    ) -> (Ended, Vec<Delivery<W>>) {
        let mut deliveries = Vec::new();
        let mut kept = HashMap::with_capacity(self.members.len());
        for (rollout_id, member) in self.members {
            deliver(&mut deliveries, member.waiters, &Err(refusal.clone()));
            kept.insert(rollout_id, (member.score, None));
        }
        let (declaration, received) = (self.declaration, self.received);
        (Ended { declaration, ending, received, forget_ms, members: kept }, deliveries)
    }
}

impl<W: Waiter> Member<W> {
    fn wait_again(&mut self, arrival: &Arrival, waiter: W) -> Result<(), (W, Refusal)> {
        if self.slot != arrival.place.slot || self.score != arrival.score {
            return Err((waiter, Refusal::OtherContent));
        }
        self.waiters.retain(|waiter| !waiter.is_gone());
        if self.waiters.len() >= MAX_WAITERS {
            return Err((waiter, Refusal::Busy));
        }
        self.waiters.push(waiter);
        Ok(())
    }
}

fn deliver<W>(into: &mut Vec<Delivery<W>>, waiters: Vec<W>, result: &Result<Answer, Refusal>) {
    into.extend(waiters.into_iter().map(|waiter| Delivery { waiter, result: result.clone() }));
}

impl Ended {
    pub(super) fn num_members(&self) -> usize {
        self.members.len()
    }

    /// The score of a member.
    pub(super) fn score(&self, rollout_id: &str) -> Option<ParScore> {
        self.members.get(rollout_id).map(|(score, _)| *score)
    }

    /// What a caller is told who comes after the end.
    pub(super) fn ask(&self, arrival: &Arrival) -> Result<Answer, Refusal> {
        let ending = match self.ending {
            Ending::Complete => Refusal::Over,
            Ending::TimedOut | Ending::Partial => self.timed_out(),
            Ending::Cancelled => Refusal::Cancelled,
        };
        match self.members.get(&arrival.rollout_id) {
            Some(_) if self.declaration != arrival.place.declaration => Err(Refusal::Conflict),
            Some((score, _)) if *score != arrival.score => Err(Refusal::OtherContent),
            Some((_, Some(answer))) => Ok(answer.clone()),
            Some((_, None)) | None => Err(ending),
        }
    }

    fn timed_out(&self) -> Refusal {
        Refusal::TimedOut { received: self.received.clone(), expected: self.declaration.expected() }
    }
}
