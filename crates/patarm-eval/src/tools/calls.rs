//! Whether tool calls are right.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Deepest nesting of values that is compared; what lies deeper is never equal.
const MAX_DEPTH: usize = 32;

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Name of the tool.
    pub name: String,
    /// Arguments by name.
    pub arguments: Map<String, Value>,
}

/// A call with the values that each argument may take.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldCall {
    /// Name of the tool.
    pub name: String,
    /// For each argument the values that are right; an empty text among them says that
    /// the argument may be left out.
    pub arguments: Vec<(String, Vec<Value>)>,
}

impl GoldCall {
    /// One right call: the first value of every argument that must be given.
    #[must_use]
    pub fn right_call(&self) -> Call {
        let needed = self.arguments.iter().filter(|(_, allowed)| !may_be_left_out(allowed));
        let arguments = needed
            .filter_map(|(name, allowed)| Some((name.clone(), settled(allowed.first()?, 0))))
            .collect();
        Call { name: self.name.clone(), arguments }
    }
}

/// Whether an argument with these right values may be left out.
#[must_use]
pub fn may_be_left_out(allowed: &[Value]) -> bool {
    allowed.iter().any(|value| value.as_str() == Some(""))
}

/// A right value: objects hold lists of right values, of which the first is taken, and
/// without the keys that may be left out.
fn settled(value: &Value, depth: usize) -> Value {
    match value {
        _ if depth > MAX_DEPTH => Value::Null,
        Value::Array(values) => values.iter().map(|v| settled(v, depth + 1)).collect(),
        Value::Object(fields) => {
            let settled = fields.iter().filter_map(|(name, allowed)| match allowed {
                Value::Array(allowed) if may_be_left_out(allowed) => None,
                Value::Array(allowed) => Some((name.clone(), settled(allowed.first()?, depth + 1))),
                other => Some((name.clone(), other.clone())),
            });
            Value::Object(settled.collect())
        }
        other => other.clone(),
    }
}

/// Whether calls are right: as many as there should be, and each a right call of another
/// gold call, in any order.
///
/// After the rules of the Berkeley Function Calling Leaderboard's AST check
/// (`ShishirPatil/gorilla`, `bfcl_eval/eval_checker/ast_eval`): the name is equal, every
/// argument is known and has a right value, none is missing that must be given. Texts
/// are equal without regard to case, blanks and `,./-_*^`, single and double quotes are
/// the same, and a whole number stands for the equal decimal. The schema's types are not
/// checked; the right values imply them.
#[must_use]
pub fn accepts(gold: &[GoldCall], calls: &[Call]) -> bool {
    if gold.len() != calls.len() {
        return false;
    }
    // Which call each gold call has; augmenting paths find a complete assignment.
    let mut taken: Vec<Option<usize>> = vec![None; calls.len()];
    (0..gold.len()).all(|index| {
        let mut seen = vec![false; calls.len()];
        assign(index, (gold, calls), &mut taken, &mut seen)
    })
}

fn assign(
    index: usize,
    (gold, calls): (&[GoldCall], &[Call]),
    taken: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    for call in 0..calls.len() {
        if seen[call] || !is_right(&gold[index], &calls[call]) {
            continue;
        }
        seen[call] = true;
        let is_free = match taken[call] {
            None => true,
            Some(other) => assign(other, (gold, calls), taken, seen),
        };
        if is_free {
            taken[call] = Some(index);
            return true;
        }
    }
    false
}

fn is_right(gold: &GoldCall, call: &Call) -> bool {
    let allowed = |name: &str| gold.arguments.iter().find(|(other, _)| other == name);
    let all_known = call.arguments.iter().all(|(name, value)| {
        allowed(name).is_some_and(|(_, allowed)| allowed.iter().any(|a| is_equal(a, value, 0)))
    });
    let none_missing = gold
        .arguments
        .iter()
        .all(|(name, allowed)| call.arguments.contains_key(name) || may_be_left_out(allowed));
    gold.name == call.name && all_known && none_missing
}

fn is_equal(gold: &Value, value: &Value, depth: usize) -> bool {
    match (gold, value) {
        _ if depth > MAX_DEPTH => false,
        (Value::String(gold), Value::String(value)) => plain(gold) == plain(value),
        (Value::Number(gold), Value::Number(value)) => gold.as_f64() == value.as_f64(),
        (Value::Array(gold), Value::Array(values)) => {
            let mut both = gold.iter().zip(values);
            gold.len() == values.len() && both.all(|(g, v)| is_equal(g, v, depth + 1))
        }
        (Value::Object(gold), Value::Object(fields)) => is_equal_object(gold, fields, depth),
        (gold, value) => gold == value,
    }
}

/// In a gold object every field is a list of right values.
fn is_equal_object(gold: &Map<String, Value>, fields: &Map<String, Value>, depth: usize) -> bool {
    let is_allowed = |allowed: &Value, value: &Value| match allowed {
        Value::Array(allowed) => allowed.iter().any(|a| is_equal(a, value, depth + 1)),
        other => is_equal(other, value, depth + 1),
    };
    let optional = |allowed: &Value| allowed.as_array().is_some_and(|a| may_be_left_out(a));
    fields.iter().all(|(name, value)| gold.get(name).is_some_and(|a| is_allowed(a, value)))
        && gold.iter().all(|(name, a)| fields.contains_key(name) || optional(a))
}

fn plain(text: &str) -> String {
    let kept = text.chars().filter(|c| !c.is_whitespace() && !",./-_*^".contains(*c));
    kept.map(|c| if c == '\'' { '"' } else { c }).flat_map(char::to_lowercase).collect()
}

/// How close calls come to the right ones, from 0 to 1.
///
/// ToolRM (arXiv 2510.26167): 0 when there are more or fewer calls than right ones or
/// two calls are the same; otherwise the mean over right calls of the best similarity
/// among calls of the same name, similarity being the arguments with equal values over
/// all argument names of either. Two calls without arguments have similarity 1, which
/// the paper leaves open.
#[must_use]
pub fn rule_score(right: &[Call], calls: &[Call]) -> f64 {
    let repeated = calls.iter().enumerate().any(|(i, call)| calls[..i].contains(call));
    if right.is_empty() || right.len() != calls.len() || repeated {
        return 0.0;
    }
    let best = |gold: &Call| {
        let same_name = calls.iter().filter(|call| call.name == gold.name);
        same_name.map(|call| similarity(&gold.arguments, &call.arguments)).fold(0.0, f64::max)
    };
    right.iter().map(best).sum::<f64>() / right.len() as f64
}

fn similarity(one: &Map<String, Value>, other: &Map<String, Value>) -> f64 {
    let equal = one.iter().filter(|(name, value)| other.get(*name) == Some(value)).count();
    let either = one.len() + other.keys().filter(|name| !one.contains_key(*name)).count();
    if either == 0 { 1.0 } else { equal as f64 / either as f64 }
}
