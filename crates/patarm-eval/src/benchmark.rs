//! What a benchmark is, what it is given, and what it leaves behind.
//!
//! A benchmark reads its own data ([`load`]), asks a [`Subject`] what it needs to
//! know, measures by pure functions and returns an [`Evaluation`]: named figures
//! with intervals, one record an item, and the files its leaderboard expects. Most
//! benchmarks score responses against each other and share one course, which
//! [`responses`] holds; others implement [`Benchmark`] themselves. All stand in one
//! table, [`crate::benchmarks::ALL`], from which the command line and the
//! documentation are made.

pub mod accuracy;
pub mod agreement;
pub mod answers;
pub mod bias;
pub mod completions;
#[cfg(test)]
mod coverage;
pub mod item;
pub mod journal;
pub mod load;
pub mod output;
pub mod responses;
pub mod summary;
pub mod tally;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use patarm_reward::{
    completer::Completer,
    embedded::ReadOut,
    model::{PairwiseJudge, PointwiseJudge, RewardModel},
    observer::Observer,
};
use serde_json::Value;

use crate::{Result, interval::Resampling};

pub use completions::Completions;
pub use output::OfficialFile;
pub use summary::{Evaluation, ItemRecord, Metric, Summary};

/// A benchmark as the registry knows it.
pub trait Benchmark: Sync {
    /// Name, data, figures and files.
    fn info(&self) -> &'static Info;

    /// Reads the data, asks the subject and measures.
    ///
    /// # Errors
    /// When the data cannot be read at all, the subject is of a kind this benchmark
    /// cannot ask, or the run was interrupted. Single bad rows and failed answers are
    /// counted in the summary instead.
    fn evaluate(&self, subject: &Subject<'_>, run: &Run<'_>) -> Result<Evaluation>;
}

/// What the command line and the documentation say of a benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Name on the command line.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// What `--data` takes: files, folders and the form of their rows.
    pub data: &'static str,
    /// Data set on the hub, `owner/name`, where there is one.
    pub hub: Option<&'static str>,
    /// What it asks of a model.
    pub asks: Asks,
    /// Figures by name, `<…>` standing for a part's name, with their meaning.
    pub metrics: &'static [(&'static str, &'static str)],
    /// Files beside `summary.json` and `items.jsonl`, with their meaning.
    pub files: &'static [(&'static str, &'static str)],
    /// Figures a terminal shows first.
    pub headline: &'static [&'static str],
}

/// What a benchmark asks of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// A reward of every response, or verdicts on pairs of responses.
    Responses,
    /// A reward of every step of a solution.
    Steps,
    /// A response to every prompt, checked by rules.
    Completions,
    /// Answers of a judge to questions about given responses.
    Questions,
}

/// Who is measured.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    /// Answers computed elsewhere.
    File(&'a Path),
    /// A model that gives every response a number.
    Reward(&'a dyn RewardModel),
    /// A generative judge of single responses.
    Pointwise(Pointwise<'a>),
    /// A generative judge of pairs.
    Pairwise(Pairwise<'a>),
    /// Anything that completes conversations.
    Completer(&'a dyn Completer),
}

/// A generative judge of single responses and how it is read.
#[derive(Clone, Copy)]
pub struct Pointwise<'a> {
    /// The judge.
    pub judge: &'a dyn PointwiseJudge,
    /// Judgements of a response.
    pub votes: usize,
    /// Which number of a judgement counts.
    pub readout: ReadOut,
}

/// A generative judge of pairs and how it is asked.
#[derive(Clone, Copy)]
pub struct Pairwise<'a> {
    /// The judge.
    pub judge: &'a dyn PairwiseJudge,
    /// Judgements of a pair in each order.
    pub votes: usize,
    /// Which orders.
    pub orders: Orders,
}

/// In which orders a pair is shown to a pairwise judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Orders {
    /// Both; verdicts that differ make a tie.
    #[default]
    Both,
    /// Only the order of the data.
    Given,
}

impl Subject<'_> {
    /// The name for reports.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.to_string_lossy().into_owned(),
            Self::Reward(model) => model.name(),
            Self::Pointwise(pointwise) => pointwise.judge.name(),
            Self::Pairwise(pairwise) => pairwise.judge.name(),
            Self::Completer(completer) => completer.name(),
        }
    }

    /// The kind of subject in words, for errors.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "a file of answers",
            Self::Reward(_) => "a reward model",
            Self::Pointwise(_) => "a pointwise judge",
            Self::Pairwise(_) => "a pairwise judge",
            Self::Completer(_) => "a model that completes text",
        }
    }
}

impl std::fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.kind(), self.name())
    }
}

/// What a caller decides about one evaluation.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// Files and folders of the benchmark.
    pub data: &'a [PathBuf],
    /// Use the first so many items.
    pub limit: Option<usize>,
    /// Bootstrap resamples and the seed of everything drawn here.
    pub resampling: Resampling,
    /// Scores of the base model on the same items, for the table of baselines.
    pub base_scores: Option<&'a Path>,
    /// Responses computed elsewhere, for benchmarks that check or judge responses.
    pub responses: Option<&'a Path>,
    /// How responses are generated and read, for the same benchmarks.
    pub completions: Completions<'a>,
    /// Threshold of step scores (see [`crate::steps::threshold::ThresholdRule::parse`]).
    pub threshold: Option<&'a str>,
    /// The resolved configuration, as it stands in the result.
    pub settings: &'a BTreeMap<String, Value>,
    /// Result folder, where official files of an interrupted run may lie.
    pub out: &'a Path,
    /// Who watches, and whether to stop.
    pub observer: &'a dyn Observer,
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("data", &self.data).finish_non_exhaustive()
    }
}
