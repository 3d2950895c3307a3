//! Result folders: `result.json` and `scores.jsonl`, written whole or not at all.
//!
//! Each file is written beside its place, synced and renamed. `result.json` comes
//! last, so a folder that has one is complete.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use crate::{
    Error, Result,
    lines::read_lines,
    pairs::{Evaluated, PairRecord, PairsResult, SCHEMA_VERSION},
};

/// Name of the file with the figures.
pub const RESULT_FILE: &str = "result.json";

/// Name of the file with one record a pair.
pub const RECORDS_FILE: &str = "scores.jsonl";

/// Largest result file read, in bytes.
const MAX_RESULT_BYTES: u64 = 64 << 20;

/// Writes a result folder, making it if need be.
///
/// # Errors
/// When the folder or a file cannot be written; a file that was there stays whole.
pub fn write_folder(dir: &Path, evaluated: &Evaluated) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::io("make the folder", dir, e))?;
    write_atomically(&dir.join(RECORDS_FILE), |out| {
        for record in &evaluated.records {
            serde_json::to_writer(&mut *out, record)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })?;
    write_result(&dir.join(RESULT_FILE), &evaluated.result)
}

/// Writes one result as JSON.
///
/// # Errors
/// When the file cannot be written; a file that was there stays whole.
pub fn write_result(path: &Path, result: &PairsResult) -> Result<()> {
    write_atomically(path, |out| {
        serde_json::to_writer_pretty(&mut *out, result)?;
        out.write_all(b"\n")
    })
}

/// Writes text, such as a report.
///
/// # Errors
/// When the file cannot be written; a file that was there stays whole.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, |out| out.write_all(text.as_bytes()))
}

/// Reads a result folder.
///
/// # Errors
/// Names the file, and the line where there is one: unreadable, not JSON, another
/// schema version, a record given twice.
pub fn read_folder(dir: &Path) -> Result<Evaluated> {
    let result = read_result(&dir.join(RESULT_FILE))?;
    let mut records: Vec<PairRecord> = Vec::new();
    let path = dir.join(RECORDS_FILE);
    read_lines(&path, |line| {
        let record = serde_json::from_slice(line.bytes)
            .map_err(|e| Error::bad_input(format!("not a pair record: {e}")))?;
        records.push(record);
        Ok(())
    })?;
    if records.len() != result.accuracy.num_pairs {
        let mismatch = format!(
            "has {} pairs where {RESULT_FILE} speaks of {}; evaluate again",
            records.len(),
            result.accuracy.num_pairs
        );
        return Err(Error::bad_input(mismatch).in_file(&path));
    }
    Ok(Evaluated { result, records })
}

/// Reads one result.
///
/// # Errors
/// Names the file: unreadable, too large, not JSON, another schema version.
pub fn read_result(path: &Path) -> Result<PairsResult> {
    let text = read_text(path, MAX_RESULT_BYTES)?;
    let value: serde_json::Value = serde_json::from_str(&text)
        .map_err(|e| Error::bad_input(format!("not JSON: {e}")).in_file(path))?;
    let version = value.get("schema_version").and_then(serde_json::Value::as_u64);
    if version != Some(u64::from(SCHEMA_VERSION)) {
        let found = version.map_or("none".to_owned(), |v| v.to_string());
        let message = format!(
            "field `schema_version` is {found}, this program reads {SCHEMA_VERSION}; evaluate again"
        );
        return Err(Error::bad_input(message).in_file(path));
    }
    serde_json::from_value(value)
        .map_err(|e| Error::bad_input(format!("not a pairs result: {e}")).in_file(path))
}

/// The text of a file of at most `limit` bytes; bytes that are no UTF-8 are replaced.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String> {
    let file = File::open(path).map_err(|e| Error::io("open the file", path, e))?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io("read the file", path, e))?;
    if bytes.len() as u64 > limit {
        let message = format!("larger than the {limit} bytes that are read of such a file");
        return Err(Error::bad_input(message).in_file(path));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn write_atomically(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let partial = partial_path(path);
    let written = write_synced(&partial, content).and_then(|()| fs::rename(&partial, path));
    written.map_err(|e| {
        // The half-written file is of no use to anyone; failing to remove it changes nothing.
        let _ = fs::remove_file(&partial);
        Error::io("write the file", path, e)
    })
}

fn write_synced(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    content(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("report.html");
        write_text(&path, "old").expect("first write");
        let failed = write_atomically(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        let message = failed.expect_err("the content fails").to_string();
        assert!(message.contains("disk full"), "{message}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "old");
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn other_versions_are_refused_by_name() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(RESULT_FILE);
        write_text(&path, "{\"schema_version\": 9}").expect("written");
        let message = read_result(&path).expect_err("version 9").to_string();
        assert!(message.contains("`schema_version` is 9"), "{message}");
        assert!(read_text(&path, 4).is_err());
    }
}
