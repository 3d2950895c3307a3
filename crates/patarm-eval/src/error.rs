//! The error of this crate: a kind, and where it happened.

use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for callers that choose an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file could not be read or written.
    Io,
    /// A file or record does not have the form it should have.
    BadInput,
    /// The user asked to stop; what was answered so far is kept where a cache is.
    Interrupted,
}

/// An evaluation error. The message names the file, line or field and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}{message}", Place(path.as_deref(), *line))]
pub struct Error {
    kind: ErrorKind,
    path: Option<PathBuf>,
    line: Option<usize>,
    message: String,
    #[source]
    source: Option<std::io::Error>,
}

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn bad_input(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::BadInput,
            path: None,
            line: None,
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn interrupted() -> Self {
        Self {
            kind: ErrorKind::Interrupted,
            path: None,
            line: None,
            message: "interrupted; the same command goes on from its cache".to_owned(),
            source: None,
        }
    }

    pub(crate) fn io(action: &str, path: &Path, source: std::io::Error) -> Self {
        Self {
            kind: ErrorKind::Io,
            path: Some(path.to_path_buf()),
            line: None,
            message: format!("cannot {action}: {source}"),
            source: Some(source),
        }
    }

    pub(crate) fn in_file(mut self, path: &Path) -> Self {
        self.path.get_or_insert_with(|| path.to_path_buf());
        self
    }

    pub(crate) fn at_line(mut self, line: usize) -> Self {
        self.line.get_or_insert(line);
        self
    }
}

/// Displays `path:line: ` as far as it is known.
struct Place<'a>(Option<&'a Path>, Option<usize>);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0, self.1) {
            (Some(path), Some(line)) => write!(f, "{}:{line}: ", path.display()),
            (Some(path), None) => write!(f, "{}: ", path.display()),
            (None, Some(line)) => write!(f, "line {line}: "),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_file_and_line() {
        let error = Error::bad_input("score is missing").at_line(3).in_file(Path::new("s.jsonl"));
        assert_eq!(error.to_string(), "s.jsonl:3: score is missing");
        assert_eq!(error.kind(), ErrorKind::BadInput);
        assert_eq!(Error::bad_input("no pairs").to_string(), "no pairs");
    }

    #[test]
    fn inner_place_wins_over_outer() {
        let error = Error::bad_input("x").at_line(3).at_line(9);
        assert_eq!(error.to_string(), "line 3: x");
    }
}
