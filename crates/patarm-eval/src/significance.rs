//! Tests of a difference: McNemar's exact test and Holm's correction.

/// Two-sided exact p-value of McNemar's test (Q. McNemar, Psychometrika 12,
/// 1947): the probability, under a fair coin, of a split of the discordant
/// pairs at least as uneven as `only_first` against `only_second`.
///
/// 1 when there are no discordant pairs.
#[must_use]
pub fn mcnemar_exact(only_first: usize, only_second: usize) -> f64 {
    let n = only_first + only_second;
    let smaller = only_first.min(only_second);
    // log C(n, k) - n log 2, built up term by term so that no power overflows.
    let mut log_mass = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = log_mass.exp();
    for k in 0..smaller {
        log_mass += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
        tail += log_mass.exp();
    }
    (2.0 * tail).min(1.0)
}

/// Holm's step-down correction (S. Holm, Scandinavian Journal of Statistics 6,
/// 1979): adjusted p-values in the order given, each to be held against the
/// level itself.
#[must_use]
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest = 0.0f64;
    for (rank, &index) in order.iter().enumerate() {
        let factor = (p_values.len() - rank) as f64;
        largest = largest.max((factor * p_values[index]).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn close(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-12, "{left} is not {right}");
    }

    /// Fractions of powers of two, counted by hand.
    #[test]
    fn mcnemar_of_known_cases() {
        close(mcnemar_exact(0, 0), 1.0);
        close(mcnemar_exact(5, 0), 2.0 / 32.0);
        close(mcnemar_exact(1, 5), 2.0 * 7.0 / 64.0);
        close(mcnemar_exact(3, 3), 1.0);
    }

    #[test]
    fn mcnemar_survives_large_counts() {
        assert!(mcnemar_exact(50_000, 50_000) > 0.99);
        let p = mcnemar_exact(49_500, 50_500);
        assert!((0.0015..0.0017).contains(&p), "{p}");
        assert_eq!(mcnemar_exact(0, 100_000), 0.0);
    }

    #[test]
    fn holm_of_a_known_case() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (left, right) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            close(*left, right);
        }
        assert!(holm(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn mcnemar_is_symmetric_and_a_probability(a in 0usize..300, b in 0usize..300) {
            let p = mcnemar_exact(a, b);
            prop_assert!((0.0..=1.0).contains(&p));
            prop_assert_eq!(p, mcnemar_exact(b, a));
        }

        #[test]
        fn holm_never_lowers_and_keeps_order(p in prop::collection::vec(0.0f64..1.0, 0..20)) {
            let adjusted = holm(&p);
            for i in 0..p.len() {
                prop_assert!(p[i] <= adjusted[i] && adjusted[i] <= 1.0);
                for j in 0..p.len() {
                    prop_assert!(p[i] > p[j] || adjusted[i] <= adjusted[j]);
                }
            }
        }
    }
}
