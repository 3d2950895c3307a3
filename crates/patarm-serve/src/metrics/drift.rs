//! Whether scores still look as they did: recent ones against the first ones.

use std::collections::VecDeque;

/// Scores in each window.
const WINDOW: usize = 1_024;
/// Fewest recent scores that are compared.
const MIN_RECENT: usize = 64;

/// The first scores of a model and its latest.
#[derive(Clone, Debug, Default)]
pub(super) struct Windows {
    reference: Vec<f64>,
    recent: VecDeque<f64>,
}

/// How far recent scores are from the first ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Drift {
    /// Kolmogorov-Smirnov distance: the largest gap between the two distribution
    /// functions, 0 to 1.
    pub(super) distance: f64,
    /// Recent mean less the first mean, in standard deviations of the first; 0 where
    /// those did not vary.
    pub(super) shift: f64,
}

impl Windows {
    pub(super) fn push(&mut self, score: f64) {
        if !score.is_finite() {
            return;
        }
        if self.reference.len() < WINDOW {
            self.reference.push(score);
            return;
        }
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(score);
    }

    /// `None` until the first window is full and enough came after it.
    pub(super) fn drift(&self) -> Option<Drift> {
        if self.recent.len() < MIN_RECENT {
            return None;
        }
        let recent: Vec<f64> = self.recent.iter().copied().collect();
        Some(Drift {
            distance: distance(&self.reference, &recent),
            shift: shift(&self.reference, &recent),
        })
    }
}

/// Largest gap between the distribution functions of two non-empty samples.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let sorted = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values
    };
    let (a, b) = (sorted(a), sorted(b));
    let below = |values: &[f64], x: f64| {
        values.partition_point(|value| *value <= x) as f64 / values.len() as f64
    };
    let gaps = a.iter().chain(&b).map(|&x| (below(&a, x) - below(&b, x)).abs());
    gaps.fold(0.0, f64::max)
}

fn shift(reference: &[f64], recent: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let center = mean(reference);
    let squares: f64 = reference.iter().map(|value| (value - center).powi(2)).sum();
    let deviation = (squares / reference.len() as f64).sqrt();
    if deviation > 0.0 { (mean(recent) - center) / deviation } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_of_known_samples() {
        assert_eq!(distance(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        assert_eq!(distance(&[1.0, 2.0], &[3.0, 4.0]), 1.0);
        assert_eq!(distance(&[1.0, 2.0, 3.0, 4.0], &[3.0, 4.0, 5.0, 6.0]), 0.5);
        // Ties count on both sides.
        assert_eq!(distance(&[5.0, 5.0], &[5.0, 6.0]), 0.5);
    }

    #[test]
    fn a_shift_shows_and_sameness_does_not() {
        let mut windows = Windows::default();
        (0..WINDOW).for_each(|i| windows.push((i % 10) as f64));
        assert_eq!(windows.drift(), None);
        (0..500).for_each(|i| windows.push((i % 10) as f64));
        let same = windows.drift().unwrap();
        assert!(same.distance < 0.01 && same.shift.abs() < 0.01, "{same:?}");
        (0..WINDOW).for_each(|i| windows.push((i % 10) as f64 + 5.0));
        let moved = windows.drift().unwrap();
        assert!((moved.distance - 0.5).abs() < 0.01, "{moved:?}");
        assert!(moved.shift > 1.5, "{moved:?}");
        windows.push(f64::NAN);
        assert_eq!(windows.drift(), Some(moved));
    }
}
