//! The loop of an energy network on toy records: learning, stopping, resuming, noise.

mod support;

use std::path::Path;
use std::sync::Arc;

use patarm_models::energy::EnergyNet;
use patarm_models::kernels::{Cpu, random};
use patarm_reward::energy::{EmbeddingModel, EnergyConfig, EnergyRewardModel, Record};
use patarm_reward::model::{ItemFault, Measurement, RewardModel};
use patarm_reward::observer::{Observer, Silent};
use patarm_text::{Conversation, Item};
use patarm_train::ebrm::{ENERGY_FILE, EnergyContext, EnergyData, EnergyTrainer};
use patarm_train::run_directory::{Resume, RunDirectory};
use patarm_train::{Error, Recipe};
use support::StopAfter;

const RECIPE: &str = r#"
version = 1
model = "base"
[data]
train = "toy"
[ebrm]
size = { kind = "custom", branch = [8, 8], joint = [16, 16] }
dropout = 0.1
noise = { sigmas = [3.5], beta = 0.1, negatives = 12 }
scaling = { kind = "raw" }
schedule = { epochs = 2, batch = 48, micro_batch_rows = 200 }
optimizer = { learning_rate = 3e-3 }
[checkpoint]
every = 1
"#;

fn recipe(changes: &[&str]) -> Recipe {
    let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
    Recipe::parse(RECIPE, &changes).expect("valid")
}

/// The true reward is e_0; the base also sees some noise of its own.
fn record(n: u64, seed: u64) -> Record {
    let draw = |what: u64| 2.0 * random::uniform(seed, &[what, n]) - 1.0;
    let embedding = vec![draw(0) as f32, draw(1) as f32];
    let reward = f64::from(embedding[0]) + 0.4 * random::normal(seed, &[2, n]);
    Record { embedding, reward }
}

/// Pairs (preferred, other) whose labels follow the truth but for a share.
fn pairs(count: u64, flipped: f64, seed: u64) -> Vec<[Record; 2]> {
    let pair = |n: u64| {
        let (a, b) = (record(2 * n, seed), record(2 * n + 1, seed));
        let is_first = a.embedding[0] > b.embedding[0];
        let is_flipped = random::uniform(seed, &[3, n]) < flipped;
        if is_first == is_flipped { [b, a] } else { [a, b] }
    };
    (0..count).map(pair).collect()
}

fn trainer<'a>(
    recipe: &'a Recipe,
    data: &'a EnergyData,
    observer: &'a dyn Observer,
    (folder, resume): (&Path, Resume),
) -> EnergyTrainer<'a> {
    let config = recipe.ebrm.as_ref().expect("stage");
    let run = RunDirectory::open(folder, recipe, resume, || 0.0).expect("run");
    let context = EnergyContext { recipe, config, data, observer, measure: None };
    let net = EnergyNet::fresh(Arc::new(Cpu::new(1)), config.size.shape(2), recipe.seed);
    let description = EnergyConfig {
        version: EnergyConfig::VERSION,
        base: "base".into(),
        base_head_sha256: String::new(),
        shape: config.size.shape(2),
        scale: data.scale,
        refinement: config.refinement,
        mean: None,
        std: None,
    };
    EnergyTrainer::new(context, net, run, description)
}

fn weights(net: &EnergyNet) -> Vec<Vec<f32>> {
    net.parameters.iter().map(|(_, entry)| entry.value.host().to_vec()).collect()
}

fn data(recipe: &Recipe, pairs: Vec<[Record; 2]>) -> EnergyData {
    EnergyData::new(pairs, recipe.ebrm.as_ref().expect("stage"))
}

#[test]
fn a_run_stopped_anywhere_and_resumed_equals_an_uninterrupted_one() {
    let recipe = recipe(&[]);
    let data = data(&recipe, pairs(60, 0.0, 1));
    let whole = tempfile::tempdir().expect("folder");
    let mut first = trainer(&recipe, &data, &Silent, (whole.path(), Resume::No));
    first.train(Resume::No).expect("trains");
    let expected = weights(&first.net);
    for stop in [1, 3] {
        let folder = tempfile::tempdir().expect("folder");
        let observer = StopAfter { steps: stop, ..StopAfter::default() };
        let mut stopped = trainer(&recipe, &data, &observer, (folder.path(), Resume::No));
        let outcome = stopped.train(Resume::No);
        assert!(matches!(outcome, Err(Error::Interrupted { .. })), "{outcome:?}");
        let mut again = trainer(&recipe, &data, &Silent, (folder.path(), Resume::Yes));
        again.train(Resume::Yes).expect("trains");
        assert!(weights(&again.net) == expected, "differs after {stop}");
        let rows = |folder: &Path| {
            let text = std::fs::read_to_string(folder.join("metrics.jsonl")).expect("metrics");
            text.lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("json"))
                .map(|row| (row["step"].clone(), row["loss"].clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(rows(folder.path()), rows(whole.path()));
    }
    let last = whole.path().join("checkpoints/final");
    let text = std::fs::read_to_string(last.join(ENERGY_FILE)).expect("described");
    let described: EnergyConfig = serde_json::from_str(&text).expect("reads");
    let mut net = EnergyNet::fresh(Arc::new(Cpu::new(1)), described.shape, 9);
    net.load(&last).expect("loads");
    assert!(weights(&net) == expected);
}

#[test]
fn the_portion_does_not_change_the_update() {
    let losses: Vec<(f64, f64)> = ["39", "100000"]
        .map(|rows| {
            let recipe = recipe(&[&format!("ebrm.schedule.micro_batch_rows={rows}")]);
            let data = data(&recipe, pairs(20, 0.0, 1));
            let folder = tempfile::tempdir().expect("folder");
            let mut one = trainer(&recipe, &data, &Silent, (folder.path(), Resume::No));
            one.train(Resume::No).expect("trains");
            let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).expect("rows");
            let row: serde_json::Value =
                serde_json::from_str(text.lines().next().expect("a row")).expect("json");
            let number = |name: &str| row[name].as_f64().expect("number");
            (number("loss"), number("gradient_norm"))
        })
        .to_vec();
    assert!((losses[0].0 - losses[1].0).abs() < 1e-9, "{losses:?}");
    assert!((losses[0].1 / losses[1].1 - 1.0).abs() < 1e-4, "{losses:?}");
}

/// Held-out items whose response is their record's number.
struct Toy;

impl EmbeddingModel for Toy {
    fn embed(&self, items: &[Item]) -> Vec<Result<Record, ItemFault>> {
        let number = |item: &Item| item.response.parse::<u64>().unwrap_or(0);
        items.iter().map(|item| Ok(record(number(item), 77))).collect()
    }

    fn width(&self) -> usize {
        2
    }

    fn name(&self) -> String {
        "toy".into()
    }
}

fn accuracy(rewards: &[f64]) -> f64 {
    let truth = |n: u64| record(n, 77).embedding[0];
    let right = (0..rewards.len() / 2).filter(|pair| {
        let (a, b) = (2 * pair, 2 * pair + 1);
        (rewards[a] > rewards[b]) == (truth(a as u64) > truth(b as u64))
    });
    right.count() as f64 / (rewards.len() / 2) as f64
}

#[test]
fn flipped_labels_do_not_make_refined_rewards_worse_than_the_base() {
    let items: Vec<Item> = (0..400)
        .map(|n| Item { prompt: Conversation::from_user("q"), response: n.to_string() })
        .collect();
    let base: Vec<f64> = (0..400).map(|n| record(n, 77).reward).collect();
    let base = accuracy(&base);
    let mut refined = Vec::new();
    for seed in 0..5 {
        let recipe = recipe(&[
            &format!("seed={seed}"),
            "ebrm.schedule.epochs=30",
            "ebrm.refinement.max_steps=100",
            "ebrm.refinement.decay=0.5",
            "ebrm.dropout=0.0",
            "checkpoint.every=0",
        ]);
        let data = data(&recipe, pairs(300, 0.25, 100 + seed));
        assert!(data.num_kept < data.num_pairs, "some pairs are in conflict");
        assert_eq!(data.records.len(), 2 * data.num_kept);
        let folder = tempfile::tempdir().expect("folder");
        let mut one = trainer(&recipe, &data, &Silent, (folder.path(), Resume::No));
        one.train(Resume::No).expect("trains");
        let model = EnergyRewardModel {
            base: &Toy,
            net: &one.net,
            config: &one.description,
            name: "refined".into(),
        };
        let rewards: Vec<f64> =
            model.score(&items).into_iter().map(|reward| reward.expect("scored").value).collect();
        refined.push(accuracy(&rewards));
    }
    let mean = refined.iter().sum::<f64>() / refined.len() as f64;
    assert!(base > 0.6 && mean >= base - 0.01, "base {base}, refined {refined:?}");
}

#[test]
fn measurements_reach_the_description_and_hopeless_data_are_refused() {
    let recipe = recipe(&["evaluation.every=1"]);
    let data = data(&recipe, pairs(30, 0.0, 1));
    let folder = tempfile::tempdir().expect("folder");
    let measure = |_: &EnergyNet| {
        let with = |accuracy| Measurement {
            accuracy,
            mean: Some(0.5),
            deviation: Some(2.0),
            ..Measurement::default()
        };
        (with(0.75), with(0.5))
    };
    let config = recipe.ebrm.as_ref().expect("stage");
    let one = trainer(&recipe, &data, &Silent, (folder.path(), Resume::No));
    let description = one.description.clone();
    let context = EnergyContext {
        recipe: &recipe,
        config,
        data: &data,
        observer: &Silent,
        measure: Some(&measure),
    };
    let mut measured = EnergyTrainer::new(context, one.net, one.run, description);
    measured.train(Resume::No).expect("trains");
    assert_eq!((measured.description.mean, measured.description.std), (Some(0.5), Some(2.0)));
    let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).expect("metrics");
    assert!(text.contains("\"held_out_accuracy\":0.75") && text.contains("\"base_accuracy\":0.5"));

    let all_wrong = pairs(30, 1.0, 1).into_iter().filter(|[a, b]| a.reward <= b.reward).collect();
    let data = self::data(&recipe, all_wrong);
    let folder = tempfile::tempdir().expect("folder");
    let mut none = trainer(&recipe, &data, &Silent, (folder.path(), Resume::No));
    let message = none.train(Resume::No).expect_err("nothing to learn").to_string();
    assert!(message.contains("no pair is left"), "{message}");
}

#[test]
fn impossible_tables_are_refused() {
    for change in [
        "ebrm.noise.negatives=0",
        "ebrm.noise.sigmas=[]",
        "ebrm.dropout=1.0",
        "ebrm.size={ kind = \"huge\" }",
        "ebrm.refinement.decay=1.5",
        "ebrm.schedule.batch=0",
        "parameters.freeze_below=3",
        "bradley_terry.schedule.steps=3",
    ] {
        assert!(Recipe::parse(RECIPE, &[change.into()]).is_err(), "{change}");
    }
    assert!(Recipe::parse(RECIPE, &["ebrm.size={ kind = \"large\" }".into()]).is_ok());
}
