//! Comparisons back into files, for this tool and for others.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use patarm_files::AtomicFile;
use serde_json::{Map, Value, json};

use crate::comparison::{Comparison, Item};
use crate::conversation::{Conversation, Message, Role};
use crate::error::{Error, ErrorKind, Result};

/// What the rows to be written look like. All are JSON lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    /// `prompt`, `chosen`, `rejected` as strings; single questions only.
    Trl,
    /// `prompt`, `chosen`, `rejected` as message lists.
    Messages,
    /// Two rows a pair: `pair_id`, `side`, `preferred_side`, `prompt`,
    /// `response`, `task`.
    PatarmRows,
    /// [`Comparison`] as it serialises; the only one that keeps everything.
    Native,
}

impl OutputFormat {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Trl, Self::Messages, Self::PatarmRows, Self::Native];

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trl => "trl",
            Self::Messages => "messages",
            Self::PatarmRows => "patarm-rows",
            Self::Native => "native",
        }
    }
}

impl fmt::Display for OutputFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for OutputFormat {
    type Err = String;

    /// # Errors
    /// The names there are, when this is none of them.
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|format| format.name()).collect();
            format!("unknown output format {name:?}; known are {}", names.join(", "))
        })
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Comparisons in the file.
    pub comparisons: u64,
    /// Ties and unlabelled comparisons, which only the native format can express.
    pub left_out: u64,
}

/// Writes comparisons to a file, which appears whole or not at all.
///
/// # Errors
/// When the file cannot be written, or a comparison does not fit the format; what
/// was there before is then untouched.
pub fn write_comparisons<'a>(
    path: &Path,
    format: OutputFormat,
    comparisons: impl IntoIterator<Item = &'a Comparison>,
) -> Result<Written> {
    let failed = |source: patarm_files::Error| {
        Error::with_source(ErrorKind::Io, format!("cannot write {}", path.display()), source)
    };
    let mut file = AtomicFile::create(path).map_err(failed)?;
    let mut written = Written::default();
    for comparison in comparisons {
        let rows = rows(format, comparison)?;
        if rows.is_empty() {
            written.left_out += 1;
            continue;
        }
        for row in rows {
            let mut line = row.to_string();
            line.push('\n');
            file.write(line.as_bytes()).map_err(failed)?;
        }
        written.comparisons += 1;
    }
    file.commit().map_err(failed)?;
    Ok(written)
}

/// The rows of a comparison; none when the format cannot express its label.
fn rows(format: OutputFormat, comparison: &Comparison) -> Result<Vec<Value>> {
    if format == OutputFormat::Native {
        let row = serde_json::to_value(comparison).map_err(|source| {
            Error::with_source(ErrorKind::Data, "comparison cannot be written", source)
        })?;
        return Ok(vec![row]);
    }
    let Some((chosen, rejected)) = comparison.chosen_rejected() else {
        return Ok(Vec::new());
    };
    match format {
        OutputFormat::Trl => trl(comparison, chosen, rejected).map(|row| vec![row]),
        OutputFormat::Messages => Ok(vec![message_lists(comparison, chosen, rejected)]),
        OutputFormat::PatarmRows => two_rows(comparison, chosen),
        OutputFormat::Native => Ok(Vec::new()),
    }
}

fn trl(comparison: &Comparison, chosen: &Item, rejected: &Item) -> Result<Value> {
    let prompt = match single_question(&chosen.prompt) {
        Some(prompt) if chosen.prompt == rejected.prompt => prompt,
        _ => return Err(unfit(comparison, "more than one question", "messages")),
    };
    let mut row = extras(comparison);
    row.insert("prompt".into(), prompt.into());
    row.insert("chosen".into(), chosen.response.as_str().into());
    row.insert("rejected".into(), rejected.response.as_str().into());
    Ok(Value::Object(row))
}

fn message_lists(comparison: &Comparison, chosen: &Item, rejected: &Item) -> Value {
    let answer = |item: &Item| json!({"role": "assistant", "content": item.response});
    let mut row = extras(comparison);
    if chosen.prompt == rejected.prompt {
        row.insert("prompt".into(), list(&chosen.prompt.messages).into());
        row.insert("chosen".into(), json!([answer(chosen)]));
        row.insert("rejected".into(), json!([answer(rejected)]));
    } else {
        for (name, item) in [("chosen", chosen), ("rejected", rejected)] {
            let mut whole = list(&item.prompt.messages);
            whole.push(answer(item));
            row.insert(name.into(), whole.into());
        }
    }
    if !chosen.prompt.tools.is_empty() {
        row.insert("tools".into(), tool_list(&chosen.prompt));
    }
    Value::Object(row)
}

fn two_rows(comparison: &Comparison, chosen: &Item) -> Result<Vec<Value>> {
    if !comparison.first.prompt.tools.is_empty() || !comparison.second.prompt.tools.is_empty() {
        return Err(unfit(comparison, "tools", "native"));
    }
    let preferred = usize::from(!std::ptr::eq(chosen, &comparison.first));
    let sides = [&comparison.first, &comparison.second].into_iter().enumerate();
    let row = |(side, item): (usize, &Item)| {
        let prompt = match single_question(&item.prompt) {
            Some(prompt) => prompt.into(),
            None => Value::from(list(&item.prompt.messages)),
        };
        let task = comparison.task.map(|task| task.name());
        json!({
            "pair_id": comparison.id, "side": side, "preferred_side": preferred,
            "prompt": prompt, "response": item.response, "task": task,
        })
    };
    Ok(sides.map(row).collect())
}

fn extras(comparison: &Comparison) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("id".into(), comparison.id.as_str().into());
    if let Some(subset) = &comparison.subset {
        row.insert("subset".into(), subset.as_str().into());
    }
    if let Some(task) = comparison.task {
        row.insert("task".into(), task.name().into());
    }
    row
}

/// The text of a conversation that is one user turn and nothing else.
fn single_question(conversation: &Conversation) -> Option<String> {
    match conversation.messages.as_slice() {
        [only] if only.role == Role::User && conversation.tools.is_empty() => {
            Some(only.plain_text())
        }
        _ => None,
    }
}

fn list(messages: &[Message]) -> Vec<Value> {
    messages.iter().map(message).collect()
}

fn message(message: &Message) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut fields = json!({"role": role, "content": message.plain_text()});
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let mut fields = json!({
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            });
            if let Some(id) = &call.id {
                fields["id"] = id.as_str().into();
            }
            fields
        });
        fields["tool_calls"] = calls.collect();
    }
    fields
}

fn tool_list(conversation: &Conversation) -> Value {
    let tools = conversation.tools.iter().map(|tool| {
        let mut function = json!({"name": tool.name, "description": tool.description});
        if let Ok(parameters) = serde_json::from_str::<Value>(&tool.parameters) {
            function["parameters"] = parameters;
        }
        json!({"type": "function", "function": function})
    });
    tools.collect()
}

fn unfit(comparison: &Comparison, has: &str, better: &str) -> Error {
    let context = format!("comparison {:?} has {has}; write it with --to {better}", comparison.id);
    Error::new(ErrorKind::Data, context)
}
