//! What all loops share: the model in training, its optimiser, its run directory.

use std::path::{Path, PathBuf};
use std::time::Instant;

use patarm_models::checkpoint;
use patarm_models::files::{ModelConfig, RewardConfig, StoredType};
use patarm_models::kernels::Backend;
use patarm_models::optimizer::UpdateReport;
use patarm_models::reward_checkpoint::{save_reward_adapter, save_reward_model};
use patarm_models::{AdamWConfig, Decoder, ForwardOptions, Gradients, Optimizer};
use patarm_reward::embedded::JudgeText;
use patarm_reward::model::Evaluator;
use patarm_reward::observer::Observer;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::recipe::Recipe;
use crate::run_directory::{Phase, RunDirectory, write_json};

/// Version of `trainer.json`.
const TRAINER_VERSION: u32 = 1;

/// Where a checkpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Format version.
    pub version: u32,
    /// Stage.
    pub phase: Phase,
    /// Updates of the stage that are done.
    pub step: u64,
    /// Best held-out accuracy so far, where it was measured.
    pub best_accuracy: Option<f64>,
    /// Batches of pairs drawn, resampled ones included.
    pub draws: u64,
}

impl Position {
    /// The beginning of a stage.
    #[must_use]
    pub fn start(phase: Phase) -> Self {
        Self { version: TRAINER_VERSION, phase, step: 0, best_accuracy: None, draws: 0 }
    }
}

/// Writes whatever a checkpoint needs beside weights, such as tokenizer files.
pub type WriteCompanions<'a> = dyn Fn(&Path) -> Result<(), String> + 'a;

/// Everything that is fixed during a run; `T` is what turns data into tokens.
pub struct TrainerContext<'a, T = JudgeText> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Configuration of the base model.
    pub config: &'a ModelConfig,
    /// Name or path of the base model, for adapters.
    pub base: &'a str,
    /// Prompts and tags.
    pub text: &'a T,
    /// Who watches.
    pub observer: &'a dyn Observer,
    /// Held-out measurement.
    pub evaluator: Option<&'a dyn Evaluator>,
    /// Files written beside weights.
    pub companions: &'a WriteCompanions<'a>,
}

/// A model in training.
pub struct Trainer<'a, T = JudgeText> {
    /// Fixed surroundings.
    pub context: TrainerContext<'a, T>,
    /// The model.
    pub decoder: Decoder,
    /// Optimiser of the current stage.
    pub optimizer: Optimizer,
    /// Gradient memory.
    pub gradients: Gradients,
    /// Where results go.
    pub run: RunDirectory,
    /// How far the current stage is.
    pub position: Position,
    /// What stands on top of the decoder; `None` for a model that writes text.
    pub reward: Option<RewardConfig>,
}

impl<T> std::fmt::Debug for Trainer<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("position", &self.position).finish_non_exhaustive()
    }
}

impl<'a, T> Trainer<'a, T> {
    /// A trainer at the beginning of a stage.
    #[must_use]
    pub fn new(
        context: TrainerContext<'a, T>,
        decoder: Decoder,
        run: RunDirectory,
        phase: Phase,
    ) -> Self {
        let backend = decoder.backend.clone();
        let states = context.recipe.parameters.optimizer_states;
        let optimizer = Optimizer::new(backend.as_ref(), &decoder.parameters, states);
        let gradients = Gradients::zeros(backend.as_ref(), &decoder.parameters);
        let position = Position::start(phase);
        Self { context, decoder, optimizer, gradients, run, position, reward: None }
    }

    /// Enters a stage with a fresh optimiser.
    pub fn enter(&mut self, phase: Phase) {
        let backend = self.decoder.backend.clone();
        let states = self.context.recipe.parameters.optimizer_states;
        self.optimizer = Optimizer::new(backend.as_ref(), &self.decoder.parameters, states);
        self.position = Position::start(phase);
    }

    /// How forwards run.
    #[must_use]
    pub fn forward_options(&self) -> ForwardOptions {
        let activations = self.context.recipe.parameters.activations();
        ForwardOptions { activations, ..ForwardOptions::default() }
    }

    /// Zero gradients.
    pub fn clear_gradients(&mut self) {
        let backend = self.decoder.backend.clone();
        self.gradients.clear(backend.as_ref());
    }

    /// One optimiser update at the learning rate of `step` of `total`.
    pub fn update(&mut self, config: &AdamWConfig, step: u64, total: u64) -> UpdateReport {
        let backend = self.decoder.backend.clone();
        let learning_rate = config.learning_rate_at(step, total);
        self.optimizer.update(
            backend.as_ref(),
            &mut self.decoder.parameters,
            &self.gradients,
            config,
            (learning_rate, 1.0),
        )
    }

    /// Saves when the recipe says so, and stops when the user does.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after saving, or when saving fails.
    pub fn after_step(&mut self, total: u64) -> Result<(), Error> {
        let step = self.position.step;
        let every = self.context.recipe.checkpoint.every;
        let is_interrupted = self.context.observer.is_interrupted();
        if is_interrupted || step == total || (every > 0 && step.is_multiple_of(every)) {
            self.save()?;
        }
        if is_interrupted && step < total {
            return Err(Error::Interrupted { step, path: self.run.path().to_path_buf() });
        }
        Ok(())
    }

    fn folder_of(&self, name: &str) -> PathBuf {
        self.run.path().join("checkpoints").join(name)
    }

    /// Writes a checkpoint of the current position and removes old ones.
    ///
    /// # Errors
    /// When it cannot be written; earlier checkpoints stay.
    pub fn save(&mut self) -> Result<(), Error> {
        let name = format!("{}-step-{}", self.position.phase.name(), self.position.step);
        self.write_checkpoint(&name, Contents::Resumable)?;
        self.remove_old()
    }

    /// Writes weights without optimiser state under a fixed name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_weights(&self, name: &str) -> Result<PathBuf, Error> {
        self.write_checkpoint(name, Contents::Weights)
    }

    /// Writes beside, then renames: a crash leaves the previous checkpoint whole.
    fn write_checkpoint(&self, name: &str, contents: Contents) -> Result<PathBuf, Error> {
        let target = self.folder_of(name);
        let partial = self.folder_of(&format!(".partial-{name}"));
        let io = |error: std::io::Error| Error::run(&target, error);
        if partial.exists() {
            std::fs::remove_dir_all(&partial).map_err(io)?;
        }
        std::fs::create_dir_all(&partial).map_err(io)?;
        // What cannot be written is a matter of the run directory, not of the model.
        let refuse = |error: patarm_models::Error| Error::run(&target, error);
        self.write_model(&partial).map_err(refuse)?;
        (self.context.companions)(&partial).map_err(|message| Error::run(&target, message))?;
        if contents == Contents::Resumable {
            let stored = (self.decoder.backend.as_ref(), &self.decoder.parameters);
            checkpoint::save_optimizer(&partial, stored, &self.optimizer).map_err(refuse)?;
        }
        write_json(&partial.join("trainer.json"), &self.position)?;
        std::fs::copy(self.run.path().join("recipe.toml"), partial.join("recipe.toml"))
            .map_err(io)?;
        replace_folder(&partial, &target).map_err(io)?;
        Ok(target)
    }

    fn write_model(&self, folder: &Path) -> Result<(), patarm_models::Error> {
        let (decoder, context) = (&self.decoder, &self.context);
        match (&context.recipe.parameters.lora, &self.reward) {
            (Some(lora), None) => checkpoint::save_adapter(folder, decoder, lora, context.base),
            (None, None) => {
                checkpoint::save_model(folder, decoder, context.config, StoredType::F32)
            }
            (Some(lora), Some(reward)) => {
                save_reward_adapter(folder, decoder, (lora, reward), context.base)
            }
            (None, Some(reward)) => {
                save_reward_model(folder, decoder, (context.config, reward), StoredType::F32)
            }
        }
    }

    fn remove_old(&self) -> Result<(), Error> {
        let mut found = resumable(&self.run.path().join("checkpoints"));
        found.sort_by_key(|(position, _)| (position.phase, position.step));
        let keep = self.context.recipe.checkpoint.keep.max(1);
        let excess = found.len().saturating_sub(keep);
        for (_, path) in found.into_iter().take(excess) {
            std::fs::remove_dir_all(&path).map_err(|error| Error::run(&path, error))?;
        }
        Ok(())
    }

    /// Goes on from the latest checkpoint of the run, where there is one.
    ///
    /// # Errors
    /// When a checkpoint is there but cannot be read.
    pub fn resume(&mut self) -> Result<(), Error> {
        let mut found = resumable(&self.run.path().join("checkpoints"));
        found.sort_by_key(|(position, _)| (position.phase, position.step));
        let Some((position, folder)) = found.pop() else {
            return Ok(());
        };
        self.load_weights(&folder)?;
        self.enter(position.phase);
        let stored = (self.decoder.backend.as_ref(), &self.decoder.parameters);
        checkpoint::load_optimizer(&folder, stored, &mut self.optimizer)?;
        self.position = position;
        self.run.truncate_metrics(position.phase, position.step)
    }

    /// Reads the weights of a checkpoint of this run.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn load_weights(&mut self, folder: &Path) -> Result<(), Error> {
        load_into(&mut self.decoder, folder, self.context.recipe)
    }
}

/// Reads the weights of a checkpoint into a decoder prepared as the recipe says.
///
/// # Errors
/// When they cannot be read.
pub fn load_into(decoder: &mut Decoder, folder: &Path, recipe: &Recipe) -> Result<(), Error> {
    match recipe.parameters.lora {
        Some(_) => checkpoint::load_adapter_weights(folder, decoder)?,
        None => checkpoint::load_weights(folder, decoder)?,
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    Resumable,
    Weights,
}

/// Complete resumable checkpoints of a folder.
pub(crate) fn resumable(folder: &Path) -> Vec<(Position, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let read = |path: PathBuf| {
        let is_partial = path.file_name()?.to_str()?.starts_with('.');
        if is_partial || !path.join(checkpoint::OPTIMIZER_FILE).exists() {
            return None;
        }
        let text = std::fs::read_to_string(path.join("trainer.json")).ok()?;
        Some((serde_json::from_str::<Position>(&text).ok()?, path))
    };
    entries.flatten().filter_map(|entry| read(entry.path())).collect()
}

/// Moves `from` to `to`, which may exist.
pub(crate) fn replace_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    if to.exists() {
        // A crash between the two renames leaves `.old-…`, which is not a checkpoint,
        // and an older checkpoint to resume from.
        let name = to.file_name().and_then(|name| name.to_str()).unwrap_or("checkpoint");
        let old = to.with_file_name(format!(".old-{name}"));
        if old.exists() {
            std::fs::remove_dir_all(&old)?;
        }
        std::fs::rename(to, &old)?;
        std::fs::rename(from, to)?;
        return std::fs::remove_dir_all(&old);
    }
    std::fs::rename(from, to)?;
    match to.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Seconds and tokens of a phase of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Meter {
    /// Seconds spent.
    pub seconds: f64,
    /// Tokens computed.
    pub tokens: usize,
}

impl Meter {
    /// Times a piece of work.
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.seconds += start.elapsed().as_secs_f64();
        result
    }

    /// Tokens a second; 0 when nothing was timed.
    #[must_use]
    pub fn tokens_per_s(&self) -> f64 {
        if self.seconds > 0.0 { self.tokens as f64 / self.seconds } else { 0.0 }
    }
}

/// The most memory a device has given at one time, or, where memory is the process's, was
/// resident; in bytes, 0 where the system does not say.
#[must_use]
pub fn peak_memory_bytes(backend: &dyn Backend) -> u64 {
    backend.peak_memory_bytes().unwrap_or_else(peak_resident_bytes)
}

fn peak_resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
