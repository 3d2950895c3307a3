//! Choices and limits.

use patarm_reward::par::ParConfig;
use serde::{Deserialize, Serialize};

/// What becomes of the callers of a cohort whose time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// They are refused: no reward is better than one from half a pair.
    #[default]
    Fail,
    /// They are answered by the rule applied to what has arrived; a side that is wholly
    /// missing counts as one without a usable score.
    Partial,
}

/// Every choice of the cohorts of one server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CohortConfig {
    /// The reward of pairs.
    pub par: ParConfig,
    /// How long a cohort stays open after its first rollout, in milliseconds.
    pub timeout_ms: u64,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// How long the answers of an ended cohort are kept for callers who ask again, in
    /// milliseconds. Its id must not be used anew before that.
    pub retain_ms: u64,
    /// Most cohorts open at once.
    pub max_open: usize,
    /// Most rollouts one cohort may declare.
    pub max_cohort_size: usize,
    /// Most rollouts held at once, in open and ended cohorts together. Texts are not
    /// kept: a rollout takes its id and about 300 bytes.
    pub max_rollouts: usize,
}

impl Default for CohortConfig {
    fn default() -> Self {
        Self {
            par: ParConfig::default(),
            timeout_ms: 600_000,
            on_timeout: OnTimeout::default(),
            retain_ms: 60_000,
            max_open: 10_000,
            max_cohort_size: 4_096,
            max_rollouts: 200_000,
        }
    }
}

impl CohortConfig {
    /// Refuses values under which no cohort could ever complete.
    ///
    /// # Errors
    /// Names the field that is zero, too small, or no usable reward.
    pub fn validate(&self) -> Result<(), String> {
        self.par.validate().map_err(|error| format!("par: {error}"))?;
        for (field, is_usable) in [
            ("timeout_ms", self.timeout_ms > 0),
            ("max_open", self.max_open > 0),
            ("max_cohort_size", self.max_cohort_size > 0),
            ("max_rollouts", self.max_rollouts >= self.max_cohort_size),
        ] {
            if !is_usable {
                return Err(format!("{field} is too small"));
            }
        }
        Ok(())
    }
}
