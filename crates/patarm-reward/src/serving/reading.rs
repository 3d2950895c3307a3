//! How models that write nothing turn texts into tokens and hidden states into numbers.

use patarm_models::files::RewardConfig;
use patarm_models::{Decoder, Forest, LinearHead, ScalarHead};
use patarm_text::template::RenderOptions;

use super::generative::split_last_turn;
use super::{Answer, Ask, Family, Prepared, Sequence, SpecialTokens};
use crate::model::{ItemFault, Reward};
use crate::ordinal::{self, OrdinalText};
use crate::scalar::{EncodedItem, ScalarText};
use crate::token_values;

/// What a number is read from.
#[derive(Debug)]
pub enum Reading {
    /// A head that gives an item one number.
    Scalar(ScalarText, ScalarHead),
    /// A head on every token of the response, whose mean counts.
    Token(ScalarText, LinearHead),
    /// The model's own digits after a question.
    Ordinal(OrdinalText),
}

impl Reading {
    pub(super) fn family(&self) -> Family {
        match self {
            Self::Scalar(..) => Family::Scalar,
            Self::Token(..) => Family::Token,
            Self::Ordinal(_) => Family::Ordinal,
        }
    }

    /// Smallest and largest number, where there are such.
    pub(super) fn scale(&self) -> Option<(f64, f64)> {
        match self {
            Self::Scalar(..) | Self::Token(..) => None,
            Self::Ordinal(_) => Some((1.0, ordinal::NUM_RATINGS as f64)),
        }
    }

    /// What is asked as token ids: one piece for a whole sequence; for an item what
    /// stands before the response's scored tokens, these, and what follows.
    pub(super) fn pieces(&self, ask: &Ask, vocab: usize) -> Result<Vec<Vec<u32>>, ItemFault> {
        match (self, ask) {
            (_, Ask::Judge(judge)) => self.item(&judge.request.item),
            (_, Ask::Compare(_) | Ask::Chat(_)) => {
                Err(refused(&"this model gives one number a response and writes nothing"))
            }
            (Self::Scalar(text, _), Ask::Sequence(sequence)) => {
                tokens(text, sequence, vocab).map(|tokens| vec![tokens])
            }
            (_, Ask::Sequence(Sequence::Conversation { conversation, .. })) => {
                self.item(&split_last_turn(conversation.clone())?)
            }
            (_, Ask::Sequence(Sequence::Text { .. } | Sequence::Ids(_))) => Err(refused(
                &"this model needs prompt and response apart: send messages that end with the \
                  response",
            )),
        }
    }

    fn item(&self, item: &patarm_text::Item) -> Result<Vec<Vec<u32>>, ItemFault> {
        let encoded = match self {
            Self::Scalar(text, _) | Self::Token(text, _) => text.encode(item),
            Self::Ordinal(text) => text.encode(item),
        };
        let EncodedItem { prompt, mut response, num_scored, .. } =
            encoded.map_err(|error| refused(&error))?;
        let after = response.split_off(num_scored);
        Ok(vec![prompt, response, after])
    }

    /// What each piece of work yields, from one forward; `rows` are those of its tokens
    /// in the forest.
    pub(super) fn answers(
        &self,
        decoder: &Decoder,
        forest: &Forest,
        works: &[(&Prepared, Vec<usize>)],
    ) -> Result<Vec<Result<Answer, ItemFault>>, patarm_models::Error> {
        let last: Vec<usize> = works.iter().filter_map(|(_, rows)| rows.last().copied()).collect();
        Ok(match self {
            Self::Scalar(_, head) => {
                let output = head.infer(decoder, forest, &last)?;
                let values = output.values().iter();
                values.map(|value| finite(Reward::of(f64::from(*value)))).collect()
            }
            Self::Token(text, head) => token_answers((text, head), decoder, forest, works)?,
            Self::Ordinal(text) => {
                let (hidden, _) = decoder.infer(forest, &[])?;
                let rewards = ordinal::rewards(decoder, &hidden, (&last, text.digits()));
                rewards.into_iter().map(finite).collect()
            }
        })
    }
}

/// Values of every scored token of every piece of work.
fn token_answers(
    (text, head): (&ScalarText, &LinearHead),
    decoder: &Decoder,
    forest: &Forest,
    works: &[(&Prepared, Vec<usize>)],
) -> Result<Vec<Result<Answer, ItemFault>>, patarm_models::Error> {
    let scored = |(work, rows): &(&Prepared, Vec<usize>)| {
        let pieces = pieces_of(work);
        let (before, own) = (len(pieces, 0), len(pieces, 1));
        rows.get(before..before + own).unwrap_or_default().to_vec()
    };
    let rows: Vec<Vec<usize>> = works.iter().map(scored).collect();
    let (hidden, _) = decoder.infer(forest, &[])?;
    let values = head.forward(decoder, &hidden, &rows.concat()).values;
    let mut rest = values.as_slice();
    let mut answers = Vec::with_capacity(works.len());
    for ((work, _), rows) in works.iter().zip(&rows) {
        let (own, after) = rest.split_at(rows.len());
        let tokens = pieces_of(work).get(1).map_or(&[][..], Vec::as_slice);
        answers.push(finite(token_values::reward(text, tokens, own)));
        rest = after;
    }
    Ok(answers)
}

/// Mean and deviation of the rewards, where the checkpoint has both.
pub(super) fn normalisation(config: &RewardConfig) -> Option<(f64, f64)> {
    config.mean.zip(config.std)
}

fn pieces_of(work: &Prepared) -> &[Vec<u32>] {
    work.prompts().first().map_or(&[], Vec::as_slice)
}

fn len(pieces: &[Vec<u32>], index: usize) -> usize {
    pieces.get(index).map_or(0, Vec::len)
}

fn finite(reward: Reward) -> Result<Answer, ItemFault> {
    match reward.value.is_finite() {
        true => Ok(Answer::Reward(Box::new(reward))),
        false => Err(ItemFault::Engine("the score is not a finite number".into())),
    }
}

fn tokens(text: &ScalarText, sequence: &Sequence, vocab: usize) -> Result<Vec<u32>, ItemFault> {
    let tokenizer = text.tokenizer();
    match sequence {
        Sequence::Text { text, special_tokens } => {
            let special = tokenizer.special_ids();
            let is_added = *special_tokens == SpecialTokens::Add && special.add_bos;
            let mut tokens: Vec<u32> = special.bos.filter(|_| is_added).into_iter().collect();
            tokens.extend(tokenizer.encode_template(text).map_err(|error| refused(&error))?);
            Ok(tokens)
        }
        Sequence::Ids(ids) => match ids.iter().find(|id| **id as usize >= vocab) {
            Some(id) => Err(refused(&format!("token id {id} is outside the vocabulary"))),
            None => Ok(ids.clone()),
        },
        Sequence::Conversation { conversation, ends_open } => {
            let Some(template) = text.template() else {
                return Err(refused(&"the model has no chat template: send text"));
            };
            let options =
                RenderOptions { add_generation_prompt: *ends_open, ..RenderOptions::default() };
            template.encode(tokenizer, conversation, &options).map_err(|error| refused(&error))
        }
    }
}

pub(super) fn refused(error: &dyn std::fmt::Display) -> ItemFault {
    ItemFault::Unsupported(error.to_string())
}
