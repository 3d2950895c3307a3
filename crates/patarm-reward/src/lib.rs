//! Reward models and judges: rubrics, verdicts, preference-aware rewards.
//!
//! The API boundary of the project. `train`, `eval` and `serve` stand on these
//! types and never see each other.

pub mod advantage;
pub mod cache;
pub mod cold_start;
pub mod completer;
pub mod embedded;
pub mod error;
pub mod judge;
pub mod judgement;
pub mod model;
pub mod observer;
pub mod openai;
pub mod par;
pub mod par_marginal;
pub mod policy_loss;
pub mod random;
pub mod rubric;
pub mod rules;
pub mod task;
pub mod template;
pub mod verdict;
pub mod voting;

pub use error::{Error, ErrorKind, Result};
