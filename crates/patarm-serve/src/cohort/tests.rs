//! Every row of the table in the module's documentation, and the limits.

use patarm_reward::judgement::FormatFault;
use patarm_reward::par::{OnEmptySide, ParConfig, ParScore};

use super::*;

/// Waiters are numbers; the negative ones have gone away.
impl Waiter for i32 {
    fn is_gone(&self) -> bool {
        *self < 0
    }
}

fn pair(cohort: &str, rollout: &str, side: Side, score: f64) -> Arrival {
    Arrival {
        cohort_id: cohort.into(),
        rollout_id: rollout.into(),
        place: Place::in_pair(side, Side::First, [2, 2]),
        score: ParScore::valid(score),
    }
}

fn config() -> CohortConfig {
    CohortConfig { timeout_ms: 100, retain_ms: 50, ..CohortConfig::default() }
}

fn cohorts() -> Cohorts<i32> {
    Cohorts::new(config())
}

/// Waiter and reward (or code) of every delivery, by waiter.
fn told(mut deliveries: Vec<Delivery<i32>>) -> Vec<(i32, String)> {
    deliveries.sort_by_key(|delivery| delivery.waiter);
    deliveries
        .into_iter()
        .map(|delivery| {
            let text = match delivery.result {
                Ok(answer) => answer.reward.map_or("none".to_owned(), |r| format!("{r}")),
                Err(refusal) => refusal.code().to_owned(),
            };
            (delivery.waiter, text)
        })
        .collect()
}

fn expect(deliveries: Vec<Delivery<i32>>, expected: &[(i32, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(w, t)| (*w, (*t).to_owned())).collect();
    assert_eq!(told(deliveries), expected);
}

/// Golden example 1 of the method notes: chosen (8, 6), rejected (5, 7).
fn fill_but_last(cohorts: &mut Cohorts<i32>) {
    expect(cohorts.arrive(&pair("c", "a", Side::First, 8.0), 1, 0), &[]);
    expect(cohorts.arrive(&pair("c", "x", Side::Second, 5.0), 2, 1), &[]);
    expect(cohorts.arrive(&pair("c", "b", Side::First, 6.0), 3, 2), &[]);
}

#[test]
fn the_last_rollout_answers_everyone() {
    let mut cohorts = cohorts();
    fill_but_last(&mut cohorts);
    let state = cohorts.state("c").unwrap();
    assert_eq!((state.phase, state.received.as_slice()), (CohortPhase::Open, &[2, 1][..]));
    assert_eq!((state.waiting, state.remaining_ms), (3, 98));
    let last = cohorts.arrive(&pair("c", "y", Side::Second, 7.0), 4, 3);
    let answer = last.iter().find(|delivery| delivery.waiter == 1).unwrap().result.as_ref();
    let answer = answer.unwrap();
    assert_eq!((answer.own_mean, answer.other_mean), (Some(7.0), Some(6.0)));
    assert!(answer.complete && !answer.masked && !answer.empty_side);
    expect(last, &[(1, "1.2"), (2, "1.2"), (3, "0"), (4, "0")]);
    assert_eq!(cohorts.state("c").unwrap().phase, CohortPhase::Complete);
    let counts = cohorts.counts();
    assert_eq!((counts.open, counts.opened, counts.completed), (0, 1, 1));
}

#[test]
fn the_preferred_side_decides_which_is_chosen() {
    let mut cohorts = cohorts();
    let place = |side| Place::in_pair(side, Side::Second, [1, 1]);
    let arrival =
        |id: &str, side, score| Arrival { place: place(side), ..pair("c", id, side, score) };
    expect(cohorts.arrive(&arrival("a", Side::First, 9.0), 1, 0), &[]);
    expect(cohorts.arrive(&arrival("b", Side::Second, 4.0), 2, 0), &[(1, "0"), (2, "0")]);
    expect(
        cohorts.arrive(&Arrival { cohort_id: "d".into(), ..arrival("a", Side::First, 4.0) }, 1, 0),
        &[],
    );
    let last = Arrival { cohort_id: "d".into(), ..arrival("b", Side::Second, 9.0) };
    expect(cohorts.arrive(&last, 2, 0), &[(1, "1.4"), (2, "1.4")]);
}

#[test]
fn a_rollout_sent_again_gets_the_same_answer() {
    let mut cohorts = cohorts();
    fill_but_last(&mut cohorts);
    expect(cohorts.arrive(&pair("c", "a", Side::First, 8.0), 10, 3), &[]);
    let all = [(1, "1.2"), (2, "1.2"), (3, "0"), (4, "0"), (10, "1.2")];
    expect(cohorts.arrive(&pair("c", "y", Side::Second, 7.0), 4, 3), &all);
    expect(cohorts.arrive(&pair("c", "a", Side::First, 8.0), 11, 9), &[(11, "1.2")]);
    assert_eq!(cohorts.counts().repeated, 2);
}

#[test]
fn other_content_under_a_known_id_is_refused() {
    let mut cohorts = cohorts();
    fill_but_last(&mut cohorts);
    let conflict = [(9, "rollout_conflict")];
    expect(cohorts.arrive(&pair("c", "a", Side::First, 7.0), 9, 3), &conflict);
    expect(cohorts.arrive(&pair("c", "a", Side::Second, 8.0), 9, 3), &conflict);
    let _ = cohorts.arrive(&pair("c", "y", Side::Second, 7.0), 4, 3);
    expect(cohorts.arrive(&pair("c", "a", Side::First, 7.0), 9, 4), &conflict);
}

#[test]
fn full_sides_and_late_arrivals_are_refused() {
    let mut cohorts = cohorts();
    fill_but_last(&mut cohorts);
    expect(cohorts.arrive(&pair("c", "z", Side::First, 1.0), 9, 3), &[(9, "cohort_side_full")]);
    let _ = cohorts.arrive(&pair("c", "y", Side::Second, 7.0), 4, 3);
    expect(cohorts.arrive(&pair("c", "z", Side::First, 1.0), 9, 4), &[(9, "cohort_over")]);
    assert_eq!(cohorts.counts().refused, 2);
}

#[test]
fn contradicting_declarations_are_refused_and_harm_nobody() {
    let mut cohorts = cohorts();
    fill_but_last(&mut cohorts);
    let other = |place| Arrival { place, ..pair("c", "y", Side::Second, 7.0) };
    for place in [
        Place::in_pair(Side::Second, Side::Second, [2, 2]),
        Place::in_pair(Side::Second, Side::First, [2, 3]),
        Place::in_group(4, GroupRule::ZScore),
    ] {
        expect(cohorts.arrive(&other(place), 9, 3), &[(9, "cohort_conflict")]);
    }
    let all = [(1, "1.2"), (2, "1.2"), (3, "0"), (4, "0")];
    expect(cohorts.arrive(&pair("c", "y", Side::Second, 7.0), 4, 3), &all);
    let again = Place::in_pair(Side::Second, Side::Second, [2, 2]);
    expect(cohorts.arrive(&other(again), 9, 4), &[(9, "cohort_conflict")]);
}

#[test]
fn time_out_refuses_everyone_and_the_late() {
    let mut cohorts = cohorts();
    fill_but_last(&mut cohorts);
    assert_eq!(cohorts.next_due_ms(), Some(100));
    expect(cohorts.expire(99), &[]);
    let refused = [(1, "cohort_timed_out"), (2, "cohort_timed_out"), (3, "cohort_timed_out")];
    expect(cohorts.expire(100), &refused);
    let late = [(4, "cohort_timed_out")];
    expect(cohorts.arrive(&pair("c", "y", Side::Second, 7.0), 4, 101), &late);
    expect(cohorts.arrive(&pair("c", "a", Side::First, 8.0), 4, 102), &late);
    assert_eq!(cohorts.state("c").unwrap().phase, CohortPhase::TimedOut);
    assert_eq!(cohorts.next_due_ms(), Some(150));
}

#[test]
fn an_arrival_after_the_deadline_is_late_even_if_nobody_looked() {
    let mut cohorts = cohorts();
    fill_but_last(&mut cohorts);
    let told = told(cohorts.arrive(&pair("c", "y", Side::Second, 7.0), 4, 100));
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|(_, text)| text == "cohort_timed_out"), "{told:?}");
}

#[test]
fn time_out_may_answer_from_what_is_there() {
    let partial = CohortConfig { on_timeout: OnTimeout::Partial, ..config() };
    let mut cohorts = Cohorts::new(partial);
    fill_but_last(&mut cohorts);
    // Means 7 and 5: 8 is three points above, 6 one; 5 is two below 7.
    let deliveries = cohorts.expire(100);
    assert!(deliveries.iter().all(|d| !d.result.as_ref().unwrap().complete));
    expect(deliveries, &[(1, "1.4"), (2, "1.2"), (3, "1.2")]);
    expect(cohorts.arrive(&pair("c", "a", Side::First, 8.0), 5, 101), &[(5, "1.4")]);
    expect(cohorts.arrive(&pair("c", "y", Side::Second, 7.0), 4, 101), &[(4, "cohort_timed_out")]);
    assert_eq!(cohorts.state("c").unwrap().phase, CohortPhase::Partial);
}

#[test]
fn a_missing_side_follows_the_policy_for_empty_sides() {
    for (policy, reward, masked) in [
        (OnEmptySide::Zero, 0.0, false),
        (OnEmptySide::FailPair, -1.0, false),
        (OnEmptySide::DropPair, 0.0, true),
    ] {
        let par = ParConfig { on_empty_side: policy, ..ParConfig::default() };
        let partial = CohortConfig { par, on_timeout: OnTimeout::Partial, ..config() };
        let mut cohorts = Cohorts::new(partial);
        let _ = cohorts.arrive(&pair("c", "a", Side::First, 8.0), 1, 0);
        let deliveries = cohorts.expire(100);
        let answer = deliveries[0].result.as_ref().unwrap();
        assert_eq!((answer.reward, answer.masked), (Some(reward), masked), "{policy:?}");
        assert!(answer.empty_side);
        assert_eq!((answer.own_mean, answer.other_mean), (Some(8.0), None));
    }
}

#[test]
fn cancellation_refuses_everyone() {
    let mut cohorts = cohorts();
    fill_but_last(&mut cohorts);
    let (was_open, deliveries) = cohorts.cancel("c", 5);
    assert!(was_open);
    let refused = [(1, "cohort_cancelled"), (2, "cohort_cancelled"), (3, "cohort_cancelled")];
    expect(deliveries, &refused);
    let late = cohorts.arrive(&pair("c", "y", Side::Second, 7.0), 4, 6);
    expect(late, &[(4, "cohort_cancelled")]);
    assert_eq!(cohorts.cancel("c", 7), (false, vec![]));
    assert_eq!(cohorts.cancel("unknown", 7), (false, vec![]));
    assert_eq!(cohorts.counts().cancelled, 1);
}

#[test]
fn a_forgotten_id_is_free_again() {
    let mut cohorts = cohorts();
    fill_but_last(&mut cohorts);
    let _ = cohorts.arrive(&pair("c", "y", Side::Second, 7.0), 4, 3);
    expect(cohorts.expire(53), &[]);
    assert_eq!(cohorts.state("c"), None);
    assert_eq!(cohorts.counts().rollouts_held, 0);
    assert_eq!(cohorts.next_due_ms(), None);
    expect(cohorts.arrive(&pair("c", "a", Side::First, 1.0), 1, 60), &[]);
    assert_eq!(cohorts.state("c").unwrap().phase, CohortPhase::Open);
}

#[test]
fn a_clock_that_goes_back_stands_still() {
    let mut cohorts = cohorts();
    let _ = cohorts.expire(1_000);
    let _ = cohorts.arrive(&pair("c", "a", Side::First, 8.0), 1, 5);
    assert_eq!(cohorts.next_due_ms(), Some(1_100));
    expect(cohorts.expire(0), &[]);
    expect(cohorts.expire(1_100), &[(1, "cohort_timed_out")]);
}

#[test]
fn arrivals_that_make_no_sense_are_refused() {
    let mut cohorts = cohorts();
    let good = pair("c", "a", Side::First, 8.0);
    let long = "x".repeat(257);
    for bad in [
        Arrival { cohort_id: String::new(), ..good.clone() },
        Arrival { rollout_id: long, ..good.clone() },
        Arrival { place: Place::in_pair(Side::First, Side::First, [1, 0]), ..good.clone() },
        Arrival { place: Place::in_group(5_000, GroupRule::Centred), ..good.clone() },
        Arrival {
            place: Place::in_pair(Side::First, Side::First, [usize::MAX, 2]),
            ..good.clone()
        },
        Arrival { score: ParScore::valid(f64::NAN), ..good.clone() },
    ] {
        expect(cohorts.arrive(&bad, 1, 0), &[(1, "invalid_rollout")]);
    }
    assert_eq!(cohorts.counts().opened, 0);
}

#[test]
fn open_cohorts_are_limited() {
    let mut cohorts = Cohorts::new(CohortConfig { max_open: 2, ..config() });
    for id in ["c", "d"] {
        expect(cohorts.arrive(&pair(id, "a", Side::First, 8.0), 1, 0), &[]);
    }
    expect(cohorts.arrive(&pair("e", "a", Side::First, 8.0), 3, 0), &[(3, "cohort_busy")]);
    // Members of cohorts that are open still come in.
    expect(cohorts.arrive(&pair("c", "b", Side::First, 8.0), 4, 0), &[]);
}

#[test]
fn rollouts_are_limited_and_ended_cohorts_make_room() {
    let limited = CohortConfig { max_rollouts: 4, max_cohort_size: 4, ..config() };
    let mut cohorts = Cohorts::new(limited);
    fill_but_last(&mut cohorts);
    let _ = cohorts.arrive(&pair("c", "y", Side::Second, 7.0), 4, 3);
    assert_eq!(cohorts.counts().rollouts_held, 4);
    for id in ["a", "b"] {
        expect(cohorts.arrive(&pair("d", id, Side::First, 8.0), 5, 4), &[]);
    }
    assert_eq!(cohorts.state("c"), None);
    assert_eq!((cohorts.counts().evicted, cohorts.counts().rollouts_held), (1, 2));
    for id in ["a", "b"] {
        expect(cohorts.arrive(&pair("e", id, Side::First, 8.0), 6, 4), &[]);
    }
    expect(cohorts.arrive(&pair("d", "x", Side::Second, 8.0), 7, 4), &[(7, "cohort_busy")]);
    // A retry is no new rollout.
    expect(cohorts.arrive(&pair("d", "a", Side::First, 8.0), 8, 4), &[]);
}

#[test]
fn waiters_that_went_away_make_room_for_others() {
    let mut cohorts = cohorts();
    let arrival = pair("c", "a", Side::First, 8.0);
    for waiter in 1..=8 {
        expect(cohorts.arrive(&arrival, -waiter, 0), &[]);
    }
    for waiter in 1..=8 {
        expect(cohorts.arrive(&arrival, waiter, 0), &[]);
    }
    expect(cohorts.arrive(&arrival, 9, 0), &[(9, "cohort_busy")]);
    assert_eq!(cohorts.expire(100).len(), 8);
}

#[test]
fn format_faults_cost_their_penalty_and_stay_out_of_the_mean() {
    let mut cohorts = cohorts();
    fill_but_last(&mut cohorts);
    let score = ParScore::fault(FormatFault::MissingTag);
    let last = Arrival { score, ..pair("c", "y", Side::Second, 0.0) };
    let all = [(1, "1.4"), (2, "1.2"), (3, "1.2"), (4, "-1.5")];
    expect(cohorts.arrive(&last, 4, 3), &all);
}

#[test]
fn group_rules() {
    let scores = [Some(2.0), Some(4.0), None, Some(9.0)];
    for (rule, expected) in [
        (GroupRule::Centred, ["-3", "-1", "none", "4"]),
        (GroupRule::LeaveOneOut, ["-4.5", "-1.5", "none", "6"]),
        (GroupRule::WinRate, ["0", "0.5", "none", "1"]),
    ] {
        let mut cohorts = cohorts();
        let mut deliveries = Vec::new();
        for (i, score) in scores.iter().enumerate() {
            let fault = ParScore::fault(FormatFault::ScoreAbsent);
            let arrival = Arrival {
                cohort_id: "g".into(),
                rollout_id: format!("{i}"),
                place: Place::in_group(4, rule),
                score: score.map_or(fault, ParScore::valid),
            };
            deliveries.extend(cohorts.arrive(&arrival, i32::try_from(i).unwrap(), 0));
        }
        let masked = |d: &Delivery<i32>| d.result.as_ref().unwrap().masked == (d.waiter == 2);
        assert!(deliveries.iter().all(masked), "{rule:?}");
        let expected: Vec<_> = (0..).zip(expected).collect();
        expect(deliveries, &expected);
    }
}

#[test]
fn unusable_configurations_are_refused() {
    assert_eq!(CohortConfig::default().validate(), Ok(()));
    for (config, field) in [
        (CohortConfig { timeout_ms: 0, ..config() }, "timeout_ms"),
        (CohortConfig { max_open: 0, ..config() }, "max_open"),
        (CohortConfig { max_rollouts: 10, ..config() }, "max_rollouts"),
        (
            CohortConfig {
                par: ParConfig { format_bad_score: 1.0, ..ParConfig::default() },
                ..config()
            },
            "format_bad_score",
        ),
    ] {
        let message = config.validate().unwrap_err();
        assert!(message.contains(field), "{message}");
    }
}
