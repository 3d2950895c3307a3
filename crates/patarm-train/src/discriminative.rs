//! What the loops of all discriminative reward models share.
//!
//! A loop file implements [`Objective`]: how its examples are put on a forest and what
//! their loss and gradient are. Here are the order of the examples, the update, held-out
//! measurement, the best checkpoint and interruption.

use std::collections::BTreeMap;

use patarm_models::{AdamWConfig, Decoder, ForwardOptions, Gradients};
use patarm_reward::model::{Measurement, RewardModel};
use serde::{Deserialize, Serialize};

use crate::batches::batch_indices;
use crate::error::Error;
use crate::run_directory::Phase;
use crate::trainer::{Meter, Trainer, peak_memory_bytes};

/// Stream of the order of examples.
const ORDER_STREAM: u64 = 0xb7ad;

/// How much is trained, in what portions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Passes over the training examples; the last update may reach into the next.
    pub epochs: f64,
    /// Updates, in place of `epochs`.
    pub steps: Option<u64>,
    /// Examples an update.
    pub batch: usize,
    /// Tokens of one forward; examples are never split.
    pub micro_batch_tokens: usize,
    /// Whether every pass draws an order of its own, or keeps that of the data.
    pub order: ExampleOrder,
}

impl Default for Schedule {
    fn default() -> Self {
        let order = ExampleOrder::default();
        Self { epochs: 1.0, steps: None, batch: 16, micro_batch_tokens: 2048, order }
    }
}

/// The order in which a pass goes through the examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExampleOrder {
    /// Drawn anew for every pass, from the run's seed.
    #[default]
    Shuffled,
    /// As the data stands: for a curriculum, or to follow another trainer example by
    /// example.
    AsGiven,
}

impl Schedule {
    /// Updates on so many examples.
    #[must_use]
    pub fn num_steps(&self, num_examples: usize) -> u64 {
        let by_epochs = || (self.epochs * num_examples as f64 / self.batch as f64).ceil() as u64;
        self.steps.unwrap_or_else(by_epochs)
    }

    /// The examples of update `step` (from 1).
    fn examples(&self, num_examples: usize, step: u64, seed: u64) -> Vec<usize> {
        match self.order {
            ExampleOrder::Shuffled => {
                batch_indices(num_examples, self.batch, step, (seed, ORDER_STREAM))
            }
            ExampleOrder::AsGiven => {
                let first = (step - 1) * self.batch as u64;
                let places = first..first + self.batch as u64;
                places.map(|place| (place % num_examples as u64) as usize).collect()
            }
        }
    }

    /// What is wrong with it, as the rest of a sentence that begins with the table's name.
    ///
    /// # Errors
    /// When a value cannot work.
    pub fn check(&self) -> Result<(), String> {
        if self.batch == 0 {
            return Err("schedule.batch must be at least 1".into());
        }
        if !self.epochs.is_finite() || self.epochs <= 0.0 {
            return Err("schedule.epochs must be positive".into());
        }
        Ok(())
    }
}

/// A model whose gradient is being collected.
#[derive(Debug)]
pub struct Learner<'a> {
    /// The decoder, heads included.
    pub decoder: &'a Decoder,
    /// Where gradients go.
    pub gradients: &'a mut Gradients,
    /// How forwards run.
    pub options: &'a ForwardOptions,
}

/// Sums over examples, and what was computed for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Sum of each figure, and over how many examples.
    sums: BTreeMap<&'static str, (f64, usize)>,
    /// Tokens computed.
    pub num_tokens: usize,
    /// Tokens that padded rows would compute.
    pub num_row_tokens: usize,
}

impl Tally {
    /// Adds an example's number to a figure.
    pub fn add(&mut self, name: &'static str, value: f64) {
        let (sum, count) = self.sums.entry(name).or_default();
        *sum += value;
        *count += 1;
    }

    /// Mean of each figure over the examples that have it.
    pub fn means(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.sums.iter().map(|(name, (sum, count))| (*name, sum / *count as f64))
    }

    /// Counts the tokens of a forest.
    pub fn count(&mut self, forest: &patarm_models::Forest) {
        self.num_tokens += forest.num_tokens();
        self.num_row_tokens += forest.num_row_tokens();
    }
}

/// One kind of reward model in training.
pub trait Objective {
    /// The stage, for metrics and checkpoints.
    fn phase(&self) -> Phase;

    /// Number of training examples.
    fn num_examples(&self) -> usize;

    /// Tokens of an example, at most.
    fn num_tokens(&self, example: usize) -> usize;

    /// Adds the examples' figures to `tally` (at least `loss`) and the gradient of their
    /// mean loss over `denominator` examples to the learner.
    ///
    /// # Errors
    /// When an example does not fit the model.
    fn accumulate(
        &self,
        learner: &mut Learner<'_>,
        examples: &[usize],
        denominator: f64,
        tally: &mut Tally,
    ) -> Result<(), Error>;

    /// Hands the decoder as it is to `act`, as the reward model it is becoming.
    fn with_model(&self, decoder: &Decoder, act: &mut dyn FnMut(&dyn RewardModel));

    /// Further figures of a held-out measurement, by name.
    fn diagnose(&self, _decoder: &Decoder) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// Trains until the last step, keeps the best checkpoint, and stores the mean and
/// deviation of held-out rewards in the trainer's description of the model.
///
/// # Errors
/// When there is no example, one does not fit, a file cannot be written, or the user stops.
pub fn train<T>(
    trainer: &mut Trainer<'_, T>,
    (schedule, optimizer): (&Schedule, &AdamWConfig),
    objective: &dyn Objective,
) -> Result<(), Error> {
    if objective.num_examples() == 0 {
        return Err(Error::Data("there is no labelled example to learn from".into()));
    }
    let total = schedule.num_steps(objective.num_examples());
    let every = trainer.context.recipe.evaluation.every;
    let observer = trainer.context.observer;
    observer.begin(objective.phase().name(), total);
    while trainer.position.step < total {
        step(trainer, (schedule, optimizer), objective, total)?;
        let step = trainer.position.step;
        if step < total && every > 0 && step.is_multiple_of(every) {
            keep_best(trainer, objective)?;
        }
        trainer.after_step(total)?;
    }
    keep_best(trainer, objective)?;
    observer.end();
    Ok(())
}

fn step<T>(
    trainer: &mut Trainer<'_, T>,
    (schedule, optimizer): (&Schedule, &AdamWConfig),
    objective: &dyn Objective,
    total: u64,
) -> Result<(), Error> {
    let step = trainer.position.step + 1;
    let batch = schedule.examples(objective.num_examples(), step, trainer.context.recipe.seed);
    let options = trainer.forward_options();
    trainer.clear_gradients();
    let (mut tally, mut meter) = (Tally::default(), Meter::default());
    for portion in portions(&batch, schedule.micro_batch_tokens, objective) {
        let mut learner = Learner {
            decoder: &trainer.decoder,
            gradients: &mut trainer.gradients,
            options: &options,
        };
        meter
            .time(|| objective.accumulate(&mut learner, portion, batch.len() as f64, &mut tally))?;
    }
    let update = meter.time(|| trainer.update(optimizer, step, total));
    meter.tokens = tally.num_tokens;
    trainer.position.step = step;
    let mut values: Vec<(String, f64)> =
        tally.means().map(|(name, mean)| (name.to_owned(), mean)).collect();
    values.extend([
        ("gradient_norm".to_owned(), update.gradient_norm),
        ("learning_rate".to_owned(), update.learning_rate),
        ("num_tokens".to_owned(), tally.num_tokens as f64),
        ("num_row_tokens".to_owned(), tally.num_row_tokens as f64),
        ("train_tokens_per_s".to_owned(), meter.tokens_per_s()),
        (
            "peak_memory_bytes".to_owned(),
            peak_memory_bytes(trainer.decoder.backend.as_ref()) as f64,
        ),
    ]);
    trainer.run.metrics(objective.phase(), step, &values)?;
    let loss = tally.means().find(|(name, _)| *name == "loss").map_or(f64::NAN, |(_, mean)| mean);
    let note = format!("loss {loss:.4}  {:.0} tokens/s", meter.tokens_per_s());
    trainer.context.observer.advance(step, &note);
    Ok(())
}

/// Consecutive examples of at most so many tokens; a longer one alone.
fn portions<'b>(batch: &'b [usize], budget: usize, objective: &dyn Objective) -> Vec<&'b [usize]> {
    let (mut portions, mut start, mut tokens) = (Vec::new(), 0, 0);
    for (place, example) in batch.iter().enumerate() {
        let more = objective.num_tokens(*example);
        if place > start && tokens + more > budget {
            portions.push(&batch[start..place]);
            (start, tokens) = (place, 0);
        }
        tokens += more;
    }
    portions.push(&batch[start..]);
    portions
}

/// Measures on the held-out comparisons and keeps the best weights.
fn keep_best<T>(trainer: &mut Trainer<'_, T>, objective: &dyn Objective) -> Result<(), Error> {
    let Some(evaluator) = trainer.context.evaluator else {
        return Ok(());
    };
    let mut measured = Measurement::default();
    objective.with_model(&trainer.decoder, &mut |model| measured = evaluator.measure(model));
    if let Some(reward) = &mut trainer.reward {
        reward.mean = measured.mean;
        reward.std = measured.deviation.filter(|deviation| *deviation > 0.0);
    }
    let figures = [
        ("held_out_accuracy", Some(measured.accuracy)),
        ("held_out_margin", measured.margin),
        ("held_out_ece", measured.expected_calibration_error),
        ("held_out_reward_mean", measured.mean),
        ("held_out_reward_std", measured.deviation),
    ];
    let more = objective.diagnose(&trainer.decoder);
    let known = figures.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let known = known.chain(more).map(|(name, value)| (name.to_owned(), value));
    let step = trainer.position.step;
    trainer.run.metrics(objective.phase(), step, &known.collect::<Vec<_>>())?;
    if trainer.position.best_accuracy.is_none_or(|best| measured.accuracy > best) {
        trainer.position.best_accuracy = Some(measured.accuracy);
        trainer.save_weights("best")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_as_given_goes_round() {
        let schedule = Schedule { batch: 2, order: ExampleOrder::AsGiven, ..Schedule::default() };
        let seen: Vec<usize> = (1..=3).flat_map(|step| schedule.examples(3, step, 7)).collect();
        assert_eq!(seen, [0, 1, 2, 0, 1, 2]);
        let shuffled = Schedule { batch: 50, ..Schedule::default() }.examples(50, 1, 7);
        assert_ne!(shuffled, (0..50).collect::<Vec<_>>());
    }
}
