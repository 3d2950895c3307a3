//! Human and best-of-K figures on rows made by hand.

use patarm_text::Conversation;

use super::{best_of_k::curve, *};
use crate::benchmark::responses::clusters;

/// Counted by hand over all subsets of three responses, correct the middle-scored one.
#[test]
fn curve_by_hand() {
    let values = curve(&[1.0, 2.0, 3.0], &[0.0, 1.0, 0.0], 4);
    let expected = [1.0 / 3.0, 1.0 / 3.0, 0.0, 0.0];
    for (value, expected) in values.iter().zip(expected) {
        assert!((value - expected).abs() < 1e-12, "{values:?}");
    }
}

/// An oracle on p correct of K reaches 1 at K; a constant judge stays at the mean.
#[test]
fn oracle_and_constant() {
    let correct = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0];
    let oracle = curve(&correct, &correct, 8);
    // 1 − C(6, k)/C(8, k)
    assert!((oracle[0] - 0.25).abs() < 1e-12);
    assert!((oracle[1] - (1.0 - 15.0 / 28.0)).abs() < 1e-12);
    assert!((oracle[7] - 1.0).abs() < 1e-12);
    assert!(curve(&[5.0; 8], &correct, 8).iter().all(|value| (value - 0.25).abs() < 1e-12));
}

fn best_of(id: usize, correct: Vec<bool>) -> Item {
    Item {
        id: id.to_string(),
        subset: "math".to_owned(),
        prompt: Conversation::from_user(id.to_string()),
        responses: vec!["r".to_owned(); correct.len()],
        label: Label::Correct(correct),
        ..Item::default()
    }
}

#[test]
fn figures_of_a_set() {
    let items =
        [best_of(0, vec![true, false]), best_of(1, vec![true, false]), best_of(2, vec![false; 2])];
    let answered = [[2.0, 1.0], [1.0, 2.0], [1.0, 2.0]].map(Answered::of_scores);
    let clusters = clusters(&items);
    let set = Set { items: &items, answered: &answered, clusters: &clusters };
    let metrics = Ppe.measure(&set, Resampling { resamples: 20, seed: 0 });
    let value = |name: &str| metrics[&format!("correctness.math.{name}")].value.expect("a value");
    assert!((value("accuracy") - 0.5).abs() < 1e-12);
    assert!((value("end_score") - 1.0 / 3.0).abs() < 1e-12);
    assert!((value("max_score") - 1.0 / 3.0).abs() < 1e-12);
    // Curves 1/3, 1/3 against the ideal 1/3, 2/3.
    assert!((value("loss") - 1.0 / 18.0).abs() < 1e-12);
    assert_eq!(metrics["correctness.math.accuracy"].n, 2);
}
