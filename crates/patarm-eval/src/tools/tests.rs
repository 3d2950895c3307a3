//! Tool calls: the rule, the damage, and pairs from files.

use std::{collections::BTreeSet, fs, path::PathBuf};

use patarm_text::Preference;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    BuildOptions,
    bfcl::{ToolData, read},
    build_pairs,
    calls::{Call, GoldCall, accepts, rule_score},
    perturb::{Draws, Pool, ToolError, perturb},
    shown,
};

fn call(name: &str, arguments: &Value) -> Call {
    Call { name: name.to_owned(), arguments: arguments.as_object().expect("an object").clone() }
}

fn gold(name: &str, arguments: &Value) -> GoldCall {
    let arguments = arguments.as_object().expect("an object").iter();
    let arguments = arguments
        .map(|(name, allowed)| (name.clone(), allowed.as_array().expect("a list").clone()));
    GoldCall { name: name.to_owned(), arguments: arguments.collect() }
}

#[track_caller]
fn check(arguments: &Value, expected: bool) {
    let gold =
        gold("f", &json!({ "city": ["New York, NY", "NYC"], "days": [3], "unit": ["", "C"] }));
    assert_eq!(accepts(&[gold], &[call("f", arguments)]), expected, "{arguments}");
}

#[test]
fn calls_are_judged_argument_by_argument() {
    check(&json!({ "city": "NYC", "days": 3 }), true);
    check(&json!({ "city": "new york NY", "days": 3.0, "unit": "c" }), true);
    check(&json!({ "city": "Boston", "days": 3 }), false);
    check(&json!({ "city": "NYC", "days": "3" }), false);
    check(&json!({ "city": "NYC" }), false);
    check(&json!({ "city": "NYC", "days": 3, "unit": "F" }), false);
    check(&json!({ "city": "NYC", "days": 3, "other": 1 }), false);
}

#[test]
fn nested_values_follow_their_own_lists() {
    let gold = gold("f", &json!({ "o": [{ "a": [1, 2], "b": ["", "x"] }], "l": [["p", "q"]] }));
    let accepted = |o: Value, l: Value| {
        accepts(std::slice::from_ref(&gold), &[call("f", &json!({ "o": o, "l": l }))])
    };
    assert!(accepted(json!({ "a": 2 }), json!(["p", "q"])));
    assert!(accepted(json!({ "a": 1, "b": "X" }), json!(["P", "q"])));
    assert!(!accepted(json!({ "b": "x" }), json!(["p", "q"])));
    assert!(!accepted(json!({ "a": 3 }), json!(["p", "q"])));
    assert!(!accepted(json!({ "a": 1, "c": 1 }), json!(["p", "q"])));
    assert!(!accepted(json!({ "a": 1 }), json!(["q", "p"])));
    assert_eq!(gold.right_call(), call("f", &json!({ "o": { "a": 1 }, "l": ["p", "q"] })));
}

/// Gold calls that overlap must be assigned, not taken in order.
#[test]
fn parallel_calls_come_in_any_order() {
    let (wide, narrow) = (gold("f", &json!({ "x": [1, 2] })), gold("f", &json!({ "x": [1] })));
    let (one, two) = (call("f", &json!({ "x": 1 })), call("f", &json!({ "x": 2 })));
    let both = [wide, narrow];
    assert!(accepts(&both, &[one.clone(), two.clone()]));
    assert!(accepts(&both, &[two.clone(), one.clone()]));
    assert!(!accepts(&both, &[two.clone(), two]));
    assert!(!accepts(&both, &[one]));
    assert!(accepts(&[], &[]));
}

#[test]
fn rule_scores_of_known_cases() {
    let right = [call("f", &json!({ "a": 1, "b": 2 })), call("g", &json!({}))];
    assert_eq!(rule_score(&right, &right), 1.0);
    let half = [call("f", &json!({ "a": 1, "b": 3 })), call("g", &json!({}))];
    assert_eq!(rule_score(&right, &half), 0.75);
    let extra = [call("f", &json!({ "a": 1, "b": 2, "c": 3 })), call("h", &json!({}))];
    assert!((rule_score(&right, &extra) - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!(rule_score(&right, &right[..1]), 0.0);
    let repeated = [right[1].clone(), right[1].clone()];
    assert_eq!(rule_score(&right, &repeated), 0.0);
    assert_eq!(rule_score(&[], &[]), 0.0);
}

const TASKS: &str = r#"{"id": "simple_0", "question": [[{"role": "user", "content": "Area of a triangle?"}]], "function": [{"name": "area", "description": "d", "parameters": {"type": "dict", "properties": {"base": {"type": "integer"}, "height": {"type": "float"}, "unit": {"type": "string", "enum": ["cm", "m"]}}, "required": ["base", "height"]}}]}
{"id": "multiple_1", "question": [[{"role": "system", "content": "s"}, {"role": "user", "content": "Weather?"}]], "function": [{"name": "weather", "parameters": {"type": "dict", "properties": {"city": {"type": "string"}}}}, {"name": "news", "parameters": {"type": "dict", "properties": {"city": {"type": "string"}}}}]}
{"id": "parallel_2-0-1", "question": [[{"role": "user", "content": "Both?"}]], "function": [{"name": "weather", "parameters": {"type": "dict", "properties": {"city": {"type": "string"}, "days": {"type": "tuple"}}}}]}
{"id": "irrelevance_0", "question": [[{"role": "user", "content": "?"}]], "function": []}
{"id": "multi_turn_base_0", "question": [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]]}
{"id": "simple_0", "question": [[{"role": "user", "content": "again"}]], "function": []}
{"id": "broken", "question": "text"}
{"id": 1}
"#;

const ANSWERS: &str = r#"{"id": "simple_0", "ground_truth": [{"area": {"base": [10], "height": [5.5], "unit": ["cm", ""]}}]}
{"id": "multiple_1", "ground_truth": [{"weather": {"city": ["Paris", "Paris, France"]}}]}
{"id": "parallel_2-0-1", "ground_truth": [{"weather": {"city": ["Rome"], "days": [[1, 2]]}}, {"weather": {"city": ["Oslo"], "days": [[3]]}}]}
{"id": "multi_turn_base_0", "ground_truth": [["cd(folder='x')"]]}
"#;

fn data() -> ToolData {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(dir.path().join("possible_answer")).expect("made");
    fs::write(dir.path().join("tasks.json"), TASKS).expect("written");
    fs::write(dir.path().join("possible_answer/tasks.json"), ANSWERS).expect("written");
    read(&[PathBuf::from(dir.path())]).expect("readable")
}

#[test]
fn tasks_and_answers_are_joined() {
    let ToolData { tasks, report, unused } = data();
    let ids: Vec<(&str, &str)> =
        tasks.iter().map(|t| (t.id.as_str(), t.category.as_str())).collect();
    assert_eq!(
        ids,
        [("simple_0", "simple"), ("multiple_1", "multiple"), ("parallel_2-0-1", "parallel")]
    );
    assert_eq!((unused.without_answer, unused.multi_turn), (1, 1));
    assert_eq!((report.num_duplicates, report.num_malformed), (1, 2), "{:?}", report.problems);
    let parameters: Value =
        serde_json::from_str(&tasks[0].prompt.tools[0].parameters).expect("a schema");
    assert_eq!(parameters["type"], "object");
    assert_eq!(parameters["properties"]["height"]["type"], "number");
    assert_eq!(
        shown(&tasks[0].right_calls()),
        r#"[{"name":"area","arguments":{"base":10,"height":5.5}}]"#
    );
}

#[test]
fn every_pair_is_checked_and_one_error_apart() {
    let tasks = data().tasks;
    let options = BuildOptions { per_task: 6, seed: 4 };
    let (pairs, report) = build_pairs(&tasks, options);
    assert_eq!(build_pairs(&tasks, options).0, pairs, "the same seed gives the same pairs");
    assert_ne!(build_pairs(&tasks, BuildOptions { seed: 5, ..options }).0, pairs);
    let kinds: BTreeSet<&String> = report.made.keys().collect();
    assert_eq!(kinds.len(), ToolError::ALL.len(), "{report:?}");
    assert_eq!(report.made["wrong_function"], 1, "only one task has two tools");
    assert_eq!(report.made["missing_call"], 1, "only one task has two calls");
    let ids: BTreeSet<&str> = pairs.iter().map(|p| p.id.as_str()).collect();
    assert_eq!(ids.len(), pairs.len());
    for pair in &pairs {
        let (chosen, rejected) = pair.chosen_rejected().expect("labelled");
        let task = tasks.iter().find(|t| pair.id.starts_with(&t.id)).expect("of a task");
        let parse = |text: &str| -> Vec<Call> { serde_json::from_str(text).expect("calls") };
        assert!(accepts(&task.gold, &parse(&chosen.response)), "{}", pair.id);
        assert!(!accepts(&task.gold, &parse(&rejected.response)), "{}", pair.id);
        assert!(pair.strength.is_some_and(|s| 0.0 < s && s <= 1.0), "{pair:?}");
        assert_eq!(pair.subset.as_ref(), Some(&task.category));
    }
    let first = pairs.iter().filter(|p| p.label == Preference::First).count();
    assert!(0 < first && first < pairs.len(), "both places occur");
    let (few, _) = build_pairs(&tasks, BuildOptions { per_task: 1, seed: 4 });
    assert_eq!(few.len(), tasks.len());
    assert!(build_pairs(&[], options).0.is_empty());
}

/// A right value that lists itself twice under another spelling must not become a wrong one.
#[test]
fn accepted_damage_is_given_up() {
    let mut tasks = data().tasks;
    tasks.truncate(1);
    tasks[0].gold[0].arguments = vec![("unit".to_owned(), vec![json!("cm"), json!("m")])];
    let (pairs, report) = build_pairs(&tasks, BuildOptions { per_task: 6, seed: 0 });
    assert_eq!(report.given_up["wrong_value"], 1, "the only other unit is right too");
    assert!(pairs.iter().all(|pair| !pair.id.ends_with("/wrong_value")));
}

proptest! {
    /// Whatever is drawn, the damage is in one call and never panics.
    #[test]
    fn damage_is_local(seed in any::<u64>(), kind in prop::sample::select(ToolError::ALL.to_vec())) {
        let tasks = data().tasks;
        let pool = Pool::of(&tasks);
        for task in &tasks {
            let Some(calls) = perturb(kind, task, &pool, &mut Draws::new(seed)) else { continue };
            let right = task.right_calls();
            let expected = match kind {
                ToolError::MissingCall => right.len() - 1,
                ToolError::RepeatedCall => right.len() + 1,
                _ => right.len(),
            };
            prop_assert_eq!(calls.len(), expected);
            if calls.len() == right.len() {
                let touched = calls.iter().zip(&right).filter(|(a, b)| a != b).count();
                prop_assert_eq!(touched, 1);
            }
        }
    }
}
