//! `patarm data steps`, `step-labels`, `step-targets` and `step-quality`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::JudgeOptions;

/// Where solutions come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StepSource {
    /// PRMBench: every step labelled.
    Prmbench,
    /// ProcessBench: the first wrong step.
    Processbench,
    /// BIG-Bench-Mistake: the first mistake.
    BigbenchMistake,
    /// Pairs of a right and a wrong solution (`prompt` or `instruction`, `chosen`,
    /// `rejected`): what their ends say of their steps.
    Pairs,
    /// Rows of `prompt`, `steps` or `response`, `labels`; TRL's stepwise rows.
    Solutions,
}

/// How a response is cut into steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StepCut {
    /// At empty lines.
    BlankLines,
    /// At line breaks.
    Lines,
    /// Before lines that announce a step.
    Markers,
    /// At the ends of sentences.
    Sentences,
}

/// `patarm data steps`.
#[derive(Clone, Debug, Args)]
pub(crate) struct StepData {
    /// Files or folders.
    #[arg(required = true, num_args = 1..)]
    pub(crate) sources: Vec<PathBuf>,
    /// What they are.
    #[arg(long, value_enum)]
    pub(crate) from: StepSource,
    /// Output file: rows of `id`, `prompt`, `steps`, `labels`.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// How responses are cut, where the data is not in steps.
    #[arg(long, value_enum, default_value = "lines")]
    pub(crate) cut: StepCut,
    /// At most this many solutions.
    #[arg(long)]
    pub(crate) limit: Option<usize>,
}

/// `patarm data step-targets`.
#[derive(Clone, Debug, Args)]
pub(crate) struct StepTargets {
    /// Rows of `prompt`, `steps` (the thinking), `response`, and perhaps `labels`: the
    /// quality of each step as a judge sees it.
    pub(crate) traces: PathBuf,
    /// The model whose hidden states are the embedding of a text.
    #[arg(long)]
    pub(crate) encoder: String,
    /// Output file: the same rows, the targets as labels.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// How responses are cut.
    #[arg(long, value_enum, default_value = "blank-lines")]
    pub(crate) cut: StepCut,
    /// Compare steps with the response's step of the same index, not with the most
    /// similar one.
    #[arg(long)]
    pub(crate) by_index: bool,
    /// Steps of other traces that a successor is compared with.
    #[arg(long, default_value_t = 16)]
    pub(crate) unrelated: usize,
    /// Temperature of coherence.
    #[arg(long, default_value_t = 0.1)]
    pub(crate) temperature: f64,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

/// `patarm data step-quality`.
#[derive(Clone, Debug, Args)]
pub(crate) struct StepQuality {
    /// Rows of `prompt`, `steps` (the thinking) and `response`; steps with labels keep them.
    pub(crate) traces: PathBuf,
    /// Who judges: a judge here or `openai:BASE_URL#MODEL`, or any reward model.
    #[command(flatten)]
    pub(crate) judge: JudgeOptions,
    /// The lowest and the highest score, which become 0 and 1.
    #[arg(long, num_args = 2, value_names = ["LOW", "HIGH"], default_values_t = [1.0, 10.0])]
    pub(crate) scale: Vec<f64>,
    /// Output file: the same rows, with the quality of each step as its label.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// What the share of right completions becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StepEstimate {
    /// The share.
    Soft,
    /// 1 where any is right.
    Hard,
}

/// `patarm data step-labels`.
#[derive(Clone, Debug, Args)]
pub(crate) struct StepLabels {
    /// Rows of `prompt`, `steps` or `response`, and `reference`, the right answer.
    pub(crate) solutions: PathBuf,
    /// Who completes: a model here, or `openai:BASE_URL#MODEL`.
    #[arg(long)]
    pub(crate) model: String,
    /// Output file; the same command goes on where an interrupted run stopped.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Completions a step.
    #[arg(long, default_value_t = 8)]
    pub(crate) samples: usize,
    /// What the share of right completions becomes.
    #[arg(long, value_enum, default_value = "soft")]
    pub(crate) estimate: StepEstimate,
    /// How responses are cut, where the data is not in steps.
    #[arg(long, value_enum, default_value = "lines")]
    pub(crate) cut: StepCut,
    /// Longest completion in tokens.
    #[arg(long, default_value_t = 256)]
    pub(crate) max_tokens: usize,
    /// Sampling temperature.
    #[arg(long, default_value_t = 0.7)]
    pub(crate) temperature: f64,
    /// Seed of every completion.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Requests in flight to a remote engine.
    #[arg(long, default_value_t = 8)]
    pub(crate) concurrency: usize,
    /// At most this many solutions.
    #[arg(long)]
    pub(crate) limit: Option<usize>,
}
