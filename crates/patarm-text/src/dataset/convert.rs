//! A row of a known format as a comparison.
//!
//! Fields of a row that no format knows are left alone: data sets carry much that
//! is none of our business. Fields that are known must have the right type.

mod benchmarks;

use serde_json::{Map, Value};

use super::error::{ReadError, ReadErrorKind};
use super::format::Format;
use super::messages::{self, messages, text, wrong_type};
use super::transcript;
use crate::comparison::{Comparison, Item, Preference, Task};
use crate::conversation::{Conversation, Message, Role, ToolDefinition};

type Result<T> = std::result::Result<T, ReadError>;
type Fields = Map<String, Value>;

/// Converts a row; `fallback_id` names it where it has no name of its own.
pub(super) fn comparison(format: Format, row: Value, fallback_id: String) -> Result<Comparison> {
    let Value::Object(fields) = row else {
        return Err(wrong_type("an object", &row));
    };
    let mut comparison = match format {
        Format::Native => return native(fields),
        Format::Explicit => explicit(&fields),
        Format::Implicit => implicit(&fields),
        Format::Transcript => transcripts(&fields),
        Format::ShareGpt => share_gpt(&fields),
        Format::RewardBench => benchmarks::reward_bench(&fields),
        Format::LlmBar => benchmarks::llm_bar(&fields),
        Format::PandaLm => benchmarks::panda_lm(&fields),
        Format::AlpacaEval => benchmarks::alpaca_eval(&fields),
        // Two-row records are joined before they get here.
        Format::PatarmRows => Err(ReadError::bad_value("half a pair")),
    }?;
    comparison.id = id(&fields).unwrap_or(fallback_id);
    comparison.subset = label_text(&fields, "subset")?;
    comparison.task = task(&fields)?.or_else(|| task_of(comparison.subset.as_deref()?));
    if comparison.strength.is_none() {
        comparison.strength = strength(&fields)?;
    }
    Ok(comparison)
}

/// A comparison without a name yet.
fn labelled(first: Item, second: Item, label: Preference) -> Comparison {
    let id = String::new();
    Comparison { id, first, second, label, strength: None, task: None, subset: None }
}

fn native(fields: Fields) -> Result<Comparison> {
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| ReadError::bad_value(error.to_string()))
}

/// `id`, `prompt_id` or `idx`, as text.
fn id(fields: &Fields) -> Option<String> {
    let value = ["id", "prompt_id", "idx"].iter().find_map(|name| fields.get(*name))?;
    match value {
        Value::String(id) if !id.is_empty() => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

fn label_text(fields: &Fields, name: &str) -> Result<Option<String>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => text(fields, name).map(|text| Some(text.to_owned())),
    }
}

/// The `task` field, where it names one of ours.
fn task(fields: &Fields) -> Result<Option<Task>> {
    let name = label_text(fields, "task")?;
    Ok(name.and_then(|name| Task::ALL.into_iter().find(|task| task.name() == name)))
}

/// The kind of work behind a subset of RewardBench.
fn task_of(subset: &str) -> Option<Task> {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| subset.starts_with(prefix));
    if starts(&["hep-"]) {
        Some(Task::Code)
    } else if starts(&["math-"]) {
        Some(Task::Math)
    } else if starts(&["refusals-", "xstest-", "donotanswer"]) {
        Some(Task::Safety)
    } else if starts(&["llmbar-"]) {
        Some(Task::InstructionFollowing)
    } else if starts(&["alpacaeval-", "mt-bench-"]) {
        Some(Task::Chat)
    } else {
        None
    }
}

/// Difference of `score_chosen` and `score_rejected`, here or in `metadata`.
fn strength(fields: &Fields) -> Result<Option<f64>> {
    let inside = fields.get("metadata").and_then(Value::as_object);
    for place in [Some(fields), inside].into_iter().flatten() {
        if let (Some(chosen), Some(rejected)) =
            (number(place, "score_chosen")?, number(place, "score_rejected")?)
        {
            return Ok(Some(chosen - rejected));
        }
    }
    Ok(None)
}

fn number(fields: &Fields, name: &str) -> Result<Option<f64>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => Err(wrong_type("a number", value).in_field(name)),
        },
    }
}

fn explicit(fields: &Fields) -> Result<Comparison> {
    // Where prompts differ by side, writers of message lists leave `prompt` out.
    if !fields.contains_key("prompt") && fields.get("chosen").is_some_and(Value::is_array) {
        return implicit(fields);
    }
    let (name, prompt) = prompt(fields)?;
    let tools = tools(fields)?;
    let side = |side: &str| {
        let value = messages::required(fields, side)?;
        answer(&prompt, &tools, value).map_err(|error| error.in_field(side))
    };
    let (first, second) = (side("chosen")?, side("rejected")?);
    if first.prompt.messages.is_empty() {
        return Err(ReadError::bad_value("the prompt is empty").in_field(name));
    }
    Ok(labelled(first, second, Preference::First))
}

/// The prompt as messages, and the field it is in.
fn prompt(fields: &Fields) -> Result<(&'static str, Vec<Message>)> {
    let given = |name: &&&str| fields.get(**name).is_some_and(|value| !value.is_null());
    let name = ["prompt", "instruction", "question"].iter().find(given);
    let Some(&name) = name else {
        return Err(ReadError::new(ReadErrorKind::Missing).in_field("prompt"));
    };
    let mut turns = Vec::new();
    if let Some(system) = label_text(fields, "system")?
        && !system.is_empty()
    {
        turns.push(Message::text(Role::System, system));
    }
    match &fields[name] {
        Value::String(prompt) if prompt.starts_with("\n\nHuman:") => {
            let mut all = transcript::parse(prompt).map_err(|error| error.in_field(name))?;
            // A prompt that ends with an empty `Assistant:` asks for the answer.
            all.pop_if(|last| last.role == Role::Assistant && last.plain_text().trim().is_empty());
            turns.extend(all);
        }
        Value::String(prompt) => {
            turns.push(Message::text(Role::User, with_input(fields, name, prompt)?));
        }
        list => turns.extend(messages(list).map_err(|error| error.in_field(name))?),
    }
    Ok((name, turns))
}

/// Instruction data may have the matter of the instruction in a field `input`.
fn with_input(fields: &Fields, name: &str, prompt: &str) -> Result<String> {
    let input = if name == "instruction" { label_text(fields, "input")? } else { None };
    Ok(match input {
        Some(input) if !input.is_empty() => format!("{prompt}\n\n{input}"),
        _ => prompt.to_owned(),
    })
}

fn tools(fields: &Fields) -> Result<Vec<ToolDefinition>> {
    let value = fields.get("tools").unwrap_or(&Value::Null);
    messages::tools(value).map_err(|error| error.in_field("tools"))
}

/// An answer to a prompt: a string, one message, or a list of messages, which may
/// repeat the prompt.
fn answer(prompt: &[Message], tools: &[ToolDefinition], value: &Value) -> Result<Item> {
    let mut turns = prompt.to_vec();
    let response = match value {
        Value::String(response) => response.clone(),
        Value::Object(_) => response_text(&messages::message(value)?)?,
        list => {
            let mut said = messages(list)?;
            let response = last_answer(&mut said)?;
            if said.iter().any(|message| message.role == Role::User) {
                // A whole conversation; its own beginning is the prompt.
                turns = said;
            } else {
                turns.extend(said);
            }
            response
        }
    };
    let prompt = Conversation { messages: turns, tools: tools.to_vec() };
    Ok(Item { prompt, response })
}

/// Takes the answer off the end of a conversation.
fn last_answer(said: &mut Vec<Message>) -> Result<String> {
    match said.pop() {
        Some(last) if last.role == Role::Assistant => response_text(&last),
        Some(_) => Err(ReadError::bad_value("the last message is not the assistant's")),
        None => Err(ReadError::bad_value("the list of messages is empty")),
    }
}

/// The text of an answer; tool calls are written as JSON, one a line.
fn response_text(message: &Message) -> Result<String> {
    if message.role != Role::Assistant {
        return Err(ReadError::bad_value("the answer is not the assistant's"));
    }
    let mut lines = vec![message.plain_text()];
    lines.retain(|line| !line.is_empty());
    for call in &message.tool_calls {
        let name = Value::from(call.name.as_str());
        lines.push(format!("{{\"name\":{name},\"arguments\":{}}}", call.arguments));
    }
    Ok(lines.join("\n"))
}

fn implicit(fields: &Fields) -> Result<Comparison> {
    let names = if fields.contains_key("chosen_messages") {
        ["chosen_messages", "rejected_messages"]
    } else {
        ["chosen", "rejected"]
    };
    let sides = [messages::required(fields, names[0])?, messages::required(fields, names[1])?];
    if let [Value::String(chosen), Value::String(rejected)] = sides {
        return shared_text(chosen, rejected);
    }
    let tools = tools(fields)?;
    let side = |index: usize| {
        let item =
            answer(&[], &tools, sides[index]).map_err(|error| error.in_field(names[index]))?;
        if item.prompt.messages.is_empty() {
            return Err(ReadError::bad_value("there is no prompt").in_field(names[index]));
        }
        Ok(item)
    };
    Ok(labelled(side(0)?, side(1)?, Preference::First))
}

/// Cuts two texts at the end of the last whole word they share.
fn shared_text(chosen: &str, rejected: &str) -> Result<Comparison> {
    let both = chosen.char_indices().zip(rejected.chars());
    let same = both.take_while(|((_, a), b)| a == b);
    let shared = same.last().map_or(0, |((at, c), _)| at + c.len_utf8());
    let cut = chosen[..shared].rfind(char::is_whitespace).unwrap_or(0);
    let prompt = chosen[..cut].trim_end();
    if prompt.is_empty() {
        return Err(ReadError::bad_value(
            "chosen and rejected share no beginning to be the prompt",
        ));
    }
    let item = |text: &str| Item {
        prompt: Conversation::from_user(prompt),
        response: text[prompt.len()..].trim_start().to_owned(),
    };
    Ok(labelled(item(chosen), item(rejected), Preference::First))
}

fn transcripts(fields: &Fields) -> Result<Comparison> {
    let side = |name: &str| {
        let read = |name| {
            let mut turns = transcript::parse(text(fields, name)?)?;
            let response = last_answer(&mut turns)?;
            if turns.is_empty() {
                return Err(ReadError::bad_value("there is no prompt before the answer"));
            }
            let prompt = Conversation { messages: turns, tools: Vec::new() };
            Ok(Item { prompt, response })
        };
        read(name).map_err(
            |error: ReadError| {
                if error.field.is_some() { error } else { error.in_field(name) }
            },
        )
    };
    Ok(labelled(side("chosen")?, side("rejected")?, Preference::First))
}

fn share_gpt(fields: &Fields) -> Result<Comparison> {
    let said = messages::required(fields, "conversations")?;
    let mut turns = messages(said).map_err(|error| error.in_field("conversations"))?;
    if let Some(system) = label_text(fields, "system")?
        && !system.is_empty()
    {
        turns.insert(0, Message::text(Role::System, system));
    }
    if turns.is_empty() {
        return Err(ReadError::bad_value("the prompt is empty").in_field("conversations"));
    }
    let tools = tools(fields)?;
    let side = |name: &str| {
        let value = messages::required(fields, name)?;
        answer(&turns, &tools, value).map_err(|error| error.in_field(name))
    };
    Ok(labelled(side("chosen")?, side("rejected")?, Preference::First))
}
