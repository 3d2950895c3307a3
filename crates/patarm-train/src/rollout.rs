//! Judgements of both sides of pairs, drawn from the model in training.

use patarm_models::Decoder;
use patarm_models::kernels::random;
use patarm_reward::embedded::{JudgeCall, JudgeSampling, JudgeText, RawJudgement, generate};
use patarm_reward::observer::Observer;
use patarm_text::Comparison;

use crate::error::Error;

/// Index of the chosen side in pairs of sides.
pub const CHOSEN: usize = 0;
/// Index of the rejected side in pairs of sides.
pub const REJECTED: usize = 1;

/// A comparison as judge prompts of its chosen and its rejected item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPair {
    /// Identity of the comparison.
    pub id: String,
    /// Prompt segments of `[chosen, rejected]`.
    pub sides: [Vec<Vec<u32>>; 2],
}

impl EncodedPair {
    /// Encodes a labelled comparison; `None` for ties and unlabelled ones.
    ///
    /// # Errors
    /// When the tokenizer refuses a text.
    pub fn new(comparison: &Comparison, text: &JudgeText) -> Result<Option<Self>, Error> {
        let Some((chosen, rejected)) = comparison.chosen_rejected() else {
            return Ok(None);
        };
        let encode = |item| {
            text.encode(item, comparison.task)
                .map_err(|error| Error::Data(format!("comparison {}: {error}", comparison.id)))
        };
        Ok(Some(Self { id: comparison.id.clone(), sides: [encode(chosen)?, encode(rejected)?] }))
    }

    /// Tokens of the longer side.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.sides.iter().map(|side| side.iter().map(Vec::len).sum()).max().unwrap_or(0)
    }
}

/// The judgements of one pair.
#[derive(Clone, Debug, PartialEq)]
pub struct PairRollouts {
    /// Index of the pair in the training set.
    pub pair: usize,
    /// Judgements of `[chosen, rejected]`.
    pub sides: [Vec<RawJudgement>; 2],
}

/// Draws `num_judgements` judgements a side for every pair of a batch. The random
/// stream of a judgement is a function of (`sampling.seed`, `draw`, pair, side,
/// index) alone.
///
/// # Errors
/// When a prompt does not fit the model.
pub fn roll_out(
    decoder: &Decoder,
    text: &JudgeText,
    (pairs, batch): (&[EncodedPair], &[usize]),
    (num_judgements, draw): (usize, u64),
    sampling: &JudgeSampling,
    observer: &dyn Observer,
) -> Result<Vec<PairRollouts>, Error> {
    let mut calls = Vec::with_capacity(batch.len() * 2 * num_judgements);
    for &pair in batch {
        for (side, prompt) in pairs[pair].sides.iter().enumerate() {
            for index in 0..num_judgements {
                let coordinates = [draw, pair as u64, side as u64, index as u64];
                let sequence = random::draw(0, &coordinates);
                calls.push(JudgeCall { prompt: prompt.clone(), sequence });
            }
        }
    }
    let mut raw = generate(decoder, text, &calls, sampling, observer).into_iter();
    let mut take = || raw.by_ref().take(num_judgements).collect::<Result<Vec<_>, _>>();
    batch.iter().map(|&pair| Ok(PairRollouts { pair, sides: [take()?, take()?] })).collect()
}
