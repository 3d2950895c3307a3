//! Result folders of benchmarks.
//!
//! `summary.json` comes last, so a folder that has one is complete.

use std::{
    fs::create_dir_all,
    io::Write,
    path::{Component, Path},
};

use serde::{Serialize, de::DeserializeOwned};

use super::summary::{Evaluation, ItemRecord, JudgementRecord, SCHEMA_VERSION, Summary};
use crate::{
    Error, Result,
    lines::read_lines,
    store::{read_text, write_atomically, write_text},
};

/// Name of the file with the figures.
pub const SUMMARY_FILE: &str = "summary.json";
/// Name of the file with one record an item.
pub const ITEMS_FILE: &str = "items.jsonl";
/// Name of the file with what the judge wrote.
pub const JUDGEMENTS_FILE: &str = "judgements.jsonl";
/// Largest summary read, in bytes.
const MAX_SUMMARY_BYTES: u64 = 64 << 20;

/// A file that a leaderboard or script expects, below the result folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfficialFile {
    /// Path below the result folder, `/` between its parts.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Writes a result folder, making it if need be.
///
/// # Errors
/// When the folder or a file cannot be written; a file that was there stays whole.
pub fn write_evaluation(dir: &Path, evaluation: &Evaluation) -> Result<()> {
    create_dir_all(dir).map_err(|e| Error::io("make the folder", dir, e))?;
    write_records(&dir.join(ITEMS_FILE), &evaluation.items)?;
    if !evaluation.judgements.is_empty() {
        write_records(&dir.join(JUDGEMENTS_FILE), &evaluation.judgements)?;
    }
    for file in &evaluation.files {
        let path = dir.join(inside(&file.path)?);
        if let Some(parent) = path.parent() {
            create_dir_all(parent).map_err(|e| Error::io("make the folder", parent, e))?;
        }
        write_text(&path, &file.text)?;
    }
    write_atomically(&dir.join(SUMMARY_FILE), |out| {
        serde_json::to_writer_pretty(&mut *out, &evaluation.summary)?;
        out.write_all(b"\n")
    })
}

/// A path that stays below the folder: model names become parts of it.
fn inside(path: &str) -> Result<&Path> {
    let path = Path::new(path);
    if path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(path);
    }
    Err(Error::bad_input(format!("{}: not a path below the result folder", path.display())))
}

fn write_records<T: Serialize>(path: &Path, records: &[T]) -> Result<()> {
    write_atomically(path, |out| {
        for record in records {
            serde_json::to_writer(&mut *out, record)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Reads the figures of a result folder.
///
/// # Errors
/// Names the file: unreadable, too large, not JSON, another schema version.
pub fn read_summary(dir: &Path) -> Result<Summary> {
    let path = dir.join(SUMMARY_FILE);
    let text = read_text(&path, MAX_SUMMARY_BYTES)?;
    let value: serde_json::Value = serde_json::from_str(&text)
        .map_err(|e| Error::bad_input(format!("not JSON: {e}")).in_file(&path))?;
    let version = value.get("schema_version").and_then(serde_json::Value::as_u64);
    if version != Some(u64::from(SCHEMA_VERSION)) {
        let found = version.map_or("none".to_owned(), |v| v.to_string());
        let message = format!(
            "field `schema_version` is {found}, this program reads {SCHEMA_VERSION}; evaluate again"
        );
        return Err(Error::bad_input(message).in_file(&path));
    }
    serde_json::from_value(value)
        .map_err(|e| Error::bad_input(format!("not a summary: {e}")).in_file(&path))
}

/// Reads the records of a result folder.
///
/// # Errors
/// Names file and line: unreadable, or not a record.
pub fn read_items(dir: &Path) -> Result<Vec<ItemRecord>> {
    read_records(&dir.join(ITEMS_FILE), "an item record")
}

/// Reads what the judge wrote; empty where the folder has no such file.
///
/// # Errors
/// Names file and line: unreadable, or not a record.
pub fn read_judgements(dir: &Path) -> Result<Vec<JudgementRecord>> {
    let path = dir.join(JUDGEMENTS_FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    read_records(&path, "a judgement record")
}

fn read_records<T: DeserializeOwned>(path: &Path, what: &str) -> Result<Vec<T>> {
    let mut records = Vec::new();
    read_lines(path, |line| {
        let record = serde_json::from_slice(line.bytes)
            .map_err(|e| Error::bad_input(format!("not {what}: {e}")))?;
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

/// A model's name as part of a file name: anything but letters, digits, `.`, `-` and
/// `_` becomes `_`; of a path only its last part counts.
#[must_use]
pub fn file_name(model: &str) -> String {
    let last = model.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name: String = last.chars().map(|c| if allowed(c) { c } else { '_' }).take(120).collect();
    if name.trim_matches('.').is_empty() { "model".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn official_files_stay_below_the_folder() {
        for path in ["../x", "/etc/x", "a/../../x"] {
            assert!(inside(path).is_err(), "{path}");
        }
        assert!(inside("eval-set/model.json").is_ok());
        assert_eq!(file_name("openai:http://host/v1#m/x y"), "x_y");
        assert_eq!(file_name("runs/a/"), "a");
        assert_eq!(file_name(".."), "model");
    }
}
