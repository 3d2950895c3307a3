//! Prompts: text, or a list of messages.

use std::borrow::Cow;

use patarm_text::{Conversation, Message, Role};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most messages of a conversation.
pub(crate) const MAX_MESSAGES: usize = 1_024;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// A prompt: text, which stands for one user message, or messages.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct Prompt(Conversation);

impl Prompt {
    /// The conversation.
    #[must_use]
    pub fn into_conversation(self) -> Conversation {
        self.0
    }
}

impl TryFrom<Value> for Prompt {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(Self(Conversation::from_user(text))),
            Value::Array(_) => {
                let turns: Vec<Turn> =
                    serde_json::from_value(value).map_err(|error| format!("messages: {error}"))?;
                conversation(turns).map(Self)
            }
            _ => Err("a prompt is text or a list of messages".into()),
        }
    }
}

impl JsonSchema for Prompt {
    fn schema_name() -> Cow<'static, str> {
        "Prompt".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let turn = generator.subschema_for::<Turn>();
        json_schema!({
            "description": "Text, which stands for one user message, or messages.",
            "oneOf": [{ "type": "string" }, { "type": "array", "items": turn }],
        })
    }
}

/// Messages as a conversation.
fn conversation(turns: Vec<Turn>) -> Result<Conversation, String> {
    if turns.is_empty() || turns.len() > MAX_MESSAGES {
        return Err(format!("{} messages, must lie in 1..={MAX_MESSAGES}", turns.len()));
    }
    let mut messages = Vec::with_capacity(turns.len());
    for turn in turns {
        messages.push(Message::text(role(&turn.role)?, turn.content));
    }
    Ok(Conversation { messages, tools: Vec::new() })
}

/// A role by its name; `developer` is what some clients call `system`.
pub(crate) fn role(name: &str) -> Result<Role, String> {
    match name {
        "system" | "developer" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        other => {
            let shown: String = other.chars().take(32).collect();
            Err(format!("role {shown:?}: must be system, user, assistant or tool"))
        }
    }
}
