//! The one error of this crate: a kind to act on and a sentence to show.

use std::io;
use std::path::Path;

/// Result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, as far as a caller may want to act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file or folder that is needed does not exist.
    NotFound,
    /// The operating system refused to read or write.
    Io,
    /// The disk (or the quota) is full; what was there before is untouched.
    StorageFull,
    /// The bytes are not what the format says: truncated, inconsistent, not the format at all.
    Malformed,
    /// A count, length or depth is above a constant of [`crate::limits`].
    Limit,
    /// Well formed, but a version, type or setting that this crate does not support.
    Unsupported,
    /// The tensor asked for is not in the file.
    MissingTensor,
    /// A tensor has another shape, or a buffer another length, than asked for.
    Shape,
}

/// An [`ErrorKind`] with one sentence that names the file, field or tensor.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    kind: ErrorKind,
    context: String,
}

impl Error {
    /// An error of `kind` described by `context`, a lower-case sentence without full stop.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into() }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error, with the file it concerns put in front.
    pub fn in_file(mut self, path: &Path) -> Self {
        self.context = format!("{}: {}", path.display(), self.context);
        self
    }

    /// The operating system's refusal to `action` (`"read"`, `"write"`, …) the file at `path`.
    pub fn io(action: &str, path: &Path, cause: &io::Error) -> Self {
        let (kind, advice) = match cause.kind() {
            io::ErrorKind::NotFound => (ErrorKind::NotFound, ""),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                (ErrorKind::StorageFull, "; free some space and try again, no file was replaced")
            }
            _ => (ErrorKind::Io, ""),
        };
        Self::new(kind, format!("cannot {action} {}: {cause}{advice}", path.display()))
    }

    pub(crate) fn malformed(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Malformed, context)
    }

    pub(crate) fn limit(what: &str, found: impl std::fmt::Display, limit: u64) -> Self {
        Self::new(ErrorKind::Limit, format!("{what} is {found}, more than the limit of {limit}"))
    }

    pub(crate) fn unsupported(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, context)
    }

    pub(crate) fn missing_tensor(name: &str) -> Self {
        Self::new(ErrorKind::MissingTensor, format!("there is no tensor `{name}`"))
    }

    pub(crate) fn shape(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Shape, context)
    }
}
