//! InFoBench: instructions decomposed into questions that a judge answers with YES or NO (Qin et
//! al., *InFoBench: Evaluating Instruction Following Ability in Large Language Models*, 2024,
//! arXiv:2401.03601).
//!
//! The figure is the decomposed requirements following ratio (DRFR): the share of YES among the
//! answers. By the official rule an item stops at the first answer that is neither YES nor NO: that
//! one counts as NO, and the questions after it leave the denominator. Here all questions are asked,
//! and both figures are given: `drfr` by that rule, `drfr_all` over all questions. The wording of the
//! judge's rules is our own.

mod load;
mod protocol;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    Error, Result,
    benchmark::{
        Asks, Benchmark, Evaluation, Info, ItemRecord, OfficialFile, Run, Subject, Summary,
        load::data_files,
        summary::{Metrics, SCHEMA_VERSION},
        tally::{Figure, Tally},
    },
    interval::Resampling,
    metrics::Outcome,
};

use load::{Entry, Loaded};
use protocol::Answers;

const INFO: Info = Info {
    name: "infobench",
    about: "instructions decomposed into YES/NO questions for a judge",
    data: "JSON lines `{id, input, instruction, decomposed_questions, subset, question_label}`, \
           with `output` or with `--responses`",
    hub: Some("kqsong/InFoBench"),
    asks: Asks::Questions,
    metrics: &[
        ("drfr", "share of YES by the official stop rule; interval clustered by item"),
        ("drfr_all", "share of YES among all questions, no answer counting as NO"),
        ("subset.<subset>.drfr", "the same by subset (Easy_set, Hard_set), also `.drfr_all`"),
        ("label.<label>.drfr", "the same by question label, also `.drfr_all`"),
        ("present.drfr", "in place of `drfr` where items, responses or evaluations are missing"),
        ("unanswered_rate", "share of answers that are neither YES nor NO"),
    ],
    files: &[
        ("infobench_eval.jsonl", "items with `output` and `eval` as the reference writes them"),
        ("evaluations.jsonl", "a judge's answers, kept as they come"),
    ],
    headline: &["drfr", "drfr_all", "present.drfr", "present.drfr_all"],
};

/// Items and questions of the whole benchmark.
const WHOLE: (usize, usize) = (500, 2250);

/// Name of the official file.
const OFFICIAL_FILE: &str = "infobench_eval.jsonl";

/// The benchmark.
#[derive(Clone, Copy, Debug)]
pub struct InfoBench;

impl Benchmark for InfoBench {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn evaluate(&self, subject: &Subject<'_>, run: &Run<'_>) -> Result<Evaluation> {
        let mut loaded = load::entries(&data_files(run.data)?, run.limit)?;
        if let Some(path) = run.responses {
            load::add_responses(&mut loaded, path)?;
        }
        let answers = match subject {
            Subject::File(path) => load::recorded(&mut loaded, path)?,
            Subject::Completer(judge) => protocol::ask(&loaded.entries, *judge, run)?,
            other => {
                let message = format!(
                    "{} answers no questions; name a model that completes text, or a file of \
                     evaluations",
                    other.kind()
                );
                return Err(Error::bad_input(message));
            }
        };
        Ok(evaluation(&loaded, &answers, (subject, run)))
    }
}

fn evaluation(
    loaded: &Loaded,
    answers: &[Answers],
    (subject, run): (&Subject<'_>, &Run<'_>),
) -> Evaluation {
    let entries = &loaded.entries;
    let missing = missing(loaded, answers);
    let metrics = measure(entries, answers, missing.is_empty(), run.resampling);
    let mut counts = loaded.counts();
    let num_failed: usize = answers.iter().map(|answers| answers.faults.len()).sum();
    let num_unevaluated = answers.iter().filter(|answers| answers.given.is_none()).count();
    counts.insert("questions_failed".to_owned(), num_failed as u64);
    counts.insert("items_without_answers".to_owned(), num_unevaluated as u64);
    let pairs = || entries.iter().zip(answers);
    Evaluation {
        summary: Summary {
            schema_version: SCHEMA_VERSION,
            benchmark: INFO.name.to_owned(),
            model: subject.name(),
            settings: run.settings.clone(),
            metrics,
            counts,
            problems: loaded.report.problems.clone(),
            missing,
            baselines: BTreeMap::new(),
            calibration: None,
            details: BTreeMap::new(),
        },
        items: pairs().enumerate().map(|(index, pair)| record(index, pair)).collect(),
        judgements: Vec::new(),
        files: vec![official(entries, answers)],
    }
}

/// Why the figures are not those of the whole benchmark.
fn missing(loaded: &Loaded, answers: &[Answers]) -> Vec<String> {
    let mut missing = Vec::new();
    let num_questions: usize = loaded.entries.iter().map(|entry| entry.questions.len()).sum();
    if (loaded.entries.len(), num_questions) != WHOLE {
        missing.push(format!(
            "{} items with {num_questions} questions are there, the benchmark has {} with {}",
            loaded.entries.len(),
            WHOLE.0,
            WHOLE.1
        ));
    }
    let num_unevaluated = answers.iter().filter(|answers| answers.given.is_none()).count();
    if num_unevaluated > 0 {
        missing.push(format!("answers on {num_unevaluated} items"));
    }
    missing
}

/// Slots of a group: answers by the official rule, YES among them, all questions, YES among them.
const SLOTS: usize = 4;

fn measure(
    entries: &[Entry],
    answers: &[Answers],
    is_whole: bool,
    resampling: Resampling,
) -> Metrics {
    let mut groups = BTreeMap::<String, usize>::new();
    let mut tally = Tally::new(2);
    for (cluster, (entry, answers)) in entries.iter().zip(answers).enumerate() {
        let Some(given) = &answers.given else { continue };
        for (index, labels) in entry.labels.iter().enumerate() {
            let answer = given.get(index).copied().flatten();
            // Slots 0 and 1 of the tally belong to the rate of answers that are neither.
            if let Some(asked) = given.get(index) {
                tally.add(cluster, 0, 1.0);
                tally.add(cluster, 1, f64::from(asked.is_none()));
            }
            let subset = entry.subset.iter().map(|subset| format!("subset.{subset}."));
            let labels = labels.iter().map(|label| format!("label.{label}."));
            for name in std::iter::once(String::new()).chain(subset).chain(labels) {
                let next = groups.len();
                let start = 2 + SLOTS * *groups.entry(name).or_insert(next);
                let yes = f64::from(answer == Some(true));
                if index < answers.num_official {
                    tally.add(cluster, start, 1.0);
                    tally.add(cluster, start + 1, yes);
                }
                tally.add(cluster, start + 2, 1.0);
                tally.add(cluster, start + 3, yes);
            }
        }
    }
    let mut figures = vec![Figure::proportion("unanswered_rate", 1, 0, tally.total(0) as usize)];
    for (name, place) in &groups {
        let start = 2 + SLOTS * place;
        let prefix = if name.is_empty() && !is_whole { "present." } else { name };
        for (offset, figure) in [(0, "drfr"), (2, "drfr_all")] {
            let whole = start + offset;
            let n = tally.total(whole) as usize;
            figures.push(Figure::proportion(format!("{prefix}{figure}"), whole + 1, whole, n));
        }
    }
    tally.measure(&figures, resampling)
}

fn record(cluster: usize, (entry, answers): (&Entry, &Answers)) -> ItemRecord {
    let given = answers.given.as_deref().unwrap_or_default();
    let num_yes = given.iter().filter(|answer| **answer == Some(true)).count();
    let share = num_yes as f64 / entry.questions.len().max(1) as f64;
    let outcome = match &answers.given {
        None => Outcome::Fault,
        Some(_) if num_yes == entry.questions.len() => Outcome::Right,
        Some(_) => Outcome::Wrong,
    };
    let details = BTreeMap::from([
        ("answers".to_owned(), json!(given)),
        ("questions".to_owned(), json!(entry.questions)),
    ]);
    ItemRecord {
        id: entry.id.clone(),
        subset: entry.subset.clone(),
        cluster,
        outcome,
        strict: share,
        half_credit: if outcome == Outcome::Fault { 0.5 } else { share },
        lengths: entry.output.iter().map(|output| output.chars().count()).collect(),
        scores: Vec::new(),
        verdicts: Vec::new(),
        right: Vec::new(),
        faults: answers.faults.clone(),
        details,
    }
}

/// The items as they were read, with `output` and the answers up to where the official rule stops.
fn official(entries: &[Entry], answers: &[Answers]) -> OfficialFile {
    let mut text = String::new();
    for (entry, answers) in entries.iter().zip(answers) {
        let Some(given) = &answers.given else { continue };
        let mut fields = entry.fields.clone();
        fields.insert("output".to_owned(), json!(entry.output));
        fields.insert("eval".to_owned(), json!(given[..answers.num_official]));
        text += &Value::Object(fields).to_string();
        text.push('\n');
    }
    OfficialFile { path: OFFICIAL_FILE.to_owned(), text }
}

#[cfg(test)]
mod tests;
