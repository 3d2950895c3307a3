//! Responses of a model to prompts: read from a file, or generated and kept as they come.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use patarm_reward::completer::{Completer, CompletionRequest};
use patarm_text::Conversation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Run, Subject,
    journal::Journal,
    load::{LoadReport, each_row},
};
use crate::{Error, Result};

/// Name of the file that generated responses are kept in, below the result folder.
pub const RESPONSES_FILE: &str = "responses.jsonl";

/// Prompts completed between two looks at the interruption flag.
const CHUNK: usize = 64;

/// What a caller decides about responses that a model gives or a judge reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Completions<'a> {
    /// Longest response in tokens; the benchmark's own limit by default.
    pub max_tokens: Option<usize>,
    /// RewardBench 2: ratings of every response, in place of a choice among them.
    pub ratings: bool,
    /// Folder of NLTK's `punkt_tab` parameters, for rules that count sentences; the built-in
    /// parameters by default.
    pub punkt: Option<&'a Path>,
}

/// One prompt to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Id of the item.
    pub id: &'a str,
    /// Its prompt.
    pub prompt: &'a str,
}

/// A response for every prompt that has one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Responses {
    /// In the order of the prompts; why not, where there is none.
    pub texts: Vec<Result<String, String>>,
    /// What was counted.
    pub counts: BTreeMap<String, u64>,
    /// The first problems.
    pub problems: Vec<String>,
}

/// A row of the file of generated responses; readable as a file of responses.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    key: String,
    prompt: String,
    response: String,
    model: String,
    max_tokens: usize,
    num_tokens: usize,
    truncated: bool,
}

/// Responses to all prompts, from the file of the run, the file of the subject, or a model.
///
/// # Errors
/// When a file cannot be read or written, the subject gives no responses, or the run was
/// interrupted; what was generated until then is kept and used by the next run.
pub fn responses(
    asked: &[Asked<'_>],
    max_tokens: usize,
    (subject, run): (&Subject<'_>, &Run<'_>),
) -> Result<Responses> {
    match (run.responses, subject) {
        (Some(path), _) => recorded(asked, path),
        (None, Subject::File(path)) => recorded(asked, path),
        (None, Subject::Completer(completer)) => {
            let max_tokens = run.completions.max_tokens.unwrap_or(max_tokens);
            generated(asked, *completer, max_tokens, run)
        }
        (None, other) => {
            let message = format!(
                "{} gives no responses; name a model that completes text, or a file of responses",
                other.kind()
            );
            Err(Error::bad_input(message))
        }
    }
}

/// Rows with `response` (or `output`) and `key`, `id` or `prompt`; of rows for one prompt the last
/// counts, as in the reference.
fn recorded(asked: &[Asked<'_>], path: &Path) -> Result<Responses> {
    let (mut by_id, mut by_prompt) = (HashMap::new(), HashMap::new());
    let (mut report, mut num_duplicates) = (LoadReport::default(), 0);
    each_row(&[path.to_path_buf()], &mut report, |row, report| {
        let text = row.get("response").or_else(|| row.get("output")).and_then(Value::as_str);
        let id = row.id("key").or_else(|_| row.id("id")).ok();
        let known = match (text, id, row.text("prompt").ok()) {
            (Some(text), Some(id), _) => by_id.insert(id, text.to_owned()),
            (Some(text), None, Some(prompt)) => {
                by_prompt.insert(prompt.to_owned(), text.to_owned())
            }
            _ => {
                report.malformed(&row, "a row needs `response` and one of `key`, `id`, `prompt`");
                None
            }
        };
        num_duplicates += u64::from(known.is_some());
        Ok(true)
    })?;
    let find = |asked: &Asked<'_>| {
        let found = by_id.get(asked.id).or_else(|| by_prompt.get(asked.prompt));
        found.cloned().ok_or_else(|| "no response".to_owned())
    };
    let counts = [
        ("response_rows", report.num_rows as u64),
        ("response_rows_malformed", report.num_malformed as u64),
        ("responses_replaced_by_a_later_row", num_duplicates),
    ];
    Ok(Responses {
        texts: asked.iter().map(find).collect(),
        counts: counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        problems: report.problems,
    })
}

/// Greedy completions of what the journal lacks.
fn generated(
    asked: &[Asked<'_>],
    completer: &dyn Completer,
    max_tokens: usize,
    run: &Run<'_>,
) -> Result<Responses> {
    let path = run.out.join(RESPONSES_FILE);
    let (mut journal, rows) = Journal::open::<Kept>(&path)?;
    let model = completer.name();
    if let Some(other) = rows.iter().find(|r| r.model != model || r.max_tokens != max_tokens) {
        let message = format!(
            "holds responses of {:?} with at most {} tokens; name another result folder",
            other.model, other.max_tokens
        );
        return Err(Error::bad_input(message).in_file(&path));
    }
    let mut kept: HashMap<(String, String), String> =
        rows.into_iter().map(|row| ((row.key, row.prompt), row.response)).collect();
    let place = |asked: &Asked<'_>| (asked.id.to_owned(), asked.prompt.to_owned());
    let missing: Vec<&Asked<'_>> =
        asked.iter().filter(|asked| !kept.contains_key(&place(asked))).collect();
    let mut failures = HashMap::new();
    for chunk in missing.chunks(CHUNK) {
        let requests: Vec<_> = chunk.iter().map(|asked| request(asked, max_tokens)).collect();
        let mut failed = Ok(());
        let results = completer.complete_each(&requests, &mut |index, result| {
            if let Ok(completion) = result {
                let asked = chunk[index];
                let row = Kept {
                    key: asked.id.to_owned(),
                    prompt: asked.prompt.to_owned(),
                    response: completion.text.clone(),
                    model: model.clone(),
                    max_tokens,
                    num_tokens: completion.num_tokens,
                    truncated: completion.truncated,
                };
                if failed.is_ok() {
                    failed = journal.append(&row);
                }
            }
        });
        failed?;
        for (asked, result) in chunk.iter().zip(results) {
            match result {
                Ok(completion) => _ = kept.insert(place(asked), completion.text),
                Err(error) => _ = failures.insert(place(asked), error.to_string()),
            }
        }
        if run.observer.is_interrupted() {
            return Err(Error::interrupted());
        }
    }
    let text = |asked: &Asked<'_>| {
        let place = place(asked);
        kept.get(&place).cloned().ok_or_else(|| {
            failures.get(&place).cloned().unwrap_or_else(|| "no response".to_owned())
        })
    };
    let counts = BTreeMap::from([("responses_generated".to_owned(), missing.len() as u64)]);
    Ok(Responses { texts: asked.iter().map(text).collect(), counts, problems: Vec::new() })
}

fn request(asked: &Asked<'_>, max_tokens: usize) -> CompletionRequest {
    CompletionRequest {
        prompt: Conversation::from_user(asked.prompt),
        max_tokens,
        temperature: 0.0,
        top_p: 1.0,
        stop: Vec::new(),
        seed: 0,
    }
}
