//! Tasks told by a model, for prompts the rule does not understand.

use std::collections::BTreeMap;

use patarm_text::{Conversation, Task};

use super::{detect_task, last_user_text};
use crate::completer::{Completer, CompletionRequest};

/// Tokens of an answer: a name, with room for a blank and a full stop.
const MAX_ANSWER_TOKENS: usize = 12;
/// A prompt is shown to the model up to this many characters.
const MAX_SHOWN_CHARS: usize = 2_000;

/// The names a model may answer with.
const NAMES: [(&str, Task); 5] = [
    ("instruction_following", Task::InstructionFollowing),
    ("chat", Task::Chat),
    ("code", Task::Code),
    ("math", Task::Math),
    ("safety", Task::Safety),
];

/// What was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetectedTasks {
    /// One task a prompt, in the order of the prompts.
    pub tasks: Vec<Task>,
    /// Distinct prompts the model was asked about.
    pub asked: usize,
    /// Of these, answers that name no task or several; the rule decided.
    pub unreadable: usize,
    /// Of these, requests that failed; the rule decided.
    pub failed: usize,
}

/// Asks a model for the task of each prompt, once a distinct prompt. Where it gives no
/// usable answer the rule of [`detect_task`] decides, and that is counted.
pub fn detect_tasks(
    completer: &dyn Completer,
    prompts: &[&Conversation],
    seed: u64,
) -> DetectedTasks {
    let texts: Vec<String> = prompts.iter().map(|prompt| last_user_text(prompt)).collect();
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, text) in texts.iter().enumerate() {
        first.entry(text).or_insert(index);
    }
    let requests: Vec<CompletionRequest> = first.keys().map(|text| question(text, seed)).collect();
    let answers = completer.complete(&requests);
    let mut detected = DetectedTasks { asked: requests.len(), ..DetectedTasks::default() };
    let mut told: BTreeMap<&str, Task> = BTreeMap::new();
    for ((text, index), answer) in first.iter().zip(answers) {
        let task = match answer {
            Ok(completion) => named_task(&completion.text).unwrap_or_else(|| {
                detected.unreadable += 1;
                detect_task(prompts[*index])
            }),
            Err(_) => {
                detected.failed += 1;
                detect_task(prompts[*index])
            }
        };
        told.insert(*text, task);
    }
    let told = texts.iter().zip(prompts).map(|(text, prompt)| {
        // A completer that returns too few answers leaves prompts to the rule.
        told.get(text.as_str()).copied().unwrap_or_else(|| detect_task(prompt))
    });
    detected.tasks = told.collect();
    detected
}

fn question(text: &str, seed: u64) -> CompletionRequest {
    let shown: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
    let prompt = format!(
        "Which kind of work does the request below ask for? Do not answer the request. \
         Reply with one of these names and nothing else: {}.\n\nRequest:\n{shown}\n\nKind of work:",
        names.join(", ")
    );
    CompletionRequest {
        prompt: Conversation::from_user(prompt),
        max_tokens: MAX_ANSWER_TOKENS,
        temperature: 0.0,
        top_p: 1.0,
        stop: Vec::new(),
        seed,
    }
}

/// The one task an answer names, whatever its case and the signs around it.
fn named_task(answer: &str) -> Option<Task> {
    let words = answer.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let lower: Vec<String> = words.map(str::to_ascii_lowercase).collect();
    let mut named = NAMES.iter().filter(|(name, _)| lower.iter().any(|word| word == name));
    match (named.next(), named.next()) {
        (Some((_, task)), None) => Some(*task),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::completer::{Completion, CompletionError, CompletionResult};

    /// Answers by what the request contains.
    struct Scripted {
        script: fn(&str) -> Option<&'static str>,
        seen: Mutex<Vec<String>>,
    }

    impl Completer for Scripted {
        fn complete(&self, requests: &[CompletionRequest]) -> Vec<CompletionResult> {
            let answer = |request: &CompletionRequest| {
                let text = request.prompt.messages[0].plain_text();
                self.seen.lock().unwrap().push(text.clone());
                let answer = (self.script)(&text).ok_or(CompletionError::Interrupted)?;
                let text = answer.to_owned();
                Ok(Completion { text, num_tokens: 1, truncated: false, logprobs: None })
            };
            requests.iter().map(answer).collect()
        }

        fn name(&self) -> String {
            "scripted".into()
        }
    }

    fn detect(
        script: fn(&str) -> Option<&'static str>,
        prompts: &[&str],
    ) -> (DetectedTasks, usize) {
        let completer = Scripted { script, seen: Mutex::default() };
        let conversations: Vec<Conversation> =
            prompts.iter().map(|prompt| Conversation::from_user(*prompt)).collect();
        let detected = detect_tasks(&completer, &conversations.iter().collect::<Vec<_>>(), 0);
        (detected, completer.seen.into_inner().unwrap().len())
    }

    #[test]
    fn a_model_knows_what_the_rule_does_not() {
        let script = |text: &str| {
            Some(if text.contains("borrow checker") { " Code.\n" } else { "**safety**" })
        };
        let prompts = [
            "why is the borrow checker angry",
            "a lock I lost the key of",
            "why is the borrow checker angry",
        ];
        let (detected, asked) = detect(script, &prompts);
        assert_eq!(detected.tasks, [Task::Code, Task::Safety, Task::Code]);
        assert_eq!((detected.asked, asked), (2, 2), "a prompt is asked about once");
        assert_eq!((detected.unreadable, detected.failed), (0, 0));
    }

    #[test]
    fn without_a_usable_answer_the_rule_decides() {
        let script = |text: &str| match text {
            _ if text.contains("17 * 23") => Some("code or math, who knows"),
            _ if text.contains("area of") => None,
            _ => Some("mathematics"),
        };
        let prompts =
            ["What is 17 * 23?", "Find the area of a circle of radius 2.", "Good morning"];
        let (detected, _) = detect(script, &prompts);
        assert_eq!(detected.tasks, [Task::Math, Task::Math, Task::Chat]);
        assert_eq!((detected.unreadable, detected.failed), (2, 1));
    }

    #[test]
    fn answers_name_one_task_or_none() {
        assert_eq!(named_task("Instruction_Following"), Some(Task::InstructionFollowing));
        assert_eq!(named_task("chat chat"), Some(Task::Chat));
        for answer in ["", "chatty", "decode", "math, then code", "none of these"] {
            assert_eq!(named_task(answer), None, "{answer}");
        }
    }

    #[test]
    fn no_prompt_is_nothing_to_ask() {
        assert_eq!(detect(|_| None, &[]).0, DetectedTasks::default());
    }
}
