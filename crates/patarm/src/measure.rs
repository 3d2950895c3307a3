//! Held-out measurements of a model in training, and the numbers they show.

use std::collections::BTreeMap;
use std::path::Path;

use patarm_eval::compare::compare;
use patarm_eval::interval::Estimate;
use patarm_eval::pairs::{Evaluated, PairsOptions, Readout, pair_items, pairs_from_rewards};
use patarm_eval::store;
use patarm_models::Decoder;
use patarm_models::kernels::random;
use patarm_reward::embedded::{EmbeddedJudge, JudgeSettings, JudgeText, ReadOut, Splice};
use patarm_reward::model::{ItemFault, Reward, RewardModel};
use patarm_reward::observer::Observer;
use patarm_text::Comparison;

use crate::exit::{Code, failure};
use crate::samples;
use crate::training::pairs_options;

/// Pairs the untrained model is measured on: it rarely finds the format.
const ZERO_SHOT_PAIRS: usize = 40;
/// Pairs that voting is measured on: four votes cost four times as much.
const VOTED_PAIRS: usize = 60;

/// The surroundings of every measurement.
pub(crate) struct Measurement<'a> {
    pub(crate) text: &'a JudgeText,
    pub(crate) held_out: &'a [Comparison],
    pub(crate) observer: &'a dyn Observer,
    pub(crate) out: &'a Path,
    pub(crate) seed: u64,
    pub(crate) max_tokens: usize,
}

/// One model's results on the held-out pairs.
pub(crate) struct Measured {
    /// With expected scores of one judgement.
    pub(crate) evaluated: Evaluated,
    /// Share of judgements without a usable score.
    pub(crate) fault_rate: f64,
    /// First judgement of every item up to its score, in the order of the items.
    texts: Vec<Option<String>>,
}

impl Measurement<'_> {
    fn judge<'d>(&'d self, decoder: &'d Decoder, name: &str, votes: usize) -> EmbeddedJudge<'d> {
        EmbeddedJudge {
            decoder,
            text: self.text,
            settings: JudgeSettings {
                read_out: ReadOut::Expected,
                votes,
                seed: random::mix(self.seed, 0xe7a1),
                temperature: 1.0,
                top_p: 1.0,
                max_tokens: self.max_tokens,
            },
            observer: self.observer,
            name: name.to_owned(),
        }
    }

    /// Measures a few pairs.
    pub(crate) fn few(&self, decoder: &Decoder, name: &str) -> anyhow::Result<Measured> {
        let few = &self.held_out[..ZERO_SHOT_PAIRS.min(self.held_out.len())];
        self.measure(decoder, few, name)
    }

    /// Measures every held-out pair with one judgement a response.
    pub(crate) fn all(&self, decoder: &Decoder, name: &str) -> anyhow::Result<Measured> {
        self.measure(decoder, self.held_out, name)
    }

    /// Accuracy of the mean of four sampled scores, on the first pairs.
    pub(crate) fn votes_4(&self, decoder: &Decoder) -> anyhow::Result<f64> {
        let few = &self.held_out[..VOTED_PAIRS.min(self.held_out.len())];
        let rewards = self.judge(decoder, "votes_4", 4).score(&pair_items(few));
        let evaluated =
            pairs_from_rewards("votes_4", few, &rewards, &self.options(Readout::Votes(4)))?;
        store::write_folder(&self.out.join("evaluations/votes_4"), &evaluated)?;
        Ok(evaluated.result.accuracy.half_credit.value.unwrap_or(f64::NAN))
    }

    fn measure(
        &self,
        decoder: &Decoder,
        pairs: &[Comparison],
        name: &str,
    ) -> anyhow::Result<Measured> {
        let rewards = self.judge(decoder, name, 1).score(&pair_items(pairs));
        if self.observer.is_interrupted() {
            return Err(failure(Code::Interrupted, "interrupted while measuring"));
        }
        let evaluated =
            pairs_from_rewards(name, pairs, &rewards, &self.options(Readout::Expected))?;
        store::write_folder(&self.out.join("evaluations").join(name), &evaluated)?;
        samples::keep_pairs(self.out, name, pairs, &rewards)?;
        let texts = rewards.iter().map(|reward| self.text_before_score(reward)).collect();
        Ok(Measured { evaluated, fault_rate: fault_rate(&rewards), texts })
    }

    /// A judgement up to and including its opening score tag.
    fn text_before_score(&self, reward: &Result<Reward, ItemFault>) -> Option<String> {
        let text = &reward.as_ref().ok()?.judgements.first()?.text;
        let (open, _) = self.text.score_tags();
        text.rfind(&open).map(|at| text[..at + open.len()].to_owned())
    }

    fn options(&self, readout: Readout) -> PairsOptions {
        PairsOptions { readout, ..pairs_options(self.seed) }
    }

    /// Accuracy when rubric and evaluation are another prompt's: does the text matter?
    pub(crate) fn spliced(&self, decoder: &Decoder, measured: &Measured) -> anyhow::Result<f64> {
        let judge = self.judge(decoder, "spliced", 1);
        let items = pair_items(self.held_out);
        let (open, _) = self.text.score_tags();
        let texts = &measured.texts;
        // Two rows a pair: the text of the next pair's same side.
        let borrowed = |index: usize| {
            let others = (1..items.len() / 2).map(|step| (index + 2 * step) % items.len());
            others.into_iter().find_map(|other| texts[other].clone())
        };
        let splices: Vec<Splice> = items
            .iter()
            .enumerate()
            .map(|(index, item)| Splice {
                item: item.clone(),
                text: borrowed(index).unwrap_or_else(|| open.clone()),
            })
            .collect();
        let scores = judge.score_spliced(&splices);
        let rewards: Vec<Result<Reward, ItemFault>> =
            scores.into_iter().map(|score| score.map(Reward::of)).collect();
        let evaluated =
            pairs_from_rewards("spliced", self.held_out, &rewards, &self.options(Readout::Value))?;
        store::write_folder(&self.out.join("evaluations/spliced"), &evaluated)?;
        Ok(evaluated.result.accuracy.half_credit.value.unwrap_or(f64::NAN))
    }
}

fn fault_rate(rewards: &[Result<Reward, ItemFault>]) -> f64 {
    let (mut faults, mut all) = (0usize, 0usize);
    for reward in rewards {
        match reward {
            Ok(reward) => {
                all += reward.judgements.len();
                faults +=
                    reward.judgements.iter().filter(|judgement| judgement.score.is_err()).count();
            }
            Err(ItemFault::Unparsed(kinds)) => {
                all += kinds.len();
                faults += kinds.len();
            }
            Err(_) => {
                all += 1;
                faults += 1;
            }
        }
    }
    if all == 0 { f64::NAN } else { faults as f64 / all as f64 }
}

impl Measured {
    pub(crate) fn accuracy(&self) -> Option<f64> {
        self.evaluated.result.accuracy.half_credit.value
    }

    /// 95 % interval of [`Measured::accuracy`].
    pub(crate) fn interval(&self) -> [f64; 2] {
        bounds(&self.evaluated.result.accuracy.half_credit)
    }

    pub(crate) fn num_pairs(&self) -> usize {
        self.evaluated.records.len()
    }

    pub(crate) fn longer_wins(&self) -> f64 {
        self.evaluated.result.baselines.longer_wins.half_credit.value.unwrap_or(f64::NAN)
    }

    pub(crate) fn by_kind(&self) -> BTreeMap<String, f64> {
        let subsets = self.evaluated.result.subsets.iter();
        subsets
            .map(|(kind, accuracy)| (kind.clone(), accuracy.half_credit.value.unwrap_or(f64::NAN)))
            .collect()
    }
}

fn bounds(estimate: &Estimate) -> [f64; 2] {
    estimate.interval.map_or([f64::NAN; 2], |interval| [interval.low, interval.high])
}

/// Gain of the second over the first on the same pairs, with its 95 % interval.
pub(crate) fn paired(
    first: &Measured,
    second: &Measured,
    seed: u64,
) -> anyhow::Result<(f64, [f64; 2])> {
    let resampling = pairs_options(seed).resampling;
    let difference = compare(&first.evaluated, &second.evaluated, resampling)?.overall.half_credit;
    Ok((difference.value.unwrap_or(f64::NAN), bounds(&difference)))
}

/// Tokens of the training forwards a second, median over the steps of the run.
pub(crate) fn training_tokens_per_s(out: &Path) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl"))?;
    let mut rates: Vec<f64> = text
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<serde_json::Value>(line).ok()?["train_tokens_per_s"].as_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    Ok(rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN))
}
