//! Reading the Berkeley Function Calling Leaderboard's tasks and possible answers.

use std::{collections::HashMap, path::PathBuf};

use patarm_text::{Conversation, ToolDefinition};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::calls::{Call, GoldCall};
use crate::{
    Error, Result,
    benchmark::load::{LoadReport, Row, conversation, data_files, each_row},
};

/// Most calls of a task.
const MAX_CALLS: usize = 64;

/// Deepest nesting of a parameter schema.
const MAX_DEPTH: usize = 32;

/// A task: what is asked, which tools there are, and the right calls.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolTask {
    /// Identity, such as `simple_python_3`.
    pub id: String,
    /// The id without its numbers.
    pub category: String,
    /// The conversation and its tools.
    pub prompt: Conversation,
    /// The tools' parameters by tool: name and schema, in order.
    pub functions: Vec<Function>,
    /// The right calls.
    pub gold: Vec<GoldCall>,
}

/// A tool that a task offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Schema of each parameter.
    pub parameters: Map<String, Value>,
}

impl ToolTask {
    /// One right answer.
    #[must_use]
    pub fn right_calls(&self) -> Vec<Call> {
        self.gold.iter().map(GoldCall::right_call).collect()
    }
}

/// What a copy of the tasks holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolData {
    /// Tasks with right calls, in the order of the files.
    pub tasks: Vec<ToolTask>,
    /// What happened while reading.
    pub report: LoadReport,
    /// Tasks that are not used.
    pub unused: Unused,
}

/// Tasks that cannot be turned into pairs of calls, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unused {
    /// Without possible answers, such as those where no tool fits.
    pub without_answer: usize,
    /// Of several turns, whose right calls depend on each other's results.
    pub multi_turn: usize,
}

/// Reads folders or files: rows with `question` are tasks, rows with `ground_truth` the
/// possible answers, joined by `id`.
///
/// # Errors
/// When a file cannot be read, or no task has an answer.
pub fn read(data: &[PathBuf]) -> Result<ToolData> {
    let mut found = ToolData::default();
    let mut report = LoadReport::default();
    let mut answers: HashMap<String, Value> = HashMap::new();
    let mut tasks: Vec<(ToolTask, bool)> = Vec::new();
    let mut ids = std::collections::HashSet::new();
    each_row(&data_files(data)?, &mut report, |row, report| {
        let kept = match (row.get("ground_truth"), row.get("question")) {
            (Some(truth), _) => row.text("id").map(|id| {
                answers.insert(id.to_owned(), truth.clone());
            }),
            (None, Some(_)) => task(&row).map(|(task, is_multi_turn)| {
                if ids.insert(task.id.clone()) {
                    tasks.push((task, is_multi_turn));
                } else {
                    report.duplicate(&row, &format!("a second item with id {:?}", task.id));
                }
            }),
            (None, None) => Err("neither a field `question` nor `ground_truth`".to_owned()),
        };
        if let Err(problem) = kept {
            report.malformed(&row, &problem);
        }
        Ok(true)
    })?;
    for (mut task, is_multi_turn) in tasks {
        let answer = answers.get(&task.id);
        match answer.map(gold_calls) {
            _ if is_multi_turn => found.unused.multi_turn += 1,
            None => found.unused.without_answer += 1,
            Some(Ok(gold)) => {
                task.gold = gold;
                found.tasks.push(task);
            }
            Some(Err(problem)) => {
                report.num_malformed += 1;
                report.problems.push(format!("task {:?}: {problem}", task.id));
            }
        }
    }
    if found.tasks.is_empty() {
        let example = report.problems.first().map_or(String::new(), |p| format!(" ({p})"));
        let message = format!("none of {} rows is a task with an answer{example}", report.num_rows);
        return Err(Error::bad_input(message));
    }
    found.report = report;
    Ok(found)
}

/// A task without its answer, and whether it has several turns.
fn task(row: &Row<'_>) -> Result<(ToolTask, bool), String> {
    let id = row.text("id")?;
    let turns = row.get("question").and_then(Value::as_array);
    let turns = turns.ok_or("field `question` must be a list of turns")?;
    let first = turns.first().and_then(conversation);
    let mut prompt = first.ok_or("field `question` must hold messages")?;
    let functions = match row.get("function") {
        Some(Value::Array(functions)) => functions.as_slice(),
        Some(_) => return Err("field `function` must be a list".to_owned()),
        None => &[],
    };
    prompt.tools = functions.iter().map(definition).collect::<Result<_, _>>()?;
    let functions = functions.iter().map(function).collect::<Result<_, _>>()?;
    let category = id.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
    let category = category.trim_end_matches('_').to_owned();
    let task = ToolTask { id: id.to_owned(), category, prompt, functions, gold: Vec::new() };
    Ok((task, turns.len() > 1))
}

fn name_of(function: &Value) -> Result<String, String> {
    let name = function.get("name").and_then(Value::as_str);
    name.map(str::to_owned).ok_or_else(|| "a function has no field `name`".to_owned())
}

/// A tool as a judge is shown it, its types in the words of JSON schema.
fn definition(function: &Value) -> Result<ToolDefinition, String> {
    let description = function.get("description").and_then(Value::as_str).unwrap_or_default();
    let parameters = function.get("parameters").cloned().unwrap_or(Value::Null);
    Ok(ToolDefinition {
        name: name_of(function)?,
        description: description.to_owned(),
        parameters: json_schema(parameters, 0).to_string(),
    })
}

/// The data writes types as Python names them; JSON schema has other words.
fn json_schema(schema: Value, depth: usize) -> Value {
    let word = |word: &str| {
        match word {
            "dict" => "object",
            "float" => "number",
            "tuple" | "list" => "array",
            _ => return None,
        }
        .into()
    };
    match schema {
        other if depth > MAX_DEPTH => other,
        Value::Array(values) => values.into_iter().map(|v| json_schema(v, depth + 1)).collect(),
        Value::Object(fields) => {
            let field = |(name, value): (String, Value)| {
                let renamed: Option<&str> = match (&*name, value.as_str()) {
                    ("type", Some(text)) => word(text),
                    _ => None,
                };
                let value = renamed.map_or_else(|| json_schema(value, depth + 1), Value::from);
                (name, value)
            };
            Value::Object(fields.into_iter().map(field).collect())
        }
        other => other,
    }
}

fn function(function: &Value) -> Result<Function, String> {
    let properties = function.pointer("/parameters/properties").and_then(Value::as_object);
    Ok(Function { name: name_of(function)?, parameters: properties.cloned().unwrap_or_default() })
}

/// `[{name: {argument: [right values]}}]`.
fn gold_calls(truth: &Value) -> Result<Vec<GoldCall>, String> {
    let calls = truth.as_array().filter(|calls| (1..=MAX_CALLS).contains(&calls.len()));
    let calls = calls.ok_or_else(|| format!("1 to {MAX_CALLS} right calls are read"))?;
    calls.iter().map(gold_call).collect()
}

fn gold_call(call: &Value) -> Result<GoldCall, String> {
    let refused = || "a right call must be {name: {argument: [values]}}".to_owned();
    let mut entries = call.as_object().ok_or_else(refused)?.iter();
    let (Some((name, arguments)), None) = (entries.next(), entries.next()) else {
        return Err(refused());
    };
    let arguments = arguments.as_object().ok_or_else(refused)?.iter();
    let argument = |(name, allowed): (&String, &Value)| {
        let allowed = allowed.as_array().filter(|allowed| !allowed.is_empty());
        allowed.map(|allowed| (name.clone(), allowed.clone())).ok_or_else(refused)
    };
    let arguments = arguments.map(argument).collect::<Result<_, _>>()?;
    Ok(GoldCall { name: name.clone(), arguments })
}
