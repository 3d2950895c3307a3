//! Identities of the figures, and what win-ties do to a planted shortcut.

use super::*;
use crate::pair_loss::{sigmoid, softplus};
use crate::win_tie::{Outcome, WinTieConfig, win_tie_loss};

fn draws(count: usize, seed: u64, shift: f64) -> Vec<f64> {
    // Halves, so that ties occur.
    let one = |n: usize| (2.0 * (random::normal(seed, &[n as u64]) + shift)).round() / 2.0;
    (0..count).map(one).collect()
}

#[test]
fn pair_accuracy_over_all_pass_fail_pairs_is_the_area_under_the_roc_curve() {
    for (passes, fails) in [(40, 70), (3, 200), (2, 2)] {
        let (passes, fails) = (draws(passes, 1, 0.6), draws(fails, 2, 0.0));
        // Rounding makes both zeros, which are equal.
        let credit = |pass: f64, fail: f64| match pass.partial_cmp(&fail) {
            Some(std::cmp::Ordering::Greater) => 1.0,
            Some(std::cmp::Ordering::Equal) => 0.5,
            _ => 0.0,
        };
        let pairs: f64 =
            passes.iter().flat_map(|p| fails.iter().map(move |f| credit(*p, *f))).sum();
        let accuracy = pairs / (passes.len() * fails.len()) as f64;
        assert!((auc(&passes, &fails) - accuracy).abs() < 1e-12);
    }
}

#[test]
fn perfect_and_reversed_rewards() {
    let (high, low) = ([3.0, 4.0, 5.0], [0.0, 1.0]);
    let perfect = PassFail::of(&high, &low, Groups::default()).expect("measured");
    assert_eq!((perfect.auc, perfect.best_weighted_f1), (1.0, 1.0));
    assert_eq!((perfect.pass_mean, perfect.pass_variance), (4.0, 1.0));
    let reversed = PassFail::of(&low, &high, Groups::default()).expect("measured");
    assert_eq!(reversed.auc, 0.0);
    // Saying that everything fails is the best that remains: F1 of fails 3 · 2 / 8.
    assert!((reversed.best_weighted_f1 - 0.6 * 0.75).abs() < 1e-12);
    assert!(PassFail::of(&[1.0], &low, Groups::default()).is_none());
    assert!(PassFail::of(&[1.0, f64::NAN], &low, Groups::default()).is_none());
}

#[test]
fn advantages_do_not_see_scale_or_shift() {
    let (passes, fails) = (draws(30, 3, 0.6), draws(30, 4, 0.0));
    let moved = |values: &[f64]| values.iter().map(|v| 3.0 * v - 7.0).collect::<Vec<_>>();
    let plain = PassFail::of(&passes, &fails, Groups::default()).expect("measured");
    let other = PassFail::of(&moved(&passes), &moved(&fails), Groups::default()).expect("measured");
    assert!((plain.top_advantage - other.top_advantage).abs() < 1e-4);
    assert!((plain.pass_advantage_spread - other.pass_advantage_spread).abs() < 1e-4);
    assert_eq!(plain.auc, other.auc);
}

/// A response as features: quality, and a shortcut that only passing ones can have.
#[derive(Clone, Copy)]
struct Toy {
    features: [f64; 2],
    passes: bool,
}

fn toys(count: usize, seed: u64) -> Vec<Toy> {
    let one = |n: usize| {
        let draw = |what: u64| random::normal(seed, &[what, n as u64]);
        let passes = n.is_multiple_of(2);
        let has_shortcut = passes && n.is_multiple_of(8);
        let quality = draw(0) * 0.3 + if passes { 1.0 } else { -1.0 };
        Toy { features: [quality, if has_shortcut { 3.0 } else { 0.0 }], passes }
    };
    (0..count).map(one).collect()
}

fn reward(weights: [f64; 3], toy: &Toy) -> f64 {
    weights[0] * toy.features[0] + weights[1] * toy.features[1] + weights[2]
}

/// Gradient descent on a linear reward over drawn pairs with these outcomes.
fn fit(toys: &[Toy], config: &WinTieConfig) -> [f64; 3] {
    let side = |passes: bool| toys.iter().filter(move |toy| toy.passes == passes);
    let (passes, fails): (Vec<&Toy>, Vec<&Toy>) = (side(true).collect(), side(false).collect());
    let mut weights = [0.0; 3];
    for step in 0..400 {
        let mut gradient = [0.0; 3];
        for n in 0..64 {
            let pick =
                |from: &[&Toy], what: u64| *from[random::below(from.len(), 5, &[step, what, n])];
            let first = pick(&passes, 0);
            let (second, outcome) = match n % 2 {
                0 => (pick(&fails, 1), Outcome::Win),
                _ => (pick(&passes, 2), Outcome::Tie),
            };
            let term =
                win_tie_loss(reward(weights, &first), reward(weights, &second), outcome, config);
            for (toy, slope) in [(first, term.d_chosen), (second, term.d_rejected)] {
                gradient[0] += slope * toy.features[0];
                gradient[1] += slope * toy.features[1];
                gradient[2] += slope;
            }
        }
        weights.iter_mut().zip(gradient).for_each(|(weight, slope)| *weight -= slope * 0.5 / 64.0);
    }
    weights
}

fn measure(weights: [f64; 3], toys: &[Toy]) -> PassFail {
    let rewards = |passes: bool| {
        let own = toys.iter().filter(move |toy| toy.passes == passes);
        own.map(|toy| reward(weights, toy)).collect::<Vec<f64>>()
    };
    PassFail::of(&rewards(true), &rewards(false), Groups::default()).expect("measured")
}

#[test]
fn win_ties_flatten_a_planted_shortcut_at_the_same_accuracy() {
    let (train, held_out) = (toys(400, 1), toys(400, 2));
    let with_ties = WinTieConfig::default();
    let without = WinTieConfig { tie_weight: 0.0, ..with_ties };
    let plain = measure(fit(&train, &without), &held_out);
    let tied = measure(fit(&train, &with_ties), &held_out);
    assert!(tied.pass_variance <= 0.5 * plain.pass_variance, "{tied:?} {plain:?}");
    assert!((tied.auc - plain.auc).abs() <= 0.02, "{tied:?} {plain:?}");
    assert!(tied.top_advantage < plain.top_advantage, "{tied:?} {plain:?}");
    assert!(tied.pass_advantage_spread < plain.pass_advantage_spread, "{tied:?} {plain:?}");
}

#[test]
fn cross_prompt_pairs_with_flipped_labels_order_as_well_as_classification() {
    let mut train = toys(600, 3);
    for (n, toy) in train.iter_mut().enumerate() {
        toy.passes ^= random::uniform(9, &[n as u64]) < 0.1;
    }
    let pairs = fit(&train, &WinTieConfig { tie_weight: 0.0, ..WinTieConfig::default() });
    // Logistic regression on the same noisy labels.
    let mut weights = [0.0; 3];
    for _ in 0..400 {
        let mut gradient = [0.0; 3];
        for toy in &train {
            let sign = if toy.passes { 1.0 } else { -1.0 };
            let slope = -sign * sigmoid(-sign * reward(weights, toy));
            gradient[0] += slope * toy.features[0];
            gradient[1] += slope * toy.features[1];
            gradient[2] += slope;
        }
        let share = 1.0 / train.len() as f64;
        weights.iter_mut().zip(gradient).for_each(|(weight, slope)| *weight -= slope * share);
    }
    let loss: f64 = train
        .iter()
        .map(|toy| softplus(if toy.passes { -reward(weights, toy) } else { reward(weights, toy) }))
        .sum::<f64>();
    assert!(loss / (train.len() as f64) < 0.6, "the classifier has learnt");
    let held_out = toys(600, 4);
    let (by_pairs, by_labels) = (measure(pairs, &held_out), measure(weights, &held_out));
    assert!(by_pairs.auc >= by_labels.auc - 0.02, "{by_pairs:?} {by_labels:?}");
    assert!(by_labels.auc > 0.9, "{by_labels:?}");
}
