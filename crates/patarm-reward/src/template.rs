//! Judge prompts: template files in, segments for a prefix tree out.
//!
//! A prompt is laid out for sharing: instructions and primary rubric first (the same
//! for every item of a task), then the prompt (the same for both sides of a pair), then
//! the response. What the template says and what the data says stay apart from end to
//! end: a template's text is encoded with special tokens, data never is, so nothing in
//! a prompt or a response can become a control token or another segment.

mod file;
mod layout;

use std::path::Path;

use patarm_text::{Conversation, Item, Task};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::verdict::{
    JudgementTags, ParsedComparison, ParsedJudgement, ScoreScale, TextEnd, parse_comparison,
    parse_judgement,
};
use file::TemplateFile;
use layout::{Layout, Slot};

/// Template files beyond this are refused.
const MAX_TEMPLATE_BYTES: u64 = 256 << 10;

/// The presets that come with the program, by name.
const PRESETS: [(&str, &str); 3] = [
    ("patarm", include_str!("../templates/patarm.toml")),
    ("patarm-short", include_str!("../templates/patarm-short.toml")),
    ("patarm-released", include_str!("../templates/patarm-released.toml")),
];

/// Whose criteria a judgement is made under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RubricMode {
    /// The fixed ones of the task; the judge writes none.
    Primary,
    /// Those the judge writes for this prompt.
    Generated,
    /// The fixed ones are given, and the judge adds its own.
    #[default]
    Both,
}

/// Which bank of built-in judgements fits the template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColdStartStyle {
    /// Two criteria and one short sentence.
    Short,
    /// Described criteria and a paragraph for each.
    #[default]
    Full,
}

/// Where a segment's text comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentKind {
    /// The template or the chat frame: encoded with special tokens recognised.
    Template,
    /// A prompt or a response: encoded with special tokens off.
    Data,
}

/// How far a segment is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentLevel {
    /// The same for every item of a task.
    Shared,
    /// The same for both sides of a pair.
    Prompt,
    /// One item's own.
    Response,
}

/// A piece of a judge prompt, tokenised on its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JudgeSegment {
    /// The text.
    pub text: String,
    /// Where it comes from.
    pub kind: SegmentKind,
    /// How far it is shared.
    pub level: SegmentLevel,
}

/// A judge prompt: segments in order, levels never decreasing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JudgePrompt {
    /// The segments.
    pub segments: Vec<JudgeSegment>,
}

impl JudgePrompt {
    /// All segments as one text, for engines that take text.
    #[must_use]
    pub fn plain_text(&self) -> String {
        self.segments.iter().map(|segment| segment.text.as_str()).collect()
    }

    /// The segments of one level.
    pub fn level(&self, level: SegmentLevel) -> impl Iterator<Item = &JudgeSegment> {
        self.segments.iter().filter(move |segment| segment.level == level)
    }
}

/// The control text of a model's chat format around one user turn. The engine derives
/// it from the model's chat template; remote engines add their own, so it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChatFrame {
    /// From the beginning of the sequence to the first character of the user's text.
    pub before_user: String,
    /// From the end of the user's text to the first generated character.
    pub after_user_before_assistant: String,
}

/// What a judge is asked to write and how it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeFormat {
    /// Tags, those not asked for empty.
    pub tags: JudgementTags,
    /// The score scale.
    pub scale: ScoreScale,
}

impl JudgeFormat {
    /// Parses a pointwise judgement.
    #[must_use]
    pub fn parse(&self, text: &str, end: TextEnd) -> ParsedJudgement {
        parse_judgement(text, &self.tags, &self.scale, end)
    }

    /// Parses a pairwise judgement.
    #[must_use]
    pub fn parse_comparison(&self, text: &str, end: TextEnd) -> ParsedComparison {
        parse_comparison(text, &self.tags, end)
    }
}

/// How one prompt is made from a template.
#[derive(Clone, Copy, Debug)]
pub struct PromptOptions<'a> {
    /// Selects the primary rubric.
    pub task: Task,
    /// Whose criteria count.
    pub mode: RubricMode,
    /// Control text around the user's turn.
    pub frame: &'a ChatFrame,
}

/// A judge template.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeTemplate {
    digest: String,
    file: TemplateFile,
    pointwise: Layout,
    pairwise: Layout,
}

impl JudgeTemplate {
    /// The names of the presets.
    pub fn preset_names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|(name, _)| *name)
    }

    /// A preset by its name, or the template in the file of that path.
    ///
    /// # Errors
    /// When there is no such preset or file, or the file is no template.
    pub fn load(name_or_path: &str) -> Result<Self> {
        if let Some((name, text)) = PRESETS.iter().find(|(name, _)| *name == name_or_path) {
            return Self::from_toml(text, name);
        }
        Self::read(Path::new(name_or_path))
    }

    fn read(path: &Path) -> Result<Self> {
        let names: Vec<&str> = Self::preset_names().collect();
        let shown = path.display();
        let cannot = |source| {
            let presets = names.join(", ");
            Error::io(format!("judge template {shown}: no preset ({presets}) and no file"), source)
        };
        let size = std::fs::metadata(path).map_err(cannot)?.len();
        if size > MAX_TEMPLATE_BYTES {
            let message = format!("judge template {shown}: larger than {MAX_TEMPLATE_BYTES} bytes");
            return Err(Error::new(ErrorKind::Template, message));
        }
        let text = std::fs::read_to_string(path).map_err(cannot)?;
        Self::from_toml(&text, &shown.to_string())
    }

    /// The template that `text` describes; `source` names it in errors.
    ///
    /// # Errors
    /// When the text is no TOML, has unknown keys or placeholders, an unusable scale or
    /// tag name, or puts the response before the prompt.
    pub fn from_toml(text: &str, source: &str) -> Result<Self> {
        let wrong = |message: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Template, format!("judge template {source}: {message}"))
        };
        let file: TemplateFile = toml::from_str(text).map_err(|error| wrong(&error))?;
        file.validate().map_err(|error| wrong(&error))?;
        let pointwise = Layout::pointwise(&file.layouts.pointwise).map_err(|e| wrong(&e))?;
        let pairwise = Layout::pairwise(&file.layouts.pairwise).map_err(|e| wrong(&e))?;
        let digest = Sha256::digest(text.as_bytes());
        let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { digest, file, pointwise, pairwise })
    }

    /// SHA-256 of the template's text in hexadecimal digits: for keys of caches.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The name, for reports and cache keys.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// One line on what it is.
    #[must_use]
    pub fn about(&self) -> &str {
        &self.file.about
    }

    /// How many tokens a judgement may take.
    #[must_use]
    pub fn max_judgement_tokens(&self) -> usize {
        self.file.max_judgement_tokens
    }

    /// Which bank of built-in judgements fits.
    #[must_use]
    pub fn cold_start_style(&self) -> ColdStartStyle {
        self.file.cold_start
    }

    /// What the judge is asked to write in a mode.
    #[must_use]
    pub fn format(&self, mode: RubricMode) -> JudgeFormat {
        let mut tags = self.file.tags.clone();
        if mode == RubricMode::Primary {
            tags.rubrics.clear();
        }
        JudgeFormat { tags, scale: self.file.scale }
    }

    /// The prompt that asks for a judgement of one item. It sees nothing but the item.
    #[must_use]
    pub fn pointwise(&self, item: &Item, options: &PromptOptions<'_>) -> JudgePrompt {
        let prompt = prompt_text(&item.prompt);
        let data = |slot: Slot| match slot {
            Slot::Prompt => prompt.as_str(),
            _ => item.response.as_str(),
        };
        let instructions = &self.file.modes.of(options.mode).pointwise;
        self.assemble(&self.pointwise, instructions, options, data)
    }

    /// The prompt that asks which of two responses to one prompt is better; the first
    /// is shown as A.
    #[must_use]
    pub fn pairwise(
        &self,
        prompt: &Conversation,
        responses: [&str; 2],
        options: &PromptOptions<'_>,
    ) -> JudgePrompt {
        let prompt = prompt_text(prompt);
        let data = |slot: Slot| match slot {
            Slot::Prompt => prompt.as_str(),
            Slot::ResponseB => responses[1],
            _ => responses[0],
        };
        let instructions = &self.file.modes.of(options.mode).pairwise;
        self.assemble(&self.pairwise, instructions, options, data)
    }

    fn assemble<'a>(
        &self,
        layout: &Layout,
        instructions: &str,
        options: &PromptOptions<'_>,
        data: impl Fn(Slot) -> &'a str,
    ) -> JudgePrompt {
        let values = self.file.values(options.task, options.mode, instructions);
        let mut segments = Vec::new();
        let head = format!("{}{}", options.frame.before_user, values.fill(layout.head()));
        push_template(&mut segments, head, SegmentLevel::Shared);
        let last = layout.parts().len().saturating_sub(1);
        for (i, part) in layout.parts().iter().enumerate() {
            let level = part.slot.level();
            segments.push(JudgeSegment {
                text: data(part.slot).to_owned(),
                kind: SegmentKind::Data,
                level,
            });
            let mut after = values.fill(&part.after);
            if i == last {
                after.push_str(&options.frame.after_user_before_assistant);
            }
            push_template(&mut segments, after, level);
        }
        JudgePrompt { segments }
    }
}

fn push_template(segments: &mut Vec<JudgeSegment>, text: String, level: SegmentLevel) {
    if !text.is_empty() {
        segments.push(JudgeSegment { text, kind: SegmentKind::Template, level });
    }
}

/// The conversation as the judge reads it, tools at hand first.
fn prompt_text(prompt: &Conversation) -> String {
    let mut text = String::new();
    for tool in &prompt.tools {
        let lines = [&tool.name, &tool.description, &tool.parameters];
        let stated: Vec<&str> =
            lines.iter().map(|s| s.as_str()).filter(|s| !s.is_empty()).collect();
        text.push_str(&format!("[tool {}]\n", stated.join(": ")));
    }
    text.push_str(&prompt.transcript());
    text
}

#[cfg(test)]
mod tests;
