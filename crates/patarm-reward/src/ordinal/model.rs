//! An ordinal reward model on a decoder.

use patarm_models::kernels::Buffer;
use patarm_models::{Decoder, Target, TargetRows};
use patarm_text::Item;

use super::{NUM_RATINGS, OrdinalText, Ratings, log_softmax, moments};
use crate::model::{ItemFault, Reward, RewardModel};
use crate::scalar::{Scoring, last_rows, score_in_batches};

/// A decoder asked for a digit.
#[derive(Debug)]
pub struct OrdinalRewardModel<'a> {
    /// Decoder, output matrix included, and batches.
    pub scoring: Scoring<'a>,
    /// Its texts.
    pub text: &'a OrdinalText,
}

/// Targets that read the digits at each row.
#[must_use]
pub fn digit_targets(rows: &[usize], digits: &[u32; NUM_RATINGS]) -> TargetRows {
    let mut targets = TargetRows::new();
    for &row in rows {
        targets.push(Target { row, ids: digits.to_vec() });
    }
    targets
}

/// The digits' log-probabilities as ratings.
#[must_use]
pub fn ratings(logprobs: &[f32]) -> Ratings {
    let mut ratings = [f64::NEG_INFINITY; NUM_RATINGS];
    for (rating, logprob) in ratings.iter_mut().zip(logprobs) {
        *rating = f64::from(*logprob);
    }
    ratings
}

impl RewardModel for OrdinalRewardModel<'_> {
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>> {
        let encode = |item: &Item| self.text.encode(item);
        let decoder = self.scoring.decoder;
        score_in_batches(items, &encode, &self.scoring, &|batch| {
            let (forest, rows) = last_rows(batch.iter().map(|(_, item)| *item));
            let (hidden, _) = decoder.infer(&forest, &[])?;
            Ok(rewards(decoder, &hidden, (&rows, self.text.digits())))
        })
    }

    fn name(&self) -> String {
        self.scoring.name.clone()
    }
}

/// The rewards read at the given rows of `hidden`.
pub(crate) fn rewards(
    decoder: &Decoder,
    hidden: &Buffer,
    (rows, digits): (&[usize], &[u32; NUM_RATINGS]),
) -> Vec<Reward> {
    let statistics = decoder.target_statistics(hidden, &digit_targets(rows, digits), 1.0);
    (0..rows.len()).map(|n| reward(&ratings(statistics.logprobs_of(n)))).collect()
}

fn reward(ratings: &Ratings) -> Reward {
    let (mean, variance) = moments(ratings);
    Reward {
        variance: Some(variance),
        distribution: log_softmax(ratings).map(f64::exp).to_vec(),
        ..Reward::of(mean)
    }
}
