//! Finding the first mistake: ProcessBench and BIG-Bench-Mistake.
//!
//! A solution is right when the first wrong step is named exactly, or none where there
//! is none. ProcessBench (C. Zheng et al., arXiv 2412.06559, section 4.1) reports F1 as
//! the **harmonic mean** of the accuracy on solutions with a mistake and on those
//! without, so that always seeing a mistake, or never, is worth nothing; its overall
//! figure is the plain mean of its four subsets' F1. BIG-Bench-Mistake (G. Tyen et al.,
//! arXiv 2311.08516) reports plain accuracy; both are given for both.

use std::collections::BTreeMap;

use super::Answered;
use crate::{
    benchmark::{
        summary::Metrics,
        tally::{Figure, Tally, ratio},
    },
    interval::Resampling,
    metrics::Outcome,
};

/// How one solution came out.
#[must_use]
pub fn outcome(answered: &Answered<'_>, threshold: f64) -> Outcome {
    let truth = answered.item.truth.first_wrong();
    match &answered.answer {
        Err(_) => Outcome::Fault,
        Ok(answer) if answer.first_wrong(threshold) == truth => Outcome::Right,
        Ok(_) => Outcome::Wrong,
    }
}

/// What a threshold is tuned for: F1 with faults counted as wrong.
#[must_use]
pub fn objective(answered: &[Answered<'_>], threshold: f64) -> Option<f64> {
    let mut sums = [0.0; WIDTH];
    for item in answered {
        for (slot, value) in slots(item, threshold) {
            sums[slot] += value;
        }
    }
    f1(&sums, 0, ALL)
}

/// Slots of one group: right, answered and all solutions with a mistake; the same for
/// those without.
const WIDTH: usize = 6;
const RIGHT: usize = 0;
const ANSWERED: usize = 1;
const ALL: usize = 2;
/// Where the solutions without a mistake begin.
const CORRECT: usize = 3;

fn slots(answered: &Answered<'_>, threshold: f64) -> [(usize, f64); 3] {
    let start = if answered.item.truth.first_wrong().is_some() { 0 } else { CORRECT };
    let outcome = outcome(answered, threshold);
    [
        (start + RIGHT, outcome.strict_credit()),
        (start + ANSWERED, f64::from(u8::from(outcome != Outcome::Fault))),
        (start + ALL, 1.0),
    ]
}

/// Measures solutions.
///
/// Names: `f1`, `error_accuracy`, `correct_accuracy`, `accuracy`, the first and the last
/// again with `_without_faults`; for each subset `subset.<subset>.f1` and so on; and
/// `mean_subset_f1` where there are several subsets. A solution without a usable answer
/// counts as wrong.
#[must_use]
pub fn measure(answered: &[Answered<'_>], threshold: f64, resampling: Resampling) -> Metrics {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for item in answered {
        let next = names.len();
        names.entry(&item.item.subset).or_insert(next);
    }
    // The last group holds everything.
    let everything = names.len();
    let mut tally = Tally::new(WIDTH * (everything + 1));
    for item in answered {
        for group in [names[item.item.subset.as_str()], everything] {
            for (slot, value) in slots(item, threshold) {
                tally.add(item.item.cluster, WIDTH * group + slot, value);
            }
        }
    }
    let mut figures = group_figures("", everything, &tally);
    if names.len() > 1 {
        figures.push(Figure::of("mean_subset_f1", answered.len(), move |sums| {
            let parts = (0..everything).map(|group| f1(sums, group, ALL));
            let total: Option<f64> = parts.sum();
            Some(total? / everything as f64)
        }));
        for (name, group) in &names {
            let part = group_figures(&format!("subset.{name}."), *group, &tally);
            figures.extend(part.into_iter().filter(|f| !f.name.ends_with("_without_faults")));
        }
    }
    tally.measure(&figures, resampling)
}

/// The figures of one group. What a figure is a share of is named, so that its interval
/// is made from as many prompts as that has.
fn group_figures(prefix: &str, group: usize, tally: &Tally) -> Vec<Figure<'static>> {
    let start = WIDTH * group;
    let total = |slot: usize| tally.total(start + slot) as usize;
    let (with, without) = (total(ALL), total(CORRECT + ALL));
    let answered = total(ANSWERED) + total(CORRECT + ANSWERED);
    let rarer = start + if with <= without { ALL } else { CORRECT + ALL };
    let commoner = start + if with <= without { CORRECT + ALL } else { ALL };
    let named = |name: &str| format!("{prefix}{name}");
    let right = move |sums: &[f64]| sums[start + RIGHT] + sums[start + CORRECT + RIGHT];
    let of_all = move |sums: &[f64], slot: usize| {
        ratio(right(sums), sums[start + slot] + sums[start + CORRECT + slot])
    };
    let proportion = |name: &str, kind: usize, n: usize| {
        Figure::proportion(named(name), start + kind + RIGHT, start + kind + ALL, n)
    };
    let mut figures = vec![
        Figure::of(named("f1"), with + without, move |sums| f1(sums, group, ALL)).share_of(rarer),
        Figure::of(named("f1_without_faults"), answered, move |sums| f1(sums, group, ANSWERED))
            .share_of(rarer),
        proportion("error_accuracy", 0, with),
        proportion("correct_accuracy", CORRECT, without),
        Figure::of(named("accuracy"), with + without, move |sums| of_all(sums, ALL))
            .share_of(commoner),
        Figure::of(named("accuracy_without_faults"), answered, move |s| of_all(s, ANSWERED))
            .share_of(commoner),
    ];
    figures.retain(|figure| figure.n > 0);
    figures
}

/// F1 of one group: the harmonic mean of the accuracies on both kinds of solutions, out
/// of those that `whole` counts; `None` where one kind is absent.
fn f1(sums: &[f64], group: usize, whole: usize) -> Option<f64> {
    let at = |slot: usize| sums[WIDTH * group + slot];
    let error = ratio(at(RIGHT), at(whole))?;
    let correct = ratio(at(CORRECT + RIGHT), at(CORRECT + whole))?;
    Some(harmonic_mean(error, correct))
}

/// 2ab / (a + b), 0 when both are 0.
#[must_use]
pub fn harmonic_mean(a: f64, b: f64) -> f64 {
    if a + b > 0.0 { 2.0 * a * b / (a + b) } else { 0.0 }
}
