//! Messages in the ways data sets write them.

use serde_json::{Map, Value};

use super::error::{ReadError, ReadErrorKind};
use super::format::kind_name;
use crate::conversation::{ContentPart, Message, Role, ToolCall, ToolDefinition};

type Result<T> = std::result::Result<T, ReadError>;

/// Turns one conversation may have.
const MAX_MESSAGES: usize = 10_000;

pub(super) fn wrong_type(expected: &'static str, found: &Value) -> ReadError {
    ReadError::new(ReadErrorKind::WrongType { expected, found: kind_name(found) })
}

/// A list of messages.
pub(super) fn messages(value: &Value) -> Result<Vec<Message>> {
    let Some(list) = value.as_array() else {
        return Err(wrong_type("a list of messages", value));
    };
    if list.len() > MAX_MESSAGES {
        return Err(ReadError::bad_value(format!("more than {MAX_MESSAGES} messages")));
    }
    let each = list.iter().enumerate();
    each.map(|(index, one)| message(one).map_err(|error| error.in_item(index))).collect()
}

/// One message: `{role, content}` or `{from, value}`.
pub(super) fn message(value: &Value) -> Result<Message> {
    let Some(fields) = value.as_object() else {
        return Err(wrong_type("a message", value));
    };
    let (role_key, content_key) =
        if fields.contains_key("from") { ("from", "value") } else { ("role", "content") };
    let named = text(fields, role_key)?;
    let role = role(named).map_err(|error| error.in_field(role_key))?;
    let content = fields.get(content_key).unwrap_or(&Value::Null);
    if named == "function_call" {
        let calls = inline_calls(content).map_err(|error| error.in_field(content_key))?;
        return Ok(Message { role, content: Vec::new(), tool_calls: calls });
    }
    let tool_calls = match fields.get("tool_calls") {
        None | Some(Value::Null) => Vec::new(),
        Some(calls) => tool_calls(calls).map_err(|error| error.in_field("tool_calls"))?,
    };
    if content.is_null() && tool_calls.is_empty() {
        return Err(ReadError::new(ReadErrorKind::Missing).in_field(content_key));
    }
    let content = parts(content).map_err(|error| error.in_field(content_key))?;
    Ok(Message { role, content, tool_calls })
}

fn role(name: &str) -> Result<Role> {
    Ok(match name {
        "system" | "developer" => Role::System,
        "user" | "human" | "prompter" => Role::User,
        "assistant" | "gpt" | "chatgpt" | "bot" | "model" | "function_call" => Role::Assistant,
        "tool" | "function" | "observation" | "ipython" => Role::Tool,
        other => return Err(ReadError::bad_value(format!("unknown speaker {other:?}"))),
    })
}

/// Content as a string, nothing, or a list of text parts.
fn parts(value: &Value) -> Result<Vec<ContentPart>> {
    let text = |text: &str| ContentPart::Text { text: text.to_owned() };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(content) => Ok(vec![text(content)]),
        Value::Array(list) => {
            let each = list.iter().enumerate();
            each.map(|(index, part)| part_text(part).map(text).map_err(|e| e.in_item(index)))
                .collect()
        }
        other => Err(wrong_type("a string or a list of parts", other)),
    }
}

fn part_text(part: &Value) -> Result<&str> {
    if let Some(text) = part.as_str() {
        return Ok(text);
    }
    let Some(fields) = part.as_object() else {
        return Err(wrong_type("a part", part));
    };
    match fields.get("type").and_then(Value::as_str) {
        None | Some("text") => {}
        Some(other) => {
            return Err(ReadError::bad_value(format!("parts of type {other:?} are not supported")));
        }
    }
    let content = fields.get("text").or_else(|| fields.get("value"));
    content.and_then(Value::as_str).ok_or_else(|| ReadError::new(ReadErrorKind::Missing))
}

fn tool_calls(value: &Value) -> Result<Vec<ToolCall>> {
    let Some(list) = value.as_array() else {
        return Err(wrong_type("a list of calls", value));
    };
    let each = list.iter().enumerate();
    each.map(|(index, call)| tool_call(call).map_err(|error| error.in_item(index))).collect()
}

/// `{id?, function: {name, arguments}}` or `{name, arguments}`.
fn tool_call(value: &Value) -> Result<ToolCall> {
    let function = value.get("function").unwrap_or(value);
    let Some(fields) = function.as_object() else {
        return Err(wrong_type("a tool call", function));
    };
    let arguments = fields.get("arguments").or_else(|| fields.get("parameters"));
    Ok(ToolCall {
        id: value.get("id").and_then(Value::as_str).map(str::to_owned),
        name: text(fields, "name")?.to_owned(),
        arguments: json_text(arguments.unwrap_or(&Value::Object(Map::new()))),
    })
}

/// Calls written as JSON text: one call or a list of them.
fn inline_calls(value: &Value) -> Result<Vec<ToolCall>> {
    let parsed = parsed(value)?;
    match &parsed {
        Value::Array(_) => tool_calls(&parsed),
        one => Ok(vec![tool_call(one)?]),
    }
}

/// Tool definitions: a list, JSON text of one, or nothing.
pub(super) fn tools(value: &Value) -> Result<Vec<ToolDefinition>> {
    if value.as_str().is_some_and(|text| text.trim().is_empty()) || value.is_null() {
        return Ok(Vec::new());
    }
    let parsed = parsed(value)?;
    let Some(list) = parsed.as_array() else {
        return Err(wrong_type("a list of tools", &parsed));
    };
    let each = list.iter().enumerate();
    each.map(|(index, tool)| definition(tool).map_err(|error| error.in_item(index))).collect()
}

fn definition(value: &Value) -> Result<ToolDefinition> {
    let function = value.get("function").unwrap_or(value);
    let Some(fields) = function.as_object() else {
        return Err(wrong_type("a tool", function));
    };
    let description = fields.get("description").and_then(Value::as_str).unwrap_or_default();
    Ok(ToolDefinition {
        name: text(fields, "name")?.to_owned(),
        description: description.to_owned(),
        parameters: fields.get("parameters").map(json_text).unwrap_or_default(),
    })
}

/// A value, or what its text spells as JSON.
fn parsed(value: &Value) -> Result<Value> {
    match value {
        Value::String(text) => serde_json::from_str(text)
            .map_err(|error| ReadError::new(ReadErrorKind::NotJson(error.to_string()))),
        other => Ok(other.clone()),
    }
}

/// Compact JSON text of a value; JSON text that is already there is made compact.
fn json_text(value: &Value) -> String {
    match value {
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(inner) => inner.to_string(),
            Err(_) => value.to_string(),
        },
        other => other.to_string(),
    }
}

/// A field that must be a string.
pub(super) fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str> {
    let value = required(fields, name)?;
    value.as_str().ok_or_else(|| wrong_type("a string", value).in_field(name))
}

/// A field that must be there.
pub(super) fn required<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a Value> {
    match fields.get(name) {
        None | Some(Value::Null) => Err(ReadError::new(ReadErrorKind::Missing).in_field(name)),
        Some(value) => Ok(value),
    }
}
