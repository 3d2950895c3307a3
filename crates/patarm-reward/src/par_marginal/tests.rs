//! Hand-computed values, and the relation to the sampled rule.

use proptest::prelude::*;

use super::*;
use crate::par::{Grade, ParScore, par};

const GRID: [f64; 9] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];

fn read(pairs: &[(usize, f64)]) -> MarginalRollout {
    let mut probabilities = vec![0.0; GRID.len()];
    for &(score, p) in pairs {
        probabilities[score - 1] = p;
    }
    MarginalRollout::Read { probabilities, fault: None }
}

fn close(actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 1e-9, "{actual} against {expected}");
}

fn exact() -> MarginalConfig {
    MarginalConfig { eps: 0.0, ..MarginalConfig::default() }
}

/// Both sides at 7: ū = ½, so that a score s earns −½ k (s − 5) / 4 more, on both sides.
#[test]
fn a_pair_at_one_end_is_drawn_to_the_middle() {
    let (chosen, rejected) = ([read(&[(8, 1.0)])], [read(&[(6, 1.0)])]);
    let rewards = |center_coefficient| {
        let config = MarginalConfig { center_coefficient, ..exact() };
        let outcome = par_marginal(&GRID, &chosen, &rejected, &config).unwrap();
        [outcome.chosen.score_rewards, outcome.rejected.score_rewards]
    };
    let (plain, centred) = (rewards(0.0), rewards(0.8));
    for (plain, centred) in plain.iter().zip(&centred) {
        for (n, score) in GRID.iter().enumerate() {
            close(centred[n] - plain[n], -0.5 * 0.8 * (score - 5.0) / 4.0);
        }
    }
    // In the middle there is nothing to draw, and a scale of one score has no middle.
    let (chosen, rejected) = ([read(&[(9, 1.0)])], [read(&[(1, 1.0)])]);
    let config = MarginalConfig { center_coefficient: 0.8, ..exact() };
    let outcome = par_marginal(&GRID, &chosen, &rejected, &config).unwrap();
    assert_eq!(outcome.chosen.score_rewards[8], 1.4);
    let alone = [MarginalRollout::Read { probabilities: vec![1.0], fault: None }];
    let outcome = par_marginal(&[3.0], &alone, &alone, &config).unwrap();
    assert_eq!(outcome.chosen.score_rewards, [0.0]);
}

/// Chosen: (8: ½, 4: ½) and 6 with certainty; rejected: 5 with certainty and
/// (3: ¼, 7: ½, ⊥: ¼). Then e = 6, 6 | 5, 17/3; s̄ = 6 | 16/3.
/// R chosen: f(8 − 16/3) = 1.4, f(4 − 16/3) = 0, f(6 − 16/3) = 1.2.
/// R rejected: f(6 − 5) = 1.2, f(6 − 3) = 1.4, f(6 − 7) = 0.
#[test]
fn values_by_hand() {
    let chosen = [read(&[(8, 0.5), (4, 0.5)]), read(&[(6, 1.0)])];
    let rejected = [read(&[(5, 1.0)]), read(&[(3, 0.25), (7, 0.5)])];
    let outcome = par_marginal(&GRID, &chosen, &rejected, &exact()).unwrap();
    close(outcome.chosen.mean.unwrap(), 6.0);
    close(outcome.rejected.mean.unwrap(), 16.0 / 3.0);
    assert_eq!(outcome.chosen.score_rewards, [0.0, 0.0, 0.0, 0.0, 0.0, 1.2, 1.2, 1.4, 1.4]);
    assert_eq!(outcome.rejected.score_rewards, [1.4, 1.4, 1.4, 1.2, 1.2, 0.0, 0.0, 0.0, 0.0]);

    // J chosen = 0.7, 1.2; J̄ = 0.95; σ² = ½(½·0.45² + ½·0.95² + 0.25²) = 0.3075.
    let c = &outcome.chosen;
    close(c.rollouts[0].expected_reward, 0.7);
    close(c.rollouts[1].expected_reward, 1.2);
    close(c.expected_reward.unwrap(), 0.95);
    close(c.sigma * c.sigma, 0.3075);
    close(c.rollouts[0].prefix_advantage, -0.25 / c.sigma);
    close(c.rollouts[0].score_advantages[7], 0.7 / c.sigma);
    close(c.rollouts[0].score_advantages[3], -0.7 / c.sigma);
    close(c.rollouts[0].invalid_advantage, -1.7 / c.sigma);
    close(c.rollouts[0].score_coefficients[7], 0.5 * 2.4 / c.sigma);

    // J rejected = 1.2, ¼·1.4 + ½·0 + ¼·(−1) = 0.1; J̄ = 0.65.
    let r = &outcome.rejected;
    close(r.rollouts[1].invalid_mass, 0.25);
    close(r.rollouts[1].expected_score.unwrap(), 17.0 / 3.0);
    close(r.rollouts[1].expected_reward, 0.1);
    close(r.expected_reward.unwrap(), 0.65);
    let within = 0.25 * 0.75f64.powi(2) + 0.5 * 0.65f64.powi(2) + 0.25 * 1.65f64.powi(2);
    close(r.sigma.powi(2), 0.5 * (0.55f64.powi(2) + within));
}

#[test]
fn without_normalisation_advantages_are_centred_rewards() {
    let chosen = [read(&[(8, 0.5), (4, 0.5)]), read(&[(6, 1.0)])];
    let config = MarginalConfig { std_normalise: false, ..MarginalConfig::default() };
    let outcome = par_marginal(&GRID, &chosen, &[read(&[(5, 1.0)])], &config).unwrap();
    close(outcome.chosen.rollouts[0].prefix_advantage, -0.25);
    close(outcome.chosen.rollouts[1].prefix_advantage, 0.25);
    close(outcome.chosen.rollouts[0].score_advantages[7], 0.7);
}

#[test]
fn broken_judgements_enter_with_their_penalty() {
    let chosen = [read(&[(8, 1.0)]), MarginalRollout::Broken(FormatFault::MissingTag)];
    let rejected = [read(&[(5, 1.0)])];
    let outcome = par_marginal(&GRID, &chosen, &rejected, &exact()).unwrap();
    let side = &outcome.chosen;
    close(side.mean.unwrap(), 8.0);
    close(side.rollouts[1].expected_reward, -1.5);
    close(side.expected_reward.unwrap(), -0.05);
    close(side.sigma, 1.45);
    close(side.rollouts[0].prefix_advantage, 1.0);
    close(side.rollouts[1].prefix_advantage, -1.0);
    assert!(side.rollouts[1].score_advantages.is_empty());
    close(side.rollouts[0].suffix_advantage, 0.75 / 1.45);
    close(side.rollouts[1].suffix_advantage, -0.75 / 1.45);
}

#[test]
fn the_sampled_ending_moves_only_the_tokens_after_the_score() {
    let with = |fault| {
        let MarginalRollout::Read { probabilities, .. } = read(&[(8, 0.9)]) else { unreachable!() };
        let chosen = [MarginalRollout::Read { probabilities, fault }, read(&[(6, 1.0)])];
        par_marginal(&GRID, &chosen, &[read(&[(5, 1.0)])], &exact()).unwrap().chosen
    };
    let (fine, bad) = (with(None), with(Some(FormatFault::ScoreAbsent)));
    close(fine.rollouts[0].prefix_advantage, bad.rollouts[0].prefix_advantage);
    assert_eq!(fine.rollouts[0].score_advantages, bad.rollouts[0].score_advantages);
    close(fine.rollouts[0].suffix_advantage, 0.0);
    assert!(bad.rollouts[0].suffix_advantage < 0.0 && bad.rollouts[1].suffix_advantage > 0.0);
}

#[test]
fn empty_sides_follow_the_policy() {
    let chosen = [read(&[(8, 0.5), (2, 0.5)]), read(&[(3, 0.8)])];
    let rejected = [MarginalRollout::Broken(FormatFault::TagOrder), read(&[])];
    let with = |on_empty_side| {
        let par = ParConfig { on_empty_side, ..ParConfig::default() };
        par_marginal(&GRID, &chosen, &rejected, &MarginalConfig { par, ..exact() }).unwrap()
    };
    let zero = with(OnEmptySide::Zero);
    assert!(zero.empty_side && zero.rejected.mean.is_none());
    assert_eq!(zero.chosen.score_rewards, [0.0; 9]);
    close(zero.chosen.rollouts[0].expected_reward, 0.0);
    close(zero.chosen.rollouts[1].expected_reward, -0.2);
    close(zero.rejected.rollouts[1].expected_reward, -1.0);
    let failed = with(OnEmptySide::FailPair);
    assert_eq!(failed.chosen.score_rewards, [-1.0; 9]);
    let dropped = with(OnEmptySide::DropPair);
    assert_eq!((dropped.chosen.mask, dropped.rejected.mask), (vec![false; 2], vec![false; 2]));
    let none = par_marginal(&GRID, &[], &[], &exact()).unwrap();
    assert!(none.empty_side && none.chosen.expected_reward.is_none());
}

#[test]
fn a_group_without_contrast_has_zero_advantages() {
    let outcome = par_marginal(
        &GRID,
        &[read(&[(9, 1.0)]), read(&[(9, 1.0)])],
        &[read(&[(1, 1.0)])],
        &exact(),
    )
    .unwrap();
    for rollout in &outcome.chosen.rollouts {
        assert_eq!(rollout.prefix_advantage, 0.0);
        assert!(rollout.score_advantages.iter().all(|&a| a == 0.0));
        assert_eq!(rollout.invalid_advantage, 0.0);
    }
}

#[test]
fn ties_survive_the_rounding_of_expectations() {
    // Both means are 5 on paper; thirds and tenths miss it in floating point.
    let third = 1.0 / 3.0;
    let rejected = [read(&[(2, third), (4, third), (9, third)])];
    let chosen = [read(&[(5, 0.1), (4, 0.45), (6, 0.45)])];
    let outcome = par_marginal(&GRID, &chosen, &rejected, &exact()).unwrap();
    assert_eq!(outcome.chosen.score_rewards[4], 0.0, "5 against a mean of 5");
    assert_eq!(outcome.chosen.score_rewards[6], 1.2, "7 is exactly the threshold above 5");
    assert_eq!(outcome.rejected.score_rewards[4], 0.0);
    assert_eq!(outcome.rejected.score_rewards[2], 1.2);
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    let fine = [read(&[(5, 1.0)])];
    let rollout = |probabilities| [MarginalRollout::Read { probabilities, fault: None }];
    for bad in [vec![1.0], vec![-0.1; 9], vec![0.2; 9], vec![f64::NAN; 9]] {
        assert!(par_marginal(&GRID, &rollout(bad), &fine, &exact()).is_err());
    }
    for grid in [vec![], vec![2.0, 1.0], vec![1.0, f64::NAN]] {
        let n = grid.len();
        assert!(par_marginal(&grid, &rollout(vec![0.0; n]), &[], &exact()).is_err());
    }
    let mut rounding = vec![0.0; 9];
    (rounding[0], rounding[1]) = (0.5, 0.500_000_1);
    assert!(par_marginal(&GRID, &rollout(rounding), &fine, &exact()).is_ok());
}

/// The derivative of J by the logits of all outcomes, by differences, is what the
/// coefficients give through the softmax.
#[test]
fn coefficients_are_the_gradient_of_the_expected_reward() {
    let logits = [0.3, -0.2, 0.1, 0.9, -1.0, 0.4, 0.0, 0.5, -0.3, -0.6];
    let softmax = |logits: &[f64]| {
        let total: f64 = logits.iter().map(|z| z.exp()).sum();
        logits.iter().map(|z| z.exp() / total).collect::<Vec<_>>()
    };
    let config = MarginalConfig { std_normalise: false, ..MarginalConfig::default() };
    let rewards = |logits: &[f64]| {
        let probabilities = softmax(logits)[..9].to_vec();
        let chosen = [MarginalRollout::Read { probabilities, fault: None }];
        par_marginal(&GRID, &chosen, &[read(&[(5, 1.0)])], &config).unwrap().chosen
    };
    let side = rewards(&logits);
    let p = softmax(&logits);
    for k in 0..logits.len() {
        let analytic: f64 = (0..9)
            .map(|s| {
                let indicator = if s == k { 1.0 } else { 0.0 };
                side.rollouts[0].score_coefficients[s] * (indicator - p[k])
            })
            .sum();
        let at = |step: f64| {
            let mut moved = logits;
            moved[k] += step;
            rewards(&moved).rollouts[0].expected_reward
        };
        let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((analytic - numeric).abs() < 1e-7, "{k}: {analytic} against {numeric}");
    }
}

fn distribution() -> impl Strategy<Value = MarginalRollout> {
    prop::collection::vec(0.0f64..1.0, 10).prop_map(|weights| {
        let total: f64 = weights.iter().sum::<f64>().max(1e-9);
        let probabilities = weights[..9].iter().map(|w| w / total).collect();
        MarginalRollout::Read { probabilities, fault: None }
    })
}

fn rollouts() -> impl Strategy<Value = Vec<MarginalRollout>> {
    let any = prop_oneof![
        6 => distribution(),
        1 => Just(MarginalRollout::Broken(FormatFault::MissingTag)),
    ];
    prop::collection::vec(any, 1..5)
}

fn reversed(rollouts: &[MarginalRollout]) -> Vec<MarginalRollout> {
    let mut all = rollouts.to_vec();
    for rollout in &mut all {
        if let MarginalRollout::Read { probabilities, .. } = rollout {
            probabilities.reverse();
        }
    }
    all
}

proptest! {
    /// Given the text before the score, the sampled rule's expected reward is J.
    #[test]
    fn expectation_of_the_sampled_rule(
        rollout in distribution(),
        others in prop::collection::vec(1usize..=9, 1..5),
        constant in any::<bool>(),
    ) {
        let f = if constant { Grade::constant() } else { Grade::default() };
        let par_config = ParConfig { f, ..ParConfig::default() };
        let config = MarginalConfig { par: par_config, ..MarginalConfig::default() };
        let certain: Vec<_> = others.iter().map(|&s| read(&[(s, 1.0)])).collect();
        let drawn: Vec<_> = others.iter().map(|&s| ParScore::valid(s as f64)).collect();
        let MarginalRollout::Read { probabilities, .. } = &rollout else { unreachable!() };
        let invalid = 1.0 - probabilities.iter().sum::<f64>();

        let marginal = par_marginal(&GRID, std::slice::from_ref(&rollout), &certain, &config).unwrap();
        let mut sampled = invalid * par_config.format_bad_score;
        for (p, &score) in probabilities.iter().zip(&GRID) {
            let outcome = par(&[ParScore::valid(score)], &drawn, &par_config);
            sampled += p * outcome.chosen.rewards[0].total;
        }
        prop_assert!((marginal.chosen.rollouts[0].expected_reward - sampled).abs() < 1e-9);
    }

    #[test]
    fn translation(c in rollouts(), r in rollouts(), k in -5i32..50) {
        let config = MarginalConfig::default();
        let shifted = GRID.map(|s| s + f64::from(k));
        let a = par_marginal(&GRID, &c, &r, &config).unwrap();
        let b = par_marginal(&shifted, &c, &r, &config).unwrap();
        prop_assert_eq!(a.chosen.score_rewards, b.chosen.score_rewards);
        prop_assert_eq!(a.rejected.score_rewards, b.rejected.score_rewards);
    }

    #[test]
    fn reflection_swap(c in rollouts(), r in rollouts()) {
        let config = MarginalConfig::default();
        let a = par_marginal(&GRID, &c, &r, &config).unwrap();
        let b = par_marginal(&GRID, &reversed(&r), &reversed(&c), &config).unwrap();
        let mut rewards = b.rejected.score_rewards;
        rewards.reverse();
        prop_assert_eq!(&a.chosen.score_rewards, &rewards);
        for (one, other) in a.chosen.rollouts.iter().zip(&b.rejected.rollouts) {
            prop_assert!((one.prefix_advantage - other.prefix_advantage).abs() < 1e-9);
        }
    }

    /// Prefix advantages sum to zero in each group, outcome advantages to zero in
    /// expectation in each rollout, and σ² is their total variance.
    #[test]
    fn advantages_are_centred_and_scaled(c in rollouts(), r in rollouts()) {
        let outcome = par_marginal(&GRID, &c, &r, &exact()).unwrap();
        for (side, given) in [(&outcome.chosen, &c), (&outcome.rejected, &r)] {
            let prefix: f64 = side.rollouts.iter().map(|r| r.prefix_advantage).sum();
            prop_assert!(prefix.abs() < 1e-8);
            let mut variance = 0.0;
            for (reward, rollout) in side.rollouts.iter().zip(given) {
                let mut spread = reward.prefix_advantage.powi(2);
                if let MarginalRollout::Read { probabilities, .. } = rollout {
                    let outcomes = || probabilities.iter().zip(&reward.score_advantages);
                    let mean: f64 = outcomes().map(|(p, a)| p * a).sum();
                    prop_assert!((mean + reward.invalid_mass * reward.invalid_advantage).abs() < 1e-8);
                    spread += outcomes().map(|(p, a)| p * a * a).sum::<f64>()
                        + reward.invalid_mass * reward.invalid_advantage.powi(2);
                }
                variance += spread / side.rollouts.len() as f64;
            }
            prop_assert!(side.sigma < 1e-9 || (variance - 1.0).abs() < 1e-6, "{}", variance);
        }
    }
}
