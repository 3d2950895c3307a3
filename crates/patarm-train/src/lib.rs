//! Training loops: judgement fine-tuning and preference-aware reinforcement.
//!
//! One loop a file ([`sft`], [`grpo`]), each opened by what it implements and how
//! it deviates. Losses, advantages and rewards are pure functions of
//! `patarm-reward`; what is here puts them on a prefix tree and into a run
//! directory that survives interruption.

#![deny(missing_docs)]

pub mod batches;
pub mod error;
pub mod grpo;
pub mod judgement_batch;
pub mod lengths;
pub mod pair_loss;
pub mod parsing;
pub mod recipe;
pub mod rollout;
pub mod run_directory;
pub mod sft;
pub mod tfevents;
pub mod trainer;

pub use error::Error;
pub use recipe::Recipe;
