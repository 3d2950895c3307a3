//! The counter rule in every case, and the official file.

use super::*;
use crate::{
    benchmark::responses::clusters,
    scores::{Shown, Verdicts},
};

fn pair(id: &str, source: &str, right: usize) -> Item {
    let mut item = Item {
        id: id.to_owned(),
        subset: source_of(source),
        prompt: Conversation::from_user(id),
        responses: vec!["one".to_owned(), "two".to_owned()],
        label: Label::Correct(vec![right == 0, right == 1]),
        ..Item::default()
    };
    item.extra.insert("pair_id".to_owned(), id.into());
    item.extra.insert("response_model".to_owned(), "gpt-4o".into());
    item
}

fn verdicts(straight: Option<Shown>, swapped: Option<Shown>) -> Answered {
    let verdicts = Verdicts { straight: Some(straight), swapped: Some(swapped) };
    Answered::bare(Answer::Verdicts([((0, 1), verdicts)].into()))
}

/// All sixteen pairs of decisions; `swapped` shows the second response first.
#[test]
fn counter_rule() {
    use Shown::{First, Second, Tie};
    let item = pair("a", "mmlu-pro-law", 0);
    let right = |straight, swapped| counter(&item, &verdicts(straight, swapped).answer) > 0;
    for (straight, swapped, expected) in [
        (Some(First), Some(Second), true),
        (Some(First), Some(Tie), true),
        (Some(First), None, true),
        (Some(Tie), Some(Second), true),
        (None, Some(Second), true),
        (Some(First), Some(First), false),
        (Some(Second), Some(Second), false),
        (Some(Second), Some(First), false),
        (Some(Second), Some(Tie), false),
        (Some(Second), None, false),
        (Some(Tie), Some(First), false),
        (None, Some(First), false),
        (Some(Tie), Some(Tie), false),
        (Some(Tie), None, false),
        (None, Some(Tie), false),
        (None, None, false),
    ] {
        assert_eq!(right(straight, swapped), expected, "{straight:?} {swapped:?}");
    }
    let other = pair("b", "x", 1);
    assert_eq!(counter(&other, &verdicts(Some(Second), Some(First)).answer), 2);
}

#[test]
fn scalar_models_play_one_game() {
    let item = pair("a", "livebench-math", 1);
    assert_eq!(counter(&item, &Answered::of_scores([1.0, 2.0]).answer), 1);
    assert_eq!(counter(&item, &Answered::of_scores([2.0, 1.0]).answer), -1);
    assert_eq!(counter(&item, &Answered::of_scores([1.0, 1.0]).answer), 0);
}

#[test]
fn sources_are_pooled_and_splits_are_known() {
    let mut items = Vec::new();
    for (source, sizes) in SOURCES {
        items.extend((0..sizes[1]).map(|n| pair(&format!("{source} {n}"), source, 0)));
    }
    assert!(JudgeBench.missing(&items).is_empty());
    let answered: Vec<Answered> = items
        .iter()
        .map(|item| match item.subset.as_str() {
            "mmlu-pro" => verdicts(Some(Shown::First), Some(Shown::Second)),
            _ => verdicts(Some(Shown::First), Some(Shown::First)),
        })
        .collect();
    let clusters = clusters(&items);
    let set = Set { items: &items, answered: &answered, clusters: &clusters };
    let metrics = JudgeBench.measure(&set, Resampling { resamples: 20, seed: 0 });
    assert_eq!(metrics["overall"].value, Some(154.0 / 270.0));
    assert_eq!(metrics["source.mmlu-pro"].value, Some(1.0));
    assert_eq!(metrics["source.livecodebench"].value, Some(0.0));
    items.pop();
    assert_eq!(JudgeBench.missing(&items).len(), 2);
}

#[test]
fn the_official_file_has_both_games() {
    let items = [pair("a", "mmlu-pro-law", 0)];
    let answered = [verdicts(Some(Shown::First), None)];
    let set = Set { items: &items, answered: &answered, clusters: &[0] };
    let files = file::official(&set, "runs/mine");
    assert_eq!(
        files[0].path,
        "dataset=judgebench,response_model=gpt-4o,judge_name=patarm,judge_model=mine.jsonl"
    );
    let row: serde_json::Value = serde_json::from_str(&files[0].text).expect("JSON");
    assert_eq!(row["pair_id"], "a");
    assert_eq!(row["judgments"][0]["decision"], "A>B");
    assert_eq!(row["judgments"][1]["decision"], serde_json::Value::Null);
    assert_eq!(row["judgments"].as_array().map(Vec::len), Some(2));
}
