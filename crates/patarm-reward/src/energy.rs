//! Energy refinement: a frozen reward model's number, moved to where an energy is highest.
//!
//! Implements EBRM (arXiv 2504.13134, COLM 2025) from the paper's abstract and a
//! description of the authors' code: p(r | e) = exp f(e, r) / Z(e) over the embedding e
//! that the base model's output layer reads, learnt from the base's own embeddings and
//! rewards, and read as argmax_r f by gradient ascent.
//!
//! The loss never sees a preference: its targets are the base's rewards. What can change
//! an order is the choice of records (pairs the base gets wrong are left out), smoothing,
//! and pulling rewards back into the range of training.
//!
//! # Deviations
//! - The loss is computed in log space; the authors exponentiate.
//! - A random start depends on seed, embedding and reward alone, not on the order of the
//!   items. The refined reward is given on the base's scale.

mod model;
mod noise;
mod refine;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::model::ItemFault;
use patarm_text::Item;

pub use model::{EnergyConfig, EnergyRewardModel, NetEnergy, Remembered};
pub use noise::{NceTerm, Noise, nce_plus};
pub use refine::{Energy, Refined, Refinement, refine};

/// What a base model knows of an item.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What its output layer reads.
    pub embedding: Vec<f32>,
    /// Its reward.
    pub reward: f64,
}

/// A reward model that shows what its output layer reads.
pub trait EmbeddingModel {
    /// Embedding and reward of every item; results stand in the order of the items, each
    /// failing alone.
    fn embed(&self, items: &[Item]) -> Vec<Result<Record, ItemFault>>;

    /// Width of an embedding.
    fn width(&self) -> usize;

    /// A name for reports.
    fn name(&self) -> String;
}

/// Keeps the pairs (preferred, other) to which the base gives the order of the label;
/// ties are conflicts too.
#[must_use]
pub fn conflict_filter(pairs: Vec<[Record; 2]>) -> Vec<[Record; 2]> {
    pairs.into_iter().filter(|[chosen, rejected]| chosen.reward > rejected.reward).collect()
}

/// Which scale the energy network sees rewards on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum Scaling {
    /// The base's own (the authors' Pythia models).
    Raw {},
    /// `factor · (r − mean) / (std + 1e-8)` over all records, before the filter (the
    /// authors' 8-billion model, factor 4).
    Standard {
        /// What a standard deviation becomes.
        factor: f64,
    },
}

impl Default for Scaling {
    /// The numbers of [`Refinement`] then mean the same for every base.
    fn default() -> Self {
        Self::Standard { factor: 4.0 }
    }
}

impl Scaling {
    /// The scale that records give.
    #[must_use]
    pub fn fit(self, rewards: &[f64]) -> RewardScale {
        let Self::Standard { factor } = self else {
            return RewardScale { shift: 0.0, factor: 1.0 };
        };
        let count = rewards.len().max(1) as f64;
        let mean = rewards.iter().sum::<f64>() / count;
        let variance = rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / count;
        RewardScale { shift: mean, factor: factor / (variance.sqrt() + 1e-8) }
    }
}

/// `(r − shift) · factor`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardScale {
    /// What becomes 0.
    pub shift: f64,
    /// Factor; positive.
    pub factor: f64,
}

impl RewardScale {
    /// From the base's scale to the network's.
    #[must_use]
    pub fn scaled(self, reward: f64) -> f64 {
        (reward - self.shift) * self.factor
    }

    /// From the network's scale to the base's.
    #[must_use]
    pub fn unscaled(self, reward: f64) -> f64 {
        reward / self.factor + self.shift
    }
}
