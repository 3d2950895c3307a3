//! Golden values of section 11 and properties of section 12 of the method notes.

use proptest::prelude::*;

use super::*;
use crate::advantage::{AdvantageConfig, EpsPlace, group_advantages};

const BAD: i32 = 0;

/// Scores with 0 standing for "tags intact, score bad".
fn scores(values: &[i32]) -> Vec<ParScore> {
    values
        .iter()
        .map(|&value| match value {
            BAD => ParScore::fault(FormatFault::ScoreOutOfRange),
            score => ParScore::valid(f64::from(score)),
        })
        .collect()
}

struct Golden {
    chosen: &'static [i32],
    rejected: &'static [i32],
    means: (Option<f64>, Option<f64>),
    rewards: (&'static [f64], &'static [f64]),
    z: (&'static [f64], &'static [f64]),
}

const S: f64 = std::f64::consts::FRAC_1_SQRT_2;

const GOLDENS: [Golden; 7] = [
    Golden {
        chosen: &[8, 6],
        rejected: &[5, 7],
        means: (Some(7.0), Some(6.0)),
        rewards: (&[1.2, 0.0], &[1.2, 0.0]),
        z: (&[S, -S], &[S, -S]),
    },
    Golden {
        chosen: &[9, 8, 6, BAD],
        rejected: &[5, 7, 3, 4],
        means: (Some(23.0 / 3.0), Some(4.75)),
        rewards: (&[1.4, 1.4, 1.2, -1.0], &[1.4, 1.2, 1.4, 1.4]),
        z: (&[0.5553, 0.5553, 0.3845, -1.4951], &[0.5, -1.5, 0.5, 0.5]),
    },
    Golden {
        chosen: &[5, 5],
        rejected: &[5, 5],
        means: (Some(5.0), Some(5.0)),
        rewards: (&[0.0, 0.0], &[0.0, 0.0]),
        z: (&[0.0, 0.0], &[0.0, 0.0]),
    },
    Golden {
        chosen: &[3, 4],
        rejected: &[7, 8],
        means: (Some(3.5), Some(7.5)),
        rewards: (&[0.0, 0.0], &[0.0, 0.0]),
        z: (&[0.0, 0.0], &[0.0, 0.0]),
    },
    Golden {
        chosen: &[10, 10],
        rejected: &[1, 1],
        means: (Some(10.0), Some(1.0)),
        rewards: (&[1.4, 1.4], &[1.4, 1.4]),
        z: (&[0.0, 0.0], &[0.0, 0.0]),
    },
    Golden {
        chosen: &[9, 7, 5, 4],
        rejected: &[6, 6, 3, BAD],
        means: (Some(6.25), Some(5.0)),
        rewards: (&[1.4, 1.2, 0.0, 0.0], &[1.2, 1.2, 1.4, -1.0]),
        z: (&[0.9934, 0.7285, -0.8609, -0.8609], &[0.4397, 0.4397, 0.6155, -1.4948]),
    },
    Golden {
        chosen: &[8, 5, BAD, 9],
        rejected: &[BAD, BAD, BAD, BAD],
        means: (Some(22.0 / 3.0), None),
        rewards: (&[0.0, 0.0, -1.0, 0.0], &[-1.0, -1.0, -1.0, -1.0]),
        z: (&[0.5, 0.5, -1.5, 0.5], &[0.0, 0.0, 0.0, 0.0]),
    },
];

fn assert_close(actual: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (a, e) in actual.iter().zip(expected) {
        assert!((a - e).abs() <= tolerance, "{what}: {actual:?} against {expected:?}");
    }
}

#[test]
fn golden_examples() {
    let z_score =
        AdvantageConfig { std_normalise: true, ddof: 1, eps: 0.0, eps_place: EpsPlace::Outside };
    for (number, golden) in (1..).zip(&GOLDENS) {
        let outcome = par(&scores(golden.chosen), &scores(golden.rejected), &ParConfig::default());
        for (side, mean, rewards, z, name) in [
            (&outcome.chosen, golden.means.0, golden.rewards.0, golden.z.0, "chosen"),
            (&outcome.rejected, golden.means.1, golden.rewards.1, golden.z.1, "rejected"),
        ] {
            let what = format!("example {number}, {name}");
            assert_eq!(side.mean.is_some(), mean.is_some(), "{what}");
            assert_close(&[side.mean.unwrap_or(0.0)], &[mean.unwrap_or(0.0)], 1e-12, &what);
            assert_close(&side.totals(), rewards, 1e-12, &what);
            let advantages = group_advantages(&side.totals(), &side.mask, &z_score);
            assert_close(&advantages.values, z, 5e-5, &what);
        }
        assert_eq!(outcome.empty_side, number == 7);
    }
}

#[test]
fn golden_examples_with_constant_f() {
    let config = ParConfig { f: Grade::constant(), ..ParConfig::default() };
    let first = par(&scores(&[8, 6]), &scores(&[5, 7]), &config);
    assert_eq!(first.chosen.totals(), [1.3, 0.0]);
    assert_eq!(first.rejected.totals(), [1.3, 0.0]);
    let second = par(&scores(&[9, 8, 6, BAD]), &scores(&[5, 7, 3, 4]), &config);
    assert_eq!(second.chosen.totals(), [1.3, 1.3, 1.3, -1.0]);
    assert_eq!(second.rejected.totals(), [1.3; 4]);
}

#[test]
fn broken_tags_score_used_or_ignored() {
    let broken = ParScore { score: Err(FormatFault::TagOrder), readable: Some(9.0) };
    let chosen = [broken, ParScore::valid(4.0)];
    let rejected = scores(&[5]);
    let ignore = par(&chosen, &rejected, &ParConfig::default());
    assert_eq!(ignore.chosen.totals(), [-1.5, 0.0]);
    assert_eq!(ignore.chosen.mean, Some(4.0));
    assert_eq!(ignore.rejected.totals(), [0.0]);
    let config = ParConfig { broken_tags_score: BrokenTagsScore::Use, ..ParConfig::default() };
    let used = par(&chosen, &rejected, &config);
    assert_close(&used.chosen.totals(), &[1.4 - 1.5, 0.0], 1e-12, "use");
    assert_eq!(used.chosen.mean, Some(6.5));
    assert_eq!(used.rejected.totals(), [1.2]);
    let replace = ParConfig { format_combine: FormatCombine::Replace, ..config };
    assert_eq!(par(&chosen, &rejected, &replace).chosen.totals(), [-1.5, 0.0]);
}

#[test]
fn a_bad_score_is_never_used_even_when_readable() {
    let config = ParConfig { broken_tags_score: BrokenTagsScore::Use, ..ParConfig::default() };
    let out_of_range = ParScore { score: Err(FormatFault::ScoreOutOfRange), readable: Some(11.0) };
    let outcome = par(&[out_of_range], &scores(&[5]), &config);
    assert!(outcome.empty_side);
    assert_eq!(outcome.chosen.totals(), [-1.0]);
}

#[test]
fn empty_side_policies() {
    let (chosen, rejected) = (scores(&[8, 5, BAD, 9]), scores(&[BAD; 4]));
    let with = |on_empty_side| {
        par(&chosen, &rejected, &ParConfig { on_empty_side, ..ParConfig::default() })
    };
    let failed = with(OnEmptySide::FailPair);
    assert_eq!(failed.chosen.totals(), [-1.0; 4]);
    assert_eq!(failed.rejected.totals(), [-1.0; 4]);
    assert_eq!(failed.chosen.mask, [true; 4]);
    let dropped = with(OnEmptySide::DropPair);
    assert_eq!(dropped.chosen.mask, [false; 4]);
    assert_eq!(dropped.rejected.mask, [false; 4]);
    assert!(dropped.empty_side && with(OnEmptySide::Zero).empty_side);
    let none = par(&[], &[], &ParConfig::default());
    assert!(none.empty_side && none.margin().is_none());
}

#[test]
fn configuration_reads_and_refuses() {
    let config: ParConfig =
        toml::from_str("on_empty_side = \"drop_pair\"\n[f.graded]\nthreshold = 1.0\n").unwrap();
    assert_eq!(config.f, Grade::Graded { threshold: 1.0, low: 1.2, high: 1.4 });
    assert!(config.validate().is_ok());
    assert!(toml::from_str::<ParConfig>("formatt = 1").is_err());
    assert!(toml::from_str::<ParConfig>("[f.graded]\nlimit = 1").is_err());
    let text = toml::to_string(&ParConfig::default()).unwrap();
    assert_eq!(toml::from_str::<ParConfig>(&text).unwrap(), ParConfig::default());
    let bad = ParConfig { format_bad_score: f64::NAN, ..config };
    assert!(bad.validate().unwrap_err().to_string().starts_with("format_bad_score = NaN"));
    let inverted = Grade::Graded { threshold: 2.0, low: 1.4, high: 1.2 };
    assert!(ParConfig { f: inverted, ..config }.validate().is_err());
}

#[test]
fn both_rows_of_a_pair_must_be_rewarded_as_two_groups() {
    let outcome = par(&scores(&[9, 8, 6, BAD]), &scores(&[5, 7, 3, 4]), &ParConfig::default());
    let config = AdvantageConfig::default();
    let sum = |values: &[f64]| values.iter().sum::<f64>();
    let apart = group_advantages(&outcome.chosen.totals(), &[true; 4], &config);
    assert!(sum(&apart.values).abs() < 1e-9);
    let together: Vec<f64> = [outcome.chosen.totals(), outcome.rejected.totals()].concat();
    let merged = group_advantages(&together, &[true; 8], &config);
    assert!(sum(&merged.values[..4]).abs() > 0.1, "merged groups do not sum to zero by side");
}

fn score_list() -> impl Strategy<Value = Vec<ParScore>> {
    let score = prop_oneof![
        8 => (10i32..=100).prop_map(|tenths| ParScore::valid(f64::from(tenths) / 10.0)),
        8 => (1i32..=10).prop_map(|whole| ParScore::valid(f64::from(whole))),
        1 => Just(ParScore::fault(FormatFault::MissingTag)),
        1 => Just(ParScore::fault(FormatFault::ScoreAbsent)),
    ];
    prop::collection::vec(score, 1..9)
}

fn grade() -> impl Strategy<Value = Grade> {
    prop_oneof![Just(Grade::default()), Just(Grade::constant())]
}

fn map(scores: &[ParScore], f: impl Fn(f64) -> f64) -> Vec<ParScore> {
    scores.iter().map(|score| ParScore { score: score.score.map(&f), ..*score }).collect()
}

fn pars(side: &ParSide) -> Vec<f64> {
    side.rewards.iter().map(|reward| reward.par).collect()
}

proptest! {
    #[test]
    fn translation(c in score_list(), r in score_list(), f in grade(), k in -50i32..50) {
        let config = ParConfig { f, ..ParConfig::default() };
        let shift = |s: f64| s + f64::from(k) / 10.0;
        let (a, b) = (par(&c, &r, &config), par(&map(&c, shift), &map(&r, shift), &config));
        prop_assert_eq!(a.chosen.rewards, b.chosen.rewards);
        prop_assert_eq!(a.rejected.rewards, b.rejected.rewards);
    }

    #[test]
    fn reflection_swap(c in score_list(), r in score_list(), f in grade()) {
        let config = ParConfig { f, ..ParConfig::default() };
        let reflect = |s: f64| 11.0 - s;
        let (a, b) = (par(&c, &r, &config), par(&map(&r, reflect), &map(&c, reflect), &config));
        prop_assert_eq!(a.chosen.rewards, b.rejected.rewards);
        prop_assert_eq!(a.rejected.rewards, b.chosen.rewards);
    }

    #[test]
    fn label_swap(c in score_list(), r in score_list(), f in grade()) {
        let config = ParConfig { f, ..ParConfig::default() };
        let (a, b) = (par(&c, &r, &config), par(&r, &c, &config));
        for (one, other) in pars(&a.chosen).iter().zip(pars(&b.rejected)) {
            prop_assert!(*one == 0.0 || other == 0.0);
        }
        if let Some(mean) = a.rejected.mean {
            let both = pars(&a.chosen).into_iter().zip(pars(&b.rejected));
            for (score, (one, other)) in c.iter().zip(both) {
                if let Ok(score) = score.score {
                    prop_assert_eq!((score - mean).abs() < 1e-9, one == 0.0 && other == 0.0);
                }
            }
        }
    }

    #[test]
    fn ties_earn_nothing(s in 1i32..=10, n in 1usize..6, m in 1usize..6, f in grade()) {
        let config = ParConfig { f, ..ParConfig::default() };
        let outcome = par(&scores(&vec![s; n]), &scores(&vec![s; m]), &config);
        prop_assert!(outcome.chosen.totals().iter().all(|&r| r == 0.0));
        prop_assert!(outcome.rejected.totals().iter().all(|&r| r == 0.0));
    }

    #[test]
    fn monotone_in_the_margin(c in score_list(), r in score_list(), up in 1i32..30, i in 0usize..8) {
        let config = ParConfig::default();
        let before = par(&c, &r, &config);
        let raise = f64::from(up) / 10.0;
        let mut raised = c.clone();
        let i = i % c.len();
        raised[i].score = raised[i].score.map(|s| s + raise);
        let after = par(&raised, &r, &config);
        prop_assert!(after.chosen.rewards[i].par >= before.chosen.rewards[i].par);
        for (a, b) in pars(&after.rejected).iter().zip(pars(&before.rejected)) {
            prop_assert!(*a >= b, "the chosen mean moved away from the rejected scores");
        }
    }

    #[test]
    fn range(c in score_list(), r in score_list(), f in grade()) {
        let config = ParConfig { f, ..ParConfig::default() };
        let outcome = par(&c, &r, &config);
        let allowed: &[f64] = match f {
            Grade::Graded { .. } => &[-1.5, -1.0, 0.0, 1.2, 1.4],
            Grade::Constant { .. } => &[-1.5, -1.0, 0.0, 1.3],
        };
        for reward in outcome.chosen.rewards.iter().chain(&outcome.rejected.rewards) {
            prop_assert!(allowed.contains(&reward.total), "{:?}", reward);
        }
    }

    #[test]
    fn order(c in score_list(), r in score_list(), by in 0usize..8) {
        let config = ParConfig::default();
        let before = par(&c, &r, &config);
        let mut rotated = c.clone();
        rotated.rotate_left(by % c.len());
        let after = par(&rotated, &r, &config);
        let mut expected = before.chosen.rewards;
        expected.rotate_left(by % c.len());
        prop_assert_eq!(after.chosen.rewards, expected);
        prop_assert_eq!(after.rejected.rewards, before.rejected.rewards);
    }

    #[test]
    fn isolation_of_failed_judgements(c in score_list(), r in score_list()) {
        let config = ParConfig::default();
        let mut one = c.clone();
        one.push(ParScore::fault(FormatFault::MissingTag));
        let mut other = c.clone();
        other.push(ParScore::fault(FormatFault::ScoreNotNumber));
        let (a, b) = (par(&one, &r, &config), par(&other, &r, &config));
        prop_assert_eq!(&a.chosen.rewards[..c.len()], &b.chosen.rewards[..c.len()]);
        prop_assert_eq!(a.rejected.rewards, b.rejected.rewards);
    }

    #[test]
    fn one_judgement_a_side(c in 1i32..=10, r in 1i32..=10) {
        let outcome = par(&scores(&[c]), &scores(&[r]), &ParConfig::default());
        let expected = match c - r { d if d <= 0 => 0.0, d if d <= 2 => 1.2, _ => 1.4 };
        prop_assert_eq!(outcome.chosen.totals(), [expected]);
        prop_assert_eq!(outcome.rejected.totals(), [expected]);
    }

    #[test]
    fn a_failed_side_yields_numbers(c in score_list(), n in 0usize..5) {
        for on_empty_side in [OnEmptySide::Zero, OnEmptySide::FailPair, OnEmptySide::DropPair] {
            let config = ParConfig { on_empty_side, ..ParConfig::default() };
            let outcome = par(&c, &scores(&vec![BAD; n]), &config);
            prop_assert!(outcome.empty_side);
            for reward in outcome.chosen.rewards.iter().chain(&outcome.rejected.rewards) {
                prop_assert!(reward.total.is_finite() && reward.par == 0.0);
            }
        }
    }
}
