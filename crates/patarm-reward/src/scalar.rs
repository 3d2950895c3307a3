//! Scalar reward models: one number from the hidden state of an item's last token.
//!
//! Items run on forests: those that share their prompt share its computation, and the
//! number does not depend on which items stand beside it.

mod text;

#[cfg(test)]
mod tests;

use patarm_models::files::RewardConfig;
use patarm_models::{Decoder, LinearHead, TreeBuilder};
use patarm_text::Item;

use crate::model::{ItemFault, Reward, RewardModel};
use crate::observer::Observer;

pub use text::{EncodedItem, ScalarText};

/// Tokens of one forward when scoring.
pub const SCORING_TOKENS: usize = 4096;

/// A decoder with a scalar head.
pub struct ScalarRewardModel<'a> {
    /// The decoder.
    pub decoder: &'a Decoder,
    /// Its head, one output.
    pub head: LinearHead,
    /// Its texts.
    pub text: &'a ScalarText,
    /// Mean and deviation of its rewards, where known.
    pub config: &'a RewardConfig,
    /// Tokens of one forward; items are never split.
    pub batch_tokens: usize,
    /// Who watches.
    pub observer: &'a dyn Observer,
    /// Name for reports.
    pub name: String,
}

impl std::fmt::Debug for ScalarRewardModel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScalarRewardModel").field("name", &self.name).finish_non_exhaustive()
    }
}

impl RewardModel for ScalarRewardModel<'_> {
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>> {
        let encoded = encode_all(self.text, items, self.decoder.shape.max_positions);
        let unread = ItemFault::Engine("interrupted before this item".to_owned());
        let mut results: Vec<Result<Reward, ItemFault>> =
            encoded.iter().map(|one| Err(one.as_ref().err().unwrap_or(&unread).clone())).collect();
        self.observer.begin("scoring", items.len() as u64);
        let mut done = 0;
        for batch in batches(&encoded, self.batch_tokens) {
            if self.observer.is_interrupted() {
                break;
            }
            done += batch.len() as u64;
            let values = self.score_batch(&batch);
            for ((index, _), value) in batch.iter().zip(values) {
                results[*index] = value.map(|value| self.reward(value));
            }
            self.observer.advance(done, "");
        }
        self.observer.end();
        results
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl ScalarRewardModel<'_> {
    fn score_batch(&self, batch: &[(usize, &EncodedItem)]) -> Vec<Result<f64, ItemFault>> {
        let (forest, rows) = last_rows(batch.iter().map(|(_, item)| *item));
        match self.decoder.infer(&forest, &[]) {
            Ok((hidden, _)) => {
                let output = self.head.forward(self.decoder, &hidden, &rows);
                output.values.iter().map(|value| Ok(f64::from(*value))).collect()
            }
            Err(error) => batch.iter().map(|_| Err(ItemFault::Engine(error.to_string()))).collect(),
        }
    }

    fn reward(&self, value: f64) -> Reward {
        Reward { normalised: normalised(value, self.config), ..Reward::of(value) }
    }
}

/// `(value − mean) / std`, where the checkpoint has both.
pub(crate) fn normalised(value: f64, config: &RewardConfig) -> Option<f64> {
    Some((value - config.mean?) / config.std?)
}

/// A forest of items and the row of the last token of each.
pub fn last_rows<'i>(
    items: impl Iterator<Item = &'i EncodedItem>,
) -> (patarm_models::Forest, Vec<usize>) {
    let mut tree = TreeBuilder::default();
    let leaves: Vec<_> = items.map(|item| place(&mut tree, item)).collect();
    let (forest, _) = tree.finish();
    let rows = leaves.into_iter().map(|leaf| forest.last_row(leaf)).collect();
    (forest, rows)
}

/// Adds an item to a tree and returns the segment of its response.
pub fn place(tree: &mut TreeBuilder, item: &EncodedItem) -> patarm_models::SegmentId {
    let mut path = vec![item.prompt.clone(), item.response.clone()];
    path.retain(|segment| !segment.is_empty());
    tree.path(&path)
}

/// Encodes items, each failing alone.
pub(crate) fn encode_all(
    text: &ScalarText,
    items: &[Item],
    limit: usize,
) -> Vec<Result<EncodedItem, ItemFault>> {
    let encode = |item: &Item| {
        let encoded = text.encode(item).map_err(|error| ItemFault::Engine(error.to_string()))?;
        match encoded.len() {
            tokens if tokens > limit => Err(ItemFault::Overlong { tokens, limit }),
            _ => Ok(encoded),
        }
    };
    items.iter().map(encode).collect()
}

/// Batches of at most `budget` tokens (a longer item alone), items of one prompt side
/// by side, each with its place among all.
pub(crate) fn batches(
    encoded: &[Result<EncodedItem, ItemFault>],
    budget: usize,
) -> Vec<Vec<(usize, &EncodedItem)>> {
    let mut first_of: std::collections::HashMap<&[u32], usize> = std::collections::HashMap::new();
    let mut order: Vec<(usize, usize, &EncodedItem)> = Vec::with_capacity(encoded.len());
    for (index, item) in encoded.iter().enumerate() {
        if let Ok(item) = item {
            let first = *first_of.entry(item.prompt.as_slice()).or_insert(index);
            order.push((first, index, item));
        }
    }
    order.sort_by_key(|(first, index, _)| (*first, *index));
    let mut batches: Vec<Vec<(usize, &EncodedItem)>> = Vec::new();
    let (mut tokens, mut prompt) = (0, None);
    for (first, index, item) in order {
        let shared = prompt == Some(first);
        let more = item.response.len() + if shared { 0 } else { item.prompt.len() };
        match batches.last_mut() {
            Some(batch) if tokens + more <= budget => {
                batch.push((index, item));
                tokens += more;
            }
            _ => {
                batches.push(vec![(index, item)]);
                tokens = item.len();
            }
        }
        prompt = Some(first);
    }
    batches
}
