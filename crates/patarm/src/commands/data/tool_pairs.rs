//! `patarm data tool-pairs`: pairs of tool calls whose label a rule has checked.

use std::path::{Path, PathBuf};

use patarm_eval::tools::bfcl::{ToolData, Unused, read};
use patarm_eval::tools::{BuildOptions, BuildReport, build_pairs};
use patarm_text::dataset::{OutputFormat, write_comparisons};
use serde::Serialize;

use crate::cli::Global;
use crate::output;

#[derive(Debug, Serialize)]
struct ToolPairsReport<'a> {
    version: u32,
    out: &'a Path,
    comparisons: u64,
    rows: usize,
    rows_malformed: usize,
    tasks_duplicate: usize,
    unused: Unused,
    built: BuildReport,
    /// The first few problems.
    problems: Vec<String>,
}

/// Reads tasks with their right calls and writes pairs in the native format.
pub(super) fn run(
    tasks: &[PathBuf],
    out: &Path,
    options: BuildOptions,
    global: &Global,
) -> anyhow::Result<()> {
    let ToolData { tasks, report, unused } = read(tasks)?;
    let (pairs, built) = build_pairs(&tasks, options);
    let written = write_comparisons(out, OutputFormat::Native, &pairs)
        .map_err(|error| super::coded(&error))?;
    let report = ToolPairsReport {
        version: 1,
        out,
        comparisons: written.comparisons,
        rows: report.num_rows,
        rows_malformed: report.num_malformed,
        tasks_duplicate: report.num_duplicates,
        unused,
        built,
        problems: report.problems,
    };
    if global.json {
        return output::json(&report);
    }
    for (kind, count) in &report.built.made {
        output::line(&format!("{kind:<18} {count:>6}"))?;
    }
    let ToolPairsReport { rows_malformed, unused, built, comparisons, .. } = &report;
    output::line(&format!(
        "{} tasks; not used: {} without an answer, {} of several turns, {} whose own call the rule \
         refuses; {rows_malformed} bad rows",
        built.num_tasks, unused.without_answer, unused.multi_turn, built.num_gold_refused
    ))?;
    output::line(&format!("{}: {comparisons} comparisons", out.display()))
}
