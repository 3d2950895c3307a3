//! What a subject follows besides quality: length, the order of showing, and whether
//! the spread of its votes says when it errs.

use patarm_reward::embedded::ReadOut;
use patarm_reward::judgement::Judgement;
use patarm_reward::voting::{VoteCombine, vote};

use super::{
    answers::Answer,
    responses::{Pair, Set},
    summary::{Metric, Metrics},
    tally::{Figure, Tally, ratio},
};
use crate::{
    distribution::correlation,
    interval::{Resampling, Z_95},
    metrics::Outcome,
    scores::Shown,
};

/// Everything this module measures.
#[must_use]
pub fn biases(set: &Set<'_>, resampling: Resampling) -> Metrics {
    let pairs = set.pairs();
    let mut metrics = length(set, &pairs, resampling);
    metrics.extend(position(set, resampling));
    metrics.extend(spread(set, &pairs));
    metrics
}

/// Ends of the bands of length difference: the longer response has at most so many
/// times the characters of the shorter one.
const BANDS: [(f64, &str); 3] = [(1.25, "1.25"), (2.0, "2"), (f64::INFINITY, "more")];

/// Accuracy (ties and faults at one half) where the preferred response is longer and
/// where it is shorter, by how much, and with both cases weighted alike.
fn length(set: &Set<'_>, pairs: &[Pair], resampling: Resampling) -> Metrics {
    const CELLS: usize = 2 * BANDS.len();
    let mut tally = Tally::new(2 * CELLS);
    let mut counts = [0usize; CELLS];
    for pair in pairs {
        let item = &set.items[pair.item];
        let (right, wrong) = (item.length(pair.right), item.length(pair.wrong));
        if right == wrong {
            continue;
        }
        let times = right.max(wrong) as f64 / right.min(wrong).max(1) as f64;
        let band = BANDS.iter().position(|(end, _)| times <= *end).unwrap_or(BANDS.len() - 1);
        let cell = 2 * band + usize::from(right < wrong);
        counts[cell] += 1;
        tally.add(pair.cluster, 2 * cell, pair.outcome.half_credit());
        tally.add(pair.cluster, 2 * cell + 1, 1.0);
    }
    let side = |sums: &[f64], shorter: usize| {
        let cells = (0..BANDS.len()).map(|band| 2 * (2 * band + shorter));
        let (part, whole) =
            cells.fold((0.0, 0.0), |(p, w), slot| (p + sums[slot], w + sums[slot + 1]));
        ratio(part, whole)
    };
    let number = |shorter: usize| (0..BANDS.len()).map(|band| counts[2 * band + shorter]).sum();
    let n: usize = counts.iter().sum();
    let mut figures = vec![
        Figure::of("length.accuracy_preferred_longer", number(0), move |sums| side(sums, 0)),
        Figure::of("length.accuracy_preferred_shorter", number(1), move |sums| side(sums, 1)),
        Figure::of("length.controlled_accuracy", n, move |sums| {
            Some(f64::midpoint(side(sums, 0)?, side(sums, 1)?))
        }),
    ];
    for (band, (_, name)) in BANDS.iter().enumerate() {
        for (shorter, side) in ["longer", "shorter"].into_iter().enumerate() {
            let cell = 2 * band + shorter;
            let name = format!("length.accuracy_preferred_{side}.up_to_{name}");
            figures.push(Figure::of(name, counts[cell], move |sums| {
                ratio(sums[2 * cell], sums[2 * cell + 1])
            }));
        }
    }
    let mut metrics = tally.measure(&figures, resampling);
    metrics.extend(length_correlation(set).map(|m| ("length.correlation".to_owned(), m)));
    metrics
}

/// Pearson's correlation of score and length over all scored responses, its interval
/// by Fisher's transformation (R. A. Fisher, Biometrika 10, 1915).
fn length_correlation(set: &Set<'_>) -> Option<Metric> {
    let mut points = Vec::new();
    for (item, answered) in set.items.iter().zip(set.answered) {
        for (index, score) in answered.answer.scores()?.iter().enumerate() {
            points.extend(score.map(|score| (score, item.length(index) as f64)));
        }
    }
    let (value, n) = (correlation(&points), points.len());
    let ci95 = value.filter(|value| n > 3 && value.abs() < 1.0).map(|value| {
        let half = Z_95 / ((n - 3) as f64).sqrt();
        [(value.atanh() - half).tanh(), (value.atanh() + half).tanh()]
    });
    Some(Metric { value, ci95, n })
}

/// How verdicts depend on the order of showing: agreement of both orders, share of
/// verdicts for what was shown first (ties left out), accuracy demanding that both
/// orders are right, and the mean accuracy of single orders (ties and faults ½).
fn position(set: &Set<'_>, resampling: Resampling) -> Metrics {
    let mut tally = Tally::new(8);
    let mut counts = [0usize; 4];
    for (index, answered) in set.answered.iter().enumerate() {
        let Answer::Verdicts(verdicts) = &answered.answer else { continue };
        let cluster = set.clusters[index];
        for verdict in verdicts.values() {
            if let Some(agree) = verdict.agree() {
                counts[0] += 1;
                tally.add(cluster, 0, f64::from(u8::from(agree)));
                tally.add(cluster, 1, 1.0);
            }
            for shown in [verdict.straight, verdict.swapped].into_iter().flatten().flatten() {
                if shown != Shown::Tie {
                    counts[1] += 1;
                    tally.add(cluster, 2, f64::from(u8::from(shown == Shown::First)));
                    tally.add(cluster, 3, 1.0);
                }
            }
        }
        for (right, wrong) in set.items[index].labelled_pairs() {
            let verdict = verdicts.get(&(right.min(wrong), right.max(wrong)));
            for preference in verdict.into_iter().flat_map(|v| v.preferences()).flatten() {
                let preferred = preference.map(|p| if right < wrong { p } else { p.swap() });
                let outcome = preferred.map_or(Outcome::Fault, Outcome::of_preference);
                counts[3] += 1;
                tally.add(cluster, 6, outcome.half_credit());
                tally.add(cluster, 7, 1.0);
            }
            let both = verdict.is_some_and(|v| v.straight.is_some() && v.swapped.is_some());
            if both {
                counts[2] += 1;
                let is_right = answered.answer.outcome(right, wrong) == Outcome::Right;
                tally.add(cluster, 4, f64::from(u8::from(is_right)));
                tally.add(cluster, 5, 1.0);
            }
        }
    }
    let names = [
        "position.consistency",
        "position.first_rate",
        "accuracy.both_orders",
        "accuracy.mean_of_orders",
    ];
    let figures: Vec<Figure<'_>> = names
        .into_iter()
        .enumerate()
        .filter(|(index, _)| counts[*index] > 0)
        .map(|(index, name)| Figure::proportion(name, 2 * index, 2 * index + 1, counts[index]))
        .collect();
    tally.measure(&figures, resampling)
}

/// Whether disagreement of votes predicts error: the mean spread of right and of wrong
/// pairs, and the probability that a wrong pair has the larger one (area under the
/// curve; interval of J. A. Hanley & B. J. McNeil, Radiology 143, 1982).
fn spread(set: &Set<'_>, pairs: &[Pair]) -> Metrics {
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for pair in pairs {
        let Some(spread) = pair_spread(set, pair) else { continue };
        match pair.outcome {
            Outcome::Right => right.push(spread),
            Outcome::Wrong => wrong.push(spread),
            Outcome::Tie | Outcome::Fault => {}
        }
    }
    if right.is_empty() && wrong.is_empty() {
        return Metrics::new();
    }
    let mut metrics = Metrics::new();
    metrics.insert("votes.spread_right".to_owned(), mean(&right));
    metrics.insert("votes.spread_wrong".to_owned(), mean(&wrong));
    metrics.insert("votes.spread_predicts_error".to_owned(), area(&wrong, &right));
    metrics
}

/// Root of the summed variances of the votes on both responses; `None` with fewer than
/// two votes on one of them.
fn pair_spread(set: &Set<'_>, pair: &Pair) -> Option<f64> {
    let judgements = &set.answered[pair.item].judgements;
    let of = |response: usize| -> Option<f64> {
        let judgements: &Vec<Judgement> = judgements.get(response)?;
        let vote = vote(judgements, ReadOut::Expected, VoteCombine::Mean)?;
        (vote.num_valid > 1).then_some(vote.spread)
    };
    Some(of(pair.right)?.hypot(of(pair.wrong)?))
}

fn mean(values: &[f64]) -> Metric {
    let summary = crate::distribution::Summary::of(values);
    let half = summary.deviation.map(|deviation| Z_95 * deviation / (summary.n as f64).sqrt());
    let ci95 = summary.mean.zip(half).map(|(mean, half)| [mean - half, mean + half]);
    Metric { value: summary.mean, ci95, n: summary.n }
}

/// The probability that a draw from `high` exceeds one from `low`, ties at one half.
fn area(high: &[f64], low: &[f64]) -> Metric {
    let n = high.len() + low.len();
    if high.is_empty() || low.is_empty() {
        return Metric { value: None, ci95: None, n };
    }
    let mut sorted = low.to_vec();
    sorted.sort_by(f64::total_cmp);
    let below = |value: &f64| {
        let less = sorted.partition_point(|other| other < value);
        let not_more = sorted.partition_point(|other| other <= value);
        f64::midpoint(less as f64, not_more as f64)
    };
    let (m, k) = (high.len() as f64, low.len() as f64);
    let area = high.iter().map(below).sum::<f64>() / (m * k);
    let (q1, q2) = (area / (2.0 - area), 2.0 * area * area / (1.0 + area));
    let square = area * area;
    let variance =
        (area * (1.0 - area) + (m - 1.0) * (q1 - square) + (k - 1.0) * (q2 - square)) / (m * k);
    let half = Z_95 * variance.max(0.0).sqrt();
    Metric { value: Some(area), ci95: Some([(area - half).max(0.0), (area + half).min(1.0)]), n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn area_of_known_sets() {
        assert_eq!(area(&[2.0, 3.0], &[1.0]).value, Some(1.0));
        assert_eq!(area(&[1.0], &[1.0]).value, Some(0.5));
        assert_eq!(area(&[1.0, 3.0], &[2.0, 2.0]).value, Some(0.5));
        assert_eq!(area(&[], &[2.0]).value, None);
    }
}
