//! Evaluations on benchmarks: figures side by side, parts, matrices, calibration,
//! length, votes, and the worst items.

mod lengths;
mod load;
mod matrices;
mod tables;
#[cfg(test)]
mod tests;
mod worst;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    NamedComparison,
    charts::{Labels, Legend, Series, Vertical, histogram_chart, line_chart},
    html::{escape, number},
    results::reliability_chart,
};
use crate::{
    benchmark::{ItemRecord, Metric, Summary, summary::JudgementRecord},
    benchmarks,
    compare::compare_items,
    distribution::Histogram,
    interval::Resampling,
};

pub(super) use load::{is_evaluation, load_evaluation};

/// Bootstrap resamples of comparisons made for a report.
const RESAMPLING: Resampling = Resampling { resamples: 2_000, seed: 0 };

/// Most evaluations that are compared with the first.
const MAX_COMPARISONS: usize = 24;

/// An evaluation on a benchmark with its items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkRun {
    /// Name in legends and tables.
    pub name: String,
    /// The figures.
    pub summary: Summary,
    /// The items.
    pub items: Vec<ItemRecord>,
    /// Judgements of the worst items.
    pub judgements: Vec<JudgementRecord>,
}

/// The runs of one benchmark, in the order they are to be shown.
type Group<'a> = Vec<&'a BenchmarkRun>;

/// Runs by benchmark, in the order of their first run.
fn groups(runs: &[BenchmarkRun]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|g| g[0].summary.benchmark == run.summary.benchmark) {
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    groups
}

/// The figures that stand for a benchmark, by name; all of them for an unknown one.
fn headline(summary: &Summary) -> Vec<(&str, &Metric)> {
    let known = benchmarks::find(&summary.benchmark).map(|benchmark| benchmark.info().headline);
    match known {
        Some(names) => names
            .iter()
            .filter_map(|name| Some((*name, summary.metrics.get(*name)?)))
            .filter(|(_, metric)| metric.value.is_some())
            .collect(),
        None => summary.metrics.iter().map(|(name, metric)| (name.as_str(), metric)).collect(),
    }
}

/// One tile a run: its first figure.
pub(super) fn tiles(runs: &[BenchmarkRun]) -> String {
    let tile = |run: &BenchmarkRun| {
        let summary = &run.summary;
        let (name, metric) = headline(summary).into_iter().next()?;
        let interval = metric.ci95.map_or(String::new(), |[low, high]| {
            format!("95 %: {} to {} · ", number(Some(low)), number(Some(high)))
        });
        let what = if run.name == summary.benchmark {
            escape(&run.name)
        } else {
            format!("{} on {}", escape(&run.name), escape(&summary.benchmark))
        };
        let partial = if summary.missing.is_empty() { "" } else { " · in part" };
        Some(format!(
            "<div class=\"card tile\"><div class=\"what\">{what}, {}</div>\
             <div class=\"figure\">{}</div><div class=\"more\">{interval}n {}{partial}</div></div>",
            escape(&tables::words(name)),
            number(metric.value),
            metric.n,
        ))
    };
    runs.iter().filter_map(tile).collect()
}

/// Every benchmark: heading and content of its section.
pub(super) fn sections(runs: &[BenchmarkRun]) -> Vec<(String, String)> {
    groups(runs).iter().map(|group| (escape(&group[0].summary.benchmark), section(group))).collect()
}

fn section(group: &Group<'_>) -> String {
    let mut drawn = String::new();
    drawn.push_str(&about(group));
    drawn.push_str(&tables::figures(group));
    drawn.push_str(&tables::parts(group));
    for run in group {
        drawn.push_str(&matrices::matrices(run, named_in(run, group)));
    }
    drawn.push_str(&charts(group));
    drawn.push_str(&lengths::chart(group));
    drawn.push_str(&tables::counts(group));
    for run in group {
        drawn.push_str(&worst::section(run, named_in(run, group)));
    }
    drawn.push_str(&settings(group));
    drawn
}

/// The run's name where there are several to tell apart.
fn named_in<'a>(run: &'a BenchmarkRun, group: &Group<'_>) -> Option<&'a str> {
    (group.len() > 1).then_some(run.name.as_str())
}

/// What the benchmark is, and what the evaluations lack.
fn about(group: &Group<'_>) -> String {
    let known = benchmarks::find(&group[0].summary.benchmark).map(|b| b.info().about);
    let mut text = known.map_or(String::new(), |a| format!("<p class=\"hint\">{}</p>", escape(a)));
    for run in group.iter().filter(|run| !run.summary.missing.is_empty()) {
        let name = named_in(run, group).map_or(String::new(), |n| format!("{}: ", escape(n)));
        let missing = tables::enumerated(&run.summary.missing);
        text.push_str(&format!(
            "<p class=\"missing\">{name}not there, or not whole: {missing}</p>"
        ));
    }
    text
}

/// Score histograms, reliability, and accuracy by number of votes.
fn charts(group: &Group<'_>) -> String {
    let mut drawn = String::new();
    for run in group {
        let charts = histograms(run) + &reliability(run) + &votes(run);
        if charts.is_empty() {
            continue;
        }
        if let Some(name) = named_in(run, group) {
            drawn.push_str(&format!("<h3>{}</h3>", escape(name)));
        }
        drawn.push_str(&format!("<div class=\"charts\">{charts}</div>"));
    }
    drawn
}

fn histogram(details: &BTreeMap<String, Value>, name: &str) -> Option<Histogram> {
    let histogram: Histogram = serde_json::from_value(details.get(name)?.clone()).ok()?;
    let is_drawable = histogram.low.is_finite()
        && histogram.high.is_finite()
        && histogram.low < histogram.high
        && (1..=1_000).contains(&histogram.counts.len());
    is_drawable.then_some(histogram)
}

fn histograms(run: &BenchmarkRun) -> String {
    let of = |name: &str| histogram(&run.summary.details, name);
    let mut drawn = String::new();
    let (right, wrong) = (of("histogram.right"), of("histogram.wrong"));
    let sides: Vec<(&str, &Histogram)> = [("right", &right), ("wrong", &wrong)]
        .into_iter()
        .filter_map(|(name, histogram)| Some((name, histogram.as_ref()?)))
        .collect();
    let labels = Labels { title: "Scores by label", x: "score", y: "share" };
    drawn.push_str(&histogram_chart(&labels, &sides));
    if let Some(margins) = of("histogram.margin") {
        let labels = Labels { title: "Margins, right − wrong", x: "margin", y: "share of pairs" };
        drawn.push_str(&histogram_chart(&labels, &[("margin", &margins)]));
    }
    drawn
}

fn reliability(run: &BenchmarkRun) -> String {
    run.summary.calibration.as_ref().map_or(String::new(), reliability_chart)
}

/// Figures named `voting.<readout>.<k>.<figure>`, the first headline figure by k.
fn votes(run: &BenchmarkRun) -> String {
    let names: Vec<&str> = headline(&run.summary).into_iter().map(|(name, _)| name).collect();
    let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    let Some(figure) = names.into_iter().next() else {
        return String::new();
    };
    for (name, metric) in &run.summary.metrics {
        let Some((readout, rest)) =
            name.strip_prefix("voting.").and_then(|rest| rest.split_once('.'))
        else {
            continue;
        };
        let Some((k, of)) = rest.split_once('.') else { continue };
        if let (true, Ok(k), Some(value)) = (of == figure, k.parse::<f64>(), metric.value) {
            lines.entry(readout).or_default().push((k, value));
        }
    }
    let series: Vec<Series> = lines
        .into_iter()
        .map(|(readout, mut points)| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Series { name: readout.to_owned(), points, is_reference: false }
        })
        .filter(|series| series.points.len() > 1)
        .collect();
    let title = format!("{} by number of votes", tables::words(figure));
    let labels = Labels { title: &title, x: "votes", y: "" };
    line_chart(&labels, &series, Vertical::Data, Legend::LastValues)
}

fn settings(group: &Group<'_>) -> String {
    let block = |run: &&BenchmarkRun| {
        let text = serde_json::to_string_pretty(&run.summary.settings).unwrap_or_default();
        format!(
            "<details><summary>{}: settings</summary><pre>{}</pre></details>",
            escape(&run.name),
            escape(&super::charts::shortened(&text, 20_000))
        )
    };
    group.iter().map(block).collect()
}

/// Every later run against the first of its benchmark, item by item.
pub(super) fn comparisons(runs: &[BenchmarkRun]) -> (Vec<NamedComparison>, Vec<String>) {
    let (mut comparisons, mut notes) = (Vec::new(), Vec::new());
    for group in groups(runs) {
        let first = group[0];
        for second in group.iter().skip(1).take(MAX_COMPARISONS) {
            let sides =
                [(&first.summary.model, &first.items), (&second.summary.model, &second.items)]
                    .map(|(model, items)| (model.as_str(), items.as_slice()));
            match compare_items(sides[0], sides[1], RESAMPLING) {
                Ok(result) => comparisons.push(NamedComparison {
                    first: first.name.clone(),
                    second: second.name.clone(),
                    result,
                }),
                Err(error) => {
                    let (one, other) = (&second.name, &first.name);
                    notes.push(format!("{one} is not compared with {other}: {error}"));
                }
            }
        }
    }
    (comparisons, notes)
}
