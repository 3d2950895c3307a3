//! Forms of input that several dialects share: one or many, text or token ids.

use std::borrow::Cow;

use patarm_reward::serving::{Sequence, SpecialTokens};
use patarm_text::{Conversation, Item, Message, Role};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::Value;

use super::native::role;

/// Most messages of a conversation.
const MAX_MESSAGES: usize = 1_024;

/// Text, token ids, or a list of either.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub struct Input {
    /// The sequences.
    pub sequences: Vec<TextOrIds>,
    /// Whether the body had a list rather than one sequence.
    pub is_list: bool,
}

/// One sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum TextOrIds {
    /// Text.
    Text(String),
    /// Token ids.
    Ids(Vec<u32>),
}

impl TextOrIds {
    /// As the model reads it.
    #[must_use]
    pub fn into_sequence(self, special_tokens: SpecialTokens) -> Sequence {
        match self {
            Self::Text(text) => Sequence::Text { text, special_tokens },
            Self::Ids(ids) => Sequence::Ids(ids),
        }
    }
}

impl TryFrom<Value> for Input {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let form = || "input is text, token ids, or a list of either".to_owned();
        match value {
            Value::String(text) => {
                Ok(Self { sequences: vec![TextOrIds::Text(text)], is_list: false })
            }
            Value::Array(entries) if entries.first().is_some_and(Value::is_number) => {
                Ok(Self { sequences: vec![TextOrIds::Ids(ids(entries)?)], is_list: false })
            }
            Value::Array(entries) => {
                let each = entries.into_iter().map(|entry| match entry {
                    Value::String(text) => Ok(TextOrIds::Text(text)),
                    Value::Array(entries) => ids(entries).map(TextOrIds::Ids),
                    _ => Err(form()),
                });
                Ok(Self { sequences: each.collect::<Result<_, _>>()?, is_list: true })
            }
            _ => Err(form()),
        }
    }
}

fn ids(entries: Vec<Value>) -> Result<Vec<u32>, String> {
    let id = |entry: Value| {
        let id = entry.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| "a token id is a number from 0 to 4294967295".to_owned())
    };
    entries.into_iter().map(id).collect()
}

impl JsonSchema for Input {
    fn schema_name() -> Cow<'static, str> {
        "Input".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let ids =
            serde_json::json!({ "type": "array", "items": { "type": "integer", "minimum": 0 } });
        json_schema!({
            "description": "Text, token ids, or a list of either.",
            "oneOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" } },
                ids,
                { "type": "array", "items": ids },
            ],
        })
    }
}

/// One text or several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct Texts(pub Vec<String>);

impl TryFrom<Value> for Texts {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let text = |value: Value| match value {
            Value::String(text) => Ok(text),
            // Documents may be objects with a text in them.
            Value::Object(mut object) => match object.remove("text") {
                Some(Value::String(text)) => Ok(text),
                _ => Err("an object here has a text".to_owned()),
            },
            _ => Err("must be text, or a list of texts".to_owned()),
        };
        match value {
            Value::Array(entries) => {
                entries.into_iter().map(text).collect::<Result<_, _>>().map(Self)
            }
            one => Ok(Self(vec![text(one)?])),
        }
    }
}

impl JsonSchema for Texts {
    fn schema_name() -> Cow<'static, str> {
        "Texts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let document = serde_json::json!({
            "oneOf": [
                { "type": "string" },
                { "type": "object", "properties": { "text": { "type": "string" } } },
            ],
        });
        json_schema!({
            "description": "One text or several; an object stands for the text in it.",
            "oneOf": [document, { "type": "array", "items": document }],
        })
    }
}

/// A message as the OpenAI protocol has it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct ChatMessage {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Text, or parts of type `text`.
    #[serde(default)]
    #[schemars(with = "Value")]
    pub content: Value,
}

/// A prompt that is text or messages, from protocols that are loose about it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct LoosePrompt(pub Conversation);

impl TryFrom<Value> for LoosePrompt {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(Self(super::markup::conversation(&text))),
            other => {
                let messages: Vec<ChatMessage> = serde_json::from_value(other)
                    .map_err(|_| "a prompt is text or a list of messages".to_owned())?;
                conversation(messages).map(Self)
            }
        }
    }
}

impl JsonSchema for LoosePrompt {
    fn schema_name() -> Cow<'static, str> {
        "LoosePrompt".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let message = generator.subschema_for::<ChatMessage>();
        json_schema!({
            "description": "Text, or messages.",
            "oneOf": [{ "type": "string" }, { "type": "array", "items": message }],
        })
    }
}

/// Messages as a conversation. Nothing a message points to is ever fetched: parts that
/// are not text are refused.
pub(crate) fn conversation(messages: Vec<ChatMessage>) -> Result<Conversation, String> {
    if messages.is_empty() || messages.len() > MAX_MESSAGES {
        return Err(format!("{} messages, must lie in 1..={MAX_MESSAGES}", messages.len()));
    }
    let each = messages
        .into_iter()
        .map(|message| Ok(Message::text(role(&message.role)?, content_text(message.content)?)));
    Ok(Conversation { messages: each.collect::<Result<_, String>>()?, tools: Vec::new() })
}

/// The text of a content: a string, or parts of text.
pub(crate) fn content_text(content: Value) -> Result<String, String> {
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        Value::Array(parts) => {
            let mut text = String::new();
            for part in &parts {
                let kind = part["type"].as_str().unwrap_or_default();
                match part["text"].as_str() {
                    Some(piece) if ["text", "input_text", "output_text"].contains(&kind) => {
                        text.push_str(piece);
                    }
                    _ => return Err("only parts of type text are read".to_owned()),
                }
            }
            Ok(text)
        }
        _ => Err("content is text, or a list of parts".to_owned()),
    }
}

/// A conversation whose last turn is the model's, as prompt and response; otherwise as it
/// was.
pub(crate) fn split_response(mut conversation: Conversation) -> Result<Item, Conversation> {
    match conversation.messages.pop() {
        Some(last) if last.role == Role::Assistant && !conversation.messages.is_empty() => {
            Ok(Item { response: last.plain_text(), prompt: conversation })
        }
        last => {
            conversation.messages.extend(last);
            Err(conversation)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn input(value: Value) -> Result<Input, serde_json::Error> {
        serde_json::from_value(value)
    }

    #[test]
    fn forms_of_input() {
        let text = |text: &str| TextOrIds::Text(text.into());
        let one = input(json!("a")).unwrap();
        assert_eq!(one, Input { sequences: vec![text("a")], is_list: false });
        let many = input(json!(["a", "b"])).unwrap();
        assert_eq!(many, Input { sequences: vec![text("a"), text("b")], is_list: true });
        let ids = input(json!([1, 2])).unwrap();
        assert_eq!(ids, Input { sequences: vec![TextOrIds::Ids(vec![1, 2])], is_list: false });
        let lists = input(json!([[1], [2, 3]])).unwrap();
        assert_eq!((lists.sequences.len(), lists.is_list), (2, true));
        assert!(input(json!([])).unwrap().sequences.is_empty());
        for wrong in
            [json!(1), json!([1, "a"]), json!([-1]), json!([[4_294_967_296_u64]]), json!({})]
        {
            assert!(input(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn contents_are_text_or_refused() {
        assert_eq!(content_text(json!("a")).unwrap(), "a");
        let parts = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
        assert_eq!(content_text(parts).unwrap(), "ab");
        let image = json!([{ "type": "image_url", "image_url": { "url": "file:///etc/passwd" } }]);
        assert!(content_text(image).is_err());
        assert!(content_text(json!(3)).is_err());
    }
}
