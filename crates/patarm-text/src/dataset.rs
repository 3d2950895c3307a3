//! Preference data from files, in every shape users have, as [`Comparison`]s.
//!
//! ```no_run
//! use patarm_text::dataset::{ComparisonReader, ReadOptions};
//!
//! # fn main() -> Result<(), patarm_text::dataset::ReadError> {
//! for comparison in ComparisonReader::open("pairs.jsonl.gz".as_ref(), &ReadOptions::default())? {
//!     println!("{}", comparison?.id);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The container (JSON lines, a JSON array, Parquet, gzip around either JSON) is
//! found by its first bytes, the [`Format`] of the rows by the fields of the
//! first row. Reading is streaming: one row is in memory at a time, but for
//! two-row records, whose first half waits for the second.

mod convert;
mod error;
mod format;
mod json_rows;
mod labelled;
mod messages;
mod parquet_rows;
mod rows;
mod transcript;
mod two_row;
mod write;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use error::{ReadError, ReadErrorKind};
pub use format::Format;
pub use labelled::{LabelledItem, read_labelled};
pub use write::{OutputFormat, Written, write_comparisons};

use crate::comparison::Comparison;
use rows::{Row, Rows};
use two_row::HalfPairs;

/// What to accept from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest row, in bytes of JSON text.
    pub max_row_bytes: usize,
    /// Most rows to read from one file; reading stops there without an error.
    pub max_rows: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_row_bytes: 16 << 20, max_rows: None }
    }
}

/// What to do with a row that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Give the error to the caller.
    #[default]
    Fail,
    /// Leave the row out and count it.
    Skip,
}

/// How to read a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Format of the rows; found from the first row when not given.
    pub format: Option<Format>,
    /// What to accept.
    pub limits: Limits,
    /// What to do with a row that cannot be used.
    pub on_error: OnError,
}

/// Rows that were left out under [`OnError::Skip`].
#[derive(Clone, Debug, Default)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// The first few errors.
    pub examples: Vec<ReadError>,
}

/// Errors kept as examples of skipped rows.
const MAX_EXAMPLES: usize = 5;

/// Streams the comparisons of one file.
///
/// After an error of a single row the iterator goes on with the next one; after
/// an error of the file itself it ends.
#[derive(Debug)]
pub struct ComparisonReader {
    file: PathBuf,
    stem: String,
    rows: Rows,
    format: Option<Format>,
    options: ReadOptions,
    halves: HalfPairs,
    num_rows: u64,
    skipped: Skipped,
    ended: bool,
}

impl ComparisonReader {
    /// Opens a local file.
    ///
    /// # Errors
    /// When the file cannot be opened or is none of the containers.
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self, ReadError> {
        let rows = Rows::open(path, &options.limits)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let stem = name.as_deref().and_then(|name| name.split('.').next()).unwrap_or_default();
        Ok(Self {
            file: path.to_owned(),
            stem: stem.to_owned(),
            rows,
            format: options.format,
            options: *options,
            halves: HalfPairs::default(),
            num_rows: 0,
            skipped: Skipped::default(),
            ended: false,
        })
    }

    /// Format of the rows, once the first row was read.
    #[must_use]
    pub fn format(&self) -> Option<Format> {
        self.format
    }

    /// Rows left out so far.
    #[must_use]
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Rows seen so far, skipped ones included.
    #[must_use]
    pub fn num_rows(&self) -> u64 {
        self.num_rows
    }

    /// The next comparison or error, skipping nothing.
    fn advance(&mut self) -> Option<Result<Comparison, ReadError>> {
        loop {
            if self.options.limits.max_rows.is_some_and(|max| self.num_rows >= max) {
                self.ended = true;
                return None;
            }
            let row = match self.rows.next_row() {
                Ok(Some(row)) => row,
                Ok(None) => return self.finish(),
                Err(error) => {
                    self.ended |= error.ends_file();
                    self.num_rows += u64::from(!error.ends_file());
                    return Some(Err(error.in_file(&self.file)));
                }
            };
            self.num_rows += 1;
            let line = row.line;
            match self.convert(row) {
                Ok(Some(comparison)) => return Some(Ok(comparison)),
                Ok(None) => {}
                Err(error) => {
                    self.ended |= error.ends_file();
                    return Some(Err(error.at(&self.file, line)));
                }
            }
        }
    }

    fn convert(&mut self, row: Row) -> Result<Option<Comparison>, ReadError> {
        let format = match self.format {
            Some(format) => format,
            None => *self.format.insert(Format::detect(&row.value)?),
        };
        let fallback_id = format!("{}:{}", self.stem, self.num_rows);
        if format == Format::PatarmRows {
            return self.halves.add(row);
        }
        convert::comparison(format, row.value, fallback_id).map(Some)
    }

    fn finish(&mut self) -> Option<Result<Comparison, ReadError>> {
        let left = self.halves.take_unpaired();
        self.ended = left.is_none();
        left.map(|error| Err(error.in_file(&self.file)))
    }
}

/// Whether the first usable row of a file is of a known format.
pub(crate) fn has_known_format(path: &Path, options: &ReadOptions) -> Result<bool, ReadError> {
    let first = raw_rows(path, options)?.next().transpose()?;
    Ok(first.is_some_and(|row| Format::detect(&row).is_ok()))
}

/// The rows of a file as they are.
pub(crate) fn raw_rows(
    path: &Path,
    options: &ReadOptions,
) -> Result<impl Iterator<Item = Result<serde_json::Value, ReadError>>, ReadError> {
    Ok(numbered_rows(path, options)?.map(|row| row.map(|(_, value)| value)))
}

/// The rows of a file as they are, each with the line it begins on (in Parquet its
/// number, from 1). Streams; a row that is no JSON is an error of its own.
///
/// # Errors
/// When the file cannot be opened or is none of the containers.
pub fn numbered_rows(
    path: &Path,
    options: &ReadOptions,
) -> Result<impl Iterator<Item = Result<(u64, serde_json::Value), ReadError>> + use<>, ReadError> {
    let mut rows = Rows::open(path, &options.limits)?;
    let file = path.to_owned();
    let mut ended = false;
    Ok(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let row = rows.next_row().transpose()?;
        ended = row.as_ref().is_err_and(ReadError::ends_file);
        Some(row.map(|row| (row.line, row.value)).map_err(|error| error.in_file(&file)))
    }))
}

impl Iterator for ComparisonReader {
    type Item = Result<Comparison, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.advance() {
                Some(Err(error))
                    if self.options.on_error == OnError::Skip && !error.ends_file() =>
                {
                    self.skipped.count += 1;
                    if self.skipped.examples.len() < MAX_EXAMPLES {
                        self.skipped.examples.push(error);
                    }
                }
                other => return other,
            }
        }
        None
    }
}
