//! How a server is set up: plain data.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use patarm_reward::template::JudgeFormat;
use patarm_reward::verdict::{JudgementTags, ScoreScale};

use crate::cohort::CohortConfig;
use crate::server::ServeError;

/// What a server does and refuses.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// Where to listen; port 0 = any free one.
    pub address: SocketAddr,
    /// Keys of which a request must carry one; none = no key is asked for.
    pub api_keys: Vec<String>,
    /// Whether an address that others reach may be served without keys.
    pub allow_unauthenticated: bool,
    /// What bounds memory and time.
    pub limits: Limits,
    /// The number for a response without a usable score, in protocols that must answer
    /// with a number; `None` = such a request fails.
    pub fault_score: Option<f64>,
    /// Whether there may be no model: cohorts of judgements need none.
    pub par_only: bool,
    /// How cohorts of rollouts are rewarded.
    pub cohorts: CohortSettings,
}

/// How cohorts of rollouts are rewarded.
#[derive(Clone, Debug, PartialEq)]
pub struct CohortSettings {
    /// Rule, times and limits.
    pub config: CohortConfig,
    /// How the judgements that callers send are read.
    pub format: JudgeFormat,
}

impl Default for CohortSettings {
    /// The format of the template `patarm`.
    fn default() -> Self {
        let format = JudgeFormat { tags: JudgementTags::default(), scale: ScoreScale::default() };
        Self { config: CohortConfig::default(), format }
    }
}

impl ServerConfig {
    /// Refuses an address that others reach and nothing guards. Starting a server checks
    /// it too; this is for knowing before models are loaded.
    ///
    /// # Errors
    /// When the address is open and there are neither keys nor leave to go without.
    pub fn check(&self) -> Result<(), ServeError> {
        let is_open = !self.address.ip().is_loopback();
        match is_open && self.api_keys.is_empty() && !self.allow_unauthenticated {
            true => Err(ServeError::Unguarded(self.address)),
            false => Ok(()),
        }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8400),
            api_keys: Vec::new(),
            allow_unauthenticated: false,
            limits: Limits::default(),
            fault_score: None,
            par_only: false,
            cohorts: CohortSettings::default(),
        }
    }
}

/// What bounds memory and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens an engine works on at the same time.
    pub max_batch_tokens: usize,
    /// Pieces of work waiting for a model.
    pub max_queue: usize,
    /// Tokens waiting for a model.
    pub max_queue_tokens: usize,
    /// Items of one request.
    pub max_items: usize,
    /// Judgements of one item, or answers to one conversation.
    pub max_votes: usize,
    /// Bytes of one request's body.
    pub max_body_bytes: usize,
    /// Bytes of all bodies that are held at the same time.
    pub max_held_bytes: usize,
    /// Connections at the same time; more wait to be accepted.
    pub max_connections: usize,
    /// Longest wait for a request's head, and for its body after that.
    pub read_timeout: Duration,
    /// Longest time from the end of a request's body to its answer.
    pub deadline: Duration,
    /// Longest wait for running requests after the server was asked to stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_batch_tokens: 16_384,
            max_queue: 4_096,
            max_queue_tokens: 4 << 20,
            max_items: 1_024,
            max_votes: 64,
            max_body_bytes: 8 << 20,
            max_held_bytes: 256 << 20,
            max_connections: 1_024,
            read_timeout: Duration::from_secs(30),
            deadline: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(30),
        }
    }
}
