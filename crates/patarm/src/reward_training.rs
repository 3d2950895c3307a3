//! One training run of a discriminative reward model, from recipe to final checkpoint.

use std::path::Path;
use std::sync::Arc;

use patarm_eval::pairs::{Evaluated, PairsEvaluator, evaluate_pairs};
use patarm_eval::store;
use patarm_files::{ModelConfig, ModelFiles, RewardConfig, RewardFamily, open_model};
use patarm_models::{Decoder, LinearHead, checkpoint};
use patarm_reward::model::Evaluator;
use patarm_reward::observer::Observer;
use patarm_reward::scalar::{SCORING_TOKENS, ScalarRewardModel, ScalarText};
use patarm_text::tokenizer::Tokenizer;
use patarm_text::{Comparison, Item};
use patarm_train::Recipe;
use patarm_train::bradley_terry::{BradleyTerry, BradleyTerryConfig};
use patarm_train::discriminative;
use patarm_train::lengths::{LengthReport, fit_lengths};
use patarm_train::reward_pairs::EncodedRewardPair;
use patarm_train::run_directory::{Phase, Resume, RunDirectory, RunState};
use patarm_train::trainer::{Trainer, TrainerContext};

use crate::cli::Global;
use crate::exit::{Code, failure};
use crate::output;
use crate::resolve::{self, Located};
use crate::reward_models;
use crate::training::{pairs_options, run_info, unix_seconds};

/// Everything a run needs, resolved.
pub(crate) struct Prepared {
    recipe: Recipe,
    located: Located,
    files: ModelFiles,
    decoder: Decoder,
    head: LinearHead,
    reward: RewardConfig,
    tokenizer: Arc<Tokenizer>,
    text: ScalarText,
    train: Vec<Comparison>,
    held_out: Vec<Comparison>,
    /// What happened to long inputs.
    pub(crate) lengths: LengthReport,
}

/// What a run would need.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Foreseen {
    version: u32,
    training_pairs: usize,
    held_out_pairs: usize,
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
        output::line(&format!("training pairs        {}", self.training_pairs))?;
        output::line(&format!("held-out pairs        {}", self.held_out_pairs))?;
        output::line(&format!("trainable parameters  {}", self.trainable_parameters))?;
        output::line(&format!("updates               {}", self.updates))?;
        output::line(&format!("training tokens       at most {:.0}", self.training_tokens))
    }
}

/// Loads the model, fits the data and applies what the recipe says about parameters.
pub(crate) fn prepare(
    recipe: Recipe,
    (train, held_out): (Vec<Comparison>, Vec<Comparison>),
    global: &Global,
) -> anyhow::Result<Prepared> {
    let config = table(&recipe)?;
    let located = resolve::locate(&recipe.model)?;
    if recipe.parameters.lora.is_some() && located.adapter.is_some() {
        let message = format!(
            "{} is an adapter, and a new one needs a whole model below it; merge it first (patarm model merge)",
            recipe.model
        );
        return Err(failure(Code::Model, message));
    }
    let (files, mut decoder, head, reward) = body(&located, config, recipe.seed, global)?;
    let tokenizer = Arc::new(Tokenizer::open(&located.base)?);
    let text = ScalarText::new(Arc::clone(&tokenizer))?;
    let (train, lengths) = fit_lengths(train, &tokenizer, &recipe.data)?;
    let (held_out, _) = fit_lengths(held_out, &tokenizer, &recipe.data)?;
    if let Some(lora) = &recipe.parameters.lora {
        decoder.attach_adapter(lora, recipe.seed)?;
    } else if let Some(layer) = recipe.parameters.freeze_below {
        decoder.freeze_below(layer);
    }
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
        lengths,
    })
}

fn table(recipe: &Recipe) -> anyhow::Result<&BradleyTerryConfig> {
    recipe
        .bradley_terry
        .as_ref()
        .ok_or_else(|| failure(Code::Usage, "the recipe has no table of a reward model"))
}

/// A base with a head: its own, or a fresh one on a model that writes text.
fn body(
    located: &Located,
    config: &BradleyTerryConfig,
    seed: u64,
    global: &Global,
) -> anyhow::Result<(ModelFiles, Decoder, LinearHead, RewardConfig)> {
    if let Some(reward) = reward_models::description(located)? {
        let (files, mut decoder, head) = reward_models::load_weights(located, &reward, global)?;
        decoder.merge_adapter();
        return Ok((files, decoder, head, RewardConfig { mean: None, std: None, ..reward }));
    }
    let files = open_model(&located.base)?;
    let mut decoder = Decoder::body_from_files(resolve::backend(global), &files)?;
    if let Some(adapter) = &located.adapter {
        checkpoint::load_adapter(adapter, &mut decoder)?;
        decoder.merge_adapter();
    }
    let reward = RewardConfig::new(RewardFamily::Scalar {});
    let head = LinearHead::attach(&mut decoder, &reward.head, 1, (config.head, seed));
    Ok((files, decoder, head, reward))
}

/// Counts what training would compute.
pub(crate) fn foresee(prepared: &Prepared) -> anyhow::Result<Foreseen> {
    let config = table(&prepared.recipe)?;
    let pairs = encode(&prepared.train, &prepared.text)?;
    let tokens: usize = pairs.iter().map(EncodedRewardPair::num_tokens).sum();
    let updates = config.schedule.num_steps(pairs.len());
    let examples = updates as f64 * config.schedule.batch as f64;
    Ok(Foreseen {
        version: 1,
        training_pairs: pairs.len(),
        held_out_pairs: prepared.held_out.len(),
        trainable_parameters: prepared.decoder.parameters.num_trainable(),
        updates,
        training_tokens: examples * tokens as f64 / pairs.len() as f64,
    })
}

fn encode(comparisons: &[Comparison], text: &ScalarText) -> anyhow::Result<Vec<EncodedRewardPair>> {
    let (pairs, left_out) = EncodedRewardPair::all(comparisons, &|item: &Item| text.encode(item));
    remark_left_out(&left_out);
    if pairs.is_empty() {
        return Err(failure(Code::Data, "no training comparison prefers a side"));
    }
    Ok(pairs)
}

/// Tells which comparisons cannot be used.
fn remark_left_out(left_out: &[String]) {
    if let [first, ..] = left_out {
        output::remark(&format!("{} comparisons left out; the first: {first}", left_out.len()));
    }
}

/// Trains, writes the final checkpoint, and measures it on the held-out pairs.
pub(crate) fn run(
    prepared: Prepared,
    (out, resume): (&Path, Resume),
    observer: &dyn Observer,
) -> anyhow::Result<Option<Evaluated>> {
    let Prepared { recipe, located, files, decoder, head, reward, text, .. } = prepared;
    let (train, held_out) = (prepared.train, prepared.held_out);
    let pairs = encode(&train, &text)?;
    let run = RunDirectory::open(out, &recipe, resume, unix_seconds)?;
    let described = (METHOD, decoder.backend.as_ref());
    let mut info = run_info(&recipe, &located, described, (&train, &held_out))?;
    run.write_info(&info)?;
    let evaluator = evaluator(&recipe, &held_out)?;
    let tokenizer = prepared.tokenizer;
    let companions =
        |folder: &Path| tokenizer.save_files(folder).map_err(|error| error.to_string());
    let base = located.base.to_string_lossy().into_owned();
    let model = with_padding(&files.config, &text, &train)?;
    let context = TrainerContext {
        recipe: &recipe,
        config: &model,
        base: &base,
        text: &text,
        observer,
        evaluator: evaluator.as_ref().map(|evaluator| evaluator as &dyn Evaluator),
        companions: &companions,
    };
    let mut trainer = Trainer::new(context, decoder, run, Phase::BradleyTerry);
    trainer.reward = Some(reward.clone());
    if resume == Resume::Yes {
        trainer.resume()?;
    }
    let config = table(&recipe)?;
    let objective =
        BradleyTerry { loss: config.loss, head, text: &text, pairs: &pairs, config: reward };
    let outcome =
        discriminative::train(&mut trainer, (&config.schedule, &config.optimizer), &objective);
    info.state = if outcome.is_ok() { RunState::Finished } else { RunState::Interrupted };
    trainer.run.write_info(&info)?;
    outcome?;
    trainer.save_weights("final")?;
    let model = ScalarRewardModel {
        decoder: &trainer.decoder,
        head,
        text: &text,
        config: trainer.reward.as_ref().unwrap_or(&objective.config),
        batch_tokens: SCORING_TOKENS,
        observer,
        name: "trained".into(),
    };
    evaluate(&model, &held_out, (&recipe, out))
}

/// Label of the method in `run.json`.
const METHOD: &str = "Bradley-Terry";

fn evaluator(recipe: &Recipe, held_out: &[Comparison]) -> anyhow::Result<Option<PairsEvaluator>> {
    let used: Vec<Comparison> = held_out.iter().take(recipe.evaluation.pairs).cloned().collect();
    if used.iter().all(|comparison| comparison.chosen_rejected().is_none()) {
        return Ok(None);
    }
    Ok(Some(PairsEvaluator::new(used, pairs_options(recipe.seed))?))
}

/// The configuration with a padding id that hides no last token.
fn with_padding(
    config: &ModelConfig,
    text: &ScalarText,
    train: &[Comparison],
) -> anyhow::Result<ModelConfig> {
    let mut config = config.clone();
    if let Some(comparison) = train.first() {
        config.pad_token_id = text.padding_id(&comparison.first)?.or(config.pad_token_id);
    }
    Ok(config)
}

/// The held-out measurement kept in the run directory.
fn evaluate(
    model: &ScalarRewardModel<'_>,
    held_out: &[Comparison],
    (recipe, out): (&Recipe, &Path),
) -> anyhow::Result<Option<Evaluated>> {
    let used: Vec<Comparison> =
        held_out.iter().take(recipe.evaluation.stage_pairs).cloned().collect();
    if used.iter().all(|comparison| comparison.chosen_rejected().is_none()) {
        return Ok(None);
    }
    let evaluated = evaluate_pairs(model, &used, &pairs_options(recipe.seed))?;
    store::write_folder(&out.join("evaluations/trained"), &evaluated)?;
    Ok(Some(evaluated))
}
