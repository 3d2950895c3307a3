//! What came of a load.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Alone;
use super::process::{ServerProcess, Spent, grew};
use crate::cli::load::LoadOptions;

/// What became of one request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// The right answer.
    Answered { tokens: u64 },
    /// Another status than 200.
    Refused(u16),
    /// The answer of another request, or none.
    Mispaired(String),
    /// The right answer with another number than the text has alone.
    OtherScore(String),
    /// A damaged body was refused, as it must be.
    DamageRefused,
    /// A damaged body was not refused.
    DamageMissed(u16),
    /// The request was abandoned.
    Cancelled,
}

/// Outcomes of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    outcomes: Vec<(Outcome, Duration)>,
}

impl Tally {
    pub(super) fn add(&mut self, outcome: Outcome, time: Duration) {
        self.outcomes.push((outcome, time));
    }
}

/// What `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LoadReport {
    version: u32,
    what: &'static str,
    workload: String,
    url: String,
    connections: usize,
    requests: usize,
    seed: u64,
    answered: usize,
    damage_refused: usize,
    cancelled: usize,
    /// Statuses other than 200 of whole requests.
    refused: BTreeMap<u16, usize>,
    /// Damaged bodies that were not refused.
    damage_missed: usize,
    /// Answers of other requests.
    mispaired: usize,
    /// Answers whose number differs from the text's alone.
    other_scores: usize,
    seconds: f64,
    answers_per_s: f64,
    tokens: u64,
    /// Tokens of the answered texts, shared ones counted each time, over the time.
    tokens_per_s: f64,
    /// The same over the server's time on the processor, which other programs do not
    /// lengthen; `null` where it is not known.
    tokens_per_cpu_s: Option<f64>,
    alone_requests: usize,
    /// Tokens a second of the same texts, one response a request, one request at a time.
    alone_tokens_per_s: f64,
    alone_tokens_per_cpu_s: Option<f64>,
    /// How many times faster the load went.
    speedup: f64,
    cpu_speedup: Option<f64>,
    latency_ms: Latency,
    /// Resident memory of the server, evenly through the run.
    server_memory_bytes: Vec<u64>,
    first_fault: Option<String>,
}

/// Quantiles of the time from sending a request to having its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Latency {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let quantile = |q: f64| {
            // Nearest rank.
            let rank = (q * times.len() as f64).ceil() as usize;
            times.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        Self { p50: quantile(0.5), p90: quantile(0.9), p99: quantile(0.99), max: quantile(1.0) }
    }
}

impl LoadReport {
    pub(super) fn new(
        options: &LoadOptions,
        tallies: Vec<Tally>,
        spent: Spent,
        (alone, process): (Alone, &ServerProcess),
    ) -> Self {
        let mut report = Self {
            version: 1,
            what: "serve",
            workload: options.workload.name().to_owned(),
            url: options.url.clone(),
            connections: options.connections,
            requests: options.requests,
            seed: options.seed,
            answered: 0,
            damage_refused: 0,
            cancelled: 0,
            refused: BTreeMap::new(),
            damage_missed: 0,
            mispaired: 0,
            other_scores: 0,
            seconds: spent.seconds,
            answers_per_s: 0.0,
            tokens: 0,
            tokens_per_s: 0.0,
            tokens_per_cpu_s: None,
            alone_requests: alone.requests,
            alone_tokens_per_s: alone.tokens as f64 / alone.spent.seconds,
            alone_tokens_per_cpu_s: alone.spent.cpu_s.map(|cpu_s| alone.tokens as f64 / cpu_s),
            speedup: 0.0,
            cpu_speedup: None,
            latency_ms: Latency::default(),
            server_memory_bytes: process.memory(),
            first_fault: None,
        };
        let mut times = Vec::new();
        for (outcome, time) in tallies.into_iter().flat_map(|tally| tally.outcomes) {
            if matches!(outcome, Outcome::Answered { .. }) {
                times.push(time.as_secs_f64() * 1e3);
            }
            report.count(outcome);
        }
        report.latency_ms = Latency::of(times);
        report.answers_per_s = report.answered as f64 / spent.seconds;
        report.tokens_per_s = report.tokens as f64 / spent.seconds;
        report.tokens_per_cpu_s = spent.cpu_s.map(|cpu_s| report.tokens as f64 / cpu_s);
        report.speedup = report.tokens_per_s / report.alone_tokens_per_s;
        let both = report.tokens_per_cpu_s.zip(report.alone_tokens_per_cpu_s);
        report.cpu_speedup = both.map(|(loaded, alone)| loaded / alone);
        report
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Answered { tokens } => {
                self.answered += 1;
                self.tokens += tokens;
            }
            Outcome::Refused(status) => *self.refused.entry(status).or_default() += 1,
            Outcome::Mispaired(what) => {
                self.mispaired += 1;
                self.first_fault.get_or_insert(what);
            }
            Outcome::OtherScore(what) => {
                self.other_scores += 1;
                self.first_fault.get_or_insert(what);
            }
            Outcome::DamageRefused => self.damage_refused += 1,
            Outcome::DamageMissed(_) => self.damage_missed += 1,
            Outcome::Cancelled => self.cancelled += 1,
        }
    }

    fn num_done(&self) -> usize {
        let refused: usize = self.refused.values().sum();
        let wrong = self.damage_missed + self.mispaired + self.other_scores;
        self.answered + self.damage_refused + self.cancelled + refused + wrong
    }

    /// What a run must not have. 429 and 503 are deliberate and only counted.
    pub(super) fn faults(&self) -> Option<String> {
        let statuses: Vec<u16> = self.refused.keys().copied().collect();
        let unforeseen: Vec<u16> =
            statuses.into_iter().filter(|status| ![429, 503].contains(status)).collect();
        let lost = self.requests - self.num_done();
        let wrong = self.mispaired + self.other_scores + self.damage_missed;
        if lost == 0 && wrong == 0 && unforeseen.is_empty() {
            return grew(&self.server_memory_bytes, self.requests);
        }
        Some(format!(
            "{lost} requests lost, {} answers of other requests, {} scores that depend on the \
             load, {} damaged bodies accepted, unforeseen statuses {unforeseen:?}{}",
            self.mispaired,
            self.other_scores,
            self.damage_missed,
            self.first_fault.as_ref().map_or_else(String::new, |what| format!("; first: {what}"))
        ))
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let Latency { p50, p90, p99, max } = self.latency_ms;
        let mut lines = vec![
            format!(
                "{} load on {}: {} requests over {} connections",
                self.workload, self.url, self.requests, self.connections
            ),
            format!(
                "outcomes     {} answered, {} damaged refused, {} cancelled, others {:?}",
                self.answered, self.damage_refused, self.cancelled, self.refused
            ),
            format!(
                "rate         {:.1} answers/s, {:.0} tokens/s over {:.1} s",
                self.answers_per_s, self.tokens_per_s, self.seconds
            ),
            format!(
                "one by one   {:.0} tokens/s over {} requests; the load went {:.2} times as fast",
                self.alone_tokens_per_s, self.alone_requests, self.speedup
            ),
            format!(
                "latency      p50 {p50:.0} ms, p90 {p90:.0} ms, p99 {p99:.0} ms, max {max:.0} ms"
            ),
        ];
        if let (Some(alone), Some(loaded), Some(speedup)) =
            (self.alone_tokens_per_cpu_s, self.tokens_per_cpu_s, self.cpu_speedup)
        {
            lines.push(format!(
                "processor    {loaded:.0} tokens/s of the server's time on it, {alone:.0} one by \
                 one: {speedup:.2} times"
            ));
        }
        if let (Some(first), Some(last)) =
            (self.server_memory_bytes.first(), self.server_memory_bytes.last())
        {
            let highest = self.server_memory_bytes.iter().max().unwrap_or(last);
            let mib = |bytes: &u64| bytes >> 20;
            lines.push(format!(
                "memory       {} MiB at first, {} MiB at last, {} MiB at most",
                mib(first),
                mib(last),
                mib(highest)
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_by_nearest_rank() {
        let latency = Latency::of((1..=100).map(f64::from).collect());
        assert_eq!((latency.p50, latency.p90, latency.p99, latency.max), (50.0, 90.0, 99.0, 100.0));
        assert_eq!(Latency::of(vec![3.0]).p99, 3.0);
    }

    #[test]
    fn runs_that_are_not_clean() {
        let options = LoadOptions::for_tests();
        let report = |outcomes: &[Outcome]| {
            let mut tally = Tally::default();
            for outcome in outcomes {
                tally.add(outcome.clone(), Duration::from_millis(1));
            }
            let options = LoadOptions { requests: 2, ..options.clone() };
            let process = ServerProcess::new(None);
            LoadReport::new(&options, vec![tally], Spent::default(), (Alone::default(), &process))
        };
        let fine = Outcome::Answered { tokens: 3 };
        assert_eq!(report(&[fine.clone(), Outcome::Cancelled]).faults(), None);
        assert_eq!(report(&[fine.clone(), Outcome::Refused(429)]).faults(), None);
        for bad in [
            Outcome::Refused(500),
            Outcome::Mispaired("x".into()),
            Outcome::OtherScore("x".into()),
            Outcome::DamageMissed(200),
        ] {
            assert!(report(&[fine.clone(), bad]).faults().is_some());
        }
        assert!(report(&[fine]).faults().is_some_and(|what| what.starts_with("1 requests lost")));
    }
}
