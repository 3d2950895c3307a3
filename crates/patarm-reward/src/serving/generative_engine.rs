//! The embedded judge behind the seam of a server: generation.

use std::collections::HashMap;

use patarm_models::kernels::SamplingOptions;
use patarm_models::{
    Decoder, Engine, EngineLimits, Forest, Generation, GenerationRequest, RequestId, StopReason,
};
use patarm_text::Preference;
use patarm_text::tokenizer::{ControlTokens, DecodeStream, Tokenizer};

use super::generative::GenerativeText;
use super::{
    Answer, Ask, ChatAnswer, ChatAsk, ChatToken, Counters, Delivery, Event, Prepared, ServedEngine,
    WorkId,
};
use crate::embedded::{self, EmbeddedJudge, JudgeCall, JudgeSampling, RawJudgement, StopAt};
use crate::judge::both_orders;
use crate::judgement::Judgement;
use crate::model::{ItemFault, PairwiseVote};
use crate::observer::Silent;

/// Generations of one piece of work, in the order they were submitted.
struct Work {
    ask: Ask,
    /// The tokens before a chat answer whose alternatives are wanted; else empty.
    prompt: Vec<u32>,
    requests: Vec<RequestId>,
    /// Streams of random draws, one a generation.
    sequences: Vec<u64>,
    done: Vec<Option<Generation>>,
    open: usize,
    streams: Vec<Stream>,
}

/// Text of a generation that was reported already.
struct Stream {
    decoder: DecodeStream,
    num_tokens: usize,
    text: String,
}

impl Stream {
    fn new() -> Self {
        let decoder = DecodeStream::new(ControlTokens::Skip);
        Self { decoder, num_tokens: 0, text: String::new() }
    }

    /// What the tokens beyond those seen add.
    fn advance(&mut self, tokenizer: &Tokenizer, tokens: &[u32]) -> String {
        let mut added = String::new();
        for &token in tokens.get(self.num_tokens..).unwrap_or_default() {
            added.push_str(&self.decoder.push(tokenizer, token));
        }
        self.num_tokens = tokens.len();
        self.text.push_str(&added);
        added
    }
}

/// Continuous batching of judgements, comparisons and chat answers.
pub(super) struct GenerativeEngine<'a> {
    engine: Engine<'a>,
    text: &'a GenerativeText,
    judge: EmbeddedJudge<'a>,
    works: HashMap<WorkId, Work>,
    owners: HashMap<RequestId, (WorkId, usize)>,
    /// Work that was refused when it was submitted.
    refused: Vec<(WorkId, ItemFault)>,
}

impl<'a> GenerativeEngine<'a> {
    pub(super) fn new(
        decoder: &'a Decoder,
        text: &'a GenerativeText,
        limits: EngineLimits,
    ) -> Self {
        let judge = EmbeddedJudge {
            decoder,
            text: &text.judge,
            settings: text.settings,
            observer: &Silent,
            name: String::new(),
        };
        Self {
            engine: Engine::new(decoder, limits),
            text,
            judge,
            works: HashMap::new(),
            owners: HashMap::new(),
            refused: Vec::new(),
        }
    }

    /// The generations a piece of work needs.
    fn requests(&self, work: &Prepared) -> Vec<GenerationRequest> {
        let mut requests = Vec::new();
        for prompt in work.prompts() {
            match work.ask() {
                Ask::Chat(chat) => requests.push(self.chat_request(prompt, chat)),
                Ask::Compare(compare) => {
                    let sampling = JudgeSampling {
                        stop: StopAt::EndOfTurn,
                        read_scores: false,
                        ..self.judge.sampling()
                    };
                    for vote in 0..compare.votes.max(1) {
                        let sequence = embedded::sequence(prompt, vote);
                        requests.push(self.judge_request(prompt, sequence, &sampling));
                    }
                }
                Ask::Judge(judge) => {
                    for vote in 0..judge.votes.max(1) {
                        let sequence = embedded::sequence(prompt, vote);
                        let sampling = self.judge.sampling();
                        requests.push(self.judge_request(prompt, sequence, &sampling));
                    }
                }
                Ask::Sequence(_) => {}
            }
        }
        requests
    }

    fn judge_request(
        &self,
        prompt: &[Vec<u32>],
        sequence: u64,
        sampling: &JudgeSampling,
    ) -> GenerationRequest {
        let call = JudgeCall { prompt: prompt.to_vec(), sequence };
        embedded::request(&call, &self.text.judge, sampling)
    }

    fn chat_request(&self, prompt: &[Vec<u32>], chat: &ChatAsk) -> GenerationRequest {
        let tokenizer = self.text.judge.shared_tokenizer();
        let stops = chat.stop.clone();
        GenerationRequest {
            prompt: prompt.to_vec(),
            max_new_tokens: chat.max_tokens.unwrap_or(1),
            sampling: SamplingOptions {
                temperature: chat.temperature as f32,
                top_k: 0,
                top_p: chat.top_p as f32,
                min_p: 0.0,
                seed: chat.seed,
                sequence: embedded::sequence(prompt, chat.choice as usize),
                position: 0,
            },
            stop_ids: self.text.judge.stop_ids().to_vec(),
            stop_rule: (!stops.is_empty()).then(|| -> patarm_models::engine::StopRule {
                Box::new(move |tokens| {
                    let text = tokenizer.decode(tokens, ControlTokens::Skip);
                    stops.iter().any(|stop| text.ends_with(stop.as_str()))
                })
            }),
            readout: Vec::new(),
        }
    }

    /// Hands every request of the work to the engine, or none.
    fn start(&mut self, id: WorkId, work: Prepared) -> Result<(), ItemFault> {
        let requests = self.requests(&work);
        if requests.is_empty() {
            return Err(ItemFault::Unsupported("there is nothing to generate".into()));
        }
        let sequences = requests.iter().map(|request| request.sampling.sequence).collect();
        let mut submitted = Vec::with_capacity(requests.len());
        for request in requests {
            match self.engine.submit(request) {
                Ok(request) => submitted.push(request),
                Err(error) => {
                    submitted.iter().for_each(|request| self.engine.cancel(*request));
                    return Err(embedded::fault_of(&error));
                }
            }
        }
        for (index, request) in submitted.iter().enumerate() {
            self.owners.insert(*request, (id, index));
        }
        let streams = match delivery(&work.ask) {
            Delivery::Streamed => submitted.iter().map(|_| Stream::new()).collect(),
            Delivery::Whole => Vec::new(),
        };
        let (open, done) = (submitted.len(), submitted.iter().map(|_| None).collect());
        let prompt = match &work.ask {
            Ask::Chat(chat) if chat.top_logprobs > 0 => work.prompts.concat().concat(),
            _ => Vec::new(),
        };
        let work =
            Work { ask: work.ask, prompt, requests: submitted, sequences, done, open, streams };
        self.works.insert(id, work);
        Ok(())
    }

    /// Reports what running sequences have added since the last time.
    fn stream(&mut self, report: &mut dyn FnMut(Event)) {
        if self.works.values().all(|work| work.streams.is_empty()) {
            return;
        }
        let tokenizer = self.text.judge.tokenizer();
        for (request, tokens) in self.engine.progress() {
            let Some(&(id, vote)) = self.owners.get(&request) else { continue };
            let Some(stream) = self.works.get_mut(&id).and_then(|w| w.streams.get_mut(vote)) else {
                continue;
            };
            let text = stream.advance(tokenizer, tokens);
            if !text.is_empty() {
                report(Event::Text { id, vote, text });
            }
        }
    }

    fn finish(&mut self, generation: Generation, report: &mut dyn FnMut(Event)) {
        let Some((id, index)) = self.owners.remove(&generation.id) else { return };
        let Some(work) = self.works.get_mut(&id) else { return };
        work.done[index] = Some(generation);
        work.open -= 1;
        self.stream_rest(id, index, report);
        let is_done = self.works.get(&id).is_some_and(|work| work.open == 0);
        if is_done && let Some(work) = self.works.remove(&id) {
            report(Event::Done { id, result: self.answer(&work) });
        }
    }

    /// Reports what a finished generation adds to what was streamed of it.
    fn stream_rest(&mut self, id: WorkId, index: usize, report: &mut dyn FnMut(Event)) {
        let Some(work) = self.works.get(&id) else { return };
        let (Some(stream), Some(generation)) = (work.streams.get(index), &work.done[index]) else {
            return;
        };
        let whole = match &work.ask {
            Ask::Judge(_) => self.judgement(generation, work.sequences[index]).text,
            _ => self.text.judge.decode(&generation.tokens),
        };
        if let Some(rest) = whole.strip_prefix(stream.text.as_str())
            && !rest.is_empty()
        {
            report(Event::Text { id, vote: index, text: rest.to_owned() });
        }
    }

    fn judgement(&self, generation: &Generation, sequence: u64) -> Judgement {
        let raw = RawJudgement::from_generation(&self.text.judge, generation.clone());
        self.judge.judgement(&raw, sequence)
    }

    fn answer(&self, work: &Work) -> Result<Answer, ItemFault> {
        let generations: Vec<&Generation> = work.done.iter().flatten().collect();
        match &work.ask {
            Ask::Compare(_) => self.verdict(&generations),
            Ask::Chat(chat) => match generations.first() {
                Some(generation) => {
                    let alternatives = self.alternatives(&work.prompt, generation, chat)?;
                    Ok(Answer::Chat(self.chat_answer(generation, alternatives)))
                }
                None => Err(ItemFault::Engine("nothing was generated".into())),
            },
            Ask::Judge(_) | Ask::Sequence(_) => {
                let each = generations.iter().zip(&work.sequences);
                let judgements = each.map(|(g, sequence)| self.judgement(g, *sequence)).collect();
                Ok(Answer::Judgements(judgements))
            }
        }
    }

    fn verdict(&self, generations: &[&Generation]) -> Result<Answer, ItemFault> {
        let (in_order, swapped) = generations.split_at(generations.len() / 2);
        let vote = |generation: &&Generation| {
            let text = self.text.judge.decode(&generation.tokens);
            let is_truncated = generation.stop == StopReason::MaxTokens;
            let verdict = self.text.judge.parse_comparison(&text, is_truncated).verdict;
            PairwiseVote { text, verdict }
        };
        let in_order = in_order.iter().map(vote).collect();
        let swapped = swapped
            .iter()
            .map(vote)
            .map(|vote| PairwiseVote { verdict: vote.verdict.map(Preference::swap), ..vote });
        both_orders(in_order, swapped.collect()).map(Answer::Verdict)
    }

    /// The most probable tokens at the place of each that was written. Prompt and answer
    /// are read once more: generation keeps no distributions.
    fn alternatives(
        &self,
        prompt: &[u32],
        generation: &Generation,
        chat: &ChatAsk,
    ) -> Result<Vec<Vec<(u32, f32)>>, ItemFault> {
        let [before @ .., _] = generation.tokens.as_slice() else { return Ok(Vec::new()) };
        if chat.top_logprobs == 0 {
            return Ok(Vec::new());
        }
        let decoder = self.judge.decoder;
        let mut forest = Forest::new();
        forest.add(None, &[prompt, before].concat());
        let (hidden, _) =
            decoder.infer(&forest, &[]).map_err(|error| embedded::fault_of(&error))?;
        let rows: Vec<usize> = (prompt.len() - 1..forest.num_tokens()).collect();
        // As for drawn tokens: those of greedy answers are told untempered.
        let temperature = if chat.temperature > 0.0 { chat.temperature as f32 } else { 1.0 };
        Ok(decoder.most_probable(&hidden, &rows, chat.top_logprobs, temperature))
    }

    fn chat_answer(
        &self,
        generation: &Generation,
        alternatives: Vec<Vec<(u32, f32)>>,
    ) -> ChatAnswer {
        let tokenizer = self.text.judge.tokenizer();
        let known = |(id, logprob): (u32, f32)| {
            (tokenizer.token_bytes(id).unwrap_or_default(), f64::from(logprob))
        };
        let each = generation.tokens.iter().zip(&generation.logprobs);
        let mut alternatives = alternatives.into_iter();
        let tokens = each.map(|(&id, &logprob)| ChatToken {
            bytes: tokenizer.token_bytes(id).unwrap_or_default(),
            logprob: f64::from(logprob),
            alternatives: alternatives.next().into_iter().flatten().map(known).collect(),
        });
        ChatAnswer {
            text: tokenizer.decode(&generation.tokens, ControlTokens::Skip),
            num_tokens: generation.tokens.len(),
            truncated: generation.stop == StopReason::MaxTokens,
            tokens: tokens.collect(),
        }
    }
}

fn delivery(ask: &Ask) -> Delivery {
    match ask {
        Ask::Judge(judge) => judge.delivery,
        Ask::Chat(chat) => chat.delivery,
        Ask::Compare(_) | Ask::Sequence(_) => Delivery::Whole,
    }
}

impl ServedEngine for GenerativeEngine<'_> {
    fn submit(&mut self, id: WorkId, work: Prepared) {
        if let Err(fault) = self.start(id, work) {
            self.refused.push((id, fault));
        }
    }

    fn step(&mut self, report: &mut dyn FnMut(Event)) {
        for (id, fault) in self.refused.drain(..) {
            report(Event::Done { id, result: Err(fault) });
        }
        let finished = self.engine.step();
        self.stream(report);
        for generation in finished {
            self.finish(generation, report);
        }
    }

    fn cancel(&mut self, id: WorkId) {
        self.refused.retain(|(other, _)| *other != id);
        let Some(work) = self.works.remove(&id) else { return };
        for request in work.requests {
            if self.owners.remove(&request).is_some() {
                self.engine.cancel(request);
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.engine.is_idle() && self.refused.is_empty()
    }

    fn counters(&self) -> Counters {
        let counters = self.engine.counters();
        Counters {
            prompt_tokens: counters.prefill_tokens,
            shared_tokens: counters.shared_tokens,
            generated_tokens: counters.decoded_tokens,
        }
    }
}
