//! The embedded judge behind the seam of a server: prompts.

use std::sync::Arc;

use patarm_models::{Decoder, EngineLimits};
use patarm_text::template::{ChatTemplate, RenderOptions};
use patarm_text::{Item, Task};

use super::generative_engine::GenerativeEngine;
use super::{
    Ask, ChatAsk, CompareAsk, Family, JudgeAsk, ModelCard, Prepared, Sequence, ServedEngine,
    ServedModel, ServedText,
};
use crate::embedded::{JudgeSettings, JudgeText, ReadOut};
use crate::error::Result;
use crate::model::ItemFault;
use crate::voting::VoteCombine;

/// An embedded judge that can be served.
#[derive(Debug)]
pub struct GenerativeModel {
    decoder: Decoder,
    limits: EngineLimits,
    text: Arc<GenerativeText>,
}

impl GenerativeModel {
    /// Serves `decoder` with the words and settings of `text`.
    #[must_use]
    pub fn new(decoder: Decoder, text: GenerativeText, limits: EngineLimits) -> Self {
        let mut text = text;
        let fits = decoder.shape.max_positions.min(limits.slots);
        text.card.max_tokens = text.card.max_tokens.min(fits);
        Self { decoder, limits, text: Arc::new(text) }
    }
}

impl ServedModel for GenerativeModel {
    fn text(&self) -> Arc<dyn ServedText> {
        Arc::<GenerativeText>::clone(&self.text)
    }

    fn engine(&self) -> Box<dyn ServedEngine + '_> {
        Box::new(GenerativeEngine::new(&self.decoder, &self.text, self.limits))
    }
}

/// The words of an embedded judge.
#[derive(Debug)]
pub struct GenerativeText {
    pub(super) judge: JudgeText,
    pub(super) settings: JudgeSettings,
    chat: Option<ChatTemplate>,
    card: ModelCard,
}

impl GenerativeText {
    /// A judge called `name` that speaks as `judge` says and generates as `settings` say.
    ///
    /// # Errors
    /// When the model's chat template cannot be compiled.
    pub fn new(
        name: impl Into<String>,
        judge: JudgeText,
        settings: JudgeSettings,
        revision: Option<String>,
    ) -> Result<Self> {
        let chat = ChatTemplate::from_tokenizer(judge.tokenizer())
            .map_err(|error| crate::error::Error::new(crate::error::ErrorKind::Template, error))?;
        let scale = judge.format().scale;
        let card = ModelCard {
            name: name.into(),
            family: Family::Generative,
            max_tokens: usize::MAX,
            votes: settings.votes.max(1),
            read_out: settings.read_out,
            combine: VoteCombine::Mean,
            scale: Some((scale.min, scale.max)),
            normalisation: None,
            template: Some(judge.template().name().to_owned()),
            revision,
        };
        Ok(Self { judge, settings, chat, card })
    }

    /// Tokens that one judgement may take in the cache.
    fn judgement_tokens(&self) -> usize {
        let reads = self.settings.read_out == ReadOut::Expected;
        let branches: usize = match reads {
            true => self.judge.outcomes().iter().map(|outcome| outcome.tokens.len()).sum(),
            false => 0,
        };
        self.settings.max_tokens + branches + 1
    }

    fn check(&self, prompt: &[Vec<u32>], generated: usize) -> std::result::Result<(), ItemFault> {
        let tokens = prompt.iter().map(Vec::len).sum::<usize>() + generated;
        match tokens > self.card.max_tokens {
            true => Err(ItemFault::Overlong { tokens, limit: self.card.max_tokens }),
            false => Ok(()),
        }
    }

    fn judge_prompt(
        &self,
        item: &Item,
        task: Option<Task>,
    ) -> std::result::Result<Vec<Vec<u32>>, ItemFault> {
        let prompt = self.judge.encode(item, task).map_err(|error| refused(&error))?;
        self.check(&prompt, self.judgement_tokens())?;
        Ok(prompt)
    }

    fn prepare_judge(&self, judge: JudgeAsk) -> std::result::Result<Prepared, ItemFault> {
        let prompt = self.judge_prompt(&judge.request.item, judge.request.task)?;
        let generated = judge.votes.max(1) * self.judgement_tokens();
        Ok(Prepared::tokens(Ask::Judge(judge), vec![prompt], generated))
    }

    fn prepare_compare(&self, compare: CompareAsk) -> std::result::Result<Prepared, ItemFault> {
        let request = &compare.request;
        let [first, second] = [&request.responses[0], &request.responses[1]].map(String::as_str);
        let mut prompts = Vec::with_capacity(2);
        for shown in [[first, second], [second, first]] {
            let prompt = self
                .judge
                .encode_pairwise(&request.prompt, shown, request.task)
                .map_err(|error| refused(&error))?;
            self.check(&prompt, self.settings.max_tokens + 1)?;
            prompts.push(prompt);
        }
        let generated = 2 * compare.votes.max(1) * (self.settings.max_tokens + 1);
        Ok(Prepared::tokens(Ask::Compare(compare), prompts, generated))
    }

    fn prepare_chat(&self, chat: ChatAsk) -> std::result::Result<Prepared, ItemFault> {
        let options =
            RenderOptions { enable_thinking: Some(false), ..RenderOptions::for_generation() };
        let tokenizer = self.judge.tokenizer();
        let prompt = match &self.chat {
            Some(template) => template.encode(tokenizer, &chat.conversation, &options),
            None => tokenizer.encode_text(&chat.conversation.transcript()),
        };
        let prompt = prompt.map_err(|error| ItemFault::Unsupported(error.to_string()))?;
        if prompt.is_empty() {
            return Err(ItemFault::Unsupported("the conversation is empty".into()));
        }
        let room = self.card.max_tokens.saturating_sub(prompt.len() + 1);
        let generated = match chat.max_tokens {
            Some(tokens) => tokens,
            None => self.settings.max_tokens.min(room),
        };
        let prompt = vec![prompt];
        self.check(&prompt, generated.max(1) + 1)?;
        let chat = ChatAsk { max_tokens: Some(generated.max(1)), ..chat };
        Ok(Prepared::tokens(Ask::Chat(chat), vec![prompt], generated))
    }
}

fn refused(error: &crate::error::Error) -> ItemFault {
    ItemFault::Unsupported(error.to_string())
}

impl ServedText for GenerativeText {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn prepare(&self, ask: Ask) -> std::result::Result<Prepared, ItemFault> {
        match ask {
            Ask::Judge(judge) => self.prepare_judge(judge),
            Ask::Compare(compare) => self.prepare_compare(compare),
            Ask::Chat(chat) => self.prepare_chat(chat),
            Ask::Sequence(Sequence::Text { .. } | Sequence::Ids(_)) => {
                let message = "a generative judge needs prompt and response apart: send messages \
                               that end with the response";
                Err(ItemFault::Unsupported(message.into()))
            }
            Ask::Sequence(Sequence::Conversation { conversation, .. }) => {
                let item = split_last_turn(conversation)?;
                self.prepare_judge(JudgeAsk::new(item, None, self.card.votes))
            }
        }
    }
}

/// Takes a conversation that ends with the model's turn apart into prompt and response.
pub(super) fn split_last_turn(
    mut conversation: patarm_text::Conversation,
) -> std::result::Result<Item, ItemFault> {
    let last = conversation.messages.pop();
    match last {
        Some(last)
            if last.role == patarm_text::Role::Assistant && !conversation.messages.is_empty() =>
        {
            Ok(Item { prompt: conversation, response: last.plain_text() })
        }
        _ => Err(ItemFault::Unsupported(
            "the last message must be the assistant's: it is what is scored".into(),
        )),
    }
}
