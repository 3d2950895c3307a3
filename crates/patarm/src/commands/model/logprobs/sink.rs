//! Where result rows go: standard output, or a file that appears when complete.

use std::path::Path;

use patarm_files::AtomicFile;

use crate::exit::{Code, failure};
use crate::output;

/// A destination of lines.
#[derive(Debug)]
pub(super) enum Sink {
    Stdout,
    File(AtomicFile),
}

impl Sink {
    /// A file, or standard output where none is named.
    pub(super) fn create(out: Option<&Path>) -> anyhow::Result<Self> {
        Ok(match out {
            None => Self::Stdout,
            Some(path) => Self::File(AtomicFile::create(path).map_err(|error| refused(&error))?),
        })
    }

    /// Writes one line.
    pub(super) fn write(&mut self, line: &str) -> anyhow::Result<()> {
        match self {
            Self::Stdout => output::line(line),
            Self::File(file) => {
                let written = file.write(line.as_bytes()).and_then(|()| file.write(b"\n"));
                written.map_err(|error| refused(&error))
            }
        }
    }

    /// Makes a file visible under its name.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Stdout => Ok(()),
            Self::File(file) => file.commit().map_err(|error| refused(&error)),
        }
    }
}

/// An output that cannot be written says nothing about the model.
fn refused(error: &patarm_files::Error) -> anyhow::Error {
    failure(Code::Data, error.to_string())
}
