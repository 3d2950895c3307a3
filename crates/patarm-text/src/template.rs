//! Chat templates: a conversation as the text, or the token ids, a model expects.
//!
//! Templates are Jinja programs that come with a model. [`ChatTemplate::render`]
//! gives the same string as the reference implementation in `transformers`.
//! [`ChatTemplate::encode`] gives token ids, and there contents stay data: what a
//! message says is encoded with [`Tokenizer::encode_text`], what the template adds
//! around it with [`Tokenizer::encode_template`], and the ids of all segments are
//! concatenated. A response that spells out `<|im_end|>` therefore never ends its
//! turn. [`segments`](self::ChatTemplate::render_segments) says how the two are
//! told apart.

mod context;
mod environment;
mod python_json;
mod segments;

#[cfg(test)]
mod tests;

use std::io;

use minijinja::{Environment, Value};
use serde::Deserialize;

pub use segments::{Segment, SegmentKind};

use crate::conversation::Conversation;
use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::Tokenizer;
use context::Markers;

/// Templates longer than this many bytes are refused.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// Rendered conversations longer than this many bytes are refused.
pub const MAX_OUTPUT_BYTES: usize = 64 << 20;
/// Template instructions one rendering may take.
const MAX_STEPS: u64 = 20_000_000;

/// The ChatML format, for models that come without a template.
pub const CHATML: &str = "{% for message in messages %}\
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// A day, for templates that tell the model what day it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalendarDate {
    /// Year of the Gregorian calendar, 1 to 9999.
    pub year: u16,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
}

/// What a rendering should be like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenderOptions {
    /// Whether to end with what introduces the model's next turn.
    #[serde(default)]
    pub add_generation_prompt: bool,
    /// Passed to templates that can switch thinking on or off.
    #[serde(default)]
    pub enable_thinking: Option<bool>,
    /// What `strftime_now` tells templates, at midnight. Without it the function
    /// is not defined, and templates that know how to fall back do so.
    #[serde(default)]
    pub date: Option<CalendarDate>,
}

impl RenderOptions {
    /// Options for asking the model to answer.
    #[must_use]
    pub fn for_generation() -> Self {
        Self { add_generation_prompt: true, ..Self::default() }
    }
}

/// A chat template, compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles a template. `bos` and `eos` are the texts of the tokens that
    /// templates call `bos_token` and `eos_token`, empty where there is none.
    ///
    /// # Errors
    /// When the source is too long or not a valid template.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        if source.len() > MAX_TEMPLATE_BYTES {
            let context = format!("chat template of {} bytes is too long", source.len());
            return Err(Error::new(ErrorKind::Limit, context));
        }
        let environment = environment::build(NAME, source)?;
        Ok(Self { environment, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The template that came with a tokenizer; `None` where none came.
    ///
    /// # Errors
    /// As [`ChatTemplate::new`].
    pub fn from_tokenizer(tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let (bos, eos) = (tokenizer.bos_text(), tokenizer.eos_text());
        tokenizer.chat_template().map(|source| Self::new(source, &bos, &eos)).transpose()
    }

    /// The conversation as one string, control tokens spelt out.
    ///
    /// # Errors
    /// When the template refuses the conversation, fails, or produces more than
    /// [`MAX_OUTPUT_BYTES`].
    pub fn render(&self, conversation: &Conversation, options: &RenderOptions) -> Result<String> {
        let messages = context::messages(conversation, None)?;
        let tools = context::tools(conversation, None)?;
        self.run(messages, tools, options)
    }

    /// The conversation cut into what the template says and what the data say.
    ///
    /// The concatenation of the segments' texts is [`ChatTemplate::render`]. Every
    /// text part of a message begins a segment of its own. To find the cuts the
    /// template is run with invisible markers around the data. If they change what
    /// the template does, the run is repeated with markers that leave surrounding
    /// whitespace, and the reasoning and tool-call tags beside it, as the template
    /// wants to find them, first in assistant turns, then in all. Such whitespace
    /// and tags then count as the template's, as they do in `transformers`; no
    /// token that begins or ends a turn can come from there. Names and values of
    /// tools made of letters, digits and harmless punctuation are not marked.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], and when the template takes contents apart in
    /// such a way that the cuts cannot be found.
    pub fn render_segments(
        &self,
        conversation: &Conversation,
        options: &RenderOptions,
    ) -> Result<Vec<Segment>> {
        let whole = self.render(conversation, options)?;
        for style in context::Style::ALL {
            let markers = Markers::absent_from(&[&whole], conversation, style)?;
            let messages = context::messages(conversation, Some(&markers))?;
            let tools = context::tools(conversation, Some(&markers))?;
            // The markers may lead the template astray, into an error even.
            let Ok(marked) = self.run(messages, tools, options) else {
                continue;
            };
            if let Some(found) = segments::parse(&marked, &markers)
                && segments::text_equals(&found, &whole)
            {
                return Ok(found);
            }
        }
        let context = "the chat template takes messages apart in a way that mixes them with \
                       its own text; use a simpler template for this model";
        Err(Error::new(ErrorKind::Template, context))
    }

    /// Token ids of the conversation, contents encoded as data.
    ///
    /// # Errors
    /// As [`ChatTemplate::render_segments`] and [`Tokenizer::encode_text`].
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        conversation: &Conversation,
        options: &RenderOptions,
    ) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for segment in self.render_segments(conversation, options)? {
            ids.extend(segment.encode(tokenizer)?);
        }
        Ok(ids)
    }

    fn run(&self, messages: Value, tools: Value, options: &RenderOptions) -> Result<String> {
        let template = self.environment.get_template(NAME).map_err(failed)?;
        let mut output = LimitedOutput(Vec::new());
        let context = self.context(messages, tools, options)?;
        template.render_captured_to(context, &mut output).map_err(failed)?;
        String::from_utf8(output.0)
            .map_err(|source| Error::with_source(ErrorKind::Template, "not text", source))
    }

    fn context(&self, messages: Value, tools: Value, options: &RenderOptions) -> Result<Value> {
        let mut entries = vec![
            ("messages", messages),
            ("tools", tools),
            ("documents", Value::from(())),
            ("add_generation_prompt", options.add_generation_prompt.into()),
            ("bos_token", self.bos.as_str().into()),
            ("eos_token", self.eos.as_str().into()),
        ];
        if let Some(thinking) = options.enable_thinking {
            entries.push(("enable_thinking", thinking.into()));
        }
        if let Some(date) = options.date {
            entries.push(("strftime_now", environment::strftime_now(date)?));
        }
        Ok(Value::from_pairs(entries))
    }
}

fn failed(source: minijinja::Error) -> Error {
    Error::with_source(ErrorKind::Template, "chat template", source)
}

struct LimitedOutput(Vec<u8>);

impl io::Write for LimitedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(io::Error::other("the rendered conversation is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
