//! Held-out accuracy after each stage of a run, and what the last stage gained.

use std::path::Path;

use patarm_eval::compare::compare;
use patarm_eval::interval::Estimate;
use patarm_eval::store;
use patarm_models::Decoder;
use patarm_reward::embedded::JudgeText;
use patarm_reward::observer::Observer;
use patarm_text::Comparison;
use patarm_train::Recipe;
use patarm_train::run_directory::Phase;
use serde::Serialize;

use crate::measure::Measurement;
use crate::output;
use crate::training::{Prepared, pairs_options};

/// Evaluation of the model after the cold start.
const COLD_START: &str = "cold_start";
/// Evaluation of the model after the reinforcement.
const TRAINED: &str = "trained";

/// Measures the model of a run after each of its stages, on the recipe's pairs.
pub(crate) struct StageMeasurement<'a> {
    recipe: Recipe,
    text: JudgeText,
    held_out: Vec<Comparison>,
    observer: &'a dyn Observer,
    out: &'a Path,
}

/// A value with its 95 % interval, both absent where nothing was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    value: Option<f64>,
    interval: Option<[f64; 2]>,
}

impl From<&Estimate> for Figure {
    fn from(estimate: &Estimate) -> Self {
        let interval = estimate.interval.map(|interval| [interval.low, interval.high]);
        Self { value: estimate.value, interval }
    }
}

impl Figure {
    fn shown(&self) -> String {
        let percent = |value: f64| format!("{:.1}", 100.0 * value);
        match (self.value, self.interval) {
            (Some(value), Some([low, high])) => {
                format!("{} %  95 % [{}, {}]", percent(value), percent(low), percent(high))
            }
            (Some(value), None) => format!("{} %", percent(value)),
            (None, _) => "–".into(),
        }
    }
}

/// What `patarm train` reports of its stages.
#[derive(Debug, Default, Serialize)]
pub(crate) struct StageResults {
    /// Held-out pairs measured.
    num_pairs: usize,
    /// Expected-score accuracy after the cold start, ties one half.
    accuracy_cold_start: Option<Figure>,
    /// The same after the reinforcement.
    accuracy_trained: Option<Figure>,
    /// Their paired difference.
    gain: Option<Figure>,
}

impl<'a> StageMeasurement<'a> {
    /// Takes what it needs of a prepared run.
    pub(crate) fn new(prepared: &Prepared, observer: &'a dyn Observer, out: &'a Path) -> Self {
        let recipe = prepared.recipe.clone();
        let held_out: Vec<Comparison> =
            prepared.held_out.iter().take(recipe.evaluation.stage_pairs).cloned().collect();
        Self { recipe, text: prepared.text.clone(), held_out, observer, out }
    }

    /// Measures the model at the end of a stage.
    pub(crate) fn measure(&self, phase: Phase, decoder: &Decoder) -> anyhow::Result<()> {
        let num_updates = match phase {
            Phase::ColdStart => self.recipe.cold_start.as_ref().map(|config| config.steps),
            Phase::Grpo => self.recipe.grpo.as_ref().map(|config| config.steps),
            _ => None,
        };
        if self.held_out.is_empty() || num_updates.is_none_or(|updates| updates == 0) {
            return Ok(());
        }
        let name = match phase {
            Phase::ColdStart => COLD_START,
            _ => TRAINED,
        };
        let measurement = Measurement {
            text: &self.text,
            held_out: &self.held_out,
            observer: self.observer,
            out: self.out,
            seed: self.recipe.seed,
            max_tokens: self.recipe.judge.max_judgement_tokens,
        };
        let measured = measurement.all(decoder, name)?;
        let accuracy = Figure::from(&measured.evaluated.result.accuracy.half_credit);
        output::remark(&format!(
            "{}: accuracy {} on {} held-out pairs, format faults {:.1} %",
            phase.name(),
            accuracy.shown(),
            measured.num_pairs(),
            100.0 * measured.fault_rate
        ));
        Ok(())
    }

    /// The results that lie in the run directory, an interrupted run's included.
    pub(crate) fn results(&self) -> anyhow::Result<StageResults> {
        let read = |name: &str| {
            let folder = self.out.join("evaluations").join(name);
            let is_there = folder.join(store::RESULT_FILE).exists();
            is_there.then(|| store::read_folder(&folder)).transpose()
        };
        let (before, after) = (read(COLD_START)?, read(TRAINED)?);
        let gain = match (&before, &after) {
            (Some(before), Some(after)) => {
                let resampling = pairs_options(self.recipe.seed).resampling;
                Some(Figure::from(&compare(before, after, resampling)?.overall.half_credit))
            }
            _ => None,
        };
        let figure = |evaluated: &patarm_eval::pairs::Evaluated| {
            Figure::from(&evaluated.result.accuracy.half_credit)
        };
        Ok(StageResults {
            num_pairs: self.held_out.len(),
            accuracy_cold_start: before.as_ref().map(figure),
            accuracy_trained: after.as_ref().map(figure),
            gain,
        })
    }
}

impl StageResults {
    /// Tells the gain to the person at the terminal.
    pub(crate) fn remark(&self) {
        if let Some(gain) = &self.gain {
            output::remark(&format!("gain over the cold start, paired: {}", gain.shown()));
        }
    }
}
