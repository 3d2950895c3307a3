//! A row of ProcessBench: `{id, problem, steps, label, …}`, label = the first wrong
//! step counted from 0, −1 for none.

use serde_json::Value;

use super::{Parsed, texts};
use crate::{benchmark::load::Row, steps::StepTruth};

/// The subsets and their sizes (arXiv 2412.06559, table 1).
pub(super) const SUBSETS: [(&str, usize); 4] =
    [("gsm8k", 400), ("math", 1000), ("olympiadbench", 1000), ("omnimath", 1000)];

/// The subset is the id without its number, and the file's name where an id has none.
pub(super) fn parse(row: &Row<'_>) -> Result<Parsed, String> {
    let (id, problem, steps) = (row.text("id")?, row.text("problem")?, texts(row, "steps")?);
    let refused = || "field `label` must be a step counted from 0, or −1".to_owned();
    let first = match row.get("label").and_then(Value::as_i64).ok_or_else(refused)? {
        -1 => None,
        label => Some(usize::try_from(label).map_err(|_| refused())?),
    };
    if first.is_some_and(|place| place >= steps.len()) {
        return Err(format!("field `label` names none of {} steps", steps.len()));
    }
    let numbered = id.rsplit_once('-').filter(|(_, n)| n.bytes().all(|b| b.is_ascii_digit()));
    let subset = numbered.map_or(row.stem(), |(subset, _)| subset);
    Ok(Parsed {
        id: id.to_owned(),
        subset: subset.to_owned(),
        problem_key: problem.to_owned(),
        problem: problem.to_owned(),
        steps,
        truth: StepTruth::FirstWrong(first),
        labels_missing_steps: false,
    })
}
