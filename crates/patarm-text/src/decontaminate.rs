//! Keeping evaluation data out of training data.
//!
//! A text overlaps with a reference when they share a run of `n` words (13 by
//! default), or, for prompts shorter than that, when the whole prompt is the same.
//! Words are compared without case and punctuation. Short responses alone never
//! count: everybody answers "Yes.".

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::comparison::Comparison;
use crate::conversation::Conversation;
use crate::dataset::{self, ReadError, ReadOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::words::{sequence_hash, word_hashes};

/// Length of the runs that are compared, in words.
pub const DEFAULT_RUN_WORDS: usize = 13;
/// Runs one index may hold.
const MAX_RUNS: usize = 200_000_000;
/// Removed comparisons a report shows.
const MAX_EXAMPLES: usize = 10;

/// What a comparison shares with the references.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The whole prompt, shorter than a run.
    SamePrompt,
    /// A run of words in a prompt.
    PromptRun,
    /// A run of words in a response.
    ResponseRun,
}

/// The words of reference texts.
#[derive(Clone, Debug)]
pub struct References {
    run_words: usize,
    runs: HashSet<u64>,
    short: HashSet<u64>,
    num_texts: u64,
}

/// What was removed and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DecontaminationReport {
    /// Comparisons looked at.
    pub checked: u64,
    /// Comparisons left.
    pub kept: u64,
    /// Comparisons removed, by reason.
    pub removed: BTreeMap<Overlap, u64>,
    /// Ids of the first few that were removed.
    pub examples: Vec<String>,
}

impl References {
    /// An empty index of runs of `run_words` words.
    ///
    /// # Errors
    /// When `run_words` is 0 or larger than 1000.
    pub fn new(run_words: usize) -> Result<Self> {
        if !(1..=1000).contains(&run_words) {
            let context = format!("runs of {run_words} words cannot be compared; use 1 to 1000");
            return Err(Error::new(ErrorKind::Recipe, context));
        }
        Ok(Self { run_words, runs: HashSet::new(), short: HashSet::new(), num_texts: 0 })
    }

    /// Texts added so far.
    #[must_use]
    pub fn num_texts(&self) -> u64 {
        self.num_texts
    }

    /// Adds a prompt or any other text that must not turn up.
    ///
    /// # Errors
    /// When the index would grow beyond its limit.
    pub fn add_text(&mut self, text: &str) -> Result<()> {
        let words = word_hashes(text);
        self.num_texts += 1;
        if words.is_empty() {
            return Ok(());
        }
        if words.len() < self.run_words {
            self.short.insert(sequence_hash(&words));
        }
        self.add_runs(&words)
    }

    /// Adds both prompts and both responses.
    ///
    /// # Errors
    /// As [`References::add_text`].
    pub fn add_comparison(&mut self, comparison: &Comparison) -> Result<()> {
        self.add_text(&asked(&comparison.first.prompt))?;
        if comparison.second.prompt != comparison.first.prompt {
            self.add_text(&asked(&comparison.second.prompt))?;
        }
        for item in [&comparison.first, &comparison.second] {
            self.num_texts += 1;
            self.add_runs(&word_hashes(&item.response))?;
        }
        Ok(())
    }

    /// Adds a data file: the comparisons in it, or, where its rows are of no
    /// format known as such, every text in them.
    ///
    /// # Errors
    /// When the file cannot be read or the index would grow beyond its limit.
    pub fn add_file(&mut self, path: &Path, options: &ReadOptions) -> Result<()> {
        let failed = |error: ReadError| {
            let context = "cannot use reference data";
            Error::with_source(ErrorKind::Data, context, error)
        };
        if options.format.is_some() || dataset::has_known_format(path, options).map_err(failed)? {
            for comparison in dataset::ComparisonReader::open(path, options).map_err(failed)? {
                self.add_comparison(&comparison.map_err(failed)?)?;
            }
            return Ok(());
        }
        for row in dataset::raw_rows(path, options).map_err(failed)? {
            self.add_value(&row.map_err(failed)?)?;
        }
        Ok(())
    }

    /// What a comparison shares with the references, if anything.
    #[must_use]
    pub fn overlap(&self, comparison: &Comparison) -> Option<Overlap> {
        let prompts = [&comparison.first.prompt, &comparison.second.prompt];
        for words in prompts.map(|prompt| word_hashes(&asked(prompt))) {
            if !words.is_empty() && self.short.contains(&sequence_hash(&words)) {
                return Some(Overlap::SamePrompt);
            }
            if self.has_run(&words) {
                return Some(Overlap::PromptRun);
            }
        }
        let responses = [&comparison.first.response, &comparison.second.response];
        let shared = responses.iter().any(|response| self.has_run(&word_hashes(response)));
        shared.then_some(Overlap::ResponseRun)
    }

    fn add_runs(&mut self, words: &[u64]) -> Result<()> {
        if self.runs.len() + words.len() > MAX_RUNS {
            let context = format!("the reference data have more than {MAX_RUNS} runs of words");
            return Err(Error::new(ErrorKind::Limit, context));
        }
        self.runs.extend(words.windows(self.run_words).map(sequence_hash));
        Ok(())
    }

    fn has_run(&self, words: &[u64]) -> bool {
        words.windows(self.run_words).any(|run| self.runs.contains(&sequence_hash(run)))
    }

    fn add_value(&mut self, value: &Value) -> Result<()> {
        match value {
            Value::String(text) => self.add_text(text),
            Value::Array(items) => items.iter().try_for_each(|item| self.add_value(item)),
            Value::Object(fields) => fields.values().try_for_each(|item| self.add_value(item)),
            _ => Ok(()),
        }
    }
}

/// What was asked: system instructions are shared by many prompts on purpose and
/// say nothing about contamination.
fn asked(prompt: &Conversation) -> String {
    use crate::conversation::Role;
    let turns = prompt.messages.iter().filter(|message| message.role != Role::System);
    turns.map(crate::conversation::Message::plain_text).collect::<Vec<_>>().join("\n")
}

/// Leaves out what overlaps with the references.
#[must_use]
pub fn decontaminate(
    comparisons: Vec<Comparison>,
    references: &References,
) -> (Vec<Comparison>, DecontaminationReport) {
    let mut report = DecontaminationReport::default();
    let mut kept = Vec::new();
    for comparison in comparisons {
        report.checked += 1;
        match references.overlap(&comparison) {
            None => kept.push(comparison),
            Some(overlap) => {
                *report.removed.entry(overlap).or_default() += 1;
                if report.examples.len() < MAX_EXAMPLES {
                    report.examples.push(comparison.id);
                }
            }
        }
    }
    report.kept = kept.len() as u64;
    (kept, report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::{Item, Preference};
    use crate::conversation::{Message, Role};

    const LONG: &str = "one two three four five six seven eight nine ten eleven twelve thirteen";

    fn pair(prompt: &str, first: &str, second: &str) -> Comparison {
        let item = |response: &str| Item {
            prompt: Conversation::from_user(prompt),
            response: response.into(),
        };
        Comparison {
            id: prompt.into(),
            first: item(first),
            second: item(second),
            label: Preference::First,
            strength: None,
            task: None,
            subset: None,
        }
    }

    fn against(reference: &Comparison) -> References {
        let mut references = References::new(DEFAULT_RUN_WORDS).unwrap();
        references.add_comparison(reference).unwrap();
        references
    }

    #[test]
    fn short_prompts_must_be_the_same_and_short_responses_never_count() {
        let references = against(&pair("What is 2+2?", "Four.", "Yes."));
        let overlap = |prompt, response| references.overlap(&pair(prompt, response, "other"));
        assert_eq!(overlap("what is 2 + 2", "x"), Some(Overlap::SamePrompt));
        assert_eq!(overlap("What is 2+2? Tell me", "x"), None);
        assert_eq!(overlap("Is it?", "Yes."), None);
        assert_eq!(overlap("", ""), None);
    }

    #[test]
    fn thirteen_words_in_a_row_are_an_overlap_and_twelve_are_not() {
        let references = against(&pair(LONG, &format!("start {LONG} end"), "b"));
        let around = format!("Before: {}! After.", LONG.to_uppercase());
        assert_eq!(references.overlap(&pair(&around, "", "")), Some(Overlap::PromptRun));
        assert_eq!(references.overlap(&pair("q", "", &around)), Some(Overlap::ResponseRun));
        let twelve = LONG.rsplit_once(' ').unwrap().0;
        assert_eq!(references.overlap(&pair(twelve, twelve, twelve)), None);
        let broken = LONG.replace("seven", "7");
        assert_eq!(references.overlap(&pair(&broken, "", "")), None);
    }

    #[test]
    fn shared_system_instructions_are_no_overlap() {
        let with_system = |question: &str| {
            let mut one = pair(question, "a", "b");
            for item in [&mut one.first, &mut one.second] {
                item.prompt.messages.insert(0, Message::text(Role::System, LONG));
            }
            one
        };
        let references = against(&with_system("first question"));
        assert_eq!(references.overlap(&with_system("second question")), None);
        assert_eq!(references.overlap(&with_system("First question!")), Some(Overlap::SamePrompt));
    }

    #[test]
    fn the_report_adds_up() {
        let references = against(&pair("taken", "a", "b"));
        let all = vec![pair("taken", "x", "y"), pair("free", "x", "y"), pair("TAKEN", "z", "y")];
        let (kept, report) = decontaminate(all, &references);
        assert_eq!(kept.len(), 1);
        assert_eq!((report.checked, report.kept), (3, 1));
        assert_eq!(report.removed[&Overlap::SamePrompt], 2);
        assert_eq!(report.examples, ["taken", "TAKEN"]);
        assert!(References::new(0).is_err());
    }

    #[test]
    fn reference_files_of_any_shape() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let questions =
            file("q.jsonl", &format!("{{\"question\": \"{LONG}\", \"n\": [\"Hi you\"]}}\n"));
        let pairs = file("p.jsonl", r#"{"prompt": "In a pair", "chosen": "a", "rejected": "b"}"#);
        let mut references = References::new(DEFAULT_RUN_WORDS).unwrap();
        for path in [&questions, &pairs] {
            references.add_file(path, &ReadOptions::default()).unwrap();
        }
        assert_eq!(references.overlap(&pair(LONG, "", "")), Some(Overlap::PromptRun));
        assert_eq!(references.overlap(&pair("hi, you", "", "")), Some(Overlap::SamePrompt));
        assert_eq!(references.overlap(&pair("in a pair", "", "")), Some(Overlap::SamePrompt));
        assert_eq!(references.overlap(&pair("a", "", "")), None);
        let broken = file("b.jsonl", "{");
        let error = references.add_file(&broken, &ReadOptions::default()).unwrap_err();
        assert!(error.to_string().contains("b.jsonl"), "{error}");
    }
}
