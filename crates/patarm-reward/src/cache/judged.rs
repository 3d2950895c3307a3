//! Judges and reward models that remember, whatever engine is behind them.
//!
//! The key of an answer is the hash of a *fingerprint* (everything about the judge
//! that its answers depend on: model and revision, template, sampling, seed), the kind
//! of question, the question itself and the number of votes. Failures are not kept,
//! and neither is what an interrupted engine returns.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Mutex;

use patarm_text::{Item, Solution};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{CacheKey, DiskCache, lock};
use crate::error::{self, Error};
use crate::judgement::Judgement;
use crate::model::{
    CompareRequest, ItemFault, JudgeRequest, PairwiseJudge, PairwiseVerdict, PairwiseVote,
    PointwiseJudge, Reward, RewardModel, StepScores,
};
use crate::observer::Observer;

/// An answer of a judge or a reward model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Judgements of one response.
    Judgements(Vec<Judgement>),
    /// Votes on a pair as it was shown.
    Votes(Vec<PairwiseVote>),
    /// A reward.
    Reward(Reward),
}

/// The kind of questions about one response.
const POINTWISE: &str = "pointwise";

/// Into the common form of answers, and back.
type Forms<A> = (fn(A) -> Answer, fn(Answer) -> Option<A>);

/// What several runs of the same judge share.
pub struct AnswerCache<'a> {
    fingerprint: String,
    known: Mutex<DiskCache<Answer>>,
    observer: &'a dyn Observer,
    write_error: Mutex<Option<Error>>,
    counts: Mutex<Counts>,
}

/// How often the cache knew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions answered from the cache.
    pub num_known: usize,
    /// Questions that were asked.
    pub num_asked: usize,
}

impl std::fmt::Debug for AnswerCache<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerCache")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl<'a> AnswerCache<'a> {
    /// Opens the file, or makes it. `fingerprint` says everything about the judge that
    /// its answers depend on.
    ///
    /// # Errors
    /// When the file cannot be opened, read or repaired, or another run holds it.
    pub fn open(path: &Path, fingerprint: &str, observer: &'a dyn Observer) -> error::Result<Self> {
        Ok(Self::new(fingerprint, DiskCache::open(path)?, observer))
    }

    fn new(fingerprint: &str, known: DiskCache<Answer>, observer: &'a dyn Observer) -> Self {
        Self {
            fingerprint: fingerprint.to_owned(),
            known: Mutex::new(known),
            observer,
            write_error: Mutex::new(None),
            counts: Mutex::default(),
        }
    }

    /// An empty one on a device that refuses every write, where there is one.
    #[cfg(test)]
    pub(crate) fn on_full_device(observer: &'a dyn Observer) -> Option<Self> {
        DiskCache::on_full_device().map(|known| Self::new("full", known, observer))
    }

    /// How often it knew so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    /// The first failure to write since the last call.
    pub fn take_write_error(&self) -> Option<Error> {
        lock(&self.write_error).take()
    }

    /// The judgements of a response, where they are known.
    pub fn judgements(&self, request: &JudgeRequest, votes: usize) -> Option<Vec<Judgement>> {
        let known = lock(&self.known).get(&self.key(POINTWISE, request, votes)).cloned();
        let known = known.and_then(judgements_of);
        let mut counts = lock(&self.counts);
        match known {
            Some(_) => counts.num_known += 1,
            None => counts.num_asked += 1,
        }
        known
    }

    /// Keeps the judgements of a response. A failure to write is told by
    /// [`AnswerCache::take_write_error`]; they are known in memory all the same.
    pub fn keep_judgements(&self, request: &JudgeRequest, votes: usize, judgements: &[Judgement]) {
        let answer = Answer::Judgements(judgements.to_vec());
        self.insert(self.key(POINTWISE, request, votes), &answer);
    }

    /// The key of a question.
    fn key(&self, kind: &str, question: &impl Serialize, votes: usize) -> CacheKey {
        let question = serde_json::to_vec(question).unwrap_or_default();
        let mut hash = Sha256::new();
        let parts: [&[u8]; 4] =
            [self.fingerprint.as_bytes(), kind.as_bytes(), &question, &votes.to_le_bytes()];
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// Answers known questions from the cache and asks the rest with `ask`.
    fn answer<Q: Clone + Serialize, A>(
        &self,
        (kind, votes): (&str, usize),
        questions: &[Q],
        (wrap, unwrap): Forms<A>,
        ask: impl FnOnce(&[Q]) -> Vec<Result<A, ItemFault>>,
    ) -> Vec<Result<A, ItemFault>> {
        let keys: Vec<CacheKey> = questions.iter().map(|q| self.key(kind, q, votes)).collect();
        let mut results: Vec<Option<Result<A, ItemFault>>> = {
            let known = lock(&self.known);
            keys.iter().map(|key| Some(Ok(unwrap(known.get(key)?.clone())?))).collect()
        };
        let missing: Vec<usize> = (0..keys.len()).filter(|&i| results[i].is_none()).collect();
        {
            let mut counts = lock(&self.counts);
            counts.num_known += keys.len() - missing.len();
            counts.num_asked += missing.len();
        }
        if !missing.is_empty() {
            let asked: Vec<Q> = missing.iter().map(|&i| questions[i].clone()).collect();
            let answers = ask(&asked);
            // What an interrupted engine returns is not an answer.
            let is_whole = !self.observer.is_interrupted();
            for (&index, answer) in missing.iter().zip(answers) {
                results[index] = Some(match answer {
                    Ok(answer) if is_whole => self.keep(keys[index], wrap(answer), unwrap),
                    other => other,
                });
            }
        }
        let lost = || Err(ItemFault::Engine("no answer to this question".into()));
        results.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
    }

    fn keep<A>(
        &self,
        key: CacheKey,
        answer: Answer,
        unwrap: fn(Answer) -> Option<A>,
    ) -> Result<A, ItemFault> {
        self.insert(key, &answer);
        unwrap(answer).ok_or_else(|| ItemFault::Engine("an answer of another kind".into()))
    }

    fn insert(&self, key: CacheKey, answer: &Answer) {
        if let Err(error) = lock(&self.known).insert(key, answer) {
            lock(&self.write_error).get_or_insert(error);
        }
    }
}

fn judgements_of(answer: Answer) -> Option<Vec<Judgement>> {
    match answer {
        Answer::Judgements(judgements) => Some(judgements),
        _ => None,
    }
}

/// Something that is asked, with a memory in front of it.
pub struct Remembering<'a, T: ?Sized> {
    /// What is asked where the memory does not know.
    pub inner: &'a T,
    /// The memory.
    pub cache: &'a AnswerCache<'a>,
}

impl<T: ?Sized> std::fmt::Debug for Remembering<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembering").field("cache", self.cache).finish_non_exhaustive()
    }
}

impl<T: PointwiseJudge + ?Sized> PointwiseJudge for Remembering<'_, T> {
    fn judge(
        &self,
        requests: &[JudgeRequest],
        votes: usize,
    ) -> Vec<Result<Vec<Judgement>, ItemFault>> {
        let forms: Forms<_> = (Answer::Judgements, judgements_of);
        let ask = |asked: &[JudgeRequest]| self.inner.judge(asked, votes);
        self.cache.answer((POINTWISE, votes), requests, forms, ask)
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}

impl<T: PairwiseJudge + ?Sized> PairwiseJudge for Remembering<'_, T> {
    fn compare_as_shown(
        &self,
        requests: &[CompareRequest],
        votes: usize,
    ) -> Vec<Result<Vec<PairwiseVote>, ItemFault>> {
        let unwrap = |answer| match answer {
            Answer::Votes(votes) => Some(votes),
            _ => None,
        };
        let forms: Forms<_> = (Answer::Votes, unwrap);
        let ask = |asked: &[CompareRequest]| self.inner.compare_as_shown(asked, votes);
        self.cache.answer(("pairwise", votes), requests, forms, ask)
    }

    /// Not remembered: both orders in one call are what servers ask for.
    fn compare(
        &self,
        requests: &[CompareRequest],
        votes: usize,
    ) -> Vec<Result<PairwiseVerdict, ItemFault>> {
        self.inner.compare(requests, votes)
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}

impl<T: RewardModel + ?Sized> RewardModel for Remembering<'_, T> {
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>> {
        let unwrap = |answer| match answer {
            Answer::Reward(reward) => Some(reward),
            _ => None,
        };
        let forms: Forms<_> = (Answer::Reward, unwrap);
        self.cache.answer(("reward", 1), items, forms, |asked| self.inner.score(asked))
    }

    /// Not remembered: what is known of a solution's steps is one forward away.
    fn score_steps(&self, solutions: &[Solution]) -> Option<Vec<StepScores>> {
        self.inner.score_steps(solutions)
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}
