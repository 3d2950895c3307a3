//! What both questions share: the pairs, the recipe, the stages, the measurement.

use std::error::Error;
use std::path::{Path, PathBuf};

use patarm_models::Decoder;
use patarm_reward::cold_start::ColdStartRecord;
use patarm_reward::embedded::{EmbeddedJudge, JudgeSettings, ReadOut};
use patarm_reward::model::{ItemFault, Reward, RewardModel};
use patarm_reward::observer::Silent;
use patarm_train::grpo::{self, GrpoData};
use patarm_train::judgement_batch::EncodedJudgement;
use patarm_train::rollout::EncodedPair;
use patarm_train::run_directory::{Phase, Resume, write_json};
use patarm_train::{Recipe, sft};
use serde::Serialize;

use crate::support::World;

const RECIPE: &str = r#"
version = 1
model = "tiny"
[data]
train = "planted"
[judge]
template = "tiny"
max_judgement_tokens = 24
[cold_start]
steps = 150
batch = 32
source = { kind = "label_free" }
optimizer = { learning_rate = 6e-3, warmup_steps = 5, final_share = 0.1 }
[grpo]
steps = 80
pairs = 8
num_judgements = 4
estimator = "marginal"
std_normalise = false
loss = { level = "sequence", kl_estimator = "off" }
replay = { batch = 8, final_share = 0.5 }
optimizer = { learning_rate = 1e-2, warmup_steps = 3, final_share = 0.1 }
[checkpoint]
every = 0
"#;

const NUM_TRAIN: usize = 320;
const NUM_HELD_OUT: usize = 200;

/// Everything that is the same in every run.
pub(crate) struct Setting {
    pub(crate) world: World,
    out: PathBuf,
    changes: Vec<String>,
}

/// Share of held-out pairs in the right order; ties and faults count one half.
#[derive(Clone, Copy, Debug, Serialize)]
struct HeldOut {
    /// By the expectation of the score after one judgement's text.
    expected: f64,
    /// By one sampled score a response.
    sampled: f64,
    /// Mean difference of the expected scores, chosen less rejected.
    margin: f64,
}

impl Setting {
    pub(crate) fn new(out: PathBuf, changes: Vec<String>) -> Self {
        Self { world: World::with_text(NUM_TRAIN, NUM_HELD_OUT), out, changes }
    }

    fn recipe(&self, seed: u64, changes: &[String]) -> Result<Recipe, String> {
        let all = [&self.changes, changes, &[format!("seed={seed}")]].concat();
        Recipe::parse(RECIPE, &all)
    }

    fn run_folder(&self, name: &str, seed: u64) -> PathBuf {
        self.out.join(format!("{name}-s{seed}"))
    }

    /// Fine-tunes a fresh judge on judgements; gives the folder of its weights.
    pub(crate) fn fine_tune(
        &self,
        (name, seed): (&str, u64),
        records: &[ColdStartRecord],
    ) -> Result<PathBuf, Box<dyn Error>> {
        let recipe = self.recipe(seed, &[])?;
        let run = self.run_folder(name, seed);
        let mut trainer =
            self.world.trainer(&recipe, &Silent, (&run, Resume::No), Phase::ColdStart);
        let config = recipe.cold_start.as_ref().ok_or("the recipe has a cold start")?;
        sft::train(&mut trainer, config, records)?;
        self.measure(&run, &trainer.decoder)?;
        Ok(trainer.save_weights("cold_start")?)
    }

    /// Reinforces the judge of `start`, replaying `records`.
    pub(crate) fn reinforce(
        &self,
        (name, seed): (&str, u64),
        (start, records): (&Path, &[ColdStartRecord]),
        changes: &[String],
    ) -> Result<(), Box<dyn Error>> {
        let (world, recipe) = (&self.world, self.recipe(seed, changes)?);
        let run = self.run_folder(name, seed);
        let mut trainer = world.trainer(&recipe, &Silent, (&run, Resume::No), Phase::Grpo);
        trainer.load_weights(start)?;
        let replay = records
            .iter()
            .map(|record| EncodedJudgement::new(record, &world.text))
            .collect::<Result<Vec<_>, _>>()?;
        let encoded = world.comparisons.iter().map(|pair| EncodedPair::new(pair, &world.text));
        let pairs = encoded.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()?;
        let data = GrpoData { pairs: &pairs, replay: &replay, reference: None };
        let config = recipe.grpo.as_ref().ok_or("the recipe has a reinforcement stage")?;
        grpo::train(&mut trainer, config, &data, &|_, _| f64::NAN)?;
        self.measure(&run, &trainer.decoder)?;
        Ok(std::fs::remove_dir_all(run.join("checkpoints"))?)
    }

    fn measure(&self, run: &Path, decoder: &Decoder) -> Result<(), Box<dyn Error>> {
        let (expected, margin) = self.accuracy(decoder, ReadOut::Expected);
        let (sampled, _) = self.accuracy(decoder, ReadOut::Sampled);
        Ok(write_json(&run.join("held_out.json"), &HeldOut { expected, sampled, margin })?)
    }

    /// Accuracy and mean margin.
    fn accuracy(&self, decoder: &Decoder, read_out: ReadOut) -> (f64, f64) {
        let settings = JudgeSettings {
            read_out,
            votes: 1,
            seed: 9,
            temperature: 1.0,
            top_p: 1.0,
            max_tokens: 24,
        };
        let text = &self.world.text;
        let judge =
            EmbeddedJudge { decoder, text, settings, observer: &Silent, name: "tiny".into() };
        let labelled = self.world.held_out.iter().filter_map(|pair| pair.chosen_rejected());
        let items: Vec<_> =
            labelled.flat_map(|(chosen, rejected)| [chosen.clone(), rejected.clone()]).collect();
        let rewards = judge.score(&items);
        let margins: Vec<f64> = rewards.chunks(2).map(margin).collect();
        let credit = |margin: &f64| if *margin == 0.0 { 0.5 } else { f64::from(*margin > 0.0) };
        let mean = |sum: f64| sum / margins.len().max(1) as f64;
        (mean(margins.iter().map(credit).sum()), mean(margins.iter().sum()))
    }
}

/// Chosen less rejected; 0 when a side has no score.
fn margin(sides: &[Result<Reward, ItemFault>]) -> f64 {
    match sides {
        [Ok(chosen), Ok(rejected)] => chosen.value - rejected.value,
        _ => 0.0,
    }
}
