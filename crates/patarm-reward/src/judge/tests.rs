//! The judge against scripted completers.

use std::sync::Mutex;

use super::*;
use crate::judgement::FormatFault;

/// Answers every request by a function and remembers what it was asked.
struct Scripted<F> {
    answer: F,
    asked: Mutex<Vec<CompletionRequest>>,
}

impl<F: Fn(&CompletionRequest) -> CompletionResult + Send + Sync> Completer for Scripted<F> {
    fn complete(&self, requests: &[CompletionRequest]) -> Vec<CompletionResult> {
        self.asked.lock().unwrap().extend(requests.iter().cloned());
        requests.iter().map(&self.answer).collect()
    }

    fn name(&self) -> String {
        "scripted".into()
    }
}

fn says(text: impl Into<String>) -> CompletionResult {
    Ok(Completion {
        text: text.into(),
        num_tokens: 9,
        truncated: false,
        logprobs: Some(vec![-1.0, -0.5]),
    })
}

fn score(score: impl std::fmt::Display) -> String {
    format!("<rule>A (100)</rule><note>n</note><score>{score}</score>")
}

fn verdict(label: &str) -> String {
    format!("<rule>A (100)</rule><note>n</note><verdict>{label}</verdict>")
}

fn judge<F>(answer: F, config: CompleterJudgeConfig) -> CompleterJudge<Scripted<F>>
where
    F: Fn(&CompletionRequest) -> CompletionResult + Send + Sync,
{
    let template = JudgeTemplate::load("patarm-short").unwrap();
    CompleterJudge::new(Scripted { answer, asked: Mutex::default() }, template, config)
}

fn item(response: &str) -> Item {
    Item { prompt: Conversation::from_user("Why is bread brown?"), response: response.into() }
}

fn request(response: &str) -> JudgeRequest {
    JudgeRequest { item: item(response), task: None }
}

#[test]
fn votes_are_asked_with_seeds_of_their_own_and_averaged() {
    let config = CompleterJudgeConfig { votes: 3, ..CompleterJudgeConfig::default() };
    let judge = judge(|request| says(score(1 + request.seed % 9)), config);
    let rewards = RewardModel::score(&judge, &[item("heat"), item("sugar")]);
    let asked = judge.completer().asked.lock().unwrap();
    assert_eq!(asked.len(), 6);
    for (i, reward) in rewards.iter().enumerate() {
        let reward = reward.as_ref().unwrap();
        let seeds = asked[3 * i..3 * i + 3].iter().map(|request| request.seed);
        let expected: f64 = seeds.map(|seed| (1 + seed % 9) as f64).sum::<f64>() / 3.0;
        assert!((reward.value - expected).abs() < 1e-12);
        assert_eq!(reward.judgements.len(), 3);
        assert_eq!(reward.judgements[0].logprob, Some(-1.5));
    }
    let mut seeds: Vec<u64> = asked.iter().map(|request| request.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 6);
    assert!(asked[0].prompt.messages[0].plain_text().contains("Why is bread brown?"));
    assert_eq!(asked[0].max_tokens, 48);
}

#[test]
fn a_judgement_does_not_depend_on_its_batch() {
    let build = || judge(|r| says(score(1 + r.seed % 9)), CompleterJudgeConfig::default());
    let together = build().judge(&[request("a"), request("b")], 2);
    let alone = build().judge(&[request("b")], 2);
    assert_eq!(together[1], alone[0]);
}

#[test]
fn an_item_fails_alone() {
    let answer = |request: &CompletionRequest| {
        let text = request.prompt.messages[0].plain_text();
        match text {
            text if text.contains("BREAKS") => {
                Err(CompletionError::Overlong { tokens: 9000, limit: 4096 })
            }
            text if text.contains("RAMBLES") => says("no score here"),
            _ => says(score(4)),
        }
    };
    let judge = judge(answer, CompleterJudgeConfig::default());
    let rewards = RewardModel::score(&judge, &[item("BREAKS"), item("RAMBLES"), item("fine")]);
    assert_eq!(rewards[0], Err(ItemFault::Overlong { tokens: 9000, limit: 4096 }));
    assert_eq!(rewards[1], Err(ItemFault::Unparsed(vec![FormatFault::MissingTag])));
    assert_eq!(rewards[2].as_ref().unwrap().value, 4.0);
    let judged = judge.judge(&[request("RAMBLES")], 1).remove(0).unwrap();
    assert_eq!(judged[0].score, Err(FormatFault::MissingTag));
}

#[test]
fn faulty_judgements_are_asked_for_again_and_no_others() {
    let calls = Mutex::new(0usize);
    let answer = |_: &CompletionRequest| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        says(if *calls <= 3 { score("x") } else { score(6) })
    };
    let config = CompleterJudgeConfig { retries: 2, ..CompleterJudgeConfig::default() };
    let judge = judge(answer, config);
    let judged = judge.judge(&[request("a")], 2).remove(0).unwrap();
    // Round 1: both bad. Round 2: one bad, one good. Round 3: the last one good.
    assert_eq!(judge.completer().asked.lock().unwrap().len(), 5);
    assert!(judged.iter().all(|judgement| judgement.score == Ok(6.0)));
    let asked = judge.completer().asked.lock().unwrap();
    assert_ne!(asked[0].seed, asked[2].seed, "the same seed would say the same again");
}

#[test]
fn a_completer_that_answers_too_little_loses_nothing() {
    struct Mute;
    impl Completer for Mute {
        fn complete(&self, _: &[CompletionRequest]) -> Vec<CompletionResult> {
            Vec::new()
        }
        fn name(&self) -> String {
            "mute".into()
        }
    }
    let template = JudgeTemplate::load("patarm").unwrap();
    let judge = CompleterJudge::new(Mute, template, CompleterJudgeConfig::default());
    let judged = judge.judge(&[request("a"), request("b")], 2);
    assert_eq!(judged.len(), 2);
    assert!(matches!(&judged[1], Err(ItemFault::Engine(m)) if m.contains("no answer")));
}

fn compare(
    answer: impl Fn(bool) -> CompletionResult + Send + Sync,
) -> Result<PairwiseVerdict, ItemFault> {
    let judge = judge(
        move |request: &CompletionRequest| {
            let text = request.prompt.messages[0].plain_text();
            answer(text.find("ALPHA") < text.find("BETA"))
        },
        CompleterJudgeConfig::default(),
    );
    let request = CompareRequest {
        prompt: Conversation::from_user("p"),
        responses: ["ALPHA".into(), "BETA".into()],
        task: None,
    };
    judge.compare(&[request], 3).remove(0)
}

#[test]
fn both_orders_must_agree() {
    let first_best = compare(|alpha_first| says(verdict(if alpha_first { "A" } else { "B" })));
    let first_best = first_best.unwrap();
    assert_eq!((first_best.verdict, first_best.is_consistent), (Preference::First, true));
    assert_eq!((first_best.in_order.len(), first_best.swapped.len()), (3, 3));
    assert!(first_best.swapped.iter().all(|vote| vote.verdict == Ok(Preference::First)));
    let always_a = compare(|_| says(verdict("A"))).unwrap();
    assert_eq!((always_a.verdict, always_a.is_consistent), (Preference::Tie, false));
    let tie = compare(|_| says(verdict("tie"))).unwrap();
    assert_eq!((tie.verdict, tie.is_consistent), (Preference::Tie, true));
}

#[test]
fn an_order_without_a_verdict_is_a_fault() {
    let half = compare(|alpha_first| says(if alpha_first { verdict("A") } else { verdict("?") }));
    assert!(matches!(half, Err(ItemFault::Unparsed(kinds)) if kinds.len() == 3));
    let failed =
        compare(
            |alpha_first| {
                if alpha_first { says(verdict("A")) } else { Err(CompletionError::Interrupted) }
            },
        );
    assert_eq!(failed, Err(ItemFault::Engine("interrupted".into())));
}

#[test]
fn the_name_says_engine_and_template() {
    let judge = judge(|_| says(""), CompleterJudgeConfig::default());
    assert_eq!(PairwiseJudge::name(&judge), "scripted (patarm-short)");
}
