//! Finding the data again in a rendered conversation.

use super::context::{self, Markers, TAGS};
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// Where a segment comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// The template: its control tokens are meant.
    Template,
    /// A text part of a message.
    Content {
        /// Index of the message.
        message: usize,
        /// Index of the text part in it.
        part: usize,
    },
    /// A tool definition or a tool call.
    Tool,
}

/// A stretch of a rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it comes from.
    pub kind: SegmentKind,
    /// Its text, never empty.
    pub text: String,
}

impl Segment {
    /// Token ids of this segment on its own: control tokens are recognised in
    /// the template's text only.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_text`].
    pub fn encode(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        match self.kind {
            SegmentKind::Template => tokenizer.encode_template(&self.text),
            SegmentKind::Content { .. } | SegmentKind::Tool => tokenizer.encode_text(&self.text),
        }
    }
}

/// Whether the segments spell this text.
pub(super) fn text_equals(segments: &[Segment], text: &str) -> bool {
    let mut rest = text;
    for segment in segments {
        match rest.strip_prefix(segment.text.as_str()) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

/// Cuts a marked text at its markers; `None` when they do not match up, because
/// the template took a marked text apart.
pub(super) fn parse(marked: &str, markers: &Markers) -> Option<Vec<Segment>> {
    let all = [markers.open, markers.start, markers.close, markers.more];
    let mut segments = Vec::new();
    let mut rest = marked;
    loop {
        let at = rest.find(all).unwrap_or(rest.len());
        push(&mut segments, SegmentKind::Template, &rest[..at]);
        if at == rest.len() {
            return Some(segments);
        }
        rest = data(&rest[at..], markers, &mut segments)?;
    }
}

/// Takes one marked text, and what follows it across tags, from the front.
fn data<'a>(text: &'a str, markers: &Markers, segments: &mut Vec<Segment>) -> Option<&'a str> {
    let all = [markers.open, markers.start, markers.close, markers.more];
    let (number, body) = text.strip_prefix(markers.open)?.split_once(markers.start)?;
    let kind = kind_of(number.parse().ok()?);
    let end = body.find(all)?;
    push(segments, kind, &body[..end]);
    let rest = &body[end..];
    if let Some(after) = rest.strip_prefix(markers.close) {
        return Some(after);
    }
    let after = rest.strip_prefix(markers.more)?;
    // The text went on after a tag in the data. If the tag still follows, it is
    // the data's own; if not, the template cut the text there.
    match TAGS.iter().find(|tag| after.starts_with(**tag)) {
        Some(tag) => {
            push(segments, kind, tag);
            Some(&after[tag.len()..])
        }
        None => Some(after),
    }
}

fn kind_of(number: usize) -> SegmentKind {
    match context::message_and_part(number) {
        Some((message, part)) => SegmentKind::Content { message, part },
        None => SegmentKind::Tool,
    }
}

/// Adds a stretch; joins it to the one before when both are of one kind and
/// contents, so that a tag in the data does not cut it.
fn push(segments: &mut Vec<Segment>, kind: SegmentKind, text: &str) {
    if text.is_empty() {
        return;
    }
    match segments.last_mut() {
        Some(last) if last.kind == kind && kind != SegmentKind::Tool => last.text.push_str(text),
        _ => segments.push(Segment { kind, text: text.to_owned() }),
    }
}
