//! A base model with an energy network on top.

use std::cell::RefCell;
use std::collections::HashMap;

use patarm_models::Gradients;
use patarm_models::energy::{Candidates, Dropout, EnergyNet, EnergyShape};
use patarm_models::kernels::{Buffer, random};
use patarm_text::Item;
use serde::{Deserialize, Serialize};

use super::{EmbeddingModel, Energy, Record, Refined, Refinement, RewardScale, refine};
use crate::model::{ItemFault, Reward, RewardModel};
use crate::scalar::{ScalarRewardModel, last_rows, score_in_batches};

/// Rows of one forward of a network.
const ROWS: usize = 1024;

/// What `energy.json` says beside a network's weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnergyConfig {
    /// [`EnergyConfig::VERSION`].
    pub version: u32,
    /// Folder of the base model.
    pub base: String,
    /// SHA-256 of the base's output matrix: another one has other embeddings.
    pub base_head_sha256: String,
    /// Widths of the network.
    pub shape: EnergyShape,
    /// Scale of the network's rewards.
    pub scale: RewardScale,
    /// How rewards are refined.
    pub refinement: Refinement,
    /// Mean of refined rewards on held-out data.
    #[serde(default)]
    pub mean: Option<f64>,
    /// Standard deviation of them.
    #[serde(default)]
    pub std: Option<f64>,
}

impl EnergyConfig {
    /// The version this program reads and writes.
    pub const VERSION: u32 = 1;

    /// What is wrong with it.
    ///
    /// # Errors
    /// When the version is another one or a value cannot work.
    pub fn check(&self) -> Result<(), String> {
        if self.version != Self::VERSION {
            let (found, own) = (self.version, Self::VERSION);
            return Err(format!("version is {found}, this program reads version {own}"));
        }
        let is_scale = self.scale.shift.is_finite()
            && self.scale.factor.is_finite()
            && self.scale.factor > 0.0;
        if !is_scale {
            return Err("scale.factor must be positive and scale.shift a number".into());
        }
        if self.std.is_some_and(|std| !std.is_finite() || std <= 0.0) {
            return Err("std must be positive".into());
        }
        self.shape.check()?;
        self.refinement.check()
    }
}

impl EmbeddingModel for ScalarRewardModel<'_> {
    fn embed(&self, items: &[Item]) -> Vec<Result<Record, ItemFault>> {
        let encode = |item: &Item| self.text.encode(item);
        let (decoder, width) = (self.scoring.decoder, self.width());
        score_in_batches(items, &encode, &self.scoring, &|batch| {
            let (forest, rows) = last_rows(batch.iter().map(|(_, item)| *item));
            let output = self.head.infer(decoder, &forest, &rows)?;
            let mut embeddings = vec![0.0; rows.len() * width];
            decoder.backend.download(output.embedding(), &mut embeddings);
            let each = embeddings.chunks_exact(width).zip(output.values());
            Ok(each
                .map(|(embedding, reward)| Record {
                    embedding: embedding.to_vec(),
                    reward: f64::from(*reward),
                })
                .collect())
        })
    }

    fn width(&self) -> usize {
        self.scoring.decoder.shape.hidden
    }

    fn name(&self) -> String {
        self.scoring.name.clone()
    }
}

/// An embedding model that asks another one once for each item.
pub struct Remembered<'a> {
    inner: &'a dyn EmbeddingModel,
    known: RefCell<HashMap<Item, Result<Record, ItemFault>>>,
}

impl std::fmt::Debug for Remembered<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered").field("inner", &self.inner.name()).finish_non_exhaustive()
    }
}

impl<'a> Remembered<'a> {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(inner: &'a dyn EmbeddingModel) -> Self {
        Self { inner, known: RefCell::default() }
    }
}

impl EmbeddingModel for Remembered<'_> {
    fn embed(&self, items: &[Item]) -> Vec<Result<Record, ItemFault>> {
        let mut known = self.known.borrow_mut();
        let unknown: Vec<Item> =
            items.iter().filter(|item| !known.contains_key(*item)).cloned().collect();
        let found = self.inner.embed(&unknown);
        known.extend(unknown.into_iter().zip(found));
        let lost = || Err(ItemFault::Engine("the base model gave no answer".to_owned()));
        items.iter().map(|item| known.get(item).cloned().unwrap_or_else(lost)).collect()
    }

    fn width(&self) -> usize {
        self.inner.width()
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}

/// An energy network over the embeddings of some items.
#[derive(Debug)]
pub struct NetEnergy<'a> {
    /// The network.
    pub net: &'a EnergyNet,
    /// Embeddings, `[items, d]`.
    pub embeddings: Buffer,
}

impl<'a> NetEnergy<'a> {
    /// Over records of the network's width.
    #[must_use]
    pub fn new<'r>(net: &'a EnergyNet, records: impl Iterator<Item = &'r Record>) -> Self {
        let all: Vec<f32> = records.flat_map(|record| record.embedding.iter().copied()).collect();
        Self { net, embeddings: net.backend.upload(&all) }
    }
}

impl Energy for NetEnergy<'_> {
    fn at(&self, items: &[usize], rewards: &[f64]) -> Vec<(f64, f64)> {
        let mut gradients = Gradients::none(&self.net.parameters);
        let mut found = Vec::with_capacity(items.len());
        for (items, rewards) in items.chunks(ROWS).zip(rewards.chunks(ROWS)) {
            let items: Vec<u32> = items.iter().map(|item| *item as u32).collect();
            let rewards: Vec<f32> = rewards.iter().map(|reward| *reward as f32).collect();
            let embeddings = &self.embeddings;
            let candidates = Candidates { embeddings, items: &items, rewards: &rewards };
            let saved = self.net.forward(candidates, Dropout::Off);
            let ones = vec![1.0; rewards.len()];
            let slopes = self.net.backward((candidates, &saved), &ones, &mut gradients);
            let each = saved.values.iter().zip(slopes);
            found.extend(each.map(|(value, slope)| (f64::from(*value), f64::from(slope))));
        }
        found
    }
}

/// A base model whose rewards are refined.
pub struct EnergyRewardModel<'a> {
    /// The base model.
    pub base: &'a dyn EmbeddingModel,
    /// The network.
    pub net: &'a EnergyNet,
    /// Scale, constants and statistics.
    pub config: &'a EnergyConfig,
    /// Name for reports.
    pub name: String,
}

impl std::fmt::Debug for EnergyRewardModel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnergyRewardModel").field("name", &self.name).finish_non_exhaustive()
    }
}

impl EnergyRewardModel<'_> {
    /// Refines rewards on the base's scale.
    #[must_use]
    pub fn refine(&self, records: &[&Record]) -> Vec<Refined> {
        let (scale, config) = (self.config.scale, &self.config.refinement);
        let energy = NetEnergy::new(self.net, records.iter().copied());
        let keys: Vec<u64> = records.iter().map(|record| key(record)).collect();
        let mut best: Vec<Refined> = Vec::new();
        for restart in 0..config.starts {
            let each = records.iter().zip(&keys);
            let start = |(record, key): (&&Record, &u64)| {
                f64::from(config.start(scale.scaled(record.reward), *key, restart) as f32)
            };
            let starts: Vec<f64> = each.map(start).collect();
            let found = refine(&energy, &starts, config);
            if restart == 0 {
                best = found;
                continue;
            }
            for (best, found) in best.iter_mut().zip(found) {
                if found.energy > best.energy {
                    *best = found;
                }
            }
        }
        best.iter_mut().for_each(|one| one.reward = scale.unscaled(one.reward));
        best
    }

    fn reward(&self, value: f64) -> Reward {
        let normalised =
            self.config.mean.zip(self.config.std).map(|(mean, std)| (value - mean) / std);
        Reward { normalised, ..Reward::of(value) }
    }
}

/// Names an item by its content, so that its random start does not depend on its place.
fn key(record: &Record) -> u64 {
    let words = record.embedding.iter().map(|value| u64::from(value.to_bits()));
    words.chain([record.reward.to_bits()]).fold(0, random::mix)
}

impl RewardModel for EnergyRewardModel<'_> {
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>> {
        let records = self.base.embed(items);
        let readable: Vec<&Record> =
            records.iter().filter_map(|record| record.as_ref().ok()).collect();
        let mut refined = self.refine(&readable).into_iter();
        let unread = || ItemFault::Engine("the item was not refined".to_owned());
        let one = |record: &Result<Record, ItemFault>| {
            record.as_ref().map_err(Clone::clone)?;
            refined.next().map(|one| self.reward(one.reward)).ok_or_else(unread)
        };
        records.iter().map(one).collect()
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
