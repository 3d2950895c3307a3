//! Gradient ascent on an energy, from the base's reward or from a random one.

use patarm_models::kernels::random;
use serde::{Deserialize, Serialize};

/// Stream of the draws of starts.
const START_STREAM: u64 = 0x57a7;
/// An item rests when its step is smaller.
const SMALLEST_STEP: f64 = 1e-6;

/// How rewards are refined; numbers are on the network's scale.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Refinement {
    /// A reward within ± this is a start (the authors' c).
    pub gate: f64,
    /// Any other starts at a uniform draw within ± this (C).
    pub range: f64,
    /// First step size λ.
    pub step: f64,
    /// λ is multiplied by this after a step that does not raise the energy (η).
    pub decay: f64,
    /// Most steps.
    pub max_steps: usize,
    /// Starts; all but the first are random, and the highest energy wins.
    pub starts: usize,
    /// Seed of random starts.
    pub seed: u64,
}

impl Default for Refinement {
    /// The authors', who average results over seeds 20 to 29, but for `gate` and `range`:
    /// two and three deviations of rewards on the standard scale. With theirs, 2 and 4, most
    /// rewards start at a draw, and the order of the base is lost (docs/ebrm.md).
    fn default() -> Self {
        Self { gate: 8.0, range: 12.0, step: 0.5, decay: 0.1, max_steps: 50, starts: 1, seed: 20 }
    }
}

impl Refinement {
    /// What is wrong with it.
    ///
    /// # Errors
    /// When a value cannot work.
    pub fn check(&self) -> Result<(), String> {
        let sizes = [("gate", self.gate), ("range", self.range), ("step", self.step)];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| !size.is_finite() || *size < 0.0) {
            return Err(format!("refinement.{name} must not be negative"));
        }
        if !(self.decay > 0.0 && self.decay < 1.0) {
            return Err("refinement.decay must lie between 0 and 1".into());
        }
        if self.max_steps > 100_000 {
            return Err("refinement.max_steps must be at most 100000".into());
        }
        match self.starts {
            1..=64 => Ok(()),
            _ => Err("refinement.starts must lie in 1..=64".into()),
        }
    }

    /// Where the ascent of an item begins; `key` tells items apart.
    #[must_use]
    pub fn start(&self, reward: f64, key: u64, restart: usize) -> f64 {
        if restart == 0 && reward.abs() <= self.gate {
            return reward;
        }
        let uniform = random::uniform(self.seed, &[START_STREAM, key, restart as u64]);
        self.range * (2.0 * uniform - 1.0)
    }
}

/// An energy over rewards, for each of some items.
pub trait Energy {
    /// Energies and their slopes at one reward for each of the items named.
    fn at(&self, items: &[usize], rewards: &[f64]) -> Vec<(f64, f64)>;
}

/// Where an ascent ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refined {
    /// The reward.
    pub reward: f64,
    /// Its energy.
    pub energy: f64,
    /// The energy of the start.
    pub start_energy: f64,
    /// Steps tried.
    pub steps: usize,
    /// The last step size.
    pub step: f64,
}

/// Ascends from one start for each item: a step is taken only when it raises the energy,
/// else the step size shrinks; an item rests below a step of 1e-6 or after `max_steps`.
#[must_use]
pub fn refine(energy: &dyn Energy, starts: &[f64], config: &Refinement) -> Vec<Refined> {
    let all: Vec<usize> = (0..starts.len()).collect();
    let first = energy.at(&all, starts);
    let mut slopes: Vec<f64> = first.iter().map(|(_, slope)| *slope).collect();
    let begin = |(reward, (energy, _)): (&f64, &(f64, f64))| Refined {
        reward: *reward,
        energy: *energy,
        start_energy: *energy,
        steps: 0,
        step: config.step,
    };
    let mut found: Vec<Refined> = starts.iter().zip(&first).map(begin).collect();
    for _ in 0..config.max_steps {
        let moving: Vec<usize> =
            all.iter().copied().filter(|item| found[*item].step >= SMALLEST_STEP).collect();
        if moving.is_empty() {
            break;
        }
        let step = |item: &usize| found[*item].reward + found[*item].step * slopes[*item];
        // Networks see 32 bits; what is accepted is what was judged.
        let rewards: Vec<f64> = moving.iter().map(|item| f64::from(step(item) as f32)).collect();
        let judged = energy.at(&moving, &rewards);
        for ((item, reward), (energy, slope)) in moving.into_iter().zip(rewards).zip(judged) {
            let one = &mut found[item];
            one.steps += 1;
            if energy > one.energy {
                (one.reward, one.energy) = (reward, energy);
                slopes[item] = slope;
            } else {
                one.step *= config.decay;
            }
        }
    }
    found
}
