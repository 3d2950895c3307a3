//! Sequences with common beginnings as a prefix tree, with the targets a loss looks at.
//!
//! For a judge, instructions are shared by every pair, a prompt by both sides, a
//! response by its judgements, a judgement by its score branches: each is computed
//! once.

use std::collections::HashMap;
use std::ops::Range;

use crate::forest::{Forest, SegmentId};
use crate::targets::{Target, TargetRows};

/// A forest under construction in which equal segments below equal parents are one.
#[derive(Debug, Default)]
pub struct TreeBuilder {
    forest: Forest,
    index: HashMap<(Option<SegmentId>, Vec<u32>), SegmentId>,
    targets: TargetRows,
}

/// Where the targets of one completion are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompletionTargets {
    /// Targets of the completion's own tokens.
    pub text: Range<usize>,
    /// Targets of each branch below it.
    pub branches: Vec<Range<usize>>,
}

impl TreeBuilder {
    /// Adds a segment below another one, or finds the equal one that is there.
    pub fn child(&mut self, parent: Option<SegmentId>, segment: &[u32]) -> SegmentId {
        let key = (parent, segment.to_vec());
        if let Some(id) = self.index.get(&key) {
            return *id;
        }
        let id = self.forest.add(parent, segment);
        self.index.insert(key, id);
        id
    }

    /// Adds a path of shared segments and returns its leaf.
    ///
    /// # Panics
    /// When the path is empty: a prompt never is.
    #[expect(clippy::expect_used, reason = "documented as a panic")]
    pub fn path(&mut self, segments: &[Vec<u32>]) -> SegmentId {
        let mut leaf = None;
        for segment in segments {
            leaf = Some(self.child(leaf, segment));
        }
        leaf.expect("a prompt has at least one segment")
    }

    /// Adds one completion below a prompt, every token a target.
    pub fn completion(&mut self, leaf: SegmentId, tokens: &[u32]) -> CompletionTargets {
        self.branching_completion(leaf, tokens, &[])
    }

    /// Adds one completion and, below its last token, branches (each non-empty).
    pub fn branching_completion(
        &mut self,
        leaf: SegmentId,
        tokens: &[u32],
        branches: &[&[u32]],
    ) -> CompletionTargets {
        if tokens.is_empty() {
            return CompletionTargets::default();
        }
        let segment = self.forest.add(Some(leaf), tokens);
        let text = self.targets.push_segment(&self.forest, segment, 0);
        let branches = branches.iter().map(|branch| self.branch(segment, branch)).collect();
        CompletionTargets { text, branches }
    }

    /// A branch is its first token, read at the parent, and the rest below it.
    fn branch(&mut self, parent: SegmentId, tokens: &[u32]) -> Range<usize> {
        let start = self.targets.len();
        let row = self.forest.last_row(parent);
        self.targets.push(Target { row, ids: vec![tokens[0]] });
        if let [inner @ .., _] = tokens
            && !inner.is_empty()
        {
            let segment = self.forest.add(Some(parent), inner);
            for (offset, &id) in tokens[1..].iter().enumerate() {
                self.targets.push(Target { row: self.forest.row(segment, offset), ids: vec![id] });
            }
        }
        start..self.targets.len()
    }

    /// Tokens so far.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.forest.num_tokens()
    }

    /// The forest and its targets.
    #[must_use]
    pub fn finish(self) -> (Forest, TargetRows) {
        (self.forest, self.targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_segments_are_stored_once() {
        let mut tree = TreeBuilder::default();
        let left = tree.path(&[vec![1, 2], vec![3], vec![4]]);
        let right = tree.path(&[vec![1, 2], vec![3], vec![5, 6]]);
        assert_ne!(left, right);
        assert_eq!(tree.num_tokens(), 6);
        let first = tree.branching_completion(left, &[7, 8], &[&[9], &[9, 10, 11]]);
        assert_eq!(first.text, 0..2);
        // A one-token branch costs nothing; a three-token one costs two.
        assert_eq!(first.branches, [2..3, 3..6]);
        assert_eq!(tree.num_tokens(), 6 + 2 + 2);
        let (forest, targets) = tree.finish();
        assert_eq!(targets.len(), 6);
        assert_eq!(forest.max_depth(), 4 + 2 + 2);
    }

    #[test]
    fn one_step_of_eight_pairs_computes_less_than_a_third_of_padded_rows() {
        let mut tree = TreeBuilder::default();
        for pair in 0..8 {
            for side in 0..2 {
                let leaf = tree.path(&[vec![1; 60], vec![2 + pair; 400], vec![20 + side; 200]]);
                (0..8).for_each(|_| drop(tree.completion(leaf, &[5; 128])));
            }
        }
        let (forest, _) = tree.finish();
        let ratio = forest.num_row_tokens() as f64 / forest.num_tokens() as f64;
        assert!(ratio >= 3.0, "{ratio}");
    }
}
