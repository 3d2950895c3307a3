//! Rows that are a single response with a label: passes, or fails.

use std::path::Path;

use serde_json::{Map, Value};

use super::Limits;
use super::error::{ReadError, ReadErrorKind};
use super::messages::{messages, required, text, wrong_type};
use super::rows::Rows;
use crate::comparison::Item;
use crate::conversation::Conversation;

/// A response that passes or fails by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledItem {
    /// Identity: the row's `id`, else its line.
    pub id: String,
    /// Prompt and response.
    pub item: Item,
    /// Whether it passes.
    pub passes: bool,
}

/// Reads rows `{"prompt": text or messages, "response": text, "label": …}` of a JSON
/// Lines, JSON or Parquet file; the label is `"pass"` or `"fail"`, true or false, 1 or 0.
///
/// # Errors
/// When the file cannot be read, or a row is no such row; the error names its line.
pub fn read_labelled(path: &Path, limits: &Limits) -> Result<Vec<LabelledItem>, ReadError> {
    let mut rows = Rows::open(path, limits)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next_row().map_err(|error| error.in_file(path))? {
        if limits.max_rows.is_some_and(|max| found.len() as u64 >= max) {
            break;
        }
        let item = labelled(&row.value, row.line).map_err(|error| error.at(path, row.line))?;
        found.push(item);
    }
    Ok(found)
}

fn labelled(row: &Value, line: u64) -> Result<LabelledItem, ReadError> {
    let Some(fields) = row.as_object() else {
        return Err(wrong_type("an object", row));
    };
    let prompt = prompt(required(fields, "prompt")?).map_err(|error| error.in_field("prompt"))?;
    let response = text(fields, "response")?.to_owned();
    if response.trim().is_empty() {
        return Err(ReadError::bad_value("the response is empty").in_field("response"));
    }
    let passes = label(required(fields, "label")?).map_err(|error| error.in_field("label"))?;
    Ok(LabelledItem { id: id(fields, line), item: Item { prompt, response }, passes })
}

fn prompt(value: &Value) -> Result<Conversation, ReadError> {
    match value {
        Value::String(text) => Ok(Conversation::from_user(text.as_str())),
        Value::Array(_) => Ok(Conversation { messages: messages(value)?, tools: Vec::new() }),
        other => Err(wrong_type("text or a list of messages", other)),
    }
}

fn label(value: &Value) -> Result<bool, ReadError> {
    let passes = match value {
        Value::Bool(passes) => Some(*passes),
        Value::String(word) if word == "pass" => Some(true),
        Value::String(word) if word == "fail" => Some(false),
        Value::Number(number) if number.as_f64() == Some(1.0) => Some(true),
        Value::Number(number) if number.as_f64() == Some(0.0) => Some(false),
        _ => None,
    };
    let problem = || {
        let problem = format!("{value} is no label; write \"pass\" or \"fail\"");
        ReadError::new(ReadErrorKind::BadValue(problem))
    };
    passes.ok_or_else(problem)
}

fn id(fields: &Map<String, Value>, line: u64) -> String {
    match fields.get("id") {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        _ => line.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<LabelledItem>, ReadError> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("labelled.jsonl");
        std::fs::write(&path, text).expect("written");
        read_labelled(&path, &Limits::default())
    }

    #[test]
    fn labels_are_words_booleans_or_numbers() {
        let rows = [
            r#"{"id": "a", "prompt": "q", "response": "r", "label": "pass"}"#,
            r#"{"prompt": "q", "response": "r", "label": false}"#,
            r#"{"prompt": [{"role": "user", "content": "q"}], "response": "r", "label": 1}"#,
            r#"{"prompt": "q", "response": "r", "label": 0, "source": "x"}"#,
        ];
        let found = read(&rows.join("\n")).expect("reads");
        let passes: Vec<bool> = found.iter().map(|one| one.passes).collect();
        assert_eq!(passes, [true, false, true, false]);
        let ids: Vec<&str> = found.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, ["a", "2", "3", "4"]);
        assert_eq!(found[0].item, found[2].item, "text is a conversation of one turn");
    }

    #[test]
    fn bad_rows_name_line_and_field() {
        let good = r#"{"prompt": "q", "response": "r", "label": true}"#;
        for (bad, what) in [
            (r#"{"prompt": "q", "response": "r"}"#, "label"),
            (r#"{"prompt": "q", "response": "r", "label": "good"}"#, "label"),
            (r#"{"prompt": "q", "response": "r", "label": 0.5}"#, "label"),
            (r#"{"prompt": "q", "response": " ", "label": true}"#, "response"),
            (r#"{"prompt": 3, "response": "r", "label": true}"#, "prompt"),
            (r#"{"response": "r", "label": true}"#, "prompt"),
            ("[1, 2]", "object"),
            ("{", "JSON"),
        ] {
            let message = read(&format!("{good}\n{bad}\n")).expect_err(bad).to_string();
            assert!(message.contains("line 2") && message.contains(what), "{bad}: {message}");
        }
    }
}
