//! Calibration of win probabilities read from margins.
//!
//! A margin becomes a probability through one free slope: `p = σ(a · margin)`.
//! The slope is fitted on the other half of the prompts (even against odd), so no
//! pair is judged by a slope it helped to choose.

use serde::{Deserialize, Serialize};

/// Number of confidence bins of the expected calibration error.
const NUM_BINS: usize = 10;

/// The largest slope a fit may take, met when every margin has the right sign.
const MAX_SLOPE: f64 = 50.0;

/// Calibration of the probability that the preferred response wins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Mean squared error of the probability (G. W. Brier, Monthly Weather Review
    /// 78, 1950); a coin has 0.25.
    pub brier: f64,
    /// Expected calibration error over ten equal bins of confidence (Naeini et
    /// al., AAAI 2015); 0 is perfect.
    pub expected_calibration_error: f64,
    /// The bins with members, by rising confidence.
    pub bins: Vec<ReliabilityBin>,
}

/// Pairs of like confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReliabilityBin {
    /// Mean probability of the side that is taken to win.
    pub confidence: f64,
    /// Share of pairs in which it does; ties count one half.
    pub accuracy: f64,
    /// Number of pairs.
    pub n: usize,
}

/// Calibration of `(cluster, margin)` pairs, margin = chosen − rejected score.
/// `None` when one of the halves is empty or no margin differs from 0.
#[must_use]
pub fn calibrate(pairs: &[(usize, f64)]) -> Option<Calibration> {
    let half = |parity: usize| -> Vec<f64> {
        pairs.iter().filter(|(cluster, _)| cluster % 2 == parity).map(|&(_, m)| m).collect()
    };
    let (even, odd) = (half(0), half(1));
    let (for_even, for_odd) = (fit_slope(&odd)?, fit_slope(&even)?);
    let probabilities: Vec<f64> = even
        .iter()
        .map(|margin| sigmoid(for_even * margin))
        .chain(odd.iter().map(|margin| sigmoid(for_odd * margin)))
        .collect();
    let brier =
        probabilities.iter().map(|p| (1.0 - p).powi(2)).sum::<f64>() / probabilities.len() as f64;
    let bins = reliability(&probabilities);
    let expected_calibration_error = bins
        .iter()
        .map(|bin| {
            bin.n as f64 / probabilities.len() as f64 * (bin.accuracy - bin.confidence).abs()
        })
        .sum();
    Some(Calibration { brier, expected_calibration_error, bins })
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The slope of greatest likelihood, by bisection on its derivative
/// `Σ m (1 − σ(a m))`, which falls in `a`; negative slopes are cut to 0, because a
/// model that is wrong more often than right has no confidence worth stating.
fn fit_slope(margins: &[f64]) -> Option<f64> {
    let scale = margins.iter().fold(0.0f64, |largest, m| largest.max(m.abs()));
    if !(scale > 0.0 && scale.is_finite()) {
        return None;
    }
    let derivative = |slope: f64| {
        margins.iter().map(|m| m / scale * (1.0 - sigmoid(slope * m / scale))).sum::<f64>()
    };
    let (mut low, mut high) = (0.0, MAX_SLOPE);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if derivative(middle) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(low / scale)
}

fn reliability(probabilities: &[f64]) -> Vec<ReliabilityBin> {
    let mut sums = [(0.0, 0.0, 0usize); NUM_BINS];
    for &p in probabilities {
        let confidence = p.max(1.0 - p);
        let correct = if p == 0.5 { 0.5 } else { f64::from(u8::from(p > 0.5)) };
        let place = (confidence - 0.5) * 2.0 * NUM_BINS as f64;
        let bin = &mut sums[(place as usize).min(NUM_BINS - 1)];
        *bin = (bin.0 + confidence, bin.1 + correct, bin.2 + 1);
    }
    sums.iter()
        .filter(|(_, _, n)| *n > 0)
        .map(|&(confidence, correct, n)| ReliabilityBin {
            confidence: confidence / n as f64,
            accuracy: correct / n as f64,
            n,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    /// Margins whose sign is right with exactly the probability σ(margin).
    fn honest_margins() -> Vec<(usize, f64)> {
        (0..20_000u64)
            .map(|i| {
                let size = 3.0 * (random::draw(1, i) as f64 / u64::MAX as f64);
                let coin = random::draw(2, i) as f64 / u64::MAX as f64;
                (i as usize, if coin < sigmoid(size) { size } else { -size })
            })
            .collect()
    }

    #[test]
    fn honest_margins_are_calibrated() {
        let measured = calibrate(&honest_margins()).expect("both halves have margins");
        assert!(measured.expected_calibration_error < 0.02, "{measured:?}");
        assert!(measured.brier < 0.2);
    }

    /// A slope cannot repair confidence that has nothing to do with being right.
    #[test]
    fn meaningless_sizes_are_found_out() {
        let pairs: Vec<(usize, f64)> = (0..20_000u64)
            .map(|i| {
                let right = random::draw(2, i) % 10 < 7;
                let size = if random::draw(1, i).is_multiple_of(2) { 4.0 } else { 0.1 };
                (i as usize, if right { size } else { -size })
            })
            .collect();
        let measured = calibrate(&pairs).expect("both halves have margins");
        assert!(measured.expected_calibration_error > 0.05, "{measured:?}");
    }

    #[test]
    fn edge_cases() {
        assert_eq!(calibrate(&[]), None);
        assert_eq!(calibrate(&[(0, 1.0)]), None);
        assert_eq!(calibrate(&[(0, 0.0), (1, 0.0)]), None);
        let wrong = calibrate(&[(0, -1.0), (1, -1.0)]).expect("both halves have margins");
        assert!((wrong.brier - 0.25).abs() < 1e-6, "{wrong:?}");
        let right = calibrate(&[(0, 1.0), (1, 2.0)]).expect("both halves have margins");
        assert!(right.brier < 1e-6, "{right:?}");
    }
}
