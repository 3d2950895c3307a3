//! A judge behind the seam of a server, with a memory in front of it.
//!
//! The memory is that of evaluation: what was judged there is known here, and the other
//! way round. Comparisons and chat answers are not kept.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{
    Answer, Ask, Counters, Delivery, Event, JudgeAsk, Prepared, ServedEngine, ServedModel,
    ServedText, WorkId,
};
use crate::cache::judged::AnswerCache;
use crate::error::Error;
use crate::judgement::Judgement;

/// Hears of answers that could not be kept; they are given all the same.
type OnFailure = Box<dyn Fn(&Error) + Send + Sync>;

/// A judge whose judgements are kept.
pub struct CachedModel {
    inner: Box<dyn ServedModel>,
    cache: Arc<AnswerCache<'static>>,
    on_failure: OnFailure,
}

impl std::fmt::Debug for CachedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedModel").field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl CachedModel {
    /// Puts a memory in front of a model. `on_failure` hears of answers that could not
    /// be kept.
    #[must_use]
    pub fn new(
        inner: Box<dyn ServedModel>,
        cache: Arc<AnswerCache<'static>>,
        on_failure: OnFailure,
    ) -> Self {
        Self { inner, cache, on_failure }
    }
}

impl ServedModel for CachedModel {
    fn text(&self) -> Arc<dyn ServedText> {
        self.inner.text()
    }

    fn engine(&self) -> Box<dyn ServedEngine + '_> {
        let (known, asked) = (VecDeque::new(), HashMap::new());
        Box::new(CachedEngine { inner: self.inner.engine(), model: self, known, asked })
    }
}

struct CachedEngine<'a> {
    inner: Box<dyn ServedEngine + 'a>,
    model: &'a CachedModel,
    /// What is known and not reported yet.
    known: VecDeque<(WorkId, Delivery, Vec<Judgement>)>,
    /// What the judge was asked.
    asked: HashMap<WorkId, JudgeAsk>,
}

impl ServedEngine for CachedEngine<'_> {
    fn submit(&mut self, id: WorkId, work: Prepared) {
        if let Ask::Judge(ask) = work.ask() {
            if let Some(known) = self.model.cache.judgements(&ask.request, ask.votes) {
                self.known.push_back((id, ask.delivery, known));
                return;
            }
            self.asked.insert(id, ask.clone());
        }
        self.inner.submit(id, work);
    }

    fn step(&mut self, report: &mut dyn FnMut(Event)) {
        for (id, delivery, judgements) in self.known.drain(..) {
            if delivery == Delivery::Streamed {
                for (vote, judgement) in judgements.iter().enumerate() {
                    report(Event::Text { id, vote, text: judgement.text.clone() });
                }
            }
            report(Event::Done { id, result: Ok(Answer::Judgements(judgements)) });
        }
        if self.inner.is_idle() {
            return;
        }
        let (cache, asked) = (&self.model.cache, &mut self.asked);
        self.inner.step(&mut |event| {
            if let Event::Done { id, result } = &event
                && let Some(ask) = asked.remove(id)
                && let Ok(Answer::Judgements(judgements)) = result
            {
                cache.keep_judgements(&ask.request, ask.votes, judgements);
            }
            report(event);
        });
        if let Some(error) = cache.take_write_error() {
            (self.model.on_failure)(&error);
        }
    }

    fn cancel(&mut self, id: WorkId) {
        self.known.retain(|(other, ..)| *other != id);
        self.asked.remove(&id);
        self.inner.cancel(id);
    }

    fn is_idle(&self) -> bool {
        self.known.is_empty() && self.inner.is_idle()
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}
