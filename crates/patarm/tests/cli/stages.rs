//! What a run measures after its stages, and starting from another run's cold start.

use serde_json::Value;

use crate::support::{report, succeed, text};
use crate::training::prepare;

fn weights(run: &str) -> Vec<u8> {
    std::fs::read(format!("{run}/checkpoints/final/model.safetensors")).expect("weights")
}

#[test]
fn stages_are_measured_and_compared_on_the_same_pairs() {
    let folder = tempfile::tempdir().expect("folder");
    let recipe = prepare(folder.path());
    let run = text(&folder.path().join("run"));
    let result = report(&["train", &recipe, "--out", &run]);
    let stages = &result["stages"];
    assert_eq!(stages["num_pairs"], 2);
    for name in ["cold_start", "trained"] {
        let accuracy = &stages[format!("accuracy_{name}")]["value"];
        let path = format!("{run}/evaluations/{name}/result.json");
        let stored: Value =
            serde_json::from_slice(&std::fs::read(path).expect("file")).expect("json");
        assert_eq!(*accuracy, stored["accuracy"]["half_credit"]["value"]);
        assert!(folder.path().join(format!("run/samples/{name}.jsonl")).exists());
    }
    let value = |name: &str| stages[name]["value"].as_f64().expect("number");
    let gain = value("accuracy_trained") - value("accuracy_cold_start");
    assert!((value("gain") - gain).abs() < 1e-12);

    let unmeasured = text(&folder.path().join("unmeasured"));
    let result =
        report(&["train", &recipe, "--out", &unmeasured, "--set", "evaluation.stage_pairs=0"]);
    assert!(result["stages"]["gain"].is_null());
    assert!(weights(&run) == weights(&unmeasured), "measuring changes nothing");
}

/// Arms of an experiment share one cold start: its weights as the model, its
/// judgements for the replay, no updates of their own.
#[test]
fn reinforcement_from_another_runs_cold_start_is_the_same_run() {
    let folder = tempfile::tempdir().expect("folder");
    let recipe = prepare(folder.path());
    let replayed = "grpo.replay.batch=2";
    let at = |name: &str| text(&folder.path().join(name));
    let (whole, arm) = (at("whole"), at("arm"));
    succeed(&["train", &recipe, "--out", &whole, "--set", replayed]);
    let model = format!("model={whole}/checkpoints/cold_start");
    let source =
        format!("cold_start.source={{ kind = \"file\", path = \"{whole}/cold_start.jsonl\" }}");
    let changes = [&model, &source, "cold_start.steps=0", replayed];
    let mut arguments = vec!["train", &recipe, "--out", &arm];
    changes.iter().for_each(|change| arguments.extend(["--set", change]));
    let result = report(&arguments);
    assert!(weights(&arm) == weights(&whole));
    assert!(result["stages"]["accuracy_cold_start"].is_null(), "no updates, nothing to measure");
}
