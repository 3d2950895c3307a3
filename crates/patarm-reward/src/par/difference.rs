//! Exact comparison of a score with the mean of other scores.

/// Scores are held in millionths where that is exact: 10 is 10,000,000.
const UNITS_PER_POINT: f64 = 1e6;
/// Above this magnitude (in points) scores are compared in floating point.
const LARGEST_EXACT_POINTS: f64 = 1e9;

/// On which side of the other mean a score lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// δ > 0.
    pub(super) positive: bool,
    /// δ > threshold.
    pub(super) large: bool,
}

/// The usable scores of one side.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scores {
    count: usize,
    sum: f64,
    /// Sum in millionths, where every score is a whole number of them.
    exact_sum: Option<i128>,
}

impl Scores {
    pub(super) fn new(scores: &[Option<f64>]) -> Self {
        let usable = || scores.iter().flatten();
        Self {
            count: usable().count(),
            sum: usable().sum(),
            exact_sum: usable().map(|&score| units(score)).sum(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// Compares sign · (score − mean) with 0 and with the threshold; `None` without a
    /// mean.
    ///
    /// With n scores of sum S the test δ > t is n·s − S > n·t, in whole numbers when
    /// s, S and t are whole numbers of millionths.
    pub(super) fn compare(&self, score: f64, sign: i8, threshold: f64) -> Option<Difference> {
        let mean = self.mean()?;
        let exact = || {
            let count = i128::try_from(self.count).ok()?;
            let scaled = i128::from(sign) * (count * units(score)? - self.exact_sum?);
            let limit = count * units(threshold)?;
            Some(Difference { positive: scaled > 0, large: scaled > limit })
        };
        let rounded = || {
            let delta = f64::from(sign) * (score - mean);
            Difference { positive: delta > 0.0, large: delta > threshold }
        };
        Some(exact().unwrap_or_else(rounded))
    }
}

/// The number in millionths, if it is one to within the rounding of its decimal form.
fn units(points: f64) -> Option<i128> {
    if points.abs() > LARGEST_EXACT_POINTS {
        return None;
    }
    let scaled = points * UNITS_PER_POINT;
    let whole = scaled.round();
    let tolerance = 1e-3_f64.min(1e-9 * scaled.abs()).max(1e-9);
    ((scaled - whole).abs() <= tolerance).then_some(whole as i128)
}

#[cfg(test)]
mod tests {
    use super::{Scores, units};

    #[test]
    fn decimal_scores_are_exact_and_odd_fractions_are_not() {
        assert_eq!(units(7.3), Some(7_300_000));
        assert_eq!(units(-0.000_001), Some(-1));
        assert_eq!(units(1.0 / 3.0), None);
        assert_eq!(units(1e12), None);
    }

    #[test]
    fn a_mean_that_does_not_round_well_still_compares_exactly() {
        // The mean of (5.1, 5.3, 5.5) is 5.3, which the sum in floating point misses.
        let scores = Scores::new(&[Some(5.1), Some(5.3), Some(5.5)]);
        let at_mean = scores.compare(5.3, 1, 2.0).unwrap();
        let at_threshold = scores.compare(7.3, 1, 2.0).unwrap();
        assert!(!at_mean.positive);
        assert!(at_threshold.positive && !at_threshold.large);
    }

    #[test]
    fn fractions_without_decimal_form_fall_back_to_floating_point() {
        let scores = Scores::new(&[Some(1.0 / 3.0)]);
        assert!(scores.compare(0.5, 1, 2.0).unwrap().positive);
        assert!(!scores.compare(0.5, -1, 2.0).unwrap().positive);
    }
}
