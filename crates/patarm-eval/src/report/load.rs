//! Reading what a report shows: run directories and result folders.
//!
//! A run directory may be of a run that is still going, or that was killed: what
//! is missing is left out, a metrics line that a crash cut is ignored, and steps
//! that a resumed run wrote again are taken as written last.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    MetricRow, NamedComparison, NamedResult, ReportInput, Run, Sample, SamplePart,
    benchmarks::{is_evaluation, load_evaluation as load_benchmark},
};
use crate::{
    Error, Result,
    compare::compare,
    lines::read_lines,
    pairs::Evaluated,
    store::{RECORDS_FILE, RESULT_FILE, read_folder, read_result, read_text},
};

/// Largest recipe or `run.json` read, in bytes.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Most samples kept; later files come later, so the latest are kept.
const MAX_SAMPLES: usize = 2_000;

/// Most files read of a folder.
const MAX_FILES: usize = 10_000;

/// Evaluations that stand first, in this order, where a run has them.
const FIRST_STAGES: &[&str] = &["zero_shot", "cold_start"];

/// Evaluations that stand last, in this order.
const LAST_STAGES: &[&str] = &["trained", "spliced"];

/// The evaluation that others are compared with, where a run has it.
pub(super) const REFERENCE: &str = "cold_start";

/// The evaluation that speaks for a run, where it has it.
pub(super) const OUTCOME: &str = "trained";

/// Reads a run directory (`recipe.toml`, `run.json`, `metrics.jsonl`,
/// `samples/*.jsonl`, `evaluations/*.json`, `evaluations/*/result.json` or
/// `evaluations/*/summary.json`), a result folder (`result.json`), or the folder of an
/// evaluation on a benchmark (`summary.json`).
///
/// A sample is a row `{"prompt", "response", "judgement"?, "score"?, "parts"?, "side"?,
/// "pair_id"?, "step"?, "reward"?}`; the file's name is kept as its source. Evaluations stand
/// in the order of training (`zero_shot`, `cold_start`, others by name, `trained`,
/// `spliced`). Those that are folders with their pairs are also compared with
/// `cold_start`, or with the first of them where there is none.
///
/// # Errors
/// When the folder holds none of these, or one of them is not what it should be;
/// the message names the file and line.
pub fn load_run(dir: &Path) -> Result<ReportInput> {
    let name = dir
        .canonicalize()
        .ok()
        .and_then(|full| Some(full.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| dir.display().to_string());
    let mut input = ReportInput { title: name.clone(), ..ReportInput::default() };
    if is_evaluation(dir) {
        input.benchmarks.push(load_benchmark(dir, &name)?);
        return Ok(input);
    }
    let mut run = Run {
        name: name.clone(),
        recipe: text_if_there(&dir.join("recipe.toml"))?,
        run_json: text_if_there(&dir.join("run.json"))?,
        metrics: metrics_if_there(&dir.join("metrics.jsonl"))?,
        samples: samples(&dir.join("samples"))?,
        evaluations: Vec::new(),
    };
    if dir.join(RESULT_FILE).is_file() {
        let result = read_result(&dir.join(RESULT_FILE))?;
        run.evaluations.push(NamedResult { name: name.clone(), result });
    }
    let mut with_pairs: Vec<(String, Evaluated)> = Vec::new();
    let mut evaluations = sorted_entries(&dir.join("evaluations"))?;
    evaluations.sort_by_key(|path| stage_rank(&stem(path)));
    for path in evaluations {
        if is_evaluation(&path) {
            let stage = format!("{name}: {}", stem(&path));
            input.benchmarks.push(load_benchmark(&path, &stage)?);
        } else {
            load_evaluation(&path, &mut run.evaluations, &mut with_pairs)?;
        }
    }
    let is_empty = run == (Run { name: run.name.clone(), ..Run::default() });
    if is_empty && input.benchmarks.is_empty() {
        let message =
            "no run or result in this folder; give a run directory or the --out of an evaluation";
        return Err(Error::bad_input(message).in_file(dir));
    }
    compare_with_reference(&with_pairs, &mut input);
    input.runs.push(run);
    Ok(input)
}

fn text_if_there(path: &Path) -> Result<String> {
    if path.is_file() { read_text(path, MAX_TEXT_BYTES) } else { Ok(String::new()) }
}

/// Name of a file without its extension.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn stage_rank(name: &str) -> usize {
    let place = |stages: &[&str]| stages.iter().position(|stage| *stage == name);
    let middle = FIRST_STAGES.len();
    place(FIRST_STAGES).or(place(LAST_STAGES).map(|at| middle + 1 + at)).unwrap_or(middle)
}

fn load_evaluation(
    path: &Path,
    results: &mut Vec<NamedResult>,
    with_pairs: &mut Vec<(String, Evaluated)>,
) -> Result<()> {
    let name = stem(path);
    if path.extension().is_some_and(|e| e == "json") && path.is_file() {
        results.push(NamedResult { name, result: read_result(path)? });
    } else if path.join(RECORDS_FILE).is_file() && path.join(RESULT_FILE).is_file() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let evaluated = read_folder(path)?;
        results.push(NamedResult { name: name.clone(), result: evaluated.result.clone() });
        with_pairs.push((name, evaluated));
    } else if path.join(RESULT_FILE).is_file() {
        results.push(NamedResult { name, result: read_result(&path.join(RESULT_FILE))? });
    }
    Ok(())
}

/// Pairs that do not match are no reason to show nothing: they become a note.
fn compare_with_reference(evaluated: &[(String, Evaluated)], input: &mut ReportInput) {
    let named = evaluated.iter().find(|(name, _)| name == REFERENCE);
    let Some((first_name, first)) = named.or(evaluated.first()) else {
        return;
    };
    for (name, other) in evaluated.iter().filter(|(name, _)| name != first_name) {
        match compare(first, other, first.result.options.resampling) {
            Ok(result) => input.comparisons.push(NamedComparison {
                first: first_name.clone(),
                second: name.clone(),
                result,
            }),
            Err(error) => {
                input.notes.push(format!("{name} is not compared with {first_name}: {error}"));
            }
        }
    }
}

fn metrics_if_there(path: &Path) -> Result<Vec<MetricRow>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let mut rows: BTreeMap<(usize, u64), MetricRow> = BTreeMap::new();
    let mut phases: Vec<String> = Vec::new();
    read_lines(path, |line| {
        let parsed = serde_json::from_slice::<Map<String, Value>>(line.bytes);
        let fields = match parsed {
            Err(_) if !line.is_terminated => return Ok(()),
            Err(e) => return Err(Error::bad_input(format!("not a JSON object: {e}"))),
            Ok(fields) => fields,
        };
        let row = metric_row(&fields)?;
        let phase = phases.iter().position(|p| *p == row.phase).unwrap_or_else(|| {
            phases.push(row.phase.clone());
            phases.len() - 1
        });
        rows.insert((phase, row.step), row);
        Ok(())
    })?;
    Ok(rows.into_values().collect())
}

fn metric_row(fields: &Map<String, Value>) -> Result<MetricRow> {
    let step = fields.get("step").and_then(Value::as_u64);
    let step = step.ok_or_else(|| Error::bad_input("field `step` must be a whole number"))?;
    let phase = fields.get("phase").and_then(Value::as_str).unwrap_or("run").to_owned();
    let values = fields
        .iter()
        .filter(|(name, _)| *name != "step")
        .filter_map(|(name, value)| Some((name.clone(), value.as_f64().filter(|v| v.is_finite())?)))
        .collect();
    Ok(MetricRow { step, phase, values })
}

/// A sample row; fields a later version may add are ignored.
#[derive(Deserialize)]
struct SampleRow {
    #[serde(default)]
    step: Option<u64>,
    #[serde(default)]
    pair_id: Option<String>,
    #[serde(default)]
    side: Option<String>,
    prompt: String,
    response: String,
    #[serde(default)]
    judgement: Option<patarm_reward::judgement::Judgement>,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    parts: Vec<SamplePart>,
    #[serde(default)]
    reward: Option<f64>,
}

fn samples(dir: &Path) -> Result<Vec<Sample>> {
    let mut kept = Vec::new();
    for path in sorted_entries(dir)? {
        if path.extension().is_none_or(|e| e != "jsonl") {
            continue;
        }
        let source = stem(&path);
        read_lines(&path, |line| {
            match serde_json::from_slice::<SampleRow>(line.bytes) {
                Ok(row) => kept.push(sample(row, &source)),
                Err(_) if !line.is_terminated => {}
                Err(e) => return Err(Error::bad_input(format!("not a sample: {e}"))),
            }
            Ok(())
        })?;
        if kept.len() > MAX_SAMPLES {
            kept.drain(..kept.len() - MAX_SAMPLES);
        }
    }
    Ok(kept)
}

fn sample(row: SampleRow, source: &str) -> Sample {
    Sample {
        source: source.to_owned(),
        step: row.step,
        pair_id: row.pair_id,
        side: row.side,
        prompt: row.prompt,
        response: row.response,
        judgement: row.judgement,
        score: row.score,
        parts: row.parts,
        reward: row.reward,
    }
}

/// Entries of a folder in natural order (`step-20` before `step-100`); none when
/// there is no such folder.
fn sorted_entries(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(dir).map_err(|e| Error::io("list the folder", dir, e))?;
    let mut paths = Vec::new();
    for entry in entries.take(MAX_FILES) {
        paths.push(entry.map_err(|e| Error::io("list the folder", dir, e))?.path());
    }
    paths.sort_by(|a, b| natural_order(&a.to_string_lossy(), &b.to_string_lossy()));
    Ok(paths)
}

/// Compares runs of digits by length first, so that numbers order by size.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (parts_a, parts_b) = (digit_runs(a), digit_runs(b));
    let keyed = |part: &&str| {
        let digits = part.trim_start_matches('0');
        let length = if part.starts_with(|c: char| c.is_ascii_digit()) { digits.len() } else { 0 };
        (length, digits.to_owned())
    };
    parts_a.iter().map(keyed).cmp(parts_b.iter().map(keyed)).then_with(|| a.cmp(b))
}

/// The text cut between digits and anything else.
fn digit_runs(text: &str) -> Vec<&str> {
    let mut runs = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_digit = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != is_digit).unwrap_or(rest.len());
        let (run, tail) = rest.split_at(end);
        runs.push(run);
        rest = tail;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_order_by_size() {
        let mut names = ["step-100", "step-20", "a", "step-3", "final"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["a", "final", "step-3", "step-20", "step-100"]);
    }

    #[test]
    fn stages_stand_in_the_order_of_training() {
        let mut names = ["spliced", "a", "trained", "cold_start", "zero_shot", "b"];
        names.sort_by_key(|name| stage_rank(name));
        assert_eq!(names, ["zero_shot", "cold_start", "a", "b", "trained", "spliced"]);
    }

    fn write(dir: &Path, name: &str, text: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("folder");
        fs::write(path, text).expect("written");
    }

    #[test]
    fn a_killed_and_resumed_run_is_read() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let metrics = concat!(
            "{\"step\": 0, \"phase\": \"sft\", \"loss\": 2.0, \"note\": \"x\", \"lost\": null}\n",
            "{\"step\": 1, \"phase\": \"grpo\", \"reward\": 0.5}\n",
            "{\"step\": 1, \"phase\": \"grpo\", \"reward\": 0.75}\n",
            "{\"step\": 2, \"pha",
        );
        write(dir.path(), "metrics.jsonl", metrics);
        write(dir.path(), "recipe.toml", "seed = 1\n");
        let input = load_run(dir.path()).expect("reads");
        let rows = &input.runs[0].metrics;
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].values, BTreeMap::from([("loss".to_owned(), 2.0)]));
        assert_eq!(rows[1].values["reward"], 0.75);
        assert_eq!(input.runs[0].recipe, "seed = 1\n");
    }

    #[test]
    fn bad_runs_are_refused_by_place() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let message = load_run(dir.path()).expect_err("empty").to_string();
        assert!(message.contains("no run or result"), "{message}");
        write(dir.path(), "metrics.jsonl", "{\"step\": 1}\n{\"phase\": \"x\"}\n");
        let message = load_run(dir.path()).expect_err("no step").to_string();
        assert!(message.contains("metrics.jsonl:2: field `step`"), "{message}");
        write(dir.path(), "metrics.jsonl", "{\"step\": 1}\n");
        write(dir.path(), "samples/a.jsonl", "{\"prompt\": 1}\n");
        let message = load_run(dir.path()).expect_err("bad sample").to_string();
        assert!(message.contains("a.jsonl:1: not a sample"), "{message}");
    }
}
