//! Accuracy of pairs of responses under every rule, by part, with intervals.

use std::collections::BTreeMap;

use super::{
    responses::Set,
    summary::Metrics,
    tally::{Figure, Tally, ratio},
};
use crate::{interval::Resampling, metrics::Outcome};

/// How ties and faults count. Every accuracy is given under all four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Ties and faults count 0.
    Strict,
    /// Ties and faults count one half.
    HalfCredit,
    /// Ties count 0, pairs with a fault are left out.
    StrictWithoutFaults,
    /// Ties count one half, pairs with a fault are left out.
    HalfCreditWithoutFaults,
}

/// Sums of one group of pairs, as they lie in a [`Tally`].
const SLOTS: usize = 7;
const RIGHT: usize = 0;
const TIE: usize = 1;
const FAULT: usize = 2;
const ALL: usize = 3;
const SCORED: usize = 4;
const HALF: usize = 5;
const HALF_SCORED: usize = 6;

impl Rule {
    /// Every rule, in the order of their documentation.
    pub const ALL: [Self; 4] =
        [Self::Strict, Self::HalfCredit, Self::StrictWithoutFaults, Self::HalfCreditWithoutFaults];

    /// The name used in figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::HalfCredit => "half_credit",
            Self::StrictWithoutFaults => "strict_without_faults",
            Self::HalfCreditWithoutFaults => "half_credit_without_faults",
        }
    }

    fn whole(self) -> usize {
        match self {
            Self::Strict | Self::HalfCredit => ALL,
            Self::StrictWithoutFaults | Self::HalfCreditWithoutFaults => SCORED,
        }
    }

    /// The accuracy of the group whose sums begin at `place`; see [`Groups::place`].
    #[must_use]
    pub fn at(self, sums: &[f64], place: usize) -> Option<f64> {
        ratio(sums[place + self.part()], sums[place + self.whole()])
    }

    fn part(self) -> usize {
        match self {
            Self::Strict | Self::StrictWithoutFaults => RIGHT,
            Self::HalfCredit => HALF,
            Self::HalfCreditWithoutFaults => HALF_SCORED,
        }
    }
}

/// Outcomes summed by group and prompt.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// Number of every group, by name.
    numbers: BTreeMap<String, usize>,
    tally: Tally,
}

impl Groups {
    /// Adds an outcome to a group.
    pub fn add(&mut self, group: &str, cluster: usize, outcome: Outcome) {
        let number = self.number(group);
        let mut add = |slot: usize, value: f64| {
            if value > 0.0 {
                self.tally.add(cluster, number * SLOTS + slot, value);
            }
        };
        let is = |other: Outcome| f64::from(u8::from(outcome == other));
        add(ALL, 1.0);
        add(RIGHT, is(Outcome::Right));
        add(TIE, is(Outcome::Tie));
        add(FAULT, is(Outcome::Fault));
        add(SCORED, 1.0 - is(Outcome::Fault));
        add(HALF, outcome.half_credit());
        add(HALF_SCORED, is(Outcome::Right) + is(Outcome::Tie) / 2.0);
    }

    fn number(&mut self, group: &str) -> usize {
        if let Some(&number) = self.numbers.get(group) {
            return number;
        }
        let number = self.numbers.len();
        self.numbers.insert(group.to_owned(), number);
        self.tally.reserve((number + 1) * SLOTS);
        number
    }

    /// The names of the groups, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.numbers.keys().map(String::as_str)
    }

    /// Number of outcomes of a group.
    #[must_use]
    pub fn count(&self, group: &str) -> usize {
        let number = self.numbers.get(group);
        number.map_or(0, |number| self.tally.total(number * SLOTS + ALL) as usize)
    }

    /// Where the sums of a group begin, for [`Rule::at`]; `None` for an unknown group.
    #[must_use]
    pub fn place(&self, group: &str) -> Option<usize> {
        Some(*self.numbers.get(group)? * SLOTS)
    }

    /// The accuracy of a group from sums, for composites; `None` for an unknown group.
    #[must_use]
    pub fn accuracy(&self, sums: &[f64], group: &str, rule: Rule) -> Option<f64> {
        rule.at(sums, self.place(group)?)
    }

    /// The accuracies of a group: `<name>.strict` and so on.
    pub fn figures(&self, group: &str, name: &str) -> Vec<Figure<'static>> {
        let Some(number) = self.numbers.get(group) else {
            return Vec::new();
        };
        let start = number * SLOTS;
        let total = |slot: usize| self.tally.total(start + slot) as usize;
        let figure = |rule: Rule| {
            let (name, n) = (format!("{name}.{}", rule.name()), total(rule.whole()));
            Figure::proportion(name, start + rule.part(), start + rule.whole(), n)
        };
        let share = |name: String, slot: usize| {
            Figure::proportion(name, start + slot, start + ALL, total(ALL))
        };
        let mut figures: Vec<Figure<'static>> = Rule::ALL.into_iter().map(figure).collect();
        figures.push(share(format!("{name}.tie_rate"), TIE));
        figures.push(share(format!("{name}.fault_rate"), FAULT));
        figures
    }

    /// Measures figures on these sums.
    #[must_use]
    pub fn measure(&self, figures: &[Figure<'_>], resampling: Resampling) -> Metrics {
        self.tally.measure(figures, resampling)
    }
}

/// The group of all pairs.
const EVERYTHING: &str = "\u{0}all";

/// Accuracy over all labelled pairs of responses and by subset: `accuracy.<rule>`,
/// `subset.<name>.<rule>`, with tie and fault rates.
#[must_use]
pub fn pair_accuracy(set: &Set<'_>, resampling: Resampling) -> Metrics {
    let groups = by_subset(set);
    let mut figures = groups.figures(EVERYTHING, "accuracy");
    for name in groups.names().filter(|name| *name != EVERYTHING) {
        figures.extend(groups.figures(name, &format!("subset.{name}")));
    }
    groups.measure(&figures, resampling)
}

/// The outcomes of all labelled pairs, together and by subset.
#[must_use]
pub fn by_subset(set: &Set<'_>) -> Groups {
    let mut groups = Groups::default();
    for pair in set.pairs() {
        groups.add(EVERYTHING, pair.cluster, pair.outcome);
        let subset = &set.items[pair.item].subset;
        if !subset.is_empty() {
            groups.add(subset, pair.cluster, pair.outcome);
        }
    }
    groups
}

/// The figures of all pairs together: `accuracy.<rule>`.
#[must_use]
pub fn overall_figures(groups: &Groups) -> Vec<Figure<'static>> {
    groups.figures(EVERYTHING, "accuracy")
}
