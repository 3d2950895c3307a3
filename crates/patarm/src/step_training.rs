//! One training run of a process reward model, from recipe to final checkpoint.

use std::path::Path;
use std::sync::Arc;

use patarm_eval::steps::evaluator::{StepEvaluator, StepResult, steps_from_scores};
use patarm_files::{ModelFiles, RewardConfig, RewardFamily};
use patarm_models::{Decoder, StepHead};
use patarm_reward::model::Evaluator;
use patarm_reward::observer::Observer;
use patarm_reward::process::StepText;
use patarm_text::solutions::{read_solutions, split_solutions};
use patarm_text::tokenizer::Tokenizer;
use patarm_text::{LabelledSolution, Solution};
use patarm_train::Recipe;
use patarm_train::discriminative;
use patarm_train::process_reward::{ProcessReward, ProcessRewardConfig, StepLimits, TrainingSteps};
use patarm_train::run_directory::{Phase, Resume, write_json};
use patarm_train::trainer::{Trainer, TrainerContext};

use crate::cli::Global;
use crate::exit::{Code, failure};
use crate::resolve::{self, Located};
use crate::training::{UsedData, described_run, open_run};
use crate::{datasets, output, pull, reward_base, reward_models, samples, step_models};

/// The split does not follow the run's seed, so that seeds are measured on the same
/// solutions.
const HELD_OUT_SEED: u64 = 0;
/// Stream of swapped labels.
const FLIP_STREAM: u64 = 0xf11c;
/// File of the held-out figures in the run directory.
pub(crate) const RESULT_FILE: &str = "held_out_steps.json";

/// Everything a run needs, resolved.
pub(crate) struct Prepared {
    recipe: Recipe,
    located: Located,
    files: ModelFiles,
    decoder: Decoder,
    head: Option<StepHead>,
    reward: RewardConfig,
    tokenizer: Arc<Tokenizer>,
    text: StepText,
    train: TrainingSteps,
    held_out: Vec<LabelledSolution>,
    data_sha256: String,
}

/// What a run would need.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Foreseen {
    version: u32,
    training_solutions: usize,
    labelled_steps: usize,
    held_out_solutions: usize,
    trainable_parameters: usize,
    updates: u64,
    training_tokens: f64,
}

impl Foreseen {
    /// Prints it.
    pub(crate) fn show(&self, global: &Global) -> anyhow::Result<()> {
        if global.json {
            return output::json(self);
        }
        output::line(&format!("training solutions    {}", self.training_solutions))?;
        output::line(&format!("labelled steps        {}", self.labelled_steps))?;
        output::line(&format!("held-out solutions    {}", self.held_out_solutions))?;
        output::line(&format!("trainable parameters  {}", self.trainable_parameters))?;
        output::line(&format!("updates               {}", self.updates))?;
        output::line(&format!("training tokens       at most {:.0}", self.training_tokens))
    }
}

/// The recipe's table.
fn table(recipe: &Recipe) -> anyhow::Result<&ProcessRewardConfig> {
    let table = recipe.process_reward.as_ref();
    table.ok_or_else(|| failure(Code::Bug, "the recipe has no table of a process reward model"))
}

/// Reads the data, loads the model and applies what the recipe says about parameters.
pub(crate) fn prepare(recipe: Recipe, folder: &Path, global: &Global) -> anyhow::Result<Prepared> {
    let located = resolve::locate(&recipe.model)?;
    reward_base::check_adapter(&recipe, &located)?;
    let (files, mut decoder, head, reward) = body(&located, &recipe, global)?;
    let RewardFamily::Step(layout) = &reward.family else {
        return Err(failure(Code::Bug, "the layout of a process reward model is lost"));
    };
    let tokenizer = Arc::new(Tokenizer::open(&located.base)?);
    let text = step_models::text(Arc::clone(&tokenizer), layout)?;
    let (labelled, held_out) = split(&recipe, &text, folder)?;
    let max_tokens = recipe.data.max_prompt_tokens + recipe.data.max_response_tokens;
    let limits = StepLimits {
        max_tokens: max_tokens.min(decoder.shape.max_positions),
        overlong: recipe.data.overlong,
    };
    let train = TrainingSteps::new(&labelled, &text, (&table(&recipe)?.loss, limits))?;
    reward_base::apply_parameters(&mut decoder, &recipe)?;
    let rows: Vec<_> = labelled.iter().map(LabelledSolution::to_json).collect();
    let data_sha256 = pull::sha256_of_bytes(&serde_json::to_vec(&rows)?);
    Ok(Prepared {
        recipe,
        located,
        files,
        decoder,
        head,
        reward,
        tokenizer,
        text,
        train,
        held_out,
        data_sha256,
    })
}

type Body = (ModelFiles, Decoder, Option<StepHead>, RewardConfig);

/// A base with a head: its own, or a fresh one on a model that writes text.
fn body(located: &Located, recipe: &Recipe, global: &Global) -> anyhow::Result<Body> {
    let config = table(recipe)?;
    if let Some(reward) = reward_models::description(located)? {
        let RewardFamily::Step(steps) = &reward.family else {
            let message = format!(
                "{} is a {}; the recipe trains a process reward model",
                recipe.model,
                reward.family.name()
            );
            return Err(failure(Code::Model, message));
        };
        let (files, mut decoder, head) = step_models::load((located, &reward), steps, global)?;
        decoder.merge_adapter();
        return Ok((files, decoder, head, RewardConfig { mean: None, std: None, ..reward }));
    }
    let reward = RewardConfig::new(RewardFamily::Step(config.layout.clone()));
    let (files, mut decoder) = reward_base::open_writer(located, &reward.family, global)?;
    let place = (config.head, recipe.seed);
    let head = step_models::head_shape(&config.layout)
        .map(|shape| StepHead::attach(&mut decoder, &reward.head, shape, place));
    Ok((files, decoder, head, reward))
}

/// Training and held-out solutions, disjoint by prompt.
fn split(
    recipe: &Recipe,
    text: &StepText,
    folder: &Path,
) -> anyhow::Result<(Vec<LabelledSolution>, Vec<LabelledSolution>)> {
    let data = &recipe.data;
    let read = |source: &str| -> anyhow::Result<Vec<LabelledSolution>> {
        let path = datasets::locate(&datasets::beside(folder, source))?;
        Ok(read_solutions(&path, &text.config().segmentation)?)
    };
    let all = read(&data.train)?;
    let (mut train, mut held_out) = match &data.held_out {
        Some(held_out) => (all, read(held_out)?),
        None => split_solutions(all, data.held_out_share, HELD_OUT_SEED)?,
    };
    train.truncate(data.max_pairs.unwrap_or(usize::MAX));
    held_out.truncate(data.max_held_out.unwrap_or(usize::MAX));
    flip(&mut train, data.flip_share, recipe.seed);
    Ok((train, held_out))
}

/// Replaces a share of the labels y by 1 − y.
fn flip(solutions: &mut [LabelledSolution], share: f64, seed: u64) {
    for (number, solution) in solutions.iter_mut().enumerate() {
        for (step, label) in solution.labels.iter_mut().enumerate() {
            let place = [FLIP_STREAM, number as u64, step as u64];
            if patarm_models::kernels::random::uniform(seed, &place) < share {
                *label = label.map(|label| 1.0 - label);
            }
        }
    }
}

/// Counts what training would compute.
pub(crate) fn foresee(prepared: &Prepared) -> anyhow::Result<Foreseen> {
    let schedule = &table(&prepared.recipe)?.schedule;
    let solutions = &prepared.train.solutions;
    let tokens: usize = solutions.iter().map(|one| one.solution.len()).sum();
    let updates = schedule.num_steps(solutions.len());
    let mean = tokens as f64 / solutions.len().max(1) as f64;
    Ok(Foreseen {
        version: 1,
        training_solutions: solutions.len(),
        labelled_steps: solutions.iter().map(|one| one.labels.iter().flatten().count()).sum(),
        held_out_solutions: prepared.held_out.len(),
        trainable_parameters: prepared.decoder.parameters.num_trainable(),
        updates,
        training_tokens: updates as f64 * schedule.batch as f64 * mean,
    })
}

/// Tells what of the data is not used.
pub(crate) fn remark(prepared: &Prepared) {
    let TrainingSteps { left_out, dropped, cut, .. } = &prepared.train;
    if *dropped + *cut > 0 {
        output::remark(&format!("too long: {dropped} solutions dropped, {cut} cut"));
    }
    if let [first, ..] = left_out.as_slice() {
        output::remark(&format!("{} solutions left out; the first: {first}", left_out.len()));
    }
}

/// Trains, writes the final checkpoint, and measures it on the held-out solutions.
pub(crate) fn run(
    prepared: Prepared,
    (out, resume): (&Path, Resume),
    observer: &dyn Observer,
) -> anyhow::Result<Option<StepResult>> {
    let used = UsedData {
        sha256: prepared.data_sha256.clone(),
        num_train: prepared.train.solutions.len(),
        num_held_out: prepared.held_out.len(),
    };
    let described = ("process reward", prepared.decoder.backend.as_ref());
    let mut info = described_run(&prepared.recipe, &prepared.located, described, used);
    let Prepared {
        recipe,
        located,
        files,
        decoder,
        head,
        reward,
        tokenizer,
        text,
        train,
        held_out,
        ..
    } = prepared;
    let config = table(&recipe)?;
    let reader = step_models::reader(text.config(), head, &text)?;
    let run = open_run(out, &recipe, &info, resume)?;
    let evaluator = evaluator(&recipe, &held_out);
    let companions =
        |folder: &Path| tokenizer.save_files(folder).map_err(|error| error.to_string());
    let base = located.base.to_string_lossy().into_owned();
    let context = TrainerContext {
        recipe: &recipe,
        config: &files.config,
        base: &base,
        text: &(),
        observer,
        evaluator: evaluator.as_ref().map(|evaluator| evaluator as &dyn Evaluator),
        companions: &companions,
    };
    let objective = ProcessReward {
        loss: config.loss,
        reader,
        text: &text,
        solutions: &train.solutions,
        config: reward.clone(),
    };
    let mut trainer = Trainer::new(context, decoder, run, Phase::ProcessReward);
    let schedule = (&config.schedule, &config.optimizer);
    reward_base::train(&mut trainer, (reward, resume), schedule, &objective, &mut info)?;
    evaluate((&objective, &trainer.decoder), &held_out, (&recipe, out))
}

fn evaluator(recipe: &Recipe, held_out: &[LabelledSolution]) -> Option<StepEvaluator> {
    StepEvaluator::new(held_out.iter().take(recipe.evaluation.pairs).cloned().collect())
}

/// The held-out measurement kept in the run directory.
fn evaluate(
    (objective, decoder): (&ProcessReward<'_>, &Decoder),
    held_out: &[LabelledSolution],
    (recipe, out): (&Recipe, &Path),
) -> anyhow::Result<Option<StepResult>> {
    let used = &held_out[..held_out.len().min(recipe.evaluation.stage_pairs)];
    if used.is_empty() {
        return Ok(None);
    }
    let solutions: Vec<Solution> = used.iter().map(|one| one.solution.clone()).collect();
    let mut scored = None;
    discriminative::Objective::with_model(objective, decoder, &mut |model| {
        scored = model.score_steps(&solutions).map(|scores| (model.name(), scores));
    });
    let (name, scores) =
        scored.ok_or_else(|| failure(Code::Bug, "a process reward model scores steps"))?;
    let result = steps_from_scores(&name, used, &scores);
    write_json(&out.join(RESULT_FILE), &result)?;
    samples::keep_solutions(out, "trained", used.iter().zip(&scores))?;
    Ok(Some(result))
}
