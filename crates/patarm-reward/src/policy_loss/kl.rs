//! Estimators of the KL divergence from the reference policy, token by token.
//!
//! Source: J. Schulman, *Approximating KL Divergence* (2020). With
//! Δ = log π_ref − log π of a sampled token: k1 = −Δ, k3 = exp(Δ) − Δ − 1.

use serde::{Deserialize, Serialize};

use super::MAX_LOG_RATIO;

/// Which estimator of the KL to the reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// No KL term.
    #[default]
    Off,
    /// Unbiased as a value; as a loss its derivative is constant, so that its gradient
    /// is zero in expectation: use it to log, or inside a reward.
    K1,
    /// Never negative, and with a gradient that pulls towards the reference.
    K3,
}

/// Value and derivative of one token's estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlTerm {
    /// The estimate, in nats.
    pub value: f64,
    /// Derivative by the new log-probability.
    pub d_logprob: f64,
}

impl KlEstimator {
    /// The estimate from one sampled token.
    #[must_use]
    pub fn term(self, logprob_new: f64, logprob_reference: f64) -> KlTerm {
        let delta = logprob_reference - logprob_new;
        match self {
            Self::Off => KlTerm { value: 0.0, d_logprob: 0.0 },
            Self::K1 => KlTerm { value: -delta, d_logprob: 1.0 },
            Self::K3 => {
                let held = delta.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
                // exp_m1 keeps the value exact near zero, where it is of second order.
                let d_logprob = if held == delta { -held.exp_m1() } else { 0.0 };
                KlTerm { value: held.exp_m1() - held, d_logprob }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::KlEstimator;

    #[test]
    fn values_at_a_ratio_of_two() {
        let (new, reference) = (0.25f64.ln(), 0.5f64.ln());
        let k1 = KlEstimator::K1.term(new, reference);
        assert!((k1.value + 2f64.ln()).abs() < 1e-12 && k1.d_logprob == 1.0);
        let k3 = KlEstimator::K3.term(new, reference);
        assert!((k3.value - (1.0 - 2f64.ln())).abs() < 1e-12);
        assert!((k3.d_logprob + 1.0).abs() < 1e-12);
        assert_eq!(KlEstimator::Off.term(new, reference).value, 0.0);
    }

    #[test]
    fn derivatives_are_differences() {
        for estimator in [KlEstimator::Off, KlEstimator::K1, KlEstimator::K3] {
            for new in [-3.0, -1.1, -0.2] {
                let at = |step: f64| estimator.term(new + step, -1.0).value;
                let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
                let analytic = estimator.term(new, -1.0).d_logprob;
                assert!((numeric - analytic).abs() < 1e-7, "{estimator:?} at {new}");
            }
        }
    }

    #[test]
    fn both_estimate_the_divergence() {
        let (policy, reference) = ([0.7f64, 0.2, 0.1], [0.5f64, 0.2, 0.3]);
        let kl: f64 = policy.iter().zip(&reference).map(|(p, q)| p * (p / q).ln()).sum();
        for estimator in [KlEstimator::K1, KlEstimator::K3] {
            let mean: f64 = policy
                .iter()
                .zip(&reference)
                .map(|(p, q)| p * estimator.term(p.ln(), q.ln()).value)
                .sum();
            assert!((mean - kl).abs() < 1e-12, "{estimator:?}");
        }
    }

    #[test]
    fn a_diverged_token_stays_finite() {
        let term = KlEstimator::K3.term(-1e6, -1.0);
        assert!(term.value.is_finite() && term.d_logprob == 0.0);
    }
}
