//! Reward models made of reward models: ensembles, normalisation, length penalty.
//!
//! Each combinator is a [`RewardModel`] itself, so they nest. A response that any member
//! cannot score has no score: leaving a member out would change the scale.

use patarm_text::Item;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::model::{ItemFault, Reward, RewardModel};

/// How members' values become one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum Combine {
    /// Their mean.
    Mean {},
    /// The lowest: worst-case optimisation (Coste et al., arXiv 2310.02743, equation 2).
    Minimum {},
    /// Mean minus `coefficient` times their variance: uncertainty-weighted optimisation
    /// (the same, equation 3; its variance divides by the number of members).
    UncertaintyWeighted {
        /// Weight of the variance.
        coefficient: f64,
    },
}

impl Combine {
    /// The value and the variance of some members' values.
    #[must_use]
    pub fn apply(self, values: &[f64]) -> (f64, f64) {
        let count = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        let value = match self {
            Self::Mean {} => mean,
            Self::Minimum {} => values.iter().copied().fold(f64::INFINITY, f64::min),
            Self::UncertaintyWeighted { coefficient } => mean - coefficient * variance,
        };
        (value, variance)
    }
}

/// Several models as one.
pub struct Ensemble<'a> {
    members: Vec<&'a dyn RewardModel>,
    combine: Combine,
}

impl<'a> Ensemble<'a> {
    /// An ensemble of at least one member.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(members: Vec<&'a dyn RewardModel>, combine: Combine) -> crate::Result<Self> {
        if members.is_empty() {
            return Err(Error::new(ErrorKind::Config, "an ensemble needs at least one member"));
        }
        Ok(Self { members, combine })
    }
}

impl std::fmt::Debug for Ensemble<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ensemble").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl RewardModel for Ensemble<'_> {
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>> {
        let each: Vec<_> = self.members.iter().map(|member| member.score(items)).collect();
        let combined = |index: usize| {
            let mut values = Vec::with_capacity(each.len());
            for rewards in &each {
                match rewards.get(index) {
                    Some(Ok(reward)) => values.push(reward.value),
                    Some(Err(fault)) => return Err(fault.clone()),
                    None => return Err(ItemFault::Engine("a member left out an item".into())),
                }
            }
            let (value, variance) = self.combine.apply(&values);
            Ok(Reward { variance: Some(variance), ..Reward::of(value) })
        };
        (0..items.len()).map(combined).collect()
    }

    fn name(&self) -> String {
        let names: Vec<String> = self.members.iter().map(|member| member.name()).collect();
        let how = match self.combine {
            Combine::Mean {} => "mean",
            Combine::Minimum {} => "minimum",
            Combine::UncertaintyWeighted { .. } => "uncertainty-weighted",
        };
        format!("{how} of {}", names.join(", "))
    }
}

/// Values as their place among reference values, in 0..=1: rewards of different models,
/// or of one model over time, become comparable.
///
/// With reference values r_1 ≤ … ≤ r_n a value v becomes (#{r < v} + ½ #{r = v}) / n.
pub struct QuantileNormalised<'a> {
    inner: &'a dyn RewardModel,
    reference: Vec<f64>,
}

impl<'a> QuantileNormalised<'a> {
    /// Normalises `inner` by values it gave to reference items.
    ///
    /// # Errors
    /// When no reference value is finite.
    pub fn new(inner: &'a dyn RewardModel, reference: &[f64]) -> crate::Result<Self> {
        let mut reference: Vec<f64> =
            reference.iter().copied().filter(|value| value.is_finite()).collect();
        if reference.is_empty() {
            let what = "quantile normalisation needs at least one finite reference value";
            return Err(Error::new(ErrorKind::Config, what));
        }
        reference.sort_by(f64::total_cmp);
        Ok(Self { inner, reference })
    }

    fn quantile(&self, value: f64) -> f64 {
        let below = self.reference.partition_point(|one| *one < value);
        let up_to = self.reference.partition_point(|one| *one <= value);
        (below + up_to) as f64 / (2 * self.reference.len()) as f64
    }
}

impl std::fmt::Debug for QuantileNormalised<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuantileNormalised").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl RewardModel for QuantileNormalised<'_> {
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>> {
        let normalise = |reward: Reward| Reward { value: self.quantile(reward.value), ..reward };
        self.inner.score(items).into_iter().map(|one| one.map(normalise)).collect()
    }

    fn name(&self) -> String {
        format!("quantiles of {}", self.inner.name())
    }
}

/// A penalty for each character of a response.
///
/// [`LengthPenalised::fitted`] takes the slope of rewards on length out, which leaves
/// rewards of the reference items uncorrelated with their length (Huang et al., arXiv
/// 2409.17407, remove a smooth trend; ours is its linear case).
pub struct LengthPenalised<'a> {
    inner: &'a dyn RewardModel,
    per_character: f64,
}

impl<'a> LengthPenalised<'a> {
    /// A given penalty.
    #[must_use]
    pub fn new(inner: &'a dyn RewardModel, per_character: f64) -> Self {
        Self { inner, per_character }
    }

    /// The penalty that makes `rewards` (length in characters, reward) flat in length:
    /// the least-squares slope, 0 when all lengths are equal.
    #[must_use]
    pub fn fitted(inner: &'a dyn RewardModel, rewards: &[(usize, f64)]) -> Self {
        Self { inner, per_character: slope(rewards) }
    }
}

fn slope(points: &[(usize, f64)]) -> f64 {
    let count = points.len().max(1) as f64;
    let mean_x = points.iter().map(|(x, _)| *x as f64).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let (mut covariance, mut variance) = (0.0, 0.0);
    for (x, y) in points {
        let centred = *x as f64 - mean_x;
        covariance += centred * (y - mean_y);
        variance += centred * centred;
    }
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

impl std::fmt::Debug for LengthPenalised<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LengthPenalised")
            .field("per_character", &self.per_character)
            .finish_non_exhaustive()
    }
}

impl RewardModel for LengthPenalised<'_> {
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>> {
        let penalise = |(item, result): (&Item, Result<Reward, ItemFault>)| {
            let penalty = self.per_character * item.response.chars().count() as f64;
            result.map(|reward| Reward {
                value: reward.value - penalty,
                normalised: None,
                ..reward
            })
        };
        items.iter().zip(self.inner.score(items)).map(penalise).collect()
    }

    fn name(&self) -> String {
        format!("{} less length", self.inner.name())
    }
}

#[cfg(test)]
mod tests {
    use patarm_text::Conversation;

    use super::*;

    /// Scores by a table, in the order of the items; `None` fails.
    struct Table(Vec<Option<f64>>);

    impl RewardModel for Table {
        fn score(&self, _: &[Item]) -> Vec<Result<Reward, ItemFault>> {
            let one =
                |value: &Option<f64>| value.map(Reward::of).ok_or(ItemFault::Unparsed(Vec::new()));
            self.0.iter().map(one).collect()
        }

        fn name(&self) -> String {
            "table".into()
        }
    }

    fn items(responses: &[&str]) -> Vec<Item> {
        let prompt = Conversation::from_user("p");
        let item = |response: &&str| Item { prompt: prompt.clone(), response: (*response).into() };
        responses.iter().map(item).collect()
    }

    fn values(model: &dyn RewardModel, items: &[Item]) -> Vec<Option<f64>> {
        model.score(items).into_iter().map(|one| one.ok().map(|reward| reward.value)).collect()
    }

    #[test]
    fn ensembles_combine_and_one_fault_is_a_fault() {
        let first = Table(vec![Some(1.0), Some(2.0), None]);
        let second = Table(vec![Some(3.0), Some(2.0), Some(5.0)]);
        let items = items(&["a", "b", "c"]);
        let of = |combine| Ensemble::new(vec![&first, &second], combine).expect("members");
        assert_eq!(values(&of(Combine::Mean {}), &items), [Some(2.0), Some(2.0), None]);
        assert_eq!(values(&of(Combine::Minimum {}), &items), [Some(1.0), Some(2.0), None]);
        let weighted = of(Combine::UncertaintyWeighted { coefficient: 0.5 });
        // Variance 1 of (1, 3), 0 of (2, 2).
        assert_eq!(values(&weighted, &items), [Some(1.5), Some(2.0), None]);
        assert_eq!(weighted.score(&items)[0].as_ref().expect("scored").variance, Some(1.0));
        assert!(Ensemble::new(Vec::new(), Combine::Mean {}).is_err());
    }

    #[test]
    fn an_ensemble_of_one_is_that_one() {
        let only = Table(vec![Some(-3.5)]);
        for combine in [
            Combine::Mean {},
            Combine::Minimum {},
            Combine::UncertaintyWeighted { coefficient: 9.0 },
        ] {
            let ensemble = Ensemble::new(vec![&only], combine).expect("a member");
            assert_eq!(values(&ensemble, &items(&["a"])), [Some(-3.5)]);
        }
    }

    #[test]
    fn quantiles_keep_the_order_and_do_not_depend_on_the_scale() {
        let raw = [0.1, 3.0, 3.0, -7.0, 100.0];
        let items = items(&["a", "b", "c", "d", "e"]);
        let plain = Table(raw.iter().copied().map(Some).collect());
        let stretched = Table(raw.iter().map(|v| Some(2.0 * v + 1.0)).collect());
        let first = QuantileNormalised::new(&plain, &raw).expect("reference");
        let scaled: Vec<f64> = raw.iter().map(|v| 2.0 * v + 1.0).collect();
        let second = QuantileNormalised::new(&stretched, &scaled).expect("reference");
        let expected = [0.3, 0.6, 0.6, 0.1, 0.9].map(Some);
        assert_eq!(values(&first, &items), expected);
        assert_eq!(values(&second, &items), expected);
        assert!(QuantileNormalised::new(&plain, &[f64::NAN]).is_err());
    }

    #[test]
    fn a_fitted_penalty_takes_the_trend_out() {
        let items = items(&["a", "bb", "cccc", "dddddddd"]);
        let raw = [1.0, 2.5, 3.5, 8.0];
        let table = Table(raw.iter().copied().map(Some).collect());
        let points: Vec<(usize, f64)> =
            items.iter().map(|item| item.response.len()).zip(raw).collect();
        let flat = LengthPenalised::fitted(&table, &points);
        let left: Vec<(usize, f64)> = items
            .iter()
            .map(|item| item.response.len())
            .zip(values(&flat, &items).into_iter().flatten())
            .collect();
        assert!(slope(&points) > 0.9 && slope(&left).abs() < 1e-12);
        let given = LengthPenalised::new(&table, 0.5);
        assert_eq!(values(&given, &items)[3], Some(4.0));
        assert_eq!(slope(&[(3, 1.0), (3, 9.0)]), 0.0);
    }
}
