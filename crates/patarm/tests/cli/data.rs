//! `patarm data …` on small files.

use serde_json::{Value, json};

use crate::support::{report, rows, succeed, text, write};

fn pair(prompt: &str, chosen: &str, rejected: &str) -> String {
    format!("{}\n", json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
}

#[test]
fn inspection_counts_and_lists_problems() {
    let folder = tempfile::tempdir().expect("folder");
    let content = [
        pair("one", "a long answer", "short"),
        pair("one", "a long answer", "short"),
        pair("one", "short", "a long answer"),
        pair("two", "same", "same"),
        "{\"prompt\":\"three\",\"chosen\":5,\"rejected\":\"r\"}\n".to_owned(),
    ];
    let file = write(folder.path(), "pairs.jsonl", content.concat());
    let found = report(&["data", "inspect", &file]);
    assert_eq!((&found["format"], &found["rows"]), (&json!("trl"), &json!(5)));
    assert_eq!(found["skipped_rows"], 1);
    assert!(found["problems"][0].as_str().is_some_and(|told| told.contains("line 5")), "{found}");
    let faults = &found["data"]["faults"];
    assert_eq!(faults["duplicates"], 1);
    assert_eq!(faults["conflicting_labels"], 1);
    assert_eq!(faults["identical_sides"], 1);
    let shown = succeed(&["data", "inspect", &file]);
    assert!(shown.contains("4 comparisons") && shown.contains("line 5"), "{shown}");
}

#[test]
fn conversion_there_and_back_loses_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let content = pair("q1", "good", "bad") + &pair("q2", "yes", "no");
    let file = write(folder.path(), "pairs.jsonl", content);
    let mut last = file;
    for to in ["native", "messages", "patarm-rows", "trl"] {
        let out = text(&folder.path().join(format!("{to}.jsonl")));
        let written = report(&["data", "convert", &last, "--to", to, "--out", &out]);
        assert_eq!((&written["comparisons"], &written["left_out"]), (&json!(2), &json!(0)));
        last = out;
    }
    let result = rows(&std::fs::read_to_string(last).expect("output"));
    let seen: Vec<[&Value; 3]> =
        result.iter().map(|row| [&row["prompt"], &row["chosen"], &row["rejected"]]).collect();
    assert_eq!(seen, [["q1", "good", "bad"], ["q2", "yes", "no"]]);
}

#[test]
fn mixtures_follow_their_recipe_and_seed() {
    let folder = tempfile::tempdir().expect("folder");
    let many: String = (0..20).map(|n| pair(&format!("m{n}"), "c", "r")).collect();
    write(folder.path(), "many.jsonl", many);
    write(folder.path(), "few.jsonl", pair("f", "c", "r"));
    let recipe = "version = 1\nseed = 7\n[[source]]\npath = \"many.jsonl\"\ncount = 4\n\
                  [[source]]\npath = \"few.jsonl\"\n";
    let recipe = write(folder.path(), "mix.toml", recipe);
    let mixed = |name: &str| {
        let out = text(&folder.path().join(name));
        let written = report(&["data", "mix", &recipe, "--out", &out]);
        assert_eq!(written["comparisons"], 5);
        assert_eq!(written["sources"][0]["taken"], 4);
        std::fs::read_to_string(out).expect("output")
    };
    assert_eq!(mixed("first.jsonl"), mixed("second.jsonl"));
}

#[test]
fn overlapping_comparisons_are_removed() {
    let folder = tempfile::tempdir().expect("folder");
    let content = pair("What is the capital of France?", "Paris", "Rome") + &pair("Why?", "c", "r");
    let file = write(folder.path(), "train.jsonl", content);
    let test = pair("what is the capital of FRANCE", "Paris.", "Lyon");
    let test = write(folder.path(), "test.jsonl", test);
    let out = text(&folder.path().join("clean.jsonl"));
    let found = report(&["data", "decontaminate", &file, "--against", &test, "--out", &out]);
    assert_eq!((&found["result"]["checked"], &found["result"]["kept"]), (&json!(2), &json!(1)));
    assert_eq!(rows(&std::fs::read_to_string(out).expect("output")).len(), 1);
}
