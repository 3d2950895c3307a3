//! Figures, files and resumption on a few prompts.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use patarm_reward::completer::{
    Completer, Completion, CompletionError, CompletionRequest, CompletionResult,
};
use patarm_reward::observer::Silent;

use super::*;
use crate::benchmark::{Completions, output::write_evaluation};
use crate::interval::Resampling;

const DATA: &str = r#"{"key":1,"prompt":"P1","instruction_id_list":["punctuation:no_comma","length_constraints:number_words"],"kwargs":[{},{"num_words":2,"relation":"at least"}]}
{"key":2,"prompt":"P2","instruction_id_list":["detectable_format:title"],"kwargs":[{"other":null}]}
{"key":3,"prompt":"P3","instruction_id_list":["punctuation:no_comma"],"kwargs":[{}]}
{"key":3,"prompt":"P3 again","instruction_id_list":["punctuation:no_comma"],"kwargs":[{}]}
{"key":4,"prompt":"P4","instruction_id_list":["punctuation:no_dash"],"kwargs":[{}]}
{"key":5,"prompt":"P5","instruction_id_list":["punctuation:no_comma"],"kwargs":[]}
"#;

const RESPONSES: &str = r#"{"key":1,"response":"one, two"}
{"prompt":"P2","response":"Sure:\n<<a>>"}
{"key":1,"response":"Yes, here:\none two"}
{"response":"nobody asked"}
"#;

fn evaluate(subject: &Subject<'_>, folder: &Path, responses: Option<&Path>) -> Result<Evaluation> {
    let data: PathBuf = folder.join("data.jsonl");
    std::fs::write(&data, DATA).unwrap();
    let run = Run {
        data: &[data],
        limit: None,
        resampling: Resampling { resamples: 50, seed: 1 },
        base_scores: None,
        responses,
        threshold: None,
        completions: Completions::default(),
        settings: &BTreeMap::new(),
        out: folder,
        observer: &Silent,
    };
    IFEVAL.evaluate(subject, &run)
}

fn value(evaluation: &Evaluation, name: &str) -> f64 {
    evaluation.summary.metrics[name].value.unwrap()
}

#[test]
fn recorded_responses_give_the_reference_s_figures() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("responses.in");
    std::fs::write(&path, RESPONSES).unwrap();
    let evaluation = evaluate(&Subject::File(&path), folder.path(), None).unwrap();
    // Prompt 1: the later response has a comma in its first line, loosely left out. Prompt 2: a
    // title. Prompt 3: no response.
    assert_eq!(value(&evaluation, "present.prompt_level_strict_acc"), 1.0 / 3.0);
    assert_eq!(value(&evaluation, "present.prompt_level_loose_acc"), 2.0 / 3.0);
    assert_eq!(value(&evaluation, "present.inst_level_strict_acc"), 0.5);
    assert_eq!(value(&evaluation, "present.inst_level_loose_acc"), 0.75);
    assert_eq!(value(&evaluation, "answered.prompt_level_strict_acc"), 0.5);
    assert_eq!(value(&evaluation, "instruction.punctuation:no_comma.loose_acc"), 0.5);
    assert_eq!(value(&evaluation, "group.length_constraints.strict_acc"), 1.0);
    let counts = &evaluation.summary.counts;
    for (name, count) in [
        ("items", 3),
        ("instructions", 4),
        ("rows", 6),
        ("rows_malformed", 1),
        ("items_duplicate", 1),
        ("items_skipped.instruction", 1),
        ("responses_missing", 1),
        ("responses_replaced_by_a_later_row", 1),
        ("response_rows_malformed", 1),
    ] {
        assert_eq!(counts[name], count, "{name}");
    }
    assert!(evaluation.summary.missing.iter().any(|m| m.contains("punctuation:no_dash")));
    assert_eq!(evaluation.items[2].outcome, Outcome::Fault);

    let strict = &evaluation.files[0];
    assert_eq!(strict.path, "eval_results_strict.jsonl");
    let first = strict.text.lines().next().unwrap();
    assert_eq!(
        first,
        r#"{"follow_all_instructions":false,"follow_instruction_list":[false,true],"instruction_id_list":["punctuation:no_comma","length_constraints:number_words"],"prompt":"P1","response":"Yes, here:\none two"}"#
    );
    write_evaluation(folder.path(), &evaluation).unwrap();
    assert!(folder.path().join("summary.json").exists());
}

/// Answers all but one prompt, and counts.
#[derive(Default)]
struct Echo {
    calls: AtomicUsize,
    fails: AtomicUsize,
}

impl Completer for Echo {
    fn complete(&self, requests: &[CompletionRequest]) -> Vec<CompletionResult> {
        self.calls.fetch_add(requests.len(), Ordering::SeqCst);
        let answer = |request: &CompletionRequest| {
            assert_eq!((request.max_tokens, request.temperature), (1280, 0.0));
            let prompt = request.prompt.messages[0].plain_text();
            if prompt == "P3" && self.fails.load(Ordering::SeqCst) == 0 {
                return Err(CompletionError::Overlong { tokens: 9, limit: 5 });
            }
            let text = format!("<<{prompt}>> words");
            Ok(Completion { text, num_tokens: 3, truncated: false, logprobs: None })
        };
        requests.iter().map(answer).collect()
    }

    fn name(&self) -> String {
        "echo".to_owned()
    }
}

#[test]
fn generated_responses_are_kept_and_failed_ones_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let echo = Echo::default();
    let first = evaluate(&Subject::Completer(&echo), folder.path(), None).unwrap();
    assert_eq!(echo.calls.load(Ordering::SeqCst), 3);
    assert_eq!(first.summary.counts["responses_missing"], 1);
    assert!(first.items[2].faults[0].contains("9 tokens"), "{:?}", first.items[2].faults);

    echo.fails.store(1, Ordering::SeqCst);
    let second = evaluate(&Subject::Completer(&echo), folder.path(), None).unwrap();
    assert_eq!(echo.calls.load(Ordering::SeqCst), 4);
    assert_eq!(value(&second, "present.prompt_level_strict_acc"), 1.0);

    // What was generated reads as a file of responses, with the same verdicts.
    let kept = folder.path().join("responses.jsonl");
    let read = evaluate(&Subject::File(Path::new("unused")), folder.path(), Some(&kept)).unwrap();
    assert_eq!(read.summary.metrics, second.summary.metrics);
    assert_eq!(read.files, second.files);
}

#[test]
fn prompt_level_is_all_of_its_instructions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("responses.in");
    std::fs::write(&path, RESPONSES).unwrap();
    let evaluation = evaluate(&Subject::File(&path), folder.path(), None).unwrap();
    for item in &evaluation.items {
        let list = item.details["follow_strict"].as_array().unwrap();
        let all = list.iter().all(|followed| followed == &json!(true));
        assert_eq!(item.strict == 1.0, all, "{}", item.id);
    }
}
