//! Process reward models on a tiny decoder: planted steps are found, the joint loss does
//! what either part alone does not, runs resume.

mod support;

use std::path::Path;
use std::sync::Arc;

use patarm_models::files::{ModelConfig, RewardConfig, RewardFamily, StepConfig, StepReadout};
use patarm_models::kernels::{Cpu, random};
use patarm_models::{AdamWConfig, Decoder, DecoderShape, HeadInit, StepHead, StepHeadShape};
use patarm_reward::model::RewardModel;
use patarm_reward::observer::{Observer, Silent};
use patarm_reward::process::{
    StepLossConfig, StepLossKind, StepReader, StepText, aggregate, select_top,
};
use patarm_text::tokenizer::Tokenizer;
use patarm_text::{Conversation, Item, LabelledSolution, Solution};
use patarm_train::discriminative::{self, Objective, Schedule};
use patarm_train::process_reward::{EncodedSteps, ProcessReward, StepLimits, TrainingSteps};
use patarm_train::recipe::Overlong;
use patarm_train::run_directory::{Phase, Resume, RunDirectory};
use patarm_train::trainer::{Trainer, TrainerContext};
use patarm_train::{Error, Recipe};
use support::{StopAfter, testdata};

const LIMITS: StepLimits = StepLimits { max_tokens: 2048, overlong: Overlong::Error };

/// Sums: a right step adds, a wrong one says another word, an off-topic one is about
/// something else, a backtracking one takes a step back.
const KINDS: [(&str, f64); 4] = [("adds", 1.0), ("loses", 0.0), ("sings", 0.0), ("wait", 0.5)];

/// Solutions of three steps; half of the solutions have no bad step.
fn planted(count: usize, first: u64) -> Vec<LabelledSolution> {
    let kinds = |number: u64, draw: &dyn Fn(u64, usize) -> usize| {
        let bad = if number.is_multiple_of(2) { 3 } else { draw(0, 3) };
        [0, 1, 2].map(|step| if step == bad { 1 + draw(1, 3) } else { 0 })
    };
    solutions(count, first, &kinds)
}

/// Solutions of three steps of any kind, so that no label is most of them.
fn mixed(count: usize, first: u64) -> Vec<LabelledSolution> {
    solutions(count, first, &|_, draw| [5, 6, 7].map(|place| draw(place, KINDS.len())))
}

/// The kinds of a solution's steps, from its number and draws of its own.
type StepKinds<'a> = dyn Fn(u64, &dyn Fn(u64, usize) -> usize) -> [usize; 3] + 'a;

fn solutions(count: usize, first: u64, kinds: &StepKinds<'_>) -> Vec<LabelledSolution> {
    let solution = |number: u64| {
        let draw = |place: u64, n: usize| random::below(n, 11, &[number, place]);
        let drawn = kinds(number, &draw);
        let kind = |step: usize| KINDS[drawn[step]];
        let steps: Vec<(String, f64)> = (0..3)
            .map(|step| (format!("{} {}", kind(step).0, draw(2 + step as u64, 9)), kind(step).1))
            .collect();
        let labels = steps.iter().map(|(_, label)| Some(*label)).collect();
        let trajectory = f64::from(u8::from(drawn == [0; 3]));
        let prompt = Conversation::from_user(format!("q{number}"));
        let steps = steps.into_iter().map(|(step, _)| step).collect();
        LabelledSolution {
            labels,
            trajectory: Some(trajectory),
            ..LabelledSolution::unlabelled(number.to_string(), Solution { prompt, steps })
        }
    };
    (first..first + count as u64).map(solution).collect()
}

struct World {
    config: ModelConfig,
    text: StepText,
    reward: RewardConfig,
    solutions: Vec<EncodedSteps>,
}

impl World {
    fn new(layout: StepConfig, loss: &StepLossConfig) -> Self {
        Self::on(&planted(64, 0), layout, loss)
    }

    fn on(solutions: &[LabelledSolution], layout: StepConfig, loss: &StepLossConfig) -> Self {
        let tokenizer = Tokenizer::from_file(&testdata("text/tokenizer.json")).expect("tokenizer");
        let text = StepText::new(Arc::new(tokenizer), &layout).expect("text");
        let mut config =
            ModelConfig::read(&testdata("models/tiny-llama/config.json")).expect("config");
        config.vocab_size = text.tokenizer().vocab_size().max(370);
        let found = TrainingSteps::new(solutions, &text, (loss, LIMITS)).expect("labels");
        let reward = RewardConfig::new(RewardFamily::Step(layout));
        Self { config, text, reward, solutions: found.solutions }
    }

    fn model(&self) -> (Decoder, StepReader) {
        let mut shape = DecoderShape { tied: true, ..DecoderShape::from_config(&self.config) };
        shape.max_positions = 2048;
        let mut decoder = Decoder::random(Arc::new(Cpu::new(1)), shape, 7);
        let layout = self.text.config();
        let outputs = layout.readout.num_outputs();
        let shape = StepHeadShape { layers: layout.head_layers, outputs };
        let head = (outputs > 0)
            .then(|| StepHead::attach(&mut decoder, "score", shape, (HeadInit::Zero {}, 0)));
        let reader = StepReader::of(&layout.readout, head, self.text.tokens()).expect("a reader");
        (decoder, reader)
    }

    fn objective(&self, reader: StepReader, loss: StepLossConfig) -> ProcessReward<'_> {
        ProcessReward {
            loss,
            reader,
            text: &self.text,
            solutions: &self.solutions,
            config: self.reward.clone(),
        }
    }

    fn train<'a>(
        &'a self,
        recipe: &'a Recipe,
        (loss, steps): (StepLossConfig, u64),
        (folder, resume, observer): (&Path, Resume, &'a dyn Observer),
    ) -> (Result<(), Error>, Decoder, ProcessReward<'a>) {
        let run = RunDirectory::open(folder, recipe, resume, || 0.0).expect("run");
        let context = TrainerContext {
            recipe,
            config: &self.config,
            base: "tiny",
            text: &(),
            observer,
            evaluator: None,
            companions: &|_| Ok(()),
        };
        let (decoder, reader) = self.model();
        let mut trainer = Trainer::new(context, decoder, run, Phase::ProcessReward);
        trainer.reward = Some(self.reward.clone());
        if resume == Resume::Yes {
            trainer.resume().expect("resumes");
        }
        let objective = self.objective(reader, loss);
        let schedule = Schedule { steps: Some(steps), batch: 8, ..Schedule::default() };
        let optimizer = AdamWConfig { learning_rate: 3e-3, ..AdamWConfig::default() };
        let outcome = discriminative::train(&mut trainer, (&schedule, &optimizer), &objective);
        (outcome, trainer.decoder, objective)
    }

    /// Trains and hands the model over.
    fn fit(&self, loss: StepLossConfig, steps: u64, act: &mut dyn FnMut(&dyn RewardModel)) -> f64 {
        let recipe = recipe();
        let folder = tempfile::tempdir().expect("folder");
        let place = (folder.path(), Resume::No, &Silent as &dyn Observer);
        let (outcome, decoder, objective) = self.train(&recipe, (loss, steps), place);
        outcome.expect("trains");
        objective.with_model(&decoder, act);
        let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).expect("metrics");
        let first: serde_json::Value =
            serde_json::from_str(text.lines().next().expect("a row")).expect("json");
        first["loss"].as_f64().expect("a number")
    }
}

fn recipe() -> Recipe {
    let text =
        "version = 1\nmodel = \"tiny\"\n[data]\ntrain = \"planted\"\n[checkpoint]\nevery = 1\n";
    Recipe::parse(text, &[]).expect("valid")
}

fn loss(kind: StepLossKind, step_weight: f64, trajectory_weight: f64) -> StepLossConfig {
    StepLossConfig { kind, step_weight, trajectory_weight }
}

fn scores(model: &dyn RewardModel, solutions: &[LabelledSolution]) -> Vec<Vec<f64>> {
    let asked: Vec<Solution> = solutions.iter().map(|one| one.solution.clone()).collect();
    let scored = model.score_steps(&asked).expect("it scores steps").into_iter();
    scored.map(|scores| scores.expect("scored")).collect()
}

/// Share of pairs of unlike labels whose scores are in the same order, ties at one half.
fn concordance(pairs: &[(f64, f64)]) -> f64 {
    let (mut right, mut all) = (0.0, 0.0);
    for (score, label) in pairs {
        for (other, lower) in pairs.iter().filter(|(_, lower)| lower < label) {
            all += 1.0;
            let _ = lower;
            right += if score > other { 1.0 } else { f64::from(u8::from(score == other)) / 2.0 };
        }
    }
    right / all
}

fn by_step(scores: &[Vec<f64>], solutions: &[LabelledSolution]) -> Vec<(f64, f64)> {
    let each = scores.iter().zip(solutions);
    each.flat_map(|(scores, one)| {
        scores.iter().zip(&one.labels).map(|(score, label)| (*score, label.expect("labelled")))
    })
    .collect()
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count() as f64;
        let equal = values.iter().filter(|other| *other == value).count() as f64;
        below + (equal - 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

fn spearman(pairs: &[(f64, f64)]) -> f64 {
    let (scores, labels): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let (a, b) = (ranks(&scores), ranks(&labels));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let dot = |x: &[f64], y: &[f64]| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum()
    };
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}

#[test]
fn right_steps_score_above_bad_ones_and_selection_finds_clean_solutions() {
    let tokens = StepReadout::Tokens { right: "a".into(), wrong: "b".into() };
    for readout in [StepReadout::Classes {}, tokens] {
        let layout = StepConfig { readout: readout.clone(), ..StepConfig::default() };
        let config = loss(StepLossKind::CrossEntropy, 1.0, 0.0);
        let world = World::new(layout, &config);
        let held_out = planted(40, 1000);
        let mut found = Vec::new();
        let first = world.fit(config, 40, &mut |model| found = scores(model, &held_out));
        if readout == (StepReadout::Classes {}) {
            assert!((first - std::f64::consts::LN_2).abs() < 1e-6, "{first}");
        }
        let agreement = concordance(&by_step(&found, &held_out));
        assert!(agreement > 0.9, "{readout:?}: {agreement}");
        let means: Vec<f64> =
            found.iter().map(|steps| aggregate(steps, Default::default())).collect();
        let chosen = select_top(&means, 10);
        let clean = chosen.iter().filter(|&&place| held_out[place].trajectory == Some(1.0));
        assert!(clean.count() >= 8, "{readout:?}: half of all are clean");
    }
}

#[test]
fn squared_error_follows_targets_of_any_kind() {
    let config = loss(StepLossKind::SquaredError, 1.0, 0.0);
    for readout in [StepReadout::Value {}, StepReadout::Classes {}] {
        let layout = StepConfig { readout: readout.clone(), ..StepConfig::default() };
        let world = World::on(&mixed(64, 0), layout, &config);
        // With these labels, half of them 0, a perfect order of steps has 0.92.
        let held_out = mixed(40, 1000);
        let mut found = Vec::new();
        world.fit(config, 120, &mut |model| found = scores(model, &held_out));
        let agreement = spearman(&by_step(&found, &held_out));
        assert!(agreement > 0.7, "{readout:?}: {agreement}");
    }
}

#[test]
fn the_joint_loss_ranks_trajectories_and_finds_errors() {
    let layout = StepConfig { trajectory_weight: 1.0, ..StepConfig::default() };
    let held_out = planted(60, 1000);
    // How well whole solutions are ranked by their own number, and how well steps are.
    let measure = |step_weight: f64, trajectory_weight: f64| {
        let config = loss(StepLossKind::SquaredError, step_weight, trajectory_weight);
        let world = World::new(layout.clone(), &config);
        let (mut wholes, mut steps) = (0.0, 0.0);
        world.fit(config, 160, &mut |model| {
            let found = scores(model, &held_out);
            steps = concordance(&by_step(&found, &held_out));
            let items: Vec<Item> = held_out
                .iter()
                .map(|one| Item {
                    prompt: one.solution.prompt.clone(),
                    response: one.solution.steps.join("\n\n"),
                })
                .collect();
            let rewards = model.score(&items).into_iter().map(|reward| reward.expect("scored"));
            let own = rewards.zip(&held_out).map(|(reward, one)| {
                let mean = aggregate(&reward.step_values, Default::default());
                (reward.value - mean, one.trajectory.expect("labelled"))
            });
            wholes = concordance(&own.collect::<Vec<_>>());
        });
        (wholes, steps)
    };
    let (joint, step_only, final_only) = (measure(1.0, 1.0), measure(1.0, 0.0), measure(0.0, 1.0));
    assert!(joint.0 > 0.8 && joint.1 > 0.9, "joint {joint:?}");
    assert!(joint.0 > step_only.0, "wholes: joint {joint:?}, steps alone {step_only:?}");
    assert!(joint.1 > final_only.1, "steps: joint {joint:?}, wholes alone {final_only:?}");
}

fn weights(decoder: &Decoder) -> Vec<Vec<f32>> {
    decoder.parameters.iter().map(|(_, parameter)| parameter.value.host().to_vec()).collect()
}

#[test]
fn a_run_stopped_and_resumed_equals_an_uninterrupted_one() {
    let config = loss(StepLossKind::CrossEntropy, 1.0, 0.5);
    let layout = StepConfig { head_layers: 2, ..StepConfig::default() };
    let world = World::new(layout, &config);
    let recipe = recipe();
    let whole = tempfile::tempdir().expect("folder");
    let (outcome, expected, _) =
        world.train(&recipe, (config, 4), (whole.path(), Resume::No, &Silent));
    outcome.expect("trains");
    let folder = tempfile::tempdir().expect("folder");
    let observer = StopAfter { steps: 2, ..StopAfter::default() };
    let (outcome, _, _) = world.train(&recipe, (config, 4), (folder.path(), Resume::No, &observer));
    assert!(matches!(outcome, Err(Error::Interrupted { .. })), "{outcome:?}");
    let (outcome, decoder, _) =
        world.train(&recipe, (config, 4), (folder.path(), Resume::Yes, &Silent));
    outcome.expect("trains");
    assert!(weights(&decoder) == weights(&expected));
}

#[test]
fn labels_that_do_not_fit_are_one_clear_sentence() {
    let config = StepLossConfig::default();
    let world = World::new(StepConfig::default(), &config);
    let new = |solution: LabelledSolution, limits: StepLimits| {
        TrainingSteps::new(&[solution], &world.text, (&config, limits))
    };
    let one = || planted(1, 0).remove(0);
    let mut short = one();
    short.labels.pop();
    let message = new(short, LIMITS).expect_err("refused").to_string();
    assert!(message.contains("solution 0: 2 labels for 3 steps"), "{message}");
    let mut beyond = one();
    beyond.labels[1] = Some(-2.5);
    let message = new(beyond, LIMITS).expect_err("refused").to_string();
    assert!(message.contains("-2.5 is no probability") && message.contains("value"), "{message}");
    let mut unlabelled = one();
    unlabelled.labels.fill(None);
    let found = new(unlabelled, LIMITS).expect("read");
    assert!(found.solutions.is_empty() && found.left_out[0].contains("no label"), "{found:?}");
}

#[test]
fn long_solutions_are_refused_dropped_or_lose_their_last_steps() {
    let config = StepLossConfig::default();
    let world = World::new(StepConfig::default(), &config);
    let whole = world.text.encode(&planted(1, 0)[0].solution).expect("encodes");
    let room = whole.len() - 1;
    let with = |overlong: Overlong, max_tokens: usize| {
        let limits = StepLimits { max_tokens, overlong };
        TrainingSteps::new(&planted(1, 0), &world.text, (&config, limits))
    };
    let message = with(Overlong::Error, room).expect_err("refused").to_string();
    assert!(message.contains("solution 0 is longer") && message.contains("overlong"), "{message}");
    let dropped = with(Overlong::Drop, room).expect("dropped");
    assert_eq!((dropped.solutions.len(), dropped.dropped, dropped.cut), (0, 1, 0));
    let cut = with(Overlong::Truncate, room).expect("cut");
    assert_eq!((cut.solutions.len(), cut.dropped, cut.cut), (1, 0, 1));
    assert_eq!(cut.solutions[0].solution.steps, whole.steps[..2]);
    assert_eq!((cut.solutions[0].labels.len(), cut.solutions[0].trajectory), (2, None));
    let nothing = with(Overlong::Truncate, 1).expect("dropped");
    assert_eq!((nothing.solutions.len(), nothing.dropped), (0, 1));
}

#[test]
fn recipes_that_cannot_work_name_their_key() {
    let text = "version = 1\nmodel = \"m\"\n[data]\ntrain = \"x\"\n[process_reward]\n";
    assert_eq!(Recipe::parse(text, &[]).expect("defaults").reward_tables(), ["process_reward"]);
    for (change, words) in [
        ("process_reward.layout.marker=\"\"", "marker"),
        ("process_reward.layout.readout={ kind = \"value\" }", "squared_error"),
        ("process_reward.loss.step_weight=0.0", "step_weight"),
        ("process_reward.schedule.batch=0", "batch"),
        ("process_reward.loss.weight=1.0", "weight"),
        ("q_rm={}", "stands alone"),
    ] {
        let message = Recipe::parse(text, &[change.into()]).expect_err("refused");
        assert!(message.contains(words), "{change}: {message}");
    }
    let shipped = std::fs::read_to_string(testdata("../recipes/process_reward.toml"));
    Recipe::parse(&shipped.expect("the recipe"), &[]).expect("valid");
}
