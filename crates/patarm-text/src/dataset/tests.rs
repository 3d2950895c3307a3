//! Readers and writers on the files of `testdata/text/datasets`.
//!
//! Every `NAME` there has a `NAME.expected.json`: the format found, and for each
//! record the comparison or the text of the error. `UPDATE_EXPECTED=1` rewrites
//! them; read the difference before keeping it.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::comparison::{Item, Preference, Task};
use crate::conversation::{Conversation, Message, Role};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/text/datasets")
}

fn inputs() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            !name.ends_with(".expected.json") && !name.ends_with(".py")
        })
        .collect();
    files.sort();
    files
}

/// What reading a file gives, without its folder.
fn outcome(path: &Path, options: &ReadOptions) -> Value {
    let clean = |error: ReadError| {
        let name = path.file_name().unwrap();
        Value::from(error.in_file(Path::new(name)).to_string())
    };
    let mut reader = match ComparisonReader::open(path, options) {
        Ok(reader) => reader,
        Err(error) => return json!({"error": clean(error)}),
    };
    let records: Vec<Value> = reader
        .by_ref()
        .take(1000)
        .map(|record| match record {
            Ok(comparison) => serde_json::to_value(comparison).unwrap(),
            Err(error) => clean(error),
        })
        .collect();
    json!({"format": reader.format().map(Format::name), "records": records})
}

#[test]
fn files_read_as_expected() {
    let files = inputs();
    assert!(files.len() >= 25);
    for path in files {
        let found = outcome(&path, &ReadOptions::default());
        let expected = PathBuf::from(format!("{}.expected.json", path.display()));
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            let text = serde_json::to_string_pretty(&found).unwrap() + "\n";
            std::fs::write(&expected, text).unwrap();
        }
        let text = std::fs::read_to_string(&expected).unwrap_or_default();
        let want: Value = serde_json::from_str(&text).unwrap_or_default();
        assert_eq!(found, want, "{}", path.display());
    }
}

#[test]
fn skipping_counts_what_failing_reports() {
    let path = folder().join("bad_rows.jsonl");
    let strict: Vec<_> = ComparisonReader::open(&path, &ReadOptions::default()).unwrap().collect();
    let bad = strict.iter().filter(|record| record.is_err()).count() as u64;
    let options = ReadOptions { on_error: OnError::Skip, ..ReadOptions::default() };
    let mut reader = ComparisonReader::open(&path, &options).unwrap();
    let good: Vec<_> = reader.by_ref().collect();
    assert!(good.iter().all(Result::is_ok));
    assert_eq!(good.len() as u64 + bad, strict.len() as u64);
    assert_eq!(reader.skipped().count, bad);
    assert_eq!(reader.skipped().examples.len(), MAX_EXAMPLES);
    assert_eq!(reader.num_rows(), strict.len() as u64);
    // Damage of the file itself is never skipped.
    let broken = ComparisonReader::open(&folder().join("broken_array.json"), &options).unwrap();
    assert!(broken.last().unwrap().is_err());
}

#[test]
fn a_named_format_is_not_second_guessed() {
    let options = ReadOptions { format: Some(Format::LlmBar), ..ReadOptions::default() };
    let path = folder().join("trl_strings.jsonl");
    let first = ComparisonReader::open(&path, &options).unwrap().next().unwrap().unwrap_err();
    assert_eq!(first.field.as_deref(), Some("label"));
    assert_eq!(first.line, 1);
    for format in Format::ALL {
        assert_eq!(format.name().parse::<Format>().unwrap(), format);
    }
    assert!("dpo".parse::<Format>().unwrap_err().contains("trl"));
}

#[test]
fn limits_hold() {
    let limits = Limits { max_rows: Some(2), ..Limits::default() };
    let options = ReadOptions { limits, ..ReadOptions::default() };
    for name in ["two_members.jsonl.gz", "strings.parquet", "array.json.gz"] {
        assert_eq!(ComparisonReader::open(&folder().join(name), &options).unwrap().count(), 2);
    }
    let limits = Limits { max_row_bytes: 30, ..Limits::default() };
    let options = ReadOptions { limits, ..ReadOptions::default() };
    let mut reader =
        ComparisonReader::open(&folder().join("two_members.jsonl.gz"), &options).unwrap();
    let error = reader.next().unwrap().unwrap_err();
    assert_eq!(error.kind, ReadErrorKind::TooLong { limit: 30 });
}

#[test]
fn missing_files_and_folders_are_errors() {
    let open = |path: &Path| ComparisonReader::open(path, &ReadOptions::default()).unwrap_err();
    assert!(matches!(open(Path::new("no/such/file")).kind, ReadErrorKind::Io(_)));
    assert!(open(&folder()).to_string().contains("folder"));
}

/// A small generator of damage, the same on every run (SplitMix64).
struct Damage(u64);

impl Damage {
    fn next(&mut self, bound: usize) -> usize {
        (crate::random::splitmix64(&mut self.0) % bound as u64) as usize
    }

    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.next(3) {
            if bytes.is_empty() {
                return;
            }
            let at = self.next(bytes.len());
            match self.next(4) {
                0 => bytes[at] = self.next(256) as u8,
                1 => bytes[at] ^= 1 << self.next(8),
                2 => bytes.truncate(at),
                _ => {
                    let end = (at + 1 + self.next(8)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
    }
}

#[test]
fn damaged_files_never_panic_and_always_end() {
    let scratch = tempfile::tempdir().unwrap();
    for path in inputs() {
        let whole = std::fs::read(&path).unwrap();
        let rounds = if path.extension().is_some_and(|end| end == "parquet") { 60 } else { 25 };
        for round in 0..rounds {
            let mut bytes = whole.clone();
            Damage(round).spoil(&mut bytes);
            let target = scratch.path().join("damaged");
            std::fs::write(&target, &bytes).unwrap();
            let found = outcome(&target, &ReadOptions::default());
            let num_records = found["records"].as_array().map_or(0, Vec::len);
            assert!(num_records < 1000, "{} does not end", path.display());
        }
    }
}

fn comparison(id: &str, prompt: &Conversation, label: Preference) -> Comparison {
    let item = |response: &str| Item { prompt: prompt.clone(), response: response.into() };
    Comparison {
        id: id.into(),
        first: item("one\nline \"quoted\""),
        second: item("zwei 🙂"),
        label,
        strength: None,
        task: Some(Task::Safety),
        subset: Some("sub".into()),
    }
}

fn read_back(path: &Path) -> Vec<Comparison> {
    ComparisonReader::open(path, &ReadOptions::default()).unwrap().map(Result::unwrap).collect()
}

fn several_turns() -> Conversation {
    let mut conversation = Conversation::from_user("q1");
    conversation.messages.push(Message::text(Role::Assistant, "a1"));
    conversation.messages.push(Message::text(Role::User, "q2"));
    conversation
}

#[test]
fn what_is_written_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let single = comparison("a", &Conversation::from_user("q"), Preference::First);
    let turns = comparison("b", &several_turns(), Preference::Second);
    let tie = comparison("c", &Conversation::from_user("q"), Preference::Tie);
    let all = [single.clone(), turns.clone(), tie.clone()];

    let written = write_comparisons(&path, OutputFormat::Native, &all).unwrap();
    assert_eq!(written, Written { comparisons: 3, left_out: 0 });
    assert_eq!(read_back(&path), all);

    let written = write_comparisons(&path, OutputFormat::PatarmRows, &all).unwrap();
    assert_eq!(written, Written { comparisons: 2, left_out: 1 });
    let mut rows = all[..2].to_vec();
    rows.iter_mut().for_each(|comparison| comparison.subset = None);
    assert_eq!(read_back(&path), rows);

    write_comparisons(&path, OutputFormat::Messages, &all).unwrap();
    // Lists of chosen and rejected put the preferred side first.
    assert_eq!(read_back(&path), [single.clone(), turns.swap()]);

    write_comparisons(&path, OutputFormat::Trl, [&single, &tie]).unwrap();
    assert_eq!(read_back(&path), [single]);
}

#[test]
fn a_refused_comparison_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    std::fs::write(&path, "old").unwrap();
    let turns = comparison("b", &several_turns(), Preference::Second);
    let error = write_comparisons(&path, OutputFormat::Trl, [&turns]).unwrap_err();
    assert!(error.to_string().contains("--to messages"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_survives_the_native_format(prompt in "\\PC*", response in any::<String>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let mut one = comparison("x", &Conversation::from_user(prompt), Preference::First);
        one.second.response = response;
        write_comparisons(&path, OutputFormat::Native, [&one]).unwrap();
        prop_assert_eq!(read_back(&path), vec![one]);
    }
}
