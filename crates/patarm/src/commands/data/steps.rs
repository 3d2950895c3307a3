//! `patarm data steps`: solutions with labels for their steps, from the data people have.

use std::path::{Path, PathBuf};

use patarm_eval::benchmark::load::{LoadReport, Row, data_files, each_row};
use patarm_eval::steps::StepItem;
use patarm_eval::steps::data::{StepBenchmark, read};
use patarm_files::Segmentation;
use patarm_text::LabelledSolution;
use patarm_text::solutions::read_solutions;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{Global, StepCut, StepData, StepSource};
use crate::exit::{Code, failure};
use crate::output;

/// Characters below which a sentence joins the following one.
const SHORT_SENTENCE: usize = 20;

#[derive(Debug, Serialize)]
struct StepsReport<'a> {
    version: u32,
    out: &'a Path,
    solutions: usize,
    steps: usize,
    /// Steps labelled right, above ½.
    right: usize,
    /// Steps labelled wrong.
    wrong: usize,
    rows: usize,
    rows_malformed: usize,
    /// The first few problems.
    problems: Vec<String>,
}

/// Reads solutions of any kind and writes them with their labels.
pub(super) fn run(options: &StepData, global: &Global) -> anyhow::Result<()> {
    let (mut solutions, report) = solutions(options)?;
    solutions.truncate(options.limit.unwrap_or(usize::MAX));
    if solutions.is_empty() {
        let reason = report.problems.first().map_or("there is no row", String::as_str);
        return Err(failure(Code::Data, format!("no solution can be used: {reason}")));
    }
    write(&options.out, &solutions)?;
    let labels = || solutions.iter().flat_map(|one| one.labels.iter().flatten());
    let report = StepsReport {
        version: 1,
        out: &options.out,
        solutions: solutions.len(),
        steps: solutions.iter().map(|one| one.labels.len()).sum(),
        right: labels().filter(|label| **label > 0.5).count(),
        wrong: labels().filter(|label| **label <= 0.5).count(),
        rows: report.num_rows,
        rows_malformed: report.num_malformed,
        problems: report.problems,
    };
    if global.json {
        return output::json(&report);
    }
    let StepsReport { solutions, steps, right, wrong, rows_malformed, .. } = report;
    if rows_malformed > 0 {
        output::remark(&format!("{rows_malformed} rows cannot be used"));
    }
    output::line(&format!(
        "{}: {solutions} solutions, {steps} steps ({right} right, {wrong} wrong)",
        options.out.display()
    ))
}

/// Writes solutions as JSON lines, whole or not at all.
pub(super) fn write(out: &Path, solutions: &[LabelledSolution]) -> anyhow::Result<()> {
    let text: String = solutions.iter().map(|one| format!("{}\n", one.to_json())).collect();
    Ok(patarm_files::write_atomically(out, text.as_bytes())?)
}

/// What `--cut` names.
pub(super) fn segmentation(cut: StepCut) -> Segmentation {
    match cut {
        StepCut::BlankLines => Segmentation::BlankLines {},
        StepCut::Lines => Segmentation::Lines {},
        StepCut::Markers => Segmentation::Markers {},
        StepCut::Sentences => Segmentation::Sentences { min_characters: SHORT_SENTENCE },
    }
}

fn solutions(options: &StepData) -> anyhow::Result<(Vec<LabelledSolution>, LoadReport)> {
    let files = data_files(&options.sources)?;
    let how = segmentation(options.cut);
    match options.from {
        StepSource::Prmbench => benchmark(StepBenchmark::PrmBench, &files, options.limit),
        StepSource::Processbench => benchmark(StepBenchmark::ProcessBench, &files, options.limit),
        StepSource::BigbenchMistake => {
            benchmark(StepBenchmark::BigBenchMistake, &files, options.limit)
        }
        StepSource::Pairs => pairs(&files, &how),
        StepSource::Solutions => {
            let mut all = Vec::new();
            for file in &files {
                all.extend(read_solutions(file, &how)?);
            }
            let report = LoadReport { num_rows: all.len(), ..LoadReport::default() };
            Ok((all, report))
        }
    }
}

fn benchmark(
    benchmark: StepBenchmark,
    files: &[PathBuf],
    limit: Option<usize>,
) -> anyhow::Result<(Vec<LabelledSolution>, LoadReport)> {
    let data = read(benchmark, files, limit)?;
    Ok((data.items.iter().map(StepItem::labelled).collect(), data.report))
}

/// Both sides of every pair. Of a right solution every step is taken to be right; of a
/// wrong one only the last is known to be wrong.
fn pairs(
    files: &[PathBuf],
    how: &Segmentation,
) -> anyhow::Result<(Vec<LabelledSolution>, LoadReport)> {
    let (mut solutions, mut report) = (Vec::new(), LoadReport::default());
    let mut problems = (0, Vec::new());
    each_row(files, &mut report, |row, _| {
        match sides(&row, how) {
            Ok(sides) => solutions.extend(sides),
            Err(problem) => {
                problems.0 += 1;
                if problems.1.len() < 20 {
                    problems.1.push(format!(
                        "{}, line {}: {problem}",
                        row.file.display(),
                        row.line
                    ));
                }
            }
        }
        Ok(true)
    })?;
    report.num_malformed += problems.0;
    report.problems.extend(problems.1);
    Ok((solutions, report))
}

fn sides(row: &Row<'_>, how: &Segmentation) -> Result<[LabelledSolution; 2], String> {
    let text = |field: &str| row.fields.get(field).and_then(Value::as_str);
    let prompt = text("prompt").or_else(|| text("instruction"));
    let prompt = prompt.ok_or("neither `prompt` nor `instruction` is text")?;
    let id = text("id").map_or_else(|| format!("{}/{}", stem(row.file), row.index), str::to_owned);
    let side = |field: &str, is_right: bool| -> Result<LabelledSolution, String> {
        let response = text(field).ok_or_else(|| format!("`{field}` is no text"))?;
        let known =
            json!({ "id": format!("{id}/{field}"), "prompt": prompt, "response": response });
        let mut one = LabelledSolution::from_json(known, row.line, how)?;
        match is_right {
            true => one.labels.fill(Some(1.0)),
            false => one.labels.iter_mut().rev().take(1).for_each(|last| *last = Some(0.0)),
        }
        one.trajectory = Some(f64::from(u8::from(is_right)));
        Ok(one)
    };
    Ok([side("chosen", true)?, side("rejected", false)?])
}

fn stem(file: &Path) -> String {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_default().split('.').next().unwrap_or_default().to_owned()
}
