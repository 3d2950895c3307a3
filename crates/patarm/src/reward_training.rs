//! One training run of a discriminative reward model, from recipe to final checkpoint.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use patarm_eval::pairs::{Evaluated, PairsEvaluator, pair_items, pairs_from_rewards};
use patarm_eval::store;
use patarm_files::{ModelConfig, ModelFiles, RewardConfig, RewardFamily};
use patarm_models::{AdamWConfig, Decoder, HeadInit};
use patarm_reward::model::Evaluator;
use patarm_reward::observer::Observer;
use patarm_reward::ordinal::OrdinalText;
use patarm_reward::scalar::ScalarText;
use patarm_reward::win_tie::Outcome;
use patarm_text::tokenizer::Tokenizer;
use patarm_text::{Comparison, Item};
use patarm_train::Recipe;
use patarm_train::bradley_terry::{BradleyTerry, BradleyTerryConfig};
use patarm_train::discriminative::{Objective, Schedule};
use patarm_train::lengths::{LengthReport, fit_lengths};
use patarm_train::oprm::{Oprm, OprmConfig, ordinal_pairs, read_quality_labels};
use patarm_train::q_rm::{QRm, QRmConfig};
use patarm_train::reward_pairs::EncodedRewardPair;
use patarm_train::run_directory::Resume;
use patarm_train::soli_reward::{LabelledResponses, SoliReward, SoliRewardConfig, win_tie_pairs};
use patarm_train::trainer::{Trainer, TrainerContext};

use crate::cli::Global;
use crate::exit::{Code, failure};
use crate::resolve::{self, Located};
use crate::reward_models::AnyHead;
use crate::training::{open_run, pairs_options, run_info};
use crate::{output, reward_base, reward_models, samples};

/// The recipe's table.
#[derive(Clone, Copy)]
enum Table<'r> {
    BradleyTerry(&'r BradleyTerryConfig),
    Oprm(&'r OprmConfig),
    QRm(&'r QRmConfig),
    SoliReward(&'r SoliRewardConfig),
}

impl<'r> Table<'r> {
    fn of(recipe: &'r Recipe) -> anyhow::Result<Self> {
        let tables = [
            recipe.bradley_terry.as_ref().map(Self::BradleyTerry),
            recipe.oprm.as_ref().map(Self::Oprm),
            recipe.q_rm.as_ref().map(Self::QRm),
            recipe.soli_reward.as_ref().map(Self::SoliReward),
        ];
        tables
            .into_iter()
            .flatten()
            .next()
            .ok_or_else(|| failure(Code::Usage, "the recipe has no table of a reward model"))
    }

    /// Label of the method in `run.json`.
    fn method(self) -> &'static str {
        match self {
            Self::BradleyTerry(_) => "Bradley-Terry",
            Self::Oprm(_) => "OPRM",
            Self::QRm(_) => "Q-RM",
            Self::SoliReward(_) => "SoliReward",
        }
    }

    fn family(self) -> RewardFamily {
        match self {
            Self::BradleyTerry(_) => RewardFamily::Scalar {},
            Self::Oprm(_) => RewardFamily::Ordinal {},
            Self::QRm(_) => RewardFamily::Token {},
            Self::SoliReward(config) => config.family(),
        }
    }

    fn schedule(self) -> (&'r Schedule, &'r AdamWConfig) {
        match self {
            Self::BradleyTerry(config) => (&config.schedule, &config.optimizer),
            Self::Oprm(config) => (&config.schedule, &config.optimizer),
            Self::QRm(config) => (&config.schedule, &config.optimizer),
            Self::SoliReward(config) => (&config.schedule, &config.optimizer),
        }
    }

    /// How a fresh head begins.
    fn head(self) -> HeadInit {
        match self {
            Self::BradleyTerry(config) => config.head,
            Self::QRm(config) => config.head,
            Self::SoliReward(config) => config.output,
            Self::Oprm(_) => HeadInit::Zero {},
        }
    }
}

/// Everything a run needs, resolved.
pub(crate) struct Prepared {
    located: Located,
    files: ModelFiles,
    decoder: Decoder,
    data: Data,
    held_out: Vec<Comparison>,
    /// What happened to long inputs.
    pub(crate) lengths: LengthReport,
}

/// What an objective is made of.
struct Data {
    recipe: Recipe,
    /// Folder of the recipe, to which its paths are relative.
    folder: PathBuf,
    tokenizer: Arc<Tokenizer>,
    head: AnyHead,
    reward: RewardConfig,
    train: Vec<Comparison>,
    /// Held-out responses by label, where the family asks for them.
    labelled: LabelledResponses,
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
    folder: &Path,
    global: &Global,
) -> anyhow::Result<Prepared> {
    let located = resolve::locate(&recipe.model)?;
    reward_base::check_adapter(&recipe, &located)?;
    let (files, mut decoder, head, reward) = body(&located, &recipe, global)?;
    let tokenizer = Arc::new(Tokenizer::open(&located.base)?);
    let (train, lengths) = fit_lengths(train, &tokenizer, &recipe.data)?;
    let (held_out, _) = fit_lengths(held_out, &tokenizer, &recipe.data)?;
    reward_base::apply_parameters(&mut decoder, &recipe)?;
    let folder = folder.to_path_buf();
    let labelled = match &recipe.soli_reward {
        Some(_) => LabelledResponses::of(&held_out[..recipe.evaluation.pairs.min(held_out.len())]),
        None => LabelledResponses::default(),
    };
    let data = Data { recipe, folder, tokenizer, head, reward, train, labelled };
    Ok(Prepared { located, files, decoder, data, held_out, lengths })
}

type Body = (ModelFiles, Decoder, AnyHead, RewardConfig);

/// A base with a head: its own, or a fresh one on a model that writes text.
fn body(located: &Located, recipe: &Recipe, global: &Global) -> anyhow::Result<Body> {
    let table = Table::of(recipe)?;
    let family = table.family();
    if let Some(reward) = reward_models::description(located)? {
        if reward.family != family {
            let message = format!(
                "{} is a {}; the recipe trains a {}",
                recipe.model,
                reward.family.name(),
                family.name()
            );
            return Err(failure(Code::Model, message));
        }
        let (files, mut decoder, head) = reward_models::load_weights(located, &reward, global)?;
        decoder.merge_adapter();
        return Ok((files, decoder, head, RewardConfig { mean: None, std: None, ..reward }));
    }
    let (files, mut decoder) = reward_base::open_writer(located, &family, global)?;
    let reward = RewardConfig::new(family);
    let head = match reward.family.keeps_output() {
        true => AnyHead::None,
        false => reward_models::fresh_head(&mut decoder, &reward, (table.head(), recipe.seed))?,
    };
    Ok((files, decoder, head, reward))
}

type UseObjective<'a> = dyn FnMut(&dyn Objective) -> anyhow::Result<()> + 'a;

impl Data {
    /// Encodes the pairs and hands what is trained to `act`.
    fn with_objective(&self, act: &mut UseObjective<'_>) -> anyhow::Result<()> {
        let table = Table::of(&self.recipe)?;
        if let Table::Oprm(config) = table {
            return self.with_oprm(config, act);
        }
        let text = &ScalarText::new(Arc::clone(&self.tokenizer))?;
        let encode = |item: &Item| text.encode(item);
        if let Table::SoliReward(own) = table {
            return self.with_soli_reward(own, text, act);
        }
        let (pairs, left_out) = &EncodedRewardPair::all(&self.train, &encode);
        remark_left_out(left_out);
        let config = self.reward.clone();
        match (table, self.head.clone()) {
            (Table::BradleyTerry(own), AnyHead::Scalar(head)) => {
                act(&BradleyTerry { loss: own.loss, head, text, pairs, config })
            }
            (Table::QRm(own), AnyHead::Token(head)) => {
                act(&QRm { loss: own.loss, head, text, pairs, config })
            }
            _ => Err(failure(Code::Bug, "a model of this family has a head")),
        }
    }

    fn with_soli_reward(
        &self,
        own: &SoliRewardConfig,
        text: &ScalarText,
        act: &mut UseObjective<'_>,
    ) -> anyhow::Result<()> {
        let (pairs, left_out) = &win_tie_pairs(&self.train, &|item: &Item| text.encode(item));
        remark_left_out(left_out);
        let ties = pairs.iter().filter(|pair| pair.outcome == Outcome::Tie).count();
        output::remark(&format!(
            "{} pairs of a passing and a failing response, {ties} of two passing ones",
            pairs.len() - ties
        ));
        let AnyHead::Scalar(head) = self.head.clone() else {
            return Err(failure(Code::Bug, "a model of this family has a head"));
        };
        let (config, held_out) = (self.reward.clone(), &self.labelled);
        act(&SoliReward { loss: own.loss, head, text, pairs, held_out, config })
    }

    fn with_oprm(&self, config: &OprmConfig, act: &mut UseObjective<'_>) -> anyhow::Result<()> {
        let text = &OrdinalText::new(Arc::clone(&self.tokenizer))?;
        let labels = match &config.quality_labels {
            Some(file) => {
                let path = self.folder.join(file);
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| failure(Code::Data, format!("{}: {error}", path.display())))?;
                read_quality_labels(&text)?
            }
            None => HashMap::new(),
        };
        let found = ordinal_pairs(&self.train, text, (config.region, &labels));
        if config.quality_labels.is_some() {
            output::remark(&format!(
                "quality labels: {} of {} pairs, {} dropped because their labels contradict the preference",
                found.labelled,
                found.pairs.len(),
                found.contradictions
            ));
        }
        remark_left_out(&found.left_out);
        act(&Oprm { text, pairs: &found.pairs })
    }

    /// The configuration with a padding id that hides no last token.
    fn model_config(&self, config: &ModelConfig) -> anyhow::Result<ModelConfig> {
        let mut config = config.clone();
        if let Some(comparison) = self.train.first().filter(|_| !self.reward.family.keeps_output())
        {
            let text = ScalarText::new(Arc::clone(&self.tokenizer))?;
            config.pad_token_id = text.padding_id(&comparison.first)?.or(config.pad_token_id);
        }
        Ok(config)
    }
}

/// Counts what training would compute.
pub(crate) fn foresee(prepared: &Prepared) -> anyhow::Result<Foreseen> {
    let (schedule, _) = Table::of(&prepared.data.recipe)?.schedule();
    let (mut pairs, mut tokens) = (0, 0);
    prepared.data.with_objective(&mut |objective| {
        pairs = objective.num_examples();
        tokens = (0..pairs).map(|example| objective.num_tokens(example)).sum();
        Ok(())
    })?;
    let updates = schedule.num_steps(pairs);
    let mean = tokens as f64 / pairs.max(1) as f64;
    Ok(Foreseen {
        version: 1,
        training_pairs: pairs,
        held_out_pairs: prepared.held_out.len(),
        trainable_parameters: prepared.decoder.parameters.num_trainable(),
        updates,
        training_tokens: updates as f64 * schedule.batch as f64 * mean,
    })
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
    let Prepared { located, files, decoder, data, held_out, .. } = prepared;
    let recipe = &data.recipe;
    let table = Table::of(recipe)?;
    let described = (table.method(), decoder.backend.as_ref());
    let mut info = run_info(recipe, &located, described, (&data.train, &held_out))?;
    let run = open_run(out, recipe, &info, resume)?;
    let evaluator = evaluator(recipe, &held_out)?;
    let companions =
        |folder: &Path| data.tokenizer.save_files(folder).map_err(|error| error.to_string());
    let base = located.base.to_string_lossy().into_owned();
    let context = TrainerContext {
        recipe,
        config: &data.model_config(&files.config)?,
        base: &base,
        text: &(),
        observer,
        evaluator: evaluator.as_ref().map(|evaluator| evaluator as &dyn Evaluator),
        companions: &companions,
    };
    let mut unused = Some((context, decoder, run));
    let mut evaluated = None;
    data.with_objective(&mut |objective| {
        let Some((context, decoder, run)) = unused.take() else {
            return Err(failure(Code::Bug, "a run trains one model"));
        };
        let mut trainer = Trainer::new(context, decoder, run, objective.phase());
        let start = (data.reward.clone(), resume);
        reward_base::train(&mut trainer, start, table.schedule(), objective, &mut info)?;
        evaluated = evaluate(objective, &trainer.decoder, &held_out, (recipe, out))?;
        Ok(())
    })?;
    Ok(evaluated)
}

fn evaluator(recipe: &Recipe, held_out: &[Comparison]) -> anyhow::Result<Option<PairsEvaluator>> {
    let used: Vec<Comparison> = held_out.iter().take(recipe.evaluation.pairs).cloned().collect();
    if used.iter().all(|comparison| comparison.chosen_rejected().is_none()) {
        return Ok(None);
    }
    Ok(Some(PairsEvaluator::new(used, pairs_options(recipe.seed))?))
}

/// The held-out measurement kept in the run directory.
fn evaluate(
    objective: &dyn Objective,
    decoder: &Decoder,
    held_out: &[Comparison],
    (recipe, out): (&Recipe, &Path),
) -> anyhow::Result<Option<Evaluated>> {
    let used: Vec<Comparison> =
        held_out.iter().take(recipe.evaluation.stage_pairs).cloned().collect();
    if used.iter().all(|comparison| comparison.chosen_rejected().is_none()) {
        return Ok(None);
    }
    let mut evaluated = None;
    objective.with_model(decoder, &mut |model| {
        let rewards = model.score(&pair_items(&used));
        let options = pairs_options(recipe.seed);
        let found = pairs_from_rewards(&model.name(), &used, &rewards, &options);
        evaluated = Some(found.map(|found| (found, rewards)));
    });
    let Some((evaluated, rewards)) = evaluated.transpose()? else {
        return Ok(None);
    };
    store::write_folder(&out.join("evaluations/trained"), &evaluated)?;
    samples::keep_pairs(out, "trained", &used, &rewards)?;
    Ok(Some(evaluated))
}
