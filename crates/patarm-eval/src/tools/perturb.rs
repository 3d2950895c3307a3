//! Damaging a right call in one named way.

use std::collections::BTreeMap;

use serde_json::{Number, Value, json};

use super::{
    bfcl::{Function, ToolTask},
    calls::{Call, GoldCall, may_be_left_out},
};
use crate::random;

/// Deepest nesting in which a value is edited.
const MAX_DEPTH: usize = 16;

/// Most values that the pool keeps of a parameter.
const MAX_POOLED: usize = 256;

/// One way in which a call can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ToolError {
    /// Another tool of the task is called with the same arguments.
    WrongFunction,
    /// One argument has another value of its kind.
    WrongValue,
    /// An argument that must be given is missing.
    MissingArgument,
    /// An argument is given that the tool does not have.
    ExtraArgument,
    /// One of several calls is missing.
    MissingCall,
    /// A call is made twice.
    RepeatedCall,
}

impl ToolError {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::WrongFunction,
        Self::WrongValue,
        Self::MissingArgument,
        Self::ExtraArgument,
        Self::MissingCall,
        Self::RepeatedCall,
    ];

    /// The name used in ids and figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WrongFunction => "wrong_function",
            Self::WrongValue => "wrong_value",
            Self::MissingArgument => "missing_argument",
            Self::ExtraArgument => "extra_argument",
            Self::MissingCall => "missing_call",
            Self::RepeatedCall => "repeated_call",
        }
    }
}

/// A stream of draws.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    seed: u64,
    counter: u64,
}

impl Draws {
    /// The stream that a seed names.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, counter: 0 }
    }

    /// A place in a list of so many; `None` when it is empty.
    fn place(&mut self, count: usize) -> Option<usize> {
        self.counter += 1;
        (count > 0).then(|| random::below(count, self.seed, self.counter))
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        self.place(list.len()).map(|place| &list[place])
    }
}

/// Right values of all tasks by parameter name, from which wrong ones are taken, so that
/// a wrong value looks like a right one.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    by_parameter: BTreeMap<String, Vec<Value>>,
}

impl Pool {
    /// The values of these tasks.
    #[must_use]
    pub fn of(tasks: &[ToolTask]) -> Self {
        let mut pool = Self::default();
        for call in tasks.iter().flat_map(|task| &task.gold).map(GoldCall::right_call) {
            for (name, value) in call.arguments {
                let values = pool.by_parameter.entry(name).or_default();
                if values.len() < MAX_POOLED && !values.contains(&value) {
                    values.push(value);
                }
            }
        }
        pool
    }

    /// Another text that stands for a parameter of this name somewhere.
    fn other_text(&self, name: &str, text: &str, draws: &mut Draws) -> Option<String> {
        let values = self.by_parameter.get(name)?;
        let others: Vec<&str> =
            values.iter().filter_map(Value::as_str).filter(|other| *other != text).collect();
        draws.pick(&others).map(|other| (*other).to_owned())
    }

    /// A parameter that a function does not have, with a value it has elsewhere.
    fn foreign(&self, function: Option<&Function>, draws: &mut Draws) -> Option<(String, Value)> {
        let knows = |name: &str| function.is_some_and(|f| f.parameters.contains_key(name));
        let foreign: Vec<(&String, &Vec<Value>)> =
            self.by_parameter.iter().filter(|(name, _)| !knows(name)).collect();
        let (name, values) = draws.pick(&foreign)?;
        Some(((*name).clone(), draws.pick(values)?.clone()))
    }
}

/// The task's right calls with one error of a kind; `None` where it has no place for it.
#[must_use]
pub fn perturb(
    kind: ToolError,
    task: &ToolTask,
    pool: &Pool,
    draws: &mut Draws,
) -> Option<Vec<Call>> {
    let mut calls = task.right_calls();
    let at = draws.place(calls.len())?;
    match kind {
        ToolError::WrongFunction => {
            let own = calls[at].name.clone();
            let others: Vec<&Function> = task.functions.iter().filter(|f| f.name != own).collect();
            calls[at].name.clone_from(&draws.pick(&others)?.name);
        }
        ToolError::WrongValue => edit_argument(&mut calls[at], task, pool, draws)?,
        ToolError::MissingArgument => {
            let needed: Vec<&String> = task.gold[at]
                .arguments
                .iter()
                .filter(|(_, allowed)| !may_be_left_out(allowed))
                .map(|(name, _)| name)
                .collect();
            calls[at].arguments.remove(*draws.pick(&needed)?)?;
        }
        ToolError::ExtraArgument => {
            let function = task.functions.iter().find(|f| f.name == calls[at].name);
            let (name, value) = pool.foreign(function, draws)?;
            calls[at].arguments.insert(name, value);
        }
        ToolError::MissingCall => {
            if calls.len() < 2 {
                return None;
            }
            calls.remove(at);
        }
        ToolError::RepeatedCall => calls.insert(at, calls[at].clone()),
    }
    Some(calls)
}

fn edit_argument(call: &mut Call, task: &ToolTask, pool: &Pool, draws: &mut Draws) -> Option<()> {
    let names: Vec<String> = call.arguments.keys().cloned().collect();
    let name = draws.pick(&names)?;
    let function = task.functions.iter().find(|f| f.name == call.name);
    let schema = function.and_then(|f| f.parameters.get(name));
    let edited = Edit { name, schema, pool }.edited(&call.arguments[name], 0, draws)?;
    call.arguments.insert(name.clone(), edited);
    Some(())
}

/// What is known of the argument whose value is edited.
struct Edit<'a> {
    name: &'a str,
    schema: Option<&'a Value>,
    pool: &'a Pool,
}

impl Edit<'_> {
    /// Another value of the same kind.
    fn edited(&self, value: &Value, depth: usize, draws: &mut Draws) -> Option<Value> {
        match value {
            _ if depth > MAX_DEPTH => None,
            Value::Null => None,
            Value::Bool(value) => Some(json!(!value)),
            Value::Number(number) => other_number(number, draws),
            Value::String(text) => Some(Value::String(self.other_text(text, draws)?)),
            Value::Array(values) => {
                let at = draws.place(values.len())?;
                let mut values = values.clone();
                if values.len() > 1 && draws.place(3) == Some(0) {
                    values.remove(at);
                } else {
                    values[at] = self.edited(&values[at], depth + 1, draws)?;
                }
                Some(Value::Array(values))
            }
            Value::Object(fields) => {
                let names: Vec<String> = fields.keys().cloned().collect();
                let name = draws.pick(&names)?;
                let mut fields = fields.clone();
                let inner = Edit { name, schema: None, pool: self.pool };
                let edited = inner.edited(&fields[name], depth + 1, draws)?;
                fields.insert(name.clone(), edited);
                Some(Value::Object(fields))
            }
        }
    }

    /// Another word of the schema's list, else what stands for a parameter of this name
    /// elsewhere, else the text without one of its words, else with a letter doubled.
    fn other_text(&self, text: &str, draws: &mut Draws) -> Option<String> {
        let listed = self.schema.and_then(|s| s.get("enum")).and_then(Value::as_array);
        let listed: Vec<&str> = listed
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|word| *word != text)
            .collect();
        if let Some(word) = draws.pick(&listed) {
            return Some((*word).to_owned());
        }
        if let Some(other) = self.pool.other_text(self.name, text, draws) {
            return Some(other);
        }
        let mut words: Vec<&str> = text.split(' ').collect();
        if words.len() > 1 {
            words.remove(draws.place(words.len())?);
            return Some(words.join(" "));
        }
        let letters: Vec<(usize, char)> =
            text.char_indices().filter(|(_, c)| c.is_alphanumeric()).collect();
        let (at, letter) = draws.pick(&letters)?;
        let mut doubled = text.to_owned();
        doubled.insert(*at, *letter);
        Some(doubled)
    }
}

fn other_number(number: &Number, draws: &mut Draws) -> Option<Value> {
    if let Some(whole) = number.as_i64() {
        let others = [
            whole.checked_add(1),
            whole.checked_sub(1),
            whole.checked_mul(10),
            whole.checked_neg(),
        ];
        let others: Vec<i64> = others.into_iter().flatten().filter(|n| *n != whole).collect();
        return draws.pick(&others).map(|n| json!(n));
    }
    let value = number.as_f64()?;
    let others = [value + 1.0, value * 10.0, value / 2.0, -value];
    let others: Vec<f64> = others.into_iter().filter(|n| *n != value && n.is_finite()).collect();
    draws.pick(&others).map(|n| json!(n))
}
