//! `patarm train`.

use std::path::{Path, PathBuf};

use patarm_models::Decoder;
use patarm_text::Comparison;
use patarm_train::Recipe;
use patarm_train::run_directory::{Phase, Resume};
use serde::Serialize;

use crate::cli::{Global, Train};
use crate::energy::{self, EnergyRun};
use crate::exit::{Code, failure};
use crate::observer::Terminal;
use crate::stages::StageMeasurement;
use crate::training::{self, Prepared};
use crate::{datasets, output, reward_training, step_training};

/// Trains as a recipe says, or says what that would need.
pub(super) fn run(options: &Train, global: &Global) -> anyhow::Result<()> {
    let (recipe_path, out, resume) = places(options)?;
    let recipe = Recipe::load(&recipe_path, &options.changes)?;
    let folder = recipe_path.parent().unwrap_or(Path::new("."));
    if recipe.process_reward.is_some() {
        return process_reward(options, recipe, (&out, resume), global);
    }
    let data = datasets::split(&recipe.data, recipe.seed, folder)?;
    if !recipe.reward_tables().is_empty() {
        return reward_model(options, (recipe, data), (&out, resume), global);
    }
    let prepared = training::prepare(recipe, data, global)?;
    if options.dry_run {
        return show(&foresee(&prepared)?, global);
    }
    let observer = Terminal::install();
    output::remark_lengths(prepared.lengths);
    let measurement = StageMeasurement::new(&prepared, &observer, &out);
    let mut after_stage = |phase: Phase, decoder: &Decoder| measurement.measure(phase, decoder);
    training::run(prepared, (&out, resume), &observer, &mut after_stage)?;
    let results = measurement.results()?;
    results.remark();
    if global.json {
        let object = serde_json::json!({ "version": 1, "run": out, "stages": results });
        return output::json(&object);
    }
    output::line(&out.display().to_string())
}

/// Trains a discriminative reward model.
fn reward_model(
    options: &Train,
    (recipe, data): (Recipe, (Vec<Comparison>, Vec<Comparison>)),
    (out, resume): (&Path, Resume),
    global: &Global,
) -> anyhow::Result<()> {
    let folder = options.recipe.parent().unwrap_or(Path::new("."));
    let evaluated = if let Some(config) = &recipe.ebrm {
        if options.dry_run {
            return energy::foresee(&recipe, config, &data)?.show(global);
        }
        let observer = &Terminal::install();
        let run = EnergyRun { recipe: &recipe, config, data, global, observer };
        run.run((out, resume))?
    } else {
        let prepared = reward_training::prepare(recipe, data, folder, global)?;
        if options.dry_run {
            return reward_training::foresee(&prepared)?.show(global);
        }
        let observer = Terminal::install();
        output::remark_lengths(prepared.lengths);
        reward_training::run(prepared, (out, resume), &observer)?
    };
    let result = evaluated.map(|evaluated| evaluated.result);
    if let Some(accuracy) = result.as_ref().and_then(|result| result.accuracy.half_credit.value) {
        output::remark(&format!("held-out accuracy {:.1} %", 100.0 * accuracy));
    }
    if global.json {
        return output::json(&serde_json::json!({ "version": 1, "run": out, "result": result }));
    }
    output::line(&out.display().to_string())
}

/// Trains a process reward model.
fn process_reward(
    options: &Train,
    recipe: Recipe,
    (out, resume): (&Path, Resume),
    global: &Global,
) -> anyhow::Result<()> {
    let folder = options.recipe.parent().unwrap_or(Path::new("."));
    let prepared = step_training::prepare(recipe, folder, global)?;
    if options.dry_run {
        return step_training::foresee(&prepared)?.show(global);
    }
    let observer = Terminal::install();
    step_training::remark(&prepared);
    let result = step_training::run(prepared, (out, resume), &observer)?;
    if let Some(auc) = result.as_ref().and_then(|result| result.auc?.value) {
        output::remark(&format!("held-out step AUC {:.1} %", 100.0 * auc));
    }
    if global.json {
        return output::json(&serde_json::json!({ "version": 1, "run": out, "result": result }));
    }
    output::line(&out.display().to_string())
}

/// Recipe file, run directory, and whether an earlier run goes on.
fn places(options: &Train) -> anyhow::Result<(PathBuf, PathBuf, Resume)> {
    if let Some(run) = &options.resume {
        let recipe = run.join("recipe.toml");
        if !recipe.exists() {
            return Err(failure(Code::Usage, format!("{}: no run to resume here", run.display())));
        }
        return Ok((options.recipe.clone(), run.clone(), Resume::Yes));
    }
    let name = options.recipe.file_stem().unwrap_or_default();
    let out = options.out.clone().unwrap_or_else(|| Path::new("runs").join(name));
    Ok((options.recipe.clone(), out, Resume::No))
}

/// What a run would need.
#[derive(Debug, Serialize)]
struct Foreseen {
    version: u32,
    training_pairs: usize,
    held_out_pairs: usize,
    trainable_parameters: usize,
    cold_start_tokens: f64,
    rollout_tokens: f64,
    training_tokens: f64,
    memory_bytes: f64,
    probe_tokens_per_s: f64,
    seconds: f64,
}

/// Estimates tokens from the data, speed from a short probe, memory from counts.
fn foresee(prepared: &Prepared) -> anyhow::Result<Foreseen> {
    let Prepared { recipe, decoder, text, train, held_out, .. } = prepared;
    let mut side_tokens = 0usize;
    for comparison in train {
        for item in [&comparison.first, &comparison.second] {
            side_tokens +=
                text.encode(item, comparison.task)?.iter().skip(1).map(Vec::len).sum::<usize>();
        }
    }
    let mean_side = side_tokens as f64 / (2 * train.len()).max(1) as f64;
    let judgement = recipe.judge.max_judgement_tokens as f64;
    let cold =
        recipe.cold_start.as_ref().map_or(0.0, |config| config.steps as f64 * config.batch as f64);
    let cold_start_tokens = cold * (mean_side + judgement);
    let (mut rollout_tokens, mut training_tokens) = (0.0, cold_start_tokens);
    if let Some(grpo) = &recipe.grpo {
        let judgements = (grpo.steps * grpo.pairs as u64 * 2 * grpo.num_judgements as u64) as f64;
        let sides = (grpo.steps * grpo.pairs as u64 * 2) as f64;
        rollout_tokens = judgements * judgement;
        training_tokens += (sides * mean_side + rollout_tokens) * grpo.inner_steps as f64;
        training_tokens += grpo.steps as f64 * grpo.replay.batch as f64 * (mean_side + judgement);
    }
    let probe_tokens_per_s = probe(decoder)?;
    let trainable = decoder.parameters.num_trainable();
    let shape = &decoder.shape;
    let kept_per_token =
        shape.layers * (4 * shape.hidden + 2 * shape.key_width() + 2 * shape.intermediate);
    let micro_batch = recipe.grpo.as_ref().map_or(2048, |grpo| grpo.micro_batch_tokens);
    let states = recipe.parameters.optimizer_states;
    let trained = decoder.parameters.iter().filter(|(_, entry)| entry.trainable);
    let moments: usize = trained.map(|(_, entry)| states.num_floats(entry.value.len())).sum();
    let activations = kept_per_token * micro_batch * 3 / 2;
    let floats = decoder.parameters.num_elements() + trainable + moments + activations;
    Ok(Foreseen {
        version: 1,
        training_pairs: train.len(),
        held_out_pairs: held_out.len(),
        trainable_parameters: trainable,
        cold_start_tokens,
        rollout_tokens,
        training_tokens,
        memory_bytes: 4.0 * floats as f64,
        probe_tokens_per_s,
        // A forward and its backward cost about three forwards; decoding about two.
        seconds: (3.0 * training_tokens + 2.0 * rollout_tokens) / probe_tokens_per_s,
    })
}

/// Forward tokens a second on 256 tokens.
fn probe(decoder: &Decoder) -> anyhow::Result<f64> {
    let mut forest = patarm_models::Forest::new();
    forest.add(None, &[1; 256]);
    let options = patarm_models::ForwardOptions::default();
    drop(decoder.forward(&forest, &options)?);
    let mut meter = patarm_train::trainer::Meter { seconds: 0.0, tokens: 256 };
    meter.time(|| decoder.forward(&forest, &options).map(drop))?;
    Ok(meter.tokens_per_s())
}

fn show(foreseen: &Foreseen, global: &Global) -> anyhow::Result<()> {
    if global.json {
        return output::json(foreseen);
    }
    output::line(&format!("training pairs        {}", foreseen.training_pairs))?;
    output::line(&format!("held-out pairs        {}", foreseen.held_out_pairs))?;
    output::line(&format!("trainable parameters  {}", foreseen.trainable_parameters))?;
    output::line(&format!("rollout tokens        at most {:.0}", foreseen.rollout_tokens))?;
    output::line(&format!("training tokens       at most {:.0}", foreseen.training_tokens))?;
    output::line(&format!(
        "memory                about {:.1} GiB",
        foreseen.memory_bytes / f64::from(1 << 30)
    ))?;
    output::line(&format!(
        "time                  about {:.0} minutes here",
        foreseen.seconds / 60.0
    ))
}
