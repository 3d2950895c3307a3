//! What losses on pairs with a head on top of the decoder share.

use patarm_models::files::RewardConfig;
use patarm_models::{AdamWConfig, Decoder, HeadInit};
use patarm_reward::observer::Silent;
use patarm_reward::pair_loss::LossTable;
use patarm_reward::scalar::{HeadModel, ScalarText, Scoring};
use serde::{Deserialize, Serialize};

use crate::discriminative::Schedule;
use crate::reward_pairs::EncodedRewardPair;

/// Name of a model in training, in measurements.
pub(crate) const TRAINED: &str = "trained";

/// A recipe's table with a loss of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[serde(bound(serialize = "L: Serialize", deserialize = "L: Deserialize<'de> + Default"))]
pub struct HeadConfig<L> {
    /// The loss.
    pub loss: L,
    /// How a fresh head begins; a base that has a head keeps it.
    pub head: HeadInit,
    /// How much is trained.
    pub schedule: Schedule,
    /// Optimiser.
    pub optimizer: AdamWConfig,
}

impl<L: Default> Default for HeadConfig<L> {
    fn default() -> Self {
        Self {
            loss: L::default(),
            head: HeadInit::Zero {},
            schedule: Schedule::default(),
            optimizer: AdamWConfig::default(),
        }
    }
}

impl<L: LossTable> HeadConfig<L> {
    /// What is wrong with it.
    ///
    /// # Errors
    /// When a value cannot work.
    pub fn check(&self) -> Result<(), String> {
        self.schedule.check()?;
        self.loss.check()
    }
}

/// A head in training on pairs.
#[derive(Debug)]
pub struct HeadTraining<'a, L, H> {
    /// The loss.
    pub loss: L,
    /// The head.
    pub head: H,
    /// Texts, for held-out measurement.
    pub text: &'a ScalarText,
    /// Training pairs.
    pub pairs: &'a [EncodedRewardPair],
    /// The description that scoring during the run uses.
    pub config: RewardConfig,
}

impl<L, H: Clone> HeadTraining<'_, L, H> {
    /// The reward model that the decoder is becoming.
    pub(crate) fn model<'m>(&'m self, decoder: &'m Decoder) -> HeadModel<'m, H> {
        HeadModel {
            scoring: Scoring::new(decoder, &Silent, TRAINED),
            head: self.head.clone(),
            text: self.text,
            config: &self.config,
        }
    }
}
