//! Completions, man pages and help.

use crate::support::{succeed, text};

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = succeed(&["completions", shell]);
        assert!(script.contains("logprobs") && script.contains("decontaminate"), "{shell}");
    }
}

#[test]
fn man_pages_are_written_again_and_again() {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("share/man1");
    for _ in 0..2 {
        succeed(&["man", "--out", &text(&out)]);
        let page = std::fs::read_to_string(out.join("patarm-model-logprobs.1")).expect("page");
        assert!(page.contains("greedy"), "{page}");
        let strays = out.read_dir().expect("folder").flatten();
        assert!(
            strays.into_iter().all(|entry| entry.file_name().to_string_lossy().ends_with(".1"))
        );
    }
}

#[test]
fn help_and_version_are_results() {
    assert!(succeed(&["--help"]).contains("quickstart"));
    assert!(succeed(&["--version"]).starts_with("patarm "));
}
