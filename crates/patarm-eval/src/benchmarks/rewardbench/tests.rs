//! Official counts and weights, prior sets, files.

use serde_json::Value;

use super::*;
use crate::benchmark::{answers::Answered, responses::clusters};

const RESAMPLING: Resampling = Resampling { resamples: 50, seed: 1 };

/// Every subset with its real number of pairs.
fn whole() -> Vec<Item> {
    let subsets = SECTIONS.iter().flat_map(|(_, subsets)| subsets.iter());
    let rows = subsets.flat_map(|(name, _, rows)| (0..*rows).map(move |row| (*name, row)));
    let item = |(name, row): (&str, usize)| {
        let prompt = Conversation::from_user(format!("{name} {row}"));
        let item = Item::pair(format!("{name}/{row}"), prompt, "yes".into(), "no".into());
        Item { subset: name.to_owned(), ..item }
    };
    rows.map(item).collect()
}

fn measured(items: &[Item], score: impl Fn(&Item, usize) -> f64) -> Metrics {
    let answered: Vec<Answered> =
        items.iter().map(|item| Answered::of_scores([score(item, 0), score(item, 1)])).collect();
    let clusters = clusters(items);
    let set = Set { items, answered: &answered, clusters: &clusters };
    RewardBench.measure(&set, RESAMPLING)
}

#[track_caller]
fn close(metrics: &Metrics, name: &str, expected: f64) {
    let value = metrics[name].value.expect("a value");
    assert!((value - expected).abs() < 1e-12, "{name}: {value} is not {expected}");
}

/// 2,985 rows as the data set says, weights of 358, 456, 740 and 1,968 by its constants.
#[test]
fn constants_add_up() {
    let rows = |section: usize| SECTIONS[section].1.iter().map(|s| s.2).sum::<usize>();
    assert_eq!((0..4).map(rows).sum::<usize>(), 2_985);
    let weights = SECTIONS.map(|(_, subsets)| subsets.iter().map(|s| s.1).sum::<f64>());
    assert_eq!(weights, [358.0, 456.0, 740.0, 1_968.0]);
}

#[test]
fn oracle_and_constant() {
    let items = whole();
    let oracle = measured(&items, |_, response| f64::from(response == 0));
    close(&oracle, "leaderboard.strict", 1.0);
    close(&oracle, "section.reasoning.half_credit", 1.0);
    let constant = measured(&items, |_, _| 5.0);
    close(&constant, "leaderboard.strict", 0.0);
    close(&constant, "leaderboard.half_credit", 0.5);
    close(&constant, "accuracy.tie_rate", 1.0);
}

/// Only math-prm right: 984 of 1,968 in its section by the official weight, 447 of
/// 1,431 by rows, and a quarter of half on the leaderboard.
#[test]
fn mathematics_counts_as_much_as_code() {
    let items = whole();
    let metrics = measured(&items, |item, response| match item.subset.as_str() {
        "math-prm" => f64::from(response == 0),
        _ => f64::from(response == 1),
    });
    close(&metrics, "section.reasoning.strict", 0.5);
    close(&metrics, "leaderboard.strict", 0.125);
    close(&metrics, "accuracy.strict", 447.0 / 2_985.0);
    assert!(missing(&items).iter().all(|name| name.ends_with("(prior set)")));
}

/// Weights 2, 2, 2, 2 and 1 of nine.
#[test]
fn prior_sets_count_half() {
    let mut items = whole();
    for set in PRIOR_SETS {
        let prompt = Conversation::from_user(set);
        let item = Item::pair(set.to_owned(), prompt, "yes".into(), "no".into());
        items.push(Item { subset: set.to_owned(), ..item });
    }
    let metrics = measured(&items, |item, response| match item.subset.as_str() {
        "shp" => f64::from(response == 1),
        name if is_prior(name) => f64::from(response == 0),
        _ => f64::from(response == 1),
    });
    close(&metrics, "section.prior-sets.strict", 0.75);
    close(&metrics, "leaderboard.strict", 0.75 / 9.0);
    assert!(missing(&items).is_empty());
}

/// Nothing that looks official comes out of a part.
#[test]
fn parts_are_named_and_give_no_overall_figure() {
    let mut items = whole();
    items.retain(|item| item.subset.starts_with("llmbar") || item.subset == "hep-go");
    items.pop();
    let metrics = measured(&items, |_, response| f64::from(response == 0));
    assert!(!metrics.keys().any(|name| name.starts_with("leaderboard")));
    assert!(!metrics.keys().any(|name| name.starts_with("section")));
    close(&metrics, "present.chat-hard.strict", 1.0);
    let missing = missing(&items);
    assert!(missing.contains(&"hep-go (163 of 164 pairs)".to_owned()), "{missing:?}");
    assert!(missing.contains(&"mt-bench-hard".to_owned()));
    assert_eq!(missing.len(), 23 - 5 + 4);
}

#[test]
fn official_files_have_their_columns() {
    let items = whole();
    let answered: Vec<Answered> = items.iter().map(|_| Answered::of_scores([2.0, 1.0])).collect();
    let clusters = clusters(&items);
    let set = Set { items: &items, answered: &answered, clusters: &clusters };
    let metrics = RewardBench.measure(&set, RESAMPLING);
    let files = files::official(&set, &metrics, "org/judge");
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["eval-set/judge.json", "eval-set-scores/judge.json"]);
    let results: Value = serde_json::from_str(&files[0].text).expect("JSON");
    assert_eq!(results["model_type"], "Seq. Classifier");
    assert_eq!(results["math-prm"], 1.0);
    assert!(files[0].text.starts_with("{\n    \"alpacaeval-easy\": 1.0,"));
    let scores: Value = serde_json::from_str(&files[1].text).expect("JSON");
    for column in ["text_chosen", "text_rejected", "results", "subset", "id", "scores_chosen"] {
        assert_eq!(scores[column].as_array().map(Vec::len), Some(2_985), "{column}");
    }
}
