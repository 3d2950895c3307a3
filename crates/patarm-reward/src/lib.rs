//! Reward models and judges: rubrics, verdicts, preference-aware rewards.
//!
//! The API boundary of the project. `train`, `eval` and `serve` stand on these
//! types and never see each other.
//!
//! A judge reads one prompt and one response, writes criteria, an evaluation and a
//! score ([`template`] asks, [`verdict`] reads, [`judge`] and [`embedded`] connect the
//! two to an engine). Preference pairs become rewards by comparing every judgement with
//! the mean of the other side:
//!
//! ```
//! use patarm_reward::par::{ParConfig, ParScore, par};
//!
//! let scores = |values: &[f64]| values.iter().map(|&s| ParScore::valid(s)).collect::<Vec<_>>();
//! // Means 7 and 6: 8 lies two points above the other mean, 6 is level with it.
//! let outcome = par(&scores(&[8.0, 6.0]), &scores(&[5.0, 7.0]), &ParConfig::default());
//! assert_eq!(outcome.chosen.totals(), [1.2, 0.0]);
//! assert_eq!(outcome.rejected.totals(), [1.2, 0.0]);
//! ```
//!
//! [`advantage`] and [`policy_loss`] turn rewards into gradients, [`par_marginal`] does
//! the same with the whole score distribution, [`cold_start`] makes the judgements to
//! start from. Rules, losses and parsers are pure functions.

pub mod advantage;
pub mod answers;
pub mod cache;
pub mod cold_start;
pub mod combinators;
pub mod completer;
pub mod embedded;
pub mod embedding;
pub mod energy;
pub mod error;
pub mod judge;
pub mod judgement;
pub mod model;
pub mod observer;
pub mod openai;
pub mod ordinal;
pub mod pair_loss;
pub mod par;
pub mod par_marginal;
pub mod pass_fail;
pub mod policy_loss;
pub mod process;
pub mod random;
pub mod reasonflux;
pub mod rollout_labels;
pub mod rubric;
pub mod rules;
pub mod scalar;
pub mod serving;
pub mod task;
pub mod template;
pub mod token_values;
pub mod verdict;
pub mod voting;
pub mod win_tie;

pub use error::{Error, ErrorKind, Result};
