//! Arguments of `patarm serve`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Asking;
use super::cohort::Cohort;

/// `patarm serve`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Serve {
    /// Folder, GGUF file, adapter folder, run directory, name, or `openai:BASE_URL#MODEL`;
    /// `NAME=MODEL` gives it a name for requests. The first is used by requests that
    /// name none.
    #[arg(long = "model", required_unless_present = "par_only", value_name = "[NAME=]MODEL")]
    pub(crate) models: Vec<String>,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port to listen on; 0 = any free one.
    #[arg(long, default_value_t = 8400)]
    pub(crate) port: u16,
    /// File of keys, one a line, of which every request must carry one.
    #[arg(long)]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Serve an address that others can reach without asking for keys.
    #[arg(long)]
    pub(crate) allow_unauthenticated: bool,
    /// Tokens a model works on at the same time.
    #[arg(long, default_value_t = 16_384)]
    pub(crate) max_batch_tokens: usize,
    /// Items that may wait for a model; beyond, requests are refused with 429.
    #[arg(long, default_value_t = 4_096)]
    pub(crate) max_queue: usize,
    /// Longest body of a request, in MiB.
    #[arg(long, default_value_t = 8)]
    pub(crate) max_body_mib: usize,
    /// Connections at the same time.
    #[arg(long, default_value_t = 1_024)]
    pub(crate) max_connections: usize,
    /// Longest time for an answer, in seconds.
    #[arg(long, default_value_t = 600)]
    pub(crate) deadline_s: u64,
    /// Tokens in a judge's key/value cache.
    #[arg(long, default_value_t = 16_384)]
    pub(crate) cache_tokens: usize,
    /// The number for a response without a usable score, in protocols that must answer
    /// with one; by default such a request fails.
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) fault_score: Option<f64>,
    /// File that keeps the answers of a judge, for this and later runs: of the one remote
    /// model, or of the one model there is.
    #[arg(long)]
    pub(crate) cache: Option<PathBuf>,
    /// How judges are asked; requests may say task and votes themselves.
    #[command(flatten)]
    pub(crate) asking: Asking,
    /// Rewards that need several rollouts.
    #[command(flatten)]
    pub(crate) cohort: Cohort,
    /// How the log on standard error looks.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// What goes into the log. Texts of requests never do.
    #[arg(long, value_enum, default_value = "info")]
    pub(crate) log_level: LogLevel,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What goes into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Failures of the server.
    Error,
    /// And what may become one.
    Warn,
    /// And every request.
    Info,
    /// And more.
    Debug,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
        }
    }
}
