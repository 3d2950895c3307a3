//! The answer rule, the stop rule, recorded answers and a scripted judge.

use std::path::PathBuf;
use std::sync::Mutex;

use patarm_reward::completer::{Completer, Completion, CompletionRequest, CompletionResult};
use patarm_reward::observer::Silent;

use super::*;
use crate::benchmark::Completions;

#[test]
fn answers_are_read_by_prefix_then_by_the_one_word_in_capitals() {
    for (text, expected) in [
        ("YES", Some(true)),
        ("yes, mostly no", Some(true)),
        ("No.", Some(false)),
        ("Nothing of the kind: YES", Some(false)),
        ("The answer is YES", Some(true)),
        ("So: NO", Some(false)),
        // A prefix decides before anything after it is looked at.
        ("YES or NO?", Some(true)),
        ("YES, but NOT", Some(true)),
        ("It is YES or NO", None),
        ("The answer is yes", None),
        (" YES", Some(true)),
        (" yes", None),
        // `NO` is looked for anywhere, also inside a word.
        ("It is NOT", Some(false)),
        ("", None),
    ] {
        assert_eq!(protocol::read(text), expected, "{text:?}");
    }
}

/// Answers from a script: by question.
struct Scripted {
    answers: Vec<(&'static str, &'static str)>,
    asked: Mutex<Vec<CompletionRequest>>,
}

impl Completer for Scripted {
    fn complete(&self, requests: &[CompletionRequest]) -> Vec<CompletionResult> {
        self.asked.lock().unwrap().extend_from_slice(requests);
        let answer = |request: &CompletionRequest| {
            let asked = request.prompt.messages.last().unwrap().plain_text();
            let found = self.answers.iter().find(|(question, _)| asked.contains(question));
            let text = found.map_or("perhaps", |(_, answer)| *answer).to_owned();
            Ok(Completion { text, num_tokens: 1, truncated: false, logprobs: None })
        };
        requests.iter().map(answer).collect()
    }

    fn name(&self) -> String {
        "scripted".to_owned()
    }
}

const DATA: &str = r#"{"id":"a","input":"in","instruction":"i","decomposed_questions":["Q1?","Q2?","Q3?"],"subset":"Easy_set","question_label":[["Format"],["Style","Number"],"Format"],"output":"text"}
{"id":"b","input":"","instruction":"i","decomposed_questions":["Q1?","Q4?"],"subset":"Hard_set","output":"other"}
{"id":"c","instruction":"i","decomposed_questions":[]}
"#;

fn run(subject: &Subject<'_>, folder: &std::path::Path) -> Evaluation {
    let data = folder.join("data.jsonl");
    std::fs::write(&data, DATA).unwrap();
    let run = Run {
        data: &[data],
        limit: None,
        resampling: Resampling { resamples: 50, seed: 1 },
        base_scores: None,
        responses: None,
        threshold: None,
        completions: Completions::default(),
        settings: &BTreeMap::new(),
        out: folder,
        observer: &Silent,
    };
    InfoBench.evaluate(subject, &run).unwrap()
}

fn value(evaluation: &Evaluation, name: &str) -> f64 {
    evaluation.summary.metrics[name].value.unwrap()
}

#[test]
fn the_official_rule_stops_at_an_answer_that_is_neither() {
    let folder = tempfile::tempdir().unwrap();
    let judge = Scripted {
        answers: vec![("Q1?", "YES"), ("Q3?", "yes"), ("Q4?", "NO")],
        asked: Mutex::default(),
    };
    let evaluation = run(&Subject::Completer(&judge), folder.path());
    // a: YES, neither (stop), YES; b: YES, NO. Officially 2 of 4, over all questions 3 of 5.
    assert_eq!(value(&evaluation, "present.drfr"), 0.5);
    assert_eq!(value(&evaluation, "present.drfr_all"), 0.6);
    assert_eq!(value(&evaluation, "unanswered_rate"), 0.2);
    assert_eq!(value(&evaluation, "subset.Easy_set.drfr"), 0.5);
    assert_eq!(value(&evaluation, "subset.Hard_set.drfr"), 0.5);
    assert_eq!(value(&evaluation, "label.Format.drfr"), 1.0);
    assert_eq!(value(&evaluation, "label.Number.drfr_all"), 0.0);
    assert!(!evaluation.summary.metrics.contains_key("drfr"));
    assert_eq!(evaluation.summary.counts["rows_malformed"], 1);
    let official = &evaluation.files[0].text;
    assert!(
        official.contains(r#""eval":[true,null]"#) && official.contains(r#""eval":[true,false]"#)
    );

    // One conversation an item; the first turn carries the input only where there is one.
    let asked = judge.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 5);
    let first = asked[0].prompt.messages[0].plain_text();
    assert!(first.contains("Input:\n\"in\"") && first.contains("Generated Text:\n\"text\""));
    assert!(!asked[1].prompt.messages[0].plain_text().contains("Input:"));
    assert_eq!(asked.last().unwrap().prompt.messages.len(), 5);

    // A second run asks nothing.
    let again = run(&Subject::Completer(&judge), folder.path());
    assert_eq!(judge.asked.lock().unwrap().len(), 5);
    assert_eq!(again.summary.metrics, evaluation.summary.metrics);
}

#[test]
fn recorded_answers_need_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("eval.jsonl");
    // Null counts as NO and stays in the denominator; unasked questions leave it.
    let rows = "{\"id\":\"a\",\"eval\":[true,null]}\n{\"id\":\"z\",\"eval\":[true]}\n{\"id\":\"b\",\"eval\":[1]}\n";
    std::fs::write(&path, rows).unwrap();
    let evaluation = run(&Subject::File(&path), folder.path());
    assert_eq!(value(&evaluation, "present.drfr"), 0.5);
    assert!((value(&evaluation, "present.drfr_all") - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!(evaluation.summary.counts["answer_rows_unused"], 2);
    assert_eq!(evaluation.summary.counts["items_without_answers"], 1);
    assert!(evaluation.summary.missing.iter().any(|m| m.contains("answers on 1 items")));
    assert_eq!(evaluation.items[1].outcome, Outcome::Fault);
}

#[test]
fn other_subjects_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.jsonl");
    let data = folder.path().join("data.jsonl");
    std::fs::write(&data, DATA).unwrap();
    let run = Run {
        data: &[data],
        limit: None,
        resampling: Resampling { resamples: 0, seed: 1 },
        base_scores: None,
        responses: None,
        threshold: None,
        completions: Completions::default(),
        settings: &BTreeMap::new(),
        out: folder.path(),
        observer: &Silent,
    };
    assert!(InfoBench.evaluate(&Subject::File(&missing), &run).is_err());
}
