//! Labels of steps by completing them: how often does a solution that begins like this
//! end with the right answer?
//!
//! Math-Shepherd (Wang et al., arXiv 2312.08935, section 3.3): N completions of every
//! prefix; the soft label of its last step is the share that reach the reference answer,
//! the hard label is whether any does.
//!
//! # Deviations
//! - The model is asked in a conversation to continue the solution; the authors continue
//!   the raw text.
//! - Where the whole solution states its final answer, its last step's label is whether
//!   that answer is right: nothing is sampled.
//! - Completions in which no answer can be found count as wrong.

use patarm_models::kernels::random;
use patarm_text::{Conversation, LabelledSolution, Message, Role, Solution};
use serde::{Deserialize, Serialize};

use crate::answers::{final_answer, same_answer, stated_answer};
use crate::completer::{Completer, Completion, CompletionError, CompletionRequest};

/// Stream of the seeds of completions.
const STREAM: u64 = 0x5e9;

/// What the share of right completions becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimate {
    /// The share.
    #[default]
    Soft,
    /// 1 where any is right.
    Hard,
}

/// How prefixes are completed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RolloutConfig {
    /// Completions a prefix.
    pub samples: usize,
    /// Longest completion in tokens.
    pub max_tokens: usize,
    /// Sampling temperature.
    pub temperature: f64,
    /// Nucleus; 1 = off.
    pub top_p: f64,
    /// Seed; a solution's completions depend on it, its identity and the step.
    pub seed: u64,
    /// What becomes of the shares.
    pub estimate: Estimate,
}

/// The labels of a solution, and what was counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RolloutLabels {
    /// A label for each step; `None` where no completion came back.
    pub labels: Vec<Option<f64>>,
    /// Completions that came back.
    pub completions: usize,
    /// Completions that failed.
    pub failed: usize,
    /// Completions that the length limit ended.
    pub truncated: usize,
    /// Completions without an answer.
    pub without_answer: usize,
}

/// Labels the steps of a solution against its reference answer.
///
/// # Errors
/// When the run was interrupted, or every completion failed: the last reason.
pub fn label_steps(
    completer: &dyn Completer,
    solution: &LabelledSolution,
    reference: &str,
    config: &RolloutConfig,
) -> Result<RolloutLabels, CompletionError> {
    let Solution { prompt, steps } = &solution.solution;
    let stated = steps.last().and_then(|last| stated_answer(last));
    let sampled = steps.len() - usize::from(stated.is_some());
    let mut requests = Vec::with_capacity(sampled * config.samples);
    for step in 0..sampled {
        let asked = question(prompt, &steps[..=step]);
        for sample in 0..config.samples {
            requests.push(request(asked.clone(), (&solution.id, step, sample), config));
        }
    }
    let results = if requests.is_empty() { Vec::new() } else { completer.complete(&requests) };
    let mut found = RolloutLabels::default();
    let mut reason = None;
    for of_step in results.chunks(config.samples.max(1)) {
        let (mut right, mut known) = (0_usize, 0_usize);
        for result in of_step {
            match result {
                Ok(completion) => {
                    known += 1;
                    right += usize::from(found.is_right(completion, reference));
                }
                Err(CompletionError::Interrupted) => return Err(CompletionError::Interrupted),
                Err(error) => {
                    found.failed += 1;
                    reason = Some(error.clone());
                }
            }
        }
        found.labels.push(label(right, known, config.estimate));
    }
    if let (0, Some(reason)) = (found.completions, reason) {
        return Err(reason);
    }
    if let Some(answer) = stated {
        found.labels.push(Some(f64::from(u8::from(same_answer(&answer, reference)))));
    }
    Ok(found)
}

impl RolloutLabels {
    fn is_right(&mut self, completion: &Completion, reference: &str) -> bool {
        self.completions += 1;
        self.truncated += usize::from(completion.truncated);
        match final_answer(&completion.text) {
            Some(answer) => same_answer(&answer, reference),
            None => {
                self.without_answer += 1;
                false
            }
        }
    }
}

fn label(right: usize, known: usize, estimate: Estimate) -> Option<f64> {
    (known > 0).then(|| match estimate {
        Estimate::Soft => right as f64 / known as f64,
        Estimate::Hard => f64::from(u8::from(right > 0)),
    })
}

fn request(
    prompt: Conversation,
    (id, step, sample): (&str, usize, usize),
    config: &RolloutConfig,
) -> CompletionRequest {
    let identity = id.bytes().fold(STREAM, |hash, byte| random::mix(hash, u64::from(byte)));
    let place = random::mix(step as u64, sample as u64);
    CompletionRequest {
        prompt,
        max_tokens: config.max_tokens,
        temperature: config.temperature,
        top_p: config.top_p,
        stop: Vec::new(),
        seed: random::mix(random::mix(config.seed, identity), place),
    }
}

/// The problem with the beginning of a solution, to be continued.
fn question(prompt: &Conversation, steps: &[String]) -> Conversation {
    let mut conversation = prompt.clone();
    let begun = format!(
        "\n\nA solution of this problem begins like this:\n\n{}\n\nContinue it from where it \
         stops, step by step, and end with a line \"#### \" followed by the final answer alone.",
        steps.join("\n\n")
    );
    match conversation.messages.last_mut() {
        Some(last) if last.role == Role::User => {
            let text = last.plain_text() + &begun;
            *last = Message::text(Role::User, text);
        }
        _ => conversation.messages.push(Message::text(Role::User, begun.trim_start())),
    }
    conversation
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::completer::CompletionResult;

    /// Answers by how many steps it is shown: after k steps of four, k of four completions
    /// are right; fails on an exclamation mark.
    #[derive(Default)]
    struct Scripted {
        seeds: Mutex<Vec<u64>>,
    }

    impl Completer for Scripted {
        fn complete(&self, requests: &[CompletionRequest]) -> Vec<CompletionResult> {
            let answer = |(place, request): (usize, &CompletionRequest)| {
                let text = request.prompt.transcript();
                self.seeds.lock().expect("one thread").push(request.seed);
                if text.contains('!') {
                    return Err(CompletionError::Overlong { tokens: 9, limit: 1 });
                }
                let shown = (1..=9).filter(|k| text.contains(&format!("step {k}"))).count();
                let text = match place % 4 < shown {
                    true => "so\n#### 1,800".to_owned(),
                    false if place % 4 == 3 => "no idea".to_owned(),
                    false => "#### 17".to_owned(),
                };
                Ok(Completion { text, num_tokens: 2, truncated: false, logprobs: None })
            };
            requests.iter().enumerate().map(answer).collect()
        }

        fn name(&self) -> String {
            "scripted".into()
        }
    }

    fn solution(steps: &[&str]) -> LabelledSolution {
        let prompt = Conversation::from_user("How many?");
        let steps = steps.iter().map(|step| (*step).to_owned()).collect();
        LabelledSolution::unlabelled("x", Solution { prompt, steps })
    }

    fn config(estimate: Estimate) -> RolloutConfig {
        RolloutConfig {
            samples: 4,
            max_tokens: 64,
            temperature: 1.0,
            top_p: 1.0,
            seed: 5,
            estimate,
        }
    }

    #[test]
    fn labels_are_shares_of_right_completions() {
        let completer = Scripted::default();
        let begun = solution(&["step 1", "step 2", "step 3"]);
        let soft = label_steps(&completer, &begun, "1800", &config(Estimate::Soft)).expect("all");
        assert_eq!(soft.labels, [Some(0.25), Some(0.5), Some(0.75)]);
        assert_eq!((soft.completions, soft.without_answer, soft.failed), (12, 3, 0));
        let hard = label_steps(&completer, &begun, "1800", &config(Estimate::Hard)).expect("all");
        assert_eq!(hard.labels, [Some(1.0); 3]);
        let wrong = label_steps(&completer, &begun, "5", &config(Estimate::Soft)).expect("all");
        assert_eq!(wrong.labels, [Some(0.0); 3]);
    }

    #[test]
    fn a_stated_answer_is_checked_and_not_sampled() {
        let completer = Scripted::default();
        let whole = solution(&["step 1", "step 2\n#### 1800"]);
        let found = label_steps(&completer, &whole, "1800", &config(Estimate::Soft)).expect("all");
        assert_eq!(found.labels, [Some(0.25), Some(1.0)]);
        assert_eq!(found.completions, 4);
        let only = solution(&["#### 3"]);
        let found = label_steps(&completer, &only, "1800", &config(Estimate::Soft)).expect("all");
        assert_eq!((found.labels, found.completions), (vec![Some(0.0)], 0));
    }

    #[test]
    fn seeds_differ_and_repeat() {
        let (first, second) = (Scripted::default(), Scripted::default());
        let begun = solution(&["step 1", "step 2"]);
        for completer in [&first, &second] {
            label_steps(completer, &begun, "1", &config(Estimate::Soft)).expect("all");
        }
        let seeds = first.seeds.lock().expect("one thread").clone();
        assert_eq!(seeds, *second.seeds.lock().expect("one thread"));
        let distinct: std::collections::HashSet<u64> = seeds.iter().copied().collect();
        assert_eq!(distinct.len(), 8);
    }

    #[test]
    fn failures_are_counted_and_all_of_them_are_an_error() {
        let completer = Scripted::default();
        let half = solution(&["step 1", "step 2!"]);
        let found = label_steps(&completer, &half, "1800", &config(Estimate::Soft)).expect("some");
        assert_eq!((found.labels.as_slice(), found.failed), (&[Some(0.25), None][..], 4));
        let none = solution(&["step 1!"]);
        let error = label_steps(&completer, &none, "1800", &config(Estimate::Soft));
        assert!(matches!(error, Err(CompletionError::Overlong { .. })), "{error:?}");
    }
}
