//! The order of things in a prompt: template text with slots for data.

use super::SegmentLevel;
use super::file::{OUTER, Piece, Values, pieces};

/// Where data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Prompt,
    Response,
    ResponseA,
    ResponseB,
}

impl Slot {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "prompt" => Some(Self::Prompt),
            "response" => Some(Self::Response),
            "response_a" => Some(Self::ResponseA),
            "response_b" => Some(Self::ResponseB),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Response => "response",
            Self::ResponseA => "response_a",
            Self::ResponseB => "response_b",
        }
    }

    pub(super) fn level(self) -> SegmentLevel {
        match self {
            Self::Prompt => SegmentLevel::Prompt,
            Self::Response | Self::ResponseA | Self::ResponseB => SegmentLevel::Response,
        }
    }
}

/// A slot and the template text from it to the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) slot: Slot,
    pub(super) after: String,
}

/// A layout: text before the first slot, then the slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    head: String,
    parts: Vec<Part>,
}

impl Layout {
    pub(super) fn pointwise(text: &str) -> Result<Self, String> {
        Self::new(text, "layouts.pointwise", &[Slot::Prompt, Slot::Response])
    }

    pub(super) fn pairwise(text: &str) -> Result<Self, String> {
        let slots = [Slot::Prompt, Slot::ResponseA, Slot::ResponseB];
        Self::new(text, "layouts.pairwise", &slots)
    }

    fn new(text: &str, field: &str, expected: &[Slot]) -> Result<Self, String> {
        let mut head = String::new();
        let mut parts: Vec<Part> = Vec::new();
        for piece in pieces(text) {
            let slot = match piece {
                Piece::Placeholder(name) => Slot::from_name(name),
                Piece::Text(_) => None,
            };
            if let Some(slot) = slot {
                parts.push(Part { slot, after: String::new() });
                continue;
            }
            let into = parts.last_mut().map_or(&mut head, |part| &mut part.after);
            match piece {
                Piece::Text(text) => into.push_str(text),
                Piece::Placeholder(name) => into.push_str(&format!("{{{{{name}}}}}")),
            }
        }
        let found: Vec<Slot> = parts.iter().map(|part| part.slot).collect();
        if found != expected {
            let order: Vec<String> =
                expected.iter().map(|slot| format!("{{{{{}}}}}", slot.name())).collect();
            return Err(format!("{field} must hold {} once each, in this order", order.join(", ")));
        }
        for text in parts.iter().map(|part| &part.after).chain([&head]) {
            Values::check(text, &OUTER).map_err(|error| format!("{field}: {error}"))?;
        }
        Ok(Self { head, parts })
    }

    pub(super) fn head(&self) -> &str {
        &self.head
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }
}
