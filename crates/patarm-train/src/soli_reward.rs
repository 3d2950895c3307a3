//! A scalar reward model on single labels: what passes beats what fails, ties included.
//!
//! Implements the loss, the pairs and the head of SoliReward (arXiv 2512.22170, CVPR
//! 2026) from a description of paper and code, for text: see
//! [`patarm_reward::win_tie`] for the loss and [`patarm_models::hpqa`] for the head. A
//! comparison with a preferred side is a passing and a failing response, one labelled a
//! tie two passing ones; their prompts need not be the same. `patarm data pass-fail`
//! makes such comparisons.
//!
//! # Deviations
//! - Text takes the place of video; prompts are the conversation's own.
//! - The decoder is whatever the recipe names, with its own optimiser settings.
//! - The share of ties among the pairs is not known from the source; the builder's
//!   default is as many as wins.

use std::collections::HashSet;

use patarm_models::files::{RewardConfig, RewardFamily};
use patarm_models::{AdamWConfig, Decoder, HeadInit, ScalarHead};
use patarm_reward::model::RewardModel;
use patarm_reward::observer::Silent;
use patarm_reward::pair_loss::LossTable;
use patarm_reward::pass_fail::{Groups, PassFail};
use patarm_reward::scalar::{EncodedItem, ScalarRewardModel, ScalarText, Scoring, last_rows};
use patarm_reward::win_tie::{Outcome, WinTieConfig, win_tie_loss};
use patarm_text::{Comparison, Item, Preference};
use serde::{Deserialize, Serialize};

use crate::bradley_terry::{head_options, tally_pair};
use crate::discriminative::{Learner, Objective, Schedule, Tally};
use crate::error::Error;
use crate::head_training::TRAINED;
use crate::reward_pairs::EncodedRewardPair;
use crate::run_directory::Phase;

/// What reads the reward off the decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum HeadKind {
    /// A linear map of the last token's state.
    LastToken {},
    /// Attention over all tokens in several layers.
    Hpqa {
        /// The layers, from 1; the last one of the model is its final state.
        layers: Vec<usize>,
        /// Attention heads; divides the model's width.
        #[serde(default = "default_heads")]
        heads: usize,
    },
}

/// The authors'.
fn default_heads() -> usize {
    8
}

/// The table `[soli_reward]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SoliRewardConfig {
    /// The loss.
    pub loss: WinTieConfig,
    /// What reads the reward; a base that has such a head keeps it.
    pub head: HeadKind,
    /// How the output of a fresh head begins.
    pub output: HeadInit,
    /// How much is trained.
    pub schedule: Schedule,
    /// Optimiser.
    pub optimizer: AdamWConfig,
}

impl Default for SoliRewardConfig {
    fn default() -> Self {
        Self {
            loss: WinTieConfig::default(),
            head: HeadKind::LastToken {},
            output: HeadInit::Zero {},
            schedule: Schedule::default(),
            optimizer: AdamWConfig::default(),
        }
    }
}

impl SoliRewardConfig {
    /// What is wrong with it.
    ///
    /// # Errors
    /// When a value cannot work.
    pub fn check(&self) -> Result<(), String> {
        self.schedule.check()?;
        self.loss.check()
    }

    /// The family of the model it trains.
    #[must_use]
    pub fn family(&self) -> RewardFamily {
        match &self.head {
            HeadKind::LastToken {} => RewardFamily::Scalar {},
            HeadKind::Hpqa { layers, heads } => {
                RewardFamily::Hpqa { layers: layers.clone(), heads: *heads }
            }
        }
    }
}

/// A pair with what its labels say.
#[derive(Clone, Debug, PartialEq)]
pub struct WinTiePair {
    /// The pair, a passing response first.
    pub pair: EncodedRewardPair,
    /// Whether the second passes too.
    pub outcome: Outcome,
}

/// Encodes comparisons: preferred sides pass, the others fail, both sides of a tie pass.
/// Those without a label are skipped; those that cannot be encoded are left out, with
/// the sentence that says why.
#[must_use]
pub fn win_tie_pairs(
    comparisons: &[Comparison],
    encode: &dyn Fn(&Item) -> patarm_reward::Result<EncodedItem>,
) -> (Vec<WinTiePair>, Vec<String>) {
    let (mut pairs, mut left_out) = (Vec::with_capacity(comparisons.len()), Vec::new());
    for comparison in comparisons {
        let (sides, outcome) = match (comparison.chosen_rejected(), comparison.label) {
            (Some(sides), _) => (sides, Outcome::Win),
            (None, Preference::Tie) => ((&comparison.first, &comparison.second), Outcome::Tie),
            (None, _) => continue,
        };
        match EncodedRewardPair::of_sides(comparison, sides, encode) {
            Ok(pair) => pairs.push(WinTiePair { pair, outcome }),
            Err(error) => left_out.push(error.to_string()),
        }
    }
    (pairs, left_out)
}

/// The responses of held-out comparisons by their label, each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelledResponses {
    /// Those that pass.
    pub passes: Vec<Item>,
    /// Those that fail.
    pub fails: Vec<Item>,
}

impl LabelledResponses {
    /// Reads labels off comparisons as [`win_tie_pairs`] does.
    #[must_use]
    pub fn of(comparisons: &[Comparison]) -> Self {
        let (mut found, mut seen) = (Self::default(), HashSet::new());
        for comparison in comparisons {
            let passing = match (comparison.chosen_rejected(), comparison.label) {
                (Some((chosen, rejected)), _) => {
                    if seen.insert(rejected) {
                        found.fails.push(rejected.clone());
                    }
                    vec![chosen]
                }
                (None, Preference::Tie) => vec![&comparison.first, &comparison.second],
                (None, _) => Vec::new(),
            };
            found.passes.extend(passing.into_iter().filter(|item| seen.insert(item)).cloned());
        }
        found
    }

    /// Figures over the rewards a model gives them; items without a reward are left out.
    #[must_use]
    pub fn measure(&self, model: &dyn RewardModel) -> Option<PassFail> {
        let rewards = |items: &[Item]| {
            let scored = model.score(items).into_iter();
            scored.filter_map(|reward| Some(reward.ok()?.value)).collect::<Vec<f64>>()
        };
        PassFail::of(&rewards(&self.passes), &rewards(&self.fails), Groups::default())
    }
}

/// A head in training on single labels.
#[derive(Debug)]
pub struct SoliReward<'a> {
    /// The loss.
    pub loss: WinTieConfig,
    /// The head.
    pub head: ScalarHead,
    /// Texts, for held-out measurement.
    pub text: &'a ScalarText,
    /// Training pairs.
    pub pairs: &'a [WinTiePair],
    /// Held-out responses for the diagnostics.
    pub held_out: &'a LabelledResponses,
    /// The description that scoring during the run uses.
    pub config: RewardConfig,
}

impl Objective for SoliReward<'_> {
    fn phase(&self) -> Phase {
        Phase::SoliReward
    }

    fn num_examples(&self) -> usize {
        self.pairs.len()
    }

    fn num_tokens(&self, example: usize) -> usize {
        self.pairs[example].pair.num_tokens()
    }

    fn accumulate(
        &self,
        learner: &mut Learner<'_>,
        examples: &[usize],
        denominator: f64,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        let sides = examples.iter().flat_map(|&pair| &self.pairs[pair].pair.sides);
        let (forest, rows) = last_rows(sides);
        let options = head_options(&self.head, learner);
        let saved = learner.decoder.forward(&forest, &options)?;
        let output = self.head.forward(learner.decoder, &saved, (&forest, &rows));
        let mut d_values = Vec::with_capacity(output.values().len());
        for (rewards, &pair) in output.values().chunks_exact(2).zip(examples) {
            let outcome = self.pairs[pair].outcome;
            let (first, second) = (f64::from(rewards[0]), f64::from(rewards[1]));
            let term = win_tie_loss(first, second, outcome, &self.loss);
            match outcome {
                Outcome::Win => {
                    tally_pair(tally, (first, second), &term);
                    tally.add("tie_share", 0.0);
                }
                Outcome::Tie => {
                    tally.add("loss", term.loss);
                    tally.add("tie_share", 1.0);
                    tally.add("tie_gap", (first - second).abs());
                }
            }
            d_values.push((term.d_chosen / denominator) as f32);
            d_values.push((term.d_rejected / denominator) as f32);
        }
        tally.count(&forest);
        let through = (&saved, &output);
        self.head.backward(learner.decoder, through, &d_values, learner.gradients);
        Ok(())
    }

    fn with_model(&self, decoder: &Decoder, act: &mut dyn FnMut(&dyn RewardModel)) {
        act(&ScalarRewardModel {
            scoring: Scoring::new(decoder, &Silent, TRAINED),
            head: self.head.clone(),
            text: self.text,
            config: &self.config,
        });
    }

    fn diagnose(&self, decoder: &Decoder) -> Vec<(&'static str, f64)> {
        let mut found = None;
        self.with_model(decoder, &mut |model| found = self.held_out.measure(model));
        found.map(|figures| figures.figures().to_vec()).unwrap_or_default()
    }
}
