//! The embedded pointwise judge.

use std::ops::Range;

use patarm_models::kernels::random;
use patarm_models::{Decoder, Error, ForwardOptions, TreeBuilder};
use patarm_text::Item;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{JudgeCall, JudgeSampling, JudgeText, RawJudgement, StopAt, generate};
use crate::judgement::{FormatFault, Judgement};
use crate::model::{ItemFault, JudgeRequest, PointwiseJudge, Reward, RewardModel};
use crate::observer::Observer;

/// Which number of a judgement counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadOut {
    /// The score the judge wrote.
    Sampled,
    /// The expectation under the judge's own distribution at that place.
    #[default]
    Expected,
}

/// How an embedded judge generates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgeSettings {
    /// Which number counts.
    pub read_out: ReadOut,
    /// Judgements an item when used as a reward model.
    pub votes: usize,
    /// Seed.
    pub seed: u64,
    /// Temperature; 0 = greedy.
    pub temperature: f64,
    /// Nucleus; 1 = off.
    pub top_p: f64,
    /// Longest judgement in tokens.
    pub max_tokens: usize,
}

/// A judge on the embedded engine.
pub struct EmbeddedJudge<'a> {
    /// The model.
    pub decoder: &'a Decoder,
    /// Its prompts and tags.
    pub text: &'a JudgeText,
    /// How it generates.
    pub settings: JudgeSettings,
    /// Who watches.
    pub observer: &'a dyn Observer,
    /// Name for reports.
    pub name: String,
}

impl std::fmt::Debug for EmbeddedJudge<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedJudge").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A judgement text put in the place of the judge's own, to see whether text matters.
#[derive(Clone, Debug, PartialEq)]
pub struct Splice {
    /// The item to be scored.
    pub item: Item,
    /// Everything up to and including the opening score tag.
    pub text: String,
}

impl EmbeddedJudge<'_> {
    /// How this judge generates.
    pub(crate) fn sampling(&self) -> JudgeSampling {
        let expected =
            self.settings.read_out == ReadOut::Expected && !self.text.outcomes().is_empty();
        JudgeSampling {
            seed: self.settings.seed,
            temperature: self.settings.temperature,
            top_p: self.settings.top_p,
            max_tokens: self.settings.max_tokens,
            stop: if expected { StopAt::BeforeScore } else { StopAt::AfterScore },
            read_scores: expected,
        }
    }

    /// Turns what was generated into a judgement. With a score distribution the
    /// written score is drawn from it, which is what sampling on would do at
    /// temperature 1; a draw of "no admissible score" is a fault.
    pub(crate) fn judgement(&self, raw: &RawJudgement, sequence: u64) -> Judgement {
        let (_, close) = self.text.score_tags();
        if raw.score_logprobs.is_empty() || !raw.is_complete {
            return self.parsed(raw, &raw.text);
        }
        let probabilities: Vec<f64> =
            raw.score_logprobs.iter().map(|logprob| logprob.exp()).collect();
        let mut draw = random::uniform(self.settings.seed, &[sequence, u64::MAX]);
        let drawn = probabilities.iter().position(|probability| {
            draw -= probability;
            draw < 0.0
        });
        let outcomes = self.text.outcomes();
        let shown = drawn.map_or(String::new(), |index| outcomes[index].score.to_string());
        let mut judgement = self.parsed(raw, &format!("{}{shown}{close}", raw.text.trim_end()));
        let mass: f64 = probabilities.iter().sum();
        if judgement.score.is_err_and(FormatFault::is_broken_tags) || mass <= 0.0 {
            return judgement;
        }
        let total: f64 =
            probabilities.iter().zip(outcomes).map(|(p, outcome)| p * outcome.score).sum();
        judgement.expected_score = Some(total / mass);
        judgement
    }

    fn parsed(&self, raw: &RawJudgement, text: &str) -> Judgement {
        let logprob = raw.logprobs.iter().map(|logprob| f64::from(*logprob)).sum();
        let parsed = self.text.parse(text, raw.is_truncated);
        parsed.into_judgement(text.to_owned(), raw.tokens.len(), Some(logprob))
    }

    /// Expected scores of items under judgement texts that are given, not generated.
    ///
    /// # Errors
    /// Per item, when it does not fit.
    pub fn score_spliced(&self, splices: &[Splice]) -> Vec<Result<f64, ItemFault>> {
        let mut results = Vec::with_capacity(splices.len());
        for chunk in splices.chunks(SPLICES_PER_FORWARD) {
            match self.score_chunk(chunk) {
                Ok(scores) => {
                    results.extend(scores.into_iter().map(|score| {
                        score.ok_or(ItemFault::Unparsed(vec![FormatFault::ScoreAbsent]))
                    }))
                }
                Err(fault) => results.extend(chunk.iter().map(|_| Err(fault.clone()))),
            }
        }
        results
    }

    fn score_chunk(&self, splices: &[Splice]) -> Result<Vec<Option<f64>>, ItemFault> {
        let refuse = |error: crate::error::Error| ItemFault::Engine(error.to_string());
        let outcomes: Vec<&[u32]> =
            self.text.outcomes().iter().map(|outcome| outcome.tokens.as_slice()).collect();
        let (mut tree, mut placed) = (TreeBuilder::default(), Vec::new());
        for splice in splices {
            let leaf = tree.path(&self.text.encode(&splice.item, None).map_err(refuse)?);
            let tokens = self.text.encode_judgement(&splice.text).map_err(refuse)?;
            placed.push(tree.branching_completion(leaf, &tokens, &outcomes).branches);
        }
        let (forest, targets) = tree.finish();
        let saved = self
            .decoder
            .forward(&forest, &ForwardOptions::default())
            .map_err(|error| fault_of(&error))?;
        let statistics = self.decoder.target_statistics(&saved.hidden, &targets, 1.0);
        let probability = |branch: Range<usize>| {
            branch.map(|n| f64::from(statistics.logprob(n))).sum::<f64>().exp()
        };
        let expectations = placed.into_iter().map(|branches| {
            let probabilities: Vec<f64> = branches.into_iter().map(probability).collect();
            self.expected_score(&probabilities)
        });
        Ok(expectations.collect())
    }

    /// Mean of the admissible scores under their renormalised probabilities.
    fn expected_score(&self, probabilities: &[f64]) -> Option<f64> {
        let mass: f64 = probabilities.iter().sum();
        let total: f64 = probabilities
            .iter()
            .zip(self.text.outcomes())
            .map(|(p, outcome)| p * outcome.score)
            .sum();
        (mass > 0.0).then(|| total / mass)
    }
}

/// Splices computed in one forward.
const SPLICES_PER_FORWARD: usize = 32;

impl PointwiseJudge for EmbeddedJudge<'_> {
    fn judge(
        &self,
        requests: &[JudgeRequest],
        votes: usize,
    ) -> Vec<Result<Vec<Judgement>, ItemFault>> {
        let mut calls = Vec::with_capacity(requests.len() * votes);
        let mut faults = Vec::with_capacity(requests.len());
        for request in requests {
            let encoded = self.text.encode(&request.item, request.task);
            faults.push(encoded.as_ref().err().map(|error| ItemFault::Engine(error.to_string())));
            let prompt = encoded.unwrap_or_default();
            for vote in 0..votes {
                let sequence = sequence(&prompt, vote);
                calls.push(JudgeCall { prompt: prompt.clone(), sequence });
            }
        }
        self.observer.begin("judging", calls.len() as u64);
        let raw = generate(self.decoder, self.text, &calls, &self.sampling(), self.observer);
        self.observer.end();
        let drawn: Vec<_> = raw.into_iter().zip(calls.iter().map(|call| call.sequence)).collect();
        let per_item = drawn.chunks(votes.max(1)).zip(faults);
        per_item.map(|(chunk, fault)| self.collect(chunk, fault)).collect()
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl EmbeddedJudge<'_> {
    fn collect(
        &self,
        raw: &[(Result<RawJudgement, Error>, u64)],
        fault: Option<ItemFault>,
    ) -> Result<Vec<Judgement>, ItemFault> {
        if let Some(fault) = fault {
            return Err(fault);
        }
        let mut judgements = Vec::with_capacity(raw.len());
        for (result, sequence) in raw {
            match result {
                Ok(raw) => judgements.push(self.judgement(raw, *sequence)),
                Err(error) => return Err(fault_of(error)),
            }
        }
        Ok(judgements)
    }
}

/// The random stream of a judgement: a hash of what is judged and the number of the
/// vote, so that a judgement does not depend on what it was asked together with, and a
/// run that goes on from a cache is the run that was not interrupted.
pub(crate) fn sequence(prompt: &[Vec<u32>], vote: usize) -> u64 {
    let mut hash = Sha256::new();
    hash.update((vote as u64).to_le_bytes());
    prompt.iter().flatten().for_each(|token| hash.update(token.to_le_bytes()));
    let digest = hash.finalize();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(bytes)
}

/// What a failure of the engine means for the item it was working on.
pub(crate) fn fault_of(error: &Error) -> ItemFault {
    match error.kind() {
        patarm_models::ErrorKind::Overlong { tokens, limit } => {
            ItemFault::Overlong { tokens: *tokens, limit: *limit }
        }
        _ => ItemFault::Engine(error.to_string()),
    }
}

impl RewardModel for EmbeddedJudge<'_> {
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>> {
        let requests: Vec<JudgeRequest> =
            items.iter().map(|item| JudgeRequest { item: item.clone(), task: None }).collect();
        let judged = self.judge(&requests, self.settings.votes.max(1));
        judged
            .into_iter()
            .map(|result| result.and_then(|judgements| self.reward(judgements)))
            .collect()
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl EmbeddedJudge<'_> {
    /// The mean of the votes that carry a number.
    fn reward(&self, judgements: Vec<Judgement>) -> Result<Reward, ItemFault> {
        let number = |judgement: &Judgement| match self.settings.read_out {
            ReadOut::Sampled => judgement.score.ok(),
            ReadOut::Expected => judgement.expected_score.or_else(|| judgement.score.ok()),
        };
        let numbers: Vec<f64> = judgements.iter().filter_map(number).collect();
        if numbers.is_empty() {
            return Err(ItemFault::unparsed(&judgements));
        }
        let value = numbers.iter().sum::<f64>() / numbers.len() as f64;
        Ok(Reward { judgements, ..Reward::of(value) })
    }
}
