//! Arguments of `patarm bench serve`.

use clap::{Args, ValueEnum};

/// Load on a server.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadOptions {
    /// The server (serve).
    #[arg(long, default_value = "http://127.0.0.1:8400")]
    pub(crate) url: String,
    /// What is asked (serve).
    #[arg(long, value_enum, default_value = "short")]
    pub(crate) workload: LoadKind,
    /// Connections at the same time (serve).
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Requests in all (serve).
    #[arg(long, default_value_t = 10_000)]
    pub(crate) requests: usize,
    /// Texts that requests are drawn from (serve).
    #[arg(long, default_value_t = 200)]
    pub(crate) pool: usize,
    /// Texts of the pool that are asked for alone first, so that their scores are known
    /// and there is a rate to compare with; all of them by default (serve).
    #[arg(long)]
    pub(crate) alone: Option<usize>,
    /// Share of requests whose body is damaged (serve).
    #[arg(long, default_value_t = 0.05)]
    pub(crate) damaged: f64,
    /// Share of requests that are abandoned (serve).
    #[arg(long, default_value_t = 0.05)]
    pub(crate) cancelled: f64,
    /// Process of the server, to watch its memory and its time on the processor (serve).
    #[arg(long)]
    pub(crate) server_pid: Option<u32>,
    /// Seed of the load (serve).
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadKind {
    /// Items of 20 to 120 words.
    Short,
    /// Items of 20 to 1,000 words.
    Mixed,
    /// Eight responses of 20 to 60 words to a prompt of 300 to 500, in one request.
    Shared,
    /// The same responses, each in a request of its own.
    Spread,
}

impl LoadKind {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Mixed => "mixed",
            Self::Shared => "shared",
            Self::Spread => "spread",
        }
    }
}

#[cfg(test)]
impl LoadOptions {
    /// A small load.
    pub(crate) fn for_tests() -> Self {
        Self {
            url: "http://127.0.0.1:1".into(),
            workload: LoadKind::Short,
            connections: 1,
            requests: 1,
            pool: 1,
            alone: None,
            damaged: 0.0,
            cancelled: 0.0,
            server_pid: None,
            seed: 0,
        }
    }
}
