//! A tiny judge and a planted preference, for tests of the loops.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use patarm_models::files::ModelConfig;
use patarm_models::kernels::{Cpu, random};
use patarm_models::{AdamWConfig, Decoder, DecoderShape};
use patarm_reward::cold_start::{self, ColdStartRecord};
use patarm_reward::embedded::{JudgeText, Terminator};
use patarm_reward::observer::{Observer, Silent};
use patarm_reward::template::{JudgeTemplate, RubricMode};
use patarm_text::tokenizer::Tokenizer;
use patarm_text::{Comparison, Conversation, Item, Preference, Task};
use patarm_train::Recipe;
use patarm_train::discriminative::{self, Objective, Schedule};
use patarm_train::run_directory::{Phase, Resume, RunDirectory};
use patarm_train::trainer::{Trainer, TrainerContext};

/// Stops after so many steps.
#[derive(Debug, Default)]
pub struct StopAfter {
    pub steps: u64,
    pub seen: AtomicU64,
}

impl Observer for StopAfter {
    fn begin(&self, _what: &str, _total: u64) {}

    fn advance(&self, _done: u64, _note: &str) {
        self.seen.fetch_add(1, Ordering::SeqCst);
    }

    fn end(&self) {}

    fn is_interrupted(&self) -> bool {
        self.steps > 0 && self.seen.load(Ordering::SeqCst) >= self.steps
    }
}

/// Everything a tiny run needs.
pub struct World {
    pub config: ModelConfig,
    pub text: JudgeText,
    pub comparisons: Vec<Comparison>,
    pub held_out: Vec<Comparison>,
}

pub fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

impl World {
    /// Judgements that are a score and nothing else.
    pub fn new() -> Self {
        Self::with_mode(RubricMode::Primary, 48, 24)
    }

    /// Judgements with a few letters before their score, which mean nothing.
    pub fn with_text(num_train: usize, num_held_out: usize) -> Self {
        Self::with_mode(RubricMode::Generated, num_train, num_held_out)
    }

    fn with_mode(mode: RubricMode, num_train: usize, num_held_out: usize) -> Self {
        let tokenizer =
            Arc::new(Tokenizer::from_file(&testdata("text/tokenizer.json")).expect("tokenizer"));
        let template = Arc::new(JudgeTemplate::from_toml(TEMPLATE, "tiny").expect("template"));
        let text = JudgeText::new(tokenizer, template, mode, Terminator::FirstToken).expect("text");
        let mut config =
            ModelConfig::read(&testdata("models/tiny-llama/config.json")).expect("config");
        config.vocab_size = text.tokenizer().vocab_size().max(370);
        Self {
            config,
            text,
            comparisons: planted(num_train, 0),
            held_out: planted(num_held_out, 1_000_000),
        }
    }

    pub fn decoder(&self, seed: u64) -> Decoder {
        let mut shape = DecoderShape::from_config(&self.config);
        shape.max_positions = 2048;
        Decoder::random(Arc::new(Cpu::new(1)), shape, seed)
    }

    /// Judgements drawn without looking at labels.
    pub fn records(&self, seed: u64) -> Vec<ColdStartRecord> {
        let items = self.comparisons.iter().flat_map(|pair| [&pair.first, &pair.second]);
        let letters = |index: usize| -> String {
            let letter =
                |place: u64| ["a", "b", "c", "d"][random::below(4, seed, &[index as u64, place])];
            (1..=6).map(letter).collect::<Vec<_>>().join(" ")
        };
        let judgement = |index: usize| {
            let score = 1 + random::below(5, seed, &[index as u64]);
            match self.text.format().tags.rubrics.is_empty() {
                true => format!("<s>{score}</s>"),
                false => format!("<r>{}</r><s>{score}</s>", letters(index)),
            }
        };
        let record = |(index, item): (usize, &Item)| ColdStartRecord {
            version: cold_start::RECORD_VERSION,
            item: item.clone(),
            task: Task::Chat,
            judgement: judgement(index),
        };
        items.enumerate().map(record).collect()
    }

    pub fn trainer<'a>(
        &'a self,
        recipe: &'a Recipe,
        observer: &'a dyn Observer,
        (folder, resume): (&Path, Resume),
        phase: Phase,
    ) -> Trainer<'a> {
        let run = RunDirectory::open(folder, recipe, resume, || 0.0).expect("run directory");
        let context = TrainerContext {
            recipe,
            config: &self.config,
            base: "tiny",
            text: &self.text,
            observer,
            evaluator: None,
            companions: &|_| Ok(()),
        };
        Trainer::new(context, self.decoder(recipe.seed), run, phase)
    }
}

/// The chosen response says one word, the rejected another.
pub fn planted(count: usize, first: usize) -> Vec<Comparison> {
    let pair = |index: usize| {
        let prompt = Conversation::from_user(format!("q{}", first + index));
        let item = |word: &str| Item {
            prompt: prompt.clone(),
            response: format!("{word} {}", random::below(9, 5, &[index as u64])),
        };
        let comparison = Comparison {
            id: format!("p{}", first + index),
            first: item("yes"),
            second: item("no"),
            label: Preference::First,
            strength: None,
            task: Some(Task::Chat),
            subset: None,
        };
        if index.is_multiple_of(2) { comparison } else { comparison.swap() }
    };
    (0..count).map(pair).collect()
}

const TEMPLATE: &str = r#"
version = 1
name = "tiny"
about = "for tests"
max_judgement_tokens = 16
cold_start = "short"

[scale]
min = 1.0
max = 5.0
kind = "integer"

[tags]
think = "think"
rubrics = "r"
evaluation = ""
score = "s"
verdict = "v"

[primary]
chat = "use"
code = "use"
math = "use"
safety = "use"
instruction_following = "use"

[modes.primary]
rubric = ""
pointwise = ""
pairwise = ""

[modes.generated]
rubric = ""
pointwise = ""
pairwise = ""

[modes.both]
rubric = ""
pointwise = ""
pairwise = ""

[layouts]
pointwise = """
{{prompt}}
{{response}}
"""
pairwise = """
{{prompt}}
{{response_a}}
{{response_b}}
"""
"#;

/// Trains without saving; returns the decoder and the metrics, a line an update.
pub fn fit_objective(
    objective: &dyn Objective,
    (config, decoder): (&ModelConfig, Decoder),
    (schedule, learning_rate): (Schedule, f64),
) -> (Decoder, String) {
    let recipe =
        "version = 1\nmodel = \"tiny\"\n[data]\ntrain = \"planted\"\n[checkpoint]\nevery = 0\n";
    let recipe = Recipe::parse(recipe, &[]).expect("valid");
    let folder = tempfile::tempdir().expect("folder");
    let run = RunDirectory::open(folder.path(), &recipe, Resume::No, || 0.0).expect("run");
    let context = TrainerContext {
        recipe: &recipe,
        config,
        base: "tiny",
        text: &(),
        observer: &Silent,
        evaluator: None,
        companions: &|_| Ok(()),
    };
    let mut trainer = Trainer::new(context, decoder, run, objective.phase());
    let optimizer = AdamWConfig { learning_rate, ..AdamWConfig::default() };
    discriminative::train(&mut trainer, (&schedule, &optimizer), objective).expect("trains");
    let metrics = std::fs::read_to_string(folder.path().join("metrics.jsonl")).expect("metrics");
    (trainer.decoder, metrics)
}
