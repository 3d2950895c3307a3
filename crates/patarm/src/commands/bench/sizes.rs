//! How much work a step is: defaults by kind, each replaceable on the command line.

use crate::cli::{BenchKind, BenchSizes};

/// The sizes of a piece of work; what each means depends on the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Packed rows, prompts, texts, or pairs.
    pub(super) rows: usize,
    /// Tokens of a row, a sequence, a text or a judgement.
    pub(super) length: usize,
    /// Tokens of a prompt.
    pub(super) prompt: usize,
    /// Tokens of a response below a prompt.
    pub(super) response: usize,
    /// Sequences a prompt, responses a prompt, or judgements a response.
    pub(super) branches: usize,
    /// Whether a common prompt is computed once.
    pub(super) shared: bool,
}

impl Sizes {
    /// The defaults of a kind with what was asked for put over them.
    pub(super) fn resolve(what: BenchKind, wanted: &BenchSizes) -> Self {
        let own = defaults(what);
        // Texts become trees as soon as a prompt is asked for.
        let branches = if what == BenchKind::Score && wanted.prompt.is_some() { 8 } else { 0 };
        Self {
            rows: wanted.rows.unwrap_or(own.rows),
            length: wanted.length.unwrap_or(own.length),
            prompt: wanted.prompt.unwrap_or(own.prompt),
            response: wanted.response.unwrap_or(own.response),
            branches: wanted.branches.unwrap_or(own.branches.max(branches)),
            shared: !wanted.unshared,
        }
    }

    /// The segments above sequence number `sequence`; where nothing is to be shared they
    /// become one with a first token of its own, which the engine knows from no other.
    pub(super) fn above(&self, segments: Vec<Vec<u32>>, sequence: usize) -> Vec<Vec<u32>> {
        if self.shared {
            return segments;
        }
        let mut all = segments.concat();
        if let Some(first) = all.first_mut() {
            *first = sequence as u32;
        }
        vec![all]
    }

    /// How the description of shared work ends.
    pub(super) fn sharing(&self) -> &'static str {
        if self.shared { "" } else { ", as rows" }
    }

    /// Whether every size that the kind uses is there.
    pub(super) fn are_usable(&self, what: BenchKind) -> bool {
        let used: &[usize] = match what {
            BenchKind::Train => &[self.rows, self.length],
            BenchKind::Rollout => &[self.rows, self.length, self.prompt, self.branches],
            BenchKind::Score if self.prompt > 0 => &[self.rows, self.length, self.branches],
            BenchKind::Score => &[self.rows, self.length],
            BenchKind::Grpo => &[self.rows, self.length, self.prompt, self.response, self.branches],
            BenchKind::Serve => &[],
        };
        // A row of one token predicts nothing.
        used.iter().all(|size| *size > 0) && (what != BenchKind::Train || self.length > 1)
    }
}

fn defaults(what: BenchKind) -> Sizes {
    let none = Sizes { rows: 0, length: 0, prompt: 0, response: 0, branches: 0, shared: true };
    match what {
        BenchKind::Train => Sizes { rows: 4, length: 512, ..none },
        BenchKind::Rollout => Sizes { rows: 32, length: 64, prompt: 256, branches: 1, ..none },
        BenchKind::Score => Sizes { rows: 256, length: 1_000, ..none },
        BenchKind::Grpo => {
            Sizes { rows: 2, length: 64, prompt: 400, response: 200, branches: 8, ..none }
        }
        BenchKind::Serve => none,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stands_over_the_defaults() {
        let wanted = BenchSizes { rows: Some(3), ..BenchSizes::default() };
        let sizes = Sizes::resolve(BenchKind::Grpo, &wanted);
        assert_eq!(sizes, Sizes { rows: 3, ..defaults(BenchKind::Grpo) });
        let rows = BenchSizes { unshared: true, ..wanted };
        assert_eq!(Sizes::resolve(BenchKind::Grpo, &rows), Sizes { shared: false, ..sizes });
        let texts = Sizes::resolve(BenchKind::Score, &BenchSizes::default());
        assert_eq!((texts.prompt, texts.branches), (0, 0));
        let tree = BenchSizes { prompt: Some(400), ..BenchSizes::default() };
        assert_eq!(Sizes::resolve(BenchKind::Score, &tree).branches, 8);
    }

    #[test]
    fn empty_work_is_not_usable() {
        for what in [BenchKind::Train, BenchKind::Rollout, BenchKind::Score, BenchKind::Grpo] {
            assert!(Sizes::resolve(what, &BenchSizes::default()).are_usable(what));
            let none = BenchSizes { rows: Some(0), ..BenchSizes::default() };
            assert!(!Sizes::resolve(what, &none).are_usable(what));
        }
    }
}
