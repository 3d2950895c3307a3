//! A conversation with a response as token ids, cut where the response begins.

use std::sync::Arc;

use patarm_text::template::{ChatTemplate, RenderOptions, Segment, SegmentKind};
use patarm_text::tokenizer::{ControlTokens, DecodeStream, Tokenizer};
use patarm_text::{Item, Message, Role};

use crate::error::{Error, ErrorKind, Result};

/// How reward models that read a whole conversation see an item: the model's own chat
/// template, or plain text where it has none.
#[derive(Clone, Debug)]
pub struct ScalarText {
    tokenizer: Arc<Tokenizer>,
    template: Option<Arc<ChatTemplate>>,
}

/// An item as two segments; equal prompts are equal segments, so that a forest computes
/// them once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EncodedItem {
    /// Everything before the response.
    pub prompt: Vec<u32>,
    /// The response and what ends its turn.
    pub response: Vec<u32>,
    /// How many tokens of `response` are the response's own.
    pub num_content: usize,
    /// How many are the response's own and the token that ends its turn, where one does.
    pub num_scored: usize,
}

impl EncodedItem {
    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.prompt.len() + self.response.len()
    }

    /// Whether there is no token at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prompt.is_empty() && self.response.is_empty()
    }
}

impl ScalarText {
    /// Binds the tokenizer's own chat template.
    ///
    /// # Errors
    /// When the template cannot be compiled.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Result<Self> {
        let template = ChatTemplate::from_tokenizer(&tokenizer).map_err(refused)?;
        Ok(Self { tokenizer, template: template.map(Arc::new) })
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The model's own chat template, where it has one.
    #[must_use]
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_deref()
    }

    /// Encodes an item; data never yields a control token, whatever it spells.
    ///
    /// # Errors
    /// When the response is empty, or the chat template refuses the conversation or
    /// does not show the response.
    pub fn encode(&self, item: &Item) -> Result<EncodedItem> {
        refuse_empty(item)?;
        match &self.template {
            Some(template) => self.encode_chat(template, item),
            None => self.encode_plain(item),
        }
    }

    fn encode_chat(&self, template: &ChatTemplate, item: &Item) -> Result<EncodedItem> {
        let mut conversation = item.prompt.clone();
        let response = conversation.messages.len();
        conversation.messages.push(Message::text(Role::Assistant, item.response.as_str()));
        let segments =
            template.render_segments(&conversation, &RenderOptions::default()).map_err(refused)?;
        let is_response = |segment: &Segment| matches!(segment.kind, SegmentKind::Content { message, .. } if message == response);
        let Some(start) = segments.iter().position(is_response) else {
            return Err(Error::new(
                ErrorKind::Template,
                "the model's chat template does not show the response",
            ));
        };
        let end = segments.iter().rposition(is_response).map_or(start, |last| last + 1);
        let mut encoded =
            EncodedItem { prompt: Vec::new(), response: Vec::new(), num_content: 0, num_scored: 0 };
        for (index, segment) in segments.iter().enumerate() {
            let tokens = segment.encode(&self.tokenizer).map_err(refused)?;
            if index < start {
                encoded.prompt.extend(tokens);
            } else {
                encoded.response.extend(tokens);
            }
            if index + 1 == end {
                encoded.num_content = encoded.response.len();
            }
        }
        let after = &encoded.response[encoded.num_content..];
        let end = after.iter().position(|id| self.tokenizer.eos_ids().contains(id));
        encoded.num_scored = encoded.num_content + end.map_or(0, |place| place + 1);
        Ok(encoded)
    }

    /// Without a chat template: begin token, prompt, a line break, response, end token.
    fn encode_plain(&self, item: &Item) -> Result<EncodedItem> {
        let special = self.tokenizer.special_ids();
        let mut prompt: Vec<u32> = special.bos.into_iter().collect();
        let text = format!("{}\n", item.prompt.transcript());
        prompt.extend(self.tokenizer.encode_text(&text).map_err(refused)?);
        let mut response = self.tokenizer.encode_text(&item.response).map_err(refused)?;
        let num_content = response.len();
        response.extend(special.eos.first());
        let num_scored = response.len();
        Ok(EncodedItem { prompt, response, num_content, num_scored })
    }

    /// A padding id other libraries may use without hiding the last token: they look for
    /// the last token that is not padding. `None` when the vocabulary offers none.
    ///
    /// # Errors
    /// As [`ScalarText::encode`].
    pub fn padding_id(&self, item: &Item) -> Result<Option<u32>> {
        let last = self.encode(item)?.response.last().copied();
        let special = self.tokenizer.special_ids();
        let named = special.pad.into_iter().chain(special.eos.iter().copied()).chain(special.bos);
        let control =
            (0..self.tokenizer.vocab_size() as u32).filter(|id| self.tokenizer.is_control(*id));
        Ok(named.chain(control).find(|id| Some(*id) != last))
    }

    /// The texts of tokens in a row, for showing values beside them: together they are
    /// the text, so that a token that does not complete a character has none.
    #[must_use]
    pub fn token_texts(&self, ids: &[u32]) -> Vec<String> {
        let mut stream = DecodeStream::new(ControlTokens::Keep);
        let mut texts: Vec<String> =
            ids.iter().map(|id| stream.push(&self.tokenizer, *id).to_string()).collect();
        if let Some(last) = texts.last_mut() {
            last.push_str(&stream.finish(&self.tokenizer));
        }
        texts
    }
}

/// Refuses an item without a response.
pub(crate) fn refuse_empty(item: &Item) -> Result<()> {
    if item.response.trim().is_empty() {
        return Err(Error::new(
            ErrorKind::Input,
            "the response is empty; a reward model needs something to score",
        ));
    }
    Ok(())
}

fn refused(error: patarm_text::Error) -> Error {
    Error::new(ErrorKind::Input, error)
}
