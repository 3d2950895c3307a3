//! The Ties formula and the mean of six.

use patarm_text::Conversation;

use super::*;
use crate::benchmark::responses::clusters;

const RESAMPLING: Resampling = Resampling { resamples: 50, seed: 1 };

fn row(subset: &str, id: &str, right: usize, wrong: usize) -> Item {
    let mut correct = vec![true; right];
    correct.resize(right + wrong, false);
    Item {
        id: id.to_owned(),
        subset: subset.to_owned(),
        prompt: Conversation::from_user(id),
        responses: vec!["r".to_owned(); right + wrong],
        label: Label::Correct(correct),
        group: if subset == TIES {
            id.split_once(':').expect("an id").1.to_owned()
        } else {
            String::new()
        },
        ..Item::default()
    }
}

fn measured(rows: &[(Item, Vec<Option<f64>>)]) -> Metrics {
    let items: Vec<Item> = rows.iter().map(|(item, _)| item.clone()).collect();
    let answered: Vec<Answered> = rows
        .iter()
        .map(|(_, scores)| {
            let mut answered = Answered::bare(Answer::Scores(scores.clone()));
            answered.faults.extend(scores.iter().any(Option::is_none).then(|| "gone".to_owned()));
            answered
        })
        .collect();
    let clusters = clusters(&items);
    measure(&Set { items: &items, answered: &answered, clusters: &clusters }, RESAMPLING)
}

fn known(scores: &[f64]) -> Vec<Option<f64>> {
    scores.iter().copied().map(Some).collect()
}

fn value(metrics: &Metrics, name: &str) -> f64 {
    metrics[name].value.expect("a value")
}

/// One prompt: tied right (5, 4) wrong (1), reference right (6) wrong (3), or (3.5).
#[test]
fn ties_formula_by_hand() {
    let ties = |reference: f64| {
        measured(&[
            (row(TIES, "tied:1", 2, 1), known(&[5.0, 4.0, 1.0])),
            (row(TIES, "ref:1", 1, 1), known(&[reference, 3.0])),
        ])
    };
    assert!((value(&ties(6.0), "subset.Ties.official") - 1.009_640).abs() < 1e-6);
    assert!((value(&ties(3.5), "subset.Ties.official") - 0.795_379).abs() < 1e-6);
}

#[test]
fn ties_at_its_edges() {
    let ties = |tied: &[f64], reference: &[f64]| {
        let metrics = measured(&[
            (row(TIES, "tied:1", 2, 1), known(tied)),
            (row(TIES, "ref:1", 1, 1), known(reference)),
        ]);
        value(&metrics, "subset.Ties.official")
    };
    // All scores equal: every indicator is 0, and 0/0 counts 0.
    assert_eq!(ties(&[5.0; 3], &[5.0; 2]), 0.0);
    // No range at all: x/0 is infinite, so the most there is.
    assert!((ties(&[5.0, 5.0, 1.0], &[5.0, 1.0]) - 1.01).abs() < 1e-12);
    // Wrong above right without a range: minus infinity.
    assert!((ties(&[1.0, 1.0, 5.0], &[1.0, 5.0]) + 0.01).abs() < 1e-12);
    // A reference without its tied row: no score, but its accuracy.
    let alone = measured(&[(row(TIES, "ref:1", 1, 1), known(&[2.0, 1.0]))]);
    assert_eq!(alone["subset.Ties.official"].value, None);
    assert_eq!(value(&alone, "ties.accuracy_reference"), 1.0);
}

#[test]
fn credit_is_shared_among_winners() {
    let math = |scores: &[Option<f64>]| {
        let metrics = measured(&[(row("Math", "1", 1, 3), scores.to_vec())]);
        (value(&metrics, "subset.Math.official"), value(&metrics, "subset.Math.strict"))
    };
    assert_eq!(math(&known(&[9.0, 1.0, 2.0, 3.0])), (1.0, 1.0));
    assert_eq!(math(&known(&[9.0, 9.0, 2.0, 3.0])), (0.5, 0.0));
    assert_eq!(math(&known(&[1.0, 9.0, 2.0, 3.0])), (0.0, 0.0));
    // A four-way call without a verdict, and failed ratings, earn one in four.
    assert_eq!(math(&[None; 4]), (0.25, 0.0));
    // A right rating beside a failed one is official, not strict.
    assert_eq!(math(&[Some(4.0), None, Some(2.0), Some(3.0)]), (1.0, 0.0));
}

#[test]
fn faults_are_left_out_beside() {
    let metrics = measured(&[
        (row("Math", "1", 1, 3), known(&[9.0, 1.0, 2.0, 3.0])),
        (row("Math", "2", 1, 3), vec![None; 4]),
    ]);
    assert_eq!(value(&metrics, "subset.Math.official"), 0.625);
    assert_eq!(value(&metrics, "subset.Math.without_faults"), 1.0);
    assert_eq!(metrics["subset.Math.without_faults"].n, 1);
}

#[test]
fn pairwise_verdicts_rank_the_right_response() {
    use crate::scores::{Shown, Verdicts};
    let item = row("Focus", "1", 1, 3);
    let verdict = |straight: Shown| Verdicts { straight: Some(Some(straight)), swapped: None };
    let verdicts = |shown: [Shown; 3]| {
        let pairs = shown.into_iter().enumerate().map(|(i, s)| ((0, i + 1), verdict(s)));
        Answered::bare(Answer::Verdicts(pairs.collect()))
    };
    let credit = |shown| RewardBench2.credit(&item, &verdicts(shown)).half_credit;
    assert_eq!(credit([Shown::First; 3]), 1.0);
    assert_eq!(credit([Shown::First, Shown::Tie, Shown::First]), 0.5);
    assert_eq!(credit([Shown::First, Shown::Tie, Shown::Second]), 0.0);
}

#[test]
fn the_leaderboard_needs_every_row() {
    let mut rows = Vec::new();
    for (subset, count) in SUBSETS {
        for k in 0..count {
            let kind = if k < count / 2 { "ref" } else { "tied" };
            let id = match subset {
                TIES => format!("{kind}:{}", k % (count / 2)),
                _ => format!("{subset} {k}"),
            };
            let right = if subset == TIES && kind == "tied" { 2 } else { 1 };
            let scores = vec![Some(2.0); right].into_iter().chain([Some(1.0); 3]).collect();
            rows.push((row(subset, &id, right, 3), scores));
        }
    }
    let metrics = measured(&rows);
    assert!((value(&metrics, "leaderboard.official") - (5.0 + 1.01) / 6.0).abs() < 1e-12);
    rows.pop();
    let metrics = measured(&rows);
    assert!(!metrics.contains_key("leaderboard.official"));
    assert!(metrics.contains_key("present.official"));
}
