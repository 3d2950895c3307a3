//! The crate's error: what kind of thing failed, and the circumstances.

use std::fmt;
use std::path::Path;

/// What kind of thing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file could not be read or written.
    Io,
    /// A tokenizer file or vocabulary is damaged or not supported.
    Tokenizer,
    /// A text could not be turned into tokens.
    Encoding,
    /// A chat template does not compile, or refuses a conversation.
    Template,
    /// Data does not have the shape it should.
    Data,
    /// A size, count or depth is beyond what is accepted.
    Limit,
    /// A recipe asks for something that makes no sense.
    Recipe,
    /// The model hub could not be reached or does not have the file.
    Hub,
}

/// An error of this crate.
///
/// Displayed as one lower-case sentence that names the file or field and says
/// what to do about it where that is known.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    pub(crate) fn with_source(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, context: context.into(), source: Some(source.into()) }
    }

    pub(crate) fn io(action: &str, path: &Path, source: std::io::Error) -> Self {
        Self::with_source(ErrorKind::Io, format!("cannot {action} {}", path.display()), source)
    }

    /// What kind of thing failed.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The message already contains the source's own words; only what lies
        // below it is passed on, so that a printed chain repeats nothing.
        self.source.as_deref().and_then(std::error::Error::source)
    }
}
