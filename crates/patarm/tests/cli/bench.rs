//! `patarm bench` reports every number it promises.

use crate::support::{fail, report, succeed, testdata, text, tiny, write};

#[test]
fn training_and_scoring_of_a_tiny_model() {
    let model = tiny("tiny-llama");
    for (what, tokens) in [("train", 4 * 256), ("score", 16 * 256)] {
        let found = report(&["bench", what, "--model", &model, "--repeats", "2"]);
        assert_eq!(found["what"], what);
        assert_eq!(found["repeats"], 2);
        assert_eq!(found["tokens"], tokens);
        for field in ["seconds", "tokens_per_s", "flop_per_s", "model_flops_utilisation"] {
            assert!(found[field].as_f64().is_some_and(|value| value > 0.0), "{field}: {found}");
        }
        let product = found["tokens_per_s"].as_f64().zip(found["seconds"].as_f64());
        let counted = product.map_or(0.0, |(rate, seconds)| rate * seconds);
        assert!((counted - f64::from(tokens)).abs() < 1e-3, "{found}");
        assert!(found["row_ratio"].is_null(), "rows share nothing");
    }
    assert!(succeed(&["bench", "score", "--model", &model, "--repeats", "1"]).contains("tokens/s"));
}

#[test]
fn a_model_with_too_few_positions_is_refused() {
    fail(4, &["tokens"], &["bench", "rollout", "--model", &tiny("tiny-llama"), "--repeats", "1"]);
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
    let found = report(&["bench", "grpo", "--model", &model, "--repeats", "1"]);
    assert_eq!(found["tokens"], 8 * (400 + 2 * (200 + 8 * 128)));
    assert_eq!(found["row_tokens"], 8 * 16 * (400 + 200 + 128));
    assert!(found["row_ratio"].as_f64().is_some_and(|ratio| ratio >= 3.0), "{found}");
    let found = report(&["bench", "rollout", "--model", &model, "--repeats", "1"]);
    assert_eq!(found["tokens"], 64 * 64);
}
