//! What is asked: texts of many lengths, some bodies damaged, some requests abandoned.

use std::time::Duration;

use patarm_models::kernels::random;
use serde_json::json;

use crate::cli::load::{LoadKind, LoadOptions};

/// Words that common vocabularies have as one token.
const WORDS: [&str; 48] = [
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "with", "on", "are", "this",
    "be", "by", "from", "or", "have", "an", "they", "which", "one", "you", "all", "can", "has",
    "there", "more", "if", "about", "when", "time", "people", "into", "some", "other", "water",
    "work", "first", "new", "years", "after", "also", "world", "only", "state", "life",
];

/// Responses to a prompt where several share one.
const GROUP: u64 = 8;

/// Streams of draws.
const TEXT: u64 = 1;
const CHOICE: u64 = 2;
const KIND: u64 = 3;
const DAMAGE: u64 = 4;
const PATIENCE: u64 = 5;

/// A prompt with the responses that one request asks about.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) prompt: String,
    pub(super) responses: Vec<String>,
}

impl Text {
    /// The request; every item carries the request's id and its own place.
    pub(super) fn body(&self, id: &str) -> Vec<u8> {
        let items: Vec<_> = self
            .responses
            .iter()
            .enumerate()
            .map(|(index, response)| {
                json!({ "id": format!("{id}/{index}"), "prompt": self.prompt, "response": response })
            })
            .collect();
        json!({ "items": items }).to_string().into_bytes()
    }
}

/// A pool of texts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload {
    kind: LoadKind,
    pool: usize,
    seed: u64,
}

impl Workload {
    pub(super) fn new(options: &LoadOptions) -> Self {
        Self { kind: options.workload, pool: options.pool.max(1), seed: options.seed }
    }

    pub(super) fn texts(&self) -> Vec<Text> {
        (0..self.pool as u64).map(|index| self.text(index)).collect()
    }

    fn text(&self, index: u64) -> Text {
        // Lengths in words, about as many tokens.
        let (prompt, response, parts) = match self.kind {
            LoadKind::Short => (10..60, 10..60, 1..2),
            LoadKind::Mixed => (10..500, 10..500, 1..2),
            LoadKind::Shared => (300..500, 20..60, 1..1 + GROUP),
            LoadKind::Spread => (300..500, 20..60, 1 + index % GROUP..2 + index % GROUP),
        };
        let group = if self.kind == LoadKind::Spread { index / GROUP } else { index };
        let words = |range: &std::ops::Range<usize>, part: u64| {
            let draw = |n: usize, at: u64| random::below(n, self.seed, &[TEXT, group, part, at]);
            let length = range.start + draw(range.len(), 0);
            let each = (0..length as u64).map(|at| WORDS[draw(WORDS.len(), at + 1)]);
            each.collect::<Vec<_>>().join(" ")
        };
        Text {
            prompt: words(&prompt, 0),
            responses: parts.map(|part| words(&response, part)).collect(),
        }
    }
}

/// The draws of one request: a pure function of the seed and its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    pub(super) seed: u64,
    pub(super) number: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is sent and its answer read.
    Whole,
    /// Its body is damaged.
    Damaged,
    /// It is abandoned.
    Cancelled,
}

impl Draw {
    fn below(&self, n: usize, stream: u64) -> usize {
        random::below(n, self.seed, &[stream, self.number])
    }

    /// Which text is asked about; every text once where there are enough of them.
    pub(super) fn text(&self, pool: usize, requests: usize) -> usize {
        if pool >= requests { self.number as usize } else { self.below(pool, CHOICE) }
    }

    pub(super) fn kind(&self, options: &LoadOptions) -> Kind {
        let draw = random::uniform(self.seed, &[KIND, self.number]);
        match draw {
            draw if draw < options.damaged => Kind::Damaged,
            draw if draw < options.damaged + options.cancelled => Kind::Cancelled,
            _ => Kind::Whole,
        }
    }

    /// How long an abandoned request is waited for.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_micros(self.below(20_000, PATIENCE) as u64)
    }

    /// A body no server may accept.
    pub(super) fn damage(&self, body: &[u8]) -> Vec<u8> {
        match self.below(5, DAMAGE) {
            0 => body[..body.len() / 2].to_vec(),
            1 => Vec::new(),
            2 => b"{\"items\": [{\"prompt\": 1, \"response\": \"r\"}]}".to_vec(),
            3 => b"[".repeat(10_000),
            _ => [b"{\"sprites\": 1,", &body[1..]].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_texts_are_the_shared_ones_taken_apart() {
        let texts = |workload: LoadKind, pool: usize| {
            let options = LoadOptions { workload, pool, ..LoadOptions::for_tests() };
            Workload::new(&options).texts()
        };
        let (shared, spread) = (texts(LoadKind::Shared, 2), texts(LoadKind::Spread, 16));
        for (index, text) in spread.iter().enumerate() {
            let whole = &shared[index / GROUP as usize];
            assert_eq!(text.prompt, whole.prompt);
            assert_eq!(text.responses, [whole.responses[index % GROUP as usize].clone()]);
        }
    }
}
