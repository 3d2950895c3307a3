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

pub(crate) use text::refuse_empty;
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
        let batching = Batching {
            limit: self.decoder.shape.max_positions,
            tokens: self.batch_tokens,
            observer: self.observer,
        };
        let encode = |item: &Item| self.text.encode(item);
        score_in_batches(items, &encode, batching, &|batch| {
            let (forest, rows) = last_rows(batch.iter().map(|(_, item)| *item));
            let (hidden, _) = self.decoder.infer(&forest, &[])?;
            let values = self.head.forward(self.decoder, &hidden, &rows).values;
            Ok(values.into_iter().map(|value| self.reward(f64::from(value))).collect())
        })
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl ScalarRewardModel<'_> {
    fn reward(&self, value: f64) -> Reward {
        Reward { normalised: normalised(value, self.config), ..Reward::of(value) }
    }
}

/// How items are scored together.
#[derive(Clone, Copy)]
pub(crate) struct Batching<'a> {
    /// Longest item in tokens.
    pub(crate) limit: usize,
    /// Tokens of one forward; items are never split.
    pub(crate) tokens: usize,
    /// Who watches.
    pub(crate) observer: &'a dyn Observer,
}

/// An item of a batch with its place among all.
pub(crate) type Placed<'i> = (usize, &'i EncodedItem);
type Encode<'a> = dyn Fn(&Item) -> crate::Result<EncodedItem> + 'a;
type ScoreBatch<'a> = dyn Fn(&[Placed<'_>]) -> Result<Vec<Reward>, patarm_models::Error> + 'a;

/// Scores items in batches; results stand in the order of the items, each failing alone.
pub(crate) fn score_in_batches(
    items: &[Item],
    encode: &Encode<'_>,
    batching: Batching<'_>,
    score: &ScoreBatch<'_>,
) -> Vec<Result<Reward, ItemFault>> {
    let observer = batching.observer;
    let encoded = encode_all(items, encode, batching.limit);
    let unread = ItemFault::Engine("interrupted before this item".to_owned());
    let mut results: Vec<Result<Reward, ItemFault>> =
        encoded.iter().map(|one| Err(one.as_ref().err().unwrap_or(&unread).clone())).collect();
    observer.begin("scoring", items.len() as u64);
    let mut done = 0;
    for batch in batches(&encoded, batching.tokens) {
        if observer.is_interrupted() {
            break;
        }
        done += batch.len() as u64;
        match score(&batch) {
            Ok(rewards) => {
                for ((index, _), reward) in batch.iter().zip(rewards) {
                    results[*index] = Ok(reward);
                }
            }
            Err(error) => {
                for (index, _) in &batch {
                    results[*index] = Err(ItemFault::Engine(error.to_string()));
                }
            }
        }
        observer.advance(done, "");
    }
    observer.end();
    results
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
    items: &[Item],
    encode: &Encode<'_>,
    limit: usize,
) -> Vec<Result<EncodedItem, ItemFault>> {
    let one = |item: &Item| {
        let encoded = encode(item).map_err(|error| ItemFault::Engine(error.to_string()))?;
        match encoded.len() {
            tokens if tokens > limit => Err(ItemFault::Overlong { tokens, limit }),
            _ => Ok(encoded),
        }
    };
    items.iter().map(one).collect()
}

/// Batches of at most `budget` tokens (a longer item alone), items of one prompt side
/// by side, each with its place among all.
pub(crate) fn batches(
    encoded: &[Result<EncodedItem, ItemFault>],
    budget: usize,
) -> Vec<Vec<Placed<'_>>> {
    let mut first_of: std::collections::HashMap<&[u32], usize> = std::collections::HashMap::new();
    let mut order: Vec<(usize, usize, &EncodedItem)> = Vec::with_capacity(encoded.len());
    for (index, item) in encoded.iter().enumerate() {
        if let Ok(item) = item {
            let first = *first_of.entry(item.prompt.as_slice()).or_insert(index);
            order.push((first, index, item));
        }
    }
    order.sort_by_key(|(first, index, _)| (*first, *index));
    let mut batches: Vec<Vec<Placed<'_>>> = Vec::new();
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
