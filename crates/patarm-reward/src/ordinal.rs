//! Ordinal reward: a distribution over ratings from a model's own digits.
//!
//! Implements OPRM with Region Flooding Tuning (arXiv 2602.12660) from second-hand
//! descriptions of it. A rating S ∈ 1..=9 has the probability p(k) ∝ exp z_k of the nine
//! digit tokens; two independent ratings give P(S_c > S_r) = Σ_{j<i} p_c(i) p_r(j), and
//! the loss of a pair is −log of the mass in a region of the joint matrix. The value is
//! `E[S]`, its uncertainty `Var[S]`.
//!
//! # Deviations
//! - The paper's equation of the flooded region is not known to us. Ours is
//!   `{(i, j) : lo(l_r) ≤ j < i ≤ hi(l_c)}`, the triangle spanned by the two zones; any
//!   other region or weighting can be given as a [`Region`].
//! - The instruction around the item is ours.

mod model;
mod text;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub(crate) use model::rewards;
pub use model::{OrdinalRewardModel, digit_targets, ratings};
pub use text::OrdinalText;

use crate::pair_loss::log_sum_exp;

/// Number of ratings.
pub const NUM_RATINGS: usize = 9;

/// Logits or log-probabilities of the ratings 1..=9.
pub type Ratings = [f64; NUM_RATINGS];

/// A coarse quality label: thirds of the scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Ratings 1 to 3.
    Bad,
    /// Ratings 4 to 6.
    Normal,
    /// Ratings 7 to 9.
    Good,
}

impl Quality {
    /// The ratings of the zone.
    #[must_use]
    pub fn zone(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Bad => 1..=3,
            Self::Normal => 4..=6,
            Self::Good => 7..=9,
        }
    }
}

/// How labels become a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegionShape {
    /// Labels are ignored: everything below the diagonal (OPRM without tuning).
    Unconstrained,
    /// The block of the two zones; its gradient dies inside.
    Rectangle,
    /// The triangle spanned by the two zones (Region Flooding Tuning).
    #[default]
    Flood,
}

/// Weights of the joint matrix: row = rating of the chosen response, column = of the
/// rejected one, both from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    log_weights: [Ratings; NUM_RATINGS],
}

impl Region {
    /// A region from a weight for each pair of ratings (from 1); 0 = outside. `None`
    /// when every weight is 0: no rating pair fits.
    #[must_use]
    pub fn new(weight: impl Fn(usize, usize) -> f64) -> Option<Self> {
        let mut log_weights = [[f64::NEG_INFINITY; NUM_RATINGS]; NUM_RATINGS];
        for (i, row) in log_weights.iter_mut().enumerate() {
            for (j, cell) in row.iter_mut().enumerate() {
                *cell = weight(i + 1, j + 1).max(0.0).ln();
            }
        }
        let is_empty = log_weights.iter().flatten().all(|cell| *cell == f64::NEG_INFINITY);
        (!is_empty).then_some(Self { log_weights })
    }

    /// The region of a pair with labels (chosen, rejected), or of one without. `None`
    /// for labels under which the chosen response cannot be better.
    #[must_use]
    pub fn of(shape: RegionShape, labels: Option<(Quality, Quality)>) -> Option<Self> {
        let inside = |holds: bool| if holds { 1.0 } else { 0.0 };
        let Some((chosen, rejected)) = labels.filter(|_| shape != RegionShape::Unconstrained)
        else {
            return Self::new(|i, j| inside(j < i));
        };
        if chosen < rejected {
            return None;
        }
        match shape {
            RegionShape::Rectangle => Self::new(|i, j| {
                inside(chosen.zone().contains(&i) && rejected.zone().contains(&j) && j < i)
            }),
            _ => {
                let (low, high) = (*rejected.zone().start(), *chosen.zone().end());
                Self::new(|i, j| inside(low <= j && j < i && i <= high))
            }
        }
    }
}

/// Value and gradient of a pair's loss.
#[derive(Clone, Debug, PartialEq)]
pub struct OrdinalTerm {
    /// −log of the mass in the region.
    pub loss: f64,
    /// Its gradient by the chosen response's logits.
    pub d_chosen: Ratings,
    /// Its gradient by the rejected response's logits.
    pub d_rejected: Ratings,
}

/// −log Σ_{(i,j)} w_ij p_c(i) p_r(j), from logits, in log space throughout.
///
/// With q the posterior of the joint matrix within the region, the gradient by a logit
/// is p(k) minus q's marginal at k.
#[must_use]
pub fn region_loss(chosen: &Ratings, rejected: &Ratings, region: &Region) -> OrdinalTerm {
    let (log_c, log_r) = (log_softmax(chosen), log_softmax(rejected));
    let joint = |i: usize, j: usize| region.log_weights[i][j] + log_c[i] + log_r[j];
    let cells = || (0..NUM_RATINGS).flat_map(|i| (0..NUM_RATINGS).map(move |j| (i, j)));
    let mass = log_sum_exp(cells().map(|(i, j)| joint(i, j)));
    let (mut d_chosen, mut d_rejected) = (log_c.map(f64::exp), log_r.map(f64::exp));
    for (i, j) in cells() {
        let posterior = (joint(i, j) - mass).exp();
        d_chosen[i] -= posterior;
        d_rejected[j] -= posterior;
    }
    OrdinalTerm { loss: -mass, d_chosen, d_rejected }
}

/// Probabilities that the first rating is greater than, less than and equal to the second.
#[must_use]
pub fn order_probabilities(first: &Ratings, second: &Ratings) -> [f64; 3] {
    let (p, q) = (log_softmax(first).map(f64::exp), log_softmax(second).map(f64::exp));
    let mut outcome = [0.0; 3];
    for (i, a) in p.iter().enumerate() {
        for (j, b) in q.iter().enumerate() {
            let place = match i.cmp(&j) {
                std::cmp::Ordering::Greater => 0,
                std::cmp::Ordering::Less => 1,
                std::cmp::Ordering::Equal => 2,
            };
            outcome[place] += a * b;
        }
    }
    outcome
}

/// Expectation and variance of the rating.
#[must_use]
pub fn moments(logits: &Ratings) -> (f64, f64) {
    let probabilities = log_softmax(logits).map(f64::exp);
    let ratings = || (1..=NUM_RATINGS).map(|k| k as f64).zip(probabilities);
    let mean: f64 = ratings().map(|(k, p)| k * p).sum();
    (mean, ratings().map(|(k, p)| (k - mean).powi(2) * p).sum())
}

/// Normalised over the nine ratings alone.
#[must_use]
pub fn log_softmax(logits: &Ratings) -> Ratings {
    let total = log_sum_exp(logits.iter().copied());
    logits.map(|logit| logit - total)
}
