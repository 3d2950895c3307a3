//! A file of rows that an interrupted run goes on with.

use std::{
    fs::{File, OpenOptions, create_dir_all},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result};

/// Largest journal read, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// Rows appended one by one, each a line of JSON that is on the disk before the next is made.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens a journal, making it if need be, and reads its rows. A last line that a crash has cut
    /// is removed.
    ///
    /// # Errors
    /// When the file cannot be opened, is too large or has a row of another form.
    pub fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>)> {
        if let Some(parent) = path.parent() {
            create_dir_all(parent).map_err(|e| Error::io("make the folder", parent, e))?;
        }
        let failed = |e| Error::io("open the file", path, e);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        (&file).take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_BYTES {
            let large = format!("the file is larger than {MAX_BYTES} bytes; remove it");
            return Err(Error::bad_input(large).in_file(path));
        }
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        file.set_len(whole as u64).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let lines = bytes[..whole].split(|&byte| byte == b'\n').enumerate();
        let rows = lines.filter(|(_, line)| !line.is_empty()).map(|(index, line)| {
            serde_json::from_slice(line).map_err(|e| {
                let other = format!("not a row of this journal: {e}; remove the file");
                Error::bad_input(other).at_line(index + 1).in_file(path)
            })
        });
        let rows = rows.collect::<Result<Vec<T>>>()?;
        Ok((Self { file, path: path.to_path_buf() }, rows))
    }

    /// Appends a row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&mut self, row: &impl Serialize) -> Result<()> {
        let failed = |e| Error::io("write the file", &self.path, e);
        let mut line = serde_json::to_vec(row).map_err(|e| failed(e.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_cut_line_is_removed_and_the_rest_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/rows.jsonl");
        let (mut journal, rows) = Journal::open::<Value>(&path).unwrap();
        assert!(rows.is_empty());
        journal.append(&json!({"n": 1})).unwrap();
        std::fs::write(&path, b"{\"n\":1}\n{\"n\":2").unwrap();
        let (mut journal, rows) = Journal::open::<Value>(&path).unwrap();
        assert_eq!(rows, [json!({"n": 1})]);
        journal.append(&json!({"n": 3})).unwrap();
        let (_, rows) = Journal::open::<Value>(&path).unwrap();
        assert_eq!(rows, [json!({"n": 1}), json!({"n": 3})]);

        std::fs::write(&path, b"{\"n\":1}\nno\n").unwrap();
        let error = Journal::open::<Value>(&path).unwrap_err().to_string();
        assert!(error.contains("rows.jsonl:2"), "{error}");
    }
}
