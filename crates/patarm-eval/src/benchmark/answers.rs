//! What a subject says of every item: scores of responses, or verdicts on pairs.
//!
//! Models are asked in chunks of whole items, so that a cache behind them keeps what
//! is done and an interruption stops between two chunks. How items fall into chunks
//! does not change an answer.

mod recorded;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use patarm_reward::{
    embedded::ReadOut,
    judgement::{FormatFault, Judgement},
    model::{CompareRequest, ItemFault, JudgeRequest, PairwiseVote, Reward, RewardModel},
    observer::Observer,
    voting::{VoteCombine, vote},
};
use patarm_text::Preference;

use super::{Orders, Pairwise, Pointwise, Subject, item::Item, load::MAX_NAMED};
use crate::{
    Error, Result,
    metrics::Outcome,
    scores::{Shown, Verdicts},
};

/// Judgements a model is asked for at a time; an interruption loses at most so many.
const CHUNK: usize = 64;

/// Pairs of responses of an item to be compared, by index.
pub type PairPlan<'a> = dyn Fn(&Item) -> Vec<(usize, usize)> + 'a;

/// What a subject says of one item.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A score of every response; `None` where there is none or it is not finite.
    Scores(Vec<Option<f64>>),
    /// Verdicts by pair of responses, the lower index first.
    Verdicts(BTreeMap<(usize, usize), Verdicts>),
}

/// An answer with what stands behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The answer.
    pub answer: Answer,
    /// What went wrong, in words.
    pub faults: Vec<String>,
    /// Judgements of every response, where a judge wrote them.
    pub judgements: Vec<Vec<Judgement>>,
    /// Votes on pairs, where a judge wrote them.
    pub votes: Vec<PairVotes>,
}

/// The votes on one pair as it was shown.
#[derive(Clone, Debug, PartialEq)]
pub struct PairVotes {
    /// Index of the response shown first.
    pub first: usize,
    /// Index of the response shown second.
    pub second: usize,
    /// The votes; their verdicts speak of what was shown.
    pub votes: Vec<PairwiseVote>,
}

/// What was counted while asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerReport {
    /// Counts by name, as they stand in a summary.
    pub counts: BTreeMap<String, u64>,
    /// The first problems.
    pub problems: Vec<String>,
}

impl AnswerReport {
    pub(crate) fn count(&mut self, name: &str, by: usize) {
        if by > 0 {
            *self.counts.entry(name.to_owned()).or_default() += by as u64;
        }
    }

    pub(crate) fn problem(&mut self, problem: impl FnOnce() -> String) {
        if self.problems.len() < MAX_NAMED {
            self.problems.push(problem());
        }
    }
}

/// Answers to all items, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    /// One answer an item.
    pub answered: Vec<Answered>,
    /// What was counted.
    pub report: AnswerReport,
}

impl Answer {
    /// How a right response came out against a wrong one.
    #[must_use]
    pub fn outcome(&self, right: usize, wrong: usize) -> Outcome {
        self.preference(right, wrong).map_or(Outcome::Fault, Outcome::of_preference)
    }

    /// Which of two responses the subject prefers; `None` where it does not say.
    #[must_use]
    pub fn preference(&self, first: usize, second: usize) -> Option<Preference> {
        match self {
            Self::Scores(scores) => {
                let score = |index: usize| scores.get(index).copied().flatten();
                match score(first)?.partial_cmp(&score(second)?)? {
                    std::cmp::Ordering::Greater => Some(Preference::First),
                    std::cmp::Ordering::Less => Some(Preference::Second),
                    std::cmp::Ordering::Equal => Some(Preference::Tie),
                }
            }
            Self::Verdicts(verdicts) if first <= second => {
                verdicts.get(&(first, second))?.combined()
            }
            Self::Verdicts(verdicts) => Some(verdicts.get(&(second, first))?.combined()?.swap()),
        }
    }

    /// The scores; `None` for verdicts.
    #[must_use]
    pub fn scores(&self) -> Option<&[Option<f64>]> {
        match self {
            Self::Scores(scores) => Some(scores),
            Self::Verdicts(_) => None,
        }
    }
}

impl Answered {
    /// An answer without anything behind it.
    #[must_use]
    pub fn bare(answer: Answer) -> Self {
        Self { answer, faults: Vec::new(), judgements: Vec::new(), votes: Vec::new() }
    }

    /// Scores of responses, all known.
    #[must_use]
    pub fn of_scores(scores: impl IntoIterator<Item = f64>) -> Self {
        Self::bare(Answer::Scores(scores.into_iter().map(Some).collect()))
    }
}

/// Asks about every item: scores of all responses, or verdicts on the pairs of `plan`.
///
/// # Errors
/// When a file of answers cannot be read, the subject cannot answer such questions, a
/// model gives another number of answers than it was asked for, or the run was
/// interrupted.
pub fn ask(
    items: &[Item],
    plan: &PairPlan<'_>,
    subject: &Subject<'_>,
    observer: &dyn Observer,
) -> Result<Answers> {
    match subject {
        Subject::File(path) => from_file(items, path),
        Subject::Reward(model) => ask_reward(items, *model, observer),
        Subject::Pointwise(pointwise) => ask_pointwise(items, pointwise, observer),
        Subject::Pairwise(pairwise) => ask_pairwise(items, plan, pairwise, observer),
        Subject::Completer(_) => {
            let message = format!("{} cannot score responses; name a reward model", subject.kind());
            Err(Error::bad_input(message))
        }
    }
}

/// Takes answers from a file of scores or verdicts.
///
/// # Errors
/// As [`crate::scores::ScoreTable::read`].
pub fn from_file(items: &[Item], path: &Path) -> Result<Answers> {
    Ok(recorded::look_up(items, &crate::scores::ScoreTable::read(path)?))
}

/// Chunks of whole items with about [`CHUNK`] judgements each.
fn chunks(sizes: &[usize]) -> Vec<std::ops::Range<usize>> {
    let (mut chunks, mut start, mut size) = (Vec::new(), 0, 0);
    for (index, own) in sizes.iter().enumerate() {
        size += own;
        if size >= CHUNK {
            chunks.push(start..index + 1);
            (start, size) = (index + 1, 0);
        }
    }
    if start < sizes.len() {
        chunks.push(start..sizes.len());
    }
    chunks
}

/// Calls `each` with the range of every chunk, watched and interruptible.
fn in_chunks(
    sizes: &[usize],
    observer: &dyn Observer,
    mut each: impl FnMut(std::ops::Range<usize>) -> Result<()>,
) -> Result<()> {
    for range in chunks(sizes) {
        each(range)?;
        if observer.is_interrupted() {
            return Err(Error::interrupted());
        }
    }
    Ok(())
}

fn ask_reward(items: &[Item], model: &dyn RewardModel, observer: &dyn Observer) -> Result<Answers> {
    let sizes: Vec<usize> = items.iter().map(|item| item.responses.len()).collect();
    let (mut answered, mut report) = (Vec::with_capacity(items.len()), AnswerReport::default());
    in_chunks(&sizes, observer, |range| {
        let chunk = &items[range];
        let asked: Vec<patarm_text::Item> = chunk.iter().flat_map(questions).collect();
        let rewards = model.score(&asked);
        check_count(&model.name(), asked.len(), rewards.len())?;
        let mut rewards = rewards.into_iter();
        for item in chunk {
            let own: Vec<_> = rewards.by_ref().take(item.responses.len()).collect();
            answered.push(of_rewards(item, own, &mut report));
        }
        Ok(())
    })?;
    Ok(Answers { answered, report })
}

/// Every response of an item as a reward model is asked about it.
fn questions(item: &Item) -> impl Iterator<Item = patarm_text::Item> {
    item.responses.iter().enumerate().map(|(index, response)| patarm_text::Item {
        prompt: item.prompt_of(index).clone(),
        response: response.clone(),
    })
}

fn check_count(name: &str, asked: usize, given: usize) -> Result<()> {
    if asked == given {
        return Ok(());
    }
    let message = format!("model {name} gave {given} answers to {asked} questions; one each");
    Err(Error::bad_input(message))
}

fn of_rewards(
    item: &Item,
    rewards: Vec<Result<Reward, ItemFault>>,
    report: &mut AnswerReport,
) -> Answered {
    let mut answered = Answered::bare(Answer::Scores(Vec::new()));
    let mut scores = Vec::with_capacity(rewards.len());
    for (index, reward) in rewards.into_iter().enumerate() {
        let score = match reward {
            Ok(reward) => {
                count_judgements(&reward.judgements, report);
                answered.judgements.push(reward.judgements);
                finite(reward.value, (item, index), &mut answered.faults, report)
            }
            Err(fault) => {
                answered.judgements.push(Vec::new());
                failed(&fault, (item, index), &mut answered.faults, report);
                None
            }
        };
        scores.push(score);
    }
    answered.answer = Answer::Scores(scores);
    answered
}

/// A score that can be compared; others are counted and named.
fn finite(
    value: f64,
    (item, index): (&Item, usize),
    faults: &mut Vec<String>,
    report: &mut AnswerReport,
) -> Option<f64> {
    if value.is_finite() {
        return Some(value);
    }
    report.count("non_finite_scores", 1);
    report.problem(|| format!("item {:?}, response {index}: the score is {value}", item.id));
    faults.push(format!("response {index}: the score is {value}"));
    None
}

/// Counts a response without a reward by the kind of its fault.
fn failed(
    fault: &ItemFault,
    (item, index): (&Item, usize),
    faults: &mut Vec<String>,
    report: &mut AnswerReport,
) {
    match fault {
        ItemFault::Unparsed(kinds) => {
            report.count("unparsed_responses", 1);
            report.count("judgements", kinds.len());
            report.count("judgement_faults", kinds.len());
            kinds.iter().for_each(|kind| count_kind(*kind, report));
        }
        ItemFault::Overlong { .. } => report.count("overlong_responses", 1),
        _ => report.count("failed_responses", 1),
    }
    report.problem(|| format!("item {:?}, response {index}: {fault}", item.id));
    faults.push(format!("response {index}: {fault}"));
}

fn count_kind(kind: FormatFault, report: &mut AnswerReport) {
    report.count(&format!("judgement_fault.{}", kind.name()), 1);
}

fn count_judgements(judgements: &[Judgement], report: &mut AnswerReport) {
    report.count("judgements", judgements.len());
    for fault in judgements.iter().filter_map(|judgement| judgement.score.err()) {
        report.count("judgement_faults", 1);
        count_kind(fault, report);
    }
}

fn ask_pointwise(
    items: &[Item],
    pointwise: &Pointwise<'_>,
    observer: &dyn Observer,
) -> Result<Answers> {
    let judgements = |item: &Item| item.responses.len() * pointwise.votes;
    let sizes: Vec<usize> = items.iter().map(judgements).collect();
    let (mut answered, mut report) = (Vec::with_capacity(items.len()), AnswerReport::default());
    in_chunks(&sizes, observer, |range| {
        let chunk = &items[range];
        let asked: Vec<JudgeRequest> = chunk
            .iter()
            .flat_map(|item| {
                questions(item).map(|question| JudgeRequest { item: question, task: item.task })
            })
            .collect();
        let judged = pointwise.judge.judge(&asked, pointwise.votes);
        check_count(&pointwise.judge.name(), asked.len(), judged.len())?;
        let mut judged = judged.into_iter();
        for item in chunk {
            let own: Vec<_> = judged.by_ref().take(item.responses.len()).collect();
            answered.push(of_judgements(item, own, (pointwise.readout, &mut report)));
        }
        Ok(())
    })?;
    Ok(Answers { answered, report })
}

fn of_judgements(
    item: &Item,
    judged: Vec<Result<Vec<Judgement>, ItemFault>>,
    (readout, report): (ReadOut, &mut AnswerReport),
) -> Answered {
    let mut answered = Answered::bare(Answer::Scores(Vec::new()));
    let mut scores = Vec::with_capacity(judged.len());
    for (index, judged) in judged.into_iter().enumerate() {
        let score = match judged {
            Ok(judgements) => {
                let value = vote(&judgements, readout, VoteCombine::Mean).map(|vote| vote.value);
                count_judgements(&judgements, report);
                if value.is_none() {
                    report.count("unparsed_responses", 1);
                    let kinds: BTreeSet<&str> =
                        judgements.iter().filter_map(|j| Some(j.score.err()?.name())).collect();
                    let kinds: Vec<&str> = kinds.into_iter().collect();
                    let fault = format!("response {index}: no usable score ({})", kinds.join(", "));
                    report.problem(|| format!("item {:?}, {fault}", item.id));
                    answered.faults.push(fault);
                }
                answered.judgements.push(judgements);
                value.and_then(|v| finite(v, (item, index), &mut answered.faults, report))
            }
            Err(fault) => {
                answered.judgements.push(Vec::new());
                failed(&fault, (item, index), &mut answered.faults, report);
                None
            }
        };
        scores.push(score);
    }
    answered.answer = Answer::Scores(scores);
    answered
}

fn ask_pairwise(
    items: &[Item],
    plan: &PairPlan<'_>,
    pairwise: &Pairwise<'_>,
    observer: &dyn Observer,
) -> Result<Answers> {
    let plans: Vec<Vec<(usize, usize)>> = items.iter().map(plan).collect();
    let sizes: Vec<usize> = plans.iter().map(|plan| plan.len() * pairwise.votes).collect();
    let (mut answered, mut report) = (Vec::with_capacity(items.len()), AnswerReport::default());
    in_chunks(&sizes, observer, |range| {
        let shown: Vec<(usize, usize, usize)> = range
            .clone()
            .flat_map(|index| plans[index].iter().map(move |&(a, b)| (index, a.min(b), a.max(b))))
            .flat_map(|(index, low, high)| match pairwise.orders {
                Orders::Both => vec![(index, low, high), (index, high, low)],
                Orders::Given => vec![(index, low, high)],
            })
            .collect();
        let asked: Vec<CompareRequest> = shown
            .iter()
            .map(|&(index, first, second)| CompareRequest {
                prompt: items[index].prompt.clone(),
                responses: [first, second].map(|r| items[index].responses[r].clone()),
                task: items[index].task,
            })
            .collect();
        let judged = pairwise.judge.compare_as_shown(&asked, pairwise.votes);
        check_count(&pairwise.judge.name(), asked.len(), judged.len())?;
        let start = range.start;
        let empty = || Answered::bare(Answer::Verdicts(BTreeMap::new()));
        answered.extend(range.map(|_| empty()));
        for ((index, first, second), votes) in shown.into_iter().zip(judged) {
            debug_assert!(index >= start);
            let place = Place { item: &items[index], first, second };
            add_votes(&mut answered[index], &place, votes, &mut report);
        }
        Ok(())
    })?;
    Ok(Answers { answered, report })
}

/// Which pair was shown, and how.
struct Place<'a> {
    item: &'a Item,
    first: usize,
    second: usize,
}

fn add_votes(
    answered: &mut Answered,
    place: &Place<'_>,
    votes: Result<Vec<PairwiseVote>, ItemFault>,
    report: &mut AnswerReport,
) {
    let &Place { item, first, second } = place;
    let verdict = match votes {
        Ok(votes) => {
            report.count("judgements", votes.len());
            for fault in votes.iter().filter_map(|vote| vote.verdict.err()) {
                report.count("judgement_faults", 1);
                count_kind(fault, report);
            }
            let read: Vec<Preference> = votes.iter().filter_map(|v| v.verdict.ok()).collect();
            let verdict = patarm_reward::voting::majority(&read).and_then(Shown::of_preference);
            if verdict.is_none() {
                report.count("unparsed_pairs", 1);
                let fault = format!("responses {first} and {second}: no usable verdict");
                report.problem(|| format!("item {:?}, {fault}", item.id));
                answered.faults.push(fault);
            }
            answered.votes.push(PairVotes { first, second, votes });
            verdict
        }
        Err(fault) => {
            let name = match fault {
                ItemFault::Overlong { .. } => "overlong_pairs",
                _ => "failed_pairs",
            };
            report.count(name, 1);
            report.problem(|| format!("item {:?}, {first} and {second}: {fault}", item.id));
            answered.faults.push(format!("responses {first} and {second}: {fault}"));
            None
        }
    };
    if let Answer::Verdicts(verdicts) = &mut answered.answer {
        let verdicts = verdicts.entry((first.min(second), first.max(second))).or_default();
        let order = if first < second { &mut verdicts.straight } else { &mut verdicts.swapped };
        *order = Some(verdict);
    }
}
