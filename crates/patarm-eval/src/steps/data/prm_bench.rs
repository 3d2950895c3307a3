//! A row of PRMBench: `{idx, classification, modified_question, modified_process,
//! error_steps, …}`, steps counted from 1.

use serde_json::Value;

use super::{Parsed, texts};
use crate::{benchmark::load::Row, steps::StepTruth};

/// An item is named `CLASS_IDX`, as in the toolkit's own results.
pub(super) fn parse(row: &Row<'_>) -> Result<Parsed, String> {
    let (idx, subset) = (row.text("idx")?, row.text("classification")?);
    let steps = texts(row, "modified_process")?;
    let refused = || "field `error_steps` must be a list of numbers".to_owned();
    let named = row.get("error_steps").and_then(Value::as_array).ok_or_else(refused)?;
    let mut is_right = vec![true; steps.len()];
    let mut labels_missing_steps = false;
    for step in named {
        let number = step.as_i64().ok_or_else(refused)?;
        let place = number.checked_sub(1).and_then(|place| usize::try_from(place).ok());
        match place.and_then(|place| is_right.get_mut(place)) {
            Some(label) => *label = false,
            None => labels_missing_steps = true,
        }
    }
    Ok(Parsed {
        id: format!("{subset}_{idx}"),
        subset: subset.to_owned(),
        problem_key: idx.to_owned(),
        problem: row.text("modified_question")?.to_owned(),
        steps,
        truth: StepTruth::EveryStep(is_right),
        labels_missing_steps,
    })
}
