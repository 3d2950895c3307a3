//! A token-level reward model on preference pairs.
//!
//! Implements Q-RM (arXiv 2505.23363, ICML 2025): see [`patarm_reward::token_values`] for
//! the loss. Each side's value is the mean over its response tokens and the token that
//! ends its turn; the prompt takes no part.
//!
//! # Deviations
//! - The authors train a 70-billion model with an adapter of rank 128 at 1e-5; every
//!   number of the recipe is free.
//! - Prompts are shared by both sides; there are no padded rows.

use patarm_models::Decoder;
use patarm_reward::model::RewardModel;
use patarm_reward::token_values::{TokenHead, TokenLossConfig, mean_loss, mean_of, scored_rows};

use crate::bradley_terry::tally_pair;
use crate::discriminative::{Learner, Objective, Tally};
use crate::error::Error;
use crate::head_training::{HeadConfig, HeadTraining};
use crate::run_directory::Phase;

/// The table `[q_rm]` of a recipe.
pub type QRmConfig = HeadConfig<TokenLossConfig>;

/// A token head in training.
pub type QRm<'a> = HeadTraining<'a, TokenLossConfig, TokenHead>;

impl Objective for QRm<'_> {
    fn phase(&self) -> Phase {
        Phase::QRm
    }

    fn num_examples(&self) -> usize {
        self.pairs.len()
    }

    fn num_tokens(&self, example: usize) -> usize {
        self.pairs[example].num_tokens()
    }

    fn accumulate(
        &self,
        learner: &mut Learner<'_>,
        examples: &[usize],
        denominator: f64,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        let sides = examples.iter().flat_map(|&pair| &self.pairs[pair].sides);
        let (forest, rows) = scored_rows(sides);
        let saved = learner.decoder.forward(&forest, learner.options)?;
        let output = self.head.0.forward(learner.decoder, &saved.hidden, &rows.concat());
        let mut d_values = Vec::with_capacity(output.values.len());
        let mut rest = output.values.as_slice();
        for pair in rows.chunks_exact(2) {
            let (chosen, after) = rest.split_at(pair[0].len());
            let (rejected, after) = after.split_at(pair[1].len());
            rest = after;
            let means = (mean_of(chosen), mean_of(rejected));
            let term = mean_loss(means.0, means.1, &self.loss);
            tally_pair(tally, means, &term);
            for (side, slope) in [(chosen, term.d_chosen), (rejected, term.d_rejected)] {
                let each = slope / (side.len().max(1) as f64 * denominator);
                d_values.extend(side.iter().map(|_| each as f32));
            }
        }
        tally.count(&forest);
        let d_hidden = self.head.0.backward(learner.decoder, &output, &d_values, learner.gradients);
        learner.decoder.backward(&saved, &d_hidden, &[], learner.gradients);
        Ok(())
    }

    fn with_model(&self, decoder: &Decoder, act: &mut dyn FnMut(&dyn RewardModel)) {
        act(&self.model(decoder));
    }
}
