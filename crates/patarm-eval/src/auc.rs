//! The area under the ROC curve, with an interval that knows of clusters.

use std::collections::BTreeMap;

use crate::interval::{Estimate, Interval, Z_95, wilson};

/// One observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Observations of one cluster err together.
    pub cluster: usize,
    /// Which of the two kinds it is.
    pub is_positive: bool,
    /// The number that should be larger for positives.
    pub value: f64,
}

/// The probability that a positive has the larger value than a negative, ties at one
/// half: 0.5 says nothing, 1 tells all apart.
///
/// The variance is N. A. Obuchowski's for clustered data ("Nonparametric analysis of
/// clustered ROC curve data", Biometrics 53, 1997), the interval is made on the log-odds
/// scale (M. S. Pepe, *The Statistical Evaluation of Medical Tests*, 2003, section 5.2)
/// and so stays within 0 and 1. Where there is no variance to go by, Wilson's interval
/// on the number of clusters of the rarer kind stands in.
///
/// `n` is the number of observations. `None` without a positive and a negative, or with
/// a value that is not a number.
#[must_use]
pub fn clustered_auc(samples: &[Sample]) -> Option<Estimate> {
    let num_positive = samples.iter().filter(|s| s.is_positive).count();
    let num_negative = samples.len() - num_positive;
    if num_positive == 0 || num_negative == 0 || samples.iter().any(|s| s.value.is_nan()) {
        return None;
    }
    let placements = placements(samples, num_positive, num_negative);
    let positives = samples.iter().zip(&placements).filter(|(s, _)| s.is_positive);
    let area = positives.map(|(_, p)| p).sum::<f64>() / num_positive as f64;
    let clusters = by_cluster(samples, &placements);
    let interval = match variance(&clusters, area, num_positive as f64, num_negative as f64) {
        Some(variance) if 0.0 < area && area < 1.0 => logit_interval(area, variance),
        _ => {
            let with = |of: fn(&Cluster) -> f64| clusters.iter().filter(|c| of(c) > 0.0).count();
            let units = with(|c| c.positives).min(with(|c| c.negatives));
            wilson(area * units as f64, units)
        }
    };
    Some(Estimate { value: Some(area), interval: Some(interval), n: samples.len() })
}

/// For each observation the share of the other kind on its right side: for a positive
/// the negatives below it, for a negative the positives above it, ties at one half.
fn placements(samples: &[Sample], num_positive: usize, num_negative: usize) -> Vec<f64> {
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by(|&a, &b| samples[a].value.total_cmp(&samples[b].value));
    let mut placements = vec![0.0; samples.len()];
    let (mut positives_below, mut negatives_below) = (0.0, 0.0);
    let is_tied = |&a: &usize, &b: &usize| samples[a].value == samples[b].value;
    for tied in order.chunk_by(is_tied) {
        let positives = tied.iter().filter(|&&i| samples[i].is_positive).count() as f64;
        let negatives = tied.len() as f64 - positives;
        for &index in tied {
            placements[index] = if samples[index].is_positive {
                (negatives_below + negatives / 2.0) / num_negative as f64
            } else {
                let above = num_positive as f64 - positives_below - positives;
                (above + positives / 2.0) / num_positive as f64
            };
        }
        positives_below += positives;
        negatives_below += negatives;
    }
    placements
}

/// Counts and sums of placements in one cluster.
#[derive(Clone, Copy, Debug, Default)]
struct Cluster {
    positives: f64,
    negatives: f64,
    positive_placements: f64,
    negative_placements: f64,
}

fn by_cluster(samples: &[Sample], placements: &[f64]) -> Vec<Cluster> {
    let mut clusters: BTreeMap<usize, Cluster> = BTreeMap::new();
    for (sample, placement) in samples.iter().zip(placements) {
        let cluster = clusters.entry(sample.cluster).or_default();
        if sample.is_positive {
            cluster.positives += 1.0;
            cluster.positive_placements += placement;
        } else {
            cluster.negatives += 1.0;
            cluster.negative_placements += placement;
        }
    }
    clusters.into_values().collect()
}

/// Obuchowski's variance; `None` where a kind stands in fewer than two clusters.
fn variance(clusters: &[Cluster], area: f64, m: f64, n: f64) -> Option<f64> {
    let count = |of: fn(&Cluster) -> f64| clusters.iter().filter(|c| of(c) > 0.0).count() as f64;
    let (with_positives, with_negatives) = (count(|c| c.positives), count(|c| c.negatives));
    if with_positives < 2.0 || with_negatives < 2.0 {
        return None;
    }
    let all = clusters.len() as f64;
    let (mut positive, mut negative, mut both) = (0.0, 0.0, 0.0);
    for cluster in clusters {
        let p = cluster.positive_placements - cluster.positives * area;
        let q = cluster.negative_placements - cluster.negatives * area;
        positive += p * p;
        negative += q * q;
        both += p * q;
    }
    let positive = positive * with_positives / ((with_positives - 1.0) * m);
    let negative = negative * with_negatives / ((with_negatives - 1.0) * n);
    let both = both * all / (all - 1.0);
    Some(positive / m + negative / n + 2.0 * both / (m * n)).filter(|variance| *variance > 0.0)
}

fn logit_interval(area: f64, variance: f64) -> Interval {
    let logit = (area / (1.0 - area)).ln();
    let half = Z_95 * variance.sqrt() / (area * (1.0 - area));
    let back = |x: f64| 1.0 / (1.0 + (-x).exp());
    Interval { low: back(logit - half), high: back(logit + half) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random;

    fn samples(positives: &[f64], negatives: &[f64]) -> Vec<Sample> {
        let kinds = [(positives, true), (negatives, false)];
        kinds
            .into_iter()
            .flat_map(|(values, is_positive)| {
                values.iter().map(move |&value| Sample { cluster: 0, is_positive, value })
            })
            .enumerate()
            .map(|(cluster, sample)| Sample { cluster, ..sample })
            .collect()
    }

    #[track_caller]
    fn area(positives: &[f64], negatives: &[f64]) -> f64 {
        let estimate = clustered_auc(&samples(positives, negatives)).expect("both kinds");
        let (value, interval) = (estimate.value.expect("a value"), estimate.interval.expect("one"));
        assert!(interval.contains(value) && 0.0 <= interval.low && interval.high <= 1.0);
        value
    }

    #[test]
    fn areas_of_known_cases() {
        assert_eq!(area(&[3.0, 4.0], &[1.0, 2.0]), 1.0);
        assert_eq!(area(&[1.0, 2.0], &[3.0, 4.0]), 0.0);
        assert_eq!(area(&[1.0, 1.0], &[1.0, 1.0]), 0.5);
        // Of six pairs the positives win four and tie one.
        assert_eq!(area(&[2.0, 3.0], &[1.0, 2.0, 2.5]), 4.5 / 6.0);
        assert_eq!(clustered_auc(&samples(&[1.0], &[])), None);
        assert_eq!(clustered_auc(&samples(&[], &[])), None);
        assert_eq!(clustered_auc(&samples(&[f64::NAN], &[1.0])), None);
    }

    /// Without clusters Obuchowski's variance is DeLong's (E. DeLong et al., Biometrics
    /// 44, 1988), here worked by hand: positives 1 and 3, negatives 0 and 2 have
    /// placements 1/2 and 1, and 1 and 1/2, so S10 = S01 = 1/8 and the variance is 1/8.
    #[test]
    fn variance_of_a_known_case() {
        let samples = samples(&[1.0, 3.0], &[0.0, 2.0]);
        let placements = placements(&samples, 2, 2);
        assert_eq!(placements, [0.5, 1.0, 1.0, 0.5]);
        let found = variance(&by_cluster(&samples, &placements), 0.75, 2.0, 2.0);
        assert!((found.expect("four clusters") - 0.125).abs() < 1e-12, "{found:?}");
    }

    /// Of repeated draws about 95 % hold the true area, with five observations a cluster
    /// that share a part of their noise.
    #[test]
    fn intervals_cover() {
        let uniform = |seed: u64, at: u64| random::draw(seed, at) as f64 / u64::MAX as f64;
        // With uniform noise of two parts and a shift of 0.4, by numeric integration.
        let draw = |seed: u64| -> Vec<Sample> {
            (0..300u64)
                .map(|i| {
                    let is_positive = uniform(seed, i) < 0.5;
                    let shared = uniform(seed ^ 0xaaaa, i / 5);
                    let value =
                        shared + uniform(seed ^ 0x5555, i) + f64::from(u8::from(is_positive)) * 0.4;
                    Sample { cluster: (i / 5) as usize, is_positive, value }
                })
                .collect()
        };
        let large: Vec<Sample> = (0..80u64)
            .flat_map(|s| {
                let shift = s as usize * 60;
                draw(1000 + s).into_iter().map(move |x| Sample { cluster: x.cluster + shift, ..x })
            })
            .collect();
        let truth = clustered_auc(&large).and_then(|e| e.value).expect("both kinds");
        let covered = (0..300)
            .filter(|&seed| {
                let estimate = clustered_auc(&draw(seed)).expect("both kinds");
                estimate.interval.expect("an interval").contains(truth)
            })
            .count();
        assert!((270..=297).contains(&covered), "{covered} of 300 cover {truth}");
    }

    proptest! {
        /// Any rising transformation leaves the area, turning the order mirrors it.
        #[test]
        fn only_order_counts(
            positives in prop::collection::vec(-5i32..5, 1..20),
            negatives in prop::collection::vec(-5i32..5, 1..20),
        ) {
            let of = |f: fn(f64) -> f64| {
                let map = |v: &[i32]| v.iter().map(|&x| f(f64::from(x))).collect::<Vec<_>>();
                area(&map(&positives), &map(&negatives))
            };
            let plain = of(|x| x);
            prop_assert!((plain - of(|x| x.exp())).abs() < 1e-12);
            prop_assert!((plain + of(|x| -x) - 1.0).abs() < 1e-12);
        }
    }
}
