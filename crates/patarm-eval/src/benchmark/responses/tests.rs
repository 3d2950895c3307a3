//! Whole evaluations of judges that are known through and through.

use std::path::Path;

use patarm_reward::observer::Silent;
use patarm_text::Conversation;

use super::*;
use crate::benchmark::answers::{AnswerReport, PairVotes};
use crate::benchmark::{Asks, output};
use crate::interval::wilson;
use crate::scores::{Shown, Verdicts};

struct Plain;

const INFO: Info = Info {
    name: "plain",
    about: "Pairs.",
    data: "rows",
    hub: None,
    asks: Asks::Responses,
    metrics: &[("accuracy.<rule>", "all pairs")],
    files: &[],
    headline: &["accuracy.half_credit"],
};

impl ResponseBenchmark for Plain {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn read(&self, _: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
        Ok(Vec::new())
    }
}

fn items(count: usize) -> Vec<Item> {
    let item = |id: usize| {
        let prompt = Conversation::from_user(format!("prompt {id}"));
        let (chosen, rejected) =
            if id.is_multiple_of(4) { ("short", "quite long") } else { ("a longer one", "short") };
        let item = Item::pair(id.to_string(), prompt, chosen.into(), rejected.into());
        Item { subset: if id.is_multiple_of(2) { "even" } else { "odd" }.to_owned(), ..item }
    };
    (0..count).map(item).collect()
}

fn evaluated(items: &[Item], answer: impl Fn(&Item) -> Answered) -> Evaluation {
    evaluated_with_base(items, answer, None)
}

fn evaluated_with_base(
    items: &[Item],
    answer: impl Fn(&Item) -> Answered,
    base_scores: Option<&Path>,
) -> Evaluation {
    let answers =
        Answers { answered: items.iter().map(answer).collect(), report: AnswerReport::default() };
    let settings = BTreeMap::from([("seed".to_owned(), json!(3))]);
    let run = Run {
        data: &[],
        limit: None,
        resampling: Resampling { resamples: 200, seed: 3 },
        base_scores,
        responses: None,
        completions: crate::benchmark::Completions::default(),
        threshold: None,
        settings: &settings,
        out: Path::new(""),
        observer: &Silent,
    };
    let subject = Subject::File(Path::new("judge"));
    evaluate(&Plain, items, (LoadReport::default(), answers), (&subject, &run)).expect("evaluates")
}

fn value(evaluation: &Evaluation, name: &str) -> f64 {
    evaluation.summary.metrics[name].value.expect(name)
}

fn verdicts(straight: Option<Shown>, swapped: Option<Shown>) -> Answered {
    let verdicts = Verdicts { straight: Some(straight), swapped: Some(swapped) };
    Answered::bare(Answer::Verdicts([((0, 1), verdicts)].into()))
}

#[test]
fn oracle_constant_and_failing_judges() {
    let items = items(40);
    let oracle = evaluated(&items, |_| Answered::of_scores([1.0, 0.0]));
    for rule in ["strict", "half_credit", "strict_without_faults", "half_credit_without_faults"] {
        assert_eq!(value(&oracle, &format!("accuracy.{rule}")), 1.0, "{rule}");
        assert_eq!(value(&oracle, &format!("subset.odd.{rule}")), 1.0, "{rule}");
    }
    let constant = evaluated(&items, |_| Answered::of_scores([5.0, 5.0]));
    assert_eq!(value(&constant, "accuracy.strict"), 0.0);
    assert_eq!(value(&constant, "accuracy.half_credit"), 0.5);
    assert_eq!(value(&constant, "accuracy.tie_rate"), 1.0);
    assert!(constant.items.iter().all(|item| item.half_credit == 0.5 && item.strict == 0.0));

    let failing = evaluated(&items, |_| Answered::bare(Answer::Scores(vec![None, None])));
    assert_eq!(value(&failing, "accuracy.strict"), 0.0);
    assert_eq!(value(&failing, "accuracy.half_credit"), 0.5);
    assert_eq!(failing.summary.metrics["accuracy.strict_without_faults"].value, None);
    assert_eq!(value(&failing, "accuracy.fault_rate"), 1.0);
    assert_eq!(failing.summary.calibration, None);
}

#[test]
fn constant_and_first_position_judges_in_both_orders() {
    let items = items(40);
    let constant = evaluated(&items, |_| verdicts(Some(Shown::Tie), Some(Shown::Tie)));
    assert_eq!(value(&constant, "accuracy.both_orders"), 0.0);
    assert_eq!(value(&constant, "accuracy.half_credit"), 0.5);
    let first = evaluated(&items, |_| verdicts(Some(Shown::First), Some(Shown::First)));
    assert_eq!(value(&first, "position.consistency"), 0.0);
    assert_eq!(value(&first, "position.first_rate"), 1.0);
    assert_eq!(value(&first, "accuracy.both_orders"), 0.0);
    assert_eq!(value(&first, "accuracy.mean_of_orders"), 0.5);
    let oracle = evaluated(&items, |_| verdicts(Some(Shown::First), Some(Shown::Second)));
    assert_eq!(value(&oracle, "position.consistency"), 1.0);
    assert_eq!(value(&oracle, "accuracy.both_orders"), 1.0);
    assert_eq!(value(&oracle, "position.first_rate"), 0.5);
}

#[test]
fn a_length_judge_is_found_out() {
    let items = items(40);
    let longer = evaluated(&items, |item| {
        Answered::of_scores([item.length(0) as f64, item.length(1) as f64])
    });
    assert_eq!(value(&longer, "length.accuracy_preferred_longer"), 1.0);
    assert_eq!(value(&longer, "length.accuracy_preferred_shorter"), 0.0);
    assert_eq!(value(&longer, "length.controlled_accuracy"), 0.5);
    assert!((value(&longer, "length.correlation") - 1.0).abs() < 1e-9);
    let baseline = &longer.summary.baselines["longer_wins"];
    assert_eq!(baseline["accuracy.strict"], longer.summary.metrics["accuracy.strict"]);
    let random = &longer.summary.baselines["random"]["accuracy.strict"];
    assert!((random.value.expect("a mean") - 0.5).abs() < 0.05, "{random:?}");
    let [low, high] = random.ci95.expect("a range");
    assert!(low < 0.42 && high > 0.58, "{random:?}");
}

#[test]
fn a_single_item_has_a_wide_interval() {
    let one = evaluated(&items(1), |_| Answered::of_scores([1.0, 0.0]));
    let metric = one.summary.metrics["accuracy.strict"];
    let expected = wilson(1.0, 1);
    assert_eq!(metric.ci95, Some([expected.low, expected.high]));
    assert_eq!(one.items.len(), 1);
}

/// Four judgements, the later ones wiser: voting@k reads the first k.
#[test]
fn votes_are_read_at_every_power_of_two() {
    use patarm_reward::{judgement::Judgement, rubric::Rubric};
    let judgement = |score: f64| Judgement {
        text: String::new(),
        rubric: Rubric::default(),
        evaluation: String::new(),
        score: Ok(score),
        readable_score: None,
        expected_score: None,
        num_tokens: 1,
        logprob: None,
    };
    let items = items(8);
    let evaluation = evaluated(&items, |_| {
        let right = [1.0, 4.0, 9.0, 9.0].map(judgement).to_vec();
        let wrong = [2.0, 2.0, 2.0, 2.0].map(judgement).to_vec();
        Answered { judgements: vec![right, wrong], ..Answered::of_scores([5.75, 2.0]) }
    });
    assert_eq!(value(&evaluation, "voting.sampled.1.accuracy.half_credit"), 0.0);
    assert_eq!(value(&evaluation, "voting.sampled.2.accuracy.half_credit"), 1.0);
    assert_eq!(value(&evaluation, "voting.sampled.4.accuracy.half_credit"), 1.0);
    assert!(!evaluation.summary.metrics.contains_key("voting.sampled.8.accuracy.half_credit"));
    assert!(!evaluation.summary.metrics.keys().any(|name| name.starts_with("voting.expected")));
    assert_eq!(evaluation.judgements.len(), 8 * 8);
    assert!(value(&evaluation, "votes.spread_right") > 0.0);
}

#[test]
fn base_scores_stand_beside() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("base.jsonl");
    let rows: String = (0..8)
        .flat_map(|id| {
            [0, 1].map(|side| {
                format!("{{\"item\": \"{id}\", \"response\": {side}, \"score\": {side}}}\n")
            })
        })
        .collect();
    std::fs::write(&path, rows).expect("written");
    let items = items(8);
    let evaluation = evaluated_with_base(&items, |_| Answered::of_scores([1.0, 0.0]), Some(&path));
    assert_eq!(evaluation.summary.baselines["base"]["accuracy.strict"].value, Some(0.0));
}

#[test]
fn folders_round_trip() {
    let items = items(6);
    let evaluation = evaluated(&items, |item| Answered {
        votes: vec![PairVotes {
            first: 0,
            second: 1,
            votes: vec![patarm_reward::model::PairwiseVote {
                text: item.id.clone(),
                verdict: Err(patarm_reward::judgement::FormatFault::ScoreAbsent),
            }],
        }],
        ..verdicts(Some(Shown::First), None)
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    output::write_evaluation(folder.path(), &evaluation).expect("written");
    assert_eq!(output::read_summary(folder.path()).expect("read"), evaluation.summary);
    assert_eq!(output::read_items(folder.path()).expect("read"), evaluation.items);
    assert_eq!(output::read_judgements(folder.path()).expect("read"), evaluation.judgements);
    assert_eq!(evaluation.items[0].verdicts.len(), 2);
    assert_eq!(evaluation.items[0].verdicts[1].verdict, None);
}
