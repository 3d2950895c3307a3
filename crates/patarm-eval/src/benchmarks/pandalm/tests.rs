//! Agreement with annotators, ties among the labels.

use super::*;

const COUNTS_12: [[usize; 3]; 3] = [[388, 23, 16], [29, 435, 11], [0, 8, 89]];
const COUNTS_13: [[usize; 3]; 3] = [[391, 21, 15], [18, 448, 9], [2, 6, 89]];
const COUNTS_23: [[usize; 3]; 3] = [[379, 28, 10], [19, 441, 6], [13, 6, 97]];

#[test]
fn two_of_three_decide() {
    use Preference::{First, Second, Tie, Unknown};
    assert_eq!(majority(&[First, Second, First]), First);
    assert_eq!(majority(&[Tie, Tie, Second]), Tie);
    assert_eq!(majority(&[Tie, First, Second]), Unknown);
}

#[test]
fn annotators_are_held_against_each_other() {
    use Preference::{First, Second, Tie};
    let item = |votes: [Preference; 3]| {
        let mut item = Item { label: Label::Preference(majority(&votes)), ..Item::default() };
        item.extra.insert("annotators".to_owned(), json!(votes));
        item
    };
    let items = [item([First; 3]), item([Second; 3]), item([Tie, Tie, First])];
    let details = annotators(&items);
    assert_eq!(details["annotators.unanimous"], 2);
    assert_eq!(details["annotator1.agreement_with_majority"], 1.0);
    assert_eq!(details["annotator3.agreement_with_majority"], json!(2.0 / 3.0));
    assert_eq!(details["annotator1_annotator2.cohen_kappa"], 1.0);
}

/// The annotators of the published test set (WeOpenML/PandaLM, Apache-2.0): counts of
/// (first, second, tie) of one against those of another over its 999 pairs, and the
/// κ of 0.85, 0.88 and 0.86 that its authors give.
#[test]
fn kappa_of_the_published_annotators() {
    use Preference::{First, Second, Tie};
    const CLASSES: [Preference; 3] = [First, Second, Tie];
    for (counts, published) in [(COUNTS_12, 0.85), (COUNTS_13, 0.88), (COUNTS_23, 0.86)] {
        let (mut labels, mut answers) = (Vec::new(), Vec::new());
        for (row, label) in counts.iter().zip(CLASSES) {
            for (count, answer) in row.iter().zip(CLASSES) {
                labels.extend(std::iter::repeat_n(label, *count));
                answers.extend(std::iter::repeat_n(answer, *count));
            }
        }
        assert_eq!(labels.len(), 999);
        let metrics = compared(&labels, &answers, Resampling { resamples: 0, seed: 0 });
        let kappa = metrics["cohen_kappa"].value.expect("a value");
        assert!((kappa - published).abs() < 0.005, "{kappa} is not {published}");
    }
}

#[test]
fn a_truth_value_is_the_word() {
    let row = json!({"idx": 157, "instruction": "Is it?", "input": "", "response1": true,
                     "response2": "True.", "annotator1": 1, "annotator2": 1, "annotator3": 2});
    let fields = row.as_object().expect("an object");
    let file = std::path::Path::new("testset.json");
    let items = PandaLm.read(&Row { file, line: 1, index: 0, fields }).expect("an item");
    assert_eq!(items[0].responses, ["True", "True."]);
}
