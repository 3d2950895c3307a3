//! Benchmarks measured on recorded answers, end to end.

use serde_json::{Value, json};

use crate::support::{fail, report, text, write};

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// Two subsets of RewardBench, one of them with a row that cannot be used.
fn rewardbench() -> String {
    let row = |subset: &str, id: usize| json!({"id": id, "subset": subset, "prompt": format!("{subset} {id}"), "chosen": "good", "rejected": "worse"});
    let mut rows: Vec<Value> = (0..46).map(|id| row("llmbar-adver-manual", id)).collect();
    rows.extend((0..10).map(|id| row("hep-go", id)));
    rows.push(json!({"id": 99, "subset": "hep-go", "prompt": "p", "chosen": "good"}));
    lines(&rows)
}

#[test]
fn rewardbench_from_recorded_scores() {
    let folder = tempfile::tempdir().expect("folder");
    let data = write(folder.path(), "data.jsonl", rewardbench());
    let ids = (0..46).map(|id| format!("llmbar-adver-manual/{id}"));
    let ids: Vec<String> = ids.chain((0..10).map(|id| format!("hep-go/{id}"))).collect();
    let scores = ids.iter().flat_map(|id| {
        [0, 1].map(|response| json!({"item": id, "response": response, "score": 1 - response}))
    });
    let scores: String = scores.map(|row| format!("{row}\n")).collect();
    let scores = write(
        folder.path(),
        "scores.jsonl",
        scores.replace(
            "\"score\":1}\n{\"item\":\"hep-go/9\"",
            "\"score\":NaN}\n{\"item\":\"hep-go/9\"",
        ),
    );
    let out = text(&folder.path().join("out"));
    let result =
        report(&["eval", "rewardbench", "--scores", &scores, "--data", &data, "--out", &out]);
    let result = &result["result"];
    assert_eq!(result["benchmark"], "rewardbench");
    assert_eq!(result["counts"]["items"], 56);
    assert_eq!(result["counts"]["items_missing_response"], 1);
    assert_eq!(result["counts"]["non_finite_scores"], 1);
    let metrics = &result["metrics"];
    assert_eq!(metrics["subset.llmbar-adver-manual.strict"]["value"], 1.0);
    assert_eq!(metrics["subset.hep-go.strict"]["value"], 0.9);
    assert_eq!(metrics["leaderboard.strict"], Value::Null);
    let missing = result["missing"].as_array().expect("a list");
    assert!(missing.contains(&json!("hep-go (10 of 164 pairs)")), "{missing:?}");
    assert!(result["baselines"]["longer_wins"]["accuracy.strict"]["value"].is_number());
    let written = std::fs::read(folder.path().join("out/summary.json")).expect("a summary");
    assert_eq!(&serde_json::from_slice::<Value>(&written).expect("JSON"), result);
    for file in ["items.jsonl", "eval-set/scores.jsonl.json", "eval-set-scores/scores.jsonl.json"] {
        assert!(folder.path().join("out").join(file).exists(), "{file}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let data = write(folder.path(), "data.jsonl", "{\"a\": 1}\n");
    let out = text(&folder.path().join("out"));
    let arguments = ["eval", "rmbench", "--scores", &data, "--data", &data, "--out", &out];
    fail(3, &["none of 1 rows", "`domain`"], &arguments);
    assert_eq!(crate::support::patarm(&["eval", "nothing"]).code, Some(2));
    assert_eq!(crate::support::patarm(&["eval"]).code, Some(2));
}
