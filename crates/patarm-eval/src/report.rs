//! One self-contained page about runs and results.
//!
//! [`load_run`] reads a run directory or a result folder, [`ReportInput::merge`]
//! puts several side by side, [`render_report`] draws them. The page holds its own
//! style and charts, fetches nothing and runs no script; every text that comes
//! from data or from a model is escaped, and a content policy forbids the rest.

mod benchmarks;
mod charts;
mod curves;
mod html;
mod load;
mod results;
mod samples;
mod scale;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use patarm_reward::judgement::Judgement;
use serde::{Deserialize, Serialize};

use crate::{compare::ComparisonResult, pairs::PairsResult};
use html::{Page, escape};

pub use benchmarks::BenchmarkRun;
pub use load::load_run;

/// Everything a report shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportInput {
    /// Heading of the page.
    pub title: String,
    /// The runs, in the order they are to be shown.
    pub runs: Vec<Run>,
    /// Evaluations on benchmarks, in the order they are to be shown.
    #[serde(default)]
    pub benchmarks: Vec<BenchmarkRun>,
    /// Paired comparisons of evaluations.
    pub comparisons: Vec<NamedComparison>,
    /// What could not be read or shown, one sentence each.
    pub notes: Vec<String>,
}

/// One run directory, or one result folder (a run with a single evaluation).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Name in legends and tables.
    pub name: String,
    /// The resolved recipe as it stands in the run; empty when there is none.
    pub recipe: String,
    /// `run.json` as it stands in the run; empty when there is none.
    pub run_json: String,
    /// Rows of `metrics.jsonl`.
    pub metrics: Vec<MetricRow>,
    /// Judgements kept as samples.
    pub samples: Vec<Sample>,
    /// Evaluations, in the order they are to be shown.
    pub evaluations: Vec<NamedResult>,
}

/// One row of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricRow {
    /// Step of the phase.
    pub step: u64,
    /// Phase of the run, such as `sft`, `grpo` or `eval`.
    pub phase: String,
    /// The finite numeric fields.
    pub values: BTreeMap<String, f64>,
}

/// What a model said of a response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// What it was taken from, such as an evaluation's name.
    pub source: String,
    /// Step it was made at, where known.
    pub step: Option<u64>,
    /// Joins the two sides of a pair, where known.
    pub pair_id: Option<String>,
    /// `chosen` or `rejected`, where known.
    pub side: Option<String>,
    /// The prompt as the judge read it.
    pub prompt: String,
    /// The response.
    pub response: String,
    /// What the judge said; `None` from a model that writes nothing.
    pub judgement: Option<Judgement>,
    /// The number of a model that writes nothing.
    pub score: Option<f64>,
    /// The response in parts (tokens or steps) with the value of each, from models that
    /// give any.
    pub parts: Vec<SamplePart>,
    /// Training reward, where there was one.
    pub reward: Option<f64>,
}

/// A token or step of a response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplePart {
    /// Its text.
    pub text: String,
    /// Its value.
    pub value: f64,
}

/// An evaluation and its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedResult {
    /// Name in tables.
    pub name: String,
    /// The result.
    pub result: PairsResult,
}

/// A paired comparison and the names of its sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedComparison {
    /// Name of the first evaluation.
    pub first: String,
    /// Name of the second evaluation.
    pub second: String,
    /// Second minus first.
    pub result: ComparisonResult,
}

impl ReportInput {
    /// Several inputs as one, in their order. Runs of the same name are numbered,
    /// so that no legend is ambiguous.
    #[must_use]
    pub fn merge(title: &str, inputs: Vec<Self>) -> Self {
        let mut merged = Self { title: title.to_owned(), ..Self::default() };
        for input in inputs {
            merged.runs.extend(input.runs);
            merged.benchmarks.extend(input.benchmarks);
            merged.comparisons.extend(input.comparisons);
            merged.notes.extend(input.notes);
        }
        number_repeated(merged.runs.iter_mut().map(|run| &mut run.name));
        number_repeated(merged.benchmarks.iter_mut().map(|run| &mut run.name));
        let (comparisons, notes) = benchmarks::comparisons(&merged.benchmarks);
        merged.comparisons.extend(comparisons);
        merged.notes.extend(notes);
        merged
    }
}

/// A name that stands twice gets a number the second time.
fn number_repeated<'a>(names: impl Iterator<Item = &'a mut String>) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        let count = seen.entry(name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            *name = format!("{name} ({count})");
        }
    }
}

/// Draws the page: complete HTML, UTF-8.
#[must_use]
pub fn render_report(input: &ReportInput) -> String {
    let mut page = Page::new(&input.title);
    page.raw(&results::headline(input));
    if !input.notes.is_empty() {
        let items: String = input.notes.iter().map(|n| format!("<li>{}</li>", escape(n))).collect();
        page.section("Notes", &format!("<ul class=\"notes\">{items}</ul>"));
    }
    page.section("Evaluations", &results::table(input));
    for (heading, content) in benchmarks::sections(&input.benchmarks) {
        page.section(&heading, &content);
    }
    page.section("Paired comparisons", &results::comparisons(&input.comparisons));
    page.section("Learning curves", &curves::section(&input.runs));
    page.section("Scores and margins", &results::distributions(input));
    page.section("Accuracy by subset", &results::subsets(input));
    page.section("Sample judgements", &samples::section(&input.runs));
    page.section("Configuration", &configuration(&input.runs));
    page.finish()
}

fn configuration(runs: &[Run]) -> String {
    let block = |run: &Run, name: &str, text: &str| {
        if text.is_empty() {
            return String::new();
        }
        let (run, text) = (escape(&run.name), escape(text));
        format!("<details><summary>{run}: {name}</summary><pre>{text}</pre></details>")
    };
    runs.iter()
        .map(|r| block(r, "recipe.toml", &r.recipe) + &block(r, "run.json", &r.run_json))
        .collect()
}
