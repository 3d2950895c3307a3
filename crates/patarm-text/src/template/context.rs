//! What a template gets to see, with or without markers around the data.

use minijinja::Value;
use minijinja::value::Serde;
use serde_json::{Map, Value as Json, json};

use crate::conversation::{ContentPart, Conversation, Message, Role, ToolCall, ToolDefinition};
use crate::error::{Error, ErrorKind, Result};

/// Tags that templates look for in contents, to take reasoning or tool calls
/// apart. None of them ends or begins a turn.
pub(super) const TAGS: [&str; 6] =
    ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"];

/// Where markers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Around a whole text.
    Around,
    /// As `Around` for all but what the model said; `Inside` for that.
    InsideAssistant,
    /// Inside surrounding whitespace, and on both sides of every tag in it, so
    /// that templates can trim and split as they like.
    Inside,
}

impl Style {
    /// From the strictest to the most lenient.
    pub(super) const ALL: [Self; 3] = [Self::Around, Self::InsideAssistant, Self::Inside];

    fn is_inside(self, role: Role) -> bool {
        self == Self::Inside || (self == Self::InsideAssistant && role == Role::Assistant)
    }
}

/// Four characters that occur nowhere in the conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Markers {
    /// Opens a marked text; its number follows.
    pub(super) open: char,
    /// Ends the number.
    pub(super) start: char,
    /// Closes a marked text.
    pub(super) close: char,
    /// Closes a marked text that goes on after a tag.
    pub(super) more: char,
    style: Style,
}

impl Markers {
    /// Picks private-use characters that occur neither in these texts nor in the
    /// conversation.
    pub(super) fn absent_from(
        texts: &[&str],
        conversation: &Conversation,
        style: Style,
    ) -> Result<Self> {
        // What a template drops from its output may still come back marked, so
        // the whole input counts, not only what is rendered.
        let input = serde_json::to_string(conversation).map_err(|source| {
            Error::with_source(ErrorKind::Template, "conversation cannot be written", source)
        })?;
        let used: std::collections::HashSet<char> = texts
            .iter()
            .copied()
            .chain([input.as_str()])
            .flat_map(str::chars)
            .filter(|c| ('\u{F0000}'..='\u{FFFFD}').contains(c))
            .collect();
        let mut free = ('\u{F0000}'..='\u{FFFFD}').filter(|c| !used.contains(c));
        match (free.next(), free.next(), free.next(), free.next()) {
            (Some(open), Some(start), Some(close), Some(more)) => {
                Ok(Self { open, start, close, more, style })
            }
            _ => Err(Error::new(ErrorKind::Limit, "the conversation uses every private character")),
        }
    }

    fn wrap(&self, text: &str, number: usize, close: char) -> String {
        format!("{}{number}{}{text}{close}", self.open, self.start)
    }

    fn mark_inside(&self, text: &str, number: usize) -> String {
        let mut marked = String::with_capacity(text.len() + 32);
        let mut rest = text;
        loop {
            let next = TAGS.iter().filter_map(|tag| Some((rest.find(tag)?, *tag))).min();
            let (piece, tag) = match next {
                Some((at, tag)) => (&rest[..at], tag),
                None => (rest, ""),
            };
            let core = piece.trim();
            if core.is_empty() {
                marked.push_str(piece);
            } else {
                let lead = &piece[..piece.len() - piece.trim_start().len()];
                let trail = &piece[piece.trim_end().len()..];
                let close =
                    if tag.is_empty() || !trail.is_empty() { self.close } else { self.more };
                marked.push_str(lead);
                marked.push_str(&self.wrap(core, number, close));
                marked.push_str(trail);
            }
            if tag.is_empty() {
                return marked;
            }
            marked.push_str(tag);
            rest = &rest[piece.len() + tag.len()..];
        }
    }
}

/// Number of a marked text that is not part of a message's contents.
pub(super) const TOOL: usize = 0;
/// Parts one message may have.
const MAX_PARTS: usize = 1 << 16;

/// The number of a text part of a message.
pub(super) fn part_number(message: usize, part: usize) -> usize {
    1 + message * MAX_PARTS + part
}

/// Message and part behind a number; `None` for tools.
pub(super) fn message_and_part(number: usize) -> Option<(usize, usize)> {
    let number = number.checked_sub(1)?;
    Some((number / MAX_PARTS, number % MAX_PARTS))
}

/// The list templates call `messages`.
pub(super) fn messages(conversation: &Conversation, markers: Option<&Markers>) -> Result<Value> {
    let list: Result<Vec<Json>> = conversation
        .messages
        .iter()
        .enumerate()
        .map(|(index, message)| message_json(index, message, markers))
        .collect();
    Ok(Value::from(Serde(list?)))
}

fn message_json(index: usize, message: &Message, markers: Option<&Markers>) -> Result<Json> {
    if message.content.len() > MAX_PARTS {
        let context = format!("message {index} has more than {MAX_PARTS} parts");
        return Err(Error::new(ErrorKind::Limit, context));
    }
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let content = match markers {
        None => message.plain_text(),
        Some(markers) => marked_content(index, message, markers),
    };
    let mut fields = Map::new();
    fields.insert("role".into(), role.into());
    fields.insert("content".into(), content.into());
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| tool_call_json(call, markers)).collect();
        fields.insert("tool_calls".into(), Json::Array(calls));
    }
    Ok(Json::Object(fields))
}

fn marked_content(index: usize, message: &Message, markers: &Markers) -> String {
    // Trimming concerns the message as a whole: its parts become one.
    if markers.style.is_inside(message.role) {
        return markers.mark_inside(&message.plain_text(), part_number(index, 0));
    }
    let parts = message.content.iter().enumerate().filter_map(|(part, content)| {
        let ContentPart::Text { text } = content;
        (!text.is_empty()).then(|| markers.wrap(text, part_number(index, part), markers.close))
    });
    parts.collect()
}

fn tool_call_json(call: &ToolCall, markers: Option<&Markers>) -> Json {
    // Arguments are JSON text by contract; data that breaks it is shown as text.
    let arguments = match serde_json::from_str(&call.arguments) {
        Ok(parsed) => marked_json(parsed, markers),
        Err(_) => marked_text(&call.arguments, markers).into(),
    };
    let mut fields = Map::new();
    if let Some(id) = &call.id {
        fields.insert("id".into(), marked_text(id, markers).into());
    }
    fields.insert("type".into(), "function".into());
    let name = marked_text(&call.name, markers);
    fields.insert("function".into(), json!({"name": name, "arguments": arguments}));
    Json::Object(fields)
}

/// The list templates call `tools`; `none` where there are none.
pub(super) fn tools(conversation: &Conversation, markers: Option<&Markers>) -> Result<Value> {
    if conversation.tools.is_empty() {
        return Ok(Value::from(()));
    }
    let list: Result<Vec<Json>> =
        conversation.tools.iter().map(|tool| tool_json(tool, markers)).collect();
    Ok(Value::from(Serde(list?)))
}

fn tool_json(tool: &ToolDefinition, markers: Option<&Markers>) -> Result<Json> {
    let mut function = Map::new();
    function.insert("name".into(), marked_text(&tool.name, markers).into());
    function.insert("description".into(), marked_text(&tool.description, markers).into());
    if !tool.parameters.is_empty() {
        let parsed: Json = serde_json::from_str(&tool.parameters).map_err(|source| {
            let context = format!("parameters of tool {:?} are not JSON", tool.name);
            Error::with_source(ErrorKind::Data, context, source)
        })?;
        function.insert("parameters".into(), marked_json(parsed, markers));
    }
    Ok(json!({"type": "function", "function": function}))
}

fn marked_json(value: Json, markers: Option<&Markers>) -> Json {
    match value {
        Json::String(text) => marked_text(&text, markers).into(),
        Json::Array(items) => {
            Json::Array(items.into_iter().map(|item| marked_json(item, markers)).collect())
        }
        Json::Object(fields) => fields
            .into_iter()
            .map(|(key, item)| (marked_text(&key, markers), marked_json(item, markers)))
            .collect::<Map<_, _>>()
            .into(),
        other => other,
    }
}

/// Marks names and values of tools only where they could spell anything but
/// plain text: templates look names up, and markers would hide them.
fn marked_text(text: &str, markers: Option<&Markers>) -> String {
    match markers {
        Some(markers) if !is_harmless(text) => markers.wrap(text, TOOL, markers.close),
        _ => text.to_owned(),
    }
}

/// Whether a text has no character that control tokens are made of.
fn is_harmless(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || " \n\t.,;:!?'\"()/-_+*=%&@#$~^\\{}".contains(c))
}
