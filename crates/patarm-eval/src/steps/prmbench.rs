//! PRMBench: every step of a solution is judged.
//!
//! Source of the rules: M. Song et al., "PRMBench", arXiv 2501.03124, and its toolkit
//! (`ssmisya/PRMBench`: `mr_eval/tasks/prmtest_classified/task.py` for counts and F1,
//! `mr_visualize/eval_res_view/draw_tabs/form_latex_strs.ipynb` for the score).
//! Steps of all solutions are pooled. With a right step as the positive class, F1 is
//! that of right steps and negative F1 that of wrong steps; **PRMScore** is their mean,
//! and F1 alone for `multi_solutions`, whose steps are all right. A category is the
//! plain mean of its classes, the overall score pools the steps of all nine classes.
//!
//! Deviations: where no step is right by label and by verdict, F1 does not exist and is
//! left out (the toolkit writes −1 and cuts scores at 0). Where some are right by label
//! and some by verdict but never the same, F1 is 0, its limit (the toolkit: −1).
//! Separate redundancy scores (ReasonEval) are not read.

use super::{Answered, StepAnswer, StepTruth, is_right};
use crate::{
    auc::{Sample, clustered_auc},
    benchmark::{
        summary::Metrics,
        tally::{Figure, Tally, ratio},
    },
    interval::Resampling,
};

/// The classes with their categories, in the order of the paper's tables, and how many
/// solutions each has once repeated ids are dropped (counted on the toolkit's files at
/// commit a1ae4ea).
pub const CLASSES: [(&str, &str, usize); NUM_CLASSES] = [
    ("redundency", "simplicity", 758),
    ("circular", "simplicity", 758),
    ("counterfactual", "soundness", 757),
    ("step_contradiction", "soundness", 758),
    ("domain_inconsistency", "soundness", 757),
    ("confidence", "soundness", 757),
    ("missing_condition", "sensitivity", 756),
    ("deception", "sensitivity", 750),
    (MULTI_SOLUTIONS, "sensitivity", 160),
];

/// Number of error classes.
const NUM_CLASSES: usize = 9;

/// The class without wrong steps.
pub const MULTI_SOLUTIONS: &str = "multi_solutions";

/// The categories, each a mean over its classes.
const CATEGORIES: [&str; 3] = ["simplicity", "soundness", "sensitivity"];

/// Step counts of solutions with a usable answer, and of those without.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepCounts {
    /// Right steps called right.
    pub true_positives: f64,
    /// Wrong steps called right.
    pub false_positives: f64,
    /// Wrong steps called wrong.
    pub true_negatives: f64,
    /// Right steps called wrong.
    pub false_negatives: f64,
    /// Right steps of solutions without a usable answer.
    pub unanswered_right: f64,
    /// Wrong steps of solutions without a usable answer.
    pub unanswered_wrong: f64,
}

/// Slots of a class: the counts of [`StepCounts`], then solutions.
const WIDTH: usize = 7;
const SOLUTIONS: usize = 6;

impl StepCounts {
    /// Counts as they lie in sums from `start` on.
    fn at(sums: &[f64], start: usize) -> Self {
        Self {
            true_positives: sums[start],
            false_positives: sums[start + 1],
            true_negatives: sums[start + 2],
            false_negatives: sums[start + 3],
            unanswered_right: sums[start + 4],
            unanswered_wrong: sums[start + 5],
        }
    }

    fn array(&self) -> [f64; SOLUTIONS] {
        [
            self.true_positives,
            self.false_positives,
            self.true_negatives,
            self.false_negatives,
            self.unanswered_right,
            self.unanswered_wrong,
        ]
    }

    /// With every step of an unanswered solution called wrongly.
    #[must_use]
    pub fn with_faults(self) -> Self {
        Self {
            false_negatives: self.false_negatives + self.unanswered_right,
            false_positives: self.false_positives + self.unanswered_wrong,
            ..self
        }
    }

    /// F1 of right steps: 2 TP / (2 TP + FP + FN).
    #[must_use]
    pub fn f1(&self) -> Option<f64> {
        f1(self.true_positives, self.false_positives + self.false_negatives)
    }

    /// F1 of wrong steps: 2 TN / (2 TN + FN + FP).
    #[must_use]
    pub fn negative_f1(&self) -> Option<f64> {
        f1(self.true_negatives, self.false_positives + self.false_negatives)
    }

    /// PRMScore: the mean of both, or the one that exists.
    #[must_use]
    pub fn score(&self) -> Option<f64> {
        mean([self.f1(), self.negative_f1()].into_iter().flatten())
    }

    /// Share of all steps called as they are.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        let right = self.true_positives + self.false_negatives;
        let wrong = self.true_negatives + self.false_positives;
        ratio(self.true_positives + self.true_negatives, right + wrong)
    }

    /// Share of right steps called right.
    #[must_use]
    pub fn right_accuracy(&self) -> Option<f64> {
        ratio(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// Share of wrong steps called wrong.
    #[must_use]
    pub fn wrong_accuracy(&self) -> Option<f64> {
        ratio(self.true_negatives, self.true_negatives + self.false_positives)
    }
}

fn f1(hits: f64, misses: f64) -> Option<f64> {
    ratio(2.0 * hits, 2.0 * hits + misses)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// The counts of one solution.
#[must_use]
pub fn count(answered: &Answered<'_>, threshold: f64) -> StepCounts {
    let mut counts = StepCounts::default();
    let StepTruth::EveryStep(labels) = &answered.item.truth else {
        return counts;
    };
    let Ok(StepAnswer::Scores(scores)) = &answered.answer else {
        counts.unanswered_right = labels.iter().filter(|right| **right).count() as f64;
        counts.unanswered_wrong = labels.len() as f64 - counts.unanswered_right;
        return counts;
    };
    for (&label, &score) in labels.iter().zip(scores) {
        match (label, is_right(score, threshold)) {
            (true, true) => counts.true_positives += 1.0,
            (false, true) => counts.false_positives += 1.0,
            (false, false) => counts.true_negatives += 1.0,
            (true, false) => counts.false_negatives += 1.0,
        }
    }
    counts
}

/// What a threshold is tuned for: the overall PRMScore with faults left out.
#[must_use]
pub fn objective(answered: &[Answered<'_>], threshold: f64) -> Option<f64> {
    let mut total = [0.0; SOLUTIONS];
    for item in answered.iter().filter(|a| a.answer.is_ok()) {
        let counts = count(item, threshold).array();
        total.iter_mut().zip(counts).for_each(|(sum, part)| *sum += part);
    }
    StepCounts::at(&total, 0).score()
}

/// Slots of a [`Tally`]: the counts of every class, then first errors found and
/// solutions with an error.
const FOUND: usize = NUM_CLASSES * WIDTH;
const WITH_ERROR: usize = FOUND + 1;
const NUM_SLOTS: usize = FOUND + 2;

/// Measures solutions of the nine classes; those of other classes are left out.
///
/// Names: `prmscore`, `f1`, `negative_f1` (again with `_without_faults`),
/// `step_accuracy`, `right_step_accuracy`, `wrong_step_accuracy`,
/// `first_error_accuracy`, `category.<category>`, `class.<class>`, and `step_auc`, which
/// needs no threshold. A solution without a usable answer counts as if every step were
/// called wrongly. Intervals: bootstrap clustered by problem; `n` counts solutions,
/// for `step_auc` steps.
#[must_use]
pub fn measure(answered: &[Answered<'_>], threshold: f64, resampling: Resampling) -> Metrics {
    let placed: Vec<(usize, &Answered<'_>)> =
        answered.iter().filter_map(|a| Some((class_index(&a.item.subset)?, a))).collect();
    let mut tally = Tally::new(NUM_SLOTS);
    for (class, answered) in &placed {
        add(&mut tally, *class, answered, threshold);
    }
    let mut metrics = tally.measure(&figures(&placed), resampling);
    let auc = step_auc(&placed);
    metrics.extend(auc.map(|estimate| ("step_auc".to_owned(), estimate.into())));
    metrics
}

fn class_index(subset: &str) -> Option<usize> {
    CLASSES.iter().position(|(name, ..)| *name == subset)
}

fn add(tally: &mut Tally, class: usize, answered: &Answered<'_>, threshold: f64) {
    let cluster = answered.item.cluster;
    let counts = count(answered, threshold).array();
    for (slot, value) in counts.into_iter().enumerate().filter(|(_, value)| *value > 0.0) {
        tally.add(cluster, class * WIDTH + slot, value);
    }
    tally.add(cluster, class * WIDTH + SOLUTIONS, 1.0);
    let Some(first) = answered.item.truth.first_wrong() else { return };
    let is_found = match &answered.answer {
        Ok(StepAnswer::Scores(scores)) => {
            scores.get(first).is_some_and(|&s| !is_right(s, threshold))
        }
        _ => false,
    };
    tally.add(cluster, FOUND, f64::from(u8::from(is_found)));
    tally.add(cluster, WITH_ERROR, 1.0);
}

/// A figure of step counts.
type OfCounts = fn(&StepCounts) -> Option<f64>;

const WITH_FAULTS: [(&str, OfCounts); 6] = [
    ("prmscore", StepCounts::score),
    ("f1", StepCounts::f1),
    ("negative_f1", StepCounts::negative_f1),
    ("step_accuracy", StepCounts::accuracy),
    ("right_step_accuracy", StepCounts::right_accuracy),
    ("wrong_step_accuracy", StepCounts::wrong_accuracy),
];

const WITHOUT_FAULTS: [(&str, OfCounts); 3] = [
    ("prmscore_without_faults", StepCounts::score),
    ("f1_without_faults", StepCounts::f1),
    ("negative_f1_without_faults", StepCounts::negative_f1),
];

fn figures<'a>(placed: &[(usize, &Answered<'_>)]) -> Vec<Figure<'a>> {
    let number = |keep: &dyn Fn(usize, &Answered<'_>) -> bool| {
        placed.iter().filter(|(class, a)| keep(*class, a)).count()
    };
    let answered = number(&|_, a| a.answer.is_ok());
    let overall = WITH_FAULTS.into_iter().map(|(name, of)| {
        Figure::of(name, placed.len(), move |sums| of(&pooled(sums).with_faults()))
    });
    let readable = WITHOUT_FAULTS
        .into_iter()
        .map(|(name, of)| Figure::of(name, answered, move |sums| of(&pooled(sums))));
    let mut figures: Vec<Figure<'a>> = overall.chain(readable).collect();
    let with_error = number(&|_, a| a.item.truth.first_wrong().is_some());
    figures.push(Figure::proportion("first_error_accuracy", FOUND, WITH_ERROR, with_error));
    for category in CATEGORIES {
        let n = number(&|class, _| CLASSES[class].1 == category);
        let name = format!("category.{category}");
        figures.push(Figure::of(name, n, move |sums| category_score(sums, category)));
    }
    for (class, (name, ..)) in CLASSES.into_iter().enumerate() {
        let n = number(&|other, _| other == class);
        let figure = Figure::of(format!("class.{name}"), n, move |sums| class_score(sums, class));
        figures.push(figure.share_of(class * WIDTH + SOLUTIONS));
    }
    figures.retain(|figure| figure.n > 0);
    figures
}

/// The counts of all classes.
fn pooled(sums: &[f64]) -> StepCounts {
    let mut total = [0.0; WIDTH];
    for class in 0..NUM_CLASSES {
        let counts = &sums[class * WIDTH..(class + 1) * WIDTH];
        total.iter_mut().zip(counts).for_each(|(sum, part)| *sum += part);
    }
    StepCounts::at(&total, 0)
}

fn class_score(sums: &[f64], class: usize) -> Option<f64> {
    let counts = StepCounts::at(sums, class * WIDTH).with_faults();
    if CLASSES[class].0 == MULTI_SOLUTIONS { counts.f1() } else { counts.score() }
}

fn category_score(sums: &[f64], category: &str) -> Option<f64> {
    let classes = (0..NUM_CLASSES).filter(|class| CLASSES[*class].1 == category);
    mean(classes.filter_map(|class| class_score(sums, class)))
}

/// How well scores separate right from wrong steps, whatever the threshold.
fn step_auc(placed: &[(usize, &Answered<'_>)]) -> Option<crate::interval::Estimate> {
    let mut samples = Vec::new();
    for (_, answered) in placed {
        let (StepTruth::EveryStep(labels), Ok(StepAnswer::Scores(scores))) =
            (&answered.item.truth, &answered.answer)
        else {
            continue;
        };
        let cluster = answered.item.cluster;
        let of_step = |(&is_positive, &value)| Sample { cluster, is_positive, value };
        samples.extend(labels.iter().zip(scores).map(of_step));
    }
    clustered_auc(&samples)
}
