//! Evaluation of reward models: accuracy with intervals, paired comparison, reports.
//!
//! The crate stands on the seams of `patarm-reward`: it takes any
//! [`RewardModel`](patarm_reward::model::RewardModel), or scores computed
//! elsewhere, and says how often the preferred response wins and how sure that
//! number is. Everything is a pure function of its inputs and an explicit seed;
//! only [`store`], [`report`] and loaders touch files.
//!
//! - [`benchmark`] says what a benchmark is; [`benchmarks`] holds them, one a file.
//! - [`pairs`] runs a model, or a file of [`scores`], over labelled comparisons.
//! - [`steps`] asks whether a model sees which step of a solution is wrong, [`tools`]
//!   makes pairs of tool calls whose label a rule has checked.
//! - [`metrics`] and [`distribution`] turn outcomes and scores into figures.
//! - [`interval`] and [`significance`] say how far to trust them.
//! - [`compare`] sets two results on the same pairs against each other.
//! - [`report`] draws runs and results as one self-contained page.
//!
//! ```
//! use patarm_eval::interval::wilson;
//!
//! let interval = wilson(75.0, 100);
//! assert!(interval.low > 0.65 && interval.high < 0.83);
//! ```

#![deny(missing_docs)]

mod error;
mod lines;
mod random;

pub mod auc;
pub mod benchmark;
pub mod benchmarks;
pub mod calibration;
pub mod compare;
pub mod distribution;
pub mod ifbench;
pub mod ifeval;
pub mod interval;
mod language;
pub mod metrics;
pub mod nltk;
pub mod pairs;
pub mod python;
pub mod report;
pub mod scores;
pub mod significance;
pub mod steps;
pub mod store;
pub mod tools;

pub use error::{Error, ErrorKind, Result};
