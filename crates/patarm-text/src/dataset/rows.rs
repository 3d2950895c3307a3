//! Rows as JSON values, whatever the container.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde_json::Value;

use super::Limits;
use super::error::ReadError;
use super::json_rows::JsonRows;
use super::parquet_rows::ParquetRows;

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Line it begins on, or row number, from 1.
    pub(super) line: u64,
    pub(super) value: Value,
}

/// The rows of a file.
#[derive(Debug)]
pub(super) enum Rows {
    Json(JsonRows<Box<dyn BufRead + Send>>),
    Parquet(ParquetRows),
}

const GZIP: [u8; 2] = [0x1f, 0x8b];
const PARQUET: &[u8; 4] = b"PAR1";
const BUFFER_BYTES: usize = 1 << 16;

impl Rows {
    /// Opens a file, looking at its first bytes.
    pub(super) fn open(path: &Path, limits: &Limits) -> Result<Self, ReadError> {
        let failed = |source: std::io::Error| ReadError::io(&source).in_file(path);
        if path.is_dir() {
            let problem = "this is a folder; name a file in it";
            return Err(ReadError::bad_value(problem).in_file(path));
        }
        let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path).map_err(failed)?);
        let start = file.fill_buf().map_err(failed)?;
        if start.starts_with(PARQUET) {
            return ParquetRows::open(path).map(Self::Parquet).map_err(|e| e.in_file(path));
        }
        let text: Box<dyn BufRead + Send> = if start.starts_with(&GZIP) {
            let plain = MultiGzDecoder::new(file);
            Box::new(BufReader::with_capacity(BUFFER_BYTES, plain))
        } else {
            Box::new(file)
        };
        let rows = JsonRows::new(text, limits.max_row_bytes);
        rows.map(Self::Json).map_err(|error| error.in_file(path))
    }

    /// The next row; `None` at the end.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>, ReadError> {
        match self {
            Self::Json(rows) => rows.next_row(),
            Self::Parquet(rows) => rows.next_row(),
        }
    }
}

/// Peeks past blanks and a byte order mark; tells whether a `[` comes next, and
/// how many bytes and lines were passed over.
pub(super) fn skip_blanks(reader: &mut impl BufRead) -> Result<(Option<u8>, u64), ReadError> {
    let mut lines = 0;
    let mut mark = [0xEF, 0xBB, 0xBF].iter();
    loop {
        let Some(&next) = reader.fill_buf().map_err(|e| ReadError::io(&e))?.first() else {
            return Ok((None, lines));
        };
        let is_mark = mark.as_slice().first() == Some(&next);
        if !next.is_ascii_whitespace() && !is_mark {
            return Ok((Some(next), lines));
        }
        lines += u64::from(next == b'\n');
        if is_mark {
            mark.next();
        }
        reader.consume(1);
    }
}

/// Reads up to and including the next `\n`, at most `limit` bytes into `line`.
/// Returns whether the line was longer; the rest of it is then read and dropped.
pub(super) fn read_line(
    reader: &mut impl BufRead,
    limit: usize,
    line: &mut Vec<u8>,
) -> Result<bool, ReadError> {
    line.clear();
    let failed = |source: std::io::Error| ReadError::io(&source);
    let mut limited = Read::by_ref(reader).take(limit as u64 + 1);
    limited.read_until(b'\n', line).map_err(failed)?;
    if line.len() <= limit || line.last() == Some(&b'\n') {
        return Ok(false);
    }
    reader.skip_until(b'\n').map_err(failed)?;
    Ok(true)
}
