//! `patarm model …` on the tiny models of the test data.

use serde_json::{Value, json};

use crate::support::{
    fail, largest_difference, numbers, report, repository, rows, succeed, testdata, text, tiny,
    tiny_gguf, tiny_quantised_gguf, write,
};

/// Largest difference to the log-probabilities PyTorch computed.
const TOLERANCE: f64 = 1e-4;

fn golden(name: &str) -> Value {
    let path = testdata("goldens").join(format!("{name}.json"));
    let text = std::fs::read_to_string(path).expect("golden file");
    serde_json::from_str(&text).expect("golden file is JSON")
}

/// The sequences of a golden file as input rows.
fn rows_of(golden: &Value) -> String {
    let sequences = golden["sequences"].as_array().expect("sequences");
    sequences.iter().map(|ids| format!("{}\n", json!({ "ids": ids }))).collect()
}

fn assert_golden(golden: &Value, output: &str) {
    let output = rows(output);
    let sequences = golden["sequences"].as_array().expect("sequences");
    assert_eq!(output.len(), sequences.len());
    for (index, row) in output.iter().enumerate() {
        assert_eq!(row["ids"], sequences[index]);
        let expected = numbers(&golden["logprobs"][index]);
        let difference = largest_difference(&numbers(&row["logprobs"]), &expected);
        assert!(difference < TOLERANCE, "sequence {index}: {difference}");
    }
}

#[test]
fn logprobs_are_those_of_the_reference() {
    let folder = tempfile::tempdir().expect("folder");
    for name in ["tiny-llama", "tiny-qwen2", "tiny-qwen3", "tiny-llama-lora"] {
        let golden = golden(name);
        let input = write(folder.path(), "rows.jsonl", rows_of(&golden));
        assert_golden(&golden, &succeed(&["model", "logprobs", &tiny(name), "--input", &input]));
    }
}

#[test]
fn a_row_does_not_see_its_batch() {
    let folder = tempfile::tempdir().expect("folder");
    let model = tiny("tiny-qwen3");
    let lines = ["{\"ids\":[3,1,4,1,5]}", "{\"ids\":[]}", "{\"ids\":[9]}", "{\"ids\":[2,6,5]}"];
    let together = write(folder.path(), "all.jsonl", lines.join("\n"));
    let together = succeed(&["model", "logprobs", &model, "--input", &together]);
    for (line, expected) in lines.iter().zip(together.lines()) {
        let alone = write(folder.path(), "one.jsonl", line);
        let alone = succeed(&["model", "logprobs", &model, "--input", &alone]);
        assert_eq!(alone.trim_end(), expected);
    }
    assert_eq!(rows(&together)[1], json!({"ids": [], "logprobs": []}));
    assert_eq!(rows(&together)[2], json!({"ids": [9], "logprobs": [null]}));
}

#[test]
fn greedy_tokens_are_the_most_likely_ones() {
    let folder = tempfile::tempdir().expect("folder");
    let model = tiny("tiny-llama");
    let input = write(folder.path(), "rows.jsonl", "{\"ids\":[7,8,9]}\n{\"ids\":[7]}");
    let arguments = ["model", "logprobs", &model, "--input", &input, "--greedy", "3"];
    let first = rows(&succeed(&arguments));
    let chosen: Vec<u64> =
        first[0]["greedy_ids"].as_array().expect("ids").iter().filter_map(Value::as_u64).collect();
    assert_eq!(chosen.len(), 3);
    // No other token is likelier after the same beginning.
    let others: String = (0..72).map(|id| format!("{{\"ids\":[7,8,9,{id}]}}\n")).collect();
    let input = write(folder.path(), "others.jsonl", others);
    let others = rows(&succeed(&["model", "logprobs", &model, "--input", &input]));
    let last: Vec<Option<f64>> = others.iter().map(|row| row["logprobs"][3].as_f64()).collect();
    let best = last.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    assert_eq!(last[chosen[0] as usize], Some(best));
}

#[test]
fn weights_stay_quantised_where_a_gguf_file_quantises_them() {
    let folder = tempfile::tempdir().expect("folder");
    let model = write(folder.path(), "model.gguf", tiny_quantised_gguf().to_bytes());
    let input = write(folder.path(), "rows.jsonl", "{\"ids\":[1,2,3,5,4,1]}");
    let arguments = ["model", "logprobs", &model, "--input", &input];
    let dense = rows(&succeed(&arguments));
    let quantised = [&arguments[..], &["--precision", "quantised"]].concat();
    let found = rows(&succeed(&quantised));
    let difference =
        largest_difference(&numbers(&dense[0]["logprobs"]), &numbers(&found[0]["logprobs"]));
    // Activations have eight bits.
    assert!(difference > 0.0 && difference < 0.1, "{difference}");

    let train = ["bench", "train", "--model", &model, "--precision", "quantised"];
    fail(2, &["every parameter is trained"], &train);
}

#[test]
fn weights_in_floating_point_are_rounded_where_they_are_to_be_quantised() {
    let folder = tempfile::tempdir().expect("folder");
    let input = write(folder.path(), "rows.jsonl", "{\"ids\":[1,2,3,5,4,1]}");
    let floats = write(folder.path(), "floats.gguf", tiny_gguf().to_bytes());
    let difference = |model: &str| {
        let arguments = ["model", "logprobs", model, "--input", &input];
        let dense = rows(&succeed(&arguments));
        let rounded = rows(&succeed(&[&arguments[..], &["--precision", "quantised"]].concat()));
        let [dense, rounded] = [dense, rounded].map(|rows| numbers(&rows[0]["logprobs"]));
        largest_difference(&dense, &rounded)
    };
    let found = difference(&tiny("tiny-llama"));
    assert!(found > 0.0 && found < 0.1, "{found}");
    // Its rows are shorter than a block.
    assert_eq!(difference(&floats), 0.0);
}

#[test]
fn results_go_to_a_file_and_a_summary_to_standard_output() {
    let folder = tempfile::tempdir().expect("folder");
    let input = write(folder.path(), "rows.jsonl", "{\"ids\":[7,8,9]}\n\n{\"ids\":[7]}\n");
    let out = text(&folder.path().join("out.jsonl"));
    let model = tiny("tiny-llama");
    let summary = report(&["model", "logprobs", &model, "--input", &input, "--out", &out]);
    assert_eq!((&summary["rows"], &summary["tokens"]), (&json!(2), &json!(4)));
    assert_eq!(rows(&std::fs::read_to_string(out).expect("output")).len(), 2);
}

#[test]
fn inspection_tells_what_a_model_is() {
    let found = report(&["model", "inspect", &tiny("tiny-qwen2")]);
    assert_eq!(found["architecture"], "qwen2");
    assert_eq!(found["container"], "safetensors");
    assert_eq!(found["sizes"]["hidden"], 40);
    assert_eq!(found["sizes"]["vocabulary"], 80);
    assert_eq!(found["sizes"]["tied_output"], false);
    assert_eq!(found["tokenizer"], Value::Null);
    assert_eq!(found["adapter"], Value::Null);
    let found = report(&["model", "inspect", &tiny("tiny-llama-lora")]);
    assert_eq!(found["architecture"], "llama");
    assert_eq!((&found["adapter"]["rank"], &found["adapter"]["alpha"]), (&json!(4), &json!(8.0)));
    let shown = succeed(&["model", "inspect", &tiny("tiny-llama")]);
    assert!(shown.contains("architecture   llama"), "{shown}");
    assert!(shown.contains("tokenizer      none"), "{shown}");
}

#[test]
fn a_merged_adapter_computes_what_the_adapter_did() {
    let folder = tempfile::tempdir().expect("folder");
    let golden = golden("tiny-llama-lora");
    let input = write(folder.path(), "rows.jsonl", rows_of(&golden));
    let (adapter, base) = (tiny("tiny-llama-lora"), tiny("tiny-llama"));
    for (name, more) in [("named", vec![]), ("given", vec!["--base", base.as_str()])] {
        let out = text(&folder.path().join(name));
        let merge = [&["model", "merge", &adapter, "--out", &out], more.as_slice()].concat();
        // The base is stored in single precision, so the merged model is too.
        assert_eq!(report(&merge)["dtype"], "f32");
        assert_golden(&golden, &succeed(&["model", "logprobs", &out, "--input", &input]));
        assert_eq!(report(&["model", "inspect", &out])["adapter"], Value::Null);
    }
}

#[test]
fn conversion_keeps_every_bit_in_single_precision() {
    let folder = tempfile::tempdir().expect("folder");
    let model = tiny("tiny-qwen2");
    let input = write(folder.path(), "rows.jsonl", rows_of(&golden("tiny-qwen2")));
    let before = succeed(&["model", "logprobs", &model, "--input", &input]);
    let out = text(&folder.path().join("f32"));
    let converted = report(&["model", "convert", &model, "--out", &out, "--dtype", "f32"]);
    assert_eq!(converted["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(succeed(&["model", "logprobs", &out, "--input", &input]), before);
    assert!(folder.path().join("f32/generation_config.json").exists() || !has_tokenizer(&model));

    let out = text(&folder.path().join("bf16"));
    assert_eq!(report(&["model", "convert", &model, "--out", &out])["dtype"], "bf16");
    let stored = &report(&["model", "inspect", &out])["stored"];
    assert_eq!(stored.as_object().map(|types| types.keys().count()), Some(1), "{stored}");
    assert!(stored["BF16"].is_u64(), "{stored}");
}

fn has_tokenizer(model: &str) -> bool {
    repository().join(model).join("tokenizer.json").exists()
}

#[test]
fn a_converted_gguf_file_brings_its_tokenizer() {
    let folder = tempfile::tempdir().expect("folder");
    let model = write(folder.path(), "model.gguf", tiny_gguf().to_bytes());
    let input = write(
        folder.path(),
        "rows.jsonl",
        "{\"text\":\"ab a<|im_end|>\"}\n{\"text\":\"<think>b\"}",
    );
    let before = succeed(&["model", "logprobs", &model, "--input", &input]);
    assert_eq!(rows(&before)[0]["ids"], json!([3, 4, 1, 6]));
    let out = text(&folder.path().join("converted"));
    report(&["model", "convert", &model, "--out", &out, "--dtype", "f32"]);
    assert_eq!(succeed(&["model", "logprobs", &out, "--input", &input]), before);
    let tokenizer = &report(&["model", "inspect", &out])["tokenizer"];
    assert_eq!(tokenizer, &report(&["model", "inspect", &model])["tokenizer"]);
    assert_eq!(tokenizer["chat_template"], true);
    assert_eq!(tokenizer["eos"], json!([{"id": 6, "text": "<|im_end|>"}]));
}
