//! Do the intervals hold what they promise? Simulated judges of known accuracy.

use super::{
    accuracy::pair_accuracy,
    answers::Answered,
    item::Item,
    responses::{Set, clusters},
};
use crate::{interval::Resampling, random};

/// Simulations of each size.
const SIMULATIONS: u64 = 1_000;

fn uniform(seed: u64, counter: u64) -> f64 {
    random::draw(seed, counter) as f64 / u64::MAX as f64
}

fn items(count: usize) -> Vec<Item> {
    let item = |id: usize| Item {
        id: id.to_string(),
        group: id.to_string(),
        label: super::item::Label::Correct(vec![true, false]),
        ..Item::default()
    };
    (0..count).map(item).collect()
}

/// The share of simulated judges whose true accuracy lies in the interval of a figure.
/// Accuracies spread evenly over 0.5 to 0.99; of the pairs a judge does not get right,
/// a share of `ties` is tied. The truth of the figure is p, or p + ties·(1 − p)/2.
fn coverage(count: usize, ties: f64, figure: &str) -> f64 {
    let items = items(count);
    let clusters = clusters(&items);
    let mut covered = 0;
    for simulation in 0..SIMULATIONS {
        let accuracy = 0.5 + 0.49 * (simulation as f64 + 0.5) / SIMULATIONS as f64;
        let seed = random::draw(17, simulation);
        let answer = |pair: u64| {
            if uniform(seed, 2 * pair) < accuracy {
                Answered::of_scores([1.0, 0.0])
            } else if uniform(seed, 2 * pair + 1) < ties {
                Answered::of_scores([1.0, 1.0])
            } else {
                Answered::of_scores([0.0, 1.0])
            }
        };
        let answered: Vec<Answered> = (0..count as u64).map(answer).collect();
        let set = Set { items: &items, answered: &answered, clusters: &clusters };
        let metrics = pair_accuracy(&set, Resampling { resamples: 200, seed });
        let truth = match figure {
            "accuracy.strict" => accuracy,
            _ => accuracy + ties * (1.0 - accuracy) / 2.0,
        };
        let [low, high] = metrics[figure].ci95.expect("an interval");
        covered += u64::from(low <= truth && truth <= high);
    }
    covered as f64 / SIMULATIONS as f64
}

#[test]
fn intervals_cover_the_truth_in_93_to_97_per_cent() {
    for count in [28, 100, 500] {
        let strict = coverage(count, 0.0, "accuracy.strict");
        assert!((0.93..=0.97).contains(&strict), "n {count}: {strict}");
    }
}

#[test]
fn half_credit_covers_too() {
    for count in [28, 100, 500] {
        let half = coverage(count, 0.4, "accuracy.half_credit");
        assert!((0.93..=0.97).contains(&half), "n {count}: {half}");
    }
}
