//! What holds for every benchmark that sets responses against each other: an oracle is
//! right, a constant judge ties, and nothing that is wrong with the data or the scores
//! goes unnoticed. Rows are made by hand in the form of each benchmark.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use patarm_eval::{
    benchmark::{Asks, Completions, Evaluation, Run, Subject},
    benchmarks::{ALL, find},
    interval::Resampling,
};
use patarm_reward::observer::Silent;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// One benchmark's rows and what is known of them.
struct Case {
    benchmark: &'static str,
    /// Path of the file below the data folder; some benchmarks read it.
    file: &'static str,
    rows: Vec<Value>,
    /// Id of each row's item and the scores of an oracle.
    oracle: Vec<(&'static str, Vec<f64>)>,
    /// A figure that is 1 for the oracle.
    figure: &'static str,
    /// A figure and its value for a constant judge.
    constant: (&'static str, f64),
}

fn pair_rows(side: [&str; 2], extra: impl Fn(usize) -> Value) -> Vec<Value> {
    let row = |index: usize| {
        let mut row = extra(index);
        row[side[0]] = json!(format!("a first answer {index}"));
        row[side[1]] = json!(format!("second {index}"));
        row
    };
    (0..2).map(row).collect()
}

const PAIR: [[f64; 2]; 2] = [[2.0, 1.0], [1.0, 2.0]];

fn pairs_with(ids: [&'static str; 2], scores: [[f64; 2]; 2]) -> Vec<(&'static str, Vec<f64>)> {
    ids.into_iter().zip(scores.map(|scores| scores.to_vec())).collect()
}

fn cases() -> Vec<Case> {
    let mut cases = leaderboards();
    cases.extend(human_labels());
    cases.extend(best_of_n());
    cases
}

fn leaderboards() -> Vec<Case> {
    let tool = |index: usize| json!({"id": format!("t{index}"), "prompt": format!("task {index}")});
    let pairs = |benchmark, figure, strict| Case {
        benchmark,
        file: "rows.jsonl",
        rows: pair_rows(["chosen", "rejected"], tool),
        oracle: pairs_with(["t0", "t1"], [[2.0, 1.0]; 2]),
        figure,
        constant: (strict, 0.0),
    };
    vec![
        Case {
            benchmark: "rewardbench",
            file: "rows.jsonl",
            rows: pair_rows(["chosen", "rejected"], |index| {
                let subset = ["hep-rust", "mt-bench-med"][index];
                json!({"id": index, "subset": subset, "prompt": format!("prompt {index}")})
            }),
            oracle: pairs_with(["hep-rust/0", "mt-bench-med/1"], [[2.0, 1.0]; 2]),
            figure: "present.reasoning.strict",
            constant: ("accuracy.strict", 0.0),
        },
        pairs("pairs", "accuracy.half_credit", "accuracy.strict"),
        pairs("tool-pairs", "both_orders.strict", "both_orders.strict"),
        Case {
            benchmark: "judgebench",
            file: "rows.jsonl",
            rows: pair_rows(["response_A", "response_B"], |index| {
                json!({"pair_id": format!("j{index}"), "source": "mmlu-pro-law",
                       "question": format!("question {index}"), "label": (["A>B", "B>A"][index])})
            }),
            oracle: pairs_with(["j0", "j1"], PAIR),
            figure: "present",
            constant: ("present", 0.0),
        },
        Case {
            benchmark: "llmbar",
            file: "Adversarial/Manual/dataset.jsonl",
            rows: pair_rows(
                ["output_1", "output_2"],
                |index| json!({"input": format!("instruction {index}"), "label": index + 1}),
            ),
            oracle: pairs_with(["Manual/0", "Manual/1"], PAIR),
            figure: "subset.Manual.strict",
            constant: ("accuracy.strict", 0.0),
        },
        Case {
            benchmark: "hhh",
            file: "rows.jsonl",
            rows: (0..2).map(hhh_row).collect(),
            oracle: pairs_with(["honest/0", "other/1"], [[2.0, 1.0]; 2]),
            figure: "subset.honest.strict",
            constant: ("accuracy.strict", 0.0),
        },
    ]
}

fn hhh_row(index: usize) -> Value {
    let text = |response: &str| {
        format!(
            "###The instruction to evaluate:\nprompt {index}\n\n###Response to evaluate:\n\
             {response}\n\n###Score Rubrics:\n[Is it good?]"
        )
    };
    json!({"source": (["honest", "other"][index]), "chosen_instruction": text("a good answer"),
           "rejected_instruction": text("bad")})
}

fn human_labels() -> Vec<Case> {
    let turns = |index: usize, answer: &str| {
        json!([{"role": "user", "content": format!("question {index}")},
               {"role": "assistant", "content": answer}])
    };
    vec![
        Case {
            benchmark: "pandalm",
            file: "rows.jsonl",
            rows: pair_rows(["response1", "response2"], |index| {
                let votes = [[1, 1, 0], [2, 2, 2]][index];
                json!({"idx": index, "instruction": format!("instruction {index}"), "input": "",
                       "annotator1": (votes[0]), "annotator2": (votes[1]), "annotator3": (votes[2])})
            }),
            oracle: pairs_with(["0", "1"], PAIR),
            figure: "agreement",
            constant: ("agreement", 0.0),
        },
        Case {
            benchmark: "autoj",
            file: "rows.jsonl",
            rows: pair_rows(["response 1", "response 2"], |index| {
                json!({"prompt": format!("prompt {index}"), "scenario": "planning",
                       "label": index})
            }),
            oracle: pairs_with(["0", "1"], PAIR),
            figure: "subset.planning.agreement",
            constant: ("agreement", 0.0),
        },
        Case {
            benchmark: "mtbench-human",
            file: "rows.jsonl",
            rows: (0..2)
                .map(|index| {
                    json!({"question_id": 81 + index, "model_a": "m", "model_b": "n",
                           "winner": (["model_a", "model_b"][index]), "judge": "expert_1",
                           "turn": 1, "conversation_a": turns(index, "a first answer"),
                           "conversation_b": turns(index, "second")})
                })
                .collect(),
            oracle: pairs_with(["81/m/n/expert_1/1", "82/m/n/expert_1/1"], PAIR),
            figure: "subset.turn-1.agreement",
            constant: ("accuracy.strict", 0.0),
        },
    ]
}

fn best_of_n() -> Vec<Case> {
    let styles = |label: &str| json!([0, 1, 2].map(|style| format!("{label} in style {style}")));
    vec![
        Case {
            benchmark: "rewardbench2",
            file: "rows.jsonl",
            rows: (0..2)
                .map(|index| {
                    json!({"id": format!("f{index}"), "subset": "Factuality", "chosen": ["right"],
                           "prompt": format!("prompt {index}"), "rejected": ["a", "b", "c"]})
                })
                .collect(),
            oracle: vec![("f0", vec![9.0, 1.0, 1.0, 1.0]), ("f1", vec![9.0, 1.0, 2.0, 3.0])],
            figure: "subset.Factuality.official",
            constant: ("subset.Factuality.official", 0.25),
        },
        Case {
            benchmark: "rmbench",
            file: "rows.jsonl",
            rows: (0..2)
                .map(|index| {
                    json!({"id": index, "domain": "code", "prompt": format!("prompt {index}"),
                           "chosen": styles("right"), "rejected": styles("wrong")})
                })
                .collect(),
            oracle: vec![
                ("code/0", vec![2.0, 2.0, 2.0, 1.0, 1.0, 1.0]),
                ("code/1", vec![2.0, 2.0, 2.0, 1.0, 1.0, 1.0]),
            ],
            figure: "overall_by_samples.strict",
            constant: ("overall_by_samples.strict", 0.0),
        },
        Case {
            benchmark: "rmb",
            file: "harmlessness/rows.jsonl",
            rows: vec![
                json!({"pair_uid": "p", "category_path": "Harmlessness/x",
                       "conversation_input": [{"role": "user", "content": "prompt 0"}],
                       "chosen": {"answer": "good"}, "reject": {"answer": "bad"}}),
                json!({"bon_uid": "b", "category_path": "Harmlessness/x",
                       "conversation_input": [{"role": "user", "content": "prompt 1"}],
                       "bon_best": {"answer": "best"},
                       "loser_list": [{"answer": "bad"}, {"answer": "worse"}]}),
            ],
            oracle: vec![("pairwise/p", vec![2.0, 1.0]), ("best_of_n/b", vec![3.0, 2.0, 1.0])],
            figure: "best_of_n.harmlessness.strict",
            constant: ("pairwise.harmlessness.strict", 0.0),
        },
        Case {
            benchmark: "best-of-n",
            file: "rows.jsonl",
            rows: vec![
                json!({"id": "a", "prompt": "prompt 0", "responses": ["a first answer", "b"],
                       "correct": [true, false]}),
                json!({"id": "b", "prompt": "prompt 1", "responses": ["second", "c", "d"],
                       "correct": [false, true, false]}),
            ],
            oracle: vec![("all/a", vec![2.0, 1.0]), ("all/b", vec![1.0, 2.0, 1.0])],
            figure: "correctness.all.end_score",
            constant: ("correctness.all.accuracy", 0.5),
        },
        Case {
            benchmark: "ppe",
            file: "math.jsonl",
            rows: vec![
                json!({"question_id": "h", "prompt": "prompt 0", "winner": "model_b",
                       "response_1": "a first answer", "response_2": "second"}),
                json!({"question_id": "c", "model_name": "m", "prompt": "prompt 1",
                       "scores": [false, true, false], "response_1": "a", "response_2": "b",
                       "response_3": "c"}),
            ],
            oracle: vec![("human/h", vec![1.0, 2.0]), ("math/c/m", vec![1.0, 2.0, 1.0])],
            figure: "correctness.math.accuracy",
            constant: ("human.accuracy.strict", 0.0),
        },
    ]
}

/// A folder with a benchmark's data and a file of scores.
struct Place(TempDir);

impl Place {
    fn new(case: &Case, data: &[u8], scores: &str) -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary folder"));
        let file = place.data().join(case.file);
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(file, data).expect("written");
        fs::write(place.scores(), scores).expect("written");
        place
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn scores(&self) -> PathBuf {
        self.0.path().join("scores.jsonl")
    }
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| row.to_string() + "\n").collect()
}

fn scores(answers: &[(&str, Vec<f64>)]) -> String {
    let mut rows = Vec::new();
    for (item, scores) in answers {
        for (response, score) in scores.iter().enumerate() {
            rows.push(json!({"item": item, "response": response, "score": score}));
        }
    }
    lines(&rows)
}

fn evaluate(case: &Case, data: &[u8], scores: &str) -> patarm_eval::Result<Evaluation> {
    let place = Place::new(case, data, scores);
    let (settings, answers) = (BTreeMap::new(), place.scores());
    let run = Run {
        data: &[place.data()],
        limit: None,
        resampling: Resampling { resamples: 20, seed: 1 },
        base_scores: None,
        responses: None,
        completions: Completions::default(),
        threshold: None,
        settings: &settings,
        out: Path::new(""),
        observer: &Silent,
    };
    let benchmark = find(case.benchmark).expect("a benchmark of that name");
    benchmark.evaluate(&Subject::File(&answers), &run)
}

fn value(evaluation: &Evaluation, name: &str) -> Option<f64> {
    evaluation.summary.metrics.get(name).unwrap_or_else(|| panic!("no figure {name}")).value
}

fn count(evaluation: &Evaluation, name: &str) -> u64 {
    evaluation.summary.counts.get(name).copied().unwrap_or(0)
}

/// Every row of a file is an item, or is counted as what is wrong with it.
fn accounted(evaluation: &Evaluation) -> u64 {
    let skipped = evaluation.summary.counts.iter().filter(|(name, _)| name.starts_with("items_sk"));
    ["items", "rows_malformed", "items_duplicate", "items_missing_response"]
        .into_iter()
        .map(|name| count(evaluation, name))
        .chain(skipped.map(|(_, count)| *count))
        .sum()
}

#[test]
fn every_benchmark_of_responses_is_here() {
    let wanted = ALL.iter().map(|benchmark| benchmark.info());
    for info in wanted.filter(|info| info.asks == Asks::Responses) {
        let there = cases().iter().any(|case| case.benchmark == info.name);
        assert!(there, "{} has no case", info.name);
    }
}

#[test]
fn an_oracle_is_right_and_a_constant_is_not() {
    for case in cases() {
        let data = lines(&case.rows);
        let oracle = evaluate(&case, data.as_bytes(), &scores(&case.oracle)).expect("evaluates");
        assert_eq!(value(&oracle, case.figure), Some(1.0), "{}", case.benchmark);
        assert_eq!(accounted(&oracle), case.rows.len() as u64, "{}", case.benchmark);
        assert!(oracle.summary.baselines.contains_key("longer_wins"), "{}", case.benchmark);

        let tied: Vec<_> =
            case.oracle.iter().map(|(id, scores)| (*id, vec![5.0; scores.len()])).collect();
        let constant = evaluate(&case, data.as_bytes(), &scores(&tied)).expect("evaluates");
        let (figure, expected) = case.constant;
        assert_eq!(value(&constant, figure), Some(expected), "{}: {figure}", case.benchmark);
        let halves = constant.summary.metrics.iter();
        for (name, metric) in halves.filter(|(name, _)| name.ends_with("accuracy.half_credit")) {
            assert_eq!(metric.value, Some(0.5), "{}: {name}", case.benchmark);
        }
    }
}

#[test]
fn a_benchmark_in_part_prints_no_official_figure() {
    let official = ["leaderboard.", "overall.strict", "average.", "section."];
    for case in cases() {
        let oracle = evaluate(&case, lines(&case.rows).as_bytes(), &scores(&case.oracle));
        for name in oracle.expect("evaluates").summary.metrics.keys() {
            let is_official = official.iter().any(|start| name.starts_with(start));
            assert!(!is_official && name != "overall", "{}: {name}", case.benchmark);
        }
    }
}

#[test]
fn one_item_and_one_that_failed_are_measured() {
    for case in cases() {
        let data = lines(&case.rows[..1]);
        let single = evaluate(&case, data.as_bytes(), &scores(&case.oracle[..1]));
        assert_eq!(single.expect("evaluates").items.len(), 1, "{}", case.benchmark);
        let failed = evaluate(&case, data.as_bytes(), &scores(&case.oracle[1..]));
        let failed = failed.expect("evaluates");
        assert_eq!(count(&failed, "items_with_fault"), 1, "{}", case.benchmark);
        for (name, metric) in &failed.summary.metrics {
            let finite = metric.value.is_none_or(f64::is_finite);
            assert!(finite, "{}: {name} is {:?}", case.benchmark, metric.value);
        }
    }
}

#[test]
fn scores_that_are_no_numbers_are_faults() {
    for case in cases() {
        let (data, good) = (lines(&case.rows), scores(&case.oracle[1..]));
        for bad in ["NaN", "Infinity", "-Infinity", "1e999", "null"] {
            let id = json!(case.oracle[0].0);
            let rest: String = (1..case.oracle[0].1.len())
                .map(|n| format!("{{\"item\": {id}, \"response\": {n}, \"score\": 1}}\n"))
                .collect();
            let first = format!("{{\"item\": {id}, \"response\": 0, \"score\": {bad}}}\n");
            let text = first + &rest + &good;
            let evaluation = evaluate(&case, data.as_bytes(), &text).expect("evaluates");
            let name = format!("{} with {bad}", case.benchmark);
            assert_eq!(count(&evaluation, "items_with_fault"), 1, "{name}");
            let faulty = evaluation.items.iter().find(|item| item.id == case.oracle[0].0);
            assert!(!faulty.expect("the item").faults.is_empty(), "{name}");
        }
    }
}

#[test]
fn repeated_rows_are_counted_and_named() {
    for case in cases() {
        let mut rows = case.rows.clone();
        rows.push(case.rows[0].clone());
        // Some benchmarks number their rows, and a repeated row is then a further item.
        let evaluation = evaluate(&case, lines(&rows).as_bytes(), &scores(&case.oracle));
        let evaluation = evaluation.expect("evaluates");
        assert_eq!(accounted(&evaluation), 3, "{}", case.benchmark);
        let numbered = ["llmbar", "hhh", "autoj"].contains(&case.benchmark);
        let duplicates = count(&evaluation, "items_duplicate");
        assert_eq!(duplicates, u64::from(!numbered), "{}", case.benchmark);
        let named = evaluation.summary.problems.iter().any(|problem| problem.contains(" id "));
        assert!(named || numbered, "{}: {:?}", case.benchmark, evaluation.summary.problems);
    }
}

/// Every field of a row absent, `null`, or of another type.
fn damaged_rows(row: &Value) -> Vec<Value> {
    let fields: Map<String, Value> = row.as_object().cloned().unwrap_or_default();
    let mut damaged = Vec::new();
    for name in fields.keys() {
        let mut without = fields.clone();
        without.shift_remove(name);
        damaged.push(Value::Object(without));
        for other in [json!(null), json!(-1), json!(1e300), json!(true), json!([]), json!({"a": 1})]
        {
            let mut changed = fields.clone();
            changed.insert(name.clone(), other);
            damaged.push(Value::Object(changed));
        }
    }
    damaged.extend([json!([]), json!(3), json!(null), json!("text")]);
    damaged
}

#[test]
fn no_damaged_row_is_dropped_in_silence() {
    for case in cases() {
        let answers = scores(&case.oracle);
        for damaged in damaged_rows(&case.rows[0]) {
            // The first row says whether a file is an array, so the damaged one is second.
            let rows = [case.rows[1].clone(), damaged.clone()];
            let name = format!("{}: {damaged}", case.benchmark);
            let evaluation = evaluate(&case, lines(&rows).as_bytes(), &answers).expect(&name);
            assert_eq!(count(&evaluation, "rows"), 2, "{name}");
            assert_eq!(accounted(&evaluation), 2, "{name}: {:?}", evaluation.summary.counts);
            if count(&evaluation, "rows_malformed") > 0 {
                assert!(!evaluation.summary.problems.is_empty(), "{name}");
            }
        }
    }
}

/// A small generator, so that the same bytes are hit on every machine.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

#[test]
fn damaged_bytes_never_lose_a_row() {
    let mut state = 17;
    for case in cases() {
        let (good, answers) = (lines(&case.rows), scores(&case.oracle));
        for round in 0..60 {
            let mut bytes = good.clone().into_bytes();
            for _ in 0..1 + round % 4 {
                let (place, byte) = (next(&mut state) % bytes.len(), next(&mut state) as u8);
                match round % 3 {
                    0 => bytes[place] = byte,
                    1 => drop(bytes.remove(place)),
                    _ => bytes.insert(place, byte),
                }
            }
            // A file without one good row is refused as a whole.
            if let Ok(evaluation) = evaluate(&case, &bytes, &answers) {
                let rows = count(&evaluation, "rows");
                assert_eq!(accounted(&evaluation), rows, "{} round {round}", case.benchmark);
            }
        }
    }
}
