//! Pairwise and best-of-N accuracy by goal.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::benchmark::{answers::Answered, responses::clusters};

fn read(path: &str, row: &Value) -> Result<Item, RowProblem> {
    let fields = row.as_object().expect("an object");
    let row = Row { file: Path::new(path), line: 1, index: 0, fields };
    Rmb.read(&row).map(|mut items| items.remove(0))
}

fn set_of(goal: &str, id: usize) -> Item {
    let row = json!({
        "bon_uid": id,
        "conversation_input": [{"role": "user", "content": format!("{goal} {id}")}],
        "bon_best": {"llm_name": "a", "answer": "best"},
        "loser_list": [{"answer": "x"}, {"answer": "y"}],
    });
    read(&format!("RMB/BoN_set/{goal}/c.json"), &row).expect("a set")
}

#[test]
fn both_forms_are_read() {
    let bon = set_of("Helpfulness", 3);
    assert_eq!((bon.subset.as_str(), bon.responses.len()), ("best_of_n.helpfulness", 3));
    let row = json!({
        "pair_uid": "p", "conversation_input": "Why?", "category_path": "Harmlessness/x",
        "chosen": {"answer": "good"}, "reject": {"answer": "bad"},
    });
    let pair = read("pairs.json", &row).expect("a pair");
    assert_eq!(pair.subset, "pairwise.harmlessness");
    assert_eq!(pair.labelled_pairs(), [(0, 1)]);
    let gone = json!({"pair_uid": "p", "conversation_input": "Why?", "chosen": {"answer": "x"}});
    assert!(matches!(read("helpful.json", &gone), Err(RowProblem::MissingResponse(_))));
}

/// The best must beat every loser: a tie or a loss with one of them is not right.
#[test]
fn best_of_n_needs_all() {
    let items = [set_of("helpfulness", 0), set_of("helpfulness", 1), set_of("helpfulness", 2)];
    let answered = [[3.0, 1.0, 2.0], [3.0, 3.0, 2.0], [3.0, 4.0, 2.0]].map(Answered::of_scores);
    let clusters = clusters(&items);
    let set = Set { items: &items, answered: &answered, clusters: &clusters };
    let metrics = Rmb.measure(&set, Resampling { resamples: 20, seed: 0 });
    let value = |name: &str| metrics[name].value.expect("a value");
    assert!((value("best_of_n.helpfulness.strict") - 1.0 / 3.0).abs() < 1e-12);
    assert!((value("best_of_n.helpfulness.half_credit") - 0.5).abs() < 1e-12);
    assert!((value("accuracy.strict") - 4.0 / 6.0).abs() < 1e-12);
    assert!(!metrics.contains_key("overall.strict"));
    assert_eq!(Rmb.missing(&items).len(), 3);
}
