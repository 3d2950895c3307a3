//! Traces with thinking, as files have them.

use std::path::Path;

use patarm_eval::benchmark::load::{LoadReport, each_row};
use patarm_files::Segmentation;
use patarm_text::LabelledSolution;
use patarm_text::steps::segment;
use serde_json::{Map, Value};

use crate::exit::{Code, failure};

/// A trace: thinking steps with their quality as labels, and the response's steps.
pub(super) struct Trace {
    /// The thinking.
    pub(super) thinking: LabelledSolution,
    /// The steps of the response.
    pub(super) response: Vec<String>,
    /// The row as it stands.
    pub(super) fields: Map<String, Value>,
}

/// Every trace of a file; a row that is none ends it with its line.
pub(super) fn read(path: &Path, how: &Segmentation) -> anyhow::Result<Vec<Trace>> {
    let mut traces = Vec::new();
    let mut problem = None;
    let files = [path.to_owned()];
    each_row(&files, &mut LoadReport::default(), |row, _| {
        match trace(row.fields, (row.line, how)) {
            Ok(trace) => traces.push(trace),
            Err(why) => problem = Some(format!("{}, line {}: {why}", row.file.display(), row.line)),
        }
        Ok(problem.is_none())
    })?;
    match problem {
        Some(problem) => Err(failure(Code::Data, problem)),
        None => Ok(traces),
    }
}

fn trace(fields: &Map<String, Value>, (line, how): (u64, &Segmentation)) -> Result<Trace, String> {
    let response = fields.get("response").and_then(Value::as_str);
    let response = response.ok_or("`response`, the final answer's text, is missing")?;
    if fields.get("steps").is_none() {
        return Err("`steps`, the thinking, is missing".to_owned());
    }
    let thinking = LabelledSolution::from_json(Value::Object(fields.clone()), line, how)?;
    let cut = segment(response, how).map_err(|error| error.to_string())?;
    let response = cut.iter().map(|step| step.words(response).to_owned()).collect();
    Ok(Trace { thinking, response, fields: fields.clone() })
}
