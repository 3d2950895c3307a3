//! Published losses, gradients, and where gradient descent on free logits ends.

use super::*;

const UNIFORM: Ratings = [0.3; NUM_RATINGS];
const PAIRS: [(Quality, Quality); 6] = [
    (Quality::Good, Quality::Bad),
    (Quality::Good, Quality::Normal),
    (Quality::Normal, Quality::Bad),
    (Quality::Good, Quality::Good),
    (Quality::Normal, Quality::Normal),
    (Quality::Bad, Quality::Bad),
];

fn region(shape: RegionShape, labels: Option<(Quality, Quality)>) -> Region {
    Region::of(shape, labels).expect("possible labels")
}

/// Ratings without symmetry.
fn uneven(seed: u64) -> Ratings {
    let mut generator = crate::random::SplitMix64::new(seed);
    std::array::from_fn(|_| 3.0 * generator.next_f64() - 1.5)
}

#[test]
fn uniform_ratings_give_the_published_losses() {
    let plain = region(RegionShape::Unconstrained, None);
    let loss = region_loss(&UNIFORM, &UNIFORM, &plain).loss;
    assert!((loss - 0.8109).abs() < 1e-4 && (loss - -(36.0_f64 / 81.0).ln()).abs() < 1e-12);
    let mass =
        |shape, labels| (-region_loss(&UNIFORM, &UNIFORM, &region(shape, labels)).loss).exp();
    let expected = [
        (RegionShape::Unconstrained, [36.0; 6]),
        (RegionShape::Rectangle, [9.0, 9.0, 9.0, 3.0, 3.0, 3.0]),
        (RegionShape::Flood, [36.0, 15.0, 15.0, 3.0, 3.0, 3.0]),
    ];
    for (shape, cells) in expected {
        for (labels, cells) in PAIRS.into_iter().zip(cells) {
            assert!(
                (mass(shape, Some(labels)) - cells / 81.0).abs() < 1e-12,
                "{shape:?} {labels:?}"
            );
        }
    }
    // Without labels the flood is the whole triangle.
    assert_eq!(region(RegionShape::Flood, None), plain);
}

#[test]
fn the_gradient_is_that_of_the_cumulative_distributions() {
    let (chosen, rejected) = (uneven(1), uneven(2));
    let (p, q) = (log_softmax(&chosen).map(f64::exp), log_softmax(&rejected).map(f64::exp));
    let term = region_loss(&chosen, &rejected, &region(RegionShape::Unconstrained, None));
    let total = (-term.loss).exp();
    // dP/dp_c(k) = P(S_r < k), dP/dp_r(k) = P(S_c > k); then through −log and the softmax.
    let below: Ratings = std::array::from_fn(|k| q[..k].iter().sum());
    let above: Ratings = std::array::from_fn(|k| p[k + 1..].iter().sum());
    for k in 0..NUM_RATINGS {
        let chosen = -p[k] * (below[k] - total) / total;
        let rejected = -q[k] * (above[k] - total) / total;
        assert!((term.d_chosen[k] - chosen).abs() < 1e-9, "{k}");
        assert!((term.d_rejected[k] - rejected).abs() < 1e-9, "{k}");
    }
}

#[test]
fn gradients_are_finite_differences_in_every_region() {
    let (chosen, rejected) = (uneven(3), uneven(4));
    let weighted = Region::new(|i, j| if j < i { (i * j) as f64 } else { 0.0 }).expect("cells");
    let mut regions = vec![weighted];
    regions.extend(PAIRS.map(|labels| region(RegionShape::Flood, Some(labels))));
    for region in regions {
        let term = region_loss(&chosen, &rejected, &region);
        for k in 0..NUM_RATINGS {
            let h = 1e-5;
            let moved = |by: f64| {
                let mut moved = chosen;
                moved[k] += by;
                region_loss(&moved, &rejected, &region).loss
            };
            assert!((term.d_chosen[k] - (moved(h) - moved(-h)) / (2.0 * h)).abs() < 1e-8);
        }
        assert!(term.d_chosen.iter().sum::<f64>().abs() < 1e-12);
    }
}

#[test]
fn order_probabilities_are_complete_and_a_constant_changes_nothing() {
    let (first, second) = (uneven(5), uneven(6));
    let outcome = order_probabilities(&first, &second);
    assert!((outcome.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    assert_eq!(outcome[0], {
        let swapped = order_probabilities(&second, &first);
        swapped[1]
    });
    let raised = first.map(|logit| logit + 1000.0);
    let plain = region(RegionShape::Unconstrained, None);
    let difference =
        region_loss(&raised, &second, &plain).loss - region_loss(&first, &second, &plain).loss;
    assert!(difference.abs() < 1e-9);
    assert!((moments(&raised).0 - moments(&first).0).abs() < 1e-9);
    let loss = region_loss(&first, &second, &plain).loss;
    assert!((loss + outcome[0].ln()).abs() < 1e-12);
    // Equal distributions: a tie counts against the pair.
    let [greater, _, equal] = order_probabilities(&first, &first);
    assert!((greater - (1.0 - equal) / 2.0).abs() < 1e-12 && greater < 0.5);
}

#[test]
fn binned_gumbel_qualities_reproduce_bradley_terry() {
    // S = μ + standard Gumbel noise: P(S_c > S_r) = σ(μ_c − μ_r). Nine bins are coarse,
    // so many are used here through the same joint sum.
    let (low, high, bins) = (-6.0, 14.0, 4000);
    let distribution = |location: f64| -> Vec<f64> {
        let cdf = |x: f64| (-(-(x - location)).exp()).exp();
        let edge = |n: usize| low + (high - low) * n as f64 / bins as f64;
        (0..bins).map(|n| cdf(edge(n + 1)) - cdf(edge(n))).collect()
    };
    for difference in [-1.0, 0.3, 2.0] {
        let (chosen, rejected) = (distribution(difference), distribution(0.0));
        let mut below = 0.0;
        let mut probability = 0.0;
        for (c, r) in chosen.iter().zip(&rejected) {
            probability += c * (below + r / 2.0);
            below += r;
        }
        let expected = crate::pair_loss::sigmoid(difference);
        assert!((probability - expected).abs() < 2e-3, "{difference}: {probability} {expected}");
    }
}

/// Where gradient descent on free logits ends, from uniform.
fn descend(region: &Region) -> ([f64; 2], Ratings) {
    let (mut chosen, mut rejected) = ([0.0; NUM_RATINGS], [0.0; NUM_RATINGS]);
    for _ in 0..4000 {
        let term = region_loss(&chosen, &rejected, region);
        for k in 0..NUM_RATINGS {
            chosen[k] -= 0.5 * term.d_chosen[k];
            rejected[k] -= 0.5 * term.d_rejected[k];
        }
    }
    ([moments(&chosen).0, moments(&rejected).0], log_softmax(&chosen).map(f64::exp))
}

#[test]
fn free_logits_end_where_the_regions_say() {
    let flood = [[8.93, 1.07], [8.99, 4.01], [5.99, 1.01], [9.0, 7.0], [6.0, 4.0], [3.0, 1.0]];
    for (labels, expected) in PAIRS.into_iter().zip(flood) {
        let (found, _) = descend(&region(RegionShape::Flood, Some(labels)));
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((found - expected).abs() < 0.1, "{labels:?}: {found} {expected}");
        }
    }
    let rectangle = [[8.0, 2.0], [8.0, 5.0], [5.0, 2.0]];
    for (labels, expected) in PAIRS.into_iter().zip(rectangle) {
        let (found, chosen) = descend(&region(RegionShape::Rectangle, Some(labels)));
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((found - expected).abs() < 0.1, "{labels:?}: {found} {expected}");
        }
        // The gradient dies inside: the block ends flat.
        for rating in labels.0.zone() {
            assert!((chosen[rating - 1] - 1.0 / 3.0).abs() < 0.01, "{chosen:?}");
        }
    }
    let (found, _) = descend(&region(RegionShape::Unconstrained, Some(PAIRS[2])));
    assert!((found[0] - 8.93).abs() < 0.1 && (found[1] - 1.07).abs() < 0.1, "{found:?}");
}

#[test]
fn impossible_labels_have_no_region() {
    assert_eq!(Region::of(RegionShape::Flood, Some((Quality::Normal, Quality::Good))), None);
    assert_eq!(Region::of(RegionShape::Rectangle, Some((Quality::Bad, Quality::Normal))), None);
    assert_eq!(Region::new(|_, _| 0.0), None);
}

#[test]
fn extreme_logits_stay_finite() {
    let mut sure = [-1e4; NUM_RATINGS];
    sure[0] = 1e4;
    let mut other = sure;
    other.swap(0, 8);
    let plain = region(RegionShape::Unconstrained, None);
    let wrong = region_loss(&sure, &other, &plain);
    assert!(wrong.loss > 1e4 && wrong.loss.is_finite());
    assert!(wrong.d_chosen.iter().chain(&wrong.d_rejected).all(|d| d.is_finite()));
    assert!(region_loss(&other, &sure, &plain).loss.abs() < 1e-9);
}
