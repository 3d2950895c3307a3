//! What every run that trains a reward model does alike, whatever its head: open the
//! base, apply the recipe's parameters, train to the final checkpoint.

use patarm_files::{ModelFiles, RewardConfig, RewardFamily, open_model};
use patarm_models::{AdamWConfig, Decoder, checkpoint};
use patarm_train::Recipe;
use patarm_train::discriminative::{self, Objective, Schedule};
use patarm_train::run_directory::{Resume, RunInfo, RunState};
use patarm_train::trainer::Trainer;

use crate::cli::Global;
use crate::device;
use crate::exit::{Code, failure};
use crate::resolve::Located;

/// Files and decoder of a located model as a family needs it, without its adapter.
pub(crate) fn open(
    located: &Located,
    family: &RewardFamily,
    global: &Global,
) -> anyhow::Result<(ModelFiles, Decoder)> {
    let files = open_model(&located.base)?;
    let backend = device::open(global)?;
    let decoder = match family.keeps_output() {
        true => Decoder::from_files(backend, &files)?,
        false => Decoder::body_from_files(backend, &files)?,
    };
    Ok((files, decoder))
}

/// The same of a model that writes text, its adapter merged.
pub(crate) fn open_writer(
    located: &Located,
    family: &RewardFamily,
    global: &Global,
) -> anyhow::Result<(ModelFiles, Decoder)> {
    let (files, mut decoder) = open(located, family, global)?;
    if let Some(adapter) = &located.adapter {
        checkpoint::load_adapter(adapter, &mut decoder)?;
        decoder.merge_adapter();
    }
    Ok((files, decoder))
}

/// Refuses a new adapter on top of one.
pub(crate) fn check_adapter(recipe: &Recipe, located: &Located) -> anyhow::Result<()> {
    if recipe.parameters.lora.is_none() || located.adapter.is_none() {
        return Ok(());
    }
    let message = format!(
        "{} is an adapter, and a new one needs a whole model below it; merge it first (patarm model merge)",
        recipe.model
    );
    Err(failure(Code::Model, message))
}

/// Attaches the adapter or freezes the blocks that a recipe asks for.
pub(crate) fn apply_parameters(decoder: &mut Decoder, recipe: &Recipe) -> anyhow::Result<()> {
    if recipe.parameters.lora.is_none() && decoder.parameters.has_quantised() {
        let message = "weights that stay quantised cannot be trained; set parameters.lora in the \
                       recipe, or choose another --precision";
        return Err(failure(Code::Usage, message));
    }
    if let Some(lora) = &recipe.parameters.lora {
        decoder.attach_adapter(lora, recipe.seed)?;
    } else if let Some(layer) = recipe.parameters.freeze_below {
        decoder.freeze_below(layer);
    }
    Ok(())
}

/// Trains from where the run stands to its final checkpoint, and notes how it ended.
pub(crate) fn train(
    trainer: &mut Trainer<'_, ()>,
    (reward, resume): (RewardConfig, Resume),
    schedule: (&Schedule, &AdamWConfig),
    objective: &dyn Objective,
    info: &mut RunInfo,
) -> anyhow::Result<()> {
    trainer.reward = Some(reward);
    if resume == Resume::Yes {
        trainer.resume()?;
    }
    let outcome = discriminative::train(trainer, schedule, objective);
    info.state = if outcome.is_ok() { RunState::Finished } else { RunState::Interrupted };
    trainer.run.write_info(info)?;
    outcome?;
    trainer.save_weights("final")?;
    Ok(())
}
