//! Best-of-k curves: what a reward model's choice among k responses is worth.
//!
//! For K responses ranked by score, the expected correctness of the best of k drawn
//! without replacement is exact: the response of rank r (from the worst, 0) is chosen
//! when it is drawn and the other k − 1 come from the r below it. Responses of equal
//! score share their ranks, so their mean correctness stands for each.

use crate::{
    benchmark::{
        item::Label,
        responses::Set,
        summary::Metrics,
        tally::{Figure, Tally, ratio},
    },
    interval::Resampling,
};

/// Largest K for which curves are drawn.
const MAX_K: usize = 256;

/// Figures of every correctness set.
pub(in crate::benchmarks) fn curves(set: &Set<'_>, resampling: Resampling) -> Metrics {
    let is_set = |index: &usize| matches!(set.items[*index].label, Label::Correct(_));
    let members: Vec<usize> = (0..set.items.len()).filter(is_set).collect();
    let mut names: Vec<&str> =
        members.iter().map(|&index| set.items[index].subset.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut metrics = Metrics::new();
    for name in names {
        let own: Vec<usize> =
            members.iter().copied().filter(|&index| set.items[index].subset == name).collect();
        metrics.extend(of_set(set, name, &own, resampling));
    }
    metrics
}

fn of_set(set: &Set<'_>, name: &str, members: &[usize], resampling: Resampling) -> Metrics {
    let k_max = members.iter().map(|&i| set.items[i].responses.len()).max().unwrap_or(0).min(MAX_K);
    // Sums: the curve, the ideal curve, items; then accuracy and items that have one.
    let (ideal_at, items_at) = (k_max, 2 * k_max);
    let mut tally = Tally::new(2 * k_max + 3);
    let mut with_pairs = 0;
    for &index in members {
        let (item, answered) = (&set.items[index], &set.answered[index]);
        let Label::Correct(correct) = &item.label else { continue };
        let correct: Vec<f64> = correct.iter().map(|c| f64::from(u8::from(*c))).collect();
        let scores: Vec<f64> = (0..correct.len())
            .map(|response| {
                let scores = answered.answer.scores();
                // A response without a score is never chosen before one that has one.
                scores.and_then(|s| s.get(response).copied().flatten()).unwrap_or(f64::NEG_INFINITY)
            })
            .collect();
        let mut add = |slot, value| tally.add(set.clusters[index], slot, value);
        for (k, value) in curve(&scores, &correct, k_max).into_iter().enumerate() {
            add(k, value);
        }
        for (k, value) in curve(&correct, &correct, k_max).into_iter().enumerate() {
            add(ideal_at + k, value);
        }
        add(items_at, 1.0);
        let pairs = item.labelled_pairs();
        if !pairs.is_empty() {
            let credit: f64 =
                pairs.iter().map(|&(r, w)| answered.answer.outcome(r, w).half_credit()).sum();
            add(items_at + 1, credit / pairs.len() as f64);
            add(items_at + 2, 1.0);
            with_pairs += 1;
        }
    }
    let figures = figures(name, (k_max, members.len(), with_pairs));
    tally.measure(&figures, resampling)
}

fn figures(name: &str, (k_max, n, with_pairs): (usize, usize, usize)) -> Vec<Figure<'static>> {
    let label = |figure: &str| format!("correctness.{name}.{figure}");
    let (ideal_at, items_at) = (k_max, 2 * k_max);
    let accuracy = move |sums: &[f64]| ratio(sums[items_at + 1], sums[items_at + 2]);
    vec![
        Figure::of(label("accuracy"), with_pairs, accuracy),
        Figure::of(label("roc_auc"), with_pairs, accuracy),
        Figure::of(label("end_score"), n, move |sums: &[f64]| {
            ratio(*sums.get(k_max.checked_sub(1)?)?, sums[items_at])
        }),
        Figure::of(label("max_score"), n, move |sums: &[f64]| {
            let best = sums[..k_max].iter().copied().fold(f64::NEG_INFINITY, f64::max);
            ratio(best, sums[items_at])
        }),
        Figure::of(label("loss"), n, move |sums: &[f64]| {
            let items = sums[items_at];
            let squares: f64 =
                (0..k_max).map(|k| ((sums[k] - sums[ideal_at + k]) / items).powi(2)).sum();
            ratio(squares, k_max as f64).filter(|_| items > 0.0)
        }),
    ]
}

/// Expected correctness of the best-scored of k responses, for k = 1..=`k_max`; beyond
/// the number of responses the last value stays.
pub(super) fn curve(scores: &[f64], correct: &[f64], k_max: usize) -> Vec<f64> {
    let count = scores.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut ranked = vec![0.0; count];
    let mut start = 0;
    while start < count {
        let tied =
            order[start..].iter().take_while(|&&i| scores[i] == scores[order[start]]).count();
        let mean =
            order[start..start + tied].iter().map(|&i| correct[i]).sum::<f64>() / tied as f64;
        ranked[start..start + tied].fill(mean);
        start += tied;
    }
    // chance[r] = C(r, k − 1) / C(count, k), built up from k to k + 1.
    let mut chance: Vec<f64> = vec![1.0 / count.max(1) as f64; count];
    let mut values = Vec::with_capacity(k_max);
    for k in 1..=k_max {
        if k <= count {
            values.push(ranked.iter().zip(&chance).map(|(value, chance)| value * chance).sum());
            for (rank, chance) in chance.iter_mut().enumerate() {
                let below = rank as f64 - (k as f64 - 1.0);
                let factor =
                    below.max(0.0) / k as f64 * (k as f64 + 1.0) / (count - k).max(1) as f64;
                *chance *= factor;
            }
        } else {
            values.push(values.last().copied().unwrap_or(0.0));
        }
    }
    values
}
