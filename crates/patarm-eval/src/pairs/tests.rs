//! Whole evaluations on small sets: models, score files, folders, comparisons.

use std::collections::BTreeMap;

use patarm_reward::{
    judgement::{FormatFault, Judgement},
    rubric::Rubric,
};
use patarm_text::{Conversation, Task};

use super::*;
use crate::{compare::compare, metrics::Outcome, store};

fn options() -> PairsOptions {
    PairsOptions {
        resampling: Resampling { resamples: 300, seed: 1 },
        readout: Readout::Value,
        settings: BTreeMap::from([("votes".to_owned(), 4.into())]),
    }
}

fn item(prompt: &str, response: &str) -> Item {
    Item { prompt: Conversation::from_user(prompt), response: response.to_owned() }
}

/// Pair `i` prefers its second side when `i` is odd; the better response says `good`.
fn comparison(i: usize) -> Comparison {
    let prompt = format!("prompt {}", i / 2);
    let (good, bad) = (item(&prompt, "good answer"), item(&prompt, "bad"));
    let straight = Comparison {
        id: format!("pair-{i}"),
        first: good,
        second: bad,
        label: Preference::First,
        strength: None,
        task: Some(Task::Chat),
        subset: Some(if i.is_multiple_of(3) { "easy" } else { "hard" }.to_owned()),
    };
    if i.is_multiple_of(2) { straight } else { straight.swap() }
}

fn comparisons(n: usize) -> Vec<Comparison> {
    (0..n).map(comparison).collect()
}

/// A model given by a function of the item.
struct Scorer<F>(F);

impl<F: Fn(&Item) -> std::result::Result<Reward, ItemFault>> RewardModel for Scorer<F> {
    fn score(&self, items: &[Item]) -> Vec<std::result::Result<Reward, ItemFault>> {
        items.iter().map(&self.0).collect()
    }

    fn name(&self) -> String {
        "scorer".to_owned()
    }
}

fn value(value: f64) -> std::result::Result<Reward, ItemFault> {
    Ok(Reward::of(value))
}

fn oracle(item: &Item) -> std::result::Result<Reward, ItemFault> {
    value(if item.response.starts_with("good") { 8.0 } else { 3.0 })
}

#[test]
fn an_oracle_scores_one_and_a_constant_one_half() {
    let data = comparisons(12);
    let right = evaluate_pairs(&Scorer(oracle), &data, &options()).expect("evaluates");
    assert_eq!(right.result.accuracy.strict.value, Some(1.0));
    assert_eq!(right.result.accuracy.num_prompts, 6);
    assert_eq!(right.result.scores.as_ref().expect("scores").margin.mean, Some(5.0));
    assert_eq!(right.result.subsets["easy"].num_pairs, 4);
    assert_eq!(right.result.tasks["chat"].num_pairs, 12);
    assert_eq!(right.result.baselines.longer_wins.strict.value, Some(1.0));

    let level = evaluate_pairs(&Scorer(|_: &Item| value(5.0)), &data, &options());
    let accuracy = level.expect("evaluates").result.accuracy;
    assert_eq!((accuracy.strict.value, accuracy.half_credit.value), (Some(0.0), Some(0.5)));
    assert_eq!(accuracy.tie_share, Some(1.0));
}

#[test]
fn faults_and_strange_numbers_are_counted() {
    let model = Scorer(|item: &Item| match item.response.starts_with("good") {
        true => value(f64::NAN),
        false => Err(ItemFault::Unparsed(vec![FormatFault::ScoreAbsent; 4])),
    });
    let evaluated = evaluate_pairs(&model, &comparisons(4), &options()).expect("evaluates");
    assert_eq!(evaluated.result.accuracy.num_faults, 4);
    assert_eq!(evaluated.result.accuracy.half_credit.value, Some(0.5));
    assert_eq!(evaluated.result.scores, None);
    let faults = evaluated.result.judgements.expect("sixteen judgements failed");
    assert_eq!((faults.num_judgements, faults.share()), (16, Some(1.0)));
    assert_eq!(faults.by_kind, BTreeMap::from([("score_absent".to_owned(), 16)]));
    assert!(evaluated.records.iter().all(|r| r.fault.is_some()));
}

#[test]
fn ties_and_unlabelled_pairs_are_left_out_and_counted() {
    let mut data = comparisons(4);
    data[0].label = Preference::Tie;
    data[3].label = Preference::Unknown;
    let evaluated = evaluate_pairs(&Scorer(oracle), &data, &options()).expect("evaluates");
    assert_eq!(evaluated.result.skipped, Skipped { tie_labels: 1, unlabelled: 1 });
    assert_eq!((evaluated.result.num_comparisons, evaluated.records.len()), (4, 2));
}

#[test]
fn bad_data_and_bad_models_are_refused() {
    let mut data = comparisons(2);
    data[1].id = data[0].id.clone();
    let message = evaluate_pairs(&Scorer(oracle), &data, &options()).expect_err("same id");
    assert!(message.to_string().contains("pair-0"), "{message}");

    let short = pairs_from_rewards("short", &comparisons(2), &[value(1.0)], &options());
    assert!(short.expect_err("one reward").to_string().contains("1 rewards for 4 responses"));
    assert!(PairsEvaluator::new(Vec::new(), options()).is_err());
}

fn judgement(score: std::result::Result<f64, FormatFault>, expected: f64) -> Judgement {
    Judgement {
        text: String::new(),
        rubric: Rubric::default(),
        evaluation: String::new(),
        score,
        readable_score: None,
        expected_score: Some(expected),
        num_tokens: 1,
        logprob: None,
    }
}

#[test]
fn readouts_read_what_they_say() {
    let reward = Reward {
        judgements: vec![
            judgement(Ok(4.0), 5.0),
            judgement(Err(FormatFault::MissingTag), 6.0),
            judgement(Ok(8.0), 7.0),
        ],
        ..Reward::of(1.0)
    };
    assert_eq!(Readout::Value.read(&reward), Some(1.0));
    assert_eq!(Readout::Votes(1).read(&reward), Some(4.0));
    assert_eq!(Readout::Votes(3).read(&reward), Some(6.0));
    assert_eq!(Readout::Expected.read(&reward), Some(6.0));
    let bare = Reward::of(1.0);
    assert_eq!((Readout::Votes(2).read(&bare), Readout::Expected.read(&bare)), (None, None));
    let faults = JudgementFaults::of_rewards(&[Ok(reward)]).expect("three judgements");
    assert_eq!(faults.by_kind, BTreeMap::from([("missing_tag".to_owned(), 1)]));
}

#[test]
fn fault_names_are_those_of_the_serialised_kind() {
    for fault in FormatFault::ALL {
        let reward = Reward { judgements: vec![judgement(Err(fault), 1.0)], ..Reward::of(1.0) };
        let faults = JudgementFaults::of_rewards(&[Ok(reward)]).expect("one judgement");
        let name = serde_json::to_value(fault).expect("a kind serialises");
        assert_eq!(faults.by_kind.keys().next().map(String::as_str), name.as_str());
    }
}

#[test]
fn scores_computed_elsewhere_give_the_same_result() {
    let data = comparisons(6);
    let asked = evaluate_pairs(&Scorer(oracle), &data, &options()).expect("evaluates");
    let rows: String = data
        .iter()
        .flat_map(|c| [(0, &c.first), (1, &c.second)].map(|(i, item)| (&c.id, i, item)))
        .map(|(id, i, item)| {
            let score = oracle(item).expect("never fails").value;
            format!("{{\"item\": \"{id}\", \"response\": {i}, \"score\": {score}}}\n")
        })
        .collect();
    let table = ScoreTable::parse(rows.as_bytes()).expect("well formed");
    let read = pairs_from_scores("scorer", &data, &table, &options()).expect("evaluates");
    assert_eq!(read.records, asked.records);
    assert_eq!(read.result, asked.result);
}

#[test]
fn verdict_rows_and_missing_rows() {
    let rows = concat!(
        "{\"item\": \"pair-0\", \"first\": 0, \"second\": 1, \"verdict\": \"first\"}\n",
        "{\"item\": \"pair-1\", \"first\": 1, \"second\": 0, \"verdict\": \"second\"}\n",
        "{\"item\": \"pair-2\", \"first\": 0, \"second\": 1, \"verdict\": null}\n",
        "{\"item\": \"elsewhere\", \"response\": 0, \"score\": 1}\n",
    );
    let table = ScoreTable::parse(rows.as_bytes()).expect("well formed");
    let read = pairs_from_scores("file", &comparisons(4), &table, &options()).expect("evaluates");
    let outcomes: Vec<Outcome> = read.records.iter().map(|r| r.outcome).collect();
    assert_eq!(outcomes, [Outcome::Right, Outcome::Wrong, Outcome::Fault, Outcome::Fault]);
    assert_eq!(read.result.num_unused_rows, 1);
    assert_eq!(read.records[3].fault.as_deref(), Some("no row in the scores file"));
    assert!(read.result.scores.is_none() && read.result.orders.is_some());
}

#[test]
fn folders_round_trip() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let written = evaluate_pairs(&Scorer(oracle), &comparisons(7), &options()).expect("evaluates");
    store::write_folder(dir.path(), &written).expect("written");
    assert_eq!(store::read_folder(dir.path()).expect("read back"), written);

    std::fs::write(dir.path().join(store::RECORDS_FILE), "").expect("emptied");
    let message = store::read_folder(dir.path()).expect_err("records are gone").to_string();
    assert!(message.contains("0 pairs where result.json speaks of 7"), "{message}");
}

#[test]
fn the_evaluator_gives_half_credit_accuracy() {
    let evaluator = PairsEvaluator::new(comparisons(6), options()).expect("labelled pairs");
    assert_eq!(evaluator.evaluate(&Scorer(oracle)), 1.0);
    assert_eq!(evaluator.evaluate(&Scorer(|_: &Item| value(2.0))), 0.5);
    assert_eq!(evaluator.comparisons().len(), 6);
}

#[test]
fn two_results_are_compared_pair_by_pair() {
    let data = comparisons(24);
    let weak = Scorer(|item: &Item| match item.prompt.transcript().ends_with(['1', '2']) {
        true => oracle(item),
        false => value(5.0),
    });
    let first = evaluate_pairs(&weak, &data, &options()).expect("evaluates");
    let second = evaluate_pairs(&Scorer(oracle), &data, &options()).expect("evaluates");
    let resampling = options().resampling;
    let result = compare(&first, &second, resampling).expect("same pairs");
    assert_eq!(result.overall.first_strict, Some(6.0 / 24.0));
    assert_eq!(result.overall.second_strict, Some(1.0));
    assert_eq!(result.overall.strict.value, Some(0.75));
    assert_eq!(result.overall.half_credit.value, Some(0.375));
    assert_eq!(result.overall.num_only_second_right, 18);
    assert!(result.overall.mcnemar_p < 1e-4);
    let interval = result.overall.half_credit.interval.expect("there are pairs");
    assert!(interval.low > 0.0 && interval.contains(0.375));
    assert_eq!(result.subsets.keys().collect::<Vec<_>>(), ["easy", "hard"]);
    assert!(result.subsets.values().all(|s| s.difference.mcnemar_p <= s.holm_p));

    let back = compare(&second, &first, resampling).expect("same pairs");
    assert_eq!(back.overall.strict.value, Some(-0.75));
    assert_eq!(back.overall.mcnemar_p, result.overall.mcnemar_p);
}

#[test]
fn results_on_other_pairs_are_not_compared() {
    let resampling = options().resampling;
    let of =
        |data: &[Comparison]| evaluate_pairs(&Scorer(oracle), data, &options()).expect("evaluates");
    let (all, some) = (of(&comparisons(6)), of(&comparisons(4)));
    let result = compare(&all, &some, resampling).expect("four pairs in common");
    assert_eq!((result.num_only_in_first, result.num_only_in_second), (2, 0));
    assert_eq!(result.overall.num_pairs, 4);

    let swapped: Vec<Comparison> =
        comparisons(4).into_iter().map(|c| Comparison { label: c.label.swap(), ..c }).collect();
    let error = compare(&some, &of(&swapped), resampling).expect_err("other labels");
    assert!(error.to_string().contains("pair-0"), "{error}");

    let renamed: Vec<Comparison> =
        comparisons(2).into_iter().map(|c| Comparison { id: format!("x{}", c.id), ..c }).collect();
    assert!(compare(&some, &of(&renamed), resampling).is_err());
}
