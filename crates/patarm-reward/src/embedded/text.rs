//! Between a judge's words and token ids.

use patarm_models::engine::StopRule;
use patarm_text::template::{ChatTemplate, RenderOptions};
use patarm_text::tokenizer::{ControlTokens, Tokenizer};
use patarm_text::{Conversation, Item, Task};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::StopAt;
use crate::error::{Error, ErrorKind, Result};
use crate::template::{
    ChatFrame, JudgeFormat, JudgePrompt, JudgeTemplate, PromptOptions, RubricMode, SegmentKind,
    SegmentLevel,
};
use crate::verdict::{ParsedComparison, ParsedJudgement, ScoreKind, ScoreScale, TextEnd};

/// How many recent tokens are decoded to look for a tag.
const TAIL_TOKENS: usize = 24;

/// How much of the closing tag belongs to an admissible score. Without any, "1" is
/// a prefix of "10" and its probability includes the latter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Terminator {
    /// None: one token a score, for scales whose scores are single digits.
    None,
    /// The first token of the closing tag.
    FirstToken,
    /// The whole closing tag.
    Full,
}

/// An admissible score as a continuation of a judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The score.
    pub score: f64,
    /// Its tokens, terminator included.
    pub tokens: Vec<u32>,
}

/// A template bound to a tokenizer.
#[derive(Clone, Debug)]
pub struct JudgeText {
    tokenizer: Arc<Tokenizer>,
    template: Arc<JudgeTemplate>,
    frame: ChatFrame,
    mode: RubricMode,
    format: JudgeFormat,
    outcomes: Vec<Outcome>,
}

impl JudgeText {
    /// Binds a template to a tokenizer; the turn around the prompt comes from the
    /// tokenizer's own chat template, where it has one.
    ///
    /// # Errors
    /// When the chat template fails or the tokenizer cannot encode the score tags.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        template: Arc<JudgeTemplate>,
        mode: RubricMode,
        terminator: Terminator,
    ) -> Result<Self> {
        let frame = chat_frame(&tokenizer)?;
        let format = template.format(mode);
        let outcomes = outcomes(&tokenizer, &format, terminator)?;
        Ok(Self { tokenizer, template, frame, mode, format, outcomes })
    }

    /// Tags and scale of a judgement.
    #[must_use]
    pub fn format(&self) -> &JudgeFormat {
        &self.format
    }

    /// The opening and the closing score tag.
    #[must_use]
    pub fn score_tags(&self) -> (String, String) {
        score_tags(&self.format)
    }

    /// Parses judgement text.
    #[must_use]
    pub fn parse(&self, text: &str, is_truncated: bool) -> ParsedJudgement {
        self.format.parse(text, if is_truncated { TextEnd::Truncated } else { TextEnd::Stopped })
    }

    /// Parses the text of a comparison.
    #[must_use]
    pub fn parse_comparison(&self, text: &str, is_truncated: bool) -> ParsedComparison {
        let end = if is_truncated { TextEnd::Truncated } else { TextEnd::Stopped };
        self.format.parse_comparison(text, end)
    }

    /// The template.
    #[must_use]
    pub fn template(&self) -> &JudgeTemplate {
        &self.template
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokenizer, for those who outlive this.
    #[must_use]
    pub fn shared_tokenizer(&self) -> Arc<Tokenizer> {
        Arc::clone(&self.tokenizer)
    }

    /// Every admissible score with its tokens; empty when the scale has decimals.
    #[must_use]
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// Ids that end a turn.
    #[must_use]
    pub fn stop_ids(&self) -> &[u32] {
        self.tokenizer.eos_ids()
    }

    /// The judge prompt of an item as segments: what all items of the task share,
    /// what both sides of a pair share, and the rest.
    ///
    /// # Errors
    /// When the tokenizer refuses a text.
    pub fn encode(&self, item: &Item, task: Option<Task>) -> Result<Vec<Vec<u32>>> {
        let task = task.unwrap_or_else(|| crate::task::detect_task(&item.prompt));
        let options = PromptOptions { task, mode: self.mode, frame: &self.frame };
        self.encode_prompt(&self.template.pointwise(item, &options))
    }

    /// The pairwise judge prompt of two responses, the first shown as A, as segments:
    /// what all comparisons of the task share, what those of a prompt share, and the rest.
    ///
    /// # Errors
    /// When the tokenizer refuses a text.
    pub fn encode_pairwise(
        &self,
        prompt: &Conversation,
        responses: [&str; 2],
        task: Option<Task>,
    ) -> Result<Vec<Vec<u32>>> {
        let task = task.unwrap_or_else(|| crate::task::detect_task(prompt));
        let options = PromptOptions { task, mode: self.mode, frame: &self.frame };
        self.encode_prompt(&self.template.pairwise(prompt, responses, &options))
    }

    fn encode_prompt(&self, prompt: &JudgePrompt) -> Result<Vec<Vec<u32>>> {
        let mut levels = vec![Vec::new(); 3];
        for segment in &prompt.segments {
            let level = match segment.level {
                SegmentLevel::Shared => 0,
                SegmentLevel::Prompt => 1,
                SegmentLevel::Response => 2,
            };
            // Data never yields a control token, whatever it spells.
            let tokens = match segment.kind {
                SegmentKind::Template => self.tokenizer.encode_template(&segment.text),
                SegmentKind::Data => self.tokenizer.encode_text(&segment.text),
            };
            levels[level].extend(tokens.map_err(refused)?);
        }
        levels.retain(|level| !level.is_empty());
        Ok(levels)
    }

    /// Encodes judgement text as the model would generate it.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode_judgement(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode_text(text).map_err(refused)
    }

    /// Decodes generated tokens, leaving control tokens out.
    #[must_use]
    pub fn decode(&self, tokens: &[u32]) -> String {
        self.tokenizer.decode(tokens, ControlTokens::Skip)
    }

    /// A rule that ends generation at the wanted tag.
    #[must_use]
    pub fn stop_rule(&self, stop: StopAt) -> StopRule {
        let tokenizer = Arc::clone(&self.tokenizer);
        let (open, close) = self.score_tags();
        Box::new(move |tokens: &[u32]| {
            let tail = &tokens[tokens.len().saturating_sub(TAIL_TOKENS)..];
            let text = tokenizer.decode(tail, ControlTokens::Skip);
            match stop {
                StopAt::BeforeScore => text.trim_end().ends_with(&open),
                StopAt::AfterScore => text.trim_end().ends_with(&close),
                StopAt::EndOfTurn => false,
            }
        })
    }
}

fn refused(error: patarm_text::Error) -> Error {
    Error::new(ErrorKind::Input, error)
}

fn score_tags(format: &JudgeFormat) -> (String, String) {
    (format!("<{}>", format.tags.score), format!("</{}>", format.tags.score))
}

/// What the model's chat template puts around a user turn that asks for an answer.
pub(crate) fn chat_frame(tokenizer: &Tokenizer) -> Result<ChatFrame> {
    /// A private-use character no template contains.
    const PLACE: char = '\u{e0f5}';
    let Some(template) = ChatTemplate::from_tokenizer(tokenizer).map_err(refused)? else {
        return Ok(ChatFrame {
            before_user: tokenizer.bos_text(),
            after_user_before_assistant: String::new(),
        });
    };
    let options = RenderOptions { enable_thinking: Some(false), ..RenderOptions::for_generation() };
    let shown = template.render(&Conversation::from_user(PLACE), &options).map_err(refused)?;
    let (before, after) = shown.split_once(PLACE).ok_or_else(|| {
        Error::new(ErrorKind::Template, "the model's chat template does not show the user's turn")
    })?;
    Ok(ChatFrame { before_user: before.to_owned(), after_user_before_assistant: after.to_owned() })
}

fn outcomes(
    tokenizer: &Tokenizer,
    format: &JudgeFormat,
    terminator: Terminator,
) -> Result<Vec<Outcome>> {
    let (_, close) = score_tags(format);
    let closing = tokenizer.encode_text(&close).map_err(refused)?;
    let kept = match terminator {
        Terminator::None => 0,
        Terminator::FirstToken => 1,
        Terminator::Full => closing.len(),
    };
    let mut outcomes = Vec::new();
    for (text, score) in integer_scores(&format.scale) {
        let mut tokens = tokenizer.encode_text(&text).map_err(refused)?;
        tokens.extend_from_slice(&closing[..kept.min(closing.len())]);
        outcomes.push(Outcome { score, tokens });
    }
    Ok(outcomes)
}

/// The texts and values of an integer scale; nothing for decimals.
fn integer_scores(scale: &ScoreScale) -> Vec<(String, f64)> {
    if scale.kind != ScoreKind::Integer {
        return Vec::new();
    }
    let each = scale.min.ceil() as i64..=scale.max.floor() as i64;
    each.map(|score| (score.to_string(), score as f64)).collect()
}
