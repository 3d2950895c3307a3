//! An energy network on the embeddings and rewards of a frozen reward model.
//!
//! Implements the training of EBRM (arXiv 2504.13134): see [`patarm_reward::energy`] for
//! the loss, the filter and the inference, and [`patarm_models::energy`] for the network.
//! The data are the base model's own records of both sides of every labelled pair, one
//! after the other; which side was preferred matters to the filter alone.
//!
//! # Deviations
//! - The loss is computed in log space, and records are taken a few at a time: neither
//!   changes the gradient.
//! - Draws of noise and dropout depend on seed, step and record, so that a resumed run
//!   repeats bit for bit.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use patarm_models::checkpoint;
use patarm_models::energy::{Candidates, Dropout, EnergyNet, EnergyShape};
use patarm_models::{AdamWConfig, Gradients, Optimizer, OptimizerStates};
use patarm_reward::energy::{
    EnergyConfig, Noise, Record, Refinement, RewardScale, Scaling, conflict_filter, nce_plus,
};
use patarm_reward::model::Measurement;
use patarm_reward::observer::Observer;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::recipe::Recipe;
use crate::run_directory::{Phase, Resume, RunDirectory, write_json};
use crate::trainer::{Meter, Position, peak_memory_bytes, replace_folder, resumable};

/// File of the description beside a network's weights.
pub const ENERGY_FILE: &str = "energy.json";

/// Size of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum EnergySize {
    /// Branch 16, 32, 64; joint 1024, 512.
    Small {},
    /// Branch 64, 128, 256; joint 8192, 4096, 2048.
    Large {},
    /// Any other.
    Custom {
        /// Widths of the branch that reads the reward.
        branch: Vec<usize>,
        /// Widths of the layers after it is joined with the embedding.
        joint: Vec<usize>,
    },
}

impl EnergySize {
    /// The widths over embeddings of a width.
    #[must_use]
    pub fn shape(&self, embedding: usize) -> EnergyShape {
        match self {
            Self::Small {} => EnergyShape::small(embedding),
            Self::Large {} => EnergyShape::large(embedding),
            Self::Custom { branch, joint } => {
                EnergyShape { embedding, branch: branch.clone(), joint: joint.clone() }
            }
        }
    }
}

/// Which pairs' records are learnt from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairFilter {
    /// Those the base orders as the label does.
    #[default]
    Agreeing,
    /// All.
    All,
}

/// How much is trained, in what portions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnergySchedule {
    /// Passes over the records, in their order.
    pub epochs: u64,
    /// Records an update; the last of a pass may be smaller.
    pub batch: usize,
    /// Candidates of one forward; those of a record are never split.
    pub micro_batch_rows: usize,
}

impl Default for EnergySchedule {
    fn default() -> Self {
        Self { epochs: 5, batch: 256, micro_batch_rows: 8192 }
    }
}

/// The table `[ebrm]` of a recipe. Defaults are the authors' run on small models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EbrmConfig {
    /// Size of the network.
    pub size: EnergySize,
    /// Share of units left out in training.
    pub dropout: f64,
    /// Candidates of a record.
    pub noise: Noise,
    /// λ of λ · mean f².
    pub regularisation: f64,
    /// Scale on which the network sees rewards.
    pub scaling: Scaling,
    /// Which pairs are used.
    pub filter: PairFilter,
    /// How rewards are refined afterwards.
    pub refinement: Refinement,
    /// How much is trained.
    pub schedule: EnergySchedule,
    /// Optimiser.
    pub optimizer: AdamWConfig,
}

impl Default for EbrmConfig {
    fn default() -> Self {
        Self {
            size: EnergySize::Small {},
            dropout: 0.5,
            noise: Noise::default(),
            regularisation: 0.05,
            scaling: Scaling::default(),
            filter: PairFilter::default(),
            refinement: Refinement::default(),
            schedule: EnergySchedule::default(),
            optimizer: AdamWConfig {
                learning_rate: 9e-5,
                beta2: 0.999,
                weight_decay: 0.01,
                max_norm: 0.0,
                ..AdamWConfig::default()
            },
        }
    }
}

impl EbrmConfig {
    /// What is wrong with it.
    ///
    /// # Errors
    /// When a value cannot work.
    pub fn check(&self) -> Result<(), String> {
        self.size.shape(1).check().map_err(|what| format!("size: {what}"))?;
        self.noise.check()?;
        self.refinement.check()?;
        if !(0.0..1.0).contains(&self.dropout) {
            return Err("dropout must lie in 0..1".into());
        }
        if !self.regularisation.is_finite() || self.regularisation < 0.0 {
            return Err("regularisation must not be negative".into());
        }
        if let Scaling::Standard { factor } = self.scaling
            && !(factor.is_finite() && factor > 0.0)
        {
            return Err("scaling.factor must be positive".into());
        }
        if self.schedule.batch == 0 || self.schedule.epochs == 0 {
            return Err("schedule.batch and schedule.epochs must be at least 1".into());
        }
        Ok(())
    }
}

/// What is learnt from.
#[derive(Clone, Debug, PartialEq)]
pub struct EnergyData {
    /// Records, both sides of a pair one after the other, rewards scaled.
    pub records: Vec<Record>,
    /// Scale of the rewards.
    pub scale: RewardScale,
    /// Pairs the base was asked about.
    pub num_pairs: usize,
    /// Pairs left by the filter.
    pub num_kept: usize,
    /// Share of the base's rewards within the gate; others are refined from a draw.
    pub share_within_gate: f64,
}

impl EnergyData {
    /// Fits the scale over all records, then filters pairs (preferred, other).
    #[must_use]
    pub fn new(pairs: Vec<[Record; 2]>, config: &EbrmConfig) -> Self {
        let rewards: Vec<f64> = pairs.iter().flatten().map(|record| record.reward).collect();
        let scale = config.scaling.fit(&rewards);
        let within = |reward: &&f64| scale.scaled(**reward).abs() <= config.refinement.gate;
        let num_within = rewards.iter().filter(within).count();
        let num_pairs = pairs.len();
        let kept = match config.filter {
            PairFilter::Agreeing => conflict_filter(pairs),
            PairFilter::All => pairs,
        };
        let num_kept = kept.len();
        let scaled = |record: Record| Record { reward: scale.scaled(record.reward), ..record };
        let records = kept.into_iter().flatten().map(scaled).collect();
        let share_within_gate = num_within as f64 / rewards.len().max(1) as f64;
        Self { records, scale, num_pairs, num_kept, share_within_gate }
    }
}

/// Measures a network on held-out comparisons: refined rewards, then the base's own.
pub type MeasureEnergy<'a> = dyn Fn(&EnergyNet) -> (Measurement, Measurement) + 'a;

/// Everything that is fixed during a run.
pub struct EnergyContext<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Its table.
    pub config: &'a EbrmConfig,
    /// Records.
    pub data: &'a EnergyData,
    /// Who watches.
    pub observer: &'a dyn Observer,
    /// Held-out measurement, where there is any.
    pub measure: Option<&'a MeasureEnergy<'a>>,
}

impl std::fmt::Debug for EnergyContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnergyContext").field("config", self.config).finish_non_exhaustive()
    }
}

/// A network in training.
#[derive(Debug)]
pub struct EnergyTrainer<'a> {
    context: EnergyContext<'a>,
    /// The network.
    pub net: EnergyNet,
    optimizer: Optimizer,
    gradients: Gradients,
    /// Where results go.
    pub run: RunDirectory,
    position: Position,
    /// What `energy.json` will say.
    pub description: EnergyConfig,
}

impl<'a> EnergyTrainer<'a> {
    /// A trainer at its beginning.
    #[must_use]
    pub fn new(
        context: EnergyContext<'a>,
        net: EnergyNet,
        run: RunDirectory,
        description: EnergyConfig,
    ) -> Self {
        let backend = Arc::clone(&net.backend);
        let optimizer = Optimizer::new(backend.as_ref(), &net.parameters, OptimizerStates::F32);
        let gradients = Gradients::zeros(backend.as_ref(), &net.parameters);
        let position = Position::start(Phase::Ebrm);
        Self { context, net, optimizer, gradients, run, position, description }
    }

    /// Trains to the end and writes `checkpoints/final`.
    ///
    /// # Errors
    /// When there is no record, a file cannot be written or read, or the user stops.
    pub fn train(&mut self, resume: Resume) -> Result<(), Error> {
        if self.context.data.records.is_empty() {
            return Err(Error::Data(
                "no pair is left to learn from: the base model orders none as its label does"
                    .into(),
            ));
        }
        if resume == Resume::Yes {
            self.resume()?;
        }
        let schedule = self.context.config.schedule;
        let per_epoch = self.context.data.records.len().div_ceil(schedule.batch) as u64;
        let total = per_epoch * schedule.epochs;
        self.context.observer.begin(Phase::Ebrm.name(), total);
        while self.position.step < total {
            let step = self.position.step + 1;
            self.step(step, (per_epoch, total))?;
            let every = self.context.recipe.evaluation.every;
            if step < total && every > 0 && step.is_multiple_of(every) {
                self.measure()?;
            }
            self.after_step(total)?;
        }
        self.measure()?;
        self.context.observer.end();
        self.write_checkpoint("final", Contents::Final)?;
        Ok(())
    }

    fn step(&mut self, step: u64, (per_epoch, total): (u64, u64)) -> Result<(), Error> {
        let config = self.context.config;
        let schedule = config.schedule;
        let first = ((step - 1) % per_epoch) as usize * schedule.batch;
        let records = &self.context.data.records;
        let batch: Vec<usize> = (first..records.len().min(first + schedule.batch)).collect();
        let rows = config.noise.negatives + 1;
        let portion = (schedule.micro_batch_rows / rows).max(1);
        let backend = Arc::clone(&self.net.backend);
        self.gradients.clear(backend.as_ref());
        let (mut loss, mut meter) = (0.0, Meter::default());
        for part in batch.chunks(portion) {
            loss += meter.time(|| self.accumulate(part, step, batch.len()));
        }
        let rate = config.optimizer.learning_rate_at(step, total);
        let update = self.optimizer.update(
            backend.as_ref(),
            &mut self.net.parameters,
            &self.gradients,
            &config.optimizer,
            (rate, 1.0),
        );
        meter.tokens = batch.len() * rows;
        self.position.step = step;
        let loss = loss / batch.len() as f64;
        let values = [
            ("loss", loss),
            ("gradient_norm", update.gradient_norm),
            ("learning_rate", update.learning_rate),
            ("train_candidates_per_s", meter.tokens_per_s()),
            ("peak_memory_bytes", peak_memory_bytes(backend.as_ref()) as f64),
        ];
        self.run.metrics(
            Phase::Ebrm,
            step,
            &values.map(|(name, value)| (name.to_owned(), value)),
        )?;
        self.context.observer.advance(step, &format!("loss {loss:.4}"));
        Ok(())
    }

    /// Adds the gradient of some records' mean loss over `denominator` and returns the
    /// sum of their losses.
    fn accumulate(&mut self, part: &[usize], step: u64, denominator: usize) -> f64 {
        let (config, records) = (self.context.config, &self.context.data.records);
        let (seed, noise) = (self.context.recipe.seed, &config.noise);
        let rows = noise.negatives + 1;
        let chosen = || part.iter().map(|record| &records[*record]);
        let sets: Vec<Vec<f64>> = part
            .iter()
            .map(|record| noise.candidates(records[*record].reward, (seed, step, *record as u64)))
            .collect();
        let rewards: Vec<f32> = sets.iter().flatten().map(|reward| *reward as f32).collect();
        let items: Vec<u32> = (0..rewards.len()).map(|row| (row / rows) as u32).collect();
        let flat: Vec<f32> = chosen().flat_map(|record| record.embedding.iter().copied()).collect();
        let embeddings = self.net.backend.upload(&flat);
        let candidates = Candidates { embeddings: &embeddings, items: &items, rewards: &rewards };
        let first_row = part.first().map_or(0, |record| (record * rows) as u64);
        let dropout = Dropout::On { share: config.dropout, draw: (seed, step), first_row };
        let saved = self.net.forward(candidates, dropout);
        let (mut loss, mut d_values) = (0.0, Vec::with_capacity(rewards.len()));
        for ((record, set), own) in chosen().zip(&sets).zip(saved.values.chunks_exact(rows)) {
            let energies: Vec<f64> = own.iter().map(|energy| f64::from(*energy)).collect();
            let log_noise: Vec<f64> =
                set.iter().map(|reward| noise.log_density(*reward, record.reward)).collect();
            let term = nce_plus(&energies, &log_noise, config.regularisation);
            loss += term.loss;
            d_values.extend(term.d_energies.iter().map(|d| (d / denominator as f64) as f32));
        }
        // The gradient by the rewards is of no use here.
        let _ = self.net.backward((candidates, &saved), &d_values, &mut self.gradients);
        loss
    }

    fn measure(&mut self) -> Result<(), Error> {
        let Some(measure) = self.context.measure else {
            return Ok(());
        };
        let (refined, base) = measure(&self.net);
        self.description.mean = refined.mean;
        self.description.std = refined.deviation.filter(|deviation| *deviation > 0.0);
        let figures = [
            ("held_out_accuracy", Some(refined.accuracy)),
            ("held_out_margin", refined.margin),
            ("held_out_ece", refined.expected_calibration_error),
            ("held_out_reward_mean", refined.mean),
            ("held_out_reward_std", refined.deviation),
            ("base_accuracy", Some(base.accuracy)),
            ("base_reward_std", base.deviation),
        ];
        let known = figures.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        self.run.metrics(Phase::Ebrm, self.position.step, &known.collect::<Vec<_>>())
    }

    fn after_step(&mut self, total: u64) -> Result<(), Error> {
        let step = self.position.step;
        let every = self.context.recipe.checkpoint.every;
        let is_interrupted = self.context.observer.is_interrupted();
        if is_interrupted || (every > 0 && step.is_multiple_of(every)) {
            let name = format!("{}-step-{step}", Phase::Ebrm.name());
            let newest = self.write_checkpoint(&name, Contents::Resumable)?;
            let all = resumable(&self.run.path().join("checkpoints"));
            for (_, path) in all.into_iter().filter(|(_, path)| *path != newest) {
                std::fs::remove_dir_all(&path).map_err(|error| Error::run(&path, error))?;
            }
        }
        if is_interrupted && step < total {
            return Err(Error::Interrupted { step, path: self.run.path().to_path_buf() });
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Error> {
        let mut found = resumable(&self.run.path().join("checkpoints"));
        found.sort_by_key(|(position, _)| position.step);
        let Some((position, folder)) = found.pop() else {
            return Ok(());
        };
        self.net.load(&folder)?;
        let stored = (self.net.backend.as_ref(), &self.net.parameters);
        checkpoint::load_optimizer(&folder, stored, &mut self.optimizer)?;
        self.position = position;
        self.run.truncate_metrics(Phase::Ebrm, position.step)
    }

    /// Writes beside, then renames: a crash leaves the previous checkpoint whole.
    fn write_checkpoint(&self, name: &str, contents: Contents) -> Result<PathBuf, Error> {
        let folder = |name: &str| self.run.path().join("checkpoints").join(name);
        let (target, partial) = (folder(name), folder(&format!(".partial-{name}")));
        let io = |error: std::io::Error| Error::run(&target, error);
        if partial.exists() {
            std::fs::remove_dir_all(&partial).map_err(io)?;
        }
        std::fs::create_dir_all(&partial).map_err(io)?;
        self.write_net(&partial, contents)?;
        let recipe = self.run.path().join("recipe.toml");
        std::fs::copy(recipe, partial.join("recipe.toml")).map_err(io)?;
        replace_folder(&partial, &target).map_err(io)?;
        Ok(target)
    }

    fn write_net(&self, folder: &Path, contents: Contents) -> Result<(), Error> {
        let refuse = |error: patarm_models::Error| Error::run(folder, error);
        self.net.save(folder).map_err(refuse)?;
        if contents == Contents::Resumable {
            let stored = (self.net.backend.as_ref(), &self.net.parameters);
            checkpoint::save_optimizer(folder, stored, &self.optimizer).map_err(refuse)?;
        }
        write_json(&folder.join(ENERGY_FILE), &self.description)?;
        write_json(&folder.join("trainer.json"), &self.position)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contents {
    Resumable,
    Final,
}
