//! Failures a user can cause: the documented code, and one sentence that says
//! what is wrong and where.

use patarm_files::TensorType;

use crate::support::{fail, patarm, testdata, text, tiny, tiny_gguf, write};

const USAGE: i32 = 2;
const DATA: i32 = 3;
const MODEL: i32 = 4;
const DEVICE: i32 = 7;

#[test]
fn wrong_arguments() {
    for arguments in [
        &["frobnicate"] as &[&str],
        &["model", "inspect"],
        &["model", "logprobs", "x", "--greedy", "many", "--input", "y"],
        &["bench", "everything"],
    ] {
        let outcome = patarm(arguments);
        assert_eq!(outcome.code, Some(USAGE), "{arguments:?}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
        assert!(outcome.stderr.contains("error:"), "{}", outcome.stderr);
    }
    fail(USAGE, &["--repeats"], &["bench", "score", "--repeats", "0"]);
}

#[test]
fn devices_that_are_not_there() {
    let arguments = ["bench", "score", "--model"];
    let model = tiny("tiny-llama");
    let bench = |device| [&arguments[..], &[&model, "--device", device]].concat();
    for device in ["gpu", "cuda:", "cuda:x", "cuda:-1"] {
        let outcome = patarm(&bench(device));
        assert_eq!(outcome.code, Some(USAGE), "{device}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("auto, cpu, cuda or cuda:N"), "{}", outcome.stderr);
    }
    let quantised = [&bench("cuda")[..], &["--precision", "quantised"]].concat();
    fail(USAGE, &["on the CPU only", "--device cpu"], &quantised);
    // Where there is a GPU, it is hidden from the program.
    for (device, named) in [("cuda", "--device cuda:0: "), ("cuda:3", "--device cuda:3: ")] {
        fail(DEVICE, &[named, "looked for libcuda", "CUDA_HOME", "nvidia/*/lib"], &bench(device));
    }
}

#[test]
fn unknown_models() {
    fail(MODEL, &["llama-9", "smollm2-135m"], &["model", "pull", "llama-9"]);
    fail(MODEL, &["nowhere", "no such file"], &["model", "inspect", "nowhere"]);
}

#[test]
fn truncated_safetensors() {
    let folder = tempfile::tempdir().expect("folder");
    let original = testdata("models/tiny-llama");
    std::fs::copy(original.join("config.json"), folder.path().join("config.json")).expect("copy");
    let weights = std::fs::read(original.join("model.safetensors")).expect("weights");
    for keep in [0, 5, 200, weights.len() - 1] {
        write(folder.path(), "model.safetensors", &weights[..keep]);
        fail(MODEL, &["model.safetensors"], &["model", "inspect", &text(folder.path())]);
    }
}

#[test]
fn damaged_gguf() {
    let folder = tempfile::tempdir().expect("folder");
    let whole = tiny_gguf().to_bytes();
    for keep in [0, 3, 30, whole.len() / 2, whole.len() - 1] {
        let path = write(folder.path(), "model.gguf", &whole[..keep]);
        fail(MODEL, &["model.gguf"], &["model", "inspect", &path]);
    }
    let mut file = tiny_gguf();
    // A type of the format that this program does not read: Q2_K.
    file.tensor_bytes("output.weight", &[7, 8], TensorType::from_id(10), vec![0; 84]);
    let path = write(folder.path(), "strange.gguf", file.to_bytes());
    let input = write(folder.path(), "rows.jsonl", "{\"ids\":[1,2]}");
    fail(MODEL, &["strange.gguf", "Q2_K"], &["model", "logprobs", &path, "--input", &input]);
}

#[test]
fn another_architecture() {
    let folder = tempfile::tempdir().expect("folder");
    write(folder.path(), "config.json", "{\"model_type\":\"mamba\",\"architectures\":[\"Mamba\"]}");
    let path = text(folder.path());
    fail(MODEL, &["config.json", "mamba"], &["model", "inspect", &path]);
}

#[test]
fn unusable_rows() {
    let folder = tempfile::tempdir().expect("folder");
    let model = tiny("tiny-llama");
    let cases = [
        ("{\"ids\":[1,2]}\n{\"ids\":[72]}", DATA, "rows.jsonl:2: token id 72"),
        ("{\"ids\":[1,2]\n", DATA, "rows.jsonl:1: not a row"),
        ("{\"prompt\":\"hello\"}", DATA, "unknown field `prompt`"),
        ("{\"text\":\"hello\"}", MODEL, "give rows with `ids`"),
    ];
    for (content, code, words) in cases {
        let input = write(folder.path(), "rows.jsonl", content);
        fail(code, &[words], &["model", "logprobs", &model, "--input", &input]);
    }
    let long = format!("{{\"ids\":[{}1]}}", "1,".repeat(256));
    let input = write(folder.path(), "rows.jsonl", long);
    let words = ["rows.jsonl:1: 257 tokens", "256"];
    fail(DATA, &words, &["model", "logprobs", &model, "--input", &input]);
    fail(DATA, &["absent.jsonl"], &["model", "logprobs", &model, "--input", "absent.jsonl"]);
}

#[test]
fn a_failed_run_leaves_no_output_file() {
    let folder = tempfile::tempdir().expect("folder");
    let input = write(folder.path(), "rows.jsonl", "{\"ids\":[1,2]}\n{\"ids\":[99]}");
    let out = text(&folder.path().join("out.jsonl"));
    let model = tiny("tiny-llama");
    fail(DATA, &["99"], &["model", "logprobs", &model, "--input", &input, "--out", &out]);
    let left = folder.path().read_dir().expect("folder").count();
    assert_eq!(left, 1, "only the input is there");
}

#[test]
fn outputs_are_never_overwritten() {
    let folder = tempfile::tempdir().expect("folder");
    write(folder.path(), "precious", "");
    let (model, out) = (tiny("tiny-llama"), text(folder.path()));
    fail(USAGE, &["exists"], &["model", "convert", &model, "--out", &out]);
    let adapter = tiny("tiny-llama-lora");
    fail(USAGE, &["exists"], &["model", "merge", &adapter, "--out", &out]);
}

#[test]
fn adapters_and_models_are_told_apart() {
    let folder = tempfile::tempdir().expect("folder");
    let out = text(&folder.path().join("out"));
    let (model, adapter) = (tiny("tiny-llama"), tiny("tiny-llama-lora"));
    fail(MODEL, &["is no adapter"], &["model", "merge", &model, "--out", &out]);
    fail(USAGE, &["model merge"], &["model", "convert", &adapter, "--out", &out]);
    let other = tiny("tiny-qwen2");
    fail(MODEL, &[], &["model", "merge", &adapter, "--base", &other, "--out", &out]);
    assert!(!folder.path().join("out").exists());
}

#[test]
fn unusable_data() {
    let folder = tempfile::tempdir().expect("folder");
    let strange = write(folder.path(), "strange.jsonl", "{\"colour\":\"red\"}");
    let broken = write(
        folder.path(),
        "broken.jsonl",
        "{\"prompt\":\"p\",\"chosen\":\"c\",\"rejected\":\"r\"}\n{\"prompt\":\"p\",\"chosen\":5,\"rejected\":\"r\"}\n",
    );
    let out = text(&folder.path().join("out.jsonl"));
    fail(DATA, &["absent.jsonl"], &["data", "inspect", "absent.jsonl"]);
    fail(DATA, &["strange.jsonl", "colour", "--format"], &["data", "inspect", &strange]);
    fail(
        DATA,
        &["broken.jsonl", "line 2", "chosen"],
        &["data", "convert", &broken, "--to", "native", "--out", &out],
    );
    fail(
        USAGE,
        &["--to", "xml", "native"],
        &["data", "convert", &broken, "--to", "xml", "--out", &out],
    );
    fail(USAGE, &["--format", "xml"], &["data", "inspect", &broken, "--format", "xml"]);
    fail(
        USAGE,
        &["--ngram"],
        &["data", "decontaminate", &broken, "--against", &strange, "--ngram", "0", "--out", &out],
    );
    assert!(!folder.path().join("out.jsonl").exists());
}

#[test]
fn unusable_mix_recipes() {
    let folder = tempfile::tempdir().expect("folder");
    let out = text(&folder.path().join("out.jsonl"));
    let unknown = "version = 1\nseed = 1\ncolour = 3\nsource = []";
    let recipe = write(folder.path(), "mix.toml", unknown);
    // The reason quotes the line of the recipe, so it takes several lines.
    let outcome = patarm(&["data", "mix", &recipe, "--out", &out]);
    assert_eq!(outcome.code, Some(USAGE), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("unknown field `colour`"), "{}", outcome.stderr);
    let senseless = "version = 1\nseed = 1\ntotal = 5\n[[source]]\npath = \"a\"\nweight = -1.0\n";
    let recipe = write(folder.path(), "mix.toml", senseless);
    fail(USAGE, &["mix.toml", "not a positive number"], &["data", "mix", &recipe, "--out", &out]);
    let gone = "version = 1\nseed = 1\n[[source]]\npath = \"gone.jsonl\"\n";
    let recipe = write(folder.path(), "mix.toml", gone);
    fail(DATA, &["gone.jsonl"], &["data", "mix", &recipe, "--out", &out]);
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = tempfile::tempdir().expect("folder");
    let input = write(folder.path(), "rows.jsonl", "{\"ids\":[1,2]}");
    let model = tiny("tiny-llama");
    // A file is in the way of the folder.
    let beneath = format!("{input}/out");
    let arguments = ["model", "logprobs", &model, "--input", &input, "--out", &beneath];
    fail(DATA, &[&beneath], &arguments);
    fail(DATA, &[&input], &["model", "convert", &model, "--out", &beneath]);
    fail(DATA, &[&beneath], &["man", "--out", &beneath]);
}
