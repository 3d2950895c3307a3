//! What the server measures, as Prometheus text.

mod cohorts;
mod drift;

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use patarm_reward::judgement::Judgement;
use patarm_reward::serving::{Answer, Counters, ModelCard};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::cohort::CohortCounts;
use cohorts::CohortMetrics;
use drift::Windows;

/// One model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    model: String,
}

/// One phase of a model's work.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Phase {
    model: String,
    phase: &'static str,
}

/// Requests of one dialect with one status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    dialect: &'static str,
    status: u16,
}

/// One dialect.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Spoken {
    dialect: &'static str,
}

/// Judgements of a model with one kind of fault.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Faulty {
    model: String,
    fault: &'static str,
}

type Real = Gauge<f64, AtomicU64>;
type Whole = Gauge<i64, AtomicI64>;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Everything measured.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    request_seconds: Histograms<Spoken>,
    phase_seconds: Histograms<Phase>,
    batch_tokens: Histograms<Model>,
    prompt_tokens: Family<Model, Counter>,
    shared_tokens: Family<Model, Counter>,
    generated_tokens: Family<Model, Counter>,
    judgements: Family<Model, Counter>,
    faults: Family<Faulty, Counter>,
    cancelled: Family<Model, Counter>,
    panics: Family<Model, Counter>,
    scores: Histograms<Model>,
    queue_jobs: Family<Model, Whole>,
    queue_tokens: Family<Model, Whole>,
    drift_distance: Family<Model, Real>,
    drift_shift: Family<Model, Real>,
    in_flight: Whole,
    held_bytes: Whole,
    connections: Whole,
    cohorts: CohortMetrics,
    windows: Mutex<std::collections::HashMap<String, Windows>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 18))
}

fn tokens() -> Histogram {
    Histogram::new(exponential_buckets(16.0, 2.0, 14))
}

/// Scores of heads lie around 0, scores of judges on scales up to 10 or 100.
fn scores() -> Histogram {
    let bounds = [-20.0, -10.0, -5.0, -2.0, -1.0, -0.5, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 3.0];
    let more = [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 20.0, 50.0, 100.0];
    Histogram::new(bounds.into_iter().chain(more))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("patarm"),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            phase_seconds: Family::new_with_constructor(seconds),
            batch_tokens: Family::new_with_constructor(tokens),
            prompt_tokens: Family::default(),
            shared_tokens: Family::default(),
            generated_tokens: Family::default(),
            judgements: Family::default(),
            faults: Family::default(),
            cancelled: Family::default(),
            panics: Family::default(),
            scores: Family::new_with_constructor(scores),
            queue_jobs: Family::default(),
            queue_tokens: Family::default(),
            drift_distance: Family::default(),
            drift_shift: Family::default(),
            in_flight: Gauge::default(),
            held_bytes: Gauge::default(),
            connections: Gauge::default(),
            cohorts: CohortMetrics::default(),
            windows: Mutex::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("requests", "Requests by dialect and status", self.requests.clone());
        r.register(
            "request_seconds",
            "From the head of a request to its answer",
            self.request_seconds.clone(),
        );
        r.register(
            "phase_seconds",
            "Time of an item in preparation (per request), in the queue, in the engine",
            self.phase_seconds.clone(),
        );
        r.register(
            "batch_tokens",
            "Tokens the engine holds when work joins it",
            self.batch_tokens.clone(),
        );
        r.register("prompt_tokens", "Tokens read", self.prompt_tokens.clone());
        r.register(
            "shared_tokens",
            "Tokens another request had read already",
            self.shared_tokens.clone(),
        );
        r.register("generated_tokens", "Tokens written", self.generated_tokens.clone());
        r.register("judgements", "Judgements written", self.judgements.clone());
        r.register(
            "judgement_faults",
            "Judgements without a usable score, by kind",
            self.faults.clone(),
        );
        r.register("cancelled", "Items cancelled while they ran", self.cancelled.clone());
        r.register("engine_panics", "Panics of engines", self.panics.clone());
        r.register("score", "Scores given", self.scores.clone());
        r.register("queue_jobs", "Items waiting", self.queue_jobs.clone());
        r.register("queue_tokens", "Tokens waiting", self.queue_tokens.clone());
        r.register(
            "score_drift_distance",
            "Kolmogorov-Smirnov distance of recent scores from the first ones",
            self.drift_distance.clone(),
        );
        r.register(
            "score_drift_shift",
            "Recent mean score less the first mean, in standard deviations of the first",
            self.drift_shift.clone(),
        );
        r.register("in_flight", "Requests being answered", self.in_flight.clone());
        r.register("held_bytes", "Bytes of bodies held", self.held_bytes.clone());
        r.register("connections", "Open connections", self.connections.clone());
        self.cohorts.register(r);
    }

    /// A request was answered.
    pub(crate) fn request(&self, dialect: &'static str, status: u16, time: Duration) {
        self.requests.get_or_create(&Outcome { dialect, status }).inc();
        self.request_seconds.get_or_create(&Spoken { dialect }).observe(time.as_secs_f64());
    }

    /// An item was in a phase for so long.
    pub(crate) fn phase(&self, model: &str, phase: &'static str, time: Duration) {
        let label = Phase { model: model.to_owned(), phase };
        self.phase_seconds.get_or_create(&label).observe(time.as_secs_f64());
    }

    /// Work joined an engine, which now holds so many tokens.
    pub(crate) fn batch_tokens(&self, model: &str, tokens: usize) {
        self.batch_tokens.get_or_create(&label(model)).observe(tokens as f64);
    }

    /// An engine's counters went from `before` to `after`.
    pub(crate) fn tokens(&self, model: &str, before: &Counters, after: &Counters) {
        let each = [
            (&self.prompt_tokens, before.prompt_tokens, after.prompt_tokens),
            (&self.shared_tokens, before.shared_tokens, after.shared_tokens),
            (&self.generated_tokens, before.generated_tokens, after.generated_tokens),
        ];
        for (family, before, after) in each {
            family.get_or_create(&label(model)).inc_by(after.saturating_sub(before));
        }
    }

    /// An item was cancelled while it ran.
    pub(crate) fn cancelled(&self, model: &str) {
        self.cancelled.get_or_create(&label(model)).inc();
    }

    /// An engine panicked.
    pub(crate) fn panic(&self, model: &str) {
        self.panics.get_or_create(&label(model)).inc();
    }

    /// An item has its answer.
    pub(crate) fn answer(&self, card: &ModelCard, answer: &Answer) {
        if let Answer::Judgements(judgements) = answer {
            self.judged(&card.name, judgements);
        }
        if let Ok(vote) = card.number(answer) {
            self.scores.get_or_create(&label(&card.name)).observe(vote.value);
            let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
            windows.entry(card.name.clone()).or_default().push(vote.value);
        }
    }

    fn judged(&self, model: &str, judgements: &[Judgement]) {
        self.judgements.get_or_create(&label(model)).inc_by(judgements.len() as u64);
        for fault in judgements.iter().filter_map(|judgement| judgement.score.err()) {
            let label = Faulty { model: model.to_owned(), fault: fault.name() };
            self.faults.get_or_create(&label).inc();
        }
    }

    /// Items and tokens that wait for a model now.
    pub(crate) fn queue_depth(&self, model: &str, (jobs, tokens): (usize, usize)) {
        self.queue_jobs.get_or_create(&label(model)).set(jobs as i64);
        self.queue_tokens.get_or_create(&label(model)).set(tokens as i64);
    }

    /// Cohorts and rollouts as they stand now.
    pub(crate) fn cohorts(&self, counts: &CohortCounts) {
        self.cohorts.set(counts);
    }

    /// Requests being answered.
    pub(crate) fn in_flight(&self) -> &Whole {
        &self.in_flight
    }

    /// Bytes of bodies held.
    pub(crate) fn held_bytes(&self) -> &Whole {
        &self.held_bytes
    }

    /// Open connections.
    pub(crate) fn connections(&self) -> &Whole {
        &self.connections
    }

    /// Everything as Prometheus text.
    pub(crate) fn text(&self) -> String {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        for (model, windows) in windows.iter() {
            if let Some(drift) = windows.drift() {
                self.drift_distance.get_or_create(&label(model)).set(drift.distance);
                self.drift_shift.get_or_create(&label(model)).set(drift.shift);
            }
        }
        drop(windows);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn label(model: &str) -> Model {
    Model { model: model.to_owned() }
}
