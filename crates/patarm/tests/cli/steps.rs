//! Process reward models from data to scores, on tiny files and a tiny random model.

use serde_json::{Value, json};

use crate::serve::served_scores;
use crate::support::{fail, report, rows, succeed, text, write};
use crate::training::tiny_judge;

fn read(path: &str) -> Vec<Value> {
    rows(&std::fs::read_to_string(path).expect("file"))
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// Solutions of two steps, the second right in every other one.
fn labelled(count: usize) -> String {
    let row = |n: usize| {
        let (second, label) = if n.is_multiple_of(2) { ("adds", 1) } else { ("sings", 0) };
        json!({
            "id": format!("s{n}"), "prompt": format!("q{n}"),
            "steps": [format!("adds {n}"), second], "labels": [1, label],
        })
    };
    lines(&(0..count).map(row).collect::<Vec<_>>())
}

const RECIPE: &str = r#"
version = 1
model = "MODEL"
[data]
train = "steps.jsonl"
held_out_share = 0.4
[process_reward]
schedule = { steps = 3, batch = 4 }
[evaluation]
every = 2
[checkpoint]
every = 1
"#;

#[test]
fn a_step_model_trains_resumes_scores_and_is_measured() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| text(&folder.path().join(name));
    let model = tiny_judge(folder.path());
    let steps = write(folder.path(), "steps.jsonl", labelled(20));
    let recipe = write(folder.path(), "recipe.toml", RECIPE.replace("MODEL", &model));
    let foreseen = report(&["train", &recipe, "--out", &at("run"), "--dry-run"]);
    assert!(foreseen["labelled_steps"].as_u64().is_some_and(|steps| steps > 4), "{foreseen}");
    let trained = report(&["train", &recipe, "--out", &at("run")]);
    assert!(trained["result"]["auc"]["value"].is_number(), "{trained}");
    succeed(&["train", &recipe, "--resume", &at("run")]);
    assert!(folder.path().join("run/held_out_steps.json").exists());
    let kept = read(&at("run/samples/trained.jsonl"));
    assert_eq!(kept[0]["parts"].as_array().map(Vec::len), Some(2), "values for the report");
    let config: Value = serde_json::from_slice(
        &std::fs::read(at("run/checkpoints/final/config.json")).expect("file"),
    )
    .expect("json");
    assert_eq!(config["architectures"][0], "LlamaForTokenClassification");
    assert_eq!(config["num_labels"], 2);

    let run = at("run");
    let response = json!({ "id": "r", "prompt": "q1", "response": "adds 1\n\nsings" });
    let items = write(folder.path(), "items.jsonl", lines(&[response]));
    succeed(&["score", "--model", &run, "--input", &items, "--out", &at("items.out")]);
    let scored = read(&at("items.out")).remove(0);
    assert_eq!(scored["spans"], json!([[0, 6], [8, 13]]));
    let of_response = scored["steps"].as_array().expect("steps").clone();
    let served = served_scores(&run, &[json!({ "prompt": "q1", "response": "adds 1\n\nsings" })]);
    assert_eq!(served[0]["score"], scored["score"], "the same, to the last bit");
    let spans = json!([
        { "start": 0, "end": 6, "value": of_response[0] },
        { "start": 8, "end": 13, "value": of_response[1] },
    ]);
    assert_eq!(served[0]["steps"], spans);
    succeed(&["score", "--steps", "--model", &run, "--input", &steps, "--out", &at("steps.out")]);
    let by_steps = read(&at("steps.out"));
    assert_eq!(by_steps.len(), 20);
    assert_eq!(by_steps[1]["steps"].as_array(), Some(&of_response), "the same, however given");
    fail(
        4,
        &["gives no number for a step"],
        &["score", "--steps", "--model", &model, "--input", &steps, "--out", &at("none.out")],
    );

    let mistakes = [
        json!({ "input": "q1", "steps": ["adds 1", "sings\n\nloud"], "mistake_index": 1, "target": "1", "answer": "2" }),
        json!({ "input": "q2", "steps": ["adds 1", ""], "mistake_index": null, "target": "1", "answer": "1" }),
    ];
    let data = write(folder.path(), "word_sorting.jsonl", lines(&mistakes));
    let measured = report(&[
        "eval",
        "bigbench-mistake",
        "--data",
        &data,
        "--model",
        &run,
        "--out",
        &at("bbm"),
    ]);
    let counts = &measured["result"]["counts"];
    assert_eq!((&counts["items"], &counts["steps"]), (&json!(2), &json!(4)), "{measured}");
    let faults = counts.as_object().expect("counts").keys().filter(|key| key.contains("fault"));
    assert_eq!(faults.count(), 0, "an empty line inside a step parts nothing: {measured}");

    let choices = json!({
        "prompt": "q1", "responses": ["adds 1\n\nadds", "sings\n\nsings"], "correct": [true, false],
    });
    let data = write(folder.path(), "choices.jsonl", lines(&[choices]));
    let measured =
        report(&["eval", "best-of-n", "--data", &data, "--model", &run, "--out", &at("bon")]);
    let figure = &measured["result"]["metrics"]["correctness.all.end_score"]["value"];
    assert!(figure.is_number(), "{measured}");
}

#[test]
fn an_adapter_keeps_and_merges_the_step_head() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| text(&folder.path().join(name));
    let model = tiny_judge(folder.path());
    let steps = write(folder.path(), "steps.jsonl", labelled(12));
    let recipe = write(folder.path(), "recipe.toml", RECIPE.replace("MODEL", &model));
    let change = "parameters.lora={ rank = 2, alpha = 4.0 }";
    succeed(&["train", &recipe, "--out", &at("run"), "--set", change]);
    succeed(&["score", "--steps", "--model", &at("run"), "--input", &steps, "--out", &at("a")]);
    succeed(&["model", "merge", &at("run/checkpoints/final"), "--out", &at("merged")]);
    succeed(&["score", "--steps", "--model", &at("merged"), "--input", &steps, "--out", &at("b")]);
    for (adapter, merged) in read(&at("a")).iter().zip(read(&at("b"))) {
        let value = |row: &Value, step: usize| row["steps"][step].as_f64().expect("a number");
        for step in 0..2 {
            let difference = (value(adapter, step) - value(&merged, step)).abs();
            assert!(difference < 1e-3, "{adapter} {merged}");
        }
    }
    let bare = at("run/checkpoints/final/reward.json");
    let told = std::fs::read_to_string(&bare).expect("file");
    assert!(told.contains("\"step\""), "{told}");
}

#[test]
fn steps_are_read_from_the_data_people_have() {
    let folder = tempfile::tempdir().expect("folder");
    let out = text(&folder.path().join("out.jsonl"));
    let of = |name: &str, from: &str, content: String| {
        let file = write(folder.path(), name, content);
        let told = report(&["data", "steps", &file, "--from", from, "--out", &out]);
        (told, read(&out))
    };
    let pair = json!({ "prompt": "p", "chosen": "a\nb\nA: 3", "rejected": "a\nA: 4" });
    let (told, found) = of("pairs.jsonl", "pairs", lines(&[pair]));
    assert_eq!(
        (&told["solutions"], &told["right"], &told["wrong"]),
        (&json!(2), &json!(3), &json!(1))
    );
    assert_eq!(found[0]["labels"], json!([1.0, 1.0, 1.0]));
    assert_eq!(found[1]["labels"], json!([null, 0.0]));
    assert_eq!(found[1]["trajectory"], 0.0);
    let mistake = json!({ "input": "p", "steps": ["a", "b", "c"], "mistake_index": 1, "target": "t", "answer": "u" });
    let (_, found) = of("word_sorting.jsonl", "bigbench-mistake", lines(&[mistake]));
    assert_eq!(found[0]["labels"], json!([1.0, 0.0, null]));
    let every = json!({
        "idx": "1", "classification": "circular", "modified_question": "p", "question": "p",
        "modified_process": ["a", "b"], "error_steps": [2], "modified_steps": [2],
    });
    let (_, found) = of("prm.jsonl", "prmbench", lines(&[every]));
    assert_eq!(found[0]["labels"], json!([1.0, 0.0]));
    let trl = json!({ "prompt": "p", "completions": ["a", "b"], "labels": [true, false] });
    let (_, found) = of("trl.jsonl", "solutions", lines(&[trl]));
    assert_eq!(found[0]["labels"], json!([1.0, 0.0]));

    let bad = json!({ "prompt": "p", "steps": ["a", "b"], "labels": [1] });
    let file = write(folder.path(), "bad.jsonl", lines(&[bad]));
    let arguments = ["data", "steps", &file, "--from", "solutions", "--out", &out];
    fail(3, &["bad.jsonl", "line 1", "1 labels for 2 steps"], &arguments);
    let none = write(folder.path(), "none.jsonl", "{\"x\": 1}\n");
    let arguments = ["data", "steps", &none, "--from", "pairs", "--out", &out];
    fail(3, &["no solution can be used", "`prompt`"], &arguments);
}

#[test]
fn targets_of_traces_are_labels_with_their_parts() {
    let folder = tempfile::tempdir().expect("folder");
    let out = text(&folder.path().join("out.jsonl"));
    let model = tiny_judge(folder.path());
    let trace = |n: usize| {
        json!({
            "id": format!("t{n}"), "prompt": "q", "steps": ["hm", format!("so {n}"), "wait"],
            "response": format!("so {n}\n\ndone"), "labels": [0.5, 0.9, null],
        })
    };
    let traces = write(folder.path(), "t.jsonl", lines(&[trace(1), trace(2)]));
    let arguments = ["data", "step-targets", &traces, "--encoder", &model, "--out", &out];
    assert_eq!(report(&arguments)["traces"], 2);
    let found = read(&out);
    let parts = &found[0]["targets"];
    assert_eq!(parts.as_array().map(Vec::len), Some(3));
    assert!((parts[1]["alignment"].as_f64().expect("a number") - 1.0).abs() < 1e-6);
    assert_eq!((&parts[0]["quality"], &parts[2]["quality"]), (&json!(0.5), &Value::Null));
    assert!(parts[0]["coherence"].as_f64().is_some_and(|coherence| coherence <= 0.0));
    assert_eq!(found[0]["labels"][1], parts[1]["step"]);
    let indexed = [&arguments[..], &["--by-index"]].concat();
    fail(3, &["trace t1", "(3)", "(2)"], &indexed);
    let bare =
        write(folder.path(), "bare.jsonl", lines(&[json!({ "prompt": "q", "steps": ["a"] })]));
    fail(
        3,
        &["line 1", "`response`"],
        &["data", "step-targets", &bare, "--encoder", &model, "--out", &out],
    );
}

#[test]
fn step_labels_from_completions_repeat_and_resume() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| text(&folder.path().join(name));
    let model = tiny_judge(folder.path());
    let solution = |n: usize| {
        json!({
            "id": format!("s{n}"), "prompt": "q", "reference": "4",
            "steps": ["one", "#### 4"],
        })
    };
    let two: Vec<Value> = (0..2).map(solution).collect();
    let file = write(folder.path(), "solutions.jsonl", lines(&two));
    let run = |out: &str| {
        let arguments = ["data", "step-labels", &file, "--model", &model, "--out", out];
        report(&[&arguments[..], &["--samples", "3", "--max-tokens", "6", "--seed", "1"]].concat())
    };
    let told = run(&at("a.jsonl"));
    assert_eq!((&told["solutions"], &told["completions"]), (&json!(2), &json!(6)), "{told}");
    let found = read(&at("a.jsonl"));
    assert_eq!(found[0]["labels"][1], 1.0, "a stated answer is checked by rule");
    let share = found[0]["labels"][0].as_f64().expect("a share");
    assert!((share * 3.0 - (share * 3.0).round()).abs() < 1e-9, "{share}");
    // The rows are training data again.
    let arguments = ["data", "steps", &at("a.jsonl"), "--from", "solutions", "--out", &at("b")];
    assert_eq!(report(&arguments)["solutions"], 2);
    // What an interrupted run wrote is not done again, and a whole run repeats itself.
    let first = std::fs::read_to_string(at("a.jsonl")).expect("file");
    let begun = first.lines().next().expect("a row");
    write(folder.path(), "c.jsonl.partial", format!("{begun}\n{{\"item\": \"s1"));
    assert_eq!(run(&at("c.jsonl"))["completions"], 3, "one solution was left");
    assert_eq!(std::fs::read_to_string(at("c.jsonl")).expect("file"), first);

    let bare = json!({ "prompt": "q", "steps": ["one"] });
    let file = write(folder.path(), "bare.jsonl", lines(&[bare]));
    let arguments = ["data", "step-labels", &file, "--model", &model, "--out", &at("d.jsonl")];
    fail(3, &["reference"], &arguments);
}

#[test]
fn a_judge_fills_in_the_quality_that_is_missing() {
    let folder = tempfile::tempdir().expect("folder");
    let out = text(&folder.path().join("out.jsonl"));
    let model = tiny_judge(folder.path());
    let labelled = write(folder.path(), "labelled.jsonl", labelled(8));
    let recipe = RECIPE.replace("MODEL", &model).replace("steps.jsonl", &labelled);
    let recipe = write(folder.path(), "recipe.toml", recipe);
    let judge = text(&folder.path().join("run"));
    report(&["train", &recipe, "--out", &judge]);
    let trace = json!({
        "id": "t", "prompt": "q", "steps": ["hm", "so", "wait"], "response": "so\n\ndone",
        "labels": [0.5, null, null], "kept": true,
    });
    let traces = write(folder.path(), "t.jsonl", lines(&[trace]));
    let ask = ["data", "step-quality", &traces, "--model", &judge, "--out", &out];
    let told = report(&[&ask[..], &["--scale", "0", "1"]].concat());
    assert_eq!((&told["steps"], &told["faults"]), (&json!(2), &json!(0)));
    let row = read(&out).remove(0);
    assert_eq!((&row["labels"][0], &row["kept"]), (&json!(0.5), &json!(true)));
    for step in 1..3 {
        let quality = row["labels"][step].as_f64().expect("a number");
        assert!(quality > 0.0 && quality < 1.0, "a probability of the judge: {quality}");
    }
    fail(2, &["--scale"], &[&ask[..], &["--scale", "3", "3"]].concat());
}
