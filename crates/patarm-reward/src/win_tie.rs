//! The Bradley–Terry loss with win-ties, on pairs of single labels.
//!
//! SoliReward (arXiv 2512.22170): every response that passes beats every one that fails,
//! whatever their prompts, and all that pass are equal. With d = r_1 − r_2 and margin m
//!
//! ```text
//! win    −(1 − e) log σ(d − m) − e log σ(−d − m)
//! tie    −log σ(d − m) − log σ(−d − m)              (repository; half of it: paper)
//! total  a · win + b · tie + c · BCE over both rewards, target = passes
//! ```
//!
//! The minimum of a tie is d = 0 at any margin; a large margin makes it a flat well
//! (curvature 2 σ′(m)) with walls of slope towards 1.

use serde::{Deserialize, Serialize};

use crate::pair_loss::{LossTable, PairTerm, sigmoid, softplus};

/// What the labels of two responses say of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The first passes, the second fails.
    Win,
    /// Both pass.
    Tie,
}

/// Size of the tie term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TieForm {
    /// One half of each direction.
    Paper,
    /// Both directions in full: twice the paper's.
    #[default]
    Repository,
}

/// The loss table of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WinTieConfig {
    /// m. The authors' script has 3, their code's default is 0.
    pub margin: f64,
    /// e, on wins.
    pub label_smoothing: f64,
    /// Size of the tie term.
    pub tie_form: TieForm,
    /// a.
    pub win_weight: f64,
    /// b; 0 = ties are ignored.
    pub tie_weight: f64,
    /// c, of the binary cross-entropy of both rewards.
    pub label_weight: f64,
}

impl Default for WinTieConfig {
    fn default() -> Self {
        Self {
            margin: 0.0,
            label_smoothing: 0.0,
            tie_form: TieForm::Repository,
            win_weight: 1.0,
            tie_weight: 1.0,
            label_weight: 0.0,
        }
    }
}

impl LossTable for WinTieConfig {
    fn check(&self) -> Result<(), String> {
        if !(0.0..=0.5).contains(&self.label_smoothing) {
            return Err("loss.label_smoothing must lie in 0..=0.5".into());
        }
        if !self.margin.is_finite() || self.margin < 0.0 {
            return Err("loss.margin must not be negative".into());
        }
        let weights = [
            ("win_weight", self.win_weight),
            ("tie_weight", self.tie_weight),
            ("label_weight", self.label_weight),
        ];
        match weights.iter().find(|(_, weight)| !weight.is_finite() || *weight < 0.0) {
            Some((name, _)) => Err(format!("loss.{name} must not be negative")),
            None => Ok(()),
        }
    }
}

/// The loss of a pair and its gradient by both rewards.
#[must_use]
pub fn win_tie_loss(first: f64, second: f64, outcome: Outcome, config: &WinTieConfig) -> PairTerm {
    let d = first - second;
    let (up, down) = (config.margin - d, config.margin + d);
    let (for_first, for_second) = match (outcome, config.tie_form) {
        (Outcome::Win, _) => {
            let e = config.label_smoothing;
            (config.win_weight * (1.0 - e), config.win_weight * e)
        }
        (Outcome::Tie, TieForm::Repository) => (config.tie_weight, config.tie_weight),
        (Outcome::Tie, TieForm::Paper) => (config.tie_weight / 2.0, config.tie_weight / 2.0),
    };
    let d_difference = -for_first * sigmoid(up) + for_second * sigmoid(down);
    // The mean over both rewards: −log σ(r) for one that passes, −log σ(−r) otherwise.
    let half = config.label_weight / 2.0;
    let sign = if outcome == Outcome::Tie { 1.0 } else { -1.0 };
    PairTerm {
        loss: for_first * softplus(up)
            + for_second * softplus(down)
            + half * (softplus(-first) + softplus(-sign * second)),
        d_chosen: d_difference - half * sigmoid(-first),
        d_rejected: -d_difference - half * sign * sigmoid(-sign * second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair_loss::{PairLossConfig, preference_loss};

    fn repository(margin: f64) -> WinTieConfig {
        WinTieConfig { margin, ..WinTieConfig::default() }
    }

    /// Second difference of the tie term at d.
    fn curvature(d: f64, config: &WinTieConfig) -> f64 {
        let slope = |d: f64| win_tie_loss(d, 0.0, Outcome::Tie, config).d_chosen;
        (slope(d + 1e-5) - slope(d - 1e-5)) / 2e-5
    }

    #[test]
    fn ties_are_lowest_at_equal_rewards_with_the_published_values() {
        let paper = WinTieConfig { tie_form: TieForm::Paper, ..repository(0.0) };
        for (config, lowest, curve) in [
            (repository(0.0), 1.386_294, 0.5),
            (repository(3.0), 6.097_175, 0.090_353),
            (paper, std::f64::consts::LN_2, 0.25),
        ] {
            let term = win_tie_loss(0.7, 0.7, Outcome::Tie, &config);
            assert!((term.loss - lowest).abs() < 1e-6, "{}", term.loss);
            assert_eq!((term.d_chosen, term.d_rejected), (0.0, 0.0));
            assert!((curvature(0.0, &config) - curve).abs() < 1e-5);
            for d in [0.1, 1.0, 4.0] {
                let up = win_tie_loss(d, 0.0, Outcome::Tie, &config);
                let down = win_tie_loss(0.0, d, Outcome::Tie, &config);
                assert!(up.loss > term.loss && (up.loss - down.loss).abs() < 1e-12);
                // Antisymmetric, and it pulls the two together.
                assert!((up.d_chosen + down.d_chosen).abs() < 1e-12 && up.d_chosen > 0.0);
            }
        }
        // Beyond the margin the slope goes to 1.
        let wall = win_tie_loss(20.0, 0.0, Outcome::Tie, &repository(3.0));
        assert!((wall.d_chosen - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_win_is_bradley_terry() {
        for (margin, smoothing) in [(0.0, 0.0), (3.0, 0.0), (0.5, 0.1)] {
            let config = WinTieConfig { label_smoothing: smoothing, ..repository(margin) };
            let plain = PairLossConfig { label_smoothing: smoothing, ..PairLossConfig::default() };
            let term = win_tie_loss(0.4, -0.9, Outcome::Win, &config);
            let expected = preference_loss(0.4, -0.9, margin, &plain);
            assert!((term.loss - expected.loss).abs() < 1e-12);
            assert!((term.d_chosen - expected.d_chosen).abs() < 1e-12);
        }
    }

    #[test]
    fn gradients_are_finite_differences() {
        let config = WinTieConfig {
            margin: 0.4,
            label_smoothing: 0.1,
            tie_form: TieForm::Paper,
            win_weight: 0.9,
            tie_weight: 1.3,
            label_weight: 0.7,
        };
        for outcome in [Outcome::Win, Outcome::Tie] {
            for (first, second) in [(0.3, -0.8), (-2.0, 1.5), (4.0, 4.5)] {
                let at = |a: f64, b: f64| win_tie_loss(a, b, outcome, &config).loss;
                let (term, h) = (win_tie_loss(first, second, outcome, &config), 1e-6);
                let by_first = (at(first + h, second) - at(first - h, second)) / (2.0 * h);
                let by_second = (at(first, second + h) - at(first, second - h)) / (2.0 * h);
                assert!((term.d_chosen - by_first).abs() < 1e-7, "{outcome:?}");
                assert!((term.d_rejected - by_second).abs() < 1e-7, "{outcome:?}");
            }
        }
    }

    #[test]
    fn impossible_weights_are_refused() {
        assert!(repository(0.0).check().is_ok());
        for bad in [
            repository(-1.0),
            WinTieConfig { label_smoothing: 0.6, ..repository(0.0) },
            WinTieConfig { tie_weight: f64::NAN, ..repository(0.0) },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
