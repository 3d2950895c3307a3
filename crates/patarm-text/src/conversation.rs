//! Conversations: what was said, by whom, with which tools at hand.

use serde::{Deserialize, Serialize};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions from whoever deploys the model.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

/// A piece of a message. Text today; images and video frames have room here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ContentPart {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
}

/// A call of a tool by the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ToolCall {
    /// Identity of the call, where the data has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name of the tool.
    pub name: String,
    /// Arguments as canonical JSON text.
    pub arguments: String,
}

/// The definition of a tool, as JSON schema text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ToolDefinition {
    /// Name of the tool.
    pub name: String,
    /// What it does.
    #[serde(default)]
    pub description: String,
    /// JSON schema of its parameters, as canonical JSON text.
    #[serde(default)]
    pub parameters: String,
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Vec<ContentPart>,
    /// Tools the model calls in this turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

impl Message {
    /// A message of one text part.
    #[must_use]
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: vec![ContentPart::Text { text: text.into() }],
            tool_calls: Vec::new(),
        }
    }

    /// All text parts, concatenated.
    #[must_use]
    pub fn plain_text(&self) -> String {
        self.content.iter().map(|ContentPart::Text { text }| text.as_str()).collect()
    }
}

/// A sequence of turns with the tools at hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Conversation {
    /// The turns, in order.
    pub messages: Vec<Message>,
    /// Tools the model may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolDefinition>,
}

impl Conversation {
    /// A conversation of one user turn.
    #[must_use]
    pub fn from_user(text: impl Into<String>) -> Self {
        Self { messages: vec![Message::text(Role::User, text)], tools: Vec::new() }
    }

    /// The conversation as a judge reads it: the text alone for a single user
    /// turn, otherwise one `role: text` paragraph a turn.
    #[must_use]
    pub fn transcript(&self) -> String {
        if let [only] = self.messages.as_slice()
            && only.role == Role::User
            && only.tool_calls.is_empty()
        {
            return only.plain_text();
        }
        let paragraphs: Vec<String> = self.messages.iter().map(paragraph).collect();
        paragraphs.join("\n\n")
    }
}

fn paragraph(message: &Message) -> String {
    let who = match message.role {
        Role::System => "System",
        Role::User => "User",
        Role::Assistant => "Assistant",
        Role::Tool => "Tool",
    };
    let mut text = format!("{who}: {}", message.plain_text());
    for call in &message.tool_calls {
        text.push_str(&format!("\n[calls {} {}]", call.name, call.arguments));
    }
    text
}
