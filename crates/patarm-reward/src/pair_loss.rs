//! The pairwise logistic loss on two numbers, with everything that is usually added.
//!
//! Bradley and Terry (Biometrika 39, 1952): P(chosen beats rejected) = σ(r_c − r_r).
//! All of it is computed as `softplus`, never as the logarithm of a small number.

use serde::{Deserialize, Serialize};

/// What is added to −log σ(r_c − r_r).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PairLossConfig {
    /// The chosen reward must lead by this much: −log σ(d − margin).
    pub margin: f64,
    /// Further margin for each unit of a pair's strength, where the data has one (the
    /// `margin` column of TRL and OpenRLHF at 1). 0 = ignore strengths.
    pub margin_per_strength: f64,
    /// e in −(1 − e) log σ(d − m) − e log σ(−d − m).
    pub label_smoothing: f64,
    /// c in c · (r_c + r_r)², which holds rewards near zero (Eisenstein et al., arXiv
    /// 2312.09244, section 2; TRL's `center_rewards_coefficient`).
    pub centring: f64,
}

impl Default for PairLossConfig {
    fn default() -> Self {
        Self { margin: 0.0, margin_per_strength: 0.0, label_smoothing: 0.0, centring: 0.0 }
    }
}

impl PairLossConfig {
    /// The margin of a pair.
    #[must_use]
    pub fn margin_of(&self, strength: Option<f64>) -> f64 {
        self.margin + self.margin_per_strength * strength.unwrap_or(0.0).abs()
    }
}

/// The table `loss` of a recipe.
pub trait LossTable {
    /// What is wrong with it, as a sentence that names the key.
    ///
    /// # Errors
    /// When a value cannot work.
    fn check(&self) -> Result<(), String>;
}

impl LossTable for PairLossConfig {
    fn check(&self) -> Result<(), String> {
        if !(0.0..=0.5).contains(&self.label_smoothing) {
            return Err("loss.label_smoothing must lie in 0..=0.5".into());
        }
        if self.centring < 0.0 {
            return Err("loss.centring must not be negative".into());
        }
        Ok(())
    }
}

/// Value and gradient of a loss on two rewards.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairTerm {
    /// The loss.
    pub loss: f64,
    /// Its derivative by the first (chosen) reward.
    pub d_chosen: f64,
    /// Its derivative by the second (rejected) reward.
    pub d_rejected: f64,
}

/// The loss of a pair in which `chosen` is preferred, at a margin.
///
/// With d = r_c − r_r: −(1 − e) log σ(d − m) − e log σ(−d − m) + c (r_c + r_r)².
#[must_use]
pub fn preference_loss(
    chosen: f64,
    rejected: f64,
    margin: f64,
    config: &PairLossConfig,
) -> PairTerm {
    let d = chosen - rejected;
    let e = config.label_smoothing;
    let (won, lost) = (margin - d, margin + d);
    let d_difference = -(1.0 - e) * sigmoid(won) + e * sigmoid(lost);
    let sum = chosen + rejected;
    let d_sum = 2.0 * config.centring * sum;
    PairTerm {
        loss: (1.0 - e) * softplus(won) + e * softplus(lost) + config.centring * sum * sum,
        d_chosen: d_difference + d_sum,
        d_rejected: -d_difference + d_sum,
    }
}

/// log(1 + eˣ) without overflow; −log σ(x) = softplus(−x).
#[must_use]
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// 1 / (1 + e⁻ˣ) without overflow.
#[must_use]
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// ln Σ exp(x), without overflow; −∞ for no number and for none above it.
#[must_use]
pub(crate) fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + values.map(|value| (value - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: PairLossConfig = PairLossConfig {
        margin: 0.0,
        margin_per_strength: 0.0,
        label_smoothing: 0.0,
        centring: 0.0,
    };

    #[test]
    fn equal_rewards_cost_ln_2() {
        let term = preference_loss(0.3, 0.3, 0.0, &PLAIN);
        assert!((term.loss - std::f64::consts::LN_2).abs() < 1e-12);
        assert_eq!((term.d_chosen, term.d_rejected), (-0.5, 0.5));
    }

    #[test]
    fn far_apart_rewards_neither_overflow_nor_vanish() {
        let wrong = preference_loss(-2000.0, 2000.0, 0.0, &PLAIN);
        assert_eq!((wrong.loss, wrong.d_chosen), (4000.0, -1.0));
        let right = preference_loss(2000.0, -2000.0, 0.0, &PLAIN);
        assert_eq!((right.loss, right.d_chosen), (0.0, 0.0));
    }

    #[test]
    fn gradients_are_finite_differences() {
        let config = PairLossConfig { label_smoothing: 0.1, centring: 0.03, ..PLAIN };
        for (chosen, rejected, margin) in [(0.4, -0.2, 0.0), (-3.0, 1.0, 0.5), (5.0, 4.0, 2.0)] {
            let at = |c: f64, r: f64| preference_loss(c, r, margin, &config).loss;
            let term = preference_loss(chosen, rejected, margin, &config);
            let h = 1e-6;
            let d_chosen = (at(chosen + h, rejected) - at(chosen - h, rejected)) / (2.0 * h);
            let d_rejected = (at(chosen, rejected + h) - at(chosen, rejected - h)) / (2.0 * h);
            assert!((term.d_chosen - d_chosen).abs() < 1e-7);
            assert!((term.d_rejected - d_rejected).abs() < 1e-7);
        }
    }

    #[test]
    fn smoothing_at_one_half_prefers_a_tie_and_centring_prefers_zero() {
        let half = PairLossConfig { label_smoothing: 0.5, ..PLAIN };
        assert_eq!(preference_loss(1.0, 1.0, 0.0, &half).d_chosen, 0.0);
        assert!(preference_loss(2.0, 1.0, 0.0, &half).d_chosen > 0.0);
        let centred = PairLossConfig { centring: 0.01, ..PLAIN };
        // Both up by a constant: the plain loss does not see it, the centred one does.
        let plain = preference_loss(7.0, 6.0, 0.0, &PLAIN).loss;
        assert!((preference_loss(1.0, 0.0, 0.0, &PLAIN).loss - plain).abs() < 1e-12);
        assert!(preference_loss(7.0, 6.0, 0.0, &centred).loss > plain + 1.0);
    }

    #[test]
    fn margins_grow_with_strength() {
        let config = PairLossConfig { margin: 0.5, margin_per_strength: 2.0, ..PLAIN };
        assert_eq!((config.margin_of(None), config.margin_of(Some(1.5))), (0.5, 3.5));
        // A strength is a size: which side it favours is the label's business.
        assert_eq!(config.margin_of(Some(-1.5)), 3.5);
        let (near, far) =
            (preference_loss(1.0, 0.0, 0.0, &PLAIN), preference_loss(1.0, 0.0, 3.0, &PLAIN));
        assert!(far.loss > near.loss && far.d_chosen < near.d_chosen);
    }
}
