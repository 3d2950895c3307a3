//! `patarm judge` and `patarm score`: one JSON line an item, resumable.

mod steps;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use patarm_reward::model::{CompareRequest, ItemFault, JudgeRequest, Reward};
use patarm_reward::observer::Observer;
use patarm_text::{Conversation, Item, Message, Task};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{Global, Judge, JudgeMode, Score, TaskChoice};
use crate::exit::{Code, failure};
use crate::judging::{with_pairwise, with_pointwise};
use crate::observer::Terminal;
use crate::reward_models::with_reward_model;
use crate::{datasets, output};

/// Items judged between two writes: an interruption loses at most so many.
const CHUNK: usize = 64;
/// Longest line of a file of items.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Writes judgements.
pub(super) fn judge(options: &Judge, global: &Global) -> anyhow::Result<()> {
    let observer: Arc<dyn Observer> = Arc::new(Terminal::install());
    match options.mode {
        JudgeMode::Pointwise => judge_pointwise(options, global, &observer),
        JudgeMode::Pairwise => judge_pairwise(options, global, &observer),
    }
}

fn judge_pointwise(
    options: &Judge,
    global: &Global,
    observer: &Arc<dyn Observer>,
) -> anyhow::Result<()> {
    let entries = read_items(&options.input)?;
    let mut output = Resumable::open(&options.out)?;
    let task = task(options.options.asking.task);
    with_pointwise(&options.options, global, observer, &mut |judge| {
        let left: Vec<&Entry> = output.missing(&entries, |entry| entry.key());
        for chunk in left.chunks(CHUNK) {
            let requests: Vec<JudgeRequest> = chunk
                .iter()
                .map(|entry| JudgeRequest { item: entry.item.clone(), task: task.or(entry.task) })
                .collect();
            let results = judge.judge(&requests, options.options.asking.votes);
            stop_if_interrupted(observer.as_ref(), &options.out)?;
            for (entry, result) in chunk.iter().zip(results) {
                output.write(&judged(entry, result))?;
            }
        }
        Ok(())
    })?;
    finish(output, entries.len(), global)
}

fn judged(
    entry: &Entry,
    result: Result<Vec<patarm_reward::judgement::Judgement>, ItemFault>,
) -> Value {
    let (judgements, fault) = match result {
        Ok(judgements) => (json!(judgements), Value::Null),
        Err(fault) => (json!([]), json!(fault.to_string())),
    };
    json!({ "item": entry.id, "response": entry.response, "judgements": judgements, "fault": fault })
}

fn judge_pairwise(
    options: &Judge,
    global: &Global,
    observer: &Arc<dyn Observer>,
) -> anyhow::Result<()> {
    let comparisons = datasets::read(&options.input.to_string_lossy())?;
    let mut output = Resumable::open(&options.out)?;
    let task = task(options.options.asking.task);
    with_pairwise(&options.options, global, observer, &mut |judge| {
        let left = output.missing(&comparisons, |comparison| comparison.id.clone());
        for chunk in left.chunks(CHUNK) {
            let requests: Vec<CompareRequest> = chunk
                .iter()
                .map(|comparison| CompareRequest {
                    prompt: comparison.first.prompt.clone(),
                    responses: [
                        comparison.first.response.clone(),
                        comparison.second.response.clone(),
                    ],
                    task: task.or(comparison.task),
                })
                .collect();
            let results = judge.compare(&requests, options.options.asking.votes);
            stop_if_interrupted(observer.as_ref(), &options.out)?;
            for (comparison, result) in chunk.iter().zip(results) {
                let (verdict, fault) = match result {
                    Ok(verdict) => (json!(verdict), Value::Null),
                    Err(fault) => (Value::Null, json!(fault.to_string())),
                };
                output
                    .write(&json!({ "item": comparison.id, "verdict": verdict, "fault": fault }))?;
            }
        }
        Ok(())
    })?;
    finish(output, comparisons.len(), global)
}

/// Writes one number a response.
pub(super) fn score(options: &Score, global: &Global) -> anyhow::Result<()> {
    let observer: Arc<dyn Observer> = Arc::new(Terminal::install());
    if options.steps {
        return steps::score(options, global, &observer);
    }
    let entries = read_items(&options.input)?;
    let mut output = Resumable::open(&options.out)?;
    with_reward_model(&options.options, global, &observer, &mut |model| {
        let left: Vec<&Entry> = output.missing(&entries, |entry| entry.key());
        for chunk in left.chunks(CHUNK) {
            let items: Vec<Item> = chunk.iter().map(|entry| entry.item.clone()).collect();
            let results = model.score(&items);
            stop_if_interrupted(observer.as_ref(), &options.out)?;
            for (entry, result) in chunk.iter().zip(results) {
                output.write(&scored(entry, result))?;
            }
        }
        Ok(())
    })?;
    finish(output, entries.len(), global)
}

/// The number of a response, and those of its steps where the model gives any.
fn scored(entry: &Entry, result: Result<Reward, ItemFault>) -> Value {
    let mut row = json!({ "item": entry.id, "response": entry.response });
    match result {
        Ok(reward) => {
            row["score"] = json!(reward.value);
            row["fault"] = Value::Null;
            if !reward.step_values.is_empty() {
                row["steps"] = json!(reward.step_values);
                row["spans"] = json!(reward.step_spans);
            }
        }
        Err(fault) => {
            row["score"] = Value::Null;
            row["fault"] = json!(fault.to_string());
        }
    }
    row
}

pub(crate) fn stop_if_interrupted(observer: &dyn Observer, out: &Path) -> anyhow::Result<()> {
    if observer.is_interrupted() {
        let message =
            format!("interrupted; the same command goes on with {}", partial_path(out).display());
        return Err(failure(Code::Interrupted, message));
    }
    Ok(())
}

fn finish(output: Resumable, rows: usize, global: &Global) -> anyhow::Result<()> {
    let path = output.finish()?;
    if global.json {
        return output::json(&json!({ "version": 1, "out": path, "rows": rows }));
    }
    output::line(&format!("{} rows in {}", rows, path.display()))
}

fn task(choice: TaskChoice) -> Option<Task> {
    match choice {
        TaskChoice::Auto => None,
        TaskChoice::Chat => Some(Task::Chat),
        TaskChoice::Code => Some(Task::Code),
        TaskChoice::Math => Some(Task::Math),
        TaskChoice::Safety => Some(Task::Safety),
        TaskChoice::InstructionFollowing => Some(Task::InstructionFollowing),
    }
}

/// One response to be judged.
struct Entry {
    id: String,
    /// Index of the response within its item.
    response: usize,
    item: Item,
    task: Option<Task>,
}

impl Entry {
    fn key(&self) -> String {
        format!("{}#{}", self.id, self.response)
    }
}

/// A row that is a single item.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemRow {
    id: Option<String>,
    prompt: Value,
    response: String,
    task: Option<Task>,
}

/// Items of a file: rows with `prompt` and `response`, or both sides of comparisons.
fn read_items(path: &Path) -> anyhow::Result<Vec<Entry>> {
    if let Some(entries) = read_item_rows(path)? {
        return Ok(entries);
    }
    let comparisons = datasets::read(&path.to_string_lossy())?;
    let each = comparisons.into_iter().flat_map(|comparison| {
        let (id, task) = (comparison.id, comparison.task);
        [(0, comparison.first), (1, comparison.second)].map(|(response, item)| Entry {
            id: id.clone(),
            response,
            item,
            task,
        })
    });
    Ok(each.collect())
}

/// `None` when the first line is no such row.
fn read_item_rows(path: &Path) -> anyhow::Result<Option<Vec<Entry>>> {
    let file = File::open(path)
        .map_err(|error| failure(Code::Data, format!("{}: {error}", path.display())))?;
    let mut entries = Vec::new();
    for (number, line) in BufReader::new(file).split(b'\n').enumerate() {
        let line = line?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let wrong = |what: &str| {
            failure(Code::Data, format!("{}, line {}: {what}", path.display(), number + 1))
        };
        if line.len() > MAX_LINE_BYTES {
            return Err(wrong("the line is longer than 16 MiB"));
        }
        match serde_json::from_slice::<ItemRow>(&line) {
            Ok(row) => {
                let prompt = conversation(row.prompt)
                    .ok_or_else(|| wrong("prompt must be text or a list of messages"))?;
                let id = row.id.unwrap_or_else(|| (number + 1).to_string());
                entries.push(Entry {
                    id,
                    response: 0,
                    item: Item { prompt, response: row.response },
                    task: row.task,
                });
            }
            Err(_) if entries.is_empty() => return Ok(None),
            Err(error) => return Err(wrong(&error.to_string())),
        }
    }
    Ok(Some(entries))
}

fn conversation(prompt: Value) -> Option<Conversation> {
    #[derive(Deserialize)]
    struct Turn {
        role: patarm_text::Role,
        content: String,
    }
    match prompt {
        Value::String(text) => Some(Conversation::from_user(text)),
        other => {
            let turns: Vec<Turn> = serde_json::from_value(other).ok()?;
            let messages =
                turns.into_iter().map(|turn| Message::text(turn.role, turn.content)).collect();
            Some(Conversation { messages, tools: Vec::new() })
        }
    }
}

fn partial_path(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    out.with_file_name(name)
}

/// A JSONL file under way beside its final name; what is there is not done again.
pub(crate) struct Resumable {
    out: PathBuf,
    file: File,
    done: HashSet<String>,
}

impl Resumable {
    pub(crate) fn open(out: &Path) -> anyhow::Result<Self> {
        let path = partial_path(out);
        let (mut done, mut whole) = (HashSet::new(), 0);
        if let Ok(text) = std::fs::read_to_string(&path) {
            for line in text.split_inclusive('\n') {
                // A line that a crash cut short is written again.
                let Ok(row) = serde_json::from_str::<Value>(line) else { break };
                whole += line.len();
                done.insert(key_of(&row));
            }
        }
        let file = File::options().create(true).append(true).open(&path)?;
        file.set_len(whole as u64)?;
        Ok(Self { out: out.to_path_buf(), file, done })
    }

    pub(crate) fn missing<'a, T>(&self, all: &'a [T], key: impl Fn(&T) -> String) -> Vec<&'a T> {
        all.iter().filter(|one| !self.done.contains(&key(one))).collect()
    }

    pub(crate) fn write(&mut self, row: &Value) -> anyhow::Result<()> {
        Ok(self.file.write_all(format!("{row}\n").as_bytes())?)
    }

    pub(crate) fn finish(self) -> anyhow::Result<PathBuf> {
        self.file.sync_all()?;
        std::fs::rename(partial_path(&self.out), &self.out)?;
        Ok(self.out)
    }
}

fn key_of(row: &Value) -> String {
    let item = row["item"].as_str().unwrap_or_default();
    match row["response"].as_u64() {
        Some(response) => format!("{item}#{response}"),
        None => item.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_output_is_continued_without_loss_or_repeat() {
        let folder = tempfile::tempdir().expect("folder");
        let out = folder.path().join("scores.jsonl");
        let mut output = Resumable::open(&out).expect("open");
        output.write(&json!({ "item": "a", "response": 0, "score": 1.0 })).expect("write");
        output.file.write_all(b"{\"item\": \"b\", \"resp").expect("write");
        drop(output);
        let mut output = Resumable::open(&out).expect("open");
        let all = ["a#0", "b#0"];
        assert_eq!(output.missing(&all, |key| (*key).to_owned()), [&"b#0"]);
        output.write(&json!({ "item": "b", "response": 0, "score": 2.0 })).expect("write");
        output.finish().expect("finish");
        let text = std::fs::read_to_string(&out).expect("read");
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    }
}
