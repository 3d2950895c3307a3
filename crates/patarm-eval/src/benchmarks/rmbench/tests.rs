//! The style matrix and both ways to average.

use patarm_text::Conversation;

use super::*;
use crate::benchmark::{answers::Answered, responses::clusters};

const RESAMPLING: Resampling = Resampling { resamples: 50, seed: 1 };

fn sample(part: &str, number: usize) -> Item {
    Item {
        id: format!("{part}/{number}"),
        subset: part.to_owned(),
        prompt: Conversation::from_user(format!("{part} {number}")),
        responses: (0..6).map(|response| format!("response {response}")).collect(),
        label: Label::Correct((0..6).map(|response| response < 3).collect()),
        ..Item::default()
    }
}

fn whole() -> Vec<Item> {
    let parts = DOMAINS.iter().flat_map(|(_, parts)| *parts);
    parts.flat_map(|(part, count)| (0..*count).map(move |number| sample(part, number))).collect()
}

fn measured(items: &[Item], score: impl Fn(&Item, usize) -> f64) -> Metrics {
    let answered: Vec<Answered> = items
        .iter()
        .map(|item| Answered::of_scores((0..6).map(|response| score(item, response))))
        .collect();
    let clusters = clusters(items);
    RmBench.measure(&Set { items, answered: &answered, clusters: &clusters }, RESAMPLING)
}

#[track_caller]
fn is(metrics: &Metrics, name: &str, expected: f64) {
    let value = metrics[name].value.expect("a value");
    assert!((value - expected).abs() < 1e-12, "{name}: {value} is not {expected}");
}

/// The golden case: a later style always wins.
#[test]
fn a_style_judge_is_found_out() {
    let metrics = measured(&whole(), |_, response| (response % 3) as f64);
    for kind in ["difficulty", "difficulty"] {
        is(&metrics, &format!("{kind}.easy.strict"), 1.0);
        is(&metrics, &format!("{kind}.hard.half_credit"), 0.0);
        is(&metrics, &format!("{kind}.normal.half_credit"), 0.5);
        is(&metrics, &format!("{kind}.normal.strict"), 0.0);
    }
    is(&metrics, "overall.half_credit", 0.5);
    is(&metrics, "style.bias", 1.0);
    is(&metrics, "style.later_preferred", 1.0);
}

#[test]
fn oracle_and_constant() {
    let oracle = measured(&whole(), |_, response| f64::from(response < 3));
    is(&oracle, "overall.strict", 1.0);
    is(&oracle, "style.later_preferred", 0.5);
    let constant = measured(&whole(), |_, _| 1.0);
    is(&constant, "overall.strict", 0.0);
    is(&constant, "overall.half_credit", 0.5);
}

/// Right in mathematics only: one domain of four, but 529 of 1,327 samples.
#[test]
fn the_two_averages_differ() {
    let right_in_math =
        |item: &Item, response: usize| f64::from((response < 3) == (item.subset == "math"));
    let metrics = measured(&whole(), right_in_math);
    is(&metrics, "overall.strict", 0.25);
    is(&metrics, "difficulty.easy.strict", 0.25);
    is(&metrics, "difficulty.easy_by_samples.strict", 529.0 / 1_327.0);
    is(&metrics, "overall_by_samples.strict", 529.0 / 1_327.0);
    let keys = original_keys(&metrics);
    assert_eq!((keys["math"], keys["total_avg_acc"]), (Some(1.0), Some(0.25)));
    let row = leaderboard_row("a|b", &metrics);
    assert!(row.starts_with("| a\\|b | | 0.0 | 100.0 | 0.0 | 0.0 | 25.0 |"), "{row}");
}

/// One cell alone: right in style 0 above wrong in style 2.
#[test]
fn cells_lie_where_they_should() {
    let items = [sample("code", 0)];
    let metrics = measured(&items, |_, response| [2.0, 0.0, 0.0, 3.0, 3.0, 1.0][response]);
    is(&metrics, "difficulty.hard.strict", 1.0 / 3.0);
    is(&metrics, "difficulty.easy.strict", 0.0);
    is(&metrics, "domain.code.strict", 1.0 / 9.0);
    assert!(!metrics.contains_key("overall.strict"));
    is(&metrics, "present.strict", 1.0 / 9.0);
    let missing = RmBench.missing(&items);
    assert_eq!(missing[0], "chat");
    assert!(missing.contains(&"code (1 of 228 samples)".to_owned()));
}

#[test]
fn safety_pools_both_parts() {
    let items =
        [sample("safety-refuse", 0), sample("safety-refuse", 1), sample("safety-response", 0)];
    let metrics = measured(&items, |item, response| {
        f64::from((response < 3) == (item.subset == "safety-refuse"))
    });
    is(&metrics, "domain.safety.strict", 2.0 / 3.0);
}
