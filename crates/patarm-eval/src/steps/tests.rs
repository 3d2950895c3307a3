//! Step benchmarks from files to figures.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::{
    Answered, StepAnswer, StepFault, StepItem, StepTruth,
    data::{StepBenchmark, read},
    first_error::{self, harmonic_mean},
    is_right, prmbench,
    threshold::{ThresholdRule, apply},
};
use crate::{
    benchmark::{Benchmark, Evaluation, Run, Subject, load::data_files},
    benchmarks::steps::Steps,
    interval::Resampling,
};

const RESAMPLING: Resampling = Resampling { resamples: 100, seed: 3 };

fn labelled(id: usize, class: &str, labels: &[bool]) -> StepItem {
    StepItem {
        id: format!("{class}_{id}"),
        cluster: id,
        subset: class.to_owned(),
        problem: format!("p{id}"),
        steps: labels.iter().map(|right| right.to_string()).collect(),
        truth: StepTruth::EveryStep(labels.to_vec()),
    }
}

fn answered<'a>(
    items: &'a [StepItem],
    score: impl Fn(&StepItem, usize) -> f64,
) -> Vec<Answered<'a>> {
    let scores = |item: &StepItem| (0..item.steps.len()).map(|step| score(item, step)).collect();
    items
        .iter()
        .map(|item| Answered { item, answer: Ok(StepAnswer::Scores(scores(item))) })
        .collect()
}

fn oracle(item: &StepItem, step: usize) -> f64 {
    match &item.truth {
        StepTruth::EveryStep(labels) => f64::from(u8::from(labels[step])),
        StepTruth::FirstWrong(first) => f64::from(u8::from(first.is_none_or(|place| step < place))),
    }
}

/// Nine classes, two solutions each; the last class has no wrong step.
fn nine_classes() -> Vec<StepItem> {
    let mut items = Vec::new();
    for (index, (class, ..)) in prmbench::CLASSES.into_iter().enumerate() {
        let has_errors = class != prmbench::MULTI_SOLUTIONS;
        items.push(labelled(index, class, &[true, true, !has_errors, true]));
        items.push(labelled(index + 20, class, &[true, !has_errors]));
    }
    items
}

fn value(metrics: &crate::benchmark::summary::Metrics, name: &str) -> f64 {
    metrics.get(name).and_then(|m| m.value).unwrap_or_else(|| panic!("no {name}"))
}

/// Worked by hand: labels of one class [right, wrong, wrong], scores call [right, right,
/// wrong], so TP 1, FP 1, TN 1, FN 0: F1 2/3, negative F1 2/3, score 2/3.
#[test]
fn prmscore_of_a_known_case() {
    let items = [labelled(0, "circular", &[true, false, false])];
    let scores = [0.9, 0.6, 0.2];
    let metrics = prmbench::measure(&answered(&items, |_, s| scores[s]), 0.5, RESAMPLING);
    for name in ["prmscore", "f1", "negative_f1", "class.circular", "category.simplicity"] {
        assert!((value(&metrics, name) - 2.0 / 3.0).abs() < 1e-12, "{name}");
    }
    assert_eq!(value(&metrics, "first_error_accuracy"), 0.0);
    assert_eq!(value(&metrics, "wrong_step_accuracy"), 0.5);
    assert_eq!(value(&metrics, "step_auc"), 1.0);
    assert!(!metrics.contains_key("class.deception"));
}

#[test]
fn judges_that_know_all_and_nothing() {
    let items = nine_classes();
    let all = prmbench::measure(&answered(&items, oracle), 0.5, RESAMPLING);
    for (name, metric) in &all {
        assert_eq!(metric.value, Some(1.0), "{name}");
        assert!(metric.ci95.expect("an interval")[1] <= 1.0, "{name}");
    }
    let right = prmbench::measure(&answered(&items, |_, _| 1.0), 0.5, RESAMPLING);
    assert_eq!((value(&right, "negative_f1"), value(&right, "step_auc")), (0.0, 0.5));
    assert_eq!(value(&right, "class.multi_solutions"), 1.0);
    let wrong = prmbench::measure(&answered(&items, |_, _| 0.0), 0.5, RESAMPLING);
    assert_eq!((value(&wrong, "f1"), value(&wrong, "first_error_accuracy")), (0.0, 1.0));
    let inverted = prmbench::measure(&answered(&items, |i, s| 1.0 - oracle(i, s)), 0.5, RESAMPLING);
    assert_eq!((value(&inverted, "prmscore"), value(&inverted, "step_auc")), (0.0, 0.0));
}

/// Every step of a failed solution counts as called wrongly, and not at all beside it.
#[test]
fn faults_count_as_wrong_and_are_left_out() {
    let items = nine_classes();
    let mut some = answered(&items, oracle);
    some[0].answer = Err(StepFault::Missing);
    let metrics = prmbench::measure(&some, 0.5, RESAMPLING);
    assert!(value(&metrics, "prmscore") < 1.0);
    assert_eq!(value(&metrics, "prmscore_without_faults"), 1.0);
    assert_eq!(metrics["prmscore_without_faults"].n, items.len() - 1);

    let none: Vec<Answered<'_>> =
        items.iter().map(|item| Answered { item, answer: Err(StepFault::Unscored) }).collect();
    let metrics = prmbench::measure(&none, 0.5, RESAMPLING);
    assert_eq!(value(&metrics, "prmscore"), 0.0);
    assert!(!metrics.contains_key("prmscore_without_faults"));
    assert!(!metrics.contains_key("step_auc"));
    assert!(prmbench::measure(&[], 0.5, RESAMPLING).is_empty());
}

fn first(id: usize, subset: &str, place: Option<usize>) -> StepItem {
    let truth = StepTruth::FirstWrong(place);
    StepItem { truth, ..labelled(id, subset, &[true; 4]) }
}

/// Of two with a mistake one is found, of four without three: F1 = 2 · ½ · ¾ / 1¼ = 0.6.
#[test]
fn harmonic_f1_of_a_known_case() {
    let places = [Some(1), Some(2), None, None, None, None];
    let items: Vec<StepItem> =
        places.iter().enumerate().map(|(id, place)| first(id, "gsm8k", *place)).collect();
    let said = [Some(1), Some(3), None, None, None, Some(0)];
    let answers: Vec<Answered<'_>> = items
        .iter()
        .zip(said)
        .map(|(item, place)| Answered { item, answer: Ok(StepAnswer::FirstWrong(place)) })
        .collect();
    let metrics = first_error::measure(&answers, 0.5, RESAMPLING);
    assert!((value(&metrics, "f1") - 0.6).abs() < 1e-12);
    assert_eq!(value(&metrics, "error_accuracy"), 0.5);
    assert_eq!(value(&metrics, "correct_accuracy"), 0.75);
    assert_eq!(value(&metrics, "accuracy"), 4.0 / 6.0);
    assert!(!metrics.contains_key("mean_subset_f1"), "one subset has no mean of subsets");
    assert_eq!(harmonic_mean(0.0, 0.0), 0.0);
}

#[test]
fn first_errors_of_judges_that_know_all_and_nothing() {
    let items: Vec<StepItem> =
        (0..12).map(|id| first(id, ["a", "b"][id % 2], [Some(0), Some(3), None][id % 3])).collect();
    let of = |score: &dyn Fn(&StepItem, usize) -> f64| {
        first_error::measure(&answered(&items, score), 0.5, RESAMPLING)
    };
    let known = of(&oracle);
    for name in ["f1", "accuracy", "mean_subset_f1", "subset.a.f1", "subset.b.error_accuracy"] {
        assert_eq!(value(&known, name), 1.0, "{name}");
    }
    // Always "no mistake" is right on a third of the solutions and worth nothing.
    let right = of(&|_, _| 1.0);
    assert_eq!((value(&right, "f1"), value(&right, "correct_accuracy")), (0.0, 1.0));
    // Always the first step: right where that is the mistake, worth nothing either.
    let first_step = of(&|_, _| 0.0);
    assert_eq!((value(&first_step, "f1"), value(&first_step, "error_accuracy")), (0.0, 0.5));
    let only_errors: Vec<StepItem> = vec![first(0, "a", Some(1))];
    let metrics = first_error::measure(&answered(&only_errors, oracle), 0.5, RESAMPLING);
    assert_eq!(metrics["f1"].value, None, "without correct solutions there is no F1");
    assert!(first_error::measure(&[], 0.5, RESAMPLING).is_empty());
}

#[test]
fn thresholds_are_never_chosen_where_they_are_used() {
    let items: Vec<StepItem> = (0..60)
        .map(|id| first(id, ["tune", "test"][id % 2], [Some(1), None][(id / 2) % 2]))
        .collect();
    // The right threshold for this judge is between 3 and 7.
    let score = |item: &StepItem, step: usize| 3.0 + 4.0 * oracle(item, step);
    let rule = ThresholdRule::TunedOnSubset("tune".to_owned());
    let applied = apply(&rule, answered(&items, score), first_error::objective).expect("tunes");
    assert!((3.0..7.0).contains(&applied.threshold), "{}", applied.threshold);
    assert_eq!((applied.num_tuning_items, applied.measured.len()), (30, 30));
    assert!(applied.measured.iter().all(|a| a.item.subset == "test"));

    let rule = ThresholdRule::TunedOnShare { share: 0.3, seed: 5 };
    let applied = apply(&rule, answered(&items, score), first_error::objective).expect("tunes");
    assert_eq!(applied.num_tuning_items + applied.measured.len(), items.len());
    assert!((5..31).contains(&applied.num_tuning_items), "{}", applied.num_tuning_items);

    let none = ThresholdRule::TunedOnSubset("absent".to_owned());
    assert!(apply(&none, answered(&items, score), first_error::objective).is_err());
    let silent = items.iter().map(|item| Answered { item, answer: Err(StepFault::Missing) });
    let rule = ThresholdRule::TunedOnSubset("tune".to_owned());
    assert!(apply(&rule, silent.collect(), prmbench::objective).is_err());
}

#[test]
fn rules_of_thresholds_are_parsed() {
    let parse = |text: &str| ThresholdRule::parse(text, 7);
    assert_eq!(parse("-1.5").expect("a number"), ThresholdRule::Fixed(-1.5));
    let share = ThresholdRule::TunedOnShare { share: 0.2, seed: 7 };
    assert_eq!(parse("tune:0.2").expect("a share"), share);
    let subset = ThresholdRule::TunedOnSubset("gsm8k".to_owned());
    assert_eq!(parse("tune:gsm8k").expect("a subset"), subset);
    for bad in ["", "half", "NaN", "inf", "tune:", "tune:0", "tune:1", "tune:-2"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

// ---- From files -----------------------------------------------------------------

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).expect("written");
    path
}

fn evaluate(benchmark: StepBenchmark, data: &Path, scores: &Path, threshold: &str) -> Evaluation {
    let settings = BTreeMap::new();
    let data = [data.to_path_buf()];
    let run = Run {
        data: &data,
        limit: None,
        resampling: RESAMPLING,
        base_scores: None,
        responses: None,
        completions: crate::benchmark::Completions::default(),
        threshold: Some(threshold),
        settings: &settings,
        out: Path::new("."),
        observer: &patarm_reward::observer::Silent,
    };
    Steps(benchmark).evaluate(&Subject::File(scores), &run).expect("evaluates")
}

const PRM_ROWS: &str = concat!(
    "{\"idx\": \"p0\", \"classification\": \"circular\", \"modified_question\": \"q\", ",
    "\"modified_process\": [\"a\", \"b\", \"c\"], \"error_steps\": [2, 9], \"reason\": \"\"}\n",
    "{\"idx\": \"p0\", \"classification\": \"circular\", \"modified_question\": \"again\", ",
    "\"modified_process\": [\"a\"], \"error_steps\": []}\n",
    "{\"idx\": \"p0\", \"classification\": \"multi_solutions\", \"modified_question\": \"q\", ",
    "\"modified_process\": [\"a\", \"b\"], \"error_steps\": []}\n",
    "{\"idx\": \"p1\", \"classification\": \"deception\", \"modified_question\": \"q\", ",
    "\"modified_process\": [], \"error_steps\": []}\n",
    "{\"idx\": \"p1\", \"classification\": \"deception\", \"modified_question\": \"q\", ",
    "\"modified_process\": [\"a\", 3], \"error_steps\": [1]}\n",
    "nonsense\n[]\n",
);

#[test]
fn prmbench_from_files() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    write(dir.path(), "rows.jsonl", PRM_ROWS);
    let scores = write(
        dir.path(),
        "scores",
        "{\"item\": \"circular_p0\", \"steps\": [0.9, 0.1, 0.5]}\n\
         {\"item\": \"multi_solutions_p0\", \"first_wrong\": -1}\n{\"item\": \"x\", \"steps\": []}\n",
    );
    let Evaluation { summary, items, .. } =
        evaluate(StepBenchmark::PrmBench, dir.path(), &scores, "0.5");
    let count = |name: &str| summary.counts.get(name).copied().unwrap_or(0);
    assert_eq!((count("rows"), count("rows_malformed"), count("items_duplicate")), (7, 4, 1));
    assert_eq!((count("items"), count("items_out_of_range_label"), count("steps")), (2, 1, 5));
    assert_eq!((count("item_fault.needs_scores"), count("answer_items_unused")), (1, 1));
    assert_eq!(summary.missing.len(), 9, "{:?}", summary.missing);
    assert!(summary.metrics.contains_key("present.prmscore"), "{:?}", summary.metrics);
    assert!(!summary.metrics.contains_key("prmscore"), "a part must not look official");
    assert!(summary.metrics.contains_key("prmscore_without_out_of_range"));
    // 0.5 is not above 0.5, so the last step of the first solution is called wrong.
    assert_eq!(items[0].strict, 2.0 / 3.0);
    assert_eq!((items[0].details["first_wrong"].as_i64(), &items[0].right), (Some(1), &vec![0, 2]));
    assert_eq!(items[1].cluster, items[0].cluster, "solutions of one problem go together");
    assert!(items[1].faults[0].contains("each step"));
    assert_eq!(value(&summary.baselines["all_right"], "present.negative_f1"), 0.0);
}

#[test]
fn processbench_and_big_bench_mistake_from_files() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut rows = "[".to_owned();
    for (id, label) in [("gsm8k-0", 1), ("gsm8k-1", -1), ("math-0", 0), ("math-1", 5)] {
        let _ = write!(
            rows,
            "{{\"id\": \"{id}\", \"generator\": \"g\", \"problem\": \"{id}\", \
             \"steps\": [\"a\", \"b\"], \"final_answer_correct\": true, \"label\": {label}}},"
        );
    }
    write(dir.path(), "all.json", &(rows.trim_end_matches(',').to_owned() + "]"));
    let scores = write(
        dir.path(),
        "scores",
        "{\"item\": \"gsm8k-0\", \"first_wrong\": 1}\n{\"item\": \"gsm8k-1\", \"steps\": [1, 0.6]}\n\
         {\"item\": \"math-0\", \"first_wrong\": 1}\n",
    );
    let Evaluation { summary, items, .. } =
        evaluate(StepBenchmark::ProcessBench, dir.path(), &scores, "0.5");
    assert_eq!(items.len(), 3, "a label outside the steps is no solution");
    assert_eq!(value(&summary.metrics, "subset.gsm8k.f1"), 1.0);
    assert_eq!(value(&summary.metrics, "present.error_accuracy"), 0.5);
    assert_eq!(summary.metrics["subset.math.f1"].value, None);

    let dir = tempfile::tempdir().expect("a temporary folder");
    let rows = "{\"input\": \"q\", \"steps\": [\"a\", \"b\"], \"target\": \"1\", \"answer\": \"2\", \
                \"mistake_index\": 0}\n{\"input\": \"q\", \"steps\": [\"a\"], \"target\": \"1\", \
                \"answer\": \"1\", \"mistake_index\": null}\n{\"input\": \"q\", \"steps\": [\"a\"]}\n";
    write(dir.path(), "word_sorting.jsonl", rows);
    let scores =
        write(dir.path(), "scores", "{\"item\": \"word_sorting/0\", \"first_wrong\": 0}\n");
    let Evaluation { summary, items, .. } =
        evaluate(StepBenchmark::BigBenchMistake, dir.path(), &scores, "0.5");
    assert_eq!((items[0].strict, items[1].strict), (1.0, 0.0));
    assert_eq!(items[1].cluster, items[0].cluster);
    assert_eq!(value(&summary.metrics, "present.accuracy"), 0.5);
    assert_eq!(value(&summary.metrics, "present.accuracy_without_faults"), 1.0);
    assert_eq!(summary.counts["rows_malformed"], 1);
}

#[test]
fn folders_without_solutions_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    assert!(data_files(&[dir.path().to_path_buf()]).is_err());
    let path = write(dir.path(), "rows.jsonl", "{\"idx\": 1}\n");
    for benchmark in
        [StepBenchmark::PrmBench, StepBenchmark::ProcessBench, StepBenchmark::BigBenchMistake]
    {
        let message = read(benchmark, std::slice::from_ref(&path), None).expect_err("no solution");
        assert!(message.to_string().contains("none of 1 rows"), "{message}");
    }
}

/// Damage to a good file is counted and never ends the reading, and no byte is invented.
#[test]
fn damaged_rows_are_counted() {
    let good: Vec<&str> = PRM_ROWS.lines().take(3).collect();
    for seed in 0..200u64 {
        let mut text = good.join("\n").into_bytes();
        for hit in 0..1 + seed % 4 {
            let at = crate::random::below(text.len(), seed, 2 * hit);
            let byte = crate::random::draw(seed, 2 * hit + 1) as u8;
            match seed % 3 {
                0 => text[at] = byte,
                1 => drop(text.remove(at)),
                _ => text.insert(at, byte),
            }
        }
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("rows.jsonl");
        fs::write(&path, &text).expect("written");
        if let Ok(data) = read(StepBenchmark::PrmBench, std::slice::from_ref(&path), None) {
            let seen = data.items.len() + data.report.num_malformed + data.report.num_duplicates;
            assert_eq!(seen, data.report.num_rows, "seed {seed}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any rising transformation of scores and threshold leaves every figure.
    #[test]
    fn only_the_order_around_the_threshold_counts(
        labels in prop::collection::vec(prop::collection::vec(any::<bool>(), 1..6), 1..8),
        raw in prop::collection::vec(-3i32..4, 48),
    ) {
        let items: Vec<StepItem> = labels
            .iter()
            .enumerate()
            .map(|(id, labels)| labelled(id, prmbench::CLASSES[id % 9].0, labels))
            .collect();
        let score = |item: &StepItem, step: usize| f64::from(raw[item.cluster * 6 + step]);
        let plain = prmbench::measure(&answered(&items, score), 0.0, RESAMPLING);
        let bent = prmbench::measure(&answered(&items, |i, s| score(i, s).exp()), 1.0, RESAMPLING);
        prop_assert_eq!(&plain, &bent);
        for (name, metric) in &plain {
            if let (Some(value), Some([low, high])) = (metric.value, metric.ci95) {
                prop_assert!((0.0..=1.0).contains(&value) && low <= high, "{}", name);
            }
        }
    }

    /// The threshold that the tuning picks is no worse than any other candidate there.
    #[test]
    fn tuning_finds_the_best_candidate(raw in prop::collection::vec(0u8..20, 40)) {
        let items: Vec<StepItem> = (0..20)
            .map(|id| first(id, ["tune", "test"][id % 2], [Some(2), None][(id / 2) % 2]))
            .collect();
        let score = |item: &StepItem, step: usize| {
            f64::from(raw[(item.cluster * 4 + step) % 40]) + 8.0 * oracle(item, step)
        };
        let all = answered(&items, score);
        let tuning: Vec<Answered<'_>> =
            all.iter().filter(|a| a.item.subset == "tune").cloned().collect();
        let rule = ThresholdRule::TunedOnSubset("tune".to_owned());
        let applied = apply(&rule, all, first_error::objective).expect("tunes");
        let best = first_error::objective(&tuning, applied.threshold);
        for other in 0..28 {
            prop_assert!(first_error::objective(&tuning, f64::from(other)) <= best);
        }
        prop_assert!(!is_right(applied.threshold, applied.threshold));
    }
}
