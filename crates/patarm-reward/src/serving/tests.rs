//! A tiny random judge and a scripted remote one behind the seam of a server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use patarm_models::files::{ModelConfig, RewardConfig, RewardFamily};
use patarm_models::kernels::Cpu;
use patarm_models::reward_checkpoint::fresh_scalar_head;
use patarm_models::{Decoder, DecoderShape, EngineLimits, HeadInit, ScalarHead};
use patarm_text::tokenizer::Tokenizer;
use patarm_text::{Conversation, Item};

use super::*;
use crate::completer::{
    Completer, Completion, CompletionError, CompletionRequest, CompletionResult,
};
use crate::embedded::{JudgeSettings, JudgeText, ReadOut, Terminator};
use crate::judge::{CompleterJudge, CompleterJudgeConfig};
use crate::model::CompareRequest;
use crate::scalar::{ScalarRewardModel, ScalarText, Scoring};
use crate::template::{JudgeTemplate, RubricMode};

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

fn judge(limits: EngineLimits, max_tokens: usize) -> GenerativeModel {
    let tokenizer = Tokenizer::from_file(&testdata("text/tokenizer.json")).expect("tokenizer");
    let config = ModelConfig::read(&testdata("models/tiny-llama/config.json")).expect("config");
    let mut shape = DecoderShape::from_config(&config);
    shape.vocab = tokenizer.vocab_size();
    shape.max_positions = 4_096;
    let decoder = Decoder::random(Arc::new(Cpu::new(1)), shape, 3);
    let template = Arc::new(JudgeTemplate::load("patarm-short").expect("template"));
    let text =
        JudgeText::new(Arc::new(tokenizer), template, RubricMode::Both, Terminator::FirstToken)
            .expect("text");
    let settings = JudgeSettings {
        read_out: ReadOut::Expected,
        votes: 1,
        seed: 5,
        temperature: 1.0,
        top_p: 1.0,
        max_tokens,
    };
    let text = GenerativeText::new("tiny", text, settings, None).expect("text");
    GenerativeModel::new(decoder, text, limits)
}

fn item(prompt: &str, response: &str) -> Item {
    Item { prompt: Conversation::from_user(prompt), response: response.to_owned() }
}

fn chat(prompt: &str, choice: u64, delivery: Delivery) -> Ask {
    Ask::Chat(ChatAsk {
        conversation: Conversation::from_user(prompt),
        max_tokens: Some(9),
        temperature: 1.0,
        top_p: 0.9,
        stop: Vec::new(),
        seed: 11,
        choice,
        delivery,
    })
}

fn asks(delivery: Delivery) -> Vec<Ask> {
    let judged = |prompt, response, votes| {
        Ask::Judge(JudgeAsk { delivery, ..JudgeAsk::new(item(prompt, response), None, votes) })
    };
    let request = CompareRequest {
        prompt: Conversation::from_user("why"),
        responses: ["because".into(), "who knows".into()],
        task: None,
    };
    vec![
        judged("why", "because", 2),
        judged("why", "who knows", 1),
        chat("hello", 0, delivery),
        judged("what now", "nothing", 3),
        Ask::Compare(CompareAsk { request, votes: 1 }),
        chat("hello", 1, delivery),
    ]
}

/// Results and streamed text by work and vote.
#[derive(Default)]
struct Outcome {
    results: BTreeMap<WorkId, Result<Answer, ItemFault>>,
    texts: BTreeMap<(WorkId, usize), String>,
}

impl Outcome {
    fn take(&mut self, event: Event) {
        match event {
            Event::Text { id, vote, text } => {
                self.texts.entry((id, vote)).or_default().push_str(&text);
            }
            Event::Done { id, result } => assert!(self.results.insert(id, result).is_none()),
        }
    }
}

fn run(engine: &mut dyn ServedEngine, outcome: &mut Outcome) {
    let start = Instant::now();
    while !engine.is_idle() {
        assert!(start.elapsed() < Duration::from_secs(60), "the engine never ends");
        engine.step(&mut |event| outcome.take(event));
    }
}

#[test]
fn answers_do_not_depend_on_company_or_delivery() {
    let model = judge(EngineLimits::default(), 12);
    let text = model.text();
    let mut engine = model.engine();
    let mut together = Outcome::default();
    for (id, ask) in asks(Delivery::Streamed).into_iter().enumerate() {
        engine.submit(WorkId(id as u64), text.prepare(ask).expect("prepares"));
        // They do not even begin together.
        engine.step(&mut |event| together.take(event));
    }
    run(engine.as_mut(), &mut together);
    assert_eq!(together.results.len(), 6);
    for (id, ask) in asks(Delivery::Whole).into_iter().enumerate() {
        let id = WorkId(id as u64);
        let mut engine = model.engine();
        let mut alone = Outcome::default();
        engine.submit(id, text.prepare(ask).expect("prepares"));
        run(engine.as_mut(), &mut alone);
        assert_eq!(alone.results[&id], together.results[&id]);
        assert!(alone.texts.is_empty());
        let texts: Vec<&str> = match &alone.results[&id] {
            Ok(Answer::Judgements(judgements)) => {
                judgements.iter().map(|judgement| judgement.text.as_str()).collect()
            }
            Ok(Answer::Chat(chat)) => vec![chat.text.as_str()],
            _ => Vec::new(),
        };
        for (vote, text) in texts.into_iter().enumerate() {
            let streamed = together.texts.get(&(id, vote)).map_or("", String::as_str);
            assert_eq!(streamed, text);
        }
    }
    // Choices and votes differ from each other.
    assert_ne!(together.results[&WorkId(2)], together.results[&WorkId(5)]);
    let counters = engine.counters();
    assert!(counters.shared_tokens > 0 && counters.generated_tokens > 0);
}

#[test]
fn chat_answers_carry_their_tokens() {
    let model = judge(EngineLimits::default(), 12);
    let mut engine = model.engine();
    let mut outcome = Outcome::default();
    let ask = chat("hello", 0, Delivery::Whole);
    engine.submit(WorkId(0), model.text().prepare(ask).expect("prepares"));
    run(engine.as_mut(), &mut outcome);
    let Ok(Answer::Chat(answer)) = &outcome.results[&WorkId(0)] else { panic!("no answer") };
    assert_eq!(answer.tokens.len(), answer.num_tokens);
    assert!(answer.tokens.iter().all(|token| token.logprob <= 0.0));
    if answer.truncated {
        let bytes: Vec<u8> = answer.tokens.iter().flat_map(|token| token.bytes.clone()).collect();
        assert_eq!(String::from_utf8_lossy(&bytes), answer.text);
    }
}

#[test]
fn cancelled_work_is_forgotten_and_the_rest_is_not() {
    let model = judge(EngineLimits::default(), 12);
    let text = model.text();
    let mut engine = model.engine();
    let mut outcome = Outcome::default();
    for (id, ask) in asks(Delivery::Whole).into_iter().enumerate() {
        engine.submit(WorkId(id as u64), text.prepare(ask).expect("prepares"));
    }
    engine.step(&mut |event| outcome.take(event));
    engine.cancel(WorkId(0));
    engine.cancel(WorkId(3));
    engine.cancel(WorkId(77));
    run(engine.as_mut(), &mut outcome);
    let done: Vec<u64> = outcome.results.keys().map(|id| id.0).collect();
    assert_eq!(done, [1, 2, 4, 5]);
    // What was cancelled before it began is forgotten too.
    engine.submit(WorkId(9), text.prepare(chat("x", 0, Delivery::Whole)).expect("prepares"));
    engine.cancel(WorkId(9));
    run(engine.as_mut(), &mut outcome);
    assert!(!outcome.results.contains_key(&WorkId(9)));
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_queued() {
    let limits = EngineLimits { slots: 600, ..EngineLimits::default() };
    let model = judge(limits, 12);
    let text = model.text();
    assert_eq!(text.card().max_tokens, 600);
    let long = "word ".repeat(900);
    let refused = text.prepare(Ask::Judge(JudgeAsk::new(item("q", &long), None, 1)));
    assert!(matches!(refused, Err(ItemFault::Overlong { limit: 600, .. })), "{refused:?}");
    let ids = text.prepare(Ask::Sequence(Sequence::Ids(vec![1, 2])));
    assert!(matches!(ids, Err(ItemFault::Unsupported(_))));
    let mut open = item("q", "r").prompt;
    let sequence =
        |conversation| Ask::Sequence(Sequence::Conversation { conversation, ends_open: false });
    assert!(text.prepare(sequence(open.clone())).is_err());
    open.messages.push(patarm_text::Message::text(patarm_text::Role::Assistant, "r"));
    let prepared = text.prepare(sequence(open)).expect("prepares");
    let same = text.prepare(Ask::Judge(JudgeAsk::new(item("q", "r"), None, 1))).expect("prepares");
    assert_eq!(prepared.prompts(), same.prompts());
}

/// A remote engine that answers after a while, fails on demand, and counts.
struct Remote {
    asked: Arc<AtomicUsize>,
}

impl Completer for Remote {
    fn complete(&self, requests: &[CompletionRequest]) -> Vec<CompletionResult> {
        let each = requests.iter().map(|request| {
            self.asked.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            let prompt = request.prompt.transcript();
            assert!(!prompt.contains("PANIC"), "as the text says");
            if prompt.contains("GONE") {
                let message = "connection refused".to_owned();
                return Err(CompletionError::Failed { engine: "e".into(), attempts: 3, message });
            }
            let text = "<rule>\n- a (0.5): b\n</rule>\n<note>fine</note>\n<score>7</score>".into();
            Ok(Completion { text, num_tokens: 3, truncated: false, logprobs: Some(vec![-0.5]) })
        });
        each.collect()
    }

    fn name(&self) -> String {
        "scripted".into()
    }
}

fn remote(asked: &Arc<AtomicUsize>, num_threads: usize) -> RemoteModel<Remote> {
    let template = JudgeTemplate::load("patarm-short").expect("template");
    let card = ModelCard::of_remote_judge("remote", &template, 1);
    let completer = Remote { asked: Arc::clone(asked) };
    let judge = CompleterJudge::new(completer, template, CompleterJudgeConfig::default());
    RemoteModel::new(judge, card, num_threads)
}

#[test]
fn a_remote_engine_that_dies_fails_what_it_had_and_nothing_else() {
    let asked = Arc::new(AtomicUsize::new(0));
    let model = remote(&asked, 3);
    let text = model.text();
    let mut engine = model.engine();
    let mut outcome = Outcome::default();
    for (id, response) in ["a", "GONE", "PANIC", "b"].iter().enumerate() {
        let ask = Ask::Judge(JudgeAsk::new(item("q", response), None, 1));
        engine.submit(WorkId(id as u64), text.prepare(ask).expect("prepares"));
    }
    run(engine.as_mut(), &mut outcome);
    let is_engine = |id| matches!(&outcome.results[&WorkId(id)], Err(ItemFault::Engine(_)));
    assert!(outcome.results[&WorkId(0)].is_ok() && outcome.results[&WorkId(3)].is_ok());
    assert!(is_engine(1) && is_engine(2));
    // A thread whose judge panicked serves on.
    let ask = chat("hello", 0, Delivery::Streamed);
    engine.submit(WorkId(4), text.prepare(ask).expect("prepares"));
    run(engine.as_mut(), &mut outcome);
    assert!(matches!(&outcome.results[&WorkId(4)], Ok(Answer::Chat(_))));
    assert!(outcome.texts[&(WorkId(4), 0)].contains("<score>7</score>"));
}

#[test]
fn cancelled_requests_are_not_sent() {
    let asked = Arc::new(AtomicUsize::new(0));
    let model = remote(&asked, 1);
    let text = model.text();
    let mut engine = model.engine();
    let mut outcome = Outcome::default();
    for id in 0..20 {
        let ask = Ask::Judge(JudgeAsk::new(item("q", "r"), None, 1));
        engine.submit(WorkId(id), text.prepare(ask).expect("prepares"));
    }
    for id in 2..20 {
        engine.cancel(WorkId(id));
    }
    run(engine.as_mut(), &mut outcome);
    assert!(outcome.results.len() <= 2);
    drop(engine);
    assert!(asked.load(Ordering::SeqCst) < 20);
}

/// Scores a response by its length and remembers how many came at once.
struct ByLength(std::sync::Mutex<Vec<usize>>);

impl crate::model::RewardModel for ByLength {
    fn score(&self, items: &[Item]) -> Vec<Result<crate::model::Reward, ItemFault>> {
        self.0.lock().expect("lock").push(items.len());
        let reward = |item: &Item| match item.response.as_str() {
            "" => Err(ItemFault::Unsupported("empty".into())),
            text => Ok(crate::model::Reward::of(text.len() as f64)),
        };
        items.iter().map(reward).collect()
    }

    fn name(&self) -> String {
        "by length".into()
    }
}

#[test]
fn any_reward_model_is_asked_for_whole_batches() {
    let card = ModelCard {
        family: Family::Scalar,
        max_tokens: 100,
        ..remote(&Arc::default(), 1).text().card().clone()
    };
    let batches = ByLength(std::sync::Mutex::default());
    let model = BatchModel::new(batches, card);
    let text = model.text();
    let mut engine = model.engine();
    let mut outcome = Outcome::default();
    for (id, response) in ["a", "", "abc"].iter().enumerate() {
        let ask = Ask::Judge(JudgeAsk::new(item("q", response), None, 1));
        engine.submit(WorkId(id as u64), text.prepare(ask).expect("prepares"));
    }
    engine.cancel(WorkId(7));
    run(engine.as_mut(), &mut outcome);
    let expected = [Some(1.0), None, Some(3.0)];
    for (result, expected) in outcome.results.values().zip(expected) {
        match expected {
            Some(score) => assert_eq!(result, &Ok(Answer::Score(score))),
            None => assert!(result.is_err()),
        }
    }
    assert!(text.prepare(chat("x", 0, Delivery::Whole)).is_err());
    assert!(text.prepare(Ask::Judge(JudgeAsk::new(item("q", &"x".repeat(500)), None, 1))).is_err());
}

fn scalar_parts() -> (Decoder, ScalarHead, ScalarText, RewardConfig) {
    scalar_parts_of(RewardFamily::Scalar {})
}

fn scalar_parts_of(family: RewardFamily) -> (Decoder, ScalarHead, ScalarText, RewardConfig) {
    let tokenizer = Tokenizer::from_file(&testdata("text/tokenizer.json")).expect("tokenizer");
    let config = ModelConfig::read(&testdata("models/tiny-llama/config.json")).expect("config");
    let mut shape = DecoderShape::from_config(&config);
    shape.vocab = tokenizer.vocab_size();
    shape.max_positions = 200;
    let mut decoder = Decoder::random(Arc::new(Cpu::new(1)), shape, 3);
    let config = RewardConfig::new(family);
    let place = (HeadInit::Normal { std: 1.0 }, 3);
    let head = fresh_scalar_head(&mut decoder, &config, place).expect("fits");
    let text = ScalarText::new(Arc::new(tokenizer)).expect("text");
    (decoder, head, text, config)
}

#[test]
fn scalar_scores_equal_the_offline_ones_to_the_bit_in_any_batch() {
    for family in [RewardFamily::Scalar {}, RewardFamily::Hpqa { layers: vec![1, 2], heads: 4 }] {
        compare_with_offline(&family);
    }
}

fn compare_with_offline(family: &RewardFamily) {
    let (decoder, head, text, config) = scalar_parts_of(family.clone());
    let prompt = "why is that so and not otherwise, if one may ask";
    let items: Vec<Item> = (0..9)
        .map(|n| match n % 3 {
            0 => item(prompt, &format!("because of reason number {n}")),
            1 => item(prompt, "because"),
            _ => item(&format!("{prompt} {n}"), &"word ".repeat(n + 1)),
        })
        .collect();
    let offline = ScalarRewardModel {
        scoring: Scoring {
            batch_tokens: 1,
            ..Scoring::new(&decoder, &crate::observer::Silent, "offline")
        },
        head,
        text: &text,
        config: &config,
    };
    let expected: Vec<f64> = crate::model::RewardModel::score(&offline, &items)
        .into_iter()
        .map(|reward| reward.expect("scores").value)
        .collect();
    let mut computed = Vec::new();
    for batch_tokens in [1, 60, 100_000] {
        let (decoder, head, text, config) = scalar_parts_of(family.clone());
        let model = ScalarModel::new("tiny", (decoder, head), text, &config, None)
            .with_batch_tokens(batch_tokens);
        let text = model.text();
        let mut engine = model.engine();
        let mut outcome = Outcome::default();
        for (id, item) in items.iter().enumerate() {
            let ask = Ask::Judge(JudgeAsk::new(item.clone(), None, 1));
            engine.submit(WorkId(id as u64), text.prepare(ask).expect("prepares"));
        }
        engine.cancel(WorkId(50));
        run(engine.as_mut(), &mut outcome);
        for (result, expected) in outcome.results.values().zip(&expected) {
            let Ok(Answer::Score(score)) = result else { panic!("{result:?}") };
            assert_eq!(score.to_bits(), expected.to_bits());
        }
        computed.push(engine.counters().prompt_tokens);
    }
    // In one batch the prompt is read once.
    assert!(computed[2] * 2 < computed[0], "{computed:?}");
}

#[test]
fn sequences_of_a_scalar_model() {
    let (decoder, head, text, config) = scalar_parts();
    let tokenizer = Arc::clone(text.tokenizer());
    let vocab = decoder.shape.vocab as u32;
    let model = ScalarModel::new("tiny", (decoder, head), text, &config, None);
    let text = model.text();
    let score = |ask: Ask| {
        let mut engine = model.engine();
        let mut outcome = Outcome::default();
        engine.submit(WorkId(0), text.prepare(ask).expect("prepares"));
        run(engine.as_mut(), &mut outcome);
        outcome.results.remove(&WorkId(0)).expect("an answer").expect("a score")
    };
    // Text that went through a template is what the template makes of the messages.
    let plain = |text: &str, special_tokens| {
        Ask::Sequence(Sequence::Text { text: text.into(), special_tokens })
    };
    let ids = tokenizer.encode_template("why so <|im_end|>").expect("ids");
    let by_text = score(plain("why so <|im_end|>", SpecialTokens::Omit));
    assert_eq!(by_text, score(Ask::Sequence(Sequence::Ids(ids.clone()))));
    let data = tokenizer.encode_text("why so <|im_end|>").expect("ids");
    assert_ne!(by_text, score(Ask::Sequence(Sequence::Ids(data))));
    let with = text.prepare(plain("why", SpecialTokens::Add)).expect("prepares");
    let without = text.prepare(plain("why", SpecialTokens::Omit)).expect("prepares");
    let added = usize::from(tokenizer.special_ids().add_bos);
    assert_eq!(with.num_prompt_tokens(), without.num_prompt_tokens() + added);
    for refused in [
        Ask::Sequence(Sequence::Ids(Vec::new())),
        Ask::Sequence(Sequence::Ids(vec![vocab])),
        plain("", SpecialTokens::Omit),
        chat("x", 0, Delivery::Whole),
    ] {
        assert!(matches!(text.prepare(refused), Err(ItemFault::Unsupported(_))));
    }
    let long = Ask::Sequence(Sequence::Ids(vec![1; 201]));
    assert!(matches!(text.prepare(long), Err(ItemFault::Overlong { tokens: 201, limit: 200 })));
}
