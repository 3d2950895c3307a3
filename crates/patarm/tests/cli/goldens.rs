//! Real models against an independent float32 program, where they are at hand.
//!
//! `PATARM_TEST_MODEL` names a file `SmolLM2-135M-Instruct.Q4_1.gguf` and
//! `PATARM_TEST_MODEL_QWEN` a file `Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf`;
//! without them these tests pass without looking at anything, and say so.

#![expect(clippy::print_stdout, reason = "a test says what it measured or why it did not")]

use serde_json::{Value, json};

use crate::support::{largest_difference, numbers, rows, succeed, testdata, write};

/// Largest difference of a log-probability.
const TOLERANCE: f64 = 1e-3;

#[test]
fn real_model_smollm2_135m() {
    check("PATARM_TEST_MODEL", "smollm2-135m.json");
}

#[test]
fn second_model_qwen2_5_coder_0_5b() {
    check("PATARM_TEST_MODEL_QWEN", "qwen2.5-coder-0.5b.json");
}

fn check(variable: &str, golden: &str) {
    let Ok(model) = std::env::var(variable) else {
        println!("skipped: {variable} names no model file");
        return;
    };
    let golden = std::fs::read_to_string(testdata("goldens").join(golden)).expect("golden file");
    let golden: Value = serde_json::from_str(&golden).expect("golden file is JSON");
    let cases = golden["cases"].as_array().expect("cases");
    let longest = cases.iter().map(|case| list(&case["greedy_ids"]).len()).max().unwrap_or(0);

    let folder = tempfile::tempdir().expect("folder");
    let texts = cases.iter().map(|case| format!("{}\n", json!({ "text": case["prompt"] })));
    let input = write(folder.path(), "rows.jsonl", texts.collect::<String>());
    let greedy = longest.to_string();
    let arguments = ["model", "logprobs", &model, "--input", &input, "--greedy", &greedy];
    let output = rows(&succeed(&arguments));

    let mut largest = 0.0_f64;
    for (case, row) in cases.iter().zip(&output) {
        assert_eq!(row["ids"], case["ids"], "{}", case["prompt"]);
        let logprobs = numbers(&row["logprobs"]);
        assert_eq!(logprobs[0], None);
        let difference = largest_difference(&logprobs[1..], &numbers(&case["token_logprobs"]));
        assert!(difference < TOLERANCE, "{}: {difference}", case["prompt"]);
        largest = largest.max(difference);
        let expected = list(&case["greedy_ids"]);
        assert_eq!(list(&row["greedy_ids"])[..expected.len()], expected[..], "{}", case["prompt"]);
    }
    assert_eq!(output.len(), cases.len());
    println!("{model}: largest difference of a log-probability {largest:.2e}");
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().expect("a list").clone()
}
