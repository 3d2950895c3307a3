//! Loops of discriminative reward models on a tiny decoder: learning, and resuming.

mod support;

use std::path::Path;
use std::sync::Arc;

use patarm_eval_free::Pairs;
use patarm_models::files::{ModelConfig, RewardConfig, RewardFamily};
use patarm_models::kernels::Cpu;
use patarm_models::{Decoder, DecoderShape, HeadInit, LinearHead, ScalarHead};
use patarm_reward::observer::{Observer, Silent};
use patarm_reward::scalar::ScalarText;
use patarm_text::Item;
use patarm_text::tokenizer::Tokenizer;
use patarm_train::bradley_terry::BradleyTerry;
use patarm_train::reward_pairs::EncodedRewardPair;
use patarm_train::run_directory::{Phase, Resume, RunDirectory};
use patarm_train::trainer::{Trainer, TrainerContext};
use patarm_train::{Error, Recipe, discriminative};
use support::{StopAfter, planted, testdata};

/// An evaluator without the evaluation crate, which stands beside this one.
mod patarm_eval_free {
    use patarm_reward::model::{Evaluator, Measurement, RewardModel};
    use patarm_text::Comparison;

    pub(super) struct Pairs(pub(super) Vec<Comparison>);

    impl Evaluator for Pairs {
        fn evaluate(&self, model: &dyn RewardModel) -> f64 {
            let credit = |pair: &Comparison| {
                let (chosen, rejected) = pair.chosen_rejected().expect("labelled");
                let rewards = model.score(&[chosen.clone(), rejected.clone()]);
                match (&rewards[0], &rewards[1]) {
                    (Ok(chosen), Ok(rejected)) if chosen.value > rejected.value => 1.0,
                    (Ok(chosen), Ok(rejected)) if chosen.value < rejected.value => 0.0,
                    _ => 0.5,
                }
            };
            self.0.iter().map(credit).sum::<f64>() / self.0.len() as f64
        }

        fn measure(&self, model: &dyn RewardModel) -> Measurement {
            Measurement {
                accuracy: self.evaluate(model),
                mean: Some(0.5),
                deviation: Some(2.0),
                ..Measurement::default()
            }
        }

        fn comparisons(&self) -> &[Comparison] {
            &self.0
        }
    }
}

struct World {
    config: ModelConfig,
    text: ScalarText,
    pairs: Vec<EncodedRewardPair>,
    held_out: Pairs,
}

impl World {
    fn new() -> Self {
        let tokenizer = Tokenizer::from_file(&testdata("text/tokenizer.json")).expect("tokenizer");
        let text = ScalarText::new(Arc::new(tokenizer)).expect("text");
        let mut config =
            ModelConfig::read(&testdata("models/tiny-llama/config.json")).expect("config");
        config.vocab_size = text.tokenizer().vocab_size().max(370);
        let encode = |item: &Item| text.encode(item);
        let pairs = EncodedRewardPair::all(&planted(48, 0), &encode).0;
        Self { config, pairs, held_out: Pairs(planted(24, 1000)), text }
    }

    fn trainer<'a>(
        &'a self,
        recipe: &'a Recipe,
        observer: &'a dyn Observer,
        (folder, resume): (&Path, Resume),
    ) -> (Trainer<'a, ScalarText>, BradleyTerry<'a>) {
        let run = RunDirectory::open(folder, recipe, resume, || 0.0).expect("run directory");
        let context = TrainerContext {
            recipe,
            config: &self.config,
            base: "tiny",
            text: &self.text,
            observer,
            evaluator: Some(&self.held_out),
            companions: &|_| Ok(()),
        };
        let shape = DecoderShape { tied: true, ..DecoderShape::from_config(&self.config) };
        let mut decoder = Decoder::random(Arc::new(Cpu::new(1)), shape, recipe.seed);
        let config = recipe.bradley_terry.as_ref().expect("stage");
        let head = LinearHead::attach(&mut decoder, "score", 1, (config.head, recipe.seed));
        let head = ScalarHead::LastToken(head);
        if let Some(lora) = &recipe.parameters.lora {
            decoder.attach_adapter(lora, recipe.seed).expect("attaches");
        } else if let Some(layer) = recipe.parameters.freeze_below {
            decoder.freeze_below(layer);
        }
        let reward = RewardConfig::new(RewardFamily::Scalar {});
        let mut trainer = Trainer::new(context, decoder, run, Phase::BradleyTerry);
        trainer.reward = Some(reward.clone());
        let objective = BradleyTerry {
            loss: config.loss,
            head,
            text: &self.text,
            pairs: &self.pairs,
            config: reward,
        };
        (trainer, objective)
    }
}

fn recipe(changes: &[&str]) -> Recipe {
    let text = r#"
version = 1
model = "tiny"
[data]
train = "planted"
[bradley_terry]
loss = { centring = 0.01 }
schedule = { steps = 5, batch = 8, micro_batch_tokens = 60 }
optimizer = { learning_rate = 3e-3 }
[evaluation]
every = 2
[checkpoint]
every = 1
keep = 2
"#;
    let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
    Recipe::parse(text, &changes).expect("valid recipe")
}

fn train(trainer: &mut Trainer<'_, ScalarText>, objective: &BradleyTerry<'_>) -> Result<(), Error> {
    let config = trainer.context.recipe.bradley_terry.as_ref().expect("stage");
    discriminative::train(trainer, (&config.schedule, &config.optimizer), objective)
}

fn weights(decoder: &Decoder) -> Vec<Vec<f32>> {
    decoder.parameters.iter().map(|(_, parameter)| parameter.value.host().to_vec()).collect()
}

fn metrics(folder: &Path) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).expect("metrics");
    let row = |line: &str| {
        let mut row: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(line).expect("json");
        row.retain(|name, _| !name.ends_with("_per_s") && !name.contains("memory"));
        row
    };
    text.lines().map(row).collect()
}

const LORA: &str = "parameters.lora={ rank = 2, alpha = 4.0 }";
const EIGHT_BITS: &str = "parameters.optimizer_states=eight_bits";

#[test]
fn a_run_stopped_anywhere_and_resumed_equals_an_uninterrupted_one() {
    for change in ["parameters.freeze_below=1", LORA, EIGHT_BITS] {
        let world = World::new();
        let recipe = recipe(&[change]);
        let whole = tempfile::tempdir().expect("folder");
        let (mut trainer, objective) = world.trainer(&recipe, &Silent, (whole.path(), Resume::No));
        train(&mut trainer, &objective).expect("trains");
        let expected = weights(&trainer.decoder);
        for stop in [1, 4] {
            let folder = tempfile::tempdir().expect("folder");
            let observer = StopAfter { steps: stop, ..StopAfter::default() };
            let (mut first, objective) =
                world.trainer(&recipe, &observer, (folder.path(), Resume::No));
            let outcome = train(&mut first, &objective);
            assert!(matches!(outcome, Err(Error::Interrupted { .. })), "{outcome:?}");
            let (mut second, objective) =
                world.trainer(&recipe, &Silent, (folder.path(), Resume::Yes));
            second.resume().expect("resumes");
            assert_eq!(second.position.step, stop);
            train(&mut second, &objective).expect("trains");
            assert!(weights(&second.decoder) == expected, "{change}: differs after {stop}");
            assert_eq!(metrics(folder.path()), metrics(whole.path()), "{change}");
        }
    }
}

#[test]
fn a_run_is_not_resumed_with_optimiser_states_of_another_form() {
    let world = World::new();
    let folder = tempfile::tempdir().expect("folder");
    let observer = StopAfter { steps: 1, ..StopAfter::default() };
    let first = recipe(&[]);
    let (mut trainer, objective) = world.trainer(&first, &observer, (folder.path(), Resume::No));
    assert!(train(&mut trainer, &objective).is_err(), "stopped");
    let other = recipe(&[EIGHT_BITS]);
    let (mut trainer, _) = world.trainer(&other, &Silent, (folder.path(), Resume::Yes));
    let message = trainer.resume().expect_err("refused").to_string();
    assert!(message.contains("parameters.optimizer_states"), "{message}");
}

#[test]
fn a_planted_preference_is_found_with_optimiser_states_in_eight_bits() {
    let world = World::new();
    let recipe = recipe(&["bradley_terry.schedule.steps=40", "checkpoint.every=0", EIGHT_BITS]);
    let folder = tempfile::tempdir().expect("folder");
    let (mut trainer, objective) = world.trainer(&recipe, &Silent, (folder.path(), Resume::No));
    let rounded = trainer.decoder.parameters.iter().any(|(id, entry)| {
        let (first, _) = trainer.optimizer.moments(id).expect("trained");
        first.len() < entry.value.len()
    });
    assert!(rounded, "some parameter is large enough");
    train(&mut trainer, &objective).expect("trains");
    let best = trainer.position.best_accuracy.expect("measured");
    assert!(best >= 0.95, "held-out accuracy {best}");
}

#[test]
fn the_first_loss_is_ln_2_and_a_planted_preference_is_found() {
    let world = World::new();
    let recipe = recipe(&["bradley_terry.schedule.steps=40", "checkpoint.every=0"]);
    let folder = tempfile::tempdir().expect("folder");
    let (mut trainer, objective) = world.trainer(&recipe, &Silent, (folder.path(), Resume::No));
    train(&mut trainer, &objective).expect("trains");
    let rows = metrics(folder.path());
    let first = rows[0]["loss"].as_f64().expect("number");
    assert!((first - std::f64::consts::LN_2).abs() < 1e-6, "{first}");
    let best = trainer.position.best_accuracy.expect("measured");
    assert!(best >= 0.95, "held-out accuracy {best}");
    let reward = trainer.reward.as_ref().expect("described");
    assert_eq!((reward.mean, reward.std), (Some(0.5), Some(2.0)));
    let stored = RewardConfig::read(&folder.path().join("checkpoints/best")).expect("reads");
    assert_eq!(stored.expect("a reward model").std, Some(2.0));
}

#[test]
fn the_micro_batch_does_not_change_the_update() {
    let world = World::new();
    let mut found = Vec::new();
    for tokens in ["60", "100000"] {
        let change = format!("bradley_terry.schedule.micro_batch_tokens={tokens}");
        let recipe = recipe(&[&change, "bradley_terry.schedule.steps=1"]);
        let folder = tempfile::tempdir().expect("folder");
        let (mut trainer, objective) = world.trainer(&recipe, &Silent, (folder.path(), Resume::No));
        train(&mut trainer, &objective).expect("trains");
        found.push(metrics(folder.path())[0]["gradient_norm"].as_f64().expect("number"));
    }
    assert!((found[0] - found[1]).abs() < 1e-4 * found[1], "{found:?}");
}

#[test]
fn a_pair_with_an_empty_side_is_one_clear_sentence() {
    let world = World::new();
    let mut pair = planted(1, 0).remove(0);
    pair.second.response = "  ".into();
    let encode = |item: &Item| world.text.encode(item);
    let (pairs, left_out) = EncodedRewardPair::all(&[pair, planted(2, 1).remove(1)], &encode);
    assert_eq!((pairs.len(), left_out.len()), (1, 1), "the other pair is unharmed");
    let message = &left_out[0];
    assert!(message.contains("comparison p0") && message.contains("empty"), "{message}");
}

#[test]
fn heads_of_deviation_zero_and_wrong_tables_are_told_apart() {
    assert_eq!(recipe(&[]).bradley_terry.expect("stage").head, HeadInit::Zero {});
    for change in [
        "bradley_terry.schedule.batch=0",
        "bradley_terry.loss.label_smoothing=0.7",
        "grpo={ steps = 3 }",
        "bradley_terry.loss.centering=0.1",
    ] {
        let text = "version = 1\nmodel = \"m\"\n[data]\ntrain = \"x\"\n[bradley_terry]\n";
        assert!(Recipe::parse(text, &[change.into()]).is_err(), "{change}");
    }
}
