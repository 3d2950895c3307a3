//! 95 % intervals: Wilson's for one proportion, the clustered bootstrap for the rest.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::random;

/// The 0.975 quantile of the standard normal distribution.
pub(crate) const Z_95: f64 = 1.959_963_984_540_054;

/// A closed 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies in the interval, ends included.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// A figure with its 95 % interval. `None` where there is nothing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// The figure.
    pub value: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<Interval>,
    /// Number of pairs it is measured on.
    pub n: usize,
}

/// How resampling is done. The seed is always explicit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resampling {
    /// Number of bootstrap resamples; 2,000 is a good value.
    pub resamples: usize,
    /// Seed of the resamples.
    pub seed: u64,
}

/// Wilson's score interval of a proportion (E. B. Wilson, "Probable inference,
/// the law of succession, and statistical inference", JASA 22, 1927).
///
/// `successes` may be fractional: with ties at one half the credits have no
/// more variance than a coin of the same mean, so the interval errs on the wide side.
/// With `n = 0` the interval is `[0, 1]`.
#[must_use]
pub fn wilson(successes: f64, n: usize) -> Interval {
    if n == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    wilson_of_share(successes / n as f64, n as f64)
}

/// Wilson's interval of a share `p` with the information of `n` independent trials,
/// which need not be whole: the effective size of clustered or fractional credits
/// (N. Dean & M. Pagano, "Evaluating confidence interval methods for binomial
/// proportions in clustered surveys", Journal of Survey Statistics and Methodology 3,
/// 2015).
pub(crate) fn wilson_of_share(p: f64, n: f64) -> Interval {
    let z2 = Z_95 * Z_95;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z_95 / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    Interval { low: (centre - half).max(0.0).min(p), high: (centre + half).min(1.0).max(p) }
}

/// Percentile bootstrap clustered by prompt (B. Efron, "Bootstrap methods",
/// Annals of Statistics 7, 1979; clusters are drawn whole, because pairs of one
/// prompt err together).
///
/// A cluster is a vector of `K` sums; a resample draws as many clusters as there
/// are, with replacement, adds their vectors, and `statistics` turns the total
/// into `S` figures. A figure that is `None` in some resample is left out there.
///
/// Returns one interval a statistic, `None` where no resample gave a value.
pub fn cluster_bootstrap<const K: usize, const S: usize>(
    clusters: &[[f64; K]],
    resampling: Resampling,
    statistics: impl Fn(&[f64; K]) -> [Option<f64>; S] + Sync,
) -> [Option<Interval>; S] {
    if clusters.is_empty() {
        return [None; S];
    }
    // Every resample has a stream of its own, so threads cannot change a result.
    let resamples: Vec<[Option<f64>; S]> = (0..resampling.resamples as u64)
        .into_par_iter()
        .map(|resample| {
            let seed = random::draw(resampling.seed, resample);
            statistics(&resampled_total(clusters, seed))
        })
        .collect();
    let values: [Vec<f64>; S] = std::array::from_fn(|figure| {
        resamples.iter().filter_map(|figures| figures[figure]).collect()
    });
    values.map(|mut kept| {
        kept.sort_by(f64::total_cmp);
        Some(Interval { low: quantile(&kept, 0.025)?, high: quantile(&kept, 0.975)? })
    })
}

fn resampled_total<const K: usize>(clusters: &[[f64; K]], seed: u64) -> [f64; K] {
    let mut total = [0.0; K];
    for position in 0..clusters.len() as u64 {
        let cluster = &clusters[random::below(clusters.len(), seed, position)];
        for (sum, part) in total.iter_mut().zip(cluster) {
            *sum += part;
        }
    }
    total
}

/// The `q` quantile of sorted values, linear between neighbours; `None` when empty.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = q * last as f64;
    let below = (place.floor() as usize).min(last);
    let above = (below + 1).min(last);
    Some(sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESAMPLING: Resampling = Resampling { resamples: 2000, seed: 7 };

    fn mean([sum, count]: &[f64; 2]) -> [Option<f64>; 1] {
        [(*count > 0.0).then(|| sum / count)]
    }

    #[track_caller]
    fn close(left: f64, right: f64, tolerance: f64) {
        assert!((left - right).abs() < tolerance, "{left} is not {right}");
    }

    /// Worked by hand from the formula: 8 of 10 gives 0.4901625 to 0.9433178.
    #[test]
    fn wilson_of_known_cases() {
        let interval = wilson(8.0, 10);
        close(interval.low, 0.490_162, 1e-5);
        close(interval.high, 0.943_318, 1e-5);
        assert_eq!(wilson(0.0, 0), Interval { low: 0.0, high: 1.0 });
        assert_eq!(wilson(0.0, 20).low, 0.0);
        close(wilson(0.0, 20).high, 0.161_125, 1e-5);
        assert_eq!(wilson(20.0, 20).high, 1.0);
    }

    /// The exact coverage of the interval, summed over the binomial distribution.
    #[test]
    fn wilson_covers_about_95_per_cent() {
        for (n, p) in [(28i32, 0.5f64), (100, 0.7), (500, 0.9)] {
            let mut log_mass = f64::from(n) * f64::ln(1.0 - p);
            let mut covered = 0.0;
            for successes in 0..=n {
                if wilson(f64::from(successes), n as usize).contains(p) {
                    covered += log_mass.exp();
                }
                let odds = f64::from(n - successes) / f64::from(successes + 1) * p / (1.0 - p);
                log_mass += odds.ln();
            }
            assert!((0.93..0.975).contains(&covered), "n {n} p {p}: {covered}");
        }
    }

    #[test]
    fn bootstrap_of_independent_pairs_is_near_wilson() {
        let clusters: Vec<[f64; 2]> = (0..400).map(|i| [f64::from(i % 4 != 0), 1.0]).collect();
        let [interval] = cluster_bootstrap(&clusters, RESAMPLING, mean);
        let interval = interval.expect("there are clusters");
        let reference = wilson(300.0, 400);
        close(interval.low, reference.low, 0.01);
        close(interval.high, reference.high, 0.01);
    }

    /// Ten copies of one outcome in a prompt carry the information of one pair.
    #[test]
    fn clusters_widen_the_interval() {
        let wide: Vec<[f64; 2]> = (0..40).map(|i| [10.0 * f64::from(i % 4 != 0), 10.0]).collect();
        let narrow: Vec<[f64; 2]> = (0..400).map(|i| [f64::from(i % 4 != 0), 1.0]).collect();
        let width = |clusters: &[[f64; 2]]| {
            let [interval] = cluster_bootstrap(clusters, RESAMPLING, mean);
            interval.map(|i| i.high - i.low).expect("there are clusters")
        };
        let ratio = width(&wide) / width(&narrow);
        close(ratio, 10f64.sqrt(), 0.4);
    }

    #[test]
    fn bootstrap_is_a_function_of_its_seed() {
        let clusters: Vec<[f64; 2]> = (0..50).map(|i| [f64::from(i).sqrt(), 1.0]).collect();
        let again = cluster_bootstrap(&clusters, RESAMPLING, mean);
        assert_eq!(cluster_bootstrap(&clusters, RESAMPLING, mean), again);
        let other = Resampling { seed: 8, ..RESAMPLING };
        assert_ne!(cluster_bootstrap(&clusters, other, mean), again);
        assert_eq!(cluster_bootstrap(&[], RESAMPLING, mean), [None]);
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), Some(3.0));
        assert_eq!(quantile(&[5.0], 0.975), Some(5.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
