//! Why a model cannot be loaded, saved or run.

use std::fmt;
use std::path::PathBuf;

/// What went wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A container could not be read or written.
    File(patarm_files::Error),
    /// A tensor the architecture needs is absent.
    MissingTensor(String),
    /// A tensor has another shape than the configuration says.
    Shape {
        /// Tensor name.
        tensor: String,
        /// Shape by the configuration.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A reward model's head is absent.
    MissingHead(String),
    /// The configuration asks for something the decoder does not do.
    Unsupported(String),
    /// An adapter does not fit its base model, or its files disagree.
    Adapter(String),
    /// A sequence does not fit.
    Overlong {
        /// Tokens asked for.
        tokens: usize,
        /// Tokens that fit.
        limit: usize,
    },
    /// A token id outside the vocabulary.
    TokenId {
        /// The id.
        id: u32,
        /// Vocabulary size.
        vocab: usize,
    },
    /// An operating system error.
    Io(std::io::Error),
}

/// An error with the path it concerns.
#[derive(Debug)]
pub struct Error {
    path: Option<PathBuf>,
    kind: ErrorKind,
}

impl Error {
    /// An error without a path.
    #[must_use]
    pub fn new(kind: ErrorKind) -> Self {
        Self { path: None, kind }
    }

    /// An error about a file or folder.
    pub fn at(path: impl Into<PathBuf>, kind: ErrorKind) -> Self {
        Self { path: Some(path.into()), kind }
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        match &self.kind {
            ErrorKind::File(error) => write!(f, "{error}"),
            ErrorKind::MissingTensor(name) => {
                write!(
                    f,
                    "tensor {name} is missing; the file is not a complete checkpoint of this architecture"
                )
            }
            ErrorKind::Shape { tensor, expected, found } => {
                write!(
                    f,
                    "tensor {tensor} has shape {found:?}, the configuration says {expected:?}"
                )
            }
            ErrorKind::MissingHead(name) => {
                write!(
                    f,
                    "the reward head {name} is missing; without it the model has no score, and \
                     a random head is never put in its place"
                )
            }
            ErrorKind::Unsupported(what) => write!(f, "{what}"),
            ErrorKind::Adapter(what) => write!(f, "adapter: {what}"),
            ErrorKind::Overlong { tokens, limit } => {
                write!(
                    f,
                    "{tokens} tokens are more than the {limit} that fit; shorten the input or raise the limit"
                )
            }
            ErrorKind::TokenId { id, vocab } => {
                write!(f, "token id {id} is outside the vocabulary of {vocab}")
            }
            ErrorKind::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            ErrorKind::File(error) => Some(error),
            ErrorKind::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<patarm_files::Error> for Error {
    fn from(error: patarm_files::Error) -> Self {
        Self::new(ErrorKind::File(error))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(ErrorKind::Io(error))
    }
}
