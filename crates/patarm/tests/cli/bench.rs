//! `patarm bench` reports every number it promises.

use crate::support::{fail, report, succeed, testdata, text, tiny, write};

#[test]
fn training_and_scoring_of_a_tiny_model() {
    let model = tiny("tiny-llama");
    let train = ["train", "--rows", "3", "--length", "100"];
    let score = ["score", "--rows", "9", "--length", "15"];
    for (work, tokens) in [(train, 300), (score, 9 * 15)] {
        let arguments = [&["bench"], &work[..], &["--model", &model, "--repeats", "2"]].concat();
        let found = report(&arguments);
        assert_eq!(found["what"], work[0]);
        assert_eq!(found["repeats"], 2);
        assert_eq!(found["tokens"], tokens);
        let positive = [
            "seconds",
            "tokens_per_s",
            "flop_per_s",
            "model_flops_utilisation",
            "copy_bytes_per_s",
        ];
        for field in positive {
            assert!(found[field].as_f64().is_some_and(|value| value > 0.0), "{field}: {found}");
        }
        let product = found["tokens_per_s"].as_f64().zip(found["seconds"].as_f64());
        let counted = product.map_or(0.0, |(rate, seconds)| rate * seconds);
        assert!((counted - f64::from(tokens)).abs() < 1e-3, "{found}");
        assert!(found["row_ratio"].is_null(), "rows share nothing");
    }
    let small = ["bench", "score", "--rows", "2", "--length", "9", "--model", &model];
    assert!(succeed(&small).contains("tokens/s"));
}

#[test]
fn what_cannot_be_measured_is_refused() {
    fail(4, &["tokens"], &["bench", "rollout", "--model", &tiny("tiny-llama"), "--repeats", "1"]);
    fail(2, &["size"], &["bench", "train", "--rows", "0", "--model", &tiny("tiny-llama")]);
}

#[test]
fn responses_below_a_prompt_are_scored_on_a_tree() {
    let model = tiny("tiny-llama");
    let sizes = ["--rows", "3", "--prompt", "40", "--branches", "4", "--length", "15"];
    let found = report(&[&["bench", "score", "--model", &model], &sizes[..]].concat());
    assert_eq!(found["tokens"], 3 * (40 + 4 * 15));
    assert_eq!(found["row_tokens"], 3 * 4 * 55);
}

#[test]
fn the_tree_computes_a_third_of_the_rows_at_most() {
    // The tiny model with room for the documented lengths.
    let folder = tempfile::tempdir().expect("folder");
    let original = testdata("models/tiny-llama");
    let config = std::fs::read_to_string(original.join("config.json")).expect("config");
    let short = "\"max_position_embeddings\": 256";
    assert!(config.contains(short));
    write(folder.path(), "config.json", config.replace(short, "\"max_position_embeddings\": 1024"));
    let weights = std::fs::read(original.join("model.safetensors")).expect("weights");
    write(folder.path(), "model.safetensors", weights);
    let model = text(folder.path());
    let sizes = ["--rows", "2", "--length", "128"];
    let found =
        report(&[&["bench", "grpo", "--model", &model, "--repeats", "1"], &sizes[..]].concat());
    assert_eq!(found["tokens"], 2 * (400 + 2 * (200 + 8 * 128)));
    assert_eq!(found["row_tokens"], 2 * 16 * (400 + 200 + 128));
    assert!(found["row_ratio"].as_f64().is_some_and(|ratio| ratio >= 3.0), "{found}");
    for phase in ["prefill", "decode", "forward", "backward", "optimizer"] {
        assert!(found["phases"][phase].as_f64().is_some_and(|s| s > 0.0), "{phase}: {found}");
    }
    let sizes = ["--rows", "3", "--prompt", "20", "--branches", "2", "--length", "5"];
    let found =
        report(&[&["bench", "rollout", "--model", &model, "--repeats", "1"], &sizes[..]].concat());
    assert_eq!(found["tokens"], 3 * 2 * 5);
    for field in ["decode_tokens_per_s", "decode_bytes_per_s"] {
        assert!(found[field].as_f64().is_some_and(|value| value > 0.0), "{field}: {found}");
    }
}
