//! Reading a benchmark's data: files and folders, row by row, bad rows counted.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use patarm_text::{
    Conversation, Message, Role,
    dataset::{ReadOptions, numbered_rows},
};
use serde_json::{Map, Value};

use super::item::Item;
use crate::{Error, Result};

/// Most items of a benchmark.
const MAX_ITEMS: usize = 2_000_000;
/// Most responses of an item.
pub(crate) const MAX_RESPONSES: usize = 4_096;
/// Most files of a folder.
const MAX_FILES: usize = 10_000;
/// Deepest folder below the one named.
const MAX_DEPTH: usize = 8;
/// Most problems that are named; all are counted.
pub(crate) const MAX_NAMED: usize = 20;
/// Endings of files that are read from folders.
const ENDINGS: [&str; 5] = [".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz"];

/// A row and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The file, as it was named or found.
    pub file: &'a Path,
    /// Line or row number, from 1.
    pub line: u64,
    /// Number of the row in its file, from 0.
    pub index: usize,
    /// Its fields.
    pub fields: &'a Map<String, Value>,
}

/// What happened while reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Rows seen.
    pub num_rows: usize,
    /// Rows that are not what they should be.
    pub num_malformed: usize,
    /// Items left out because one with their id was there before.
    pub num_duplicates: usize,
    /// Items left out because a response is missing.
    pub num_missing_responses: usize,
    /// Items that have no place in the benchmark, by reason.
    pub skipped: BTreeMap<String, usize>,
    /// The first of the problems, with file and line.
    pub problems: Vec<String>,
}

impl LoadReport {
    /// Counts and names a row that is not what it should be.
    pub(crate) fn malformed(&mut self, row: &Row<'_>, problem: &str) {
        self.num_malformed += 1;
        self.problem(row, problem);
    }

    /// Counts and names a row whose item was there before.
    pub(crate) fn duplicate(&mut self, row: &Row<'_>, problem: &str) {
        self.num_duplicates += 1;
        self.problem(row, problem);
    }

    fn problem(&mut self, row: &Row<'_>, problem: &str) {
        if self.problems.len() < MAX_NAMED {
            self.problems.push(format!("{}:{}: {problem}", row.file.display(), row.line));
        }
    }
}

/// Why a row is no item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowProblem {
    /// The row is not what it should be.
    Malformed(String),
    /// A response is missing.
    MissingResponse(String),
}

impl From<String> for RowProblem {
    fn from(problem: String) -> Self {
        Self::Malformed(problem)
    }
}

/// The files behind `--data`: files as they are, folders with what they hold, in
/// alphabetical order.
///
/// # Errors
/// When a path does not exist or a folder holds nothing that can be read.
pub fn data_files(data: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in data {
        if path.is_dir() {
            let before = files.len();
            walk(path, 0, &mut files)?;
            if files.len() == before {
                let message = "the folder holds no .json, .jsonl or .parquet file";
                return Err(Error::bad_input(message).in_file(path));
            }
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |e| Error::io("read the folder", folder, e);
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    for path in entries {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        if path.is_dir() && depth < MAX_DEPTH && !name.starts_with('.') {
            walk(&path, depth + 1, files)?;
        } else if ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            let message = format!("more than {MAX_FILES} files; name the ones that are meant");
            return Err(Error::bad_input(message).in_file(folder));
        }
    }
    Ok(())
}

/// Calls `visit` with every row that is an object, of every file. Rows that are no
/// JSON object are counted in `report`; `visit` says whether to go on.
///
/// # Errors
/// When a file cannot be opened or is damaged.
pub fn each_row(
    files: &[PathBuf],
    report: &mut LoadReport,
    mut visit: impl FnMut(Row<'_>, &mut LoadReport) -> Result<bool>,
) -> Result<()> {
    for file in files {
        let rows = numbered_rows(file, &ReadOptions::default());
        let rows = rows.map_err(|e| Error::bad_input(e.to_string()))?;
        for (index, row) in rows.enumerate() {
            report.num_rows += 1;
            let empty = Map::new();
            let (line, value) = match row {
                Ok(row) => row,
                Err(error) if error.ends_file() => return Err(Error::bad_input(error.to_string())),
                Err(error) => {
                    let row = Row { file, line: error.line, index, fields: &empty };
                    report.num_malformed += 1;
                    report.problem(&row, &error.kind.to_string());
                    continue;
                }
            };
            let Value::Object(fields) = &value else {
                report.num_malformed += 1;
                report.problem(&Row { file, line, index, fields: &empty }, "not a JSON object");
                continue;
            };
            if !visit(Row { file, line, index, fields }, report)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Reads items, at most `limit`. `parse` turns a row into items, none for a row that
/// does not belong to the benchmark.
///
/// # Errors
/// When a file cannot be read, or not one item is found.
pub fn load_items(
    files: &[PathBuf],
    limit: Option<usize>,
    parse: &dyn Fn(&Row<'_>) -> Result<Vec<Item>, RowProblem>,
) -> Result<(Vec<Item>, LoadReport)> {
    let limit = limit.unwrap_or(usize::MAX);
    let (mut items, mut report) = (Vec::new(), LoadReport::default());
    let mut ids: HashSet<String> = HashSet::new();
    each_row(files, &mut report, |row, report| {
        match parse(&row) {
            Ok(parsed) => {
                for mut item in parsed {
                    if let Err(problem) = check(&item) {
                        refuse(&row, report, problem);
                    } else if !ids.insert(item.id.clone()) {
                        report.num_duplicates += 1;
                        report.problem(&row, &format!("a second item with id {:?}", item.id));
                    } else if items.len() < limit {
                        item.count_lengths();
                        items.push(item);
                    }
                }
            }
            Err(problem) => refuse(&row, report, problem),
        }
        if items.len() > MAX_ITEMS {
            return Err(Error::bad_input(format!("more than {MAX_ITEMS} items; split the data")));
        }
        Ok(items.len() < limit)
    })?;
    if items.is_empty() {
        let example = report.problems.first().map_or(String::new(), |p| format!(" ({p})"));
        let message = format!("none of {} rows is an item{example}", report.num_rows);
        return Err(Error::bad_input(message));
    }
    Ok((items, report))
}

fn refuse(row: &Row<'_>, report: &mut LoadReport, problem: RowProblem) {
    match problem {
        RowProblem::Malformed(problem) => {
            report.num_malformed += 1;
            report.problem(row, &problem);
        }
        RowProblem::MissingResponse(problem) => {
            report.num_missing_responses += 1;
            report.problem(row, &problem);
        }
    }
}

fn check(item: &Item) -> Result<(), RowProblem> {
    let count = item.responses.len();
    if count > MAX_RESPONSES {
        return Err(format!("{count} responses, more than {MAX_RESPONSES}").into());
    }
    if count < 2 {
        return Err(RowProblem::MissingResponse(format!("{count} responses; two are needed")));
    }
    Ok(())
}

impl Row<'_> {
    /// A field, null taken as absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// A field of text.
    ///
    /// # Errors
    /// Names the field.
    pub fn text(&self, name: &str) -> Result<&str, String> {
        match self.get(name) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("field `{name}` must be text")),
            None => Err(format!("field `{name}` is missing")),
        }
    }

    /// A response: a field of text, whose absence has a name of its own.
    ///
    /// # Errors
    /// Names the field.
    pub fn response(&self, name: &str) -> Result<String, RowProblem> {
        match self.get(name) {
            None => Err(RowProblem::MissingResponse(format!("response `{name}` is missing"))),
            Some(value) => response_text(value)
                .ok_or_else(|| format!("response `{name}` must be text or messages").into()),
        }
    }

    /// A field of text or of a whole number, as text.
    ///
    /// # Errors
    /// Names the field.
    pub fn id(&self, name: &str) -> Result<String, String> {
        match self.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(_) => Err(format!("field `{name}` must be text or a number")),
            None => Err(format!("field `{name}` is missing")),
        }
    }

    /// A field that lists responses.
    ///
    /// # Errors
    /// Names the field, and the response that is missing.
    pub fn responses(&self, name: &str) -> Result<Vec<String>, RowProblem> {
        let list = match self.get(name) {
            Some(Value::Array(list)) => list,
            Some(Value::String(text)) => return Ok(vec![text.clone()]),
            Some(_) => return Err(format!("field `{name}` must be a list").into()),
            None => {
                return Err(RowProblem::MissingResponse(format!("field `{name}` is missing")));
            }
        };
        let text = |(index, value): (usize, &Value)| match value {
            Value::Null => {
                Err(RowProblem::MissingResponse(format!("response `{name}[{index}]` is missing")))
            }
            value => response_text(value)
                .ok_or_else(|| format!("response `{name}[{index}]` must be text").into()),
        };
        list.iter().enumerate().map(text).collect()
    }

    /// A prompt: text, or a list of messages with `role` and `content`.
    ///
    /// # Errors
    /// Names the field.
    pub fn prompt(&self, name: &str) -> Result<Conversation, String> {
        let value = self.get(name).ok_or_else(|| format!("field `{name}` is missing"))?;
        conversation(value).ok_or_else(|| format!("field `{name}` must be text or messages"))
    }

    /// The names of the folder and the file, without ending, below any of `roots`.
    #[must_use]
    pub fn stem(&self) -> &str {
        let name = self.file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.split('.').next().unwrap_or_default()
    }
}

/// A response given as text or as messages whose last one is the response.
fn response_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(messages) => Some(messages.last()?.get("content")?.as_str()?.to_owned()),
        _ => None,
    }
}

/// A conversation given as text or as messages.
pub(crate) fn conversation(value: &Value) -> Option<Conversation> {
    let list = match value {
        Value::String(text) => return Some(Conversation::from_user(text.as_str())),
        Value::Array(list) => list,
        _ => return None,
    };
    let message = |value: &Value| {
        let role = match value.get("role")?.as_str()? {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            _ => return None,
        };
        Some(Message::text(role, value.get("content")?.as_str()?))
    };
    let messages: Vec<Message> = list.iter().map(message).collect::<Option<_>>()?;
    (!messages.is_empty()).then(|| Conversation { messages, tools: Vec::new() })
}
