//! Pairs of tool calls whose label a rule has checked.
//!
//! [`bfcl`] reads function-calling tasks with the values each argument may take,
//! [`mod@perturb`] damages a right call in a named way, [`calls`] decides whether a call is
//! right, and [`build_pairs`] keeps those pairs of which the one side is accepted and the
//! other refused. [`crate::benchmarks::tool_pairs`] measures judges on such pairs.

pub mod bfcl;
pub mod calls;
pub mod perturb;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use patarm_text::{Comparison, Item, Preference};
use serde::{Deserialize, Serialize};

use crate::random;
use bfcl::ToolTask;
use calls::{Call, accepts, rule_score};
use perturb::{Draws, Pool, ToolError, perturb};

/// Draws tried before a damage is given up for a task.
const ATTEMPTS: u64 = 8;

/// How pairs are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildOptions {
    /// Most pairs of one task, each with another kind of error.
    pub per_task: usize,
    /// Seed of every draw.
    pub seed: u64,
}

/// What became of the tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildReport {
    /// Tasks given.
    pub num_tasks: usize,
    /// Tasks whose own right call the rule refuses; they give no pair.
    pub num_gold_refused: usize,
    /// Pairs made, by kind of error.
    pub made: BTreeMap<String, usize>,
    /// Tries that gave nothing, by kind of error: the task has no place for it, or the
    /// rule accepted the damaged call.
    pub given_up: BTreeMap<String, usize>,
}

/// Pairs of a right call and the same call with one error, every label checked by
/// [`accepts`].
///
/// The kinds of error are tried in an order drawn for each task, the place of the right
/// side is drawn for each pair, so that neither kind nor place follows the data. The id
/// is `TASK/KIND`, the subset is the task's category, the strength is the difference of
/// [`rule_score`]s. The same tasks and seed give the same pairs.
#[must_use]
pub fn build_pairs(tasks: &[ToolTask], options: BuildOptions) -> (Vec<Comparison>, BuildReport) {
    let pool = Pool::of(tasks);
    let mut report = BuildReport { num_tasks: tasks.len(), ..BuildReport::default() };
    let mut pairs = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        if !accepts(&task.gold, &task.right_calls()) {
            report.num_gold_refused += 1;
            continue;
        }
        let seed = random::draw(options.seed, index as u64);
        let mut made = 0;
        for kind in shuffled_kinds(seed) {
            if made == options.per_task {
                break;
            }
            let name = kind.name().to_owned();
            match damaged(task, kind, &pool, seed) {
                Some(calls) => {
                    pairs.push(pair(task, kind, &calls, seed));
                    *report.made.entry(name).or_default() += 1;
                    made += 1;
                }
                None => *report.given_up.entry(name).or_default() += 1,
            }
        }
    }
    (pairs, report)
}

/// Every kind of error, in an order that the seed draws.
fn shuffled_kinds(seed: u64) -> Vec<ToolError> {
    let mut kinds = ToolError::ALL.to_vec();
    random::shuffle(&mut kinds, seed);
    kinds
}

/// A damaged call that the rule refuses.
fn damaged(task: &ToolTask, kind: ToolError, pool: &Pool, seed: u64) -> Option<Vec<Call>> {
    (0..ATTEMPTS).find_map(|attempt| {
        let seed = random::draw(seed ^ random::text_number(kind.name()), attempt);
        let calls = perturb(kind, task, pool, &mut Draws::new(seed))?;
        (!accepts(&task.gold, &calls)).then_some(calls)
    })
}

fn pair(task: &ToolTask, kind: ToolError, wrong: &[Call], seed: u64) -> Comparison {
    let right = task.right_calls();
    let item = |calls: &[Call]| Item { prompt: task.prompt.clone(), response: shown(calls) };
    let id = format!("{}/{}", task.id, kind.name());
    let strength = 1.0 - rule_score(&right, wrong);
    let comparison = Comparison {
        first: item(&right),
        second: item(wrong),
        label: Preference::First,
        strength: Some(strength),
        task: None,
        subset: Some(task.category.clone()),
        id,
    };
    let is_swapped = random::draw(seed, random::text_number(kind.name())) & 1 == 1;
    if is_swapped { comparison.swap() } else { comparison }
}

/// Calls as a response: a JSON list of `{"name", "arguments"}`.
#[must_use]
pub fn shown(calls: &[Call]) -> String {
    serde_json::to_string(calls).unwrap_or_default()
}
