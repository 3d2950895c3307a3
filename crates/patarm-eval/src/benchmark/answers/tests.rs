//! Judges that can be seen through, asked about items.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use patarm_reward::model::{PairwiseJudge, PairwiseVerdict, PointwiseJudge};
use patarm_reward::observer::Silent;
use patarm_reward::rubric::Rubric;
use patarm_text::Conversation;

use super::*;

fn item(id: usize, responses: &[&str]) -> Item {
    let (first, rest) = responses.split_first().expect("responses");
    Item {
        id: id.to_string(),
        prompt: Conversation::from_user(format!("prompt {id}")),
        responses: std::iter::once(first).chain(rest).map(|r| (*r).to_owned()).collect(),
        label: crate::benchmark::item::Label::Correct(
            (0..responses.len()).map(|index| index == 0).collect(),
        ),
        ..Item::default()
    }
}

fn labelled(item: &Item) -> Vec<(usize, usize)> {
    item.labelled_pairs()
}

/// Prefers by a rule on what is shown first and second; counts its calls.
struct Pairs<F> {
    rule: F,
    calls: AtomicUsize,
}

impl<F: Fn(&str, &str) -> Result<Preference, FormatFault>> PairwiseJudge for Pairs<F> {
    fn compare_as_shown(
        &self,
        requests: &[CompareRequest],
        votes: usize,
    ) -> Vec<Result<Vec<PairwiseVote>, ItemFault>> {
        self.calls.fetch_add(requests.len(), Ordering::SeqCst);
        let vote = |request: &CompareRequest| {
            let verdict = (self.rule)(&request.responses[0], &request.responses[1]);
            Ok(vec![PairwiseVote { text: "because".into(), verdict }; votes])
        };
        requests.iter().map(vote).collect()
    }

    fn compare(&self, _: &[CompareRequest], _: usize) -> Vec<Result<PairwiseVerdict, ItemFault>> {
        Vec::new()
    }

    fn name(&self) -> String {
        "pairs".into()
    }
}

fn compared(
    items: &[Item],
    orders: Orders,
    rule: impl Fn(&str, &str) -> Result<Preference, FormatFault>,
) -> (Answers, usize) {
    let judge = Pairs { rule, calls: AtomicUsize::new(0) };
    let subject = Subject::Pairwise(Pairwise { judge: &judge, votes: 1, orders });
    let answers = ask(items, &labelled, &subject, &Silent).expect("answers");
    (answers, judge.calls.into_inner())
}

#[test]
fn a_first_position_judge_ties_everything() {
    let items = [item(0, &["good", "bad"]), item(1, &["good", "bad", "worse"])];
    let (answers, calls) = compared(&items, Orders::Both, |_, _| Ok(Preference::First));
    assert_eq!(calls, 6);
    for (item, answered) in items.iter().zip(&answers.answered) {
        for (right, wrong) in item.labelled_pairs() {
            assert_eq!(answered.answer.outcome(right, wrong), Outcome::Tie);
            assert_eq!(answered.answer.outcome(wrong, right), Outcome::Tie);
        }
    }
    let (answers, calls) = compared(&items, Orders::Given, |_, _| Ok(Preference::First));
    assert_eq!(calls, 3);
    assert_eq!(answers.answered[0].answer.outcome(0, 1), Outcome::Right);
}

#[test]
fn an_honest_pairwise_judge_is_right_in_any_order() {
    let items = [item(0, &["good", "bad"])];
    let honest = |first: &str, _: &str| {
        Ok(if first == "good" { Preference::First } else { Preference::Second })
    };
    let (answers, _) = compared(&items, Orders::Both, honest);
    assert_eq!(answers.answered[0].answer.outcome(0, 1), Outcome::Right);
    assert_eq!(answers.answered[0].votes.len(), 2);
    assert_eq!(answers.report.counts["judgements"], 2);
}

#[test]
fn an_unreadable_order_is_a_fault_of_its_kind() {
    let items = [item(0, &["good", "bad"])];
    let half = |first: &str, _: &str| match first {
        "good" => Ok(Preference::First),
        _ => Err(FormatFault::MissingTag),
    };
    let (answers, _) = compared(&items, Orders::Both, half);
    assert_eq!(answers.answered[0].answer.outcome(0, 1), Outcome::Fault);
    assert_eq!(answers.report.counts["judgement_fault.missing_tag"], 1);
    assert_eq!(answers.report.counts["unparsed_pairs"], 1);
    assert_eq!(answers.answered[0].faults.len(), 1);
}

fn judgement(score: Result<f64, FormatFault>, expected: Option<f64>) -> Judgement {
    Judgement {
        text: "text".into(),
        rubric: Rubric::default(),
        evaluation: String::new(),
        score,
        readable_score: None,
        expected_score: expected,
        num_tokens: 1,
        logprob: None,
    }
}

/// Judges by the first letter and keeps the sizes of its calls.
#[derive(Default)]
struct Letters(Mutex<Vec<usize>>);

impl PointwiseJudge for Letters {
    fn judge(
        &self,
        requests: &[JudgeRequest],
        votes: usize,
    ) -> Vec<Result<Vec<Judgement>, ItemFault>> {
        self.0.lock().expect("not poisoned").push(requests.len());
        let judged = |request: &JudgeRequest| match request.item.response.as_bytes()[0] {
            b'!' => Err(ItemFault::Overlong { tokens: 9, limit: 4 }),
            b'?' => Ok(vec![judgement(Err(FormatFault::Truncated), None); votes]),
            letter => Ok(vec![judgement(Ok(f64::from(letter)), Some(0.5)); votes]),
        };
        requests.iter().map(judged).collect()
    }

    fn name(&self) -> String {
        "letters".into()
    }
}

#[test]
fn judgements_become_scores_and_faults_keep_their_kind() {
    let items = [item(0, &["b", "a"]), item(1, &["?", "a"]), item(2, &["!", "a"])];
    let judge = Letters::default();
    let of = |readout| {
        let subject = Subject::Pointwise(Pointwise { judge: &judge, votes: 3, readout });
        ask(&items, &labelled, &subject, &Silent).expect("answers")
    };
    let sampled = of(ReadOut::Sampled);
    assert_eq!(sampled.answered[0].answer, Answer::Scores(vec![Some(98.0), Some(97.0)]));
    assert_eq!(sampled.answered[1].answer.outcome(0, 1), Outcome::Fault);
    assert_eq!(sampled.answered[1].judgements[0].len(), 3);
    assert!(sampled.answered[1].faults[0].contains("truncated"), "{:?}", sampled.answered[1]);
    let counts = &sampled.report.counts;
    assert_eq!((counts["judgements"], counts["judgement_faults"]), (15, 3));
    assert_eq!(counts["judgement_fault.truncated"], 3);
    assert_eq!((counts["overlong_responses"], counts["unparsed_responses"]), (1, 1));
    let expected = of(ReadOut::Expected);
    assert_eq!(expected.answered[0].answer, Answer::Scores(vec![Some(0.5), Some(0.5)]));
}

#[test]
fn items_stay_whole_in_chunks() {
    let items: Vec<Item> = (0..100).map(|id| item(id, &["a", "b", "c"])).collect();
    let judge = Letters::default();
    let pointwise = Pointwise { judge: &judge, votes: 2, readout: ReadOut::Sampled };
    ask(&items, &labelled, &Subject::Pointwise(pointwise), &Silent).expect("answers");
    let sizes = judge.0.into_inner().expect("not poisoned");
    assert!(sizes.iter().all(|size| size.is_multiple_of(3) && *size <= 33), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), 300);
}

struct Stopped;

impl Observer for Stopped {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64, _: &str) {}
    fn end(&self) {}
    fn is_interrupted(&self) -> bool {
        true
    }
}

#[test]
fn an_interruption_stops_after_a_chunk() {
    let items: Vec<Item> = (0..100).map(|id| item(id, &["a", "b"])).collect();
    let judge = Letters::default();
    let pointwise = Pointwise { judge: &judge, votes: 1, readout: ReadOut::Sampled };
    let error = ask(&items, &labelled, &Subject::Pointwise(pointwise), &Stopped);
    assert_eq!(error.expect_err("stopped").kind(), crate::ErrorKind::Interrupted);
    assert_eq!(judge.0.into_inner().expect("not poisoned").len(), 1);
}

/// A reward model whose rewards are a function of the response.
struct Rewards<F>(F);

impl<F: Fn(&str) -> f64> RewardModel for Rewards<F> {
    fn score(&self, items: &[patarm_text::Item]) -> Vec<Result<Reward, ItemFault>> {
        items.iter().map(|item| Ok(Reward::of((self.0)(&item.response)))).collect()
    }

    fn name(&self) -> String {
        "rewards".into()
    }
}

#[test]
fn rewards_that_are_no_numbers_are_named() {
    let items = [item(0, &["nan", "a"]), item(1, &["inf", "a"])];
    let model = Rewards(|response: &str| match response {
        "nan" => f64::NAN,
        "inf" => f64::INFINITY,
        _ => 1.0,
    });
    let answers = ask(&items, &labelled, &Subject::Reward(&model), &Silent).expect("answers");
    assert_eq!(answers.report.counts["non_finite_scores"], 2);
    assert!(answers.report.problems[1].contains("item \"1\", response 0: the score is inf"));
    assert!(answers.answered.iter().all(|a| a.answer.outcome(0, 1) == Outcome::Fault));
}

#[test]
fn a_file_answers_by_item() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("scores.jsonl");
    let rows = concat!(
        "{\"item\": 0, \"response\": 0, \"score\": 2}\n{\"item\": 0, \"response\": 1, \"score\": 1}\n",
        "{\"item\": 1, \"response\": 0, \"score\": 2}\n{\"item\": 9, \"response\": 0, \"score\": 2}\n",
        "{\"item\": 2, \"first\": 1, \"second\": 0, \"verdict\": \"second\"}\nbroken\n",
    );
    std::fs::write(&path, rows).expect("written");
    let items: Vec<Item> = (0..4).map(|id| item(id, &["a", "b"])).collect();
    let answers = from_file(&items, &path).expect("answers");
    let outcomes: Vec<Outcome> =
        answers.answered.iter().map(|answered| answered.answer.outcome(0, 1)).collect();
    assert_eq!(outcomes, [Outcome::Right, Outcome::Fault, Outcome::Right, Outcome::Fault]);
    let counts = &answers.report.counts;
    assert_eq!(counts["score_rows_malformed"], 1);
    assert_eq!(counts["responses_without_score"], 1);
    assert_eq!((counts["items_without_answer"], counts["score_items_unused"]), (1, 1));
}
