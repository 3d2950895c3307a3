//! Evaluations in a report: what is shown, that nothing untrusted becomes markup, and
//! that odd results are drawn too.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::{
    benchmark::{Evaluation, output::write_evaluation, summary::SCHEMA_VERSION},
    metrics::Outcome,
    random,
    report::{
        ReportInput, load_run, render_report,
        tests::{HOSTILE, assert_balanced},
    },
};

fn metric(value: f64, n: usize) -> Metric {
    Metric { value: Some(value), ci95: Some([(value - 0.1).max(0.0), (value + 0.1).min(1.0)]), n }
}

fn summary(name: &str) -> Summary {
    let metrics = [
        ("accuracy.strict", metric(0.7, 90)),
        ("accuracy.half_credit", metric(0.75, 90)),
        ("subset.easy.strict", metric(0.9, 40)),
        ("subset.easy.half_credit", metric(0.95, 40)),
        ("subset.hard.half_credit", metric(0.5, 50)),
        ("voting.sampled.1.accuracy.strict", metric(0.6, 90)),
        ("voting.sampled.4.accuracy.strict", metric(0.7, 90)),
        ("length.correlation", Metric { value: Some(-0.3), ci95: Some([-0.4, -0.2]), n: 180 }),
        ("odd", Metric::default()),
    ]
    .map(|(name, metric)| (name.to_owned(), metric));
    Summary {
        schema_version: SCHEMA_VERSION,
        benchmark: "rewardbench".to_owned(),
        model: name.to_owned(),
        settings: BTreeMap::from([("template".to_owned(), json!(HOSTILE))]),
        metrics: metrics.into(),
        counts: BTreeMap::from([("items".to_owned(), 90)]),
        problems: vec![HOSTILE.to_owned()],
        missing: vec!["donotanswer".to_owned(), HOSTILE.to_owned()],
        baselines: BTreeMap::from([(
            "longer_wins".to_owned(),
            BTreeMap::from([("accuracy.strict".to_owned(), metric(0.4, 90))]),
        )]),
        calibration: None,
        details: BTreeMap::from([
            ("matrix.all".to_owned(), json!([[0.5, 0.1, 0.0], [0.9, 0.5, 0.2], [1.0, 0.8, null]])),
            (
                "histogram.right".to_owned(),
                json!({ "low": 0.0, "high": 2.0, "counts": [1, 3], "outside": 0 }),
            ),
            (
                "histogram.wrong".to_owned(),
                json!({ "low": 0.0, "high": 2.0, "counts": [3, 1], "outside": 0 }),
            ),
            (
                "histogram.margin".to_owned(),
                json!({ "low": 2.0, "high": 1.0, "counts": [1], "outside": 0 }),
            ),
            ("note".to_owned(), json!(HOSTILE)),
        ]),
    }
}

fn item(index: usize, outcome: Outcome, scores: [Option<f64>; 2]) -> ItemRecord {
    ItemRecord {
        id: format!("item-{index}"),
        subset: Some(HOSTILE.to_owned()),
        cluster: index,
        outcome,
        strict: outcome.strict_credit(),
        half_credit: outcome.half_credit(),
        lengths: vec![10 + index * 3 % 17, 14],
        scores: scores.to_vec(),
        verdicts: Vec::new(),
        right: vec![0],
        faults: if outcome == Outcome::Fault { vec![HOSTILE.to_owned()] } else { Vec::new() },
        details: BTreeMap::from([("note".to_owned(), json!(HOSTILE))]),
    }
}

fn items(seed: u64) -> Vec<ItemRecord> {
    (0..90)
        .map(|index| {
            let lead = random::below(7, seed, index as u64) as f64 - 2.0;
            let scores = [Some(5.0 + lead), Some(5.0)];
            item(index, Outcome::of_scores(scores[0], scores[1]), scores)
        })
        .chain([item(90, Outcome::Fault, [None, Some(1.0)])])
        .collect()
}

fn evaluation(name: &str, seed: u64) -> Evaluation {
    let judgement = |index: usize| JudgementRecord {
        item: format!("item-{index}"),
        response: index % 2,
        second: None,
        text: format!("judged {index} {HOSTILE}"),
        score: Some(3.0),
        expected_score: None,
        fault: None,
    };
    Evaluation {
        summary: summary(name),
        items: items(seed),
        judgements: (0..91).map(judgement).collect(),
        files: Vec::new(),
    }
}

#[test]
fn folders_become_a_page() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let inputs = ["one", "two"].map(|name| {
        let folder = dir.path().join(name);
        write_evaluation(&folder, &evaluation(name, name.len() as u64 + 4)).expect("written");
        load_run(&folder).expect("reads")
    });
    let merged = ReportInput::merge("patarm", inputs.to_vec());
    assert_eq!(merged.benchmarks.len(), 2);
    assert_eq!((merged.comparisons.len(), merged.notes.len()), (1, 0), "{:?}", merged.notes);
    assert_eq!(merged.comparisons[0].result.overall.num_pairs, 91);
    let page = render_report(&merged);
    for part in [
        "rewardbench",
        "accuracy, half credit",
        "longer wins",
        "By subset",
        "markdown",
        "heat4",
        "Scores by label",
        "by number of votes",
        "Accuracy by length",
        "10 worst items",
        "donotanswer",
        "Paired comparisons",
    ] {
        assert!(page.contains(part), "{part} is not in the page");
    }
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("NaN"));
    assert_balanced(&page);
}

#[test]
fn the_worst_come_first_and_bring_their_judgements() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    write_evaluation(dir.path(), &evaluation("one", 5)).expect("written");
    let run = load_evaluation(dir.path(), "one").expect("reads");
    let worst = worst::worst(&run.items);
    assert_eq!(worst.len(), 10);
    assert!(worst.iter().all(|item| item.outcome == Outcome::Wrong));
    let leads = worst.iter().map(|i| i.scores[1].expect("one") - i.scores[0].expect("one"));
    assert!(leads.collect::<Vec<f64>>().is_sorted_by(|a, b| a >= b));
    assert_eq!(run.judgements.len(), 10, "one judgement of each of the ten");
    assert!(worst::worst(&[item(0, Outcome::Right, [Some(2.0), Some(1.0)])]).is_empty());
}

/// All tied, all failed, a single item, none at all: pages like any other.
#[test]
fn odd_results_are_drawn() {
    for outcomes in [vec![Outcome::Tie; 9], vec![Outcome::Fault; 9], vec![Outcome::Wrong], vec![]] {
        let items: Vec<ItemRecord> = outcomes
            .iter()
            .enumerate()
            .map(|(index, outcome)| item(index, *outcome, [None, None]))
            .collect();
        let mut summary = summary("odd");
        summary.metrics.clear();
        summary.details.clear();
        summary.benchmark = "unknown <benchmark>".to_owned();
        let run = BenchmarkRun { name: HOSTILE.to_owned(), summary, items, judgements: Vec::new() };
        let input = ReportInput { benchmarks: vec![run.clone(), run], ..ReportInput::default() };
        let page = render_report(&ReportInput::merge("patarm", vec![input]));
        assert!(page.contains("unknown &lt;benchmark&gt;") && !page.contains("<script"));
        assert_balanced(&page);
    }
}

#[test]
fn a_figure_name_splits_into_part_and_measure() {
    let mut given = summary("x");
    given.metrics = ["subset.a.b.strict", "class.circular", "subset.strict"]
        .map(|name| (name.to_owned(), metric(0.5, 3)))
        .into();
    let run = BenchmarkRun {
        name: "x".to_owned(),
        summary: given,
        items: Vec::new(),
        judgements: Vec::new(),
    };
    let drawn = tables::parts(&vec![&run]);
    assert!(drawn.contains("a, b") && drawn.contains("circular"), "{drawn}");
}
