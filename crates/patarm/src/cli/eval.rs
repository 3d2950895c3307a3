//! `patarm eval`: one form for every benchmark; their names come from the registry.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};

use super::Asking;

/// `patarm eval`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Eval {
    /// What to do with results that are there.
    #[command(subcommand)]
    pub(crate) command: Option<EvalCommand>,
    /// What to measure and how.
    #[command(flatten)]
    pub(crate) measure: Option<Measure>,
}

/// `patarm eval compare`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Compare two result folders on the same items.
    Compare {
        /// First result folder.
        first: PathBuf,
        /// Second result folder.
        second: PathBuf,
    },
}

/// `patarm eval BENCHMARK`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Measure {
    /// The benchmark.
    // The group says that a measurement is asked for: clap leaves the group of a struct
    // empty when another struct is flattened into it.
    #[arg(value_parser = benchmark_names(), group = "Measure")]
    pub(crate) benchmark: String,
    /// Folder, GGUF file, adapter folder, run directory, name, or `openai:BASE_URL#MODEL`.
    #[arg(long, required_unless_present_any = ["scores", "responses"])]
    pub(crate) model: Option<String>,
    /// Answers computed elsewhere, in place of a model.
    #[arg(long, alias = "evaluations", conflicts_with = "model")]
    pub(crate) scores: Option<PathBuf>,
    /// The benchmark's data: files, folders, or `hf:owner/name/file`; several may follow.
    #[arg(long, required = true, num_args = 1..)]
    pub(crate) data: Vec<String>,
    /// Result folder.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Use the first so many items.
    #[arg(long)]
    pub(crate) limit: Option<usize>,
    /// What the model is asked.
    #[arg(long, value_enum, default_value = "pointwise")]
    pub(crate) mode: EvalMode,
    /// Orders in which a pair is shown to a pairwise judge.
    #[arg(long, value_enum, default_value = "both")]
    pub(crate) orders: OrderChoice,
    /// Scores of the base model on the same items, for the table of baselines.
    #[arg(long)]
    pub(crate) base_scores: Option<PathBuf>,
    /// Responses computed elsewhere, where a benchmark checks or judges responses.
    #[arg(long)]
    pub(crate) responses: Option<PathBuf>,
    /// Folder in which answers are kept, so that an interrupted run goes on and a
    /// repeated one costs nothing; `cache` in the result folder by default.
    #[arg(long)]
    pub(crate) cache: Option<PathBuf>,
    /// Folder of NLTK's parameters (`punkt_tab/english`) for rules that count sentences.
    #[arg(long)]
    pub(crate) punkt: Option<PathBuf>,
    /// Step scores above it say that a step is right: a number, or `tune:SHARE` or
    /// `tune:SUBSET` to choose it on problems that are then left out; 0.5 by default.
    #[arg(long)]
    pub(crate) threshold: Option<String>,
    /// How a generative judge is asked.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// Orders in which a pair is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OrderChoice {
    /// Both orders; verdicts that differ make a tie.
    Both,
    /// The order of the data only.
    Given,
}

fn benchmark_names() -> PossibleValuesParser {
    let benchmarks = patarm_eval::benchmarks::ALL.iter().map(|benchmark| benchmark.info());
    let names = benchmarks.map(|info| PossibleValue::new(info.name).help(info.about));
    PossibleValuesParser::new(names)
}

/// What a model is asked in an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EvalMode {
    /// A score of one response.
    Pointwise,
    /// A comparison of two, in both orders.
    Pairwise,
    /// RewardBench 2: the letter of the best response; Ties are rated.
    FourWay,
    /// RewardBench 2: a rating of one response from 1 to 10.
    Ratings,
}
