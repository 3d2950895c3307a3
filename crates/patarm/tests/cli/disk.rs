//! A disk that fills up while a checkpoint is written.

use std::path::Path;
use std::process::Command;

use crate::support::{HIDDEN_GPU, succeed, text};
use crate::training::prepare;

/// Runs a training in which no file may grow beyond so many KiB, as on a full disk:
/// the write fails in the middle.
fn train_with_file_limit(recipe: &str, run: &Path, limit_kib: u64) -> (Option<i32>, String) {
    // The signal that comes with the limit is ignored, so that the write returns an error.
    let script = format!("trap '' XFSZ; ulimit -f {limit_kib}; exec \"$@\"");
    let output = Command::new("bash")
        .args(["-c", &script, "bash", env!("CARGO_BIN_EXE_patarm"), "train", recipe, "--out"])
        .arg(run)
        .env(HIDDEN_GPU.0, HIDDEN_GPU.1)
        .output()
        .expect("bash starts");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

fn size_kib(path: &Path) -> u64 {
    std::fs::metadata(path).expect("file").len() / 1024
}

#[test]
fn a_full_disk_stops_the_run_with_one_sentence_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let recipe = prepare(folder.path());
    let whole = folder.path().join("whole");
    succeed(&["train", &recipe, "--out", &text(&whole)]);
    let checkpoint = whole.join("checkpoints/grpo-step-2");
    let model_kib = size_kib(&checkpoint.join("model.safetensors"));
    let optimizer_kib = size_kib(&checkpoint.join("optimizer.safetensors"));
    assert!(model_kib > 2 && optimizer_kib > model_kib + 2, "{model_kib} {optimizer_kib} KiB");

    // Once the weights do not fit, once only the optimiser's state does not.
    for limit in [model_kib / 2, (model_kib + optimizer_kib) / 2] {
        let run = folder.path().join(format!("limit-{limit}"));
        let (code, said) = train_with_file_limit(&recipe, &run, limit);
        assert_eq!(code, Some(3), "{said}");
        let failure: Vec<&str> = said.lines().filter(|line| line.starts_with("patarm: ")).collect();
        assert_eq!(failure.len(), 1, "{said}");
        assert!(failure[0].contains("checkpoints"), "{said}");
        // Nothing that looks like a checkpoint is left, and the run goes on from what is
        // there to the same weights once there is room.
        let folders = std::fs::read_dir(run.join("checkpoints")).expect("folder");
        let whole_ones =
            folders.flatten().filter(|one| !one.file_name().to_string_lossy().starts_with('.'));
        assert_eq!(whole_ones.count(), 0, "limit {limit}");
        succeed(&["train", &recipe, "--resume", &text(&run)]);
        let weights = |run: &Path| {
            std::fs::read(run.join("checkpoints/final/model.safetensors")).expect("weights")
        };
        assert!(weights(&run) == weights(&whole), "limit {limit}");
    }
}
