//! An ordinal reward model on preference pairs, with or without quality labels.
//!
//! Implements OPRM and Region Flooding Tuning (arXiv 2602.12660): see
//! [`patarm_reward::ordinal`] for the loss and what of the paper is not known. There are
//! no new parameters: the ratings are the model's own digits.
//!
//! # Deviations
//! - Optimiser and template of the paper are unknown; ours are in the recipe and in
//!   `patarm_reward::ordinal`.
//! - Pairs whose labels say that the chosen response is worse are dropped and counted.

use std::collections::HashMap;

use patarm_models::{AdamWConfig, Decoder};
use patarm_reward::model::RewardModel;
use patarm_reward::observer::Silent;
use patarm_reward::ordinal::{
    OrdinalRewardModel, OrdinalText, Quality, Region, RegionShape, digit_targets, moments, ratings,
    region_loss,
};
use patarm_reward::pair_loss::PairTerm;
use patarm_reward::scalar::{Scoring, last_rows};
use patarm_text::{Comparison, Preference};
use serde::{Deserialize, Serialize};

use crate::bradley_terry::tally_pair;
use crate::discriminative::{Learner, Objective, Schedule, Tally};
use crate::error::Error;
use crate::head_training::TRAINED;
use crate::reward_pairs::EncodedRewardPair;
use crate::run_directory::Phase;

/// The table `[oprm]` of a recipe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OprmConfig {
    /// How quality labels become a region.
    pub region: RegionShape,
    /// JSONL rows `{"id": …, "first": "good", "second": "bad"}` for some or all pairs;
    /// absent = no labels.
    pub quality_labels: Option<String>,
    /// How much is trained.
    pub schedule: Schedule,
    /// Optimiser.
    pub optimizer: AdamWConfig,
}

/// A row of the file of quality labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualityRow {
    /// Identity of the comparison.
    pub id: String,
    /// Label of its first response.
    pub first: Quality,
    /// Label of its second response.
    pub second: Quality,
}

/// Reads quality labels by the comparison's identity.
///
/// # Errors
/// When a line is no such row or an identity comes twice; the sentence names the line.
pub fn read_quality_labels(text: &str) -> Result<HashMap<String, (Quality, Quality)>, Error> {
    let mut labels = HashMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong =
            |what: &str| Error::Data(format!("quality labels, line {}: {what}", number + 1));
        let row: QualityRow =
            serde_json::from_str(line).map_err(|error| wrong(&error.to_string()))?;
        if labels.insert(row.id.clone(), (row.first, row.second)).is_some() {
            return Err(wrong(&format!("comparison {} is labelled twice", row.id)));
        }
    }
    Ok(labels)
}

/// A pair with its region.
#[derive(Clone, Debug, PartialEq)]
pub struct OrdinalPair {
    /// The pair.
    pub pair: EncodedRewardPair,
    /// Where its mass belongs.
    pub region: Region,
}

/// Training pairs, and how many were labelled or dropped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OrdinalPairs {
    /// The pairs.
    pub pairs: Vec<OrdinalPair>,
    /// Pairs with labels.
    pub labelled: usize,
    /// Pairs dropped because their labels contradict the preference.
    pub contradictions: usize,
    /// Why other pairs cannot be encoded.
    pub left_out: Vec<String>,
}

/// Encodes comparisons and gives each its region.
#[must_use]
pub fn ordinal_pairs(
    comparisons: &[Comparison],
    text: &OrdinalText,
    (shape, labels): (RegionShape, &HashMap<String, (Quality, Quality)>),
) -> OrdinalPairs {
    let mut found = OrdinalPairs::default();
    for comparison in comparisons {
        let pair = match EncodedRewardPair::new(comparison, &|item| text.encode(item)) {
            Ok(Some(pair)) => pair,
            Ok(None) => continue,
            Err(error) => {
                found.left_out.push(error.to_string());
                continue;
            }
        };
        let own = labels.get(&comparison.id).map(|&(first, second)| match comparison.label {
            Preference::Second => (second, first),
            _ => (first, second),
        });
        match Region::of(shape, own) {
            Some(region) => {
                found.labelled += usize::from(own.is_some());
                found.pairs.push(OrdinalPair { pair, region });
            }
            None => found.contradictions += 1,
        }
    }
    found
}

/// Digits in training.
#[derive(Debug)]
pub struct Oprm<'a> {
    /// Texts and digit tokens.
    pub text: &'a OrdinalText,
    /// Training pairs.
    pub pairs: &'a [OrdinalPair],
}

impl Objective for Oprm<'_> {
    fn phase(&self) -> Phase {
        Phase::Oprm
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
        let decoder = learner.decoder;
        let sides = examples.iter().flat_map(|&pair| &self.pairs[pair].pair.sides);
        let (forest, rows) = last_rows(sides);
        let saved = decoder.forward(&forest, learner.options)?;
        let targets = digit_targets(&rows, self.text.digits());
        let statistics = decoder.target_statistics_for_backward(&saved.hidden, &targets, 1.0);
        let mut d_logprobs = Vec::with_capacity(statistics.logprobs.len());
        for (place, &pair) in examples.iter().enumerate() {
            let side = |which: usize| ratings(statistics.logprobs_of(2 * place + which));
            let (chosen, rejected) = (side(0), side(1));
            let term = region_loss(&chosen, &rejected, &self.pairs[pair].region);
            let (expected, other) = (moments(&chosen), moments(&rejected));
            let figures = PairTerm { loss: term.loss, ..PairTerm::default() };
            tally_pair(tally, (expected.0, other.0), &figures);
            tally.add("variance", f64::midpoint(expected.1, other.1));
            // The gradient sums to zero over the digits, so that it is the same by the
            // log-probabilities over the whole vocabulary.
            for d in term.d_chosen.iter().chain(&term.d_rejected) {
                d_logprobs.push((d / denominator) as f32);
            }
        }
        tally.count(&forest);
        let d_hidden = decoder.target_statistics_backward(
            &saved,
            &statistics,
            &d_logprobs,
            None,
            learner.gradients,
        );
        decoder.backward(&saved, &d_hidden, &[], learner.gradients);
        Ok(())
    }

    fn with_model(&self, decoder: &Decoder, act: &mut dyn FnMut(&dyn RewardModel)) {
        let scoring = Scoring::new(decoder, &Silent, TRAINED);
        act(&OrdinalRewardModel { scoring, text: self.text });
    }
}
