//! Training, judging, scoring, measuring and reporting, on a tiny random judge.

use std::path::Path;
use std::sync::Arc;

use patarm_files::{ModelConfig, StoredType};
use patarm_models::kernels::Cpu;
use patarm_models::{Decoder, DecoderShape, checkpoint};
use serde_json::Value;

use crate::support::{
    HIDDEN_GPU, fail, patarm, report, rows, succeed, testdata, text, tiny_quantised_gguf, write,
};

const RECIPE: &str = r#"
version = 1
model = "MODEL"
[data]
train = "pairs.jsonl"
held_out_share = 0.25
[judge]
template = "patarm-short"
rubric_mode = "generated"
max_judgement_tokens = 6
terminator = "none"
[cold_start]
steps = 2
batch = 2
source = { kind = "label_free" }
[grpo]
steps = 2
pairs = 2
num_judgements = 2
estimator = "marginal"
loss = { kl_estimator = "off" }
[evaluation]
every = 2
pairs = 2
stage_pairs = 2
[checkpoint]
every = 1
"#;

/// A random model with the shared tokenizer, in Hugging Face layout.
pub(crate) fn tiny_judge(folder: &Path) -> String {
    let model = folder.join("model");
    std::fs::create_dir_all(&model).expect("folder");
    let mut config = ModelConfig::read(&testdata("models/tiny-llama/config.json")).expect("config");
    (config.vocab_size, config.max_position_embeddings) = (376, 2048);
    let shape = DecoderShape::from_config(&config);
    let decoder = Decoder::random(Arc::new(Cpu::new(1)), shape, 3);
    checkpoint::save_model(&model, &decoder, &config, StoredType::F32).expect("saved");
    std::fs::copy(testdata("text/tokenizer.json"), model.join("tokenizer.json")).expect("copied");
    text(&model)
}

/// A folder with a model, comparisons and a recipe; gives the recipe's path.
pub(crate) fn prepare(folder: &Path) -> String {
    let model = tiny_judge(folder);
    let pair =
        |n: usize| format!("{{\"prompt\": \"q{n}\", \"chosen\": \"yes\", \"rejected\": \"no\"}}\n");
    write(folder, "pairs.jsonl", (0..12).map(pair).collect::<String>());
    write(folder, "recipe.toml", RECIPE.replace("MODEL", &model))
}

#[test]
fn a_run_trains_resumes_measures_and_reports() {
    let folder = tempfile::tempdir().expect("folder");
    let recipe = prepare(folder.path());
    let at = |name: &str| text(&folder.path().join(name));
    let (run, pairs) = (at("run"), at("pairs.jsonl"));
    let foreseen = report(&["train", &recipe, "--out", &run, "--dry-run"]);
    assert!(foreseen["training_tokens"].as_f64().expect("number") > 0.0);
    assert!(!folder.path().join("run").exists(), "a dry run writes nothing");

    assert_eq!(report(&["train", &recipe, "--out", &run])["run"], run.as_str());
    fail(3, &["already"], &["train", &recipe, "--out", &run]);
    succeed(&["train", &recipe, "--resume", &run]);
    let info: Value =
        serde_json::from_slice(&std::fs::read(at("run/run.json")).expect("file")).expect("json");
    assert_eq!(
        (info["state"].as_str(), info["method"].as_str()),
        (Some("finished"), Some("PaTaRM-style"))
    );
    let precision = info["precision"].as_str().expect("text");
    let other = if precision == "f32" { "bf16" } else { "f32" };
    let remedy = format!("give --precision {precision}");
    let resumed = ["--precision", other, "train", &recipe, "--resume", &run];
    fail(3, &["cannot be resumed", &remedy], &resumed);
    let metrics = rows(&std::fs::read_to_string(at("run/metrics.jsonl")).expect("file"));
    assert!(metrics.iter().any(|row| row["held_out_accuracy"].is_number()));

    let result =
        report(&["eval", "pairs", "--model", &run, "--data", &pairs, "--out", &at("result")]);
    assert_eq!(result["result"]["counts"]["items"], 12);
    let measured = std::fs::read(at("result/summary.json")).expect("file");
    let again =
        patarm(&["eval", "pairs", "--model", &run, "--data", &pairs, "--out", &at("result")]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("24 of 24 answers came from the cache"), "{}", again.stderr);
    assert_eq!(std::fs::read(at("result/summary.json")).expect("file"), measured);
    let seeded = patarm(&[
        "eval",
        "pairs",
        "--model",
        &run,
        "--data",
        &pairs,
        "--out",
        &at("result"),
        "--seed",
        "1",
    ]);
    assert!(!seeded.stderr.contains("came from the cache"), "{}", seeded.stderr);
    let same = report(&["eval", "compare", &at("result"), &at("result")]);
    assert_eq!(same["result"]["overall"]["half_credit"]["value"], 0.0);

    let scores = at("scores.jsonl");
    succeed(&["score", "--model", &run, "--input", &pairs, "--out", &scores]);
    assert_eq!(rows(&std::fs::read_to_string(&scores).expect("file")).len(), 24);
    let judgements = at("judgements.jsonl");
    succeed(&["judge", "--model", &run, "--input", &pairs, "--out", &judgements, "--votes", "2"]);
    let judged = rows(&std::fs::read_to_string(&judgements).expect("file"));
    assert_eq!(judged[0]["judgements"].as_array().map(Vec::len), Some(2));

    succeed(&["report", &run, "--out", &at("report.html")]);
    let page = std::fs::read_to_string(at("report.html")).expect("file");
    assert!(page.contains("<svg") && page.contains("PaTaRM-style"));
}

#[test]
fn an_adapter_run_is_found_with_its_base() {
    let folder = tempfile::tempdir().expect("folder");
    let recipe = prepare(folder.path());
    let run = text(&folder.path().join("run"));
    let change = "parameters.lora={ rank = 2, alpha = 4.0 }";
    succeed(&["train", &recipe, "--out", &run, "--set", change]);
    assert!(folder.path().join("run/checkpoints/final/adapter_config.json").exists());
    let pairs = text(&folder.path().join("pairs.jsonl"));
    let out = text(&folder.path().join("scores.jsonl"));
    succeed(&["score", "--model", &run, "--input", &pairs, "--out", &out]);
}

#[test]
fn unusable_recipes_and_data_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    let recipe = prepare(folder.path());
    let out = text(&folder.path().join("run"));
    fail(2, &["stepz"], &["train", &recipe, "--out", &out, "--set", "grpo.stepz=3"]);
    fail(2, &["no run to resume"], &["train", &recipe, "--resume", &out]);
    let long = "data.max_response_tokens=0";
    fail(3, &["overlong"], &["train", &recipe, "--out", &out, "--set", long]);
    fail(3, &["nowhere"], &["train", &recipe, "--out", &out, "--set", "data.train=nowhere.jsonl"]);
    fail(4, &["no such"], &["train", &recipe, "--out", &out, "--set", "model=absent.gguf"]);
}

#[test]
fn quantised_weights_train_with_an_adapter_or_not_at_all() {
    let folder = tempfile::tempdir().expect("folder");
    let recipe = prepare(folder.path());
    let model = write(folder.path(), "model.gguf", tiny_quantised_gguf().to_bytes());
    let (model, run) = (format!("model={model}"), text(&folder.path().join("run")));
    let words = ["weights that stay quantised cannot be trained; set parameters.lora"];
    let arguments = ["train", &recipe, "--out", &run, "--set", &model, "--precision", "quantised"];
    fail(2, &words, &arguments);
}

/// Starts a run and kills it, without warning, once the checkpoint is there.
fn train_and_kill(recipe: &str, run: &Path, checkpoint: &str) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_patarm"));
    command.args(["train", recipe, "--out"]).arg(run).env(HIDDEN_GPU.0, HIDDEN_GPU.1);
    let mut child = command
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    let wanted = run.join("checkpoints").join(checkpoint);
    while !wanted.exists() {
        let is_running = child.try_wait().expect("a child can be asked").is_none();
        assert!(is_running || wanted.exists(), "the run ended before {checkpoint} was seen");
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("a killed child ends");
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().expect("folder");
    let recipe = prepare(folder.path());
    let longer =
        std::fs::read_to_string(&recipe).expect("recipe").replace("steps = 2", "steps = 5");
    let longer = longer.replace("every = 1", "every = 1\nkeep = 50");
    write(folder.path(), "recipe.toml", longer);
    let weights = |run: &str| {
        std::fs::read(folder.path().join(run).join("checkpoints/final/model.safetensors"))
            .expect("weights")
    };
    succeed(&["train", &recipe, "--out", &text(&folder.path().join("whole"))]);
    for checkpoint in ["cold_start-step-2", "grpo-step-3"] {
        let run = folder.path().join(checkpoint);
        train_and_kill(&recipe, &run, checkpoint);
        succeed(&["train", &recipe, "--resume", &text(&run)]);
        assert!(weights(checkpoint) == weights("whole"), "killed after {checkpoint}");
    }
}
