//! Engines that gather what is submitted and work it off step by step.

use std::collections::VecDeque;

use super::{Counters, Event, Prepared, ServedEngine, WorkId};

/// Work that was submitted and not begun, oldest first.
#[derive(Debug, Default)]
pub struct Waiting {
    works: VecDeque<(WorkId, Prepared)>,
}

impl Waiting {
    /// The oldest piece, without taking it.
    #[must_use]
    pub fn first(&self) -> Option<&Prepared> {
        self.works.front().map(|(_, work)| work)
    }

    /// Takes the oldest piece.
    pub fn pop(&mut self) -> Option<(WorkId, Prepared)> {
        self.works.pop_front()
    }

    /// Takes every piece.
    pub fn take(&mut self) -> Vec<(WorkId, Prepared)> {
        self.works.drain(..).collect()
    }

    /// Takes the pieces that `is_wanted` says, oldest first; it is asked once for each.
    pub fn take_if(
        &mut self,
        mut is_wanted: impl FnMut(&Prepared) -> bool,
    ) -> Vec<(WorkId, Prepared)> {
        let wanted: Vec<bool> = self.works.iter().map(|(_, work)| is_wanted(work)).collect();
        let mut taken = Vec::new();
        if wanted.contains(&true) {
            let works = std::mem::take(&mut self.works);
            for (is_wanted, work) in wanted.into_iter().zip(works) {
                match is_wanted {
                    true => taken.push(work),
                    false => self.works.push_back(work),
                }
            }
        }
        taken
    }
}

/// What an engine does with the work that waits.
pub trait Step {
    /// Works some of it off and reports that.
    fn step(
        &mut self,
        waiting: &mut Waiting,
        counters: &mut Counters,
        report: &mut dyn FnMut(Event),
    );
}

/// An engine whose pieces of work are either waiting or done.
#[derive(Debug)]
pub struct StepEngine<S> {
    step: S,
    waiting: Waiting,
    counters: Counters,
}

impl<S> StepEngine<S> {
    /// An engine without work.
    #[must_use]
    pub fn new(step: S) -> Self {
        Self { step, waiting: Waiting::default(), counters: Counters::default() }
    }
}

impl<S: Step> ServedEngine for StepEngine<S> {
    fn submit(&mut self, id: WorkId, work: Prepared) {
        self.waiting.works.push_back((id, work));
    }

    fn step(&mut self, report: &mut dyn FnMut(Event)) {
        self.step.step(&mut self.waiting, &mut self.counters, report);
    }

    fn cancel(&mut self, id: WorkId) {
        self.waiting.works.retain(|(other, _)| *other != id);
    }

    fn is_idle(&self) -> bool {
        self.waiting.works.is_empty()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
