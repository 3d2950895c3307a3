//! Rows of scores and verdicts, good and bad.

use super::*;

fn parse(text: &str) -> Result<ScoreTable> {
    ScoreTable::parse(text.as_bytes())
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let message = parse(text).expect_err("must be refused").to_string();
    assert!(message.contains(expected), "{message}");
}

#[test]
fn reads_scores_and_verdicts() {
    let table = parse(concat!(
        "{\"item\": \"a\", \"response\": 1, \"score\": 3}\n\n",
        "{\"item\": 7, \"first\": 1, \"second\": 0, \"verdict\": \"first\", \"note\": 1}\n",
        "{\"item\": \"a\", \"response\": 0, \"score\": null}\n",
        "{\"item\": \"b\", \"response\": 5, \"score\": -1.5}",
    ))
    .expect("well formed");
    assert_eq!(table.get("a"), Some(&Entry::Scores(vec![None, Some(3.0)])));
    let Some(Entry::Scores(scores)) = table.get("b") else { panic!("no scores") };
    assert_eq!((scores.len(), scores[5]), (6, Some(-1.5)));
    let Some(Entry::Verdicts(verdicts)) = table.get("7") else { panic!("no verdicts") };
    assert_eq!(verdicts[&(0, 1)].combined(), Some(Preference::Second));
    assert_eq!((table.len(), table.num_rows_without(&["a", "b", "x"])), (3, 1));
    assert_eq!(table.row_faults(), &RowFaults::default());
}

#[test]
fn a_file_without_a_usable_row_is_refused() {
    refused("[]", "line 1: not a JSON object");
    refused("{\"response\": 0, \"score\": 1}", "`item`");
    refused("{\"item\": \"a\", \"response\": 99999, \"score\": 1}", "`response`");
    refused("{\"item\": \"a\", \"response\": -1, \"score\": 1}", "`response`");
    refused("{\"item\": \"a\", \"response\": 0, \"score\": \"1\"}", "`score`");
    let same = "{\"item\": \"a\", \"first\": 0, \"second\": 0, \"verdict\": null}";
    refused(same, "same response");
    refused("{\"item\": \"a\", \"first\": 0, \"second\": 1, \"verdict\": \"A\"}", "`verdict`");
    refused("{\"item\": \"a\"}", "either");
    assert!(parse("").expect("no rows, no faults").is_empty());
}

#[test]
fn bad_rows_are_counted_and_named() {
    let row = "{\"item\": \"a\", \"response\": 0, \"score\": 1}\n";
    let verdict = "{\"item\": \"a\", \"first\": 1, \"second\": 0, \"verdict\": null}\n";
    let nan = "{\"item\": \"a\", \"response\": 1, \"score\": NaN}\n";
    let table = parse(&format!("{row}{row}{verdict}{nan}oops\n")).expect("usable rows");
    assert_eq!(table.get("a"), Some(&Entry::Scores(vec![Some(1.0), None])));
    let faults = table.row_faults();
    assert_eq!((faults.malformed, faults.duplicates, faults.non_finite), (2, 1, 1));
    assert!(faults.examples[0].starts_with("scores, line 2: item \"a\" has this row twice"));
    assert!(faults.examples[1].contains("both scores and verdicts"));
    assert!(faults.examples[2].contains("not finite"));
    assert!(faults.examples[3].starts_with("scores, line 5"));
}

#[test]
fn both_orders_combine() {
    use Shown::{First, Second, Tie};
    let combined = |straight, swapped| Verdicts { straight, swapped }.combined();
    assert_eq!(combined(Some(Some(First)), Some(Some(Second))), Some(Preference::First));
    assert_eq!(combined(Some(Some(First)), Some(Some(First))), Some(Preference::Tie));
    assert_eq!(combined(Some(Some(Tie)), Some(Some(Tie))), Some(Preference::Tie));
    assert_eq!(combined(Some(Some(First)), Some(None)), None);
    assert_eq!(combined(None, Some(Some(First))), Some(Preference::Second));
    assert_eq!(combined(None, None), None);
}

#[test]
fn a_first_position_judge_has_no_consistency() {
    let rows: String = (0..4)
        .flat_map(|item| {
            [(0, 1), (1, 0)].map(|(first, second)| {
                format!(
                    "{{\"item\": {item}, \"first\": {first}, \"second\": {second}, \"verdict\": \"first\"}}\n"
                )
            })
        })
        .collect();
    let table = parse(&rows).expect("well formed");
    let summary = table.order_summary(&["0", "1", "2", "3"]).expect("there are verdicts");
    assert_eq!(summary.consistency, Some(0.0));
    assert_eq!(summary.first_position_share, Some(1.0));
    assert_eq!((summary.num_verdicts, summary.num_both_orders), (8, 4));
    assert_eq!(table.order_summary(&["9"]), None);
}
