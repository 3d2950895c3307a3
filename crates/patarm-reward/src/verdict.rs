//! From generated text to a judgement: a small grammar, every fault typed.
//!
//! Everything up to the last closing think tag is discarded; then come the first
//! `<rubrics>` section, the first `<evaluation>` section after it, and the last
//! well-formed `<score>` (or `<verdict>`) after that. Well-formed means an opening tag
//! and the next closing tag with no other opening between them; what stands inside is
//! then held against the scale. Only text that the judge generated is ever parsed, in
//! time linear in its length. Tag names come from the template.

pub mod diagnostics;
pub mod policy;
pub mod rubric_lines;
pub mod scale;

use std::ops::Range;

use patarm_text::Preference;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::judgement::{FormatFault, Judgement};
use crate::rubric::Rubric;
use diagnostics::Diagnostics;
pub use scale::{ScoreKind, ScoreScale};

/// Text beyond this many bytes is not read; no judge writes so much.
pub const MAX_JUDGEMENT_BYTES: usize = 1 << 20;

/// Names of the tags a judge is asked to write, without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JudgementTags {
    /// Closes the reasoning that is discarded.
    pub think: String,
    /// Generated criteria; empty = the judge is not asked for any.
    pub rubrics: String,
    /// Evaluation; empty = the judge is not asked for one.
    pub evaluation: String,
    /// The pointwise score.
    pub score: String,
    /// The pairwise verdict.
    pub verdict: String,
}

impl Default for JudgementTags {
    fn default() -> Self {
        Self {
            think: "think".into(),
            rubrics: "rubrics".into(),
            evaluation: "evaluation".into(),
            score: "score".into(),
            verdict: "verdict".into(),
        }
    }
}

impl JudgementTags {
    /// Refuses names that cannot be told apart in text.
    ///
    /// # Errors
    /// When a name has characters other than ASCII letters, digits, `_` and `-`, is
    /// used twice, or the think, score or verdict tag has none.
    pub fn validate(&self) -> Result<()> {
        let required = [("think", &self.think), ("score", &self.score), ("verdict", &self.verdict)];
        let optional = [("rubrics", &self.rubrics), ("evaluation", &self.evaluation)];
        for (field, name) in required {
            if name.is_empty() {
                return Err(Error::new(ErrorKind::Template, format!("tags.{field} is empty")));
            }
        }
        let all: Vec<_> = required.into_iter().chain(optional).collect();
        for (i, (field, name)) in all.iter().enumerate() {
            if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
                let message = format!("tags.{field} = {name:?}: use letters, digits, _ and -");
                return Err(Error::new(ErrorKind::Template, message));
            }
            if !name.is_empty() && all[..i].iter().any(|(_, earlier)| earlier == name) {
                let message = format!("tags.{field} = {name:?}: the name is used twice");
                return Err(Error::new(ErrorKind::Template, message));
            }
        }
        Ok(())
    }
}

/// How a generated text came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextEnd {
    /// The judge stopped.
    Stopped,
    /// The token limit cut it off.
    Truncated,
}

/// Where the parts stand: byte ranges of the parsed text, tags excluded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// First byte after the discarded reasoning.
    pub body: usize,
    /// Content of the criteria section.
    pub rubrics: Option<Range<usize>>,
    /// Content of the evaluation section.
    pub evaluation: Option<Range<usize>>,
    /// First byte after the opening tag of the score or verdict that counts; of the
    /// last opened one where none is well formed. `None` while what comes before it is
    /// broken.
    pub answer_start: Option<usize>,
    /// Content of the score or verdict that counts.
    pub answer: Option<Range<usize>>,
}

/// A pointwise judgement as parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedJudgement {
    /// Criteria the judge wrote.
    pub rubric: Rubric,
    /// Evaluation, blanks at its ends removed.
    pub evaluation: String,
    /// The score, or why there is none.
    pub score: std::result::Result<f64, FormatFault>,
    /// The score of the last tag that reads well although other tags are broken.
    pub readable_score: Option<f64>,
    /// Where the parts stand.
    pub spans: Spans,
    /// Observations to log; none of them is rewarded.
    pub diagnostics: Diagnostics,
}

impl ParsedJudgement {
    /// The record of a judgement; `text` is what was parsed.
    #[must_use]
    pub fn into_judgement(
        self,
        text: String,
        num_tokens: usize,
        logprob: Option<f64>,
    ) -> Judgement {
        Judgement {
            text,
            rubric: self.rubric,
            evaluation: self.evaluation,
            score: self.score,
            readable_score: self.readable_score,
            expected_score: None,
            num_tokens,
            logprob,
        }
    }
}

/// Parses a pointwise judgement. Never fails: faults are part of the result.
#[must_use]
pub fn parse_judgement(
    text: &str,
    tags: &JudgementTags,
    scale: &ScoreScale,
    end: TextEnd,
) -> ParsedJudgement {
    let text = within_limit(text);
    let sections = Sections::find(text, tags, &tags.score, end);
    let score = sections.fault.map_or_else(|| scale.parse(sections.answer(text)), Err);
    let readable_score = match score {
        Err(fault) if fault.is_broken_tags() => {
            last_well_formed(text, sections.spans.body, &tags.score)
                .content
                .and_then(|span| scale.parse(&text[span]).ok())
        }
        _ => None,
    };
    let (rubric, unparsed_lines) = rubric_lines::parse(sections.rubrics(text));
    let evaluation = sections.evaluation(text).to_owned();
    let diagnostics = Diagnostics::new(&diagnostics::Observed {
        rubric: &rubric,
        unparsed_lines,
        evaluation: &evaluation,
        score: score.ok(),
        scale,
        body: &text[sections.spans.body..],
        known_tags: &[&tags.think, &tags.rubrics, &tags.evaluation, &tags.score],
    });
    ParsedJudgement {
        rubric,
        evaluation,
        score,
        readable_score,
        spans: sections.spans,
        diagnostics,
    }
}

/// A pairwise judgement as parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedComparison {
    /// Criteria the judge wrote.
    pub rubric: Rubric,
    /// Evaluation, blanks at its ends removed.
    pub evaluation: String,
    /// Which of the two shown responses is better; a verdict that is none of the
    /// labels is [`FormatFault::ScoreNotNumber`].
    pub verdict: std::result::Result<Preference, FormatFault>,
    /// Where the parts stand.
    pub spans: Spans,
}

/// Parses a pairwise judgement, whose verdict is `A`, `B` or `tie`.
#[must_use]
pub fn parse_comparison(text: &str, tags: &JudgementTags, end: TextEnd) -> ParsedComparison {
    let text = within_limit(text);
    let sections = Sections::find(text, tags, &tags.verdict, end);
    let verdict = sections.fault.map_or_else(|| parse_verdict_label(sections.answer(text)), Err);
    ParsedComparison {
        rubric: rubric_lines::parse(sections.rubrics(text)).0,
        evaluation: sections.evaluation(text).to_owned(),
        verdict,
        spans: sections.spans,
    }
}

fn parse_verdict_label(content: &str) -> std::result::Result<Preference, FormatFault> {
    match content.trim() {
        "" => Err(FormatFault::ScoreAbsent),
        "A" => Ok(Preference::First),
        "B" => Ok(Preference::Second),
        label if label.eq_ignore_ascii_case("tie") => Ok(Preference::Tie),
        _ => Err(FormatFault::ScoreNotNumber),
    }
}

fn within_limit(text: &str) -> &str {
    let mut end = text.len().min(MAX_JUDGEMENT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The parts of a text and the first fault of its tags.
struct Sections {
    spans: Spans,
    fault: Option<FormatFault>,
}

impl Sections {
    fn find(text: &str, tags: &JudgementTags, answer_tag: &str, end: TextEnd) -> Self {
        let body = match text.rfind(&closing(&tags.think)) {
            Some(at) => at + closing(&tags.think).len(),
            None => 0,
        };
        let mut spans = Spans { body, ..Spans::default() };
        let fault = locate(text, tags, answer_tag, &mut spans).err();
        // A cut text is reported as cut, not as what happens to be missing from it.
        let cut = end == TextEnd::Truncated
            && matches!(fault, Some(FormatFault::MissingTag | FormatFault::ScoreAbsent));
        Self { spans, fault: if cut { Some(FormatFault::Truncated) } else { fault } }
    }

    fn rubrics<'a>(&self, text: &'a str) -> &'a str {
        self.spans.rubrics.clone().map_or("", |span| &text[span])
    }

    fn evaluation<'a>(&self, text: &'a str) -> &'a str {
        self.spans.evaluation.clone().map_or("", |span| text[span].trim())
    }

    fn answer<'a>(&self, text: &'a str) -> &'a str {
        self.spans.answer.clone().map_or("", |span| &text[span])
    }
}

fn locate(
    text: &str,
    tags: &JudgementTags,
    answer_tag: &str,
    spans: &mut Spans,
) -> std::result::Result<(), FormatFault> {
    let body = spans.body;
    let mut cursor = body;
    if !tags.rubrics.is_empty() {
        let span = section(text, body, cursor, &tags.rubrics)?;
        cursor = span.end + closing(&tags.rubrics).len();
        spans.rubrics = Some(span);
    }
    if !tags.evaluation.is_empty() {
        let span = section(text, body, cursor, &tags.evaluation)?;
        cursor = span.end + closing(&tags.evaluation).len();
        spans.evaluation = Some(span);
    }
    let found = last_well_formed(text, cursor, answer_tag);
    spans.answer_start = found.start;
    spans.answer = found.content;
    match (&spans.answer, spans.answer_start) {
        (Some(_), _) => Ok(()),
        (None, Some(_)) => Err(FormatFault::ScoreAbsent),
        (None, None) => Err(missing(text, body, cursor, &opening(answer_tag))),
    }
}

/// The first section `name` at or after `cursor`.
fn section(
    text: &str,
    body: usize,
    cursor: usize,
    name: &str,
) -> std::result::Result<Range<usize>, FormatFault> {
    let (open, close) = (opening(name), closing(name));
    let fault = |needle: &str, before: usize| missing(text, body, before, needle);
    let start = text[cursor..].find(&open).ok_or_else(|| fault(&open, cursor))?;
    let start = cursor + start + open.len();
    let length = text[start..].find(&close).ok_or_else(|| fault(&close, start))?;
    Ok(start..start + length)
}

/// A tag that is not where it should be: out of order when it stands earlier.
fn missing(text: &str, body: usize, before: usize, needle: &str) -> FormatFault {
    if text[body..before].contains(needle) {
        FormatFault::TagOrder
    } else {
        FormatFault::MissingTag
    }
}

/// The last tag pair of a name, and the last opening where there is no pair.
#[derive(Default)]
struct LastTag {
    start: Option<usize>,
    content: Option<Range<usize>>,
}

fn last_well_formed(text: &str, from: usize, name: &str) -> LastTag {
    let (open, close) = (opening(name), closing(name));
    let mut pending = None;
    let mut last_opened = None;
    let mut content: Option<Range<usize>> = None;
    for (at, _) in text[from..].match_indices('<') {
        let at = from + at;
        if text[at..].starts_with(&open) {
            pending = Some(at + open.len());
            last_opened = pending;
        } else if text[at..].starts_with(&close)
            && let Some(start) = pending.take()
        {
            content = Some(start..at);
        }
    }
    let start = content.as_ref().map(|span| span.start).or(last_opened);
    LastTag { start, content }
}

fn opening(name: &str) -> String {
    format!("<{name}>")
}

fn closing(name: &str) -> String {
    format!("</{name}>")
}

#[cfg(test)]
mod tests;
