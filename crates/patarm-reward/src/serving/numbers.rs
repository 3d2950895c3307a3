//! Reward models that give numbers and write nothing, behind the seam of a server.
//!
//! What waits runs in forests in which common beginnings are computed once: a prompt for
//! all its responses, whoever asked about them, a chat template's head for everybody.

use std::sync::Arc;

use patarm_models::files::RewardConfig;
use patarm_models::{Decoder, SharedPrefixes};

use super::reading::{Reading, normalisation, refused};
use super::{
    Ask, Counters, Event, ModelCard, Prepared, ServedEngine, ServedModel, ServedText, Step,
    StepEngine, Waiting, WorkId,
};
use crate::embedded::ReadOut;
use crate::model::ItemFault;
use crate::scalar::SCORING_TOKENS;
use crate::voting::VoteCombine;

/// A scalar, ordinal or token-level reward model that can be served.
#[derive(Debug)]
pub struct NumberModel {
    decoder: Decoder,
    batch_tokens: usize,
    text: Arc<NumberText>,
}

impl NumberModel {
    /// Serves a decoder under a name. `revision` tells apart models of one name.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        decoder: Decoder,
        reading: Reading,
        config: &RewardConfig,
        revision: Option<String>,
    ) -> Self {
        let card = ModelCard {
            name: name.into(),
            family: reading.family(),
            max_tokens: decoder.shape.max_positions,
            votes: 1,
            read_out: ReadOut::Expected,
            combine: VoteCombine::Mean,
            scale: reading.scale(),
            normalisation: normalisation(config),
            template: None,
            revision,
        };
        let vocab = decoder.shape.vocab;
        let text = Arc::new(NumberText { reading, vocab, card });
        Self { decoder, batch_tokens: SCORING_TOKENS, text }
    }

    /// The same model with forwards of at most so many tokens; an item is never split.
    #[must_use]
    pub fn with_batch_tokens(self, batch_tokens: usize) -> Self {
        Self { batch_tokens, ..self }
    }
}

impl ServedModel for NumberModel {
    fn text(&self) -> Arc<dyn ServedText> {
        Arc::<NumberText>::clone(&self.text)
    }

    fn engine(&self) -> Box<dyn ServedEngine + '_> {
        Box::new(StepEngine::new(Forward { model: self }))
    }
}

#[derive(Debug)]
struct NumberText {
    reading: Reading,
    vocab: usize,
    card: ModelCard,
}

impl ServedText for NumberText {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn prepare(&self, ask: Ask) -> Result<Prepared, ItemFault> {
        let pieces = self.reading.pieces(&ask, self.vocab)?;
        match pieces.iter().map(Vec::len).sum() {
            0 => Err(refused(&"there is nothing to score")),
            tokens if tokens > self.card.max_tokens => {
                Err(ItemFault::Overlong { tokens, limit: self.card.max_tokens })
            }
            _ => Ok(Prepared::tokens(ask, vec![pieces], 0)),
        }
    }
}

/// One forward over as much as fits.
struct Forward<'a> {
    model: &'a NumberModel,
}

/// The works of a forward and their tokens as a forest.
#[derive(Default)]
struct Batch {
    works: Vec<(WorkId, Prepared)>,
    prefixes: SharedPrefixes,
    shared_tokens: usize,
}

impl Batch {
    /// Takes a sequence's tokens, if they fit.
    fn admits(&mut self, tokens: &[u32], limit: usize) -> bool {
        let missing = self.prefixes.missing(tokens);
        if !self.prefixes.is_empty() && self.prefixes.num_tokens() + missing > limit {
            return false;
        }
        self.shared_tokens += tokens.len() - missing;
        self.prefixes.add(tokens);
        true
    }
}

/// The tokens of prepared work.
fn tokens(work: &Prepared) -> impl Iterator<Item = u32> {
    work.prompts().iter().flatten().flatten().copied()
}

/// Whether at least half of a piece of work is another sequence's beginning.
fn shares_half(work: &Prepared, other: &[u32]) -> bool {
    let common = tokens(work).zip(other).take_while(|(own, other)| own == *other).count();
    2 * common >= work.num_prompt_tokens()
}

impl Forward<'_> {
    /// The next forward: work in its order, but whoever shares a beginning with what is
    /// taken comes along. The oldest piece is always in it, so nobody is passed over for
    /// longer than it takes to become that.
    fn batch(&self, waiting: &mut Waiting) -> Batch {
        let limit = self.model.batch_tokens;
        let mut batch = Batch::default();
        while let Some(first) = waiting.first().map(|work| tokens(work).collect::<Vec<u32>>()) {
            if !batch.admits(&first, limit) {
                break;
            }
            batch.works.extend(waiting.pop());
            let kin = waiting.take_if(|work| {
                shares_half(work, &first)
                    && batch.admits(&tokens(work).collect::<Vec<u32>>(), limit)
            });
            batch.works.extend(kin);
        }
        batch
    }
}

impl Step for Forward<'_> {
    fn step(
        &mut self,
        waiting: &mut Waiting,
        counters: &mut Counters,
        report: &mut dyn FnMut(Event),
    ) {
        let Batch { works, prefixes, shared_tokens } = self.batch(waiting);
        if works.is_empty() {
            return;
        }
        counters.shared_tokens += shared_tokens as u64;
        counters.prompt_tokens += prefixes.num_tokens() as u64;
        let (forest, rows) = prefixes.finish();
        let decoder = &self.model.decoder;
        let placed: Vec<(&Prepared, Vec<usize>)> =
            works.iter().map(|(_, work)| work).zip(rows).collect();
        match self.model.text.reading.answers(decoder, &forest, &placed) {
            Ok(answers) => {
                for ((id, _), result) in works.iter().zip(answers) {
                    report(Event::Done { id: *id, result });
                }
            }
            Err(error) => {
                for (id, _) in works {
                    let result = Err(ItemFault::Engine(error.to_string()));
                    report(Event::Done { id, result });
                }
            }
        }
    }
}
