//! The error of this crate: what went wrong, where, and what to do about it.

use std::fmt;

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A configuration value cannot be used.
    Config,
    /// A judge template cannot be read or used.
    Template,
    /// The numbers given to a reward rule do not fit together.
    Input,
    /// A file could not be read or written.
    File,
    /// The address of a remote engine cannot be used.
    Engine,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct Error {
    kind: ErrorKind,
    context: String,
    #[source]
    source: Option<std::io::Error>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, context: impl fmt::Display) -> Self {
        Self { kind, context: context.to_string(), source: None }
    }

    pub(crate) fn io(context: impl fmt::Display, source: std::io::Error) -> Self {
        Self { kind: ErrorKind::File, context: context.to_string(), source: Some(source) }
    }

    /// The kind, for exit codes and tests.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
