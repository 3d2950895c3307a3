//! A scalar reward model behind the seam of a server.
//!
//! Everything that waits runs in one forest, in which common beginnings are computed
//! once: a prompt for all its responses, a chat template's head for everybody.

use std::collections::VecDeque;
use std::sync::Arc;

use patarm_models::files::RewardConfig;
use patarm_models::{Decoder, ScalarHead, SharedPrefixes};
use patarm_text::template::RenderOptions;

use super::{
    Answer, Ask, Counters, Event, Family, ModelCard, Prepared, Sequence, ServedEngine, ServedModel,
    ServedText, SpecialTokens, WorkId,
};
use crate::embedded::ReadOut;
use crate::model::ItemFault;
use crate::scalar::{SCORING_TOKENS, ScalarText};
use crate::voting::VoteCombine;

/// A scalar reward model that can be served.
#[derive(Debug)]
pub struct ScalarModel {
    decoder: Decoder,
    head: ScalarHead,
    batch_tokens: usize,
    text: Arc<ScalarServedText>,
}

impl ScalarModel {
    /// Serves a decoder and its head under a name. `revision` tells apart models of one
    /// name.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        (decoder, head): (Decoder, ScalarHead),
        text: ScalarText,
        config: &RewardConfig,
        revision: Option<String>,
    ) -> Self {
        let card = ModelCard {
            name: name.into(),
            family: Family::Scalar,
            max_tokens: decoder.shape.max_positions,
            votes: 1,
            read_out: ReadOut::Expected,
            combine: VoteCombine::Mean,
            scale: None,
            normalisation: config.mean.zip(config.std),
            template: None,
            revision,
        };
        let vocab = decoder.shape.vocab;
        let text = Arc::new(ScalarServedText { text, vocab, card });
        Self { decoder, head, batch_tokens: SCORING_TOKENS, text }
    }

    /// The same model with forwards of at most so many tokens; an item is never split.
    #[must_use]
    pub fn with_batch_tokens(self, batch_tokens: usize) -> Self {
        Self { batch_tokens, ..self }
    }
}

impl ServedModel for ScalarModel {
    fn text(&self) -> Arc<dyn ServedText> {
        Arc::<ScalarServedText>::clone(&self.text)
    }

    fn engine(&self) -> Box<dyn ServedEngine + '_> {
        Box::new(ScalarEngine {
            model: self,
            waiting: VecDeque::new(),
            counters: Counters::default(),
        })
    }
}

#[derive(Debug)]
struct ScalarServedText {
    text: ScalarText,
    vocab: usize,
    card: ModelCard,
}

impl ScalarServedText {
    fn tokens(&self, ask: &Ask) -> Result<Vec<u32>, ItemFault> {
        let refused = |error: &dyn std::fmt::Display| ItemFault::Unsupported(error.to_string());
        let tokenizer = self.text.tokenizer();
        match ask {
            Ask::Judge(judge) => {
                let encoded =
                    self.text.encode(&judge.request.item).map_err(|error| refused(&error))?;
                Ok([encoded.prompt, encoded.response].concat())
            }
            Ask::Sequence(Sequence::Text { text, special_tokens }) => {
                let special = tokenizer.special_ids();
                let is_added = *special_tokens == SpecialTokens::Add && special.add_bos;
                let mut tokens: Vec<u32> = special.bos.filter(|_| is_added).into_iter().collect();
                tokens.extend(tokenizer.encode_template(text).map_err(|error| refused(&error))?);
                Ok(tokens)
            }
            Ask::Sequence(Sequence::Ids(ids)) => {
                match ids.iter().find(|id| **id as usize >= self.vocab) {
                    Some(id) => Err(refused(&format!("token id {id} is outside the vocabulary"))),
                    None => Ok(ids.clone()),
                }
            }
            Ask::Sequence(Sequence::Conversation { conversation, ends_open }) => {
                let Some(template) = self.text.template() else {
                    return Err(refused(&"the model has no chat template: send text"));
                };
                let options =
                    RenderOptions { add_generation_prompt: *ends_open, ..RenderOptions::default() };
                template.encode(tokenizer, conversation, &options).map_err(|error| refused(&error))
            }
            Ask::Compare(_) | Ask::Chat(_) => {
                Err(refused(&"this model gives one number a response and writes nothing"))
            }
        }
    }
}

impl ServedText for ScalarServedText {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn prepare(&self, ask: Ask) -> Result<Prepared, ItemFault> {
        let tokens = self.tokens(&ask)?;
        if tokens.is_empty() {
            return Err(ItemFault::Unsupported("there is nothing to score".into()));
        }
        if tokens.len() > self.card.max_tokens {
            return Err(ItemFault::Overlong { tokens: tokens.len(), limit: self.card.max_tokens });
        }
        Ok(Prepared::tokens(ask, vec![vec![tokens]], 0))
    }
}

struct ScalarEngine<'a> {
    model: &'a ScalarModel,
    waiting: VecDeque<(WorkId, Prepared)>,
    counters: Counters,
}

/// The tokens of prepared work.
fn sequence(work: &Prepared) -> &[u32] {
    work.prompts().first().and_then(|prompt| prompt.first()).map_or(&[], Vec::as_slice)
}

impl ScalarEngine<'_> {
    /// The next forward: work in its order, as much as fits.
    fn batch(&mut self) -> (Vec<WorkId>, SharedPrefixes) {
        let (mut ids, mut prefixes) = (Vec::new(), SharedPrefixes::default());
        while let Some((id, work)) = self.waiting.pop_front() {
            let tokens = sequence(&work);
            let missing = prefixes.missing(tokens);
            if !ids.is_empty() && prefixes.num_tokens() + missing > self.model.batch_tokens {
                self.waiting.push_front((id, work));
                break;
            }
            self.counters.shared_tokens += (tokens.len() - missing) as u64;
            prefixes.add(tokens);
            ids.push(id);
        }
        self.counters.prompt_tokens += prefixes.num_tokens() as u64;
        (ids, prefixes)
    }
}

impl ServedEngine for ScalarEngine<'_> {
    fn submit(&mut self, id: WorkId, work: Prepared) {
        self.waiting.push_back((id, work));
    }

    fn step(&mut self, report: &mut dyn FnMut(Event)) {
        let (ids, prefixes) = self.batch();
        if ids.is_empty() {
            return;
        }
        let (forest, rows) = prefixes.finish();
        let decoder = &self.model.decoder;
        let values = match self.model.head.infer(decoder, &forest, &rows) {
            Ok(output) => Ok(output.values().to_vec()),
            Err(error) => Err(ItemFault::Engine(error.to_string())),
        };
        for (index, id) in ids.into_iter().enumerate() {
            let result = values.as_ref().map_err(Clone::clone).and_then(|values| {
                let value = values.get(index).copied().unwrap_or(f32::NAN);
                match value.is_finite() {
                    true => Ok(Answer::Score(f64::from(value))),
                    false => Err(ItemFault::Engine("the score is not a finite number".into())),
                }
            });
            report(Event::Done { id, result });
        }
    }

    fn cancel(&mut self, id: WorkId) {
        self.waiting.retain(|(other, _)| *other != id);
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
