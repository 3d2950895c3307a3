//! PaTaRM's two-row records: one row judges one response of a pair.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::error::{ReadError, ReadErrorKind};
use super::messages::{messages, required, text, wrong_type};
use super::rows::Row;
use crate::comparison::{Comparison, Item, Preference, Task};
use crate::conversation::Conversation;

/// Pairs that may wait for their second row.
const MAX_OPEN: usize = 1 << 18;

/// Rows whose other half has not come yet.
#[derive(Debug, Default)]
pub(super) struct HalfPairs {
    open: HashMap<String, Half>,
    /// What is left at the end of the file, by line.
    unpaired: Option<BTreeMap<u64, String>>,
}

#[derive(Debug)]
struct Half {
    line: u64,
    side: u8,
    preferred_side: u8,
    item: Item,
    task: Option<Task>,
}

impl HalfPairs {
    /// Takes a row; gives the comparison when it completes one.
    pub(super) fn add(&mut self, row: Row) -> Result<Option<Comparison>, ReadError> {
        let line = row.line;
        let Value::Object(fields) = row.value else {
            return Err(wrong_type("an object", &row.value));
        };
        let pair_id = text(&fields, "pair_id")?.to_owned();
        let half = half(line, &fields)?;
        let Some(other) = self.open.remove(&pair_id) else {
            if self.open.len() >= MAX_OPEN {
                let kind = ReadErrorKind::TooManyUnpaired { limit: MAX_OPEN };
                return Err(ReadError::new(kind));
            }
            self.open.insert(pair_id, half);
            return Ok(None);
        };
        join(pair_id, other, half).map(Some)
    }

    /// At the end of the file: one error for each row that found no other half.
    pub(super) fn take_unpaired(&mut self) -> Option<ReadError> {
        let open = &mut self.open;
        let unpaired = self.unpaired.get_or_insert_with(|| {
            open.drain().map(|(pair_id, half)| (half.line, pair_id)).collect()
        });
        let (line, pair_id) = unpaired.pop_first()?;
        Some(ReadError::new(ReadErrorKind::Unpaired { pair_id }).on_line(line))
    }
}

fn half(line: u64, fields: &Map<String, Value>) -> Result<Half, ReadError> {
    let prompt = match required(fields, "prompt")? {
        Value::String(prompt) => Conversation::from_user(prompt.as_str()),
        list => {
            let messages = messages(list).map_err(|error| error.in_field("prompt"))?;
            Conversation { messages, tools: Vec::new() }
        }
    };
    let response = text(fields, "response")?.to_owned();
    let task = match fields.get("task") {
        None | Some(Value::Null) => None,
        Some(_) => Some(task(text(fields, "task")?)?),
    };
    Ok(Half {
        line,
        side: side(fields, "side")?,
        preferred_side: side(fields, "preferred_side")?,
        item: Item { prompt, response },
        task,
    })
}

fn task(name: &str) -> Result<Task, ReadError> {
    let known = Task::ALL.into_iter().find(|task| task.name() == name);
    known.ok_or_else(|| ReadError::bad_value(format!("unknown task {name:?}")).in_field("task"))
}

fn side(fields: &Map<String, Value>, name: &str) -> Result<u8, ReadError> {
    match required(fields, name)?.as_u64() {
        Some(0) => Ok(0),
        Some(1) => Ok(1),
        _ => {
            let problem = format!("{} is neither 0 nor 1", fields[name]);
            Err(ReadError::bad_value(problem).in_field(name))
        }
    }
}

fn join(id: String, a: Half, b: Half) -> Result<Comparison, ReadError> {
    if a.side == b.side {
        let problem = format!("both rows of pair {id:?} are side {}", a.side);
        return Err(ReadError::bad_value(problem).in_field("side"));
    }
    if a.preferred_side != b.preferred_side {
        let problem = format!("the rows of pair {id:?} disagree");
        return Err(ReadError::bad_value(problem).in_field("preferred_side"));
    }
    let label = if a.preferred_side == 0 { Preference::First } else { Preference::Second };
    let task = a.task.or(b.task);
    let (first, second) = if a.side == 0 { (a.item, b.item) } else { (b.item, a.item) };
    Ok(Comparison { id, first, second, label, strength: None, task, subset: None })
}
