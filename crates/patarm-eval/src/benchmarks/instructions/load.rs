//! Prompts with their instructions.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
};

use serde_json::Value;

use super::{Reader, Rule};
use crate::{
    Error, Result,
    benchmark::{
        completions::Asked,
        load::{LoadReport, Row, each_row},
    },
};

/// Most prompts.
const MAX_PROMPTS: usize = 1_000_000;

/// Most instructions of a prompt.
const MAX_INSTRUCTIONS: usize = 100;

/// A prompt and what is checked of its response.
pub(super) struct Prompt {
    pub(super) key: String,
    pub(super) prompt: String,
    pub(super) ids: Vec<String>,
    pub(super) rules: Vec<Rule>,
    /// Prompts with the same text share it.
    pub(super) cluster: usize,
}

impl Prompt {
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked { id: &self.key, prompt: &self.prompt }
    }
}

/// What was read.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) prompts: Vec<Prompt>,
    pub(super) report: LoadReport,
    /// Prompts left out because an instruction cannot be checked, by the instruction and why.
    pub(super) refused: BTreeMap<String, usize>,
}

impl Loaded {
    pub(super) fn num_instructions(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.ids.len()).sum()
    }

    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        let refused: usize = self.refused.values().sum();
        [
            ("items", self.prompts.len()),
            ("instructions", self.num_instructions()),
            ("rows", self.report.num_rows),
            ("rows_malformed", self.report.num_malformed),
            ("items_duplicate", self.report.num_duplicates),
            ("items_skipped.instruction", refused),
        ]
        .map(|(name, count)| (name.to_owned(), count as u64))
        .into()
    }
}

/// Reads prompts, at most `limit`.
pub(super) fn prompts(files: &[PathBuf], limit: Option<usize>, read: Reader) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    let mut report = LoadReport::default();
    let (mut keys, mut clusters) = (HashSet::new(), HashMap::<String, usize>::new());
    let limit = limit.unwrap_or(MAX_PROMPTS);
    each_row(files, &mut report, |row, report| {
        match prompt(&row, read) {
            Err(Problem::Malformed(problem)) => report.malformed(&row, &problem),
            Err(Problem::Refused(why)) => *loaded.refused.entry(why).or_default() += 1,
            Ok(prompt) if !keys.insert(prompt.key.clone()) => {
                report.duplicate(&row, &format!("a second prompt with key {:?}", prompt.key));
            }
            Ok(mut prompt) => {
                let next = clusters.len();
                prompt.cluster = *clusters.entry(prompt.prompt.clone()).or_insert(next);
                loaded.prompts.push(prompt);
            }
        }
        Ok(loaded.prompts.len() < limit)
    })?;
    if loaded.prompts.is_empty() {
        let example = report.problems.first().map_or(String::new(), |p| format!(" ({p})"));
        let refused = loaded.refused.keys().next().map_or(String::new(), |why| format!(" ({why})"));
        let message =
            format!("none of {} rows is a prompt to check{example}{refused}", report.num_rows);
        return Err(Error::bad_input(message));
    }
    loaded.report = report;
    Ok(loaded)
}

/// Why a row is no prompt.
enum Problem {
    Malformed(String),
    /// One of its instructions cannot be checked.
    Refused(String),
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Self::Malformed(problem)
    }
}

fn prompt(row: &Row<'_>, read: Reader) -> Result<Prompt, Problem> {
    let ids = list(row, "instruction_id_list")?;
    let ids: Option<Vec<String>> = ids.iter().map(|id| id.as_str().map(str::to_owned)).collect();
    let ids = ids.ok_or_else(|| "field `instruction_id_list` must list texts".to_owned())?;
    let arguments = list(row, "kwargs")?;
    if ids.len() != arguments.len() {
        let problem = format!("{} instructions with {} arguments", ids.len(), arguments.len());
        return Err(problem.into());
    }
    let mut rules = Vec::with_capacity(ids.len());
    for (id, arguments) in ids.iter().zip(arguments) {
        let arguments = arguments
            .as_object()
            .ok_or_else(|| format!("the arguments of {id} in field `kwargs` must be an object"))?;
        rules.push(read(id, arguments).map_err(|error| Problem::Refused(error.to_string()))?);
    }
    Ok(Prompt {
        key: row.id("key")?,
        prompt: row.text("prompt")?.to_owned(),
        ids,
        rules,
        cluster: 0,
    })
}

fn list<'a>(row: &Row<'a>, name: &str) -> Result<&'a [Value], String> {
    let list = row.fields.get(name).and_then(Value::as_array);
    list.map(Vec::as_slice)
        .filter(|list| (1..=MAX_INSTRUCTIONS).contains(&list.len()))
        .ok_or_else(|| format!("field `{name}` must be a list of 1 to {MAX_INSTRUCTIONS}"))
}
