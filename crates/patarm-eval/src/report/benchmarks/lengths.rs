//! Accuracy by how much longer the right response is.

use std::collections::BTreeMap;

use super::{BenchmarkRun, Group, named_in};
use crate::{
    benchmark::ItemRecord,
    interval::Resampling,
    metrics::{ClusteredOutcome, Outcome, accuracy},
    report::charts::{Whisker, interval_chart},
};

/// Bands of the right response's length over the wrong one's: lower end (in it) and name.
const BANDS: [(f64, &str); 6] = [
    (2.0, "more than twice as long"),
    (1.25, "1.25 to 2 times as long"),
    (1.0, "up to 1.25 times as long"),
    (0.8, "up to 1.25 times shorter"),
    (0.5, "1.25 to 2 times shorter"),
    (0.0, "more than twice shorter"),
];

/// Fewest pairs of a band that is shown; fewer say nothing.
const MIN_PAIRS: usize = 5;

/// Most pairs of an item that are counted.
const MAX_PAIRS: usize = 64;

/// Resamples of an interval; there are few clusters in a band.
const RESAMPLING: Resampling = Resampling { resamples: 500, seed: 0 };

/// Accuracy, ties and faults at one half, by band; empty without lengths.
pub(super) fn chart(group: &Group<'_>) -> String {
    let mut whiskers = Vec::new();
    let by_run: Vec<BTreeMap<usize, Vec<ClusteredOutcome>>> =
        group.iter().map(|run| by_band(run)).collect();
    for (band, (_, name)) in BANDS.iter().enumerate() {
        for (run, bands) in by_run.iter().enumerate() {
            let Some(outcomes) = bands.get(&band).filter(|o| o.len() >= MIN_PAIRS) else {
                continue;
            };
            let figure = accuracy(outcomes, RESAMPLING).half_credit;
            let (Some(value), Some(interval)) = (figure.value, figure.interval) else { continue };
            let name = match named_in(group[run], group) {
                Some(run) => format!("{name}: {run}"),
                None => format!("{name} ({})", outcomes.len()),
            };
            whiskers.push(Whisker { name, value, interval, colour: run });
        }
    }
    interval_chart("Accuracy by length of the right response, ties at ½", &whiskers)
}

fn by_band(run: &BenchmarkRun) -> BTreeMap<usize, Vec<ClusteredOutcome>> {
    let mut bands: BTreeMap<usize, Vec<ClusteredOutcome>> = BTreeMap::new();
    let asks_steps = run.items.iter().any(|item| item.details.contains_key("first_wrong"));
    for item in run.items.iter().filter(|_| !asks_steps) {
        for (right, wrong) in pairs(item).take(MAX_PAIRS) {
            let times = item.lengths[right] as f64 / item.lengths[wrong].max(1) as f64;
            let band = BANDS.iter().position(|(from, _)| times >= *from);
            let outcome = outcome(item, right, wrong);
            let pair = ClusteredOutcome { cluster: item.cluster, outcome };
            bands.entry(band.unwrap_or(BANDS.len() - 1)).or_default().push(pair);
        }
    }
    bands
}

/// Right against wrong responses whose lengths are known.
fn pairs(item: &ItemRecord) -> impl Iterator<Item = (usize, usize)> + '_ {
    let count = item.lengths.len();
    let right = item.right.iter().copied().filter(move |right| *right < count);
    right.flat_map(move |right| {
        let wrong = (0..count).filter(|wrong| !item.right.contains(wrong));
        wrong.map(move |wrong| (right, wrong))
    })
}

/// By scores where there are any, otherwise by the item's own outcome.
fn outcome(item: &ItemRecord, right: usize, wrong: usize) -> Outcome {
    if item.scores.is_empty() {
        return item.outcome;
    }
    let score = |index: usize| item.scores.get(index).copied().flatten();
    Outcome::of_scores(score(right), score(wrong))
}
