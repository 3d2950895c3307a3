//! From scores of steps to one number, and from numbers to choices.

use patarm_models::files::StepAggregation;

use crate::advantage::{AdvantageConfig, GroupAdvantages, group_advantages};

/// The scores of a solution as one; 0 for a solution without steps.
#[must_use]
pub fn aggregate(steps: &[f64], how: StepAggregation) -> f64 {
    if steps.is_empty() {
        return 0.0;
    }
    match how {
        StepAggregation::Mean => steps.iter().sum::<f64>() / steps.len() as f64,
        StepAggregation::Minimum => steps.iter().copied().fold(f64::INFINITY, f64::min),
        StepAggregation::Last => steps.last().copied().unwrap_or_default(),
        StepAggregation::Product => steps.iter().product(),
    }
}

/// r̂ = aggregate of the steps + α · score of the trajectory, with α as given and a
/// trajectory without a score counting nothing. Source: ReasonFlux-PRM (arXiv
/// 2506.18896), offline selection, where the aggregate is the mean.
#[must_use]
pub fn trajectory_score(
    steps: &[f64],
    how: StepAggregation,
    (trajectory, alpha): (Option<f64>, f64),
) -> f64 {
    aggregate(steps, how) + trajectory.map_or(0.0, |score| alpha * score)
}

/// The best of several scores, of equals the first; scores that are no number never win.
#[must_use]
pub fn best_of(scores: &[f64]) -> Option<usize> {
    let known = scores.iter().enumerate().filter(|(_, score)| !score.is_nan());
    known.fold(None, |best: Option<usize>, (place, score)| match best {
        Some(best) if scores[best] >= *score => Some(best),
        _ => Some(place),
    })
}

/// The `count` best of several scores, best first, of equals the earlier one.
#[must_use]
pub fn select_top(scores: &[f64], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).filter(|&i| !scores[i].is_nan()).collect();
    // The sort is stable.
    places.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    places.truncate(count);
    places
}

/// Share of prompts whose best-scored response is right; `None` for no prompt. Each
/// prompt is its responses' scores and whether they are right. A prompt without a usable
/// score counts as wrong.
#[must_use]
pub fn best_of_n(prompts: &[(Vec<f64>, Vec<bool>)]) -> Option<f64> {
    let right = |(scores, is_right): &&(Vec<f64>, Vec<bool>)| {
        best_of(scores).is_some_and(|best| is_right.get(best).copied().unwrap_or(false))
    };
    let count = prompts.iter().filter(right).count();
    (!prompts.is_empty()).then(|| count as f64 / prompts.len() as f64)
}

/// r_new = (1 − β) · outcome + β · process. Source: ReasonFlux-PRM.
#[must_use]
pub fn mix_rewards(outcome: &[f64], process: &[f64], beta: f64) -> Vec<f64> {
    outcome.iter().zip(process).map(|(out, own)| (1.0 - beta) * out + beta * own).collect()
}

/// Advantages of a group of responses by the mixed reward. At β = 0 they are those of
/// the outcome alone and at β = 1 those of the process alone, to the last bit.
#[must_use]
pub fn mixed_advantages(
    outcome: &[f64],
    process: &[f64],
    beta: f64,
    config: &AdvantageConfig,
) -> GroupAdvantages {
    let rewards = mix_rewards(outcome, process, beta);
    group_advantages(&rewards, &vec![true; rewards.len()], config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use patarm_models::kernels::random::uniform;

    #[test]
    fn alpha_zero_ranks_by_the_mean_step() {
        let (steps, how) = ([0.9, 0.3], StepAggregation::Mean);
        assert!((trajectory_score(&steps, how, (Some(1.0), 0.0)) - 0.6).abs() < 1e-12);
        assert!((trajectory_score(&steps, how, (Some(0.5), 0.8)) - 1.0).abs() < 1e-12);
        assert!((trajectory_score(&steps, how, (None, 0.8)) - 0.6).abs() < 1e-12);
        let of = |how| aggregate(&steps, how);
        assert!((of(StepAggregation::Product) - 0.27).abs() < 1e-12);
        assert_eq!((of(StepAggregation::Minimum), of(StepAggregation::Last)), (0.3, 0.3));
        assert_eq!(aggregate(&[], StepAggregation::Minimum), 0.0);
    }

    #[test]
    fn beta_chooses_between_outcome_and_process() {
        let (outcome, process) = ([1.0, 0.0, 0.0, 1.0], [0.3, 0.9, 0.1, 0.2]);
        let config = AdvantageConfig::default();
        let alone = |rewards: &[f64]| group_advantages(rewards, &[true; 4], &config);
        assert_eq!(mixed_advantages(&outcome, &process, 0.0, &config), alone(&outcome));
        assert_eq!(mixed_advantages(&outcome, &process, 1.0, &config), alone(&process));
        // The shipped mix: three quarters process, one quarter rule.
        assert!((mix_rewards(&outcome, &process, 0.75)[0] - 0.475).abs() < 1e-12);
    }

    #[test]
    fn the_best_are_chosen_and_no_number_never_wins() {
        assert_eq!(best_of(&[f64::NAN, 0.2, 0.7, 0.7]), Some(2));
        assert_eq!(best_of(&[f64::NAN]), None);
        assert_eq!(best_of(&[]), None);
        assert_eq!(select_top(&[0.1, 0.9, f64::NAN, 0.9, 0.5], 3), [1, 3, 4]);
        assert_eq!(best_of_n(&[]), None);
        assert_eq!(best_of_n(&[(vec![f64::NAN], vec![true]), (vec![1.0], vec![true])]), Some(0.5));
    }

    /// Best-of-N with an oracle is right unless all are wrong, with a coin as often as one.
    #[test]
    fn best_of_n_lies_between_a_coin_and_an_oracle() {
        let (n, p, prompts) = (4, 0.3, 4000);
        let draw = |stream: u64, prompt: usize, place: usize| {
            uniform(7, &[stream, prompt as u64, place as u64])
        };
        let groups = |score: &dyn Fn(usize, usize, bool) -> f64| {
            let group = |prompt: usize| {
                let is_right: Vec<bool> = (0..n).map(|place| draw(0, prompt, place) < p).collect();
                let each = is_right.iter().enumerate();
                (each.map(|(place, right)| score(prompt, place, *right)).collect(), is_right)
            };
            (0..prompts).map(group).collect::<Vec<(Vec<f64>, Vec<bool>)>>()
        };
        let oracle = best_of_n(&groups(&|_, _, right| f64::from(u8::from(right)))).unwrap();
        let coin = best_of_n(&groups(&|prompt, place, _| draw(1, prompt, place))).unwrap();
        let expected = 1.0 - (1.0_f64 - p).powi(n as i32);
        assert!((oracle - expected).abs() < 0.025, "{oracle} and {expected}");
        assert!((coin - p).abs() < 0.025, "{coin} and {p}");
    }
}
