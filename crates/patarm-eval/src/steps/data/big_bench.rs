//! A row of BIG-Bench-Mistake: `{input, steps, target, answer, mistake_index}`, the
//! index counted from 0, null for no mistake.
//!
//! No mistake does not mean a right answer, nor a mistake a wrong one: `answer` and
//! `target` are not read.

use serde_json::Value;

use super::{Parsed, texts};
use crate::{benchmark::load::Row, steps::StepTruth};

/// The tasks and their sizes (`WHGTyen/BIG-Bench-Mistake` at commit 270683a).
pub(super) const TASKS: [(&str, usize); 5] = [
    ("dyck_languages", 986),
    ("logical_deduction", 300),
    ("multistep_arithmetic", 300),
    ("tracking_shuffled_objects", 300),
    ("word_sorting", 300),
];

/// Rows have no id: an item is named `TASK/ROW`, rows counted from 0.
pub(super) fn parse(row: &Row<'_>) -> Result<Parsed, String> {
    let (task, problem, steps) = (row.stem(), row.text("input")?, texts(row, "steps")?);
    let refused = || "field `mistake_index` must be a step counted from 0, or null".to_owned();
    let first = match row.fields.get("mistake_index") {
        Some(Value::Null) => None,
        Some(Value::Number(number)) => {
            let place = number.as_u64().and_then(|n| usize::try_from(n).ok());
            Some(place.filter(|p| *p < steps.len()).ok_or_else(refused)?)
        }
        _ => return Err(refused()),
    };
    Ok(Parsed {
        id: format!("{task}/{}", row.index),
        subset: task.to_owned(),
        problem_key: problem.to_owned(),
        problem: problem.to_owned(),
        steps,
        truth: StepTruth::FirstWrong(first),
        labels_missing_steps: false,
    })
}
