//! A scalar reward model on preference pairs.
//!
//! Implements the Bradley–Terry reward model of Ouyang et al. (arXiv 2203.02155,
//! section 3.5) with what later trainers add: a margin for each pair (Touvron et al.,
//! arXiv 2307.09288, equation 2), centring (Eisenstein et al., arXiv 2312.09244) and
//! label smoothing. The reward is a linear map, without bias and in `f32`, of the hidden
//! state of an item's last token after the final norm.
//!
//! # Deviations
//! - Both sides of a pair, and all pairs of one prompt in a batch, share the
//!   computation of the prompt; there are no padded rows.
//! - The head begins at zero by default, so that the first loss is ln 2 exactly;
//!   `transformers` draws it with deviation 0.02 (`head = { kind = "normal", std = 0.02 }`).
//! - A margin comes from a pair's strength only when `loss.margin_per_strength` says so.

use patarm_models::{Decoder, ForwardOptions, ScalarHead};
use patarm_reward::model::RewardModel;
use patarm_reward::pair_loss::{PairLossConfig, PairTerm, preference_loss};
use patarm_reward::scalar::last_rows;

use crate::discriminative::{Learner, Objective, Tally};
use crate::error::Error;
use crate::head_training::{HeadConfig, HeadTraining};
use crate::run_directory::Phase;

/// The table `[bradley_terry]` of a recipe.
pub type BradleyTerryConfig = HeadConfig<PairLossConfig>;

/// A scalar head in training.
pub type BradleyTerry<'a> = HeadTraining<'a, PairLossConfig, ScalarHead>;

impl Objective for BradleyTerry<'_> {
    fn phase(&self) -> Phase {
        Phase::BradleyTerry
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
        let (forest, rows) = last_rows(sides);
        let options = head_options(&self.head, learner);
        let saved = learner.decoder.forward(&forest, &options)?;
        let output = self.head.forward(learner.decoder, &saved, (&forest, &rows));
        let mut d_values = Vec::with_capacity(output.values().len());
        for (rewards, &pair) in output.values().chunks_exact(2).zip(examples) {
            let margin = self.loss.margin_of(self.pairs[pair].strength);
            let (chosen, rejected) = (f64::from(rewards[0]), f64::from(rewards[1]));
            let term = preference_loss(chosen, rejected, margin, &self.loss);
            tally_pair(tally, (chosen, rejected), &term);
            d_values.push((term.d_chosen / denominator) as f32);
            d_values.push((term.d_rejected / denominator) as f32);
        }
        tally.count(&forest);
        let through = (&saved, &output);
        self.head.backward(learner.decoder, through, &d_values, learner.gradients);
        Ok(())
    }

    fn with_model(&self, decoder: &Decoder, act: &mut dyn FnMut(&dyn RewardModel)) {
        act(&self.model(decoder));
    }
}

/// How a forward runs for a head that may read inner layers.
pub(crate) fn head_options(head: &ScalarHead, learner: &Learner<'_>) -> ForwardOptions {
    ForwardOptions { taps: head.taps(learner.decoder), ..learner.options.clone() }
}

/// The figures every loss on two rewards reports.
pub(crate) fn tally_pair(tally: &mut Tally, (chosen, rejected): (f64, f64), term: &PairTerm) {
    tally.add("loss", term.loss);
    tally.add("margin", chosen - rejected);
    tally.add("chosen_reward", chosen);
    tally.add("rejected_reward", rejected);
    tally.add("reward_square", (chosen * chosen + rejected * rejected) / 2.0);
    let right = match chosen.partial_cmp(&rejected) {
        Some(std::cmp::Ordering::Greater) => 1.0,
        Some(std::cmp::Ordering::Equal) => 0.5,
        _ => 0.0,
    };
    tally.add("accuracy", right);
}
