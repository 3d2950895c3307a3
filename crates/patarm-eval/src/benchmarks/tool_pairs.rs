//! Pairs of tool calls, a right one against one with an error.
//!
//! The figure that counts is after TRBench-BFCL (ToolRM, arXiv 2510.26167): a pairwise
//! judge sees every pair in both orders and is right only when both verdicts are. Chance
//! is then 1/4 (two fair coins), and a judge that always names the same place has 0. A
//! tie or an unreadable verdict in either order is not right under `strict`; under
//! `half_credit` a pair has the product of both orders' credits, a tie being worth one
//! half in its order, so that a judge that always says tie has 1/4, as chance has. A
//! judge that scores responses apart has no orders: both figures are then its accuracy,
//! ties at 0 and at one half, and chance is 1/2.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
};

use patarm_text::Preference;
use serde_json::{Value, json};

use super::pairs::Pairs;
use crate::{
    Result,
    benchmark::{
        Asks, Info,
        accuracy::pair_accuracy,
        answers::{Answer, Answered},
        item::Item,
        load::{LoadReport, Row, RowProblem},
        responses::{ResponseBenchmark, Set},
        summary::Metrics,
        tally::{Figure, Tally, ratio},
    },
    interval::Resampling,
    metrics::Outcome,
    tools::perturb::ToolError,
};

/// The benchmark.
#[derive(Clone, Copy, Debug)]
pub struct ToolPairs;

const INFO: Info = Info {
    name: "tool-pairs",
    about: "Pairs of tool calls: right in both orders.",
    data: "comparisons in any format that `patarm data` reads, such as those of `patarm data tool-pairs`",
    hub: None,
    asks: Asks::Responses,
    metrics: &[
        (
            "both_orders.strict",
            "share of pairs judged rightly in both orders; chance is 1/4, for scores of single responses 1/2",
        ),
        (
            "both_orders.half_credit",
            "the same with a tie worth one half in its order, orders multiplied",
        ),
        ("error.<kind>.both_orders.strict", "the same for one kind of error, where ids end in it"),
        ("subset.<subset>.both_orders.strict", "the same for one category"),
        ("accuracy.<rule>", "disagreeing orders taken as a tie"),
    ],
    files: &[],
    headline: &["both_orders.strict", "both_orders.half_credit", "accuracy.strict"],
};

impl ResponseBenchmark for ToolPairs {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn read(&self, row: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
        Pairs.read(row)
    }

    fn load(&self, files: &[PathBuf], limit: Option<usize>) -> Result<(Vec<Item>, LoadReport)> {
        Pairs.load(files, limit)
    }

    fn measure(&self, set: &Set<'_>, resampling: Resampling) -> Metrics {
        let mut metrics = pair_accuracy(set, resampling);
        metrics.extend(both_orders(set, resampling));
        metrics
    }

    fn details(&self, set: &Set<'_>) -> BTreeMap<String, Value> {
        let is_pairwise = set.answered.iter().any(|a| matches!(a.answer, Answer::Verdicts(_)));
        let chance = if is_pairwise { 0.25 } else { 0.5 };
        BTreeMap::from([("chance.both_orders.strict".to_owned(), json!(chance))])
    }
}

/// Credits of one pair: strict, and with ties at one half.
fn credits(item: &Item, answered: &Answered) -> Option<[f64; 2]> {
    let (right, wrong) = item.labelled_pairs().first().copied()?;
    let Answer::Verdicts(verdicts) = &answered.answer else {
        let outcome = answered.answer.outcome(right, wrong);
        return Some([outcome.strict_credit(), outcome.half_credit()]);
    };
    let expected = if right < wrong { Preference::First } else { Preference::Second };
    let of = |order: Option<Option<Preference>>| match order.flatten() {
        None | Some(Preference::Unknown) => Outcome::Fault,
        Some(Preference::Tie) => Outcome::Tie,
        Some(preference) if preference == expected => Outcome::Right,
        Some(_) => Outcome::Wrong,
    };
    let orders = verdicts.get(&(right.min(wrong), right.max(wrong)))?.preferences().map(of);
    Some([
        orders.iter().map(|outcome| outcome.strict_credit()).product(),
        orders.iter().map(|outcome| outcome.half_credit()).product(),
    ])
}

fn both_orders(set: &Set<'_>, resampling: Resampling) -> Metrics {
    let groups = groups(set);
    let mut tally = Tally::new(3 * groups.len());
    let mut counts = vec![0usize; groups.len()];
    for (index, (item, answered)) in set.items.iter().zip(set.answered).enumerate() {
        let [strict, half] = credits(item, answered).unwrap_or([0.0, 0.25]);
        for name in names(item) {
            let Some(&group) = groups.get(&name) else { continue };
            counts[group] += 1;
            tally.add(set.clusters[index], 3 * group, strict);
            tally.add(set.clusters[index], 3 * group + 1, half);
            tally.add(set.clusters[index], 3 * group + 2, 1.0);
        }
    }
    let mut figures = Vec::new();
    for (name, &group) in &groups {
        let (slot, n) = (3 * group, counts[group]);
        let named = |rule: &str| format!("{name}both_orders.{rule}");
        figures.push(Figure::proportion(named("strict"), slot, slot + 2, n));
        let half = move |sums: &[f64]| ratio(sums[slot + 1], sums[slot + 2]);
        figures.push(Figure::of(named("half_credit"), n, half).share_of(slot + 2));
    }
    tally.measure(&figures, resampling)
}

/// The groups a pair belongs to, as prefixes of figures.
fn names(item: &Item) -> Vec<String> {
    let mut names = vec![String::new()];
    if !item.subset.is_empty() {
        names.push(format!("subset.{}.", item.subset));
    }
    let kind = item.id.rsplit_once('/').map(|(_, kind)| kind);
    let kind = ToolError::ALL.into_iter().find(|known| Some(known.name()) == kind);
    names.extend(kind.map(|kind| format!("error.{}.", kind.name())));
    names
}

fn groups(set: &Set<'_>) -> BTreeMap<String, usize> {
    let all: HashSet<String> = set.items.iter().flat_map(names).collect();
    let mut sorted: Vec<String> = all.into_iter().collect();
    sorted.sort();
    sorted.into_iter().enumerate().map(|(number, name)| (name, number)).collect()
}

#[cfg(test)]
mod tests {
    use patarm_text::Conversation;

    use super::*;
    use crate::scores::{Shown, Verdicts};

    const RESAMPLING: Resampling = Resampling { resamples: 200, seed: 2 };

    /// Pairs whose right response stands first in every second one.
    fn items(n: usize) -> Vec<Item> {
        (0..n)
            .map(|i| {
                let kind = ToolError::ALL[i % 6].name();
                let prompt = Conversation::from_user(format!("p{i}"));
                let item = Item::pair(format!("t{i}/{kind}"), prompt, "a".into(), "b".into());
                let label = if i % 2 == 0 { Preference::First } else { Preference::Second };
                let label = crate::benchmark::item::Label::Preference(label);
                Item { label, subset: "simple".to_owned(), ..item }
            })
            .collect()
    }

    /// The verdict a judge gives on (pair, order, whether what is shown first is right).
    fn measured(n: usize, judge: impl Fn(usize, usize, bool) -> Option<Shown>) -> Metrics {
        let items = items(n);
        let answered: Vec<Answered> = items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let first_is_right = item.right() == [0];
                let verdicts = Verdicts {
                    straight: Some(judge(index, 0, first_is_right)),
                    swapped: Some(judge(index, 1, !first_is_right)),
                };
                Answered::bare(Answer::Verdicts(BTreeMap::from([((0, 1), verdicts)])))
            })
            .collect();
        let clusters: Vec<usize> = (0..n).collect();
        let set = Set { items: &items, answered: &answered, clusters: &clusters };
        ToolPairs.measure(&set, RESAMPLING)
    }

    #[track_caller]
    fn check(metrics: &Metrics, strict: f64, half: f64) {
        assert_eq!(metrics["both_orders.strict"].value, Some(strict));
        assert_eq!(metrics["both_orders.half_credit"].value, Some(half));
    }

    #[test]
    fn judges_that_know_all_and_nothing() {
        let oracle = |_, _, first| Some(if first { Shown::First } else { Shown::Second });
        let metrics = measured(24, oracle);
        check(&metrics, 1.0, 1.0);
        assert_eq!(metrics["error.wrong_value.both_orders.strict"].n, 4);
        assert_eq!(metrics["subset.simple.both_orders.strict"].value, Some(1.0));
        check(&measured(24, |_, _, _| Some(Shown::First)), 0.0, 0.0);
        check(&measured(24, |_, _, _| Some(Shown::Tie)), 0.0, 0.25);
        check(&measured(24, |_, _, _| None), 0.0, 0.25);
        check(&measured(1, oracle), 1.0, 1.0);
        assert!(measured(0, oracle).is_empty());
    }

    /// Two fair coins are both right in a quarter of the pairs.
    #[test]
    fn coins_have_a_quarter() {
        let coin = |index: usize, order: usize, _| {
            let heads = crate::random::draw(9, (2 * index + order) as u64) & 1 == 1;
            Some(if heads { Shown::First } else { Shown::Second })
        };
        let metric = measured(4000, coin)["both_orders.strict"];
        let [low, high] = metric.ci95.expect("an interval");
        assert!(low < 0.25 && 0.25 < high, "{metric:?}");
    }

    #[test]
    fn scores_have_no_orders() {
        let items = items(4);
        let answered: Vec<Answered> =
            [[2.0, 1.0], [2.0, 1.0], [1.0, 1.0], [0.0, 1.0]].map(Answered::of_scores).to_vec();
        let clusters = [0, 1, 2, 3];
        let set = Set { items: &items, answered: &answered, clusters: &clusters };
        check(&ToolPairs.measure(&set, RESAMPLING), 0.5, 0.625);
        assert_eq!(ToolPairs.details(&set)["chance.both_orders.strict"], 0.5);
    }
}
