//! Reading PRMBench, ProcessBench and BIG-Bench-Mistake from the user's own copy.
//!
//! A row that cannot be used is counted and left out; what a complete benchmark has and
//! the copy lacks is named.

mod big_bench;
mod prm_bench;
mod process_bench;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use serde_json::Value;

use super::{StepItem, StepTruth};
use crate::{
    Error, Result,
    benchmark::load::{LoadReport, Row, each_row},
};

/// Most steps of a solution that is read.
const MAX_STEPS: usize = 10_000;

/// A step benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepBenchmark {
    /// PRMBench: 24 files of eight error classes, and `multi_solutions`.
    PrmBench,
    /// ProcessBench: `gsm8k`, `math`, `olympiadbench` and `omnimath`.
    ProcessBench,
    /// BIG-Bench-Mistake: five tasks.
    BigBenchMistake,
}

impl StepBenchmark {
    /// Subsets of a complete copy and the solutions of each, once repeated ids are
    /// dropped.
    fn expected(self) -> Vec<(&'static str, usize)> {
        match self {
            Self::PrmBench => {
                super::prmbench::CLASSES.iter().map(|&(name, _, n)| (name, n)).collect()
            }
            Self::ProcessBench => process_bench::SUBSETS.to_vec(),
            Self::BigBenchMistake => big_bench::TASKS.to_vec(),
        }
    }

    /// Parts of the benchmark that these solutions lack, one sentence each.
    #[must_use]
    pub fn missing(self, items: &[StepItem]) -> Vec<String> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        items.iter().for_each(|item| *counts.entry(&item.subset).or_default() += 1);
        let found = |name: &str| counts.get(name).copied().unwrap_or(0);
        self.expected()
            .into_iter()
            .filter(|(name, expected)| found(name) != *expected)
            .map(|(name, expected)| format!("{name} ({} of {expected} solutions)", found(name)))
            .collect()
    }

    /// One row as a solution; what is wrong with it otherwise.
    fn parse(self, row: &Row<'_>) -> Result<Parsed, String> {
        let parsed = match self {
            Self::PrmBench => prm_bench::parse(row),
            Self::ProcessBench => process_bench::parse(row),
            Self::BigBenchMistake => big_bench::parse(row),
        }?;
        match parsed.steps.len() {
            1..=MAX_STEPS => Ok(parsed),
            count => Err(format!("{count} steps; 1 to {MAX_STEPS} are read")),
        }
    }
}

/// A row that is a solution.
struct Parsed {
    id: String,
    subset: String,
    /// What tells problems apart.
    problem_key: String,
    problem: String,
    steps: Vec<String>,
    truth: StepTruth,
    /// Whether the row labels steps that it does not have.
    labels_missing_steps: bool,
}

/// What a copy of a benchmark holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepData {
    /// The solutions, in the order of the files.
    pub items: Vec<StepItem>,
    /// What happened while reading. Of a repeated id the first counts, as in PRMBench's
    /// toolkit.
    pub report: LoadReport,
    /// Solutions that label steps they do not have. Such labels are ignored, which is
    /// what the toolkit does to PRMBench's 100 such rows.
    pub out_of_range: HashSet<String>,
}

/// Reads a benchmark from files, at most `limit` solutions.
///
/// # Errors
/// When a file cannot be read or no row is a solution.
pub fn read(benchmark: StepBenchmark, files: &[PathBuf], limit: Option<usize>) -> Result<StepData> {
    let limit = limit.unwrap_or(usize::MAX);
    let (mut data, mut report) = (StepData::default(), LoadReport::default());
    let (mut ids, mut clusters) = (HashSet::new(), HashMap::new());
    each_row(files, &mut report, |row, report| {
        match benchmark.parse(&row) {
            Err(problem) => report.malformed(&row, &problem),
            Ok(parsed) if !ids.insert(parsed.id.clone()) => {
                report.duplicate(&row, &format!("a second item with id {:?}", parsed.id))
            }
            Ok(parsed) => data.add(parsed, &mut clusters),
        }
        Ok(data.items.len() < limit)
    })?;
    if data.items.is_empty() {
        let example = report.problems.first().map_or(String::new(), |p| format!(" ({p})"));
        let message = format!("none of {} rows is a solution in steps{example}", report.num_rows);
        return Err(Error::bad_input(message));
    }
    data.report = report;
    Ok(data)
}

impl StepData {
    fn add(&mut self, parsed: Parsed, clusters: &mut HashMap<String, usize>) {
        let Parsed { id, subset, problem_key, problem, steps, truth, labels_missing_steps } =
            parsed;
        if labels_missing_steps {
            self.out_of_range.insert(id.clone());
        }
        let next = clusters.len();
        let cluster = *clusters.entry(problem_key).or_insert(next);
        self.items.push(StepItem { id, cluster, subset, problem, steps, truth });
    }
}

fn texts(row: &Row<'_>, field: &str) -> Result<Vec<String>, String> {
    let refused = || format!("field `{field}` must be a list of texts");
    let list = row.get(field).and_then(Value::as_array).ok_or_else(refused)?;
    list.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(refused)).collect()
}
