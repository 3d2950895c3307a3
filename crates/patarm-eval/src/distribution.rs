//! Summaries and histograms of scores and margins.

use serde::{Deserialize, Serialize};

use crate::interval::quantile;

/// Moments and quantiles of a set of numbers; all `None` when it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// How many numbers.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: Option<f64>,
    /// Standard deviation with n − 1 in the denominator; needs two numbers.
    pub deviation: Option<f64>,
    /// Smallest.
    pub min: Option<f64>,
    /// Median.
    pub median: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
}

impl Summary {
    /// The summary of finite numbers.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let mean = (n > 0).then(|| sorted.iter().sum::<f64>() / n as f64);
        let deviation = mean.filter(|_| n > 1).map(|mean| {
            let squares: f64 = sorted.iter().map(|v| (v - mean).powi(2)).sum();
            (squares / (n - 1) as f64).sqrt()
        });
        Self {
            n,
            mean,
            deviation,
            min: sorted.first().copied(),
            median: quantile(&sorted, 0.5),
            max: sorted.last().copied(),
        }
    }
}

/// Counts over equal bins of `[low, high]`, the last bin closed on both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    /// Lower end of the first bin.
    pub low: f64,
    /// Upper end of the last bin.
    pub high: f64,
    /// Count of each bin.
    pub counts: Vec<u64>,
    /// Numbers outside the range.
    pub outside: u64,
}

impl Histogram {
    /// Counts `values` over the bins of `bins`.
    #[must_use]
    pub fn over(values: &[f64], bins: Bins) -> Self {
        let mut counts = vec![0u64; bins.count];
        let mut outside = 0;
        for &value in values {
            match bins.index(value) {
                Some(index) => counts[index] += 1,
                None => outside += 1,
            }
        }
        Self { low: bins.low, high: bins.high, counts, outside }
    }

    /// Width of one bin.
    #[must_use]
    pub fn bin_width(&self) -> f64 {
        (self.high - self.low) / self.counts.len().max(1) as f64
    }
}

/// Equal bins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bins {
    low: f64,
    high: f64,
    count: usize,
}

impl Bins {
    /// Bins that suit `values`: one a whole number, centred on it, when all are
    /// whole and span at most 40; otherwise 24 equal ones over their range.
    #[must_use]
    pub fn fitting(values: &[f64]) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if !(low.is_finite() && high.is_finite()) {
            return Self { low: 0.0, high: 1.0, count: 1 };
        }
        if values.iter().all(|v| v.fract() == 0.0) && high - low <= 40.0 {
            return Self { low: low - 0.5, high: high + 0.5, count: (high - low) as usize + 1 };
        }
        if high - low <= f64::EPSILON * low.abs().max(1.0) {
            return Self { low: low - 0.5, high: high + 0.5, count: 1 };
        }
        Self { low, high, count: 24 }
    }

    fn index(&self, value: f64) -> Option<usize> {
        if !(self.low <= value && value <= self.high) {
            return None;
        }
        let place = (value - self.low) / (self.high - self.low) * self.count as f64;
        Some((place as usize).min(self.count - 1))
    }
}

/// Pearson's correlation; `None` with fewer than two points or no spread on a side.
#[must_use]
pub fn correlation(points: &[(f64, f64)]) -> Option<f64> {
    let n = points.len() as f64;
    let mean_x = points.iter().map(|p| p.0).sum::<f64>() / n;
    let mean_y = points.iter().map(|p| p.1).sum::<f64>() / n;
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in points {
        xx += (x - mean_x).powi(2);
        yy += (y - mean_y).powi(2);
        xy += (x - mean_x) * (y - mean_y);
    }
    (xx > 0.0 && yy > 0.0).then(|| xy / (xx * yy).sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn summary_of_known_numbers() {
        let summary = Summary::of(&[4.0, 2.0, 6.0]);
        assert_eq!(summary.mean, Some(4.0));
        assert_eq!(summary.deviation, Some(2.0));
        assert_eq!((summary.min, summary.median, summary.max), (Some(2.0), Some(4.0), Some(6.0)));
        assert_eq!(Summary::of(&[]), Summary::default());
        assert_eq!(Summary::of(&[3.0]).deviation, None);
    }

    #[test]
    fn whole_scores_get_a_bin_each() {
        let values = [1.0, 1.0, 3.0];
        let histogram = Histogram::over(&values, Bins::fitting(&values));
        assert_eq!(histogram.counts, [2, 0, 1]);
        assert_eq!((histogram.low, histogram.high), (0.5, 3.5));
        assert_eq!(histogram.bin_width(), 1.0);
    }

    #[test]
    fn odd_inputs_still_bin() {
        assert_eq!(Histogram::over(&[], Bins::fitting(&[])).counts, [0]);
        assert_eq!(Histogram::over(&[0.3; 4], Bins::fitting(&[0.3; 4])).counts, [4]);
        let narrow = Bins::fitting(&[0.0, 1.5]);
        assert_eq!(Histogram::over(&[9.0], narrow).outside, 1);
    }

    #[test]
    fn correlation_of_lines() {
        assert_eq!(correlation(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), Some(1.0));
        assert_eq!(correlation(&[(0.0, 1.0), (1.0, -1.0)]), Some(-1.0));
        assert_eq!(correlation(&[(0.0, 1.0), (1.0, 1.0)]), None);
        assert_eq!(correlation(&[]), None);
    }

    proptest! {
        #[test]
        fn fitting_bins_hold_everything(values in prop::collection::vec(-1e6f64..1e6, 1..50)) {
            let histogram = Histogram::over(&values, Bins::fitting(&values));
            prop_assert_eq!(histogram.outside, 0);
            prop_assert_eq!(histogram.counts.iter().sum::<u64>(), values.len() as u64);
        }
    }
}
