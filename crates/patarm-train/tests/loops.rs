//! The loops end to end on a tiny model: learning, and resuming.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use patarm_models::Decoder;
use patarm_reward::embedded::{EmbeddedJudge, JudgeSettings, ReadOut};
use patarm_reward::model::RewardModel;
use patarm_reward::observer::Silent;
use patarm_text::Comparison;
use patarm_train::grpo::{self, GrpoData};
use patarm_train::judgement_batch::EncodedJudgement;
use patarm_train::rollout::EncodedPair;
use patarm_train::run_directory::{Phase, Resume};
use patarm_train::trainer::Trainer;
use patarm_train::{Error, Recipe, sft};
use support::{StopAfter, World};

fn recipe(changes: &[&str]) -> Recipe {
    let text = r#"
version = 1
model = "tiny"
[data]
train = "planted"
[judge]
template = "tiny"
max_judgement_tokens = 16
[cold_start]
steps = 4
batch = 8
source = { kind = "label_free" }
optimizer = { learning_rate = 4e-3 }
[grpo]
steps = 4
pairs = 6
num_judgements = 2
estimator = "marginal"
loss = { level = "sequence", kl_estimator = "off" }
replay = { batch = 4 }
optimizer = { learning_rate = 2e-3 }
[checkpoint]
every = 1
keep = 2
"#;
    let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
    Recipe::parse(text, &changes).expect("valid recipe")
}

fn run_stages(world: &World, trainer: &mut Trainer<'_>) -> Result<(), Error> {
    run_stages_with(world, trainer, None)
}

fn run_stages_with(
    world: &World,
    trainer: &mut Trainer<'_>,
    reference: Option<&Decoder>,
) -> Result<(), Error> {
    let recipe = trainer.context.recipe;
    let records = world.records(recipe.seed);
    if let (Some(config), Phase::ColdStart) = (&recipe.cold_start, trainer.position.phase) {
        sft::train(trainer, config, &records)?;
        trainer.enter(Phase::Grpo);
    }
    let replay: Vec<EncodedJudgement> = records
        .iter()
        .map(|record| EncodedJudgement::new(record, &world.text).expect("encodes"))
        .collect();
    let encode =
        |comparison: &Comparison| EncodedPair::new(comparison, &world.text).expect("encodes");
    let pairs: Vec<EncodedPair> = world.comparisons.iter().filter_map(encode).collect();
    let data = GrpoData { pairs: &pairs, replay: &replay, reference };
    match &recipe.grpo {
        Some(config) => grpo::train(trainer, config, &data, &|_, _| f64::NAN),
        None => Ok(()),
    }
}

fn weights(decoder: &Decoder) -> Vec<Vec<f32>> {
    decoder.parameters.iter().map(|(_, parameter)| parameter.value.host().to_vec()).collect()
}

/// Metrics without what depends on the clock or the machine.
fn metrics(folder: &Path) -> Vec<BTreeMap<String, serde_json::Value>> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).expect("metrics");
    let row = |line: &str| {
        let mut row: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(line).expect("json");
        row.retain(|name, _| {
            !name.ends_with("_per_s") && !name.ends_with("seconds") && !name.contains("memory")
        });
        row
    };
    text.lines().map(row).collect()
}

#[test]
fn a_run_stopped_anywhere_and_resumed_equals_an_uninterrupted_one() {
    for change in ["grpo.estimator=marginal", "grpo.estimator=sampled"] {
        let world = World::new();
        let recipe = recipe(&[change, "grpo.inner_steps=2"]);
        let whole = tempfile::tempdir().expect("folder");
        let mut trainer =
            world.trainer(&recipe, &Silent, (whole.path(), Resume::No), Phase::ColdStart);
        run_stages(&world, &mut trainer).expect("trains");
        let expected = weights(&trainer.decoder);

        for stop in [2, 6] {
            let folder = tempfile::tempdir().expect("folder");
            let observer = StopAfter { steps: stop, ..StopAfter::default() };
            let mut first =
                world.trainer(&recipe, &observer, (folder.path(), Resume::No), Phase::ColdStart);
            let outcome = run_stages(&world, &mut first);
            assert!(matches!(outcome, Err(Error::Interrupted { .. })), "{outcome:?}");
            drop(first);
            let mut second =
                world.trainer(&recipe, &Silent, (folder.path(), Resume::Yes), Phase::ColdStart);
            second.resume().expect("resumes");
            assert!(second.position.step > 0, "the checkpoint was found");
            run_stages(&world, &mut second).expect("trains");
            assert!(
                weights(&second.decoder) == expected,
                "{change}: weights differ after a stop at {stop}"
            );
            assert_eq!(metrics(folder.path()), metrics(whole.path()), "{change}");
        }
    }
}

#[test]
fn a_checkpoint_cut_short_is_ignored() {
    let world = World::new();
    let recipe = recipe(&["cold_start.steps=2"]);
    let folder = tempfile::tempdir().expect("folder");
    let observer = StopAfter { steps: 1, ..StopAfter::default() };
    let mut trainer =
        world.trainer(&recipe, &observer, (folder.path(), Resume::No), Phase::ColdStart);
    assert!(run_stages(&world, &mut trainer).is_err());
    // What a kill during the next save leaves behind.
    let partial = folder.path().join("checkpoints/.partial-cold_start-step-2");
    std::fs::create_dir_all(&partial).expect("folder");
    std::fs::write(partial.join("optimizer.safetensors"), b"half").expect("file");
    std::fs::write(partial.join("trainer.json"), b"{").expect("file");
    let mut again = world.trainer(&recipe, &Silent, (folder.path(), Resume::Yes), Phase::ColdStart);
    again.resume().expect("resumes from the whole checkpoint");
    assert_eq!(again.position.step, 1);
}

/// Accuracy with expected scores, ties one half, and the mean margin.
fn accuracy(world: &World, decoder: &Decoder) -> (f64, f64) {
    let settings = JudgeSettings {
        read_out: ReadOut::Expected,
        votes: 1,
        seed: 9,
        temperature: 1.0,
        top_p: 1.0,
        max_tokens: 16,
    };
    let judge = EmbeddedJudge {
        decoder,
        text: &world.text,
        settings,
        observer: &Silent,
        name: "tiny".into(),
    };
    let (mut credit, mut margin) = (0.0, 0.0);
    for pair in &world.held_out {
        let (chosen, rejected) = pair.chosen_rejected().expect("labelled");
        let rewards = judge.score(&[chosen.clone(), rejected.clone()]);
        match (&rewards[0], &rewards[1]) {
            (Ok(chosen), Ok(rejected)) => {
                margin += chosen.value - rejected.value;
                credit += if chosen.value > rejected.value { 1.0 } else { 0.0 };
            }
            _ => credit += 0.5,
        }
    }
    (credit / world.held_out.len() as f64, margin / world.held_out.len() as f64)
}

#[test]
fn the_reward_alone_finds_a_planted_preference() {
    let world = World::new();
    let recipe = recipe(&[
        "cold_start.steps=60",
        "cold_start.batch=32",
        "grpo.steps=60",
        "grpo.optimizer.learning_rate=1e-2",
        "checkpoint.every=0",
    ]);
    let folder = tempfile::tempdir().expect("folder");
    let mut trainer =
        world.trainer(&recipe, &Silent, (folder.path(), Resume::No), Phase::ColdStart);
    let config = recipe.cold_start.as_ref().expect("stage");
    sft::train(&mut trainer, config, &world.records(0)).expect("trains");
    let (before, margin_before) = accuracy(&world, &trainer.decoder);
    assert!(
        margin_before.abs() < 0.1,
        "the cold start carries no label: accuracy {before}, margin {margin_before}"
    );
    trainer.enter(Phase::Grpo);
    run_stages(&world, &mut trainer).expect("trains");
    let (after, margin) = accuracy(&world, &trainer.decoder);
    assert!(
        after >= 0.9 && margin > 0.5,
        "accuracy {before} -> {after}, margin {margin_before} -> {margin}"
    );
    let faults =
        metrics(folder.path()).pop().expect("rows")["format_fault_rate"].as_f64().expect("number");
    assert!(faults < 0.2, "format faults {faults}");
}

/// One number of every row that has it, in order.
fn series(folder: &Path, name: &str) -> Vec<f64> {
    metrics(folder).iter().filter_map(|row| row.get(name)?.as_f64()).collect()
}

/// The replay pulls the policy away from where it started; the KL term pulls back.
#[test]
fn a_kl_term_holds_the_policy_near_its_reference() {
    let kl_under = |coefficient: &str| {
        let world = World::new();
        let weight = format!("grpo.loss.kl_coefficient={coefficient}");
        let changes = ["grpo.loss.kl_estimator=k3", &weight, "grpo.steps=8", "checkpoint.every=0"];
        let recipe = recipe(&changes);
        let folder = tempfile::tempdir().expect("folder");
        let mut trainer = world.trainer(&recipe, &Silent, (folder.path(), Resume::No), Phase::Grpo);
        let reference = world.decoder(recipe.seed);
        run_stages_with(&world, &mut trainer, Some(&reference)).expect("trains");
        series(folder.path(), "kl")
    };
    let (free, held) = (kl_under("1e-9"), kl_under("20.0"));
    assert!(free[0] == 0.0 && held[0] == 0.0, "the policy starts at its reference");
    let (free, held) = (free[7], held[7]);
    assert!(free > 1e-3 && held < 0.5 * free, "KL {free} without, {held} with the term");
}

#[test]
fn a_kl_term_without_its_reference_is_refused() {
    let world = World::new();
    let recipe = recipe(&["grpo.loss.kl_estimator=k3", "grpo.loss.kl_coefficient=0.1"]);
    let folder = tempfile::tempdir().expect("folder");
    let mut trainer = world.trainer(&recipe, &Silent, (folder.path(), Resume::No), Phase::Grpo);
    let refused = run_stages(&world, &mut trainer);
    assert!(matches!(refused, Err(Error::Data(_))), "{refused:?}");
}

/// Dynamic sampling replaces pairs in which neither side has signal.
#[test]
fn dynamic_sampling_fills_updates_with_pairs_that_have_signal() {
    let run = |max_resamples: &str| {
        let world = World::new();
        let resamples = format!("grpo.dynamic_sampling.max_resamples={max_resamples}");
        let changes =
            ["grpo.estimator=sampled", "cold_start.steps=40", "checkpoint.every=0", &resamples];
        let recipe = recipe(&changes);
        let folder = tempfile::tempdir().expect("folder");
        let mut trainer =
            world.trainer(&recipe, &Silent, (folder.path(), Resume::No), Phase::ColdStart);
        run_stages(&world, &mut trainer).expect("trains");
        let dead: Vec<f64> = ["all_wrong", "one_grade", "all_format"]
            .map(|cause| series(folder.path(), &format!("zero_variance_{cause}")))
            .into_iter()
            .reduce(|sums, shares| sums.iter().zip(&shares).map(|(a, b)| a + b).collect())
            .expect("three causes");
        (trainer.position.draws, dead)
    };
    let (draws, without) = run("0");
    assert_eq!(draws, 4, "one batch an update");
    assert!(without.iter().any(|share| *share > 0.5), "dead pairs are there: {without:?}");
    let (draws, with) = run("5");
    assert!(draws > 4 && draws <= 24, "{draws} batches");
    // A kept pair has at most one dead side.
    assert!(with.iter().all(|share| *share <= 0.5), "{with:?}");
}
