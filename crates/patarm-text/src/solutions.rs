//! Solutions in steps, with what is known of each step: the data of process reward
//! models.
//!
//! One JSON object a row: `prompt` (text or messages), the steps as `steps` or
//! `completions` or one `response` that is cut, `labels` for them (a number, `true` or
//! `false`, `null` where nothing is known), and perhaps `id`, `subset`, `reference` and
//! `trajectory`, a number for the solution as a whole. TRL's stepwise rows are such rows.

use std::path::Path;

use patarm_files::Segmentation;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::conversation::{Conversation, Message, Role};
use crate::dataset::{ReadOptions, numbered_rows};
use crate::error::{Error, ErrorKind, Result};
use crate::split::by_own_prompt;
use crate::steps::{MAX_STEPS, segment};

/// A problem and a solution in steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Solution {
    /// What was asked.
    pub prompt: Conversation,
    /// The steps, in order.
    pub steps: Vec<String>,
}

/// A solution and what is known of its steps.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledSolution {
    /// Identity within its file.
    pub id: String,
    /// The solution.
    pub solution: Solution,
    /// A label for each step, larger for better steps; `None` where nothing is known.
    pub labels: Vec<Option<f64>>,
    /// A label for the whole.
    pub trajectory: Option<f64>,
    /// The right answer of the problem, where the data has it.
    pub reference: Option<String>,
    /// Part of the data it comes from.
    pub subset: Option<String>,
}

/// A row of a file, all fields optional so that a missing one can be named.
#[derive(Debug, Deserialize)]
struct SolutionRow {
    id: Option<Value>,
    prompt: Option<Value>,
    steps: Option<Vec<String>>,
    completions: Option<Vec<String>>,
    response: Option<String>,
    labels: Option<Vec<Value>>,
    trajectory: Option<Value>,
    reference: Option<String>,
    subset: Option<String>,
}

/// Reads every solution of a file (JSON lines or an array, gzipped or not, or Parquet).
/// Responses are cut as `how` says.
///
/// # Errors
/// At the first row that is no such solution, naming file, line and field.
pub fn read_solutions(path: &Path, how: &Segmentation) -> Result<Vec<LabelledSolution>> {
    let refused = |error: crate::dataset::ReadError| Error::new(ErrorKind::Data, error.to_string());
    let mut solutions = Vec::new();
    for row in numbered_rows(path, &ReadOptions::default()).map_err(refused)? {
        let (line, value) = row.map_err(refused)?;
        let wrong = |problem: String| {
            Error::new(ErrorKind::Data, format!("{}, line {line}: {problem}", path.display()))
        };
        solutions.push(LabelledSolution::from_json(value, line, how).map_err(wrong)?);
    }
    if solutions.is_empty() {
        let problem = format!("{}: no solution in it", path.display());
        return Err(Error::new(ErrorKind::Data, problem));
    }
    Ok(solutions)
}

impl LabelledSolution {
    /// A solution of which nothing is known.
    #[must_use]
    pub fn unlabelled(id: impl Into<String>, solution: Solution) -> Self {
        Self {
            id: id.into(),
            labels: vec![None; solution.steps.len()],
            solution,
            trajectory: None,
            reference: None,
            subset: None,
        }
    }

    /// One row; the number of the line is its identity where it has none.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn from_json(value: Value, line: u64, how: &Segmentation) -> Result<Self, String> {
        let row: SolutionRow = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let prompt = row.prompt.ok_or("the field `prompt` is missing")?;
        let prompt = conversation(prompt).ok_or("`prompt` must be text or a list of messages")?;
        let steps = steps_of((row.steps, row.completions), row.response, how)?;
        let labels = match row.labels {
            None => vec![None; steps.len()],
            Some(labels) if labels.len() != steps.len() => {
                return Err(format!(
                    "{} labels for {} steps; each step needs one (null where nothing is known)",
                    labels.len(),
                    steps.len()
                ));
            }
            Some(labels) => labels.iter().map(label).collect::<Result<_, _>>()?,
        };
        let trajectory = match row.trajectory {
            None => None,
            Some(value) => label(&value).map_err(|problem| format!("`trajectory`: {problem}"))?,
        };
        let id = match row.id {
            Some(Value::String(id)) => id,
            Some(Value::Null) | None => line.to_string(),
            Some(other) => other.to_string(),
        };
        let solution = Solution { prompt, steps };
        Ok(Self { id, solution, labels, trajectory, reference: row.reference, subset: row.subset })
    }

    /// The row that is read back as the same.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut row = json!({
            "id": self.id,
            "prompt": prompt_json(&self.solution.prompt),
            "steps": self.solution.steps,
            "labels": self.labels,
        });
        if let Some(trajectory) = self.trajectory {
            row["trajectory"] = json!(trajectory);
        }
        if let Some(reference) = &self.reference {
            row["reference"] = json!(reference);
        }
        if let Some(subset) = &self.subset {
            row["subset"] = json!(subset);
        }
        row
    }
}

fn steps_of(
    (steps, completions): (Option<Vec<String>>, Option<Vec<String>>),
    response: Option<String>,
    how: &Segmentation,
) -> Result<Vec<String>, String> {
    let steps = match (steps.or(completions), response) {
        (Some(steps), _) => steps,
        (None, Some(text)) => {
            let cut = segment(&text, how).map_err(|error| error.to_string())?;
            cut.iter().map(|step| step.words(&text).to_owned()).collect()
        }
        (None, None) => return Err("neither `steps` nor `response` is there".to_owned()),
    };
    match steps.len() {
        0 => Err("the solution has no step".to_owned()),
        1..=MAX_STEPS => Ok(steps),
        count => Err(format!("{count} steps; at most {MAX_STEPS} are read")),
    }
}

fn label(value: &Value) -> Result<Option<f64>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(is_right) => Ok(Some(f64::from(u8::from(*is_right)))),
        Value::Number(number) => match number.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("the label {number} is not a finite number")),
        },
        other => Err(format!("the label {other} is no number, truth value or null")),
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Turn {
    role: Role,
    content: String,
}

fn conversation(prompt: Value) -> Option<Conversation> {
    match prompt {
        Value::String(text) => Some(Conversation::from_user(text)),
        other => {
            let turns: Vec<Turn> = serde_json::from_value(other).ok()?;
            let messages: Vec<Message> =
                turns.into_iter().map(|turn| Message::text(turn.role, turn.content)).collect();
            (!messages.is_empty()).then_some(Conversation { messages, tools: Vec::new() })
        }
    }
}

fn prompt_json(prompt: &Conversation) -> Value {
    match prompt.messages.as_slice() {
        [only] if only.role == Role::User => json!(only.plain_text()),
        messages => {
            let turn =
                |message: &Message| Turn { role: message.role, content: message.plain_text() };
            json!(messages.iter().map(turn).collect::<Vec<_>>())
        }
    }
}

/// Training and held-out solutions that share no prompt; which part a prompt goes to
/// depends on its words and the seed alone.
///
/// # Errors
/// When the share does not lie in 0..1.
pub fn split_solutions(
    solutions: Vec<LabelledSolution>,
    share: f64,
    seed: u64,
) -> Result<(Vec<LabelledSolution>, Vec<LabelledSolution>)> {
    if !(0.0..1.0).contains(&share) {
        let problem = format!("the share to hold out is {share}, not in 0..1");
        return Err(Error::new(ErrorKind::Recipe, problem));
    }
    by_own_prompt(solutions, |one| &one.solution.prompt, share, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(row: Value) -> Result<LabelledSolution, String> {
        LabelledSolution::from_json(row, 7, &Segmentation::BlankLines {})
    }

    #[test]
    fn rows_of_every_shape_are_read() {
        let own = read(json!({
            "prompt": "p", "steps": ["a", "b"], "labels": [1, null], "trajectory": 0.25,
        }))
        .unwrap();
        assert_eq!((own.id.as_str(), own.trajectory), ("7", Some(0.25)));
        assert_eq!(own.labels, [Some(1.0), None]);
        let trl =
            read(json!({ "prompt": "p", "completions": ["a", "b"], "labels": [true, false] }));
        assert_eq!(trl.unwrap().labels, [Some(1.0), Some(0.0)]);
        let cut = read(json!({
            "id": "x", "prompt": [{ "role": "user", "content": "p" }],
            "response": "a\n\nb\nc", "labels": [0.5, 0],
        }))
        .unwrap();
        assert_eq!(cut.solution.steps, ["a", "b\nc"]);
        for solution in [own, cut] {
            assert_eq!(read(solution.to_json()).unwrap(), solution);
        }
    }

    #[test]
    fn what_does_not_fit_is_one_clear_sentence() {
        let refused = [
            (json!({ "steps": ["a"] }), "`prompt` is missing"),
            (json!({ "prompt": 3, "steps": ["a"] }), "text or a list"),
            (json!({ "prompt": "p" }), "neither `steps` nor `response`"),
            (json!({ "prompt": "p", "steps": [] }), "no step"),
            (json!({ "prompt": "p", "response": " \n" }), "no step"),
            (json!({ "prompt": "p", "steps": ["a", "b"], "labels": [1] }), "1 labels for 2 steps"),
            (
                json!({ "prompt": "p", "response": "a\n\nb\n\nc", "labels": [1, 0] }),
                "2 labels for 3 steps",
            ),
            (json!({ "prompt": "p", "steps": ["a"], "labels": ["good"] }), "\"good\" is no number"),
            (json!({ "prompt": "p", "steps": ["a"], "trajectory": [] }), "`trajectory`"),
            (json!({ "prompt": "p", "steps": "a" }), "sequence"),
            (json!([1]), "struct"),
        ];
        for (row, words) in refused {
            let message = read(row.clone()).unwrap_err();
            assert!(message.contains(words), "{row}: {message}");
            assert_eq!(message.lines().count(), 1);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("steps.jsonl");
        let good = json!({ "prompt": "p", "steps": ["a"], "labels": [1] });
        let bad = json!({ "prompt": "p", "steps": ["a"], "labels": [] });
        std::fs::write(&path, format!("{good}\n{bad}\n")).unwrap();
        let message = read_solutions(&path, &Segmentation::BlankLines {}).unwrap_err().to_string();
        assert!(message.contains("steps.jsonl, line 2: 0 labels for 1 steps"), "{message}");
    }

    #[test]
    fn solutions_of_one_prompt_stay_together() {
        let make = |n: usize| {
            let prompt = Conversation::from_user(format!("problem {}", n / 3));
            let solution = Solution { prompt, steps: vec![n.to_string()] };
            LabelledSolution::unlabelled(n.to_string(), solution)
        };
        let all: Vec<_> = (0..300).map(make).collect();
        let mut num_held_out = 0;
        for seed in 0..20 {
            let (train, held_out) = split_solutions(all.clone(), 0.3, seed).unwrap();
            assert_eq!(train.len() + held_out.len(), 300);
            num_held_out += held_out.len();
            let shared = held_out
                .iter()
                .any(|one| train.iter().any(|other| one.solution.prompt == other.solution.prompt));
            assert!(!shared);
        }
        // 2,000 draws of a prompt: the share is 0.3 within three standard deviations.
        let share = num_held_out as f64 / 6_000.0;
        assert!((share - 0.3).abs() < 0.031, "{share}");
    }
}
