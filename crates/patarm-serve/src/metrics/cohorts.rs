//! Measurements of cohorts, copied from their own counters when they are asked for.

use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::Whole;
use crate::cohort::CohortCounts;

/// Gauges and counters of cohorts.
#[derive(Default)]
pub(super) struct CohortMetrics {
    open: Whole,
    rollouts_held: Whole,
    opened: Counter,
    completed: Counter,
    timed_out: Counter,
    cancelled: Counter,
    evicted: Counter,
    repeated: Counter,
    refused: Counter,
}

impl CohortMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("cohorts_open", "Cohorts that wait for members", self.open.clone());
        r.register(
            "cohort_rollouts_held",
            "Rollouts held in open and ended cohorts",
            self.rollouts_held.clone(),
        );
        for (name, about, counter) in [
            ("cohorts_opened", "Cohorts opened", &self.opened),
            ("cohorts_completed", "Cohorts completed", &self.completed),
            ("cohorts_timed_out", "Cohorts that ran out of time", &self.timed_out),
            ("cohorts_cancelled", "Cohorts cancelled", &self.cancelled),
            ("cohorts_evicted", "Ended cohorts forgotten early to make room", &self.evicted),
            ("cohort_rollouts_repeated", "Rollouts that came again", &self.repeated),
            ("cohort_rollouts_refused", "Rollouts refused on arrival", &self.refused),
        ] {
            r.register(name, about, counter.clone());
        }
    }

    pub(super) fn set(&self, counts: &CohortCounts) {
        self.open.set(counts.open as i64);
        self.rollouts_held.set(counts.rollouts_held as i64);
        for (counter, count) in [
            (&self.opened, counts.opened),
            (&self.completed, counts.completed),
            (&self.timed_out, counts.timed_out),
            (&self.cancelled, counts.cancelled),
            (&self.evicted, counts.evicted),
            (&self.repeated, counts.repeated),
            (&self.refused, counts.refused),
        ] {
            counter.inner().store(count, Ordering::Relaxed);
        }
    }
}
