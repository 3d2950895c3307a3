//! Sums by prompt, and figures of the sums with their intervals.
//!
//! A benchmark's figures (subset accuracies, weighted sections, unweighted means of
//! domains) are all functions of a few sums over items. [`Tally`] keeps those sums
//! prompt by prompt, so that one pass of the bootstrap gives every figure its
//! interval. A resample counts how often it drew each *kind* of prompt (prompts with
//! equal sums), so its cost does not depend on how many sums there are.

use std::collections::HashMap;

use rayon::prelude::*;

use super::summary::{Metric, Metrics};
use crate::{
    interval::{Resampling, quantile, wilson, wilson_of_share},
    random,
};

/// Sums by prompt.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Place of every prompt in `rows`.
    places: HashMap<usize, usize>,
    /// Per prompt its sums, as (slot, value) in the order of slots.
    rows: Vec<Vec<(usize, f64)>>,
    num_slots: usize,
}

/// A function of the sums.
pub type Value<'a> = Box<dyn Fn(&[f64]) -> Option<f64> + Sync + 'a>;

/// A figure to be measured.
pub struct Figure<'a> {
    /// Its name.
    pub name: String,
    /// Number of items behind it.
    pub n: usize,
    /// Its value from the sums.
    pub value: Value<'a>,
    /// The sum it is a share of, where it is one: its prompts are the figure's sample.
    pub whole: Option<usize>,
    /// The sum that, divided by `whole`, is the figure, for a plain proportion.
    pub part: Option<usize>,
}

impl std::fmt::Debug for Figure<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Figure").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The quotient, where there is something to divide by.
#[must_use]
pub fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

impl<'a> Figure<'a> {
    /// The quotient of two sums, a proportion of `n` items.
    #[must_use]
    pub fn proportion(name: impl Into<String>, part: usize, whole: usize, n: usize) -> Self {
        let value = Box::new(move |sums: &[f64]| ratio(sums[part], sums[whole]));
        Self { name: name.into(), n, value, whole: Some(whole), part: Some(part) }
    }

    /// Any function of the sums.
    pub fn of(
        name: impl Into<String>,
        n: usize,
        value: impl Fn(&[f64]) -> Option<f64> + Sync + 'a,
    ) -> Self {
        Self { name: name.into(), n, value: Box::new(value), whole: None, part: None }
    }

    /// The same, as a share of the sum in a slot: where it comes out at 0 or 1, its
    /// interval is that of a proportion of so many cases.
    #[must_use]
    pub fn share_of(self, whole: usize) -> Self {
        Self { whole: Some(whole), ..self }
    }
}

impl Tally {
    /// Sums for slots `0..num_slots`, all 0.
    #[must_use]
    pub fn new(num_slots: usize) -> Self {
        Self { num_slots, ..Self::default() }
    }

    /// Makes room for slots `0..num_slots`.
    pub fn reserve(&mut self, num_slots: usize) {
        self.num_slots = self.num_slots.max(num_slots);
    }

    /// Adds to a sum of a prompt.
    pub fn add(&mut self, cluster: usize, slot: usize, value: f64) {
        self.num_slots = self.num_slots.max(slot + 1);
        let place = *self.places.entry(cluster).or_insert_with(|| {
            self.rows.push(Vec::new());
            self.rows.len() - 1
        });
        let row = &mut self.rows[place];
        match row.binary_search_by_key(&slot, |(slot, _)| *slot) {
            Ok(index) => row[index].1 += value,
            Err(index) => row.insert(index, (slot, value)),
        }
    }

    /// The sum over all prompts.
    #[must_use]
    pub fn total(&self, slot: usize) -> f64 {
        let of_row = |row: &Vec<(usize, f64)>| {
            row.iter().find(|(other, _)| *other == slot).map_or(0.0, |(_, value)| *value)
        };
        self.rows.iter().map(of_row).sum()
    }

    /// Measures figures: Wilson's interval for a proportion (with the effective size of
    /// its sample where prompts have several items or credits are fractional), otherwise
    /// the bootstrap clustered by prompt; without any spread Wilson's on the number of
    /// prompts, so that nothing looks more certain than its sample allows.
    /// With 0 resamples there are values without intervals.
    #[must_use]
    pub fn measure(&self, figures: &[Figure<'_>], resampling: Resampling) -> Metrics {
        let kinds = Kinds::of(self, self.num_slots);
        let totals = kinds.sums(&kinds.counts);
        let spread = kinds.bootstrap(figures, resampling);
        let metric = |(figure, resamples): (&Figure<'_>, Vec<f64>)| {
            let value = (figure.value)(&totals).filter(|value| value.is_finite());
            let ci95 = value
                .filter(|_| resampling.resamples > 0)
                .and_then(|value| self.interval(figure, value, resamples));
            (figure.name.clone(), Metric { value, ci95, n: figure.n })
        };
        figures.iter().zip(spread).map(metric).collect()
    }

    fn interval(
        &self,
        figure: &Figure<'_>,
        value: f64,
        mut resamples: Vec<f64>,
    ) -> Option<[f64; 2]> {
        let units = figure.whole.map(|whole| self.units(figure.part, whole));
        if let Some(units) = units.as_ref().filter(|_| figure.part.is_some()) {
            let size = units.effective_size(value);
            let interval = size.map(|size| wilson_of_share(value, size));
            let interval =
                interval.unwrap_or_else(|| wilson(value * units.count as f64, units.count));
            return Some([interval.low, interval.high]);
        }
        resamples.sort_by(f64::total_cmp);
        let ends = [quantile(&resamples, 0.025)?, quantile(&resamples, 0.975)?];
        if ends[0] < ends[1] || !(0.0..=1.0).contains(&value) {
            return Some(ends);
        }
        let count = units.map_or(self.rows.len(), |units| units.count);
        let interval = wilson(value * count as f64, count);
        Some([interval.low, interval.high])
    }

    /// The prompts a proportion has.
    fn units(&self, part: Option<usize>, whole: usize) -> Units {
        let at = |row: &[(usize, f64)], slot: usize| {
            row.iter().find(|(other, _)| *other == slot).map_or(0.0, |(_, value)| *value)
        };
        let mut units = Units { count: 0, are_single: true, sums: [0.0; 5] };
        for row in self.rows.iter().filter(|row| at(row, whole) > 0.0) {
            units.count += 1;
            let credit = part.map_or(0.0, |part| at(row, part));
            let size = at(row, whole);
            units.are_single &= size == 1.0 && (credit == 0.0 || credit == 1.0);
            let terms = [credit * credit, credit * size, size * size, credit, size];
            units.sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        }
        units
    }
}

/// The prompts of a proportion.
struct Units {
    count: usize,
    /// Whether each has one item of credit 0 or 1.
    are_single: bool,
    /// Sums over prompts of credit², credit · size, size², credit and size.
    sums: [f64; 5],
}

impl Units {
    /// The number of independent trials that carry as much: m(1 − m)/V with V the
    /// variance of the ratio, linearised and robust to clusters; `None` without spread.
    fn effective_size(&self, mean: f64) -> Option<f64> {
        if self.are_single {
            return (self.count > 0).then_some(self.count as f64);
        }
        let [credit2, product, size2, _, size] = self.sums;
        let squares = credit2 - 2.0 * mean * product + mean * mean * size2;
        let count = self.count as f64;
        let variance = count / (count - 1.0) * squares / (size * size);
        let effective = mean * (1.0 - mean) / variance;
        (squares > 1e-12 * size2 && effective.is_finite() && effective > 0.0).then_some(effective)
    }
}

/// Prompts grouped by equal sums.
struct Kinds {
    /// Kind of every prompt.
    kind_of: Vec<u32>,
    /// Sums of a kind.
    rows: Vec<Vec<(usize, f64)>>,
    /// Prompts of a kind.
    counts: Vec<f64>,
    num_slots: usize,
}

impl Kinds {
    fn of(tally: &Tally, num_slots: usize) -> Self {
        let mut known: HashMap<Vec<(usize, u64)>, u32> = HashMap::new();
        let mut kinds =
            Self { kind_of: Vec::new(), rows: Vec::new(), counts: Vec::new(), num_slots };
        for row in &tally.rows {
            let key: Vec<(usize, u64)> = row.iter().map(|(s, v)| (*s, v.to_bits())).collect();
            let kind = *known.entry(key).or_insert_with(|| {
                kinds.rows.push(row.clone());
                kinds.counts.push(0.0);
                kinds.rows.len() as u32 - 1
            });
            kinds.counts[kind as usize] += 1.0;
            kinds.kind_of.push(kind);
        }
        kinds
    }

    fn sums(&self, counts: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.num_slots];
        for (row, count) in self.rows.iter().zip(counts) {
            for (slot, value) in row {
                sums[*slot] += count * value;
            }
        }
        sums
    }

    /// Per figure its values over the resamples; percentile bootstrap clustered by
    /// prompt (B. Efron, Annals of Statistics 7, 1979).
    fn bootstrap(&self, figures: &[Figure<'_>], resampling: Resampling) -> Vec<Vec<f64>> {
        if self.kind_of.is_empty() {
            return vec![Vec::new(); figures.len()];
        }
        // Every resample has a stream of its own, so threads cannot change a result.
        let resamples: Vec<Vec<Option<f64>>> = (0..resampling.resamples as u64)
            .into_par_iter()
            .map_init(
                || vec![0.0; self.rows.len()],
                |counts, resample| {
                    self.draw_counts(random::draw(resampling.seed, resample), counts);
                    resampled_figures(figures, &self.sums(counts))
                },
            )
            .collect();
        (0..figures.len())
            .map(|figure| resamples.iter().filter_map(|values| values[figure]).collect())
            .collect()
    }

    /// How many prompts of each kind one resample draws.
    fn draw_counts(&self, seed: u64, counts: &mut [f64]) {
        counts.fill(0.0);
        for position in 0..self.kind_of.len() as u64 {
            let drawn = random::below(self.kind_of.len(), seed, position);
            counts[self.kind_of[drawn] as usize] += 1.0;
        }
    }
}

/// Figures that need the bootstrap, from the sums of one resample.
fn resampled_figures(figures: &[Figure<'_>], sums: &[f64]) -> Vec<Option<f64>> {
    let value = |figure: &Figure<'_>| match figure.part {
        Some(_) => None,
        None => (figure.value)(sums).filter(|value| value.is_finite()),
    };
    figures.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::cluster_bootstrap;

    const RESAMPLING: Resampling = Resampling { resamples: 300, seed: 5 };

    #[test]
    fn a_proportion_of_single_items_has_wilsons_interval() {
        let mut tally = Tally::new(2);
        for cluster in 0..10 {
            tally.add(cluster, 0, f64::from(cluster < 8));
            tally.add(cluster, 1, 1.0);
        }
        let measured = tally.measure(&[Figure::proportion("a", 0, 1, 10)], RESAMPLING);
        let expected = wilson(8.0, 10);
        assert_eq!(measured["a"].value, Some(0.8));
        assert_eq!(measured["a"].ci95, Some([expected.low, expected.high]));
        let bare = Resampling { resamples: 0, ..RESAMPLING };
        assert_eq!(tally.measure(&[Figure::proportion("a", 0, 1, 10)], bare)["a"].ci95, None);
    }

    /// Counting kinds is the plain clustered bootstrap, draw for draw.
    #[test]
    fn equals_the_plain_bootstrap() {
        let clusters: Vec<[f64; 2]> =
            (0..40).map(|i| [f64::from(i % 3), f64::from(2 + i % 2)]).collect();
        let mut tally = Tally::new(2);
        for (cluster, [part, whole]) in clusters.iter().enumerate() {
            tally.add(cluster, 0, *part);
            tally.add(cluster, 1, *whole);
        }
        let figure = Figure::of("a", 40, |sums: &[f64]| ratio(sums[0], sums[1]));
        let [plain] = cluster_bootstrap(&clusters, RESAMPLING, |s| [ratio(s[0], s[1])]);
        let plain = plain.expect("there are clusters");
        let measured = tally.measure(&[figure], RESAMPLING);
        assert_eq!(measured["a"].ci95, Some([plain.low, plain.high]));
    }

    #[test]
    fn no_spread_and_nothing_at_all() {
        let mut tally = Tally::new(2);
        for cluster in 0..6 {
            tally.add(cluster, 0, 3.0);
            tally.add(cluster, 1, 3.0);
        }
        let measured = tally.measure(&[Figure::proportion("a", 0, 1, 18)], RESAMPLING);
        let expected = wilson(6.0, 6);
        assert_eq!(measured["a"].ci95, Some([expected.low, expected.high]));
        let nothing = Tally::new(0).measure(&[Figure::of("a", 0, |_: &[f64]| None)], RESAMPLING);
        assert_eq!(nothing["a"], Metric::default());
    }
}
