//! Items, responses and recorded answers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::protocol::Answers;
use crate::{
    Error, Result,
    benchmark::load::{LoadReport, Row, each_row},
};

/// Most items.
const MAX_ITEMS: usize = 1_000_000;

/// Most questions of an item.
const MAX_QUESTIONS: usize = 1000;

/// An instruction with its questions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) input: String,
    pub(super) questions: Vec<String>,
    /// Labels of each question.
    pub(super) labels: Vec<Vec<String>>,
    pub(super) subset: Option<String>,
    /// The response, where there is one.
    pub(super) output: Option<String>,
    /// The row as it was read.
    pub(super) fields: Map<String, Value>,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) entries: Vec<Entry>,
    pub(super) report: LoadReport,
    /// Rows of other files that could not be used.
    num_unused: usize,
}

impl Loaded {
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        let num_questions: usize = self.entries.iter().map(|entry| entry.questions.len()).sum();
        let num_missing = self.entries.iter().filter(|entry| entry.output.is_none()).count();
        [
            ("items", self.entries.len()),
            ("questions", num_questions),
            ("rows", self.report.num_rows),
            ("rows_malformed", self.report.num_malformed),
            ("items_duplicate", self.report.num_duplicates),
            ("responses_missing", num_missing),
            ("answer_rows_unused", self.num_unused),
        ]
        .map(|(name, count)| (name.to_owned(), count as u64))
        .into()
    }
}

/// Reads items, at most `limit`.
pub(super) fn entries(files: &[PathBuf], limit: Option<usize>) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    let mut report = LoadReport::default();
    let mut ids = HashSet::new();
    let limit = limit.unwrap_or(MAX_ITEMS);
    each_row(files, &mut report, |row, report| {
        match entry(&row) {
            Err(problem) => report.malformed(&row, &problem),
            Ok(entry) if !ids.insert(entry.id.clone()) => {
                report.duplicate(&row, &format!("a second item with id {:?}", entry.id));
            }
            Ok(entry) => loaded.entries.push(entry),
        }
        Ok(loaded.entries.len() < limit)
    })?;
    if loaded.entries.is_empty() {
        let example = report.problems.first().map_or(String::new(), |p| format!(" ({p})"));
        let message = format!("none of {} rows is an item{example}", report.num_rows);
        return Err(Error::bad_input(message));
    }
    loaded.report = report;
    Ok(loaded)
}

fn entry(row: &Row<'_>) -> Result<Entry, String> {
    let questions = texts(row.get("decomposed_questions"))
        .filter(|questions| (1..=MAX_QUESTIONS).contains(&questions.len()))
        .ok_or_else(|| {
            format!("field `decomposed_questions` must list 1 to {MAX_QUESTIONS} texts")
        })?;
    let input = row.get("input").and_then(Value::as_str).unwrap_or_default();
    Ok(Entry {
        id: row.id("id")?,
        input: input.to_owned(),
        labels: labels(row, questions.len())?,
        questions,
        subset: row.text("subset").ok().map(str::to_owned),
        output: row.get("output").and_then(Value::as_str).map(str::to_owned),
        fields: row.fields.clone(),
    })
}

fn texts(value: Option<&Value>) -> Option<Vec<String>> {
    let list = value?.as_array()?;
    list.iter().map(|text| text.as_str().map(str::to_owned)).collect()
}

/// `question_label`: a text or a list of texts for each question.
fn labels(row: &Row<'_>, num_questions: usize) -> Result<Vec<Vec<String>>, String> {
    let Some(value) = row.get("question_label") else {
        return Ok(vec![Vec::new(); num_questions]);
    };
    let of_question = |value: &Value| match value {
        Value::String(label) => Some(vec![label.clone()]),
        value => texts(Some(value)),
    };
    let list = value.as_array().filter(|list| list.len() == num_questions);
    let labels: Option<Vec<Vec<String>>> = list.and_then(|l| l.iter().map(of_question).collect());
    labels.ok_or_else(|| "field `question_label` must have labels for each question".to_owned())
}

/// Adds responses from rows with `id` and `output` or `response`.
pub(super) fn add_responses(loaded: &mut Loaded, path: &Path) -> Result<()> {
    let places = places(loaded);
    let mut report = LoadReport::default();
    each_row(&[path.to_path_buf()], &mut report, |row, report| {
        let text = row.get("output").or_else(|| row.get("response")).and_then(Value::as_str);
        let place = row.id("id").ok().and_then(|id| places.get(&id));
        match (text, place) {
            (Some(text), Some(&place)) => loaded.entries[place].output = Some(text.to_owned()),
            _ => report.malformed(&row, "a row needs `output` and the `id` of an item"),
        }
        Ok(true)
    })?;
    finish(loaded, report);
    Ok(())
}

/// Answers from rows with `id` and `eval`, a list of true, false and null; a response in the row
/// stands in for a missing one.
pub(super) fn recorded(loaded: &mut Loaded, path: &Path) -> Result<Vec<Answers>> {
    let places = places(loaded);
    let mut answers = vec![Answers::default(); loaded.entries.len()];
    let mut report = LoadReport::default();
    each_row(&[path.to_path_buf()], &mut report, |row, report| {
        let place = row.id("id").ok().and_then(|id| places.get(&id).copied());
        let given = row.get("eval").and_then(answer_list);
        match (place, given) {
            (Some(place), Some(given)) if given.len() <= loaded.entries[place].questions.len() => {
                answers[place] = Answers::official(given);
                if let Ok(output) = row.text("output") {
                    loaded.entries[place].output.get_or_insert_with(|| output.to_owned());
                }
            }
            (Some(_), Some(given)) => {
                let problem = format!("{} answers, more than there are questions", given.len());
                report.malformed(&row, &problem);
            }
            _ => report.malformed(&row, "a row needs `eval` and the `id` of an item"),
        }
        Ok(true)
    })?;
    for answers in answers.iter_mut().filter(|answers| answers.given.is_none()) {
        answers.faults.push("no recorded answers".to_owned());
    }
    finish(loaded, report);
    Ok(answers)
}

fn answer_list(value: &Value) -> Option<Vec<Option<bool>>> {
    let answer = |value: &Value| match value {
        Value::Null => Some(None),
        Value::Bool(answer) => Some(Some(*answer)),
        _ => None,
    };
    value.as_array()?.iter().map(answer).collect()
}

fn places(loaded: &Loaded) -> HashMap<String, usize> {
    let numbered = loaded.entries.iter().enumerate();
    numbered.map(|(place, entry)| (entry.id.clone(), place)).collect()
}

fn finish(loaded: &mut Loaded, report: LoadReport) {
    loaded.num_unused += report.num_malformed;
    loaded.report.problems.extend(report.problems);
}
