use super::*;

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
