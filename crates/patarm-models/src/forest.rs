//! The unit of computation: token segments, each with a parent.
//!
//! A token attends to the segments above its own and to the past of its own
//! segment; its position is its depth. Independent sequences are roots of the
//! same forest, so packing needs no padding and no mask.

use patarm_kernels::{AttentionPlan, QueryRun, Span};

/// Index of a segment within its forest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(usize);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    parent: Option<SegmentId>,
    start: usize,
    len: usize,
    depth: usize,
}

/// Token segments in an order where parents precede their children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forest {
    tokens: Vec<u32>,
    segments: Vec<Segment>,
}

impl Forest {
    /// An empty forest.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a segment below `parent`, or a root.
    ///
    /// # Panics
    /// When `tokens` is empty or the parent is of another forest.
    pub fn add(&mut self, parent: Option<SegmentId>, tokens: &[u32]) -> SegmentId {
        assert!(!tokens.is_empty(), "a segment has at least one token");
        let depth = parent.map_or(0, |id| self.segments[id.0].depth + self.segments[id.0].len);
        let segment = Segment { parent, start: self.tokens.len(), len: tokens.len(), depth };
        self.tokens.extend_from_slice(tokens);
        self.segments.push(segment);
        SegmentId(self.segments.len() - 1)
    }

    /// All tokens, segment after segment.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of tokens that will be computed.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Number of segments.
    #[must_use]
    pub fn num_segments(&self) -> usize {
        self.segments.len()
    }

    /// Ids of the segments that have no children, in order.
    #[must_use]
    pub fn leaves(&self) -> Vec<SegmentId> {
        let mut is_leaf = vec![true; self.segments.len()];
        for parent in self.segments.iter().filter_map(|segment| segment.parent) {
            is_leaf[parent.0] = false;
        }
        let all = is_leaf.into_iter().enumerate();
        all.filter(|(_, leaf)| *leaf).map(|(index, _)| SegmentId(index)).collect()
    }

    /// Tokens that padded or unpadded rows would compute: each leaf with its
    /// whole path.
    #[must_use]
    pub fn num_row_tokens(&self) -> usize {
        let path = |leaf: SegmentId| self.segments[leaf.0].depth + self.segments[leaf.0].len;
        self.leaves().into_iter().map(path).sum()
    }

    /// Row of token `offset` of a segment in the flat token list.
    ///
    /// # Panics
    /// When the segment has no such token.
    #[must_use]
    pub fn row(&self, segment: SegmentId, offset: usize) -> usize {
        assert!(offset < self.segments[segment.0].len, "token {offset} of a shorter segment");
        self.segments[segment.0].start + offset
    }

    /// Row of the last token of a segment.
    #[must_use]
    pub fn last_row(&self, segment: SegmentId) -> usize {
        self.segments[segment.0].start + self.segments[segment.0].len - 1
    }

    /// Row whose hidden state predicts token `offset` of a segment: the token
    /// before it on its path. `None` for the first token of a root.
    #[must_use]
    pub fn predicting_row(&self, segment: SegmentId, offset: usize) -> Option<usize> {
        if offset > 0 {
            return Some(self.row(segment, offset - 1));
        }
        self.segments[segment.0].parent.map(|parent| self.last_row(parent))
    }

    /// Tokens of a segment.
    #[must_use]
    pub fn segment_tokens(&self, segment: SegmentId) -> &[u32] {
        let Segment { start, len, .. } = self.segments[segment.0];
        &self.tokens[start..start + len]
    }

    /// Position of every token: its depth.
    #[must_use]
    pub fn positions(&self) -> Vec<u32> {
        let each =
            self.segments.iter().flat_map(|segment| segment.depth..segment.depth + segment.len);
        each.map(|position| position as u32).collect()
    }

    /// Length of the longest path.
    #[must_use]
    pub fn max_depth(&self) -> usize {
        self.segments.iter().map(|segment| segment.depth + segment.len).max().unwrap_or(0)
    }

    /// The attention plan in which token `n` keeps its key in slot `n`.
    #[must_use]
    pub fn plan(&self) -> AttentionPlan {
        let runs = (0..self.segments.len()).map(|index| self.run(SegmentId(index))).collect();
        AttentionPlan { runs }
    }

    /// A plan with one query for each row given: it sees every token on the way to that
    /// row, the row included, and nothing else.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn plan_over_paths(&self, rows: &[usize]) -> AttentionPlan {
        let run = |(query, row): (usize, &usize)| {
            assert!(*row < self.tokens.len(), "row {row} of a smaller forest");
            let segment = self.segments.partition_point(|segment| segment.start <= *row) - 1;
            let mut spans = self.path(SegmentId(segment));
            if let Some(last) = spans.last_mut() {
                last.len = row + 1 - last.slot;
            }
            QueryRun { query, len: 1, first_position: 0, spans, causal: false }
        };
        AttentionPlan { runs: rows.iter().enumerate().map(run).collect() }
    }

    /// The segments from the root to one of them.
    fn path(&self, id: SegmentId) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut next = Some(id);
        while let Some(current) = next {
            let at = &self.segments[current.0];
            spans.push(Span { slot: at.start, len: at.len });
            next = at.parent;
        }
        spans.reverse();
        spans
    }

    fn run(&self, id: SegmentId) -> QueryRun {
        let segment = &self.segments[id.0];
        let spans = self.path(id);
        QueryRun {
            query: segment.start,
            len: segment.len,
            first_position: segment.depth,
            spans,
            causal: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_ends_at_its_row() {
        let mut forest = Forest::new();
        let root = forest.add(None, &[1, 2, 3]);
        let left = forest.add(Some(root), &[4, 5]);
        let leaf = forest.add(Some(left), &[6, 7]);
        let plan = forest.plan_over_paths(&[forest.row(leaf, 0), 1, forest.last_row(left)]);
        let spans: Vec<Vec<(usize, usize)>> = plan
            .runs
            .iter()
            .map(|run| run.spans.iter().map(|span| (span.slot, span.len)).collect())
            .collect();
        assert_eq!(spans, [vec![(0, 3), (3, 2), (5, 1)], vec![(0, 2)], vec![(0, 3), (3, 2)]]);
        assert!(plan.runs.iter().all(|run| !run.causal && run.len == 1));
    }

    #[test]
    fn positions_are_depths_and_rows_follow_paths() {
        let mut forest = Forest::new();
        let root = forest.add(None, &[1, 2, 3]);
        let left = forest.add(Some(root), &[4]);
        let right = forest.add(Some(root), &[5, 6]);
        let leaf = forest.add(Some(left), &[7, 8]);
        assert_eq!(forest.positions(), [0, 1, 2, 3, 3, 4, 4, 5]);
        assert_eq!(forest.predicting_row(leaf, 0), Some(forest.last_row(left)));
        assert_eq!(forest.predicting_row(right, 1), Some(forest.row(right, 0)));
        assert_eq!(forest.predicting_row(root, 0), None);
        assert_eq!(forest.num_tokens(), 8);
        // Rows: root+right = 5, root+left+leaf = 6.
        assert_eq!(forest.num_row_tokens(), 11);
        let plan = forest.plan();
        assert_eq!(plan.runs[3].spans.len(), 3);
        assert_eq!(plan.runs[3].keys_seen(1), 6);
    }

    #[test]
    fn the_tree_of_the_design_page_computes_a_fifth_of_the_rows() {
        // Prompt 1,000, responses 200, n = 8 judgements of 200 a side.
        let mut forest = Forest::new();
        let prompt = forest.add(None, &[0; 1000]);
        for _ in 0..2 {
            let response = forest.add(Some(prompt), &[0; 200]);
            for _ in 0..8 {
                forest.add(Some(response), &[0; 200]);
            }
        }
        assert_eq!((forest.num_tokens(), forest.num_row_tokens()), (4_600, 22_400));
    }
}
