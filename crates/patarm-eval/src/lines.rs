//! Bounded reading of files of one record a line.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use crate::{Error, Result};

/// Longest line read, in bytes.
const MAX_LINE_BYTES: u64 = 4 << 20;

/// Most lines read.
const MAX_LINES: usize = 20_000_000;

/// A line of a file.
pub(crate) struct Line<'a> {
    /// The line without its end.
    pub(crate) bytes: &'a [u8],
    /// Whether the file goes on after it, or at least ends it: false for a last
    /// line that a crash may have cut.
    pub(crate) is_terminated: bool,
    /// Its number, from 1.
    pub(crate) number: usize,
}

/// Opens `path` and calls `record` with every line that is not blank.
pub(crate) fn read_lines(path: &Path, record: impl FnMut(Line<'_>) -> Result<()>) -> Result<()> {
    let file = File::open(path).map_err(|e| Error::io("open the file", path, e))?;
    each_line(BufReader::new(file), record).map_err(|e| e.in_file(path))
}

/// Calls `record` with every line that is not blank; its errors are given the line.
pub(crate) fn each_line(
    mut reader: impl BufRead,
    mut record: impl FnMut(Line<'_>) -> Result<()>,
) -> Result<()> {
    let mut line = Vec::new();
    for number in 1..=MAX_LINES {
        line.clear();
        let mut limited = reader.by_ref().take(MAX_LINE_BYTES + 1);
        let length = limited
            .read_until(b'\n', &mut line)
            .map_err(|e| Error::bad_input(format!("cannot read: {e}")).at_line(number))?;
        if length == 0 {
            return Ok(());
        }
        if length as u64 > MAX_LINE_BYTES {
            let long = format!("the line is longer than {MAX_LINE_BYTES} bytes; shorten it");
            return Err(Error::bad_input(long).at_line(number));
        }
        let bytes = line.trim_ascii();
        if !bytes.is_empty() {
            let is_terminated = line.ends_with(b"\n");
            record(Line { bytes, is_terminated, number }).map_err(|e| e.at_line(number))?;
        }
    }
    Err(Error::bad_input(format!("more than {MAX_LINES} lines; split the file")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_are_skipped_and_errors_are_placed() {
        let mut seen = Vec::new();
        each_line(&b"a\n\n b \r\nc"[..], |line| {
            seen.push((line.bytes.to_vec(), line.is_terminated));
            Ok(())
        })
        .expect("well formed");
        assert_eq!(seen, [(b"a".to_vec(), true), (b"b".to_vec(), true), (b"c".to_vec(), false)]);

        let error = each_line(&b"a\n\nb"[..], |line| match line.bytes {
            b"b" => Err(Error::bad_input("no b")),
            _ => Ok(()),
        });
        assert_eq!(error.expect_err("b is refused").to_string(), "line 3: no b");
    }

    #[test]
    fn overlong_lines_are_refused() {
        let long = vec![b'x'; MAX_LINE_BYTES as usize + 2];
        let error = each_line(&long[..], |_| Ok(())).expect_err("too long");
        assert!(error.to_string().contains("shorten"), "{error}");
    }
}
