//! Arguments of `patarm serve` about rewards of cohorts.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// How rollouts that are rewarded together are treated.
#[derive(Clone, Debug, Args)]
pub(crate) struct Cohort {
    /// Serve `/v1/par` alone, without a model.
    #[arg(long)]
    pub(crate) par_only: bool,
    /// File with the preference-aware reward's settings (TOML; as the table `grpo.par` of a
    /// training recipe); its defaults otherwise.
    #[arg(long, value_name = "FILE")]
    pub(crate) par_rule: Option<PathBuf>,
    /// How long a cohort waits for its members, in seconds.
    #[arg(long, default_value_t = 600)]
    pub(crate) cohort_timeout_s: u64,
    /// What its members get when that is over.
    #[arg(long, value_enum, default_value = "fail")]
    pub(crate) cohort_on_timeout: OnTimeout,
    /// How long the answers of an ended cohort are kept, in seconds.
    #[arg(long, default_value_t = 60)]
    pub(crate) cohort_retain_s: u64,
}

/// What members of an incomplete cohort get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnTimeout {
    /// A refusal.
    Fail,
    /// A reward from what has arrived.
    Partial,
}

impl From<OnTimeout> for patarm_serve::cohort::OnTimeout {
    fn from(choice: OnTimeout) -> Self {
        match choice {
            OnTimeout::Fail => Self::Fail,
            OnTimeout::Partial => Self::Partial,
        }
    }
}
