//! A remote judge behind the seam of a server: a few threads that ask and wait.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use super::generative::split_last_turn;
use super::{
    Answer, Ask, ChatAnswer, ChatAsk, ChatToken, Counters, Delivery, Event, ModelCard, Prepared,
    Sequence, ServedEngine, ServedModel, ServedText, WorkId,
};
use crate::completer::{Completer, CompletionError, CompletionRequest};
use crate::judge::CompleterJudge;
use crate::model::{ItemFault, PairwiseJudge, PointwiseJudge};

/// How long a step waits for an answer.
const STEP_WAIT: Duration = Duration::from_millis(5);
/// Bytes of text that count as a token: the remote engine's tokenizer is not known.
const BYTES_PER_TOKEN: usize = 4;
/// Generation limit of chat answers whose request has none.
const DEFAULT_CHAT_TOKENS: usize = 1024;

/// A judge on a remote engine that can be served.
pub struct RemoteModel<C> {
    judge: Arc<CompleterJudge<C>>,
    text: Arc<RemoteText>,
    num_threads: usize,
}

impl<C> std::fmt::Debug for RemoteModel<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteModel").field("card", &self.text.card).finish_non_exhaustive()
    }
}

impl<C: Completer + 'static> RemoteModel<C> {
    /// Serves `judge` under what `card` says of it, with so many pieces of work under
    /// way at the same time.
    #[must_use]
    pub fn new(judge: CompleterJudge<C>, card: ModelCard, num_threads: usize) -> Self {
        let num_threads = num_threads.max(1);
        Self { judge: Arc::new(judge), text: Arc::new(RemoteText { card }), num_threads }
    }
}

impl<C: Completer + 'static> ServedModel for RemoteModel<C> {
    fn text(&self) -> Arc<dyn ServedText> {
        Arc::<RemoteText>::clone(&self.text)
    }

    fn engine(&self) -> Box<dyn ServedEngine + '_> {
        Box::new(RemoteEngine::start(&self.judge, self.num_threads))
    }
}

struct RemoteText {
    card: ModelCard,
}

impl ServedText for RemoteText {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn prepare(&self, ask: Ask) -> Result<Prepared, ItemFault> {
        let ask = match ask {
            Ask::Sequence(Sequence::Conversation { conversation, .. }) => {
                let item = split_last_turn(conversation)?;
                Ask::Judge(super::JudgeAsk::new(item, None, self.card.votes))
            }
            Ask::Sequence(_) => {
                let message = "a generative judge needs prompt and response apart: send messages \
                               that end with the response";
                return Err(ItemFault::Unsupported(message.into()));
            }
            Ask::Chat(chat) if chat.top_logprobs > 0 => {
                let message = "top_logprobs: only embedded judges tell alternatives";
                return Err(ItemFault::Unsupported(message.into()));
            }
            other => other,
        };
        let bytes = match &ask {
            Ask::Judge(judge) => {
                judge.request.item.prompt.transcript().len() + judge.request.item.response.len()
            }
            Ask::Compare(compare) => {
                let responses: usize = compare.request.responses.iter().map(String::len).sum();
                compare.request.prompt.transcript().len() + responses
            }
            Ask::Chat(chat) => chat.conversation.transcript().len(),
            Ask::Sequence(_) => 0,
        };
        let tokens = bytes.div_ceil(BYTES_PER_TOKEN).max(1);
        Ok(Prepared::plain(ask, tokens, tokens))
    }
}

type Job = (WorkId, Ask);
type Outcome = (WorkId, Result<Answer, ItemFault>);

/// Threads that each take a job, ask the remote engine and hand the answer back. On
/// dropping, what has not begun is left out.
struct RemoteEngine {
    jobs: mpsc::Sender<Job>,
    outcomes: mpsc::Receiver<Outcome>,
    /// Work that somebody waits for; the threads leave out what is not in it.
    open: Arc<Mutex<HashSet<WorkId>>>,
    streamed: HashSet<WorkId>,
    counters: Counters,
}

impl RemoteEngine {
    /// The threads end when the engine is dropped and their last job is done.
    fn start<C: Completer + 'static>(judge: &Arc<CompleterJudge<C>>, num_threads: usize) -> Self {
        let (jobs, taken) = mpsc::channel::<Job>();
        let (sender, outcomes) = mpsc::channel::<Outcome>();
        let taken = Arc::new(Mutex::new(taken));
        let open = Arc::new(Mutex::new(HashSet::new()));
        for _ in 0..num_threads {
            let (judge, sender) = (Arc::clone(judge), sender.clone());
            let (taken, open) = (Arc::clone(&taken), Arc::clone(&open));
            std::thread::spawn(move || {
                loop {
                    let job = lock(&taken).recv();
                    let Ok((id, ask)) = job else { break };
                    if !lock(&open).contains(&id) {
                        continue;
                    }
                    let asked = std::panic::AssertUnwindSafe(|| answer(&judge, ask));
                    let result = std::panic::catch_unwind(asked)
                        .unwrap_or_else(|_| Err(ItemFault::Engine("the judge panicked".into())));
                    if sender.send((id, result)).is_err() {
                        break;
                    }
                }
            });
        }
        Self { jobs, outcomes, open, streamed: HashSet::new(), counters: Counters::default() }
    }

    fn report(&mut self, (id, result): Outcome, report: &mut dyn FnMut(Event)) {
        if !lock(&self.open).remove(&id) {
            return;
        }
        if let Ok(answer) = &result {
            self.counters.generated_tokens += generated_tokens(answer);
            if self.streamed.remove(&id) {
                report_texts(id, answer, report);
            }
        }
        report(Event::Done { id, result });
    }
}

/// The lock even after a panic elsewhere: a set of ids is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A remote engine answers whole; the pieces are as large as the answers.
fn report_texts(id: WorkId, answer: &Answer, report: &mut dyn FnMut(Event)) {
    match answer {
        Answer::Judgements(judgements) => {
            for (vote, judgement) in judgements.iter().enumerate() {
                report(Event::Text { id, vote, text: judgement.text.clone() });
            }
        }
        Answer::Chat(chat) => report(Event::Text { id, vote: 0, text: chat.text.clone() }),
        Answer::Reward(_) | Answer::Verdict(_) => {}
    }
}

fn generated_tokens(answer: &Answer) -> u64 {
    let tokens = match answer {
        Answer::Judgements(judgements) => judgements.iter().map(|j| j.num_tokens).sum(),
        Answer::Chat(chat) => chat.num_tokens,
        Answer::Reward(_) | Answer::Verdict(_) => 0,
    };
    tokens as u64
}

fn answer<C: Completer>(judge: &CompleterJudge<C>, ask: Ask) -> Result<Answer, ItemFault> {
    let lost = || Err(ItemFault::Engine("the judge gave no answer".into()));
    match ask {
        Ask::Judge(ask) => {
            let results = judge.judge(&[ask.request], ask.votes.max(1));
            results.into_iter().next().unwrap_or_else(lost).map(Answer::Judgements)
        }
        Ask::Compare(ask) => {
            let lost = || Err(ItemFault::Engine("the judge gave no answer".into()));
            let results = judge.compare(&[ask.request], ask.votes.max(1));
            results.into_iter().next().unwrap_or_else(lost).map(Answer::Verdict)
        }
        Ask::Chat(chat) => complete(judge.completer(), &chat),
        Ask::Sequence(_) => Err(ItemFault::Unsupported("no sequences".into())),
    }
}

fn complete(completer: &impl Completer, chat: &ChatAsk) -> Result<Answer, ItemFault> {
    let request = CompletionRequest {
        prompt: chat.conversation.clone(),
        max_tokens: chat.max_tokens.unwrap_or(DEFAULT_CHAT_TOKENS),
        temperature: chat.temperature,
        top_p: chat.top_p,
        stop: chat.stop.clone(),
        seed: chat.seed.wrapping_add(chat.choice),
    };
    match completer.complete(&[request]).into_iter().next() {
        Some(Ok(completion)) => {
            let logprobs = completion.logprobs.unwrap_or_default();
            let tokens = logprobs.into_iter();
            Ok(Answer::Chat(ChatAnswer {
                tokens: tokens
                    .map(|logprob| ChatToken {
                        bytes: Vec::new(),
                        logprob,
                        alternatives: Vec::new(),
                    })
                    .collect(),
                text: completion.text,
                num_tokens: completion.num_tokens,
                truncated: completion.truncated,
            }))
        }
        Some(Err(CompletionError::Overlong { tokens, limit })) => {
            Err(ItemFault::Overlong { tokens, limit })
        }
        Some(Err(error)) => Err(ItemFault::Engine(error.to_string())),
        None => Err(ItemFault::Engine("the engine gave no answer".into())),
    }
}

impl Drop for RemoteEngine {
    fn drop(&mut self) {
        lock(&self.open).clear();
    }
}

impl ServedEngine for RemoteEngine {
    fn submit(&mut self, id: WorkId, work: Prepared) {
        self.counters.prompt_tokens += work.num_prompt_tokens as u64;
        let delivery = match &work.ask {
            Ask::Judge(judge) => judge.delivery,
            Ask::Chat(chat) => chat.delivery,
            _ => Delivery::Whole,
        };
        if delivery == Delivery::Streamed {
            self.streamed.insert(id);
        }
        lock(&self.open).insert(id);
        // The receiving end lives as long as any thread does; threads never end first.
        let _ = self.jobs.send((id, work.ask));
    }

    fn step(&mut self, report: &mut dyn FnMut(Event)) {
        if let Ok(outcome) = self.outcomes.recv_timeout(STEP_WAIT) {
            self.report(outcome, report);
        }
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.report(outcome, report);
        }
    }

    fn cancel(&mut self, id: WorkId) {
        lock(&self.open).remove(&id);
        self.streamed.remove(&id);
    }

    fn is_idle(&self) -> bool {
        lock(&self.open).is_empty()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
