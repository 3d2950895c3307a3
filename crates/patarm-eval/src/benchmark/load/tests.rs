//! Rows as they come: good, bad, twice, and without their responses.

use super::*;

fn pair(row: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
    let (chosen, rejected) = (row.response("chosen")?, row.response("rejected")?);
    Ok(vec![Item::pair(row.id("id")?, row.prompt("prompt")?, chosen, rejected)])
}

fn load(folder: &Path, limit: Option<usize>) -> Result<(Vec<Item>, LoadReport)> {
    load_items(&data_files(&[folder.to_path_buf()])?, limit, &pair)
}

fn folder_with(name: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join(name), text).expect("written");
    folder
}

const GOOD: &str = r#"{"id": 1, "prompt": "p", "chosen": "a", "rejected": "bb"}"#;

#[test]
fn every_kind_of_row_is_counted_and_named() {
    let rows = [
        GOOD,
        GOOD,
        r#"{"id": 2, "prompt": "p", "chosen": "a", "rejected": null}"#,
        r#"{"id": 3, "prompt": "p", "chosen": "a"}"#,
        r#"{"id": 4, "prompt": 7, "chosen": "a", "rejected": "b"}"#,
        "[1, 2]",
        "{",
        r#"{"id": "5", "prompt": [{"role": "user", "content": "p"}], "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b"}"#,
    ];
    let folder = folder_with("rows.jsonl", &rows.join("\n"));
    let (items, report) = load(folder.path(), None).expect("two items");
    assert_eq!(items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["1", "5"]);
    assert_eq!(items[0].lengths, [1, 2]);
    assert_eq!(items[1].responses, ["a", "b"]);
    assert_eq!((report.num_rows, report.num_malformed, report.num_duplicates), (8, 3, 1));
    assert_eq!(report.num_missing_responses, 2);
    assert_eq!(report.problems.len(), 6);
    assert!(report.problems[0].contains("rows.jsonl:2: a second item with id \"1\""));
    assert!(report.problems[1].contains("rows.jsonl:3: response `rejected` is missing"));
    assert!(report.problems.iter().any(|p| p.contains(":5: field `prompt` must be")));
    assert!(report.problems.iter().any(|p| p.contains(":6: not a JSON object")));
}

#[test]
fn nothing_usable_is_an_error_with_an_example() {
    let folder = folder_with("rows.jsonl", "{\"id\": 1}\n{\"id\": 2}\n");
    let message = load(folder.path(), None).expect_err("no item").to_string();
    assert!(message.contains("none of 2 rows") && message.contains("rows.jsonl:1"), "{message}");
    let empty = tempfile::tempdir().expect("a temporary folder");
    assert!(load(empty.path(), None).expect_err("no file").to_string().contains("holds no"));
    assert!(load(&empty.path().join("absent"), None).is_err());
}

#[test]
fn a_limit_stops_reading_and_damage_ends_it() {
    let rows: String = (0..50).map(|id| GOOD.replacen('1', &id.to_string(), 1) + "\n").collect();
    let folder = folder_with("rows.jsonl", &rows);
    let (items, report) = load(folder.path(), Some(3)).expect("three items");
    assert_eq!((items.len(), report.num_rows), (3, 3));

    let cut = folder_with("rows.json", "[{\"id\": 1},");
    assert!(load(cut.path(), None).expect_err("damaged").to_string().contains("not closed"));
}

#[test]
fn folders_are_walked_in_order_and_hidden_ones_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (path, id) in [("b/x.json", 2), ("a/x.jsonl", 1), (".git/x.json", 3), ("b/readme.md", 4)] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, GOOD.replacen('1', &id.to_string(), 1)).expect("written");
    }
    let (items, _) = load(folder.path(), None).expect("two items");
    assert_eq!(items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn an_item_needs_two_responses_and_not_too_many() {
    let one = |_: &Row<'_>| Ok(vec![Item { responses: vec!["a".into()], ..Item::default() }]);
    let folder = folder_with("rows.jsonl", "{}");
    let files = data_files(&[folder.path().to_path_buf()]).expect("a file");
    assert!(load_items(&files, None, &one).is_err());
    let many = |_: &Row<'_>| {
        Ok(vec![Item { responses: vec!["a".into(); MAX_RESPONSES + 1], ..Item::default() }])
    };
    assert!(load_items(&files, None, &many).is_err());
}
