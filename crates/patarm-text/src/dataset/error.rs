//! What can be wrong with a data file, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadErrorKind {
    /// The file cannot be opened or read; ends the file.
    Io(String),
    /// The container (gzip, Parquet, JSON array) is damaged; ends the file.
    Container(String),
    /// A row is not JSON.
    NotJson(String),
    /// A row is not UTF-8.
    NotUtf8,
    /// A row is longer than the limit, in bytes.
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The fields of the first row belong to no known format.
    UnknownFormat {
        /// The fields found, or what was found instead of an object.
        found: String,
    },
    /// A field is missing.
    Missing,
    /// A field has another type than it should.
    WrongType {
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A field has a value that makes no sense.
    BadValue(String),
    /// Only one side of a two-row record is there.
    Unpaired {
        /// The record.
        pair_id: String,
    },
    /// More two-row records are open than can be kept; ends the file.
    TooManyUnpaired {
        /// The limit.
        limit: usize,
    },
}

/// An error in a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; in Parquet the row; 0 for the file as a whole.
    pub line: u64,
    /// The field, where one is to blame.
    pub field: Option<String>,
    /// What is wrong.
    pub kind: ReadErrorKind,
}

impl ReadError {
    pub(super) fn new(kind: ReadErrorKind) -> Self {
        Self { file: PathBuf::new(), line: 0, field: None, kind }
    }

    pub(super) fn bad_value(problem: impl Into<String>) -> Self {
        Self::new(ReadErrorKind::BadValue(problem.into()))
    }

    pub(super) fn container(problem: impl Into<String>) -> Self {
        Self::new(ReadErrorKind::Container(problem.into()))
    }

    pub(super) fn io(source: &std::io::Error) -> Self {
        use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match source.kind() {
            // This is how a damaged gzip stream shows.
            InvalidData | InvalidInput | UnexpectedEof => Self::container(source.to_string()),
            _ => Self::new(ReadErrorKind::Io(source.to_string())),
        }
    }

    /// Names the field, below any field already named.
    pub(super) fn in_field(mut self, name: &str) -> Self {
        self.field = Some(match self.field {
            Some(inner) if inner.starts_with('[') => format!("{name}{inner}"),
            Some(inner) => format!("{name}.{inner}"),
            None => name.to_owned(),
        });
        self
    }

    pub(super) fn in_item(self, index: usize) -> Self {
        self.in_field(&format!("[{index}]"))
    }

    pub(super) fn on_line(mut self, line: u64) -> Self {
        self.line = line;
        self
    }

    pub(super) fn in_file(mut self, file: &Path) -> Self {
        self.file = file.to_owned();
        self
    }

    pub(super) fn at(self, file: &Path, line: u64) -> Self {
        let line = if self.line == 0 { line } else { self.line };
        self.on_line(line).in_file(file)
    }

    /// Whether nothing more can be read from the file after this error.
    #[must_use]
    pub fn ends_file(&self) -> bool {
        matches!(
            self.kind,
            ReadErrorKind::Io(_)
                | ReadErrorKind::Container(_)
                | ReadErrorKind::UnknownFormat { .. }
                | ReadErrorKind::TooManyUnpaired { .. }
        )
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ", line {}", self.line)?;
        }
        if let Some(field) = &self.field {
            write!(f, ", field {field}")?;
        }
        write!(f, ": {}", self.kind)
    }
}

impl fmt::Display for ReadErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(problem) => write!(f, "cannot read: {problem}"),
            Self::Container(problem) => write!(f, "the file is damaged: {problem}"),
            Self::NotJson(problem) => write!(f, "not JSON: {problem}"),
            Self::NotUtf8 => f.write_str("not UTF-8 text"),
            Self::TooLong { limit } => write!(f, "the row is longer than {limit} bytes"),
            Self::UnknownFormat { found } => {
                write!(f, "the rows are of no known format (found {found}); name one with --format")
            }
            Self::Missing => f.write_str("the field is missing"),
            Self::WrongType { expected, found } => write!(f, "expected {expected}, found {found}"),
            Self::BadValue(problem) => f.write_str(problem),
            Self::Unpaired { pair_id } => write!(f, "only one side of pair {pair_id:?} is there"),
            Self::TooManyUnpaired { limit } => {
                write!(f, "more than {limit} pairs are incomplete; sort the rows by pair_id")
            }
        }
    }
}

impl std::error::Error for ReadError {}
