//! A process reward model on solutions in steps.
//!
//! Implements step supervision as in Math-Shepherd (Wang et al., arXiv 2312.08935) and
//! TRL's `PRMTrainer` (cross-entropy on hard or soft labels at the ends of steps) and the
//! joint loss of ReasonFlux-PRM (arXiv 2506.18896; squared error on steps and on the
//! trajectory, λ_step and λ_final): see [`patarm_reward::process`].
//!
//! # Deviations
//! - The mean is taken over the labelled steps of a solution, then over solutions, as in
//!   ReasonFlux-PRM; TRL takes it over all labelled steps of a batch, so that long
//!   solutions count more there.
//! - Solutions that begin alike share what they share, and there are no padded rows.
//! - The head begins at zero by default, so that the first loss is ln 2 exactly.

use patarm_models::files::{RewardConfig, StepConfig};
use patarm_models::{AdamWConfig, Decoder, HeadInit};
use patarm_reward::model::RewardModel;
use patarm_reward::observer::Silent;
use patarm_reward::process::{
    EncodedSolution, ProcessRewardModel, SolutionNumbers, StepLossConfig, StepLossKind, StepReader,
    StepText, Trajectory, solution_loss, step_rows,
};
use patarm_reward::scalar::Scoring;
use patarm_text::LabelledSolution;
use serde::{Deserialize, Serialize};

use crate::discriminative::{Learner, Objective, Schedule, Tally};
use crate::error::Error;
use crate::recipe::Overlong;
use crate::run_directory::Phase;

/// The table `[process_reward]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessRewardConfig {
    /// How solutions are read; a base that is a process reward model keeps its own.
    pub layout: StepConfig,
    /// The loss.
    pub loss: StepLossConfig,
    /// How a fresh head begins.
    pub head: HeadInit,
    /// How much is trained.
    pub schedule: Schedule,
    /// Optimiser.
    pub optimizer: AdamWConfig,
}

impl Default for ProcessRewardConfig {
    fn default() -> Self {
        Self {
            layout: StepConfig::default(),
            loss: StepLossConfig::default(),
            head: HeadInit::Zero {},
            schedule: Schedule::default(),
            optimizer: AdamWConfig::default(),
        }
    }
}

impl ProcessRewardConfig {
    /// What is wrong with it.
    ///
    /// # Errors
    /// When a value cannot work.
    pub fn check(&self) -> Result<(), String> {
        self.schedule.check()?;
        self.layout.check().map_err(|error| format!("layout: {error}"))?;
        let weights = [self.loss.step_weight, self.loss.trajectory_weight];
        if weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0)
            || weights.iter().sum::<f64>() <= 0.0
        {
            return Err(
                "loss.step_weight and loss.trajectory_weight must not be negative, and one \
                        of them positive"
                    .into(),
            );
        }
        if self.loss.kind == StepLossKind::CrossEntropy && !self.layout.readout.is_probability() {
            return Err("loss.kind: cross_entropy needs probabilities; take squared_error with \
                        layout.readout = { kind = \"value\" }"
                .into());
        }
        Ok(())
    }
}

/// A labelled solution as tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedSteps {
    /// The solution.
    pub solution: EncodedSolution,
    /// A label for each step.
    pub labels: Vec<Option<f64>>,
    /// A label for the whole.
    pub trajectory: Option<f64>,
}

/// How long a solution may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Longest solution in tokens, prompt included.
    pub max_tokens: usize,
    /// What happens to longer ones; cut ones lose their last steps and the label of the
    /// whole.
    pub overlong: Overlong,
}

/// Training solutions, and why others are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingSteps {
    /// The solutions.
    pub solutions: Vec<EncodedSteps>,
    /// Why others cannot be used.
    pub left_out: Vec<String>,
    /// Solutions left out because they are too long.
    pub dropped: usize,
    /// Solutions that lost their last steps.
    pub cut: usize,
}

impl TrainingSteps {
    /// Encodes the solutions with a label that counts.
    ///
    /// # Errors
    /// When a label does not lie in 0..=1 where scores are probabilities, there is not
    /// one a step, or a solution is longer than allowed and that is an error; the
    /// sentence names the solution.
    pub fn new(
        solutions: &[LabelledSolution],
        text: &StepText,
        (loss, limits): (&StepLossConfig, StepLimits),
    ) -> Result<Self, Error> {
        let mut found = Self::default();
        for solution in solutions {
            check_labels(solution, text.config())?;
            let encoded = match text.encode(&solution.solution) {
                Ok(encoded) => encoded,
                Err(error) => {
                    found.left_out.push(format!("solution {}: {error}", solution.id));
                    continue;
                }
            };
            let whole = EncodedSteps {
                solution: encoded,
                labels: solution.labels.clone(),
                trajectory: solution.trajectory,
            };
            match found.fit(whole, limits) {
                Fitted::Whole(steps) if steps.teaches(loss) => found.solutions.push(steps),
                Fitted::Whole(_) => {
                    let message = format!("solution {}: no label to learn from", solution.id);
                    found.left_out.push(message);
                }
                Fitted::Nothing if limits.overlong == Overlong::Error => {
                    return Err(too_long(&solution.id, limits));
                }
                Fitted::Nothing => found.dropped += 1,
            }
        }
        Ok(found)
    }

    fn fit(&mut self, mut steps: EncodedSteps, limits: StepLimits) -> Fitted {
        if steps.solution.len() <= limits.max_tokens {
            return Fitted::Whole(steps);
        }
        if limits.overlong != Overlong::Truncate {
            return Fitted::Nothing;
        }
        while steps.solution.len() > limits.max_tokens && !steps.labels.is_empty() {
            steps.solution.steps.pop();
            steps.labels.pop();
        }
        if steps.labels.is_empty() {
            return Fitted::Nothing;
        }
        self.cut += 1;
        Fitted::Whole(EncodedSteps { trajectory: None, ..steps })
    }
}

enum Fitted {
    Whole(EncodedSteps),
    Nothing,
}

impl EncodedSteps {
    /// Whether the loss looks at any of its labels.
    fn teaches(&self, loss: &StepLossConfig) -> bool {
        let has_step = loss.step_weight > 0.0 && self.labels.iter().any(Option::is_some);
        has_step || (loss.trajectory_weight > 0.0 && self.trajectory.is_some())
    }
}

fn too_long(id: &str, limits: StepLimits) -> Error {
    Error::Data(format!(
        "solution {id} is longer than {} tokens; raise data.max_prompt_tokens and \
         data.max_response_tokens, or set data.overlong to \"drop\" or \"truncate\"",
        limits.max_tokens
    ))
}

fn check_labels(solution: &LabelledSolution, layout: &StepConfig) -> Result<(), Error> {
    let (labels, steps) = (solution.labels.len(), solution.solution.steps.len());
    if labels != steps {
        let message = format!("solution {}: {labels} labels for {steps} steps", solution.id);
        return Err(Error::Data(message));
    }
    let all = solution.labels.iter().flatten().chain(&solution.trajectory);
    match all.copied().find(|label| !(0.0..=1.0).contains(label)) {
        Some(label) if layout.readout.is_probability() => Err(Error::Data(format!(
            "solution {}: the label {label} is no probability; take \
             process_reward.layout.readout = {{ kind = \"value\" }} and \
             process_reward.loss.kind = \"squared_error\"",
            solution.id
        ))),
        _ => Ok(()),
    }
}

/// A process reward model in training.
#[derive(Debug)]
pub struct ProcessReward<'a> {
    /// The loss.
    pub loss: StepLossConfig,
    /// What is read off the decoder.
    pub reader: StepReader,
    /// Texts, for held-out measurement.
    pub text: &'a StepText,
    /// Training solutions.
    pub solutions: &'a [EncodedSteps],
    /// The description that scoring during the run uses.
    pub config: RewardConfig,
}

impl ProcessReward<'_> {
    fn trajectory(&self) -> Trajectory {
        if self.loss.trajectory_weight > 0.0 { Trajectory::Read } else { Trajectory::Skip }
    }
}

impl Objective for ProcessReward<'_> {
    fn phase(&self) -> Phase {
        Phase::ProcessReward
    }

    fn num_examples(&self) -> usize {
        self.solutions.len()
    }

    fn num_tokens(&self, example: usize) -> usize {
        self.solutions[example].solution.len()
    }

    fn accumulate(
        &self,
        learner: &mut Learner<'_>,
        examples: &[usize],
        denominator: f64,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        let decoder = learner.decoder;
        let encoded = examples.iter().map(|&example| &self.solutions[example].solution);
        let (forest, rows) = step_rows(encoded, self.trajectory());
        let saved = decoder.forward(&forest, learner.options)?;
        let numbers = self.reader.read(decoder, &saved.hidden, &rows.rows.concat());
        let mut rest = numbers.u.as_slice();
        let mut d_u = Vec::with_capacity(rest.len());
        for &example in examples {
            let EncodedSteps { labels, trajectory, .. } = &self.solutions[example];
            let (steps, after) = rest.split_at(labels.len());
            let reads_whole = self.trajectory() == Trajectory::Read;
            let whole = after.first().copied().filter(|_| reads_whole);
            rest = &after[usize::from(reads_whole)..];
            let u = SolutionNumbers { steps, trajectory: whole };
            let known = SolutionNumbers { steps: labels.as_slice(), trajectory: *trajectory };
            let term = solution_loss(u, known, self.reader.link(), &self.loss);
            tally.add("loss", term.loss);
            self.tally_steps(tally, steps, labels);
            d_u.extend(term.d_steps.iter().map(|d| d / denominator));
            d_u.extend(whole.map(|_| term.d_trajectory / denominator));
        }
        tally.count(&forest);
        let d_hidden = self.reader.backward((decoder, &saved), &numbers, &d_u, learner.gradients);
        decoder.backward(&saved, &d_hidden, &[], learner.gradients);
        Ok(())
    }

    fn with_model(&self, decoder: &Decoder, act: &mut dyn FnMut(&dyn RewardModel)) {
        act(&ProcessRewardModel {
            scoring: Scoring::new(decoder, &Silent, "trained"),
            reader: self.reader,
            text: self.text,
            config: &self.config,
        });
    }
}

impl ProcessReward<'_> {
    /// Means over the labelled steps of a solution: score, label, squared difference.
    fn tally_steps(&self, tally: &mut Tally, u: &[f64], labels: &[Option<f64>]) {
        let link = self.reader.link();
        let known = u.iter().zip(labels).filter_map(|(u, label)| Some((link.score(*u), (*label)?)));
        let known: Vec<(f64, f64)> = known.collect();
        let mean = |of: fn(&(f64, f64)) -> f64| {
            known.iter().map(of).sum::<f64>() / known.len().max(1) as f64
        };
        tally.add("step_score", mean(|(score, _)| *score));
        tally.add("step_label", mean(|(_, label)| *label));
        tally.add("step_squared_error", mean(|(score, label)| (score - label).powi(2)));
    }
}
