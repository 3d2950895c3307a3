//! Labelled solutions as a measure of process reward models: does a right step score
//! above a wrong one, and how far is a score from its label?

use std::collections::HashMap;

use patarm_reward::model::{Evaluator, Measurement, RewardModel, StepScores};
use patarm_text::{Comparison, LabelledSolution, Solution};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    auc::{Sample, clustered_auc},
    distribution::Summary,
    interval::Estimate,
};

/// Version of [`StepResult`] as written.
pub const SCHEMA_VERSION: u32 = 1;
/// Bins of the calibration error.
const NUM_BINS: usize = 10;
/// Labels above it say that a step is right.
const RIGHT: f64 = 0.5;

/// What labelled solutions say of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepResult {
    /// Version of this structure.
    pub schema_version: u32,
    /// The model, as it names itself.
    pub model: String,
    /// Solutions.
    pub num_solutions: usize,
    /// Labelled steps that have a score.
    pub num_steps: usize,
    /// Of these, with a label above ½.
    pub num_right: usize,
    /// Solutions without scores.
    pub num_faults: usize,
    /// Probability that a right step scores above a wrong one, ties at ½, with an
    /// interval that knows that steps of one problem go together; `null` without both.
    pub auc: Option<Estimate>,
    /// The same among steps of one solution only, mean over solutions with both.
    pub auc_within: Option<f64>,
    /// Share of steps on the right side of ½.
    pub accuracy: Option<f64>,
    /// Share that saying the more frequent label would get.
    pub majority: Option<f64>,
    /// Mean squared difference of score and label.
    pub squared_error: Option<f64>,
    /// Expected calibration error over ten equal bins of the score, where all scores
    /// are probabilities.
    pub expected_calibration_error: Option<f64>,
    /// The scores.
    pub scores: Summary,
}

/// A step with both.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    cluster: usize,
    score: f64,
    label: f64,
}

/// Scores the solutions' steps and compares them with their labels.
///
/// # Errors
/// When the model gives no number for a step.
pub fn evaluate_steps(
    model: &dyn RewardModel,
    solutions: &[LabelledSolution],
) -> Result<StepResult> {
    let asked: Vec<Solution> = solutions.iter().map(|one| one.solution.clone()).collect();
    let scores = model
        .score_steps(&asked)
        .ok_or_else(|| Error::bad_input(format!("{} gives no number for a step", model.name())))?;
    Ok(steps_from_scores(&model.name(), solutions, &scores))
}

/// Compares scores of the solutions' steps, solution by solution, with their labels.
#[must_use]
pub fn steps_from_scores(
    model_name: &str,
    solutions: &[LabelledSolution],
    scores: &[StepScores],
) -> StepResult {
    let (mut known, mut within, mut num_faults) = (Vec::new(), Vec::new(), 0);
    let mut clusters = HashMap::new();
    for (solution, scores) in solutions.iter().zip(scores) {
        let Ok(scores) = scores else {
            num_faults += 1;
            continue;
        };
        let next = clusters.len();
        let cluster = *clusters.entry(&solution.solution.prompt).or_insert(next);
        let pairs = scores.iter().zip(&solution.labels);
        let of_solution: Vec<Known> = pairs
            .filter_map(|(&score, label)| Some(Known { cluster, score, label: (*label)? }))
            .collect();
        within.extend(area(&of_solution).and_then(|area| area.value));
        known.extend(of_solution);
    }
    let scores: Vec<f64> = known.iter().map(|step| step.score).collect();
    let num_right = known.iter().filter(|step| step.label > RIGHT).count();
    let share = |count: usize| (!known.is_empty()).then(|| count as f64 / known.len() as f64);
    let agrees = |step: &&Known| (step.score > RIGHT) == (step.label > RIGHT);
    StepResult {
        schema_version: SCHEMA_VERSION,
        model: model_name.to_owned(),
        num_solutions: solutions.len(),
        num_steps: known.len(),
        num_right,
        num_faults,
        auc: area(&known),
        auc_within: mean(&within),
        accuracy: share(known.iter().filter(agrees).count()),
        majority: share(num_right.max(known.len() - num_right)),
        squared_error: mean(&known.iter().map(|s| (s.score - s.label).powi(2)).collect::<Vec<_>>()),
        expected_calibration_error: calibration_error(&known),
        scores: Summary::of(&scores),
    }
}

fn area(known: &[Known]) -> Option<Estimate> {
    let sample = |step: &Known| Sample {
        cluster: step.cluster,
        is_positive: step.label > RIGHT,
        value: step.score,
    };
    clustered_auc(&known.iter().map(sample).collect::<Vec<_>>())
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn calibration_error(known: &[Known]) -> Option<f64> {
    if known.is_empty() || known.iter().any(|step| !(0.0..=1.0).contains(&step.score)) {
        return None;
    }
    let mut bins = [(0.0, 0.0); NUM_BINS];
    for step in known {
        let bin = &mut bins[((step.score * NUM_BINS as f64) as usize).min(NUM_BINS - 1)];
        *bin = (bin.0 + step.score, bin.1 + step.label);
    }
    let total: f64 = bins.iter().map(|(scores, labels)| (scores - labels).abs()).sum();
    Some(total / known.len() as f64)
}

/// Measures models in training on held-out solutions.
#[derive(Clone, Debug)]
pub struct StepEvaluator {
    solutions: Vec<LabelledSolution>,
}

impl StepEvaluator {
    /// `None` where no step is right or none is wrong: there is nothing to tell apart.
    #[must_use]
    pub fn new(solutions: Vec<LabelledSolution>) -> Option<Self> {
        let labels = || solutions.iter().flat_map(|one| one.labels.iter().flatten());
        let has_both =
            labels().any(|label| *label > RIGHT) && labels().any(|label| *label <= RIGHT);
        has_both.then_some(Self { solutions })
    }
}

impl Evaluator for StepEvaluator {
    fn evaluate(&self, model: &dyn RewardModel) -> f64 {
        self.measure(model).accuracy
    }

    /// The accuracy is that of all pairs of a right and a wrong step: the AUC.
    fn measure(&self, model: &dyn RewardModel) -> Measurement {
        let Ok(result) = evaluate_steps(model, &self.solutions) else {
            return Measurement { accuracy: 0.5, ..Measurement::default() };
        };
        Measurement {
            accuracy: result.auc.and_then(|auc| auc.value).unwrap_or(0.5),
            margin: None,
            expected_calibration_error: result.expected_calibration_error,
            mean: result.scores.mean,
            deviation: result.scores.deviation,
        }
    }

    fn comparisons(&self) -> &[Comparison] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use patarm_reward::model::{ItemFault, Reward, StepScores};
    use patarm_text::{Conversation, Item};

    use super::*;

    /// Reads a step's score out of it.
    struct Told;

    impl RewardModel for Told {
        fn score(&self, _: &[Item]) -> Vec<Result<Reward, ItemFault>> {
            Vec::new()
        }

        fn score_steps(&self, solutions: &[Solution]) -> Option<Vec<StepScores>> {
            let read = |step: &String| {
                step.parse::<f64>().map_err(|_| ItemFault::Engine("no number".to_owned()))
            };
            Some(solutions.iter().map(|s| s.steps.iter().map(read).collect()).collect())
        }

        fn name(&self) -> String {
            "told".to_owned()
        }
    }

    fn solution(prompt: &str, steps: &[(&str, Option<f64>)]) -> LabelledSolution {
        let words = steps.iter().map(|(step, _)| (*step).to_owned()).collect();
        let prompt = Conversation::from_user(prompt);
        LabelledSolution {
            labels: steps.iter().map(|(_, label)| *label).collect(),
            ..LabelledSolution::unlabelled("x", Solution { prompt, steps: words })
        }
    }

    #[test]
    fn figures_are_what_can_be_counted_by_hand() {
        let solutions = [
            solution("p", &[("0.9", Some(1.0)), ("0.2", Some(0.0)), ("0.5", None)]),
            solution("p", &[("0.6", Some(1.0)), ("0.8", Some(0.0))]),
            solution("q", &[("x", Some(1.0))]),
        ];
        let result = evaluate_steps(&Told, &solutions).expect("measured");
        assert_eq!((result.num_solutions, result.num_steps), (3, 4));
        assert_eq!((result.num_right, result.num_faults), (2, 1));
        // 0.9 above both, 0.6 above one of two.
        assert_eq!(result.auc.and_then(|auc| auc.value), Some(0.75));
        assert_eq!(result.auc_within, Some(0.5));
        assert_eq!((result.accuracy, result.majority), (Some(0.75), Some(0.5)));
        let squared = (0.01 + 0.04 + 0.16 + 0.64) / 4.0;
        assert!((result.squared_error.expect("steps") - squared).abs() < 1e-12);
        let calibration = (0.1 + 0.2 + 0.4 + 0.8) / 4.0;
        assert!((result.expected_calibration_error.expect("steps") - calibration).abs() < 1e-12);
        let evaluator = StepEvaluator::new(solutions.to_vec()).expect("right and wrong ones");
        assert_eq!(evaluator.evaluate(&Told), 0.75);
        assert!(StepEvaluator::new(vec![solution("p", &[("1", Some(1.0))])]).is_none());
    }

    #[test]
    fn values_beyond_probabilities_have_no_calibration() {
        let solutions = [solution("p", &[("-2", Some(0.0)), ("3", Some(1.0))])];
        let result = evaluate_steps(&Told, &solutions).expect("measured");
        assert_eq!(result.expected_calibration_error, None);
        assert_eq!(result.auc.and_then(|auc| auc.value), Some(1.0));
    }
}
