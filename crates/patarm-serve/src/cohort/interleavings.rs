//! Any order of arrival gives the rewards of the offline rule.

use std::collections::HashMap;

use patarm_reward::judgement::FormatFault;
use patarm_reward::par::{ParConfig, ParScore};
use patarm_reward::random::SplitMix64;
use proptest::prelude::*;

use super::*;

fn score() -> impl Strategy<Value = ParScore> {
    prop_oneof![
        6 => (1u8..=10).prop_map(|score| ParScore::valid(f64::from(score))),
        2 => (1.0f64..10.0).prop_map(ParScore::valid),
        1 => prop::sample::select(FormatFault::ALL.to_vec()).prop_map(ParScore::fault),
        1 => (1u8..=10).prop_map(|score| ParScore {
            score: Err(FormatFault::TagOrder),
            readable: Some(f64::from(score)),
        }),
    ]
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::First), Just(Side::Second)]
}

/// A cohort's declaration and the scores of its members, slot by slot.
fn cohort() -> impl Strategy<Value = (Declaration, Vec<(usize, ParScore)>)> {
    let rule = prop::sample::select(vec![
        GroupRule::ZScore,
        GroupRule::Centred,
        GroupRule::LeaveOneOut,
        GroupRule::WinRate,
    ]);
    let pair = (side(), prop::collection::vec(score(), 1..5), prop::collection::vec(score(), 1..5))
        .prop_map(|(preferred, first, second)| {
            let expected = [first.len(), second.len()];
            let members =
                first.into_iter().map(|s| (0, s)).chain(second.into_iter().map(|s| (1, s)));
            (Declaration::Pair { preferred, expected }, members.collect())
        });
    let group = (rule, prop::collection::vec(score(), 1..6)).prop_map(|(rule, scores)| {
        let expected = scores.len();
        let members = scores.into_iter().map(|score| (0, score)).collect();
        (Declaration::Group { expected, rule }, members)
    });
    prop_oneof![3 => pair, 1 => group]
}

/// All arrivals of all cohorts, in an order drawn from the seed.
fn arrivals(cohorts: &[(Declaration, Vec<(usize, ParScore)>)], seed: u64) -> Vec<Arrival> {
    let mut all: Vec<Arrival> = Vec::new();
    for (c, (declaration, members)) in cohorts.iter().enumerate() {
        for (i, (slot, score)) in members.iter().enumerate() {
            let place = Place { declaration: *declaration, slot: *slot };
            let (cohort_id, rollout_id) = (format!("c{c}"), format!("{i:03}"));
            all.push(Arrival { cohort_id, rollout_id, place, score: *score });
        }
    }
    SplitMix64::new(seed).shuffle(&mut all);
    all
}

/// A waiter that knows which arrival it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Caller(String, String);

impl Waiter for Caller {
    fn is_gone(&self) -> bool {
        false
    }
}

fn caller(arrival: &Arrival) -> Caller {
    Caller(arrival.cohort_id.clone(), arrival.rollout_id.clone())
}

fn collect(
    answers: &mut HashMap<Caller, Vec<Result<Answer, Refusal>>>,
    deliveries: Vec<Delivery<Caller>>,
) {
    for delivery in deliveries {
        answers.entry(delivery.waiter).or_default().push(delivery.result);
    }
}

proptest! {
    #[test]
    fn any_interleaving_gives_the_offline_rewards(
        declared in prop::collection::vec(cohort(), 1..8),
        seed in any::<u64>(),
        repeats in prop::collection::vec(any::<[prop::sample::Index; 2]>(), 0..6),
    ) {
        let mut order = arrivals(&declared, seed);
        for [from, to] in repeats {
            let again = order[from.index(order.len())].clone();
            order.insert(to.index(order.len()), again);
        }
        let mut cohorts = Cohorts::new(CohortConfig::default());
        let mut answers = HashMap::new();
        let mut asked: HashMap<Caller, usize> = HashMap::new();
        for (now, arrival) in order.iter().enumerate() {
            *asked.entry(caller(arrival)).or_default() += 1;
            collect(&mut answers, cohorts.arrive(arrival, caller(arrival), now as u64));
        }
        for (c, (declaration, members)) in declared.iter().enumerate() {
            let offline = rewards(declaration, members, &ParConfig::default());
            for (i, expected) in offline.iter().enumerate() {
                let caller = Caller(format!("c{c}"), format!("{i:03}"));
                let got = &answers[&caller];
                prop_assert_eq!(got.len(), asked[&caller]);
                prop_assert!(got.iter().all(|one| one.as_ref() == Ok(expected)));
            }
        }
        prop_assert_eq!(cohorts.counts().open, 0);
        prop_assert_eq!(cohorts.counts().refused, 0);
    }

    #[test]
    fn nobody_waits_for_ever_and_nobody_is_told_twice(
        declared in prop::collection::vec(cohort(), 1..6),
        seed in any::<u64>(),
        missing in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        cancelled in any::<prop::sample::Index>(),
        step_ms in 0u64..40,
        partial in any::<bool>(),
    ) {
        let mut order = arrivals(&declared, seed);
        for index in missing {
            let i = index.index(order.len());
            order.remove(i);
            if order.is_empty() {
                return Ok(());
            }
        }
        let on_timeout = if partial { OnTimeout::Partial } else { OnTimeout::Fail };
        let config =
            CohortConfig { timeout_ms: 100, retain_ms: 50, on_timeout, ..CohortConfig::default() };
        let mut cohorts = Cohorts::new(config);
        let mut answers = HashMap::new();
        let cancel_at = cancelled.index(order.len());
        for (i, arrival) in order.iter().enumerate() {
            let now = i as u64 * step_ms;
            collect(&mut answers, cohorts.arrive(arrival, caller(arrival), now));
            if i == cancel_at {
                collect(&mut answers, cohorts.cancel(&arrival.cohort_id, now).1);
            }
        }
        collect(&mut answers, cohorts.expire(u64::MAX));
        for arrival in &order {
            prop_assert_eq!(answers.get(&caller(arrival)).map(Vec::len), Some(1));
        }
        let counts = cohorts.counts();
        prop_assert_eq!(counts.open, 0);
        prop_assert_eq!(counts.opened, counts.completed + counts.timed_out + counts.cancelled);
        prop_assert_eq!(counts.rollouts_held, 0);
        prop_assert_eq!(cohorts.next_due_ms(), None);
    }
}

/// One member in a hundred never arrives: its cohort times out, all others complete.
#[test]
fn a_thousand_simultaneous_cohorts_with_one_percent_missing() {
    let mut declared = Vec::new();
    for c in 0..1_000_u32 {
        let score = |i: u32| ParScore::valid(f64::from(1 + (c * 7 + i * 3) % 10));
        let members = (0..8).map(|i| ((i / 4) as usize, score(i))).collect();
        declared.push((Declaration::Pair { preferred: Side::First, expected: [4, 4] }, members));
    }
    let order = arrivals(&declared, 7);
    let mut cohorts = Cohorts::new(CohortConfig::default());
    let mut answers = HashMap::new();
    let mut missing = 0_u64;
    let mut incomplete = std::collections::HashSet::new();
    for (i, arrival) in order.iter().enumerate() {
        if i % 100 == 99 {
            missing += 1;
            incomplete.insert(arrival.cohort_id.clone());
            continue;
        }
        collect(&mut answers, cohorts.arrive(arrival, caller(arrival), 0));
    }
    assert_eq!(missing, 80);
    let counts = cohorts.counts();
    assert_eq!(counts.open as usize, incomplete.len());
    assert_eq!(counts.completed as usize, 1_000 - incomplete.len());
    collect(&mut answers, cohorts.expire(600_000));
    assert_eq!(answers.len(), 8_000 - 80);
    for (c, (declaration, members)) in declared.iter().enumerate() {
        let cohort_id = format!("c{c}");
        let offline = rewards(declaration, members, &ParConfig::default());
        for (i, expected) in offline.iter().enumerate() {
            let caller = Caller(cohort_id.clone(), format!("{i:03}"));
            match answers.get(&caller).map(Vec::as_slice) {
                Some([Ok(answer)]) => assert_eq!(answer, expected),
                Some([Err(Refusal::TimedOut { .. })]) => assert!(incomplete.contains(&cohort_id)),
                None => assert!(incomplete.contains(&cohort_id)),
                other => panic!("{caller:?}: {other:?}"),
            }
        }
    }
}
