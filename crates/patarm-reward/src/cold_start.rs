//! Judgements to start from, before any reinforcement: with a teacher, or without one.
//!
//! [`label_free`] writes well-formed judgements whose scores are drawn at random: they
//! teach the form and nothing else. [`teacher`] keeps those judgements of another judge
//! that agree with the label.

mod bank;
pub mod label_free;
pub mod teacher;

use patarm_text::{Comparison, Item, Task};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::model::JudgeRequest;
use crate::task::detect_task;

/// The version of the record format.
pub const RECORD_VERSION: u32 = 1;

/// One training target: the judge prompt of the item, then the judgement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColdStartRecord {
    /// Version of this format.
    pub version: u32,
    /// What is judged.
    pub item: Item,
    /// Kind of work.
    pub task: Task,
    /// What the judge is to write.
    pub judgement: String,
}

/// The two items of every comparison, first then second, without the label.
#[must_use]
pub fn requests_of(comparisons: &[Comparison]) -> Vec<JudgeRequest> {
    comparisons
        .iter()
        .flat_map(|comparison| {
            [&comparison.first, &comparison.second]
                .map(|item| JudgeRequest { item: item.clone(), task: comparison.task })
        })
        .collect()
}

/// The stated task of a request, else the detected one.
#[must_use]
pub fn task_of(request: &JudgeRequest) -> Task {
    request.task.unwrap_or_else(|| detect_task(&request.item.prompt))
}

/// Records as JSON lines.
///
/// # Errors
/// When a record cannot be written as JSON.
pub fn to_jsonl(records: &[ColdStartRecord]) -> Result<String> {
    let mut text = String::new();
    for (number, record) in (1..).zip(records) {
        let line = serde_json::to_string(record).map_err(|error| {
            Error::new(ErrorKind::Input, format!("cold-start record {number}: {error}"))
        })?;
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

/// Records from JSON lines; blank lines are skipped.
///
/// # Errors
/// Names the line that is no record, or of another version.
pub fn from_jsonl(text: &str) -> Result<Vec<ColdStartRecord>> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let wrong = |message: &dyn std::fmt::Display| {
                Error::new(ErrorKind::File, format!("cold-start records, line {number}: {message}"))
            };
            let record: ColdStartRecord =
                serde_json::from_str(line).map_err(|error| wrong(&error))?;
            if record.version == RECORD_VERSION {
                Ok(record)
            } else {
                Err(wrong(&format!("version {} is not {RECORD_VERSION}", record.version)))
            }
        })
        .collect()
}
