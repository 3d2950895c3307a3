//! Asking a judge: one conversation an item, one question a turn.

use std::collections::HashMap;

use patarm_reward::completer::{Completer, CompletionRequest};
use patarm_text::{Conversation, Message, Role};
use serde::{Deserialize, Serialize};

use super::load::Entry;
use crate::{
    Error, Result,
    benchmark::{Run, journal::Journal},
};

/// Name of the file that answers are kept in, below the result folder.
const JOURNAL_FILE: &str = "evaluations.jsonl";

/// Longest answer in tokens.
const MAX_TOKENS: usize = 256;

/// Items asked together.
const CHUNK: usize = 32;

/// What the judge is told first.
const RULES: &str = "You are given a generated text, and the input it was made from where there was \
one. Answer each question about the generated text with YES or NO.\n\n\
- YES: the text fulfils the condition of the question entirely. A small inaccuracy is enough to rule \
YES out: if the question is whether every sentence is in the second person, one sentence that is not \
makes the answer NO.\n\
- NO: the text does not fulfil the condition, or has nothing by which the question could be answered: \
if the question is about the second sentence and there is only one, the answer is NO.";

/// Answers to the questions of one item.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answers {
    /// YES, NO or neither for every question that was asked; `None` where none was.
    pub(super) given: Option<Vec<Option<bool>>>,
    /// How many of them the official figure is over.
    pub(super) num_official: usize,
    /// What went wrong, in words.
    pub(super) faults: Vec<String>,
}

/// What an answer says: YES or NO by its first letters in any case, else by the one of the two words
/// in capitals that occurs in it.
pub(super) fn read(answer: &str) -> Option<bool> {
    let lower = answer.to_lowercase();
    if lower.starts_with("yes") {
        return Some(true);
    }
    if lower.starts_with("no") {
        return Some(false);
    }
    match (answer.contains("YES"), answer.contains("NO")) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}

impl Answers {
    /// Answers of a judge that was asked every question.
    fn complete(given: Vec<Option<bool>>) -> Self {
        Self { num_official: num_official(&given), given: Some(given), faults: Vec::new() }
    }

    /// Answers that were recorded as the official rule has it.
    pub(super) fn official(given: Vec<Option<bool>>) -> Self {
        Self { num_official: given.len(), given: Some(given), faults: Vec::new() }
    }
}

/// Answers that the official rule records: up to and with the first that is neither.
fn num_official(given: &[Option<bool>]) -> usize {
    given.iter().position(Option::is_none).map_or(given.len(), |first| first + 1)
}

/// A row of the journal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    id: String,
    eval: Vec<Option<bool>>,
    judge: String,
    output: String,
}

/// Asks about every item that has a response.
pub(super) fn ask(entries: &[Entry], judge: &dyn Completer, run: &Run<'_>) -> Result<Vec<Answers>> {
    let path = run.out.join(JOURNAL_FILE);
    let (mut journal, rows) = Journal::open::<Kept>(&path)?;
    let name = judge.name();
    if let Some(other) = rows.iter().find(|row| row.judge != name) {
        let message = format!("holds answers of {:?}; name another result folder", other.judge);
        return Err(Error::bad_input(message).in_file(&path));
    }
    let kept: HashMap<(String, String), Vec<Option<bool>>> =
        rows.into_iter().map(|row| ((row.id, row.output), row.eval)).collect();
    let mut answers = vec![Answers::default(); entries.len()];
    let mut due = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let Some(output) = &entry.output else {
            answers[index].faults.push("no response".to_owned());
            continue;
        };
        match kept.get(&(entry.id.clone(), output.clone())) {
            Some(given) => answers[index] = Answers::complete(given.clone()),
            None => due.push(index),
        }
    }
    let max_tokens = run.completions.max_tokens.unwrap_or(MAX_TOKENS);
    for chunk in due.chunks(CHUNK) {
        ask_chunk(entries, chunk, (judge, max_tokens), &mut answers);
        for &index in chunk.iter().filter(|&&index| answers[index].faults.is_empty()) {
            let (entry, answers) = (&entries[index], &answers[index]);
            journal.append(&Kept {
                id: entry.id.clone(),
                eval: answers.given.clone().unwrap_or_default(),
                judge: name.clone(),
                output: entry.output.clone().unwrap_or_default(),
            })?;
        }
        if run.observer.is_interrupted() {
            return Err(Error::interrupted());
        }
    }
    Ok(answers)
}

/// All turns of some items: the first question of all, then the second, and so on.
fn ask_chunk(
    entries: &[Entry],
    chunk: &[usize],
    (judge, max_tokens): (&dyn Completer, usize),
    answers: &mut [Answers],
) {
    let mut talks: Vec<Conversation> = chunk.iter().map(|_| Conversation::default()).collect();
    let turns = chunk.iter().map(|&index| entries[index].questions.len()).max().unwrap_or(0);
    for turn in 0..turns {
        let active: Vec<usize> = (0..chunk.len())
            .filter(|&place| turn < entries[chunk[place]].questions.len())
            .collect();
        for &place in &active {
            let question = question(&entries[chunk[place]], turn);
            talks[place].messages.push(Message::text(Role::User, question));
        }
        let request = |place: &usize| CompletionRequest {
            prompt: talks[*place].clone(),
            max_tokens,
            temperature: 0.0,
            top_p: 1.0,
            stop: Vec::new(),
            seed: 0,
        };
        let requests: Vec<CompletionRequest> = active.iter().map(request).collect();
        for (place, result) in active.into_iter().zip(judge.complete(&requests)) {
            let answers = &mut answers[chunk[place]];
            let mut given = answers.given.take().unwrap_or_default();
            let text = match result {
                Ok(completion) => completion.text,
                Err(error) => {
                    answers.faults.push(format!("question {turn}: {error}"));
                    String::new()
                }
            };
            given.push(read(&text));
            answers.num_official = num_official(&given);
            answers.given = Some(given);
            talks[place].messages.push(Message::text(Role::Assistant, text));
        }
    }
}

/// A turn: the first carries the rules, the input and the text.
fn question(entry: &Entry, turn: usize) -> String {
    let asked = &entry.questions[turn];
    if turn > 0 {
        return format!("{asked}\n");
    }
    let output = entry.output.as_deref().unwrap_or_default();
    let input = match entry.input.as_str() {
        "" => String::new(),
        input => format!("Input:\n\"{input}\"\n\n"),
    };
    format!("{RULES}\n\n{input}Generated Text:\n\"{output}\"\n\nQuestion:\n{asked}\n")
}
