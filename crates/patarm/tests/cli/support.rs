//! Running the program and looking at what it did.

use std::path::{Path, PathBuf};
use std::process::Command;

use patarm_files::{GgufWriter, TensorType};
use serde_json::Value;

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The repository, which relative paths in test data start from.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file of the shared test data.
pub(crate) fn testdata(name: &str) -> PathBuf {
    repository().join("testdata").join(name)
}

/// Path of a tiny model, as an argument.
pub(crate) fn tiny(name: &str) -> String {
    text(&testdata("models").join(name))
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("paths of tests are text").to_owned()
}

/// Tests compute on the CPU, also where a GPU is: it is hidden from the program.
pub(crate) const HIDDEN_GPU: (&str, &str) = ("CUDA_VISIBLE_DEVICES", "");

/// Runs the program in the repository.
pub(crate) fn patarm(arguments: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patarm"));
    command.args(arguments).current_dir(repository()).env(HIDDEN_GPU.0, HIDDEN_GPU.1);
    let output = command.output().expect("the program starts");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("standard output is text"),
        stderr: String::from_utf8(output.stderr).expect("standard error is text"),
    }
}

/// Runs the program, which must succeed; gives its standard output.
pub(crate) fn succeed(arguments: &[&str]) -> String {
    let outcome = patarm(arguments);
    assert_eq!(outcome.code, Some(0), "{arguments:?}: {}", outcome.stderr);
    outcome.stdout
}

/// Runs the program with `--json`; gives its one object.
pub(crate) fn report(arguments: &[&str]) -> Value {
    let stdout = succeed(&[arguments, &["--json"]].concat());
    assert_eq!(stdout.lines().count(), 1, "one object on one line: {stdout}");
    let value: Value = serde_json::from_str(&stdout).expect("the report is JSON");
    assert_eq!(value["version"], 1, "{value}");
    value
}

/// Runs the program, which must end with this code, say nothing on standard
/// output and one line with all of these words on standard error.
pub(crate) fn fail(code: i32, words: &[&str], arguments: &[&str]) {
    let outcome = patarm(arguments);
    let said = &outcome.stderr;
    assert_eq!(outcome.code, Some(code), "{arguments:?}: {said}");
    assert_eq!(outcome.stdout, "", "{arguments:?}");
    assert!(said.starts_with("patarm: "), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "one sentence: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// The rows of a JSONL text.
pub(crate) fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect()
}

/// Writes a file and gives its path as an argument.
pub(crate) fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("the file can be written");
    text(&path)
}

/// Numbers of a list, `null` as `None`.
pub(crate) fn numbers(list: &Value) -> Vec<Option<f64>> {
    list.as_array().expect("a list").iter().map(Value::as_f64).collect()
}

/// Largest difference between two lists of the same length and the same `null`s.
pub(crate) fn largest_difference(left: &[Option<f64>], right: &[Option<f64>]) -> f64 {
    assert_eq!(left.len(), right.len());
    let difference = |(left, right): (&Option<f64>, &Option<f64>)| match (left, right) {
        (Some(left), Some(right)) => (left - right).abs(),
        (None, None) => 0.0,
        _ => panic!("{left:?} and {right:?}"),
    };
    left.iter().zip(right).map(difference).fold(0.0, f64::max)
}

/// A Llama of one layer with seven tokens, as the bytes of a GGUF file.
pub(crate) fn tiny_gguf() -> GgufWriter {
    const WIDTH: usize = 8;
    const INNER: usize = 12;
    let mut file = tiny_gguf_metadata(WIDTH, INNER);
    for (stream, (name, shape)) in tiny_tensors(WIDTH, INNER).into_iter().enumerate() {
        let len = shape.iter().product();
        let value = |n: usize| ((n * 37 + stream * 11) % 29) as f32 / 29.0 - 0.5;
        let values: Vec<f32> = (0..len).map(value).collect();
        file.tensor_f32(name, &shape, &values).expect("shapes fit");
    }
    file
}

/// Of a model of some width, and some inner width of its feed-forward layer.
fn tiny_gguf_metadata(width: usize, inner: usize) -> GgufWriter {
    let mut file = GgufWriter::new();
    file.metadata("general.architecture", "llama");
    for (key, value) in [
        ("llama.embedding_length", width as u32),
        ("llama.feed_forward_length", inner as u32),
        ("llama.block_count", 1),
        ("llama.attention.head_count", 2),
        ("llama.attention.head_count_kv", 1),
        ("llama.context_length", 32),
        ("tokenizer.ggml.bos_token_id", 0),
        ("tokenizer.ggml.eos_token_id", 6),
    ] {
        file.metadata(key, value);
    }
    file.metadata("llama.attention.layer_norm_rms_epsilon", 1e-5_f32);
    let tokens = ["<|start|>", "a", "b", "ab", "Ġ", "<think>", "<|im_end|>"];
    file.metadata("tokenizer.ggml.model", "gpt2");
    file.metadata("tokenizer.ggml.pre", "smollm");
    file.metadata("tokenizer.ggml.tokens", tokens.map(String::from).to_vec());
    file.metadata("tokenizer.ggml.token_type", vec![3_i32, 1, 1, 1, 1, 4, 3]);
    file.metadata("tokenizer.ggml.merges", vec!["a b".to_owned()]);
    file.metadata("tokenizer.chat_template", "{{ messages }}");
    file
}

fn tiny_tensors(width: usize, inner: usize) -> [(&'static str, Vec<usize>); 11] {
    let half = width / 2;
    [
        ("token_embd.weight", vec![7, width]),
        ("output_norm.weight", vec![width]),
        ("blk.0.attn_norm.weight", vec![width]),
        ("blk.0.attn_q.weight", vec![width, width]),
        ("blk.0.attn_k.weight", vec![half, width]),
        ("blk.0.attn_v.weight", vec![half, width]),
        ("blk.0.attn_output.weight", vec![width, width]),
        ("blk.0.ffn_norm.weight", vec![width]),
        ("blk.0.ffn_gate.weight", vec![inner, width]),
        ("blk.0.ffn_up.weight", vec![inner, width]),
        ("blk.0.ffn_down.weight", vec![width, inner]),
    ]
}

/// The same with every matrix in blocks of Q8_0, and wide enough for them.
pub(crate) fn tiny_quantised_gguf() -> GgufWriter {
    const WIDTH: usize = 32;
    const INNER: usize = 64;
    let mut file = tiny_gguf_metadata(WIDTH, INNER);
    for (stream, (name, shape)) in tiny_tensors(WIDTH, INNER).into_iter().enumerate() {
        let Some(&columns) = shape.get(1) else {
            file.tensor_f32(name, &shape, &[1.0; WIDTH]).expect("shapes fit");
            continue;
        };
        let block = |n: usize| {
            // A scale of 2⁻⁹ in half precision, and 32 signed bytes.
            let bytes = (0..32).map(move |i| ((n * 32 + i) * 37 + stream * 11) as u8);
            [0x00, 0x18].into_iter().chain(bytes)
        };
        let stored = (0..shape[0] * columns / 32).flat_map(block).collect();
        file.tensor_bytes(name, &shape, TensorType::Q8_0, stored);
    }
    file
}
