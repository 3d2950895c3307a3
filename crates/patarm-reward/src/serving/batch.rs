//! Any reward model, asked for whole batches.

use std::sync::Arc;

use super::generative::split_last_turn;
use super::{
    Answer, Ask, Counters, Event, Family, JudgeAsk, ModelCard, Prepared, Sequence, ServedEngine,
    ServedModel, ServedText, Step, StepEngine, Waiting,
};
use crate::model::{ItemFault, RewardModel};

/// Bytes of text that count as a token where no tokenizer is at hand.
const BYTES_PER_TOKEN: usize = 4;

/// A reward model behind the seam of a server. Everything submitted before a step is
/// scored by one call.
pub struct BatchModel<M> {
    model: M,
    text: Arc<BatchText>,
}

impl<M> std::fmt::Debug for BatchModel<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchModel").field("card", &self.text.card).finish_non_exhaustive()
    }
}

impl<M: RewardModel + Send> BatchModel<M> {
    /// Serves `model` under what `card` says of it.
    #[must_use]
    pub fn new(model: M, card: ModelCard) -> Self {
        Self { model, text: Arc::new(BatchText { card }) }
    }
}

impl<M: RewardModel + Send> ServedModel for BatchModel<M> {
    fn text(&self) -> Arc<dyn ServedText> {
        Arc::<BatchText>::clone(&self.text)
    }

    fn engine(&self) -> Box<dyn ServedEngine + '_> {
        let family = self.text.card.family;
        Box::new(StepEngine::new(BatchStep { model: &self.model, family }))
    }
}

struct BatchText {
    card: ModelCard,
}

impl ServedText for BatchText {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn prepare(&self, ask: Ask) -> Result<Prepared, ItemFault> {
        let ask = match ask {
            Ask::Sequence(Sequence::Conversation { conversation, .. }) => {
                Ask::Judge(JudgeAsk::new(split_last_turn(conversation)?, None, 1))
            }
            other => other,
        };
        let Ask::Judge(judge) = &ask else {
            let message = "this model scores a response to a prompt and does nothing else";
            return Err(ItemFault::Unsupported(message.into()));
        };
        let item = &judge.request.item;
        let bytes = item.prompt.transcript().len() + item.response.len();
        let tokens = bytes.div_ceil(BYTES_PER_TOKEN).max(1);
        if tokens > self.card.max_tokens {
            return Err(ItemFault::Overlong { tokens, limit: self.card.max_tokens });
        }
        Ok(Prepared::plain(ask, tokens, tokens))
    }
}

/// Scores everything submitted in one call.
struct BatchStep<'a> {
    model: &'a dyn RewardModel,
    family: Family,
}

impl Step for BatchStep<'_> {
    fn step(
        &mut self,
        waiting: &mut Waiting,
        counters: &mut Counters,
        report: &mut dyn FnMut(Event),
    ) {
        let (mut ids, mut items) = (Vec::new(), Vec::new());
        for (id, work) in waiting.take() {
            counters.prompt_tokens += work.num_prompt_tokens as u64;
            if let Ask::Judge(judge) = work.ask {
                ids.push(id);
                items.push(judge.request.item);
            }
        }
        let mut results = self.model.score(&items).into_iter();
        for id in ids {
            let lost = || Err(ItemFault::Engine("no result for this item".into()));
            let result = results.next().unwrap_or_else(lost).map(|reward| match self.family {
                Family::Generative => Answer::Judgements(reward.judgements),
                _ => Answer::Reward(Box::new(reward)),
            });
            report(Event::Done { id, result });
        }
    }
}
