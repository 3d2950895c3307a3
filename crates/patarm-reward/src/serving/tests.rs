//! A tiny random judge and a scripted remote one behind the seam of a server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use patarm_models::files::{ModelConfig, RewardConfig, RewardFamily};
use patarm_models::kernels::Cpu;
use patarm_models::reward_checkpoint::fresh_scalar_head;
use patarm_models::{Decoder, DecoderShape, EngineLimits, HeadInit, LinearHead, ScalarHead};
use patarm_text::tokenizer::Tokenizer;
use patarm_text::{Conversation, Item};

use super::*;
use crate::cache::judged::AnswerCache;
use crate::completer::{
    Completer, Completion, CompletionError, CompletionRequest, CompletionResult,
};
use crate::embedded::{JudgeSettings, JudgeText, ReadOut, Terminator};
use crate::judge::{CompleterJudge, CompleterJudgeConfig};
use crate::model::CompareRequest;
use crate::ordinal::{OrdinalRewardModel, OrdinalText};
use crate::scalar::{ScalarRewardModel, ScalarText, Scoring};
use crate::template::{JudgeTemplate, RubricMode};
use crate::token_values::{TokenHead, TokenRewardModel};

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
        top_logprobs: 0,
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
            Some(score) => assert_eq!(result, &Ok(Answer::Reward(Box::new(Reward::of(score))))),
            None => assert!(result.is_err()),
        }
    }
    assert!(text.prepare(chat("x", 0, Delivery::Whole)).is_err());
    assert!(text.prepare(Ask::Judge(JudgeAsk::new(item("q", &"x".repeat(500)), None, 1))).is_err());
}

/// A tiny decoder over the test vocabulary, and the tokenizer.
fn decoder() -> (Decoder, Arc<Tokenizer>) {
    let tokenizer = Tokenizer::from_file(&testdata("text/tokenizer.json")).expect("tokenizer");
    let config = ModelConfig::read(&testdata("models/tiny-llama/config.json")).expect("config");
    let mut shape = DecoderShape::from_config(&config);
    shape.vocab = tokenizer.vocab_size();
    shape.max_positions = 200;
    (Decoder::random(Arc::new(Cpu::new(1)), shape, 3), Arc::new(tokenizer))
}

fn scalar_parts(family: RewardFamily) -> (Decoder, ScalarHead, ScalarText, RewardConfig) {
    let (mut decoder, tokenizer) = decoder();
    let config = RewardConfig::new(family);
    let place = (HeadInit::Normal { std: 1.0 }, 3);
    let head = fresh_scalar_head(&mut decoder, &config, place).expect("fits");
    let text = ScalarText::new(tokenizer).expect("text");
    (decoder, head, text, config)
}

fn scalar_model() -> NumberModel {
    scalar_model_of(RewardFamily::Scalar {})
}

fn scalar_model_of(family: RewardFamily) -> NumberModel {
    let (decoder, head, text, config) = scalar_parts(family);
    NumberModel::new("tiny", decoder, Reading::Scalar(text, head), &config, None)
}

fn token_parts() -> (Decoder, LinearHead, ScalarText, RewardConfig) {
    let (mut decoder, tokenizer) = decoder();
    let head = LinearHead::attach(&mut decoder, "score", 1, (HeadInit::Normal { std: 1.0 }, 3));
    let text = ScalarText::new(tokenizer).expect("text");
    (decoder, head, text, RewardConfig::new(RewardFamily::Token {}))
}

fn token_model() -> NumberModel {
    let (decoder, head, text, config) = token_parts();
    NumberModel::new("tiny", decoder, Reading::Token(text, head), &config, None)
}

/// One item a forward.
fn alone(decoder: &Decoder) -> Scoring<'_> {
    Scoring { batch_tokens: 1, ..Scoring::new(decoder, &crate::observer::Silent, "offline") }
}

fn ordinal_model() -> NumberModel {
    let (decoder, tokenizer) = decoder();
    let reading = Reading::Ordinal(OrdinalText::new(tokenizer).expect("text"));
    let config = RewardConfig::new(RewardFamily::Ordinal {});
    NumberModel::new("tiny", decoder, reading, &config, None)
}

/// Items of one prompt, of its beginning, and of others.
fn scored_items() -> Vec<Item> {
    let prompt = "why is that so and not otherwise, if one may ask";
    let one = |n: usize| match n % 3 {
        0 => item(prompt, &format!("because of reason number {n}")),
        1 => item(prompt, "because"),
        _ => item(&format!("{prompt} {n}"), &"word ".repeat(n + 1)),
    };
    (0..9).map(one).collect()
}

/// Rewards behind the seam in batches of several sizes; tokens computed in each.
fn served(model: &dyn Fn() -> NumberModel, items: &[Item]) -> Vec<(Vec<Reward>, u64)> {
    let each = [1, 60, 100_000].into_iter().map(|batch_tokens| {
        let model = model().with_batch_tokens(batch_tokens);
        let text = model.text();
        let mut engine = model.engine();
        let mut outcome = Outcome::default();
        for (id, item) in items.iter().enumerate() {
            let ask = Ask::Judge(JudgeAsk::new(item.clone(), None, 1));
            engine.submit(WorkId(id as u64), text.prepare(ask).expect("prepares"));
        }
        engine.cancel(WorkId(50));
        run(engine.as_mut(), &mut outcome);
        let rewards = outcome.results.into_values().map(|result| match result {
            Ok(Answer::Reward(reward)) => *reward,
            other => panic!("{other:?}"),
        });
        (rewards.collect(), engine.counters().prompt_tokens)
    });
    each.collect()
}

fn offline(model: &dyn crate::model::RewardModel, items: &[Item]) -> Vec<Reward> {
    model.score(items).into_iter().map(|reward| reward.expect("scores")).collect()
}

#[test]
fn scalar_scores_equal_the_offline_ones_to_the_bit_in_any_batch() {
    for family in [RewardFamily::Scalar {}, RewardFamily::Hpqa { layers: vec![1, 2], heads: 4 }] {
        let (decoder, head, text, config) = scalar_parts(family.clone());
        let scoring = alone(&decoder);
        let model = ScalarRewardModel { scoring, head, text: &text, config: &config };
        let items = scored_items();
        let served = served(&|| scalar_model_of(family.clone()), &items);
        for (rewards, _) in &served {
            assert_eq!(rewards, &offline(&model, &items));
        }
        // In one batch the prompt is read once.
        assert!(served[2].1 * 2 < served[0].1, "{} {}", served[2].1, served[0].1);
    }
}

#[test]
fn token_values_equal_the_offline_ones_to_the_bit_in_any_batch() {
    let (decoder, head, text, config) = token_parts();
    let (scoring, head) = (alone(&decoder), TokenHead(head));
    let model = TokenRewardModel { scoring, head, text: &text, config: &config };
    let items = scored_items();
    let expected = offline(&model, &items);
    assert!(expected.iter().all(|reward| reward.token_values.len() > 1));
    for (rewards, _) in served(&token_model, &items) {
        assert_eq!(rewards, expected);
    }
}

#[test]
fn ratings_equal_the_offline_ones_to_the_bit_in_any_batch() {
    let (decoder, tokenizer) = decoder();
    let text = OrdinalText::new(tokenizer).expect("text");
    let model = OrdinalRewardModel { scoring: alone(&decoder), text: &text };
    let items = scored_items();
    let expected = offline(&model, &items);
    assert!(expected.iter().all(|reward| reward.distribution.len() == 9));
    for (rewards, _) in served(&ordinal_model, &items) {
        assert_eq!(rewards, expected);
    }
    let card = ordinal_model().text().card().clone();
    assert_eq!((card.family, card.scale), (Family::Ordinal, Some((1.0, 9.0))));
}

#[test]
fn models_that_need_the_response_apart_take_messages_and_say_so_otherwise() {
    let conversation = {
        let mut conversation = Conversation::from_user("why");
        let response = patarm_text::Message::text(patarm_text::Role::Assistant, "because");
        conversation.messages.push(response);
        conversation
    };
    let ends_open = false;
    let messages = Ask::Sequence(Sequence::Conversation { conversation, ends_open });
    let apart = Ask::Judge(JudgeAsk::new(item("why", "because"), None, 1));
    let plain = Sequence::Text { text: "why".into(), special_tokens: SpecialTokens::Omit };
    for model in [token_model(), ordinal_model()] {
        let text = model.text();
        let prompts = |ask: &Ask| text.prepare(ask.clone()).expect("prepares").prompts().to_vec();
        assert_eq!(prompts(&messages), prompts(&apart));
        let refused = text.prepare(Ask::Sequence(plain.clone())).expect_err("refused");
        assert!(refused.to_string().contains("prompt and response apart"), "{refused}");
    }
}

#[test]
fn who_shares_a_prompt_comes_along() {
    let model = scalar_model().with_batch_tokens(120);
    let text = model.text();
    let mut engine = model.engine();
    let prompts = ["first ".repeat(20), "second ".repeat(20), "third ".repeat(20)];
    // Responses to three prompts take turns.
    for id in 0..9u64 {
        let ask = item(&prompts[id as usize % 3], &format!("response {id}"));
        let ask = Ask::Judge(JudgeAsk::new(ask, None, 1));
        engine.submit(WorkId(id), text.prepare(ask).expect("prepares"));
    }
    let mut done = Vec::new();
    engine.step(&mut |event| match event {
        Event::Done { id, .. } => done.push(id.0),
        Event::Text { .. } => panic!("a scalar model writes nothing"),
    });
    assert_eq!(done[..3], [0, 3, 6], "{done:?}");
}

#[test]
fn sequences_of_a_scalar_model() {
    let (decoder, tokenizer) = decoder();
    let vocab = decoder.shape.vocab as u32;
    let model = scalar_model();
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

#[test]
fn alternatives_are_those_the_token_was_drawn_from() {
    let model = judge(EngineLimits::default(), 12);
    let Ask::Chat(plain) = chat("hello", 0, Delivery::Whole) else { panic!("a chat") };
    let answer = |top_logprobs| {
        let (mut engine, mut outcome) = (model.engine(), Outcome::default());
        let ask = Ask::Chat(ChatAsk { top_logprobs, ..plain.clone() });
        engine.submit(WorkId(0), model.text().prepare(ask).expect("prepares"));
        run(engine.as_mut(), &mut outcome);
        match outcome.results.remove(&WorkId(0)) {
            Some(Ok(Answer::Chat(answer))) => answer,
            other => panic!("{other:?}"),
        }
    };
    let (without, few, all) = (answer(0), answer(3), answer(1 << 20));
    assert_eq!((&without.text, without.num_tokens), (&all.text, all.num_tokens));
    assert!(!all.tokens.is_empty());
    for ((plain, few), all) in without.tokens.iter().zip(&few.tokens).zip(&all.tokens) {
        assert!(plain.alternatives.is_empty());
        assert_eq!(few.alternatives, all.alternatives[..3]);
        assert!(all.alternatives.is_sorted_by(|a, b| a.1 >= b.1));
        let total: f64 = all.alternatives.iter().map(|(_, logprob)| logprob.exp()).sum();
        assert!((total - 1.0).abs() < 1e-4, "{total}");
        // The token itself is among them, with its number to the last bit.
        let own = |(bytes, logprob): &&(Vec<u8>, f64)| {
            *bytes == all.bytes && logprob.to_bits() == all.logprob.to_bits()
        };
        assert!(all.alternatives.iter().any(|alternative| own(&alternative)), "{}", all.logprob);
    }
}

/// A tiny judge with a memory; failures to write are counted.
fn remembering(cache: AnswerCache<'static>, failures: &Arc<AtomicUsize>) -> CachedModel {
    let failures = Arc::clone(failures);
    let count = move |_: &crate::Error| {
        failures.fetch_add(1, Ordering::Relaxed);
    };
    let inner = Box::new(judge(EngineLimits::default(), 12));
    CachedModel::new(inner, Arc::new(cache), Box::new(count))
}

fn judge_twice(model: &CachedModel, delivery: Delivery) -> Vec<(Outcome, Counters)> {
    let text = model.text();
    let ask = JudgeAsk { delivery, ..JudgeAsk::new(item("why", "because"), None, 2) };
    let each = (0..2).map(|_| {
        let (mut engine, mut outcome) = (model.engine(), Outcome::default());
        engine.submit(WorkId(0), text.prepare(Ask::Judge(ask.clone())).expect("prepares"));
        run(engine.as_mut(), &mut outcome);
        (outcome, engine.counters())
    });
    each.collect()
}

#[test]
fn known_judgements_cost_nothing_in_this_run_and_the_next() {
    let folder = tempfile::tempdir().expect("folder");
    let (path, failures) = (folder.path().join("answers.jsonl"), Arc::default());
    let open = || AnswerCache::open(&path, "tiny", &crate::observer::Silent).expect("opens");
    let first = judge_twice(&remembering(open(), &failures), Delivery::Streamed);
    let second = judge_twice(&remembering(open(), &failures), Delivery::Streamed);
    assert!(first[0].1.generated_tokens > 0);
    for (outcome, counters) in first[1..].iter().chain(&second) {
        assert_eq!(*counters, Counters::default());
        assert_eq!((&outcome.results, &outcome.texts), (&first[0].0.results, &first[0].0.texts));
    }
    assert_eq!(failures.load(Ordering::Relaxed), 0);
}

/// Where there is a device that refuses every write.
#[test]
fn a_full_disk_costs_the_memory_and_no_answer() {
    let failures = Arc::default();
    let Some(cache) = AnswerCache::on_full_device(&crate::observer::Silent) else { return };
    let model = remembering(cache, &failures);
    let answers = judge_twice(&model, Delivery::Whole);
    assert!(matches!(answers[0].0.results[&WorkId(0)], Ok(Answer::Judgements(_))));
    assert_eq!(answers[0].0.results, answers[1].0.results);
    assert_eq!(failures.load(Ordering::Relaxed), 1);
}
