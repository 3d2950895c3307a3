//! Scalar reward models: one number an item, from the state of its last token or from
//! attention over all of them.
//!
//! Items run on forests: those that share their prompt share its computation, and the
//! number does not depend on which items stand beside it.

mod text;

#[cfg(test)]
mod tests;

use patarm_models::files::RewardConfig;
use patarm_models::{Decoder, ScalarHead, TreeBuilder};
use patarm_text::Item;

use crate::model::{ItemFault, Reward, RewardModel};
use crate::observer::Observer;

pub(crate) use text::refuse_empty;
pub use text::{EncodedItem, ScalarText};

/// Tokens of one forward when scoring.
pub const SCORING_TOKENS: usize = 4096;

/// How a decoder scores items: the part that all families share.
pub struct Scoring<'a> {
    /// The decoder.
    pub decoder: &'a Decoder,
    /// Tokens of one forward; items are never split.
    pub batch_tokens: usize,
    /// Who watches.
    pub observer: &'a dyn Observer,
    /// Name for reports.
    pub name: String,
}

impl std::fmt::Debug for Scoring<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scoring").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Scoring<'a> {
    /// Scoring in batches of [`SCORING_TOKENS`].
    #[must_use]
    pub fn new(decoder: &'a Decoder, observer: &'a dyn Observer, name: impl Into<String>) -> Self {
        Self { decoder, batch_tokens: SCORING_TOKENS, observer, name: name.into() }
    }
}

/// A decoder with a head on its states; the kind of head says how a reward is read.
#[derive(Debug)]
pub struct HeadModel<'a, H> {
    /// Decoder and batches.
    pub scoring: Scoring<'a>,
    /// The head.
    pub head: H,
    /// Its texts.
    pub text: &'a ScalarText,
    /// Mean and deviation of its rewards, where known.
    pub config: &'a RewardConfig,
}

/// A decoder whose head gives an item one number.
pub type ScalarRewardModel<'a> = HeadModel<'a, ScalarHead>;

impl RewardModel for ScalarRewardModel<'_> {
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>> {
        let encode = |item: &Item| self.text.encode(item);
        score_in_batches(items, &encode, &self.scoring, &|batch| {
            let (forest, rows) = last_rows(batch.iter().map(|(_, item)| *item));
            let output = self.head.infer(self.scoring.decoder, &forest, &rows)?;
            Ok(output.values().iter().map(|value| self.reward(f64::from(*value))).collect())
        })
    }

    fn name(&self) -> String {
        self.scoring.name.clone()
    }
}

impl<H> HeadModel<'_, H> {
    /// A value with its normalised form.
    pub(crate) fn reward(&self, value: f64) -> Reward {
        Reward { normalised: normalised(value, self.config), ..Reward::of(value) }
    }
}

/// Token ids that begin with a prompt others may share.
pub(crate) trait Encoded {
    /// The prompt's.
    fn prompt(&self) -> &[u32];

    /// Number of all of them.
    fn num_tokens(&self) -> usize;
}

impl Encoded for EncodedItem {
    fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    fn num_tokens(&self) -> usize {
        self.len()
    }
}

/// An item of a batch with its place among all.
pub(crate) type Placed<'i, T = EncodedItem> = (usize, &'i T);
type Encode<'a> = dyn Fn(&Item) -> crate::Result<EncodedItem> + 'a;
type ScoreBatch<'a, R, T = EncodedItem> =
    dyn Fn(&[Placed<'_, T>]) -> Result<Vec<R>, patarm_models::Error> + 'a;

/// Encodes and scores items in batches; results stand in the order of the items, each
/// failing alone.
pub(crate) fn score_in_batches<R>(
    items: &[Item],
    encode: &Encode<'_>,
    scoring: &Scoring<'_>,
    score: &ScoreBatch<'_, R>,
) -> Vec<Result<R, ItemFault>> {
    let encoded = encode_all(items, encode, scoring.decoder.shape.max_positions);
    score_encoded(&encoded, scoring, score)
}

/// Scores what is encoded in batches; a failure of the engine is a fault of its batch.
pub(crate) fn score_encoded<R, T: Encoded>(
    encoded: &[Result<T, ItemFault>],
    scoring: &Scoring<'_>,
    score: &ScoreBatch<'_, R, T>,
) -> Vec<Result<R, ItemFault>> {
    let observer = scoring.observer;
    let unread = ItemFault::Engine("interrupted before this item".to_owned());
    let mut results: Vec<Result<R, ItemFault>> =
        encoded.iter().map(|one| Err(one.as_ref().err().unwrap_or(&unread).clone())).collect();
    observer.begin("scoring", encoded.len() as u64);
    let mut done = 0;
    for batch in batches(encoded, scoring.batch_tokens) {
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
pub(crate) fn batches<T: Encoded>(
    encoded: &[Result<T, ItemFault>],
    budget: usize,
) -> Vec<Vec<Placed<'_, T>>> {
    let mut first_of: std::collections::HashMap<&[u32], usize> = std::collections::HashMap::new();
    let mut order: Vec<(usize, usize, &T)> = Vec::with_capacity(encoded.len());
    for (index, item) in encoded.iter().enumerate() {
        if let Ok(item) = item {
            let first = *first_of.entry(item.prompt()).or_insert(index);
            order.push((first, index, item));
        }
    }
    order.sort_by_key(|(first, index, _)| (*first, *index));
    let mut batches: Vec<Vec<Placed<'_, T>>> = Vec::new();
    let (mut tokens, mut prompt) = (0, None);
    for (first, index, item) in order {
        let shared = if prompt == Some(first) { item.prompt().len() } else { 0 };
        let more = item.num_tokens() - shared;
        match batches.last_mut() {
            Some(batch) if tokens + more <= budget => {
                batch.push((index, item));
                tokens += more;
            }
            _ => {
                batches.push(vec![(index, item)]);
                tokens = item.num_tokens();
            }
        }
        prompt = Some(first);
    }
    batches
}
