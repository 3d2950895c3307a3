//! One training run from recipe to final checkpoint, shared by `train` and `quickstart`.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use patarm_eval::pairs::PairsEvaluator;
use patarm_files::ModelFiles;
use patarm_models::Decoder;
use patarm_models::kernels::Backend;
use patarm_reward::cold_start::{self, ColdStartRecord};
use patarm_reward::embedded::{EmbeddedJudge, JudgeSettings, JudgeText, ReadOut};
use patarm_reward::model::Evaluator;
use patarm_reward::observer::Observer;
use patarm_reward::policy_loss::kl::KlEstimator;
use patarm_reward::template::JudgeTemplate;
use patarm_text::Comparison;
use patarm_text::tokenizer::Tokenizer;
use patarm_train::grpo::{self, GrpoData};
use patarm_train::judgement_batch::EncodedJudgement;
use patarm_train::lengths::{LengthReport, fit_lengths};
use patarm_train::recipe::{ColdStartSource, GrpoConfig, JudgeConfig};
use patarm_train::rollout::EncodedPair;
use patarm_train::run_directory::{Phase, Resume, RunDirectory, RunInfo, RunState};
use patarm_train::trainer::{Trainer, TrainerContext, load_into};
use patarm_train::{Recipe, sft};

use crate::cli::Global;
use crate::exit::{Code, failure};
use crate::pull;
use crate::resolve::{self, Loaded, Located};
use crate::reward_base;

/// Label of every run until the paper's details are confirmed.
const METHOD: &str = "PaTaRM-style";

/// Everything a run needs, resolved.
pub(crate) struct Prepared {
    /// The recipe.
    pub(crate) recipe: Recipe,
    /// Where the base model is.
    pub(crate) located: Located,
    /// Its configuration and files.
    pub(crate) files: ModelFiles,
    /// Its tokenizer.
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// The decoder, adapter attached or blocks frozen as the recipe says.
    pub(crate) decoder: Decoder,
    /// Prompts and tags.
    pub(crate) text: JudgeText,
    /// Training comparisons.
    pub(crate) train: Vec<Comparison>,
    /// Held-out comparisons.
    pub(crate) held_out: Vec<Comparison>,
    /// What happened to long inputs.
    pub(crate) lengths: LengthReport,
}

/// Called after the cold start and after the reinforcement with the model as it is.
pub(crate) type AfterStage<'a> = dyn FnMut(Phase, &Decoder) -> anyhow::Result<()> + 'a;

/// Binds the judge template of a recipe to a tokenizer.
pub(crate) fn judge_text(
    config: &JudgeConfig,
    tokenizer: &Arc<Tokenizer>,
) -> anyhow::Result<JudgeText> {
    let template = Arc::new(JudgeTemplate::load(&config.template)?);
    Ok(JudgeText::new(Arc::clone(tokenizer), template, config.rubric_mode, config.terminator)?)
}

/// Loads the model, fits the data and applies what the recipe says about parameters.
pub(crate) fn prepare(
    recipe: Recipe,
    (train, held_out): (Vec<Comparison>, Vec<Comparison>),
    global: &Global,
) -> anyhow::Result<Prepared> {
    let Loaded { located, files, mut decoder, tokenizer } = resolve::open(&recipe.model, global)?;
    let text = judge_text(&recipe.judge, &tokenizer)?;
    let (train, lengths) = fit_lengths(train, &tokenizer, &recipe.data)?;
    let (held_out, _) = fit_lengths(held_out, &tokenizer, &recipe.data)?;
    if recipe.parameters.lora.is_some() && located.adapter.is_some() {
        decoder.merge_adapter();
    }
    reward_base::apply_parameters(&mut decoder, &recipe)?;
    Ok(Prepared { recipe, located, files, tokenizer, decoder, text, train, held_out, lengths })
}

/// Runs all stages of a prepared run and returns the trained decoder.
pub(crate) fn run(
    prepared: Prepared,
    (out, resume): (&Path, Resume),
    observer: &dyn Observer,
    after_stage: &mut AfterStage<'_>,
) -> anyhow::Result<Decoder> {
    let Prepared { recipe, located, files, tokenizer, decoder, text, train, held_out, .. } =
        prepared;
    let pairs = encode_pairs(&train, &text)?;
    let described = (METHOD, decoder.backend.as_ref());
    let mut info = run_info(&recipe, &located, described, (&train, &held_out))?;
    let run = open_run(out, &recipe, &info, resume)?;
    let evaluator = held_out_evaluator(&recipe, &held_out)?;
    let companions =
        |folder: &Path| tokenizer.save_files(folder).map_err(|error| error.to_string());
    let base = located.base.to_string_lossy().into_owned();
    let context = TrainerContext {
        recipe: &recipe,
        config: &files.config,
        base: &base,
        text: &text,
        observer,
        evaluator: evaluator.as_ref().map(|evaluator| evaluator as &dyn Evaluator),
        companions: &companions,
    };
    let records = cold_start_records(&recipe, &train, &text, out)?;
    let first = if recipe.cold_start.is_some() { Phase::ColdStart } else { Phase::Grpo };
    let mut trainer = Trainer::new(context, decoder, run, first);
    if resume == Resume::Yes {
        trainer.resume()?;
    }
    let outcome = stages(&mut trainer, &pairs, &records, after_stage);
    info.state = if outcome.is_ok() { RunState::Finished } else { RunState::Interrupted };
    trainer.run.write_info(&info)?;
    outcome?;
    Ok(trainer.decoder)
}

fn stages(
    trainer: &mut Trainer<'_>,
    pairs: &[EncodedPair],
    records: &[ColdStartRecord],
    after_stage: &mut AfterStage<'_>,
) -> anyhow::Result<()> {
    let recipe = trainer.context.recipe;
    if let (Some(config), Phase::ColdStart) = (&recipe.cold_start, trainer.position.phase) {
        sft::train(trainer, config, records)?;
        trainer.save_weights("cold_start")?;
        after_stage(Phase::ColdStart, &trainer.decoder)?;
        if recipe.grpo.is_some() {
            trainer.enter(Phase::Grpo);
        }
    }
    if let Some(config) = &recipe.grpo {
        reinforce(trainer, config, pairs, records)?;
        after_stage(Phase::Grpo, &trainer.decoder)?;
    }
    trainer.save_weights("final")?;
    Ok(())
}

fn reinforce(
    trainer: &mut Trainer<'_>,
    config: &GrpoConfig,
    pairs: &[EncodedPair],
    records: &[ColdStartRecord],
) -> anyhow::Result<()> {
    let context = &trainer.context;
    let (text, judge) = (context.text, &context.recipe.judge);
    let replayed = if config.replay.batch > 0 { records } else { &[] };
    let replay: Vec<EncodedJudgement> = replayed
        .iter()
        .map(|record| EncodedJudgement::new(record, text))
        .collect::<Result<_, _>>()?;
    let reference = reference(trainer, config)?;
    let data = GrpoData { pairs, replay: &replay, reference: reference.as_ref() };
    let silent = patarm_reward::observer::Silent;
    let settings = JudgeSettings {
        read_out: ReadOut::Expected,
        votes: 1,
        seed: context.recipe.seed,
        temperature: config.temperature,
        top_p: config.top_p,
        max_tokens: judge.max_judgement_tokens,
    };
    let measure = |decoder: &Decoder, evaluator: &dyn Evaluator| {
        evaluator.evaluate(&EmbeddedJudge {
            decoder,
            text,
            settings,
            observer: &silent,
            name: "policy".into(),
        })
    };
    Ok(grpo::train(trainer, config, &data, &measure)?)
}

/// The policy the KL term refers to: the model as it enters the reinforcement.
fn reference(trainer: &Trainer<'_>, config: &GrpoConfig) -> anyhow::Result<Option<Decoder>> {
    if config.loss.kl_estimator == KlEstimator::Off || config.loss.kl_coefficient == 0.0 {
        return Ok(None);
    }
    let recipe = trainer.context.recipe;
    let backend = trainer.decoder.backend.clone();
    let mut decoder = Decoder::load(backend, Path::new(trainer.context.base))?;
    if let Some(config) = &recipe.parameters.lora {
        decoder.attach_adapter(config, recipe.seed)?;
    }
    let cold_start = trainer.run.path().join("checkpoints/cold_start");
    if recipe.cold_start.is_some() {
        load_into(&mut decoder, &cold_start, recipe)?;
    }
    Ok(Some(decoder))
}

fn encode_pairs(train: &[Comparison], text: &JudgeText) -> anyhow::Result<Vec<EncodedPair>> {
    let encoded = train.iter().map(|comparison| EncodedPair::new(comparison, text));
    let pairs: Vec<EncodedPair> =
        encoded.filter_map(Result::transpose).collect::<Result<_, _>>()?;
    if pairs.is_empty() {
        return Err(failure(Code::Data, "no training comparison prefers a side"));
    }
    Ok(pairs)
}

/// The judgements of the cold start: read back on resume, built otherwise.
fn cold_start_records(
    recipe: &Recipe,
    train: &[Comparison],
    text: &JudgeText,
    out: &Path,
) -> anyhow::Result<Vec<ColdStartRecord>> {
    let Some(config) = &recipe.cold_start else { return Ok(Vec::new()) };
    let path = out.join("cold_start.jsonl");
    if path.exists() {
        return Ok(cold_start::from_jsonl(&std::fs::read_to_string(&path)?)?);
    }
    let records = match &config.source {
        ColdStartSource::LabelFree {} => {
            let settings = cold_start::label_free::LabelFreeConfig {
                seed: recipe.seed,
                per_item: 1,
                mode: recipe.judge.rubric_mode,
            };
            cold_start::label_free::label_free(
                &cold_start::requests_of(train),
                text.template(),
                &settings,
            )
        }
        ColdStartSource::File { path } => cold_start::from_jsonl(&std::fs::read_to_string(path)?)?,
        ColdStartSource::Teacher { model, judgements, balance_scores } => {
            crate::teacher::records(recipe, train, (model, *judgements, *balance_scores))?
        }
    };
    patarm_train::run_directory::write_atomically(
        &path,
        cold_start::to_jsonl(&records)?.as_bytes(),
    )?;
    Ok(records)
}

fn held_out_evaluator(
    recipe: &Recipe,
    held_out: &[Comparison],
) -> anyhow::Result<Option<PairsEvaluator>> {
    if recipe.evaluation.every == 0 || held_out.is_empty() {
        return Ok(None);
    }
    let used: Vec<Comparison> = held_out.iter().take(recipe.evaluation.pairs).cloned().collect();
    Ok(Some(PairsEvaluator::new(used, pairs_options(recipe.seed))?))
}

/// Options of a plain evaluation.
pub(crate) fn pairs_options(seed: u64) -> patarm_eval::pairs::PairsOptions {
    patarm_eval::pairs::PairsOptions {
        resampling: patarm_eval::interval::Resampling { resamples: 2_000, seed },
        readout: patarm_eval::pairs::Readout::Value,
        settings: std::collections::BTreeMap::new(),
    }
}

/// The directory of a run that begins, or goes on as what it was.
pub(crate) fn open_run(
    out: &Path,
    recipe: &Recipe,
    info: &RunInfo,
    resume: Resume,
) -> anyhow::Result<RunDirectory> {
    if resume == Resume::Yes {
        info.check_continues(out)?;
    }
    let run = RunDirectory::open(out, recipe, resume, unix_seconds)?;
    run.write_info(info)?;
    Ok(run)
}

/// What `run.json` says at the start of a run.
pub(crate) fn run_info(
    recipe: &Recipe,
    located: &Located,
    (method, backend): (&str, &dyn Backend),
    (train, held_out): (&[Comparison], &[Comparison]),
) -> anyhow::Result<RunInfo> {
    let used = UsedData {
        sha256: pull::sha256_of_bytes(&serde_json::to_vec(train)?),
        num_train: train.len(),
        num_held_out: held_out.len(),
    };
    Ok(described_run(recipe, located, (method, backend), used))
}

/// What a run's description says of its data.
pub(crate) struct UsedData {
    /// Of the training examples.
    pub(crate) sha256: String,
    /// Training examples.
    pub(crate) num_train: usize,
    /// Held-out examples.
    pub(crate) num_held_out: usize,
}

/// The same for examples of any kind.
pub(crate) fn described_run(
    recipe: &Recipe,
    located: &Located,
    (method, backend): (&str, &dyn Backend),
    used: UsedData,
) -> RunInfo {
    RunInfo {
        version: patarm_train::run_directory::RUN_VERSION,
        program: format!("patarm {}", env!("CARGO_PKG_VERSION")),
        method: method.into(),
        seed: recipe.seed,
        model_sha256: located.sha256.clone(),
        data_sha256: used.sha256,
        device: backend.name(),
        precision: backend.precision().name().into(),
        num_pairs: used.num_train,
        num_held_out: used.num_held_out,
        state: RunState::Running,
    }
}

/// Seconds since 1970, for event files only.
#[expect(clippy::disallowed_methods, reason = "a date is told, no time measured")]
pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}
