//! A model that does as its input says, and a server around it without sockets.

use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use patarm_reward::embedded::ReadOut;
use patarm_reward::judgement::{FormatFault, Judgement};
use patarm_reward::model::{ItemFault, PairwiseVerdict, PairwiseVote, Reward, TokenValue};
use patarm_reward::serving::{
    Answer, Ask, ChatAnswer, ChatToken, Counters, Crash, Delivery, Event, Family, ModelCard,
    Prepared, Sequence, ServedEngine, ServedModel, ServedText, Step, StepEngine, Waiting, WorkId,
};
use patarm_reward::voting::VoteCombine;
use patarm_text::Preference;
use serde_json::Value;
use tower::ServiceExt;

use crate::{App, ServerConfig, Shutdown, router};

/// Longest text of the scripted model, in bytes: each counts as a token.
pub(crate) const MAX_TOKENS: usize = 2_000;

/// Holds engines back until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut is_open = self.0.0.lock().unwrap();
        while !*is_open {
            is_open = self.0.1.wait(is_open).unwrap();
        }
    }
}

/// A model that scores text by its bytes. A response that says `PANIC` makes it panic,
/// `DEVICE` takes its device away, `FAULT` makes the engine fail, `UNPARSED` has no usable judgement.
pub(crate) struct Scripted {
    text: Arc<ScriptedText>,
    gate: Gate,
    /// The responses of every step.
    pub(crate) batches: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Scripted {
    pub(crate) fn new(name: &str, family: Family) -> Self {
        let gate = Gate::default();
        gate.open();
        Self::gated(name, family, gate)
    }

    pub(crate) fn gated(name: &str, family: Family, gate: Gate) -> Self {
        let card = ModelCard {
            name: name.into(),
            family,
            max_tokens: MAX_TOKENS,
            votes: 1,
            read_out: ReadOut::Sampled,
            combine: VoteCombine::Mean,
            scale: (family == Family::Generative).then_some((0.0, 10.0)),
            normalisation: None,
            template: None,
            revision: None,
        };
        Self { text: Arc::new(ScriptedText(card)), gate, batches: Arc::default() }
    }
}

/// What the scripted model says of a text, between 0 and 10.
pub(crate) fn score_of(text: &str) -> f64 {
    let sum = text.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    f64::from(sum % 1_001) / 100.0
}

impl ServedModel for Scripted {
    fn text(&self) -> Arc<dyn ServedText> {
        Arc::<ScriptedText>::clone(&self.text)
    }

    fn engine(&self) -> Box<dyn ServedEngine + '_> {
        Box::new(StepEngine::new(ScriptedEngine { model: self }))
    }
}

struct ScriptedText(ModelCard);

impl ServedText for ScriptedText {
    fn card(&self) -> &ModelCard {
        &self.0
    }

    fn prepare(&self, ask: Ask) -> Result<Prepared, ItemFault> {
        let tokens = words(&ask).len().max(1);
        if tokens > MAX_TOKENS {
            return Err(ItemFault::Overlong { tokens, limit: MAX_TOKENS });
        }
        assert!(!words(&ask).contains("PREPANIC"), "as the text says");
        Ok(Prepared::plain(ask, tokens, tokens))
    }
}

/// Everything an ask contains, as one text.
fn words(ask: &Ask) -> String {
    match ask {
        Ask::Judge(judge) => {
            let item = &judge.request.item;
            format!("{}\n{}", item.prompt.transcript(), item.response)
        }
        Ask::Compare(compare) => compare.request.responses.concat(),
        Ask::Sequence(Sequence::Text { text, .. }) => text.clone(),
        Ask::Sequence(Sequence::Ids(ids)) => format!("{ids:?}"),
        Ask::Sequence(Sequence::Conversation { conversation, .. }) => conversation.transcript(),
        Ask::Chat(chat) => chat.conversation.transcript(),
    }
}

struct ScriptedEngine<'a> {
    model: &'a Scripted,
}

impl ScriptedEngine<'_> {
    /// What the texts of a step say should happen to the engine.
    fn crash(&self, text: &str) {
        if text.contains("DEVICE") {
            resume_unwind(Box::new(Crash { message: "secret: lost".into(), lasting: true }));
        }
        assert!(!text.contains("PANIC"), "as the text says");
    }

    fn answer(
        &self,
        id: WorkId,
        ask: &Ask,
        report: &mut dyn FnMut(Event),
    ) -> Result<Answer, ItemFault> {
        let text = words(ask);
        if text.contains("FAULT") {
            return Err(ItemFault::Engine("secret: 10.0.0.1".into()));
        }
        match ask {
            Ask::Judge(judge) if self.model.text.0.family == Family::Generative => {
                let votes: Vec<_> = (0..judge.votes).map(|vote| judgement(&text, vote)).collect();
                if judge.delivery == Delivery::Streamed {
                    for (vote, judgement) in votes.iter().enumerate() {
                        stream(id, vote, &judgement.text, report);
                    }
                }
                Ok(Answer::Judgements(votes))
            }
            Ask::Judge(judge) if self.model.text.0.family == Family::Token => {
                Ok(Answer::Reward(Box::new(by_words(&judge.request.item.response))))
            }
            Ask::Judge(_) | Ask::Sequence(_) => {
                Ok(Answer::Reward(Box::new(Reward::of(score_of(&text)))))
            }
            Ask::Compare(compare) => Ok(Answer::Verdict(verdict(&compare.request.responses))),
            Ask::Chat(chat) => {
                let answer = format!("answer {}", chat.choice);
                if chat.delivery == Delivery::Streamed {
                    stream(id, 0, &answer, report);
                }
                let alternative = |n: usize| (vec![b'a' + n as u8], -0.5 - n as f64);
                let token = |byte: u8| ChatToken {
                    bytes: vec![byte],
                    logprob: -0.5,
                    alternatives: (0..chat.top_logprobs).map(alternative).collect(),
                };
                Ok(Answer::Chat(ChatAnswer {
                    tokens: answer.bytes().map(token).collect(),
                    num_tokens: answer.len(),
                    truncated: chat.max_tokens.is_some_and(|limit| limit < answer.len()),
                    text: answer,
                }))
            }
        }
    }
}

/// A value for every word: its length.
fn by_words(response: &str) -> Reward {
    let value = |text: &str| TokenValue { text: text.to_owned(), value: text.len() as f64 };
    let token_values: Vec<TokenValue> = response.split_inclusive(' ').map(value).collect();
    let sum: f64 = token_values.iter().map(|token| token.value).sum();
    Reward { value: sum / token_values.len().max(1) as f64, token_values, ..Reward::default() }
}

fn stream(id: WorkId, vote: usize, text: &str, report: &mut dyn FnMut(Event)) {
    let (first, second) = text.split_at(text.len() / 2);
    for text in [first, second] {
        report(Event::Text { id, vote, text: text.to_owned() });
    }
}

fn judgement(text: &str, vote: usize) -> Judgement {
    let score = match text.contains("UNPARSED") {
        true => Err(FormatFault::ScoreAbsent),
        false => Ok((score_of(text) + vote as f64).min(10.0)),
    };
    Judgement {
        text: format!("judgement {vote}: {score:?}"),
        rubric: patarm_reward::rubric::Rubric::default(),
        evaluation: "fine".into(),
        score,
        readable_score: None,
        expected_score: None,
        num_tokens: 3,
        logprob: None,
    }
}

fn verdict(responses: &[String; 2]) -> PairwiseVerdict {
    let verdict = match score_of(&responses[0]).total_cmp(&score_of(&responses[1])) {
        std::cmp::Ordering::Greater => Preference::First,
        std::cmp::Ordering::Less => Preference::Second,
        std::cmp::Ordering::Equal => Preference::Tie,
    };
    let vote = || vec![PairwiseVote { text: "seen".into(), verdict: Ok(verdict) }];
    PairwiseVerdict { verdict, is_consistent: true, in_order: vote(), swapped: vote() }
}

impl Step for ScriptedEngine<'_> {
    fn step(
        &mut self,
        waiting: &mut Waiting,
        counters: &mut Counters,
        report: &mut dyn FnMut(Event),
    ) {
        self.model.gate.pass();
        let works = waiting.take();
        let batch: Vec<String> = works.iter().map(|(_, work)| words(work.ask())).collect();
        self.model.batches.lock().unwrap().push(batch);
        for (id, work) in works {
            self.crash(&words(work.ask()));
            counters.prompt_tokens += work.num_prompt_tokens() as u64;
            let result = self.answer(id, work.ask(), report);
            report(Event::Done { id, result });
        }
    }
}

/// A server with one scripted model of each family, `scalar` first.
pub(crate) fn app(config: ServerConfig) -> Arc<App> {
    let models: Vec<Box<dyn ServedModel>> = vec![
        Box::new(Scripted::new("scalar", Family::Scalar)),
        Box::new(Scripted::new("judge", Family::Generative)),
    ];
    App::start(config, models, Shutdown::default()).unwrap()
}

/// The routes of [`app`] with default settings.
pub(crate) fn routes() -> Router {
    router(&app(ServerConfig::default()))
}

/// Sends a body; the answer's status and its bytes.
pub(crate) async fn post_bytes(
    router: &Router,
    path: &str,
    body: impl Into<Body>,
) -> (StatusCode, Vec<u8>) {
    let request = Request::post(path).body(body.into()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (status, bytes(response).await)
}

/// The whole body of an answer.
pub(crate) async fn bytes(response: Response<Body>) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

/// Sends JSON; the answer's status and JSON.
pub(crate) async fn post(router: &Router, path: &str, body: &Value) -> (StatusCode, Value) {
    let (status, bytes) = post_bytes(router, path, body.to_string()).await;
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// Asks for a path; the answer's status and text.
pub(crate) async fn get(router: &Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (status, String::from_utf8(bytes(response).await).unwrap())
}
