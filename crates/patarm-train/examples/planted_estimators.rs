//! How the score enters the gradient, on a planted preference and a tiny random judge.
//!
//! `cargo run --release -p patarm-train --example planted_estimators -- OUT [SEEDS [KEY=VALUE]…]`
//!
//! Six arms from one cold start a seed: sampled, sampled with the loss on the score's
//! tokens only, and marginal, each with and without division by the group's deviation.
//! A run is a directory `OUT/ARM-sSEED` with its metrics and `held_out.json`;
//! `experiments/summarise.py planted OUT` makes the table.

#[path = "../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::path::{Path, PathBuf};

use patarm_models::Decoder;
use patarm_reward::embedded::{EmbeddedJudge, JudgeSettings, ReadOut};
use patarm_reward::model::RewardModel;
use patarm_reward::observer::Silent;
use patarm_train::grpo::{self, GrpoData};
use patarm_train::judgement_batch::EncodedJudgement;
use patarm_train::rollout::EncodedPair;
use patarm_train::run_directory::{Phase, Resume, write_json};
use patarm_train::{Recipe, sft};
use support::World;

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
steps = 40
pairs = 8
num_judgements = 4
loss = { level = "sequence", kl_estimator = "off" }
replay = { batch = 8, final_share = 0.5 }
optimizer = { learning_rate = 3e-3, warmup_steps = 3, final_share = 0.1 }
[checkpoint]
every = 0
"#;

const ESTIMATORS: [&str; 3] = ["marginal", "sampled", "sampled_score_only"];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let out = PathBuf::from(arguments.next().ok_or("usage: planted_estimators OUT [SEEDS]")?);
    let seeds: u64 = arguments.next().map_or(Ok(10), |count| count.parse())?;
    let changes: Vec<String> = arguments.collect();
    let world = World::with_text(320, 200);
    for seed in 0..seeds {
        let base = [changes.as_slice(), &[format!("seed={seed}")]].concat();
        let cold = cold_start(&world, &out, &base)?;
        for estimator in ESTIMATORS {
            for normalise in [true, false] {
                reinforce(&world, &out, (&cold, &base), (estimator, normalise))?;
            }
        }
    }
    Ok(())
}

fn recipe(changes: &[String]) -> Result<Recipe, String> {
    Recipe::parse(RECIPE, changes)
}

/// Trains the form of a judgement, measures, and gives the folder of the weights.
fn cold_start(world: &World, out: &Path, changes: &[String]) -> Result<PathBuf, Box<dyn Error>> {
    let recipe = recipe(changes)?;
    let seed = recipe.seed;
    let run = out.join(format!("cold-s{seed}"));
    let mut trainer = world.trainer(&recipe, &Silent, (&run, Resume::No), Phase::ColdStart);
    let config = recipe.cold_start.as_ref().ok_or("the recipe has a cold start")?;
    sft::train(&mut trainer, config, &world.records(seed))?;
    write_json(&run.join("held_out.json"), &accuracy(world, &trainer.decoder))?;
    Ok(trainer.save_weights("cold_start")?)
}

fn reinforce(
    world: &World,
    out: &Path,
    (cold, changes): (&Path, &[String]),
    (estimator, normalise): (&str, bool),
) -> Result<(), Box<dyn Error>> {
    let arm = [format!("grpo.estimator={estimator}"), format!("grpo.std_normalise={normalise}")];
    let recipe = recipe(&[changes, &arm].concat())?;
    let seed = recipe.seed;
    let kind = if normalise { "std" } else { "plain" };
    let run = out.join(format!("{estimator}-{kind}-s{seed}"));
    let mut trainer = world.trainer(&recipe, &Silent, (&run, Resume::No), Phase::Grpo);
    trainer.load_weights(cold)?;
    let replay = world
        .records(seed)
        .iter()
        .map(|record| EncodedJudgement::new(record, &world.text))
        .collect::<Result<Vec<_>, _>>()?;
    let encoded = world.comparisons.iter().map(|pair| EncodedPair::new(pair, &world.text));
    let pairs: Vec<EncodedPair> =
        encoded.filter_map(Result::transpose).collect::<Result<_, _>>()?;
    let data = GrpoData { pairs: &pairs, replay: &replay, reference: None };
    let config = recipe.grpo.as_ref().ok_or("the recipe has a reinforcement stage")?;
    grpo::train(&mut trainer, config, &data, &|_, _| f64::NAN)?;
    write_json(&run.join("held_out.json"), &accuracy(world, &trainer.decoder))?;
    Ok(std::fs::remove_dir_all(run.join("checkpoints"))?)
}

/// Share of held-out pairs in the right order by expected score; ties and faults ½.
fn accuracy(world: &World, decoder: &Decoder) -> f64 {
    let settings = JudgeSettings {
        read_out: ReadOut::Expected,
        votes: 1,
        seed: 9,
        temperature: 1.0,
        top_p: 1.0,
        max_tokens: 24,
    };
    let judge = EmbeddedJudge {
        decoder,
        text: &world.text,
        settings,
        observer: &Silent,
        name: "tiny".into(),
    };
    let labelled: Vec<_> =
        world.held_out.iter().filter_map(|pair| pair.chosen_rejected()).collect();
    let items: Vec<_> = labelled
        .iter()
        .flat_map(|(chosen, rejected)| [(*chosen).clone(), (*rejected).clone()])
        .collect();
    let rewards = judge.score(&items);
    let credit = |sides: &[Result<patarm_reward::model::Reward, _>]| match sides {
        [Ok(chosen), Ok(rejected)] if chosen.value > rejected.value => 1.0,
        [Ok(chosen), Ok(rejected)] if chosen.value < rejected.value => 0.0,
        _ => 0.5,
    };
    rewards.chunks(2).map(credit).sum::<f64>() / labelled.len().max(1) as f64
}
