//! Training loops: judges (fine-tuning, preference-aware reinforcement) and
//! discriminative reward models.
//!
//! One loop a file ([`sft`], [`grpo`], [`bradley_terry`]), each opened by what it implements and how
//! it deviates. Losses, advantages and rewards are pure functions of
//! `patarm-reward`; what is here puts them on a prefix tree and into a run
//! directory that survives interruption.

#![deny(missing_docs)]

pub mod batches;
pub mod bradley_terry;
pub mod discriminative;
pub mod ebrm;
pub mod error;
pub mod grpo;
pub mod head_training;
pub mod judgement_batch;
pub mod lengths;
pub mod oprm;
pub mod pair_loss;
pub mod parsing;
pub mod process_reward;
pub mod q_rm;
pub mod recipe;
pub mod reward_pairs;
pub mod rollout;
pub mod run_directory;
pub mod sft;
pub mod soli_reward;
pub mod tfevents;
pub mod trainer;

pub use error::Error;
pub use recipe::Recipe;
