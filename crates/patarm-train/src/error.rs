//! Why training stopped.

use std::path::PathBuf;

/// What went wrong in a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The recipe cannot be used.
    #[error("{path}: {message}")]
    Recipe {
        /// The recipe file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// The data cannot be used.
    #[error("{0}")]
    Data(String),
    /// The model cannot be used.
    #[error(transparent)]
    Model(#[from] patarm_models::Error),
    /// A file of the run directory cannot be written or read.
    #[error("{path}: {message}")]
    Run {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The teacher or another remote engine failed.
    #[error("{0}")]
    Remote(String),
    /// Stopped by the user; a later run with `--resume` goes on.
    #[error("interrupted after step {step}; resume with --resume {path}")]
    Interrupted {
        /// Last complete step.
        step: u64,
        /// The run directory.
        path: PathBuf,
    },
}

impl Error {
    /// An error about a file of the run directory.
    pub fn run(path: impl Into<PathBuf>, message: impl std::fmt::Display) -> Self {
        Self::Run { path: path.into(), message: message.to_string() }
    }
}
