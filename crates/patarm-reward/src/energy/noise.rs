//! Noise-contrastive estimation with noisy positives.

use patarm_models::kernels::random;
use serde::{Deserialize, Serialize};

use crate::pair_loss::log_sum_exp;

/// Stream of the draws of noise.
const NOISE_STREAM: u64 = 0x4015e;

/// p(x | c) = (1/K) Σ_k N(c, σ_k²), and how it is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Noise {
    /// σ_k.
    pub sigmas: Vec<f64>,
    /// Positives are moved by a draw of the same mixture with deviations β σ_k.
    pub beta: f64,
    /// Negatives a record.
    pub negatives: usize,
}

impl Default for Noise {
    /// The authors' run.
    fn default() -> Self {
        Self { sigmas: vec![3.5], beta: 0.1, negatives: 768 }
    }
}

impl Noise {
    /// What is wrong with it.
    ///
    /// # Errors
    /// When a value cannot work.
    pub fn check(&self) -> Result<(), String> {
        if self.sigmas.is_empty() || self.sigmas.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return Err("noise.sigmas must hold positive numbers".into());
        }
        if !self.beta.is_finite() || self.beta < 0.0 {
            return Err("noise.beta must not be negative".into());
        }
        match self.negatives {
            1..=65_536 => Ok(()),
            _ => Err("noise.negatives must lie in 1..=65536".into()),
        }
    }

    /// log p(x | centre).
    #[must_use]
    pub fn log_density(&self, x: f64, centre: f64) -> f64 {
        let each = self.sigmas.iter().map(|sigma| {
            let z = (x - centre) / sigma;
            -0.5 * z * z - sigma.ln() - 0.5 * (2.0 * std::f64::consts::PI).ln()
        });
        log_sum_exp(each) - (self.sigmas.len() as f64).ln()
    }

    /// The candidates of a record with reward `centre`: the noisy positive, then the
    /// negatives. `record` and `step` tell draws apart.
    #[must_use]
    pub fn candidates(&self, centre: f64, (seed, step, record): (u64, u64, u64)) -> Vec<f64> {
        let draw = |n: usize| {
            let place = [NOISE_STREAM, step, record, n as u64];
            let sigma = self.sigmas[random::below(self.sigmas.len(), seed, &place)];
            let scale = if n == 0 { self.beta * sigma } else { sigma };
            centre + scale * random::normal(random::mix(seed, 1), &place)
        };
        (0..=self.negatives).map(draw).collect()
    }
}

/// Value and gradient of a record's loss.
#[derive(Clone, Debug, PartialEq)]
pub struct NceTerm {
    /// The loss.
    pub loss: f64,
    /// Its gradient by each energy.
    pub d_energies: Vec<f64>,
}

/// L = logsumexp_m [f_m − log p_m] − [f_0 − log p_0] + λ · mean_m f_m², with the noisy
/// positive at 0 (NCE+ for regression: Gustafsson et al., arXiv 2005.01698).
///
/// # Panics
/// When the lists differ in length or are empty.
#[must_use]
pub fn nce_plus(energies: &[f64], log_noise: &[f64], regularisation: f64) -> NceTerm {
    assert_eq!(energies.len(), log_noise.len(), "a noise density for each energy");
    let count = energies.len() as f64;
    let weighted = || energies.iter().zip(log_noise).map(|(energy, noise)| energy - noise);
    let total = log_sum_exp(weighted());
    let squares: f64 = energies.iter().map(|energy| energy * energy).sum();
    let mut d_energies: Vec<f64> = weighted().map(|logit| (logit - total).exp()).collect();
    d_energies[0] -= 1.0;
    for (slope, energy) in d_energies.iter_mut().zip(energies) {
        *slope += 2.0 * regularisation * energy / count;
    }
    let loss = total - (energies[0] - log_noise[0]) + regularisation * squares / count;
    NceTerm { loss, d_energies }
}
