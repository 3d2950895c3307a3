//! A judge on any completer: a remote engine, or anything else that answers text.
//!
//! Pointwise it asks for k judgements of each item; pairwise it shows both responses in
//! both orders, and calls a pair whose orders disagree a tie. The seed of every request
//! follows from what is judged, not from its place in the batch, so that a judgement
//! does not depend on what it was asked together with.

use patarm_text::{Conversation, Item, Preference};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::completer::{
    Completer, Completion, CompletionError, CompletionRequest, CompletionResult,
};
use crate::embedded::ReadOut;
use crate::judgement::Judgement;
use crate::model::{
    CompareRequest, ItemFault, JudgeRequest, PairwiseJudge, PairwiseVerdict, PairwiseVote,
    PointwiseJudge, Reward, RewardModel,
};
use crate::task::detect_task;
use crate::template::{ChatFrame, JudgeFormat, JudgeTemplate, PromptOptions, RubricMode};
use crate::verdict::TextEnd;
use crate::voting::{VoteCombine, majority, vote};

/// How a completer is asked for judgements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompleterJudgeConfig {
    /// Whose criteria count.
    pub mode: RubricMode,
    /// Judgements of an item when used as a reward model.
    pub votes: usize,
    /// How their scores are combined.
    pub combine: VoteCombine,
    /// Sampling temperature; 0 = greedy.
    pub temperature: f64,
    /// Nucleus threshold; 1 = off.
    pub top_p: f64,
    /// Longest judgement in tokens; 0 = as the template says.
    pub max_tokens: usize,
    /// How often a judgement without a usable score is asked for again. 0 where parse
    /// faults are measured; 2 is usual where scores are rewards.
    pub retries: usize,
    /// Seed.
    pub seed: u64,
}

impl Default for CompleterJudgeConfig {
    fn default() -> Self {
        Self {
            mode: RubricMode::Both,
            votes: 1,
            combine: VoteCombine::Mean,
            temperature: 1.0,
            top_p: 1.0,
            max_tokens: 0,
            retries: 0,
            seed: 0,
        }
    }
}

/// A judge on a completer.
#[derive(Clone, Debug)]
pub struct CompleterJudge<C> {
    completer: C,
    template: JudgeTemplate,
    config: CompleterJudgeConfig,
}

impl<C: Completer> CompleterJudge<C> {
    /// A judge that asks `completer` in the words of `template`.
    #[must_use]
    pub fn new(completer: C, template: JudgeTemplate, config: CompleterJudgeConfig) -> Self {
        Self { completer, template, config }
    }

    /// What it asks.
    #[must_use]
    pub fn completer(&self) -> &C {
        &self.completer
    }

    fn format(&self) -> JudgeFormat {
        self.template.format(self.config.mode)
    }

    fn pointwise_text(&self, request: &JudgeRequest) -> String {
        let frame = ChatFrame::default();
        let task = request.task.unwrap_or_else(|| detect_task(&request.item.prompt));
        let options = PromptOptions { task, mode: self.config.mode, frame: &frame };
        self.template.pointwise(&request.item, &options).plain_text()
    }

    fn pairwise_text(&self, request: &CompareRequest, order: Order) -> String {
        let frame = ChatFrame::default();
        let task = request.task.unwrap_or_else(|| detect_task(&request.prompt));
        let options = PromptOptions { task, mode: self.config.mode, frame: &frame };
        let [first, second] = &request.responses;
        let shown = match order {
            Order::AsGiven => [first.as_str(), second.as_str()],
            Order::Swapped => [second.as_str(), first.as_str()],
        };
        self.template.pairwise(&request.prompt, shown, &options).plain_text()
    }

    fn ask(&self, slot: &Slot<'_>, attempt: usize) -> CompletionRequest {
        let max_tokens = match self.config.max_tokens {
            0 => self.template.max_judgement_tokens(),
            limit => limit,
        };
        CompletionRequest {
            prompt: Conversation::from_user(slot.prompt),
            max_tokens,
            temperature: self.config.temperature,
            top_p: self.config.top_p,
            stop: Vec::new(),
            seed: request_seed(self.config.seed, slot, attempt),
        }
    }

    /// An answer for every slot, asking again for answers that `is_usable` refuses, as
    /// long as retries last.
    fn answers(
        &self,
        slots: &[Slot<'_>],
        is_usable: impl Fn(&Completion) -> bool,
    ) -> Vec<CompletionResult> {
        let requests: Vec<_> = slots.iter().map(|slot| self.ask(slot, 0)).collect();
        let mut answers = complete_all(&self.completer, &requests);
        for attempt in 1..=self.config.retries {
            let again: Vec<usize> = answers
                .iter()
                .enumerate()
                .filter(|(_, answer)| answer.as_ref().is_ok_and(|answer| !is_usable(answer)))
                .map(|(i, _)| i)
                .collect();
            if again.is_empty() {
                break;
            }
            let requests: Vec<_> = again.iter().map(|&i| self.ask(&slots[i], attempt)).collect();
            for (i, answer) in again.into_iter().zip(complete_all(&self.completer, &requests)) {
                // An engine that fails now does not take back what it said before.
                if answer.is_ok() {
                    answers[i] = answer;
                }
            }
        }
        answers
    }
}

/// In which order two responses are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    AsGiven,
    Swapped,
}

/// One judgement to be asked for.
struct Slot<'a> {
    prompt: &'a str,
    vote: usize,
}

fn slots(prompts: &[String], votes: usize) -> Vec<Slot<'_>> {
    prompts.iter().flat_map(|prompt| (0..votes).map(move |vote| Slot { prompt, vote })).collect()
}

/// One answer a request, whatever the completer returns.
fn complete_all(
    completer: &impl Completer,
    requests: &[CompletionRequest],
) -> Vec<CompletionResult> {
    let mut answers = completer.complete(requests);
    answers.resize_with(requests.len(), || {
        Err(CompletionError::Failed {
            engine: completer.name(),
            attempts: 1,
            message: "no answer to this request".into(),
        })
    });
    answers
}

/// The seed of a request: a hash of the run's seed, the prompt, the vote and the attempt.
fn request_seed(seed: u64, slot: &Slot<'_>, attempt: usize) -> u64 {
    let mut hash = Sha256::new();
    for number in [seed, slot.vote as u64, attempt as u64] {
        hash.update(number.to_le_bytes());
    }
    hash.update(slot.prompt.as_bytes());
    let digest = hash.finalize();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(bytes)
}

fn text_end(answer: &Completion) -> TextEnd {
    if answer.truncated { TextEnd::Truncated } else { TextEnd::Stopped }
}

fn item_fault(error: CompletionError) -> ItemFault {
    match error {
        CompletionError::Overlong { tokens, limit } => ItemFault::Overlong { tokens, limit },
        other => ItemFault::Engine(other.to_string()),
    }
}

impl<C: Completer> PointwiseJudge for CompleterJudge<C> {
    fn judge(
        &self,
        requests: &[JudgeRequest],
        votes: usize,
    ) -> Vec<Result<Vec<Judgement>, ItemFault>> {
        let format = self.format();
        let parse = |answer: &Completion| format.parse(&answer.text, text_end(answer));
        let prompts: Vec<String> = requests.iter().map(|r| self.pointwise_text(r)).collect();
        let slots = slots(&prompts, votes);
        let judgement = |answer: Completion| {
            let logprob = answer.logprobs.as_ref().map(|logprobs| logprobs.iter().sum());
            parse(&answer).into_judgement(answer.text, answer.num_tokens, logprob)
        };
        let mut answers = self.answers(&slots, |answer| parse(answer).score.is_ok()).into_iter();
        (0..requests.len())
            .map(|_| {
                let own: Vec<_> = answers.by_ref().take(votes).collect();
                own.into_iter().map(|a| a.map(judgement).map_err(item_fault)).collect()
            })
            .collect()
    }

    fn name(&self) -> String {
        format!("{} ({})", self.completer.name(), self.template.name())
    }
}

impl<C: Completer> RewardModel for CompleterJudge<C> {
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>> {
        let requests: Vec<JudgeRequest> =
            items.iter().map(|item| JudgeRequest { item: item.clone(), task: None }).collect();
        let reward = |judgements: Vec<Judgement>| match vote(
            &judgements,
            ReadOut::Sampled,
            self.config.combine,
        ) {
            Some(vote) => Ok(Reward { judgements, ..Reward::of(vote.value) }),
            None => Err(ItemFault::unparsed(&judgements)),
        };
        let judged = self.judge(&requests, self.config.votes.max(1));
        judged.into_iter().map(|result| result.and_then(reward)).collect()
    }

    fn name(&self) -> String {
        PointwiseJudge::name(self)
    }
}

impl<C: Completer> CompleterJudge<C> {
    /// Votes on every request in each of `orders`, in terms of the request.
    fn vote_in(
        &self,
        requests: &[CompareRequest],
        votes: usize,
        orders: &[Order],
    ) -> Vec<Result<Vec<PairwiseVote>, ItemFault>> {
        let format = self.format();
        let parse =
            |answer: &Completion| format.parse_comparison(&answer.text, text_end(answer)).verdict;
        let prompts: Vec<String> = requests
            .iter()
            .flat_map(|r| orders.iter().map(|&order| self.pairwise_text(r, order)))
            .collect();
        let slots = slots(&prompts, votes);
        let mut answers = self.answers(&slots, |answer| parse(answer).is_ok()).into_iter();
        let mut side = |order: Order| -> Result<Vec<PairwiseVote>, ItemFault> {
            // Take the whole side before failing, so that the next one starts in place.
            let own: Vec<CompletionResult> = answers.by_ref().take(votes).collect();
            own.into_iter()
                .map(|answer| {
                    let answer = answer.map_err(item_fault)?;
                    let shown = parse(&answer);
                    let verdict = match order {
                        Order::AsGiven => shown,
                        Order::Swapped => shown.map(Preference::swap),
                    };
                    Ok(PairwiseVote { text: answer.text, verdict })
                })
                .collect()
        };
        requests.iter().flat_map(|_| orders).map(|&order| side(order)).collect()
    }
}

impl<C: Completer> PairwiseJudge for CompleterJudge<C> {
    fn compare_as_shown(
        &self,
        requests: &[CompareRequest],
        votes: usize,
    ) -> Vec<Result<Vec<PairwiseVote>, ItemFault>> {
        self.vote_in(requests, votes, &[Order::AsGiven])
    }

    fn compare(
        &self,
        requests: &[CompareRequest],
        votes: usize,
    ) -> Vec<Result<PairwiseVerdict, ItemFault>> {
        let sides = self.vote_in(requests, votes, &[Order::AsGiven, Order::Swapped]);
        let mut sides = sides.into_iter();
        requests
            .iter()
            .map(|_| {
                let missing = || Err(ItemFault::Engine("no answer to this request".into()));
                let mut side = || sides.next().unwrap_or_else(missing);
                let (in_order, swapped) = (side(), side());
                both_orders(in_order?, swapped?)
            })
            .collect()
    }

    fn name(&self) -> String {
        PointwiseJudge::name(self)
    }
}

/// The verdict over both orders; orders that disagree make a tie.
pub(crate) fn both_orders(
    in_order: Vec<PairwiseVote>,
    swapped: Vec<PairwiseVote>,
) -> Result<PairwiseVerdict, ItemFault> {
    let side = |votes: &[PairwiseVote]| {
        let verdicts: Vec<Preference> = votes.iter().filter_map(|v| v.verdict.ok()).collect();
        let kinds = || votes.iter().filter_map(|vote| vote.verdict.err()).collect();
        majority(&verdicts).ok_or_else(|| ItemFault::Unparsed(kinds()))
    };
    let (first, second) = (side(&in_order)?, side(&swapped)?);
    let is_consistent = first == second;
    let verdict = if is_consistent { first } else { Preference::Tie };
    Ok(PairwiseVerdict { verdict, is_consistent, in_order, swapped })
}

#[cfg(test)]
mod tests;
