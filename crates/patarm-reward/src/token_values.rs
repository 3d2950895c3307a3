//! Token-level rewards: a value for every token of a response.
//!
//! Implements Q-RM (arXiv 2505.23363): the logits Z of a discriminative policy are token
//! Q-values up to a term of the state, and are learnt from pairs alone by comparing the
//! means of both sides,
//! L = −log σ(β (mean_t Z_w − mean_t Z_l) − γ).
//!
//! # Deviations
//! As in the authors' code, Z is one number from the hidden state *at* a token, after it
//! was read, and no softmax over the vocabulary is taken.

use patarm_models::{Forest, LinearHead, SegmentId, TreeBuilder};
use patarm_text::Item;
use serde::{Deserialize, Serialize};

use crate::model::{ItemFault, Reward, RewardModel, TokenValue};
use crate::pair_loss::{LossTable, PairTerm, sigmoid, softplus};
use crate::scalar::{EncodedItem, HeadModel, ScalarText, place, score_in_batches};

/// β and γ of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenLossConfig {
    /// Scale of the difference of the means.
    pub beta: f64,
    /// What the scaled difference must exceed.
    pub gamma: f64,
}

impl Default for TokenLossConfig {
    /// The paper's.
    fn default() -> Self {
        Self { beta: 0.2, gamma: 2.0 }
    }
}

impl LossTable for TokenLossConfig {
    fn check(&self) -> Result<(), String> {
        match self.beta > 0.0 {
            true => Ok(()),
            false => Err("loss.beta must be positive".into()),
        }
    }
}

/// The loss of a pair by its two sequence means; gradients are by the means.
#[must_use]
pub fn mean_loss(chosen: f64, rejected: f64, config: &TokenLossConfig) -> PairTerm {
    let logit = config.beta * (chosen - rejected) - config.gamma;
    let slope = config.beta * sigmoid(-logit);
    PairTerm { loss: softplus(-logit), d_chosen: -slope, d_rejected: slope }
}

/// Mean of the values of a sequence.
#[must_use]
pub fn mean_of(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len().max(1) as f64
}

/// The forest of some items and, per item, the rows of its scored tokens: the response
/// and the token that ends its turn; never the prompt.
pub fn scored_rows<'i>(items: impl Iterator<Item = &'i EncodedItem>) -> (Forest, Vec<Vec<usize>>) {
    let mut tree = TreeBuilder::default();
    let leaves: Vec<(SegmentId, usize)> =
        items.map(|item| (place(&mut tree, item), item.num_scored)).collect();
    let (forest, _) = tree.finish();
    let rows = |(leaf, count): (SegmentId, usize)| {
        (0..count).map(|offset| forest.row(leaf, offset)).collect()
    };
    let rows = leaves.into_iter().map(rows).collect();
    (forest, rows)
}

/// A head that gives every token a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenHead(pub LinearHead);

/// A decoder with a head that gives every token a value.
pub type TokenRewardModel<'a> = HeadModel<'a, TokenHead>;

impl RewardModel for TokenRewardModel<'_> {
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>> {
        let encode = |item: &Item| self.text.encode(item);
        let decoder = self.scoring.decoder;
        score_in_batches(items, &encode, &self.scoring, &|batch| {
            let (forest, rows) = scored_rows(batch.iter().map(|(_, item)| *item));
            let (hidden, _) = decoder.infer(&forest, &[])?;
            let values = self.head.0.forward(decoder, &hidden, &rows.concat()).values;
            let mut rest = values.as_slice();
            let mut rewards = Vec::with_capacity(batch.len());
            for (_, item) in batch {
                let (own, after) = rest.split_at(item.num_scored);
                let reward = reward(self.text, &item.response[..item.num_scored], own);
                rewards.push(Reward { normalised: self.reward(reward.value).normalised, ..reward });
                rest = after;
            }
            Ok(rewards)
        })
    }

    fn name(&self) -> String {
        self.scoring.name.clone()
    }
}

/// The reward of scored tokens with their values.
pub(crate) fn reward(text: &ScalarText, tokens: &[u32], values: &[f32]) -> Reward {
    let each = text.token_texts(tokens).into_iter().zip(values);
    let token_values = each.map(|(text, value)| TokenValue { text, value: f64::from(*value) });
    Reward { token_values: token_values.collect(), ..Reward::of(mean_of(values)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair_loss::{PairLossConfig, preference_loss};

    const PAPER: TokenLossConfig = TokenLossConfig { beta: 0.2, gamma: 2.0 };

    fn loss(chosen: &[f32], rejected: &[f32], config: &TokenLossConfig) -> f64 {
        mean_loss(mean_of(chosen), mean_of(rejected), config).loss
    }

    #[test]
    fn a_zero_head_costs_softplus_of_gamma() {
        assert!((loss(&[0.0; 5], &[0.0; 3], &PAPER) - 2.1269).abs() < 1e-4);
        // Logit 0 needs a gap of 10 between the means, loss 0.1 a gap of 21.26.
        assert!((mean_loss(10.0, 0.0, &PAPER).loss - std::f64::consts::LN_2).abs() < 1e-12);
        assert!((mean_loss(21.26, 0.0, &PAPER).loss - 0.1).abs() < 1e-3);
    }

    #[test]
    fn a_constant_and_repeating_every_token_change_nothing() {
        let (chosen, rejected) = ([1.0, -2.0, 4.0], [0.5, 0.25]);
        let plain = loss(&chosen, &rejected, &PAPER);
        let raised = (chosen.map(|z| z + 8.0), rejected.map(|z| z + 8.0));
        assert!((loss(&raised.0, &raised.1, &PAPER) - plain).abs() < 1e-12);
        let twice = |values: &[f32]| values.iter().flat_map(|z| [*z, *z]).collect::<Vec<_>>();
        assert!((loss(&twice(&chosen), &twice(&rejected), &PAPER) - plain).abs() < 1e-12);
    }

    #[test]
    fn the_gradient_of_a_token_is_its_share_of_the_mean() {
        let (chosen, rejected) = ([1.0, -2.0, 4.0], [0.5, 0.25]);
        let term = mean_loss(mean_of(&chosen), mean_of(&rejected), &PAPER);
        let logit = 0.2 * (1.0 - 0.375) - 2.0;
        let expected = -0.2 * sigmoid(-logit) / 3.0;
        assert!((term.d_chosen / 3.0 - expected).abs() < 1e-12);
        let h = 1e-2;
        let moved = |by: f32| loss(&[1.0 + by, -2.0, 4.0], &rejected, &PAPER);
        let numeric = (moved(h) - moved(-h)) / f64::from(2.0 * h);
        assert!((numeric - expected).abs() < 1e-6);
        assert_eq!(term.d_rejected, -term.d_chosen);
    }

    #[test]
    fn one_token_without_gamma_is_bradley_terry() {
        let config = TokenLossConfig { beta: 1.0, gamma: 0.0 };
        let term = mean_loss(0.7, -0.4, &config);
        let plain = preference_loss(0.7, -0.4, 0.0, &PairLossConfig::default());
        assert!((term.loss - plain.loss).abs() < 1e-12);
        assert!((term.d_chosen - plain.d_chosen).abs() < 1e-12);
    }
}
