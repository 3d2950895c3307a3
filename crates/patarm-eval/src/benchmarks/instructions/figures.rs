//! Shares of prompts and instructions, with intervals.

use std::collections::BTreeMap;

use super::{Checked, load::Prompt};
use crate::{
    benchmark::{
        summary::Metrics,
        tally::{Figure, Tally},
    },
    interval::Resampling,
};

/// The four figures of the reference, in the order of [`SHARES`].
const OFFICIAL: [&str; 4] = [
    "prompt_level_strict_acc",
    "prompt_level_loose_acc",
    "inst_level_strict_acc",
    "inst_level_loose_acc",
];

/// Slots of a group of sums: all prompts, strict, loose; all instructions, strict, loose.
const SLOTS: usize = 6;

/// Slots (part, whole) of the official figures.
const SHARES: [(usize, usize); 4] = [(1, 0), (2, 0), (4, 3), (5, 3)];

/// All figures, not yet named after how whole the data is.
pub(super) struct Figures {
    /// Over all prompts.
    all: Metrics,
    /// Over prompts with a response.
    answered: Metrics,
    /// By instruction and by group.
    parts: Metrics,
}

impl Figures {
    /// The figures by their names: official ones only for the whole benchmark.
    pub(super) fn named(self, is_whole: bool, has_unanswered: bool) -> Metrics {
        let prefixed = |prefix: &'static str, metrics: Metrics| {
            metrics.into_iter().map(move |(name, metric)| (format!("{prefix}{name}"), metric))
        };
        let mut named = self.parts;
        named.extend(prefixed(if is_whole { "" } else { "present." }, self.all));
        if has_unanswered {
            named.extend(prefixed("answered.", self.answered));
        }
        named
    }
}

pub(super) fn measure(prompts: &[Prompt], checked: &[Checked], resampling: Resampling) -> Figures {
    let answered: Vec<(&Prompt, &Checked)> =
        prompts.iter().zip(checked).filter(|(_, checked)| checked.response.is_ok()).collect();
    Figures {
        all: official(prompts.iter().zip(checked), resampling),
        answered: official(answered.into_iter(), resampling),
        parts: parts(prompts, checked, resampling),
    }
}

fn official<'a>(
    checked: impl Iterator<Item = (&'a Prompt, &'a Checked)>,
    resampling: Resampling,
) -> Metrics {
    let mut tally = Tally::new(SLOTS);
    for (prompt, checked) in checked {
        let mut add = |slot: usize, value: bool| {
            tally.add(prompt.cluster, slot, f64::from(value));
        };
        add(0, true);
        add(1, checked.follows_all(|verdict| verdict.strict));
        add(2, checked.follows_all(|verdict| verdict.loose));
        for verdict in &checked.verdicts {
            add(3, true);
            add(4, verdict.strict);
            add(5, verdict.loose);
        }
    }
    let figure = |(name, (part, whole)): (&&str, (usize, usize))| {
        Figure::proportion(*name, part, whole, tally.total(whole) as usize)
    };
    let figures: Vec<Figure<'_>> = OFFICIAL.iter().zip(SHARES).map(figure).collect();
    tally.measure(&figures, resampling)
}

/// `instruction.<id>` and `group.<prefix>`, strictly and loosely.
fn parts(prompts: &[Prompt], checked: &[Checked], resampling: Resampling) -> Metrics {
    let mut tally = Tally::new(0);
    let mut places = BTreeMap::<String, usize>::new();
    for (prompt, checked) in prompts.iter().zip(checked) {
        for (id, verdict) in prompt.ids.iter().zip(&checked.verdicts) {
            let group = id.split(':').next().unwrap_or_default();
            for name in [format!("instruction.{id}"), format!("group.{group}")] {
                let next = places.len();
                let start = 3 * *places.entry(name).or_insert(next);
                tally.add(prompt.cluster, start, 1.0);
                tally.add(prompt.cluster, start + 1, f64::from(verdict.strict));
                tally.add(prompt.cluster, start + 2, f64::from(verdict.loose));
            }
        }
    }
    let mut figures = Vec::new();
    for (name, place) in &places {
        let (whole, n) = (3 * place, tally.total(3 * place) as usize);
        for (offset, criterion) in [(1, "strict_acc"), (2, "loose_acc")] {
            let name = format!("{name}.{criterion}");
            figures.push(Figure::proportion(name, whole + offset, whole, n));
        }
    }
    tally.measure(&figures, resampling)
}
