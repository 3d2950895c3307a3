//! Whole sequences as a forest in which common beginnings are computed once.
//!
//! [`TreeBuilder`](crate::TreeBuilder) shares segments whose borders the caller knows.
//! Here the borders are found: a radix tree over token ids. What a sequence yields does
//! not depend on where it is cut.

use crate::forest::{Forest, SegmentId};

/// Beginnings shorter than this are not shared: a cut costs something too.
const MIN_SHARED_TOKENS: usize = 8;

#[derive(Clone, Debug)]
struct Node {
    parent: Option<usize>,
    tokens: Vec<u32>,
    children: Vec<usize>,
}

/// Sequences under construction as a forest.
#[derive(Clone, Debug, Default)]
pub struct SharedPrefixes {
    nodes: Vec<Node>,
    roots: Vec<usize>,
    /// The node at which each sequence ends.
    ends: Vec<usize>,
    num_tokens: usize,
}

impl SharedPrefixes {
    /// Tokens to be computed so far.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// Sequences so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no sequence yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Tokens that adding a sequence would add.
    #[must_use]
    pub fn missing(&self, sequence: &[u32]) -> usize {
        let (_, matched, _) = self.descend(sequence);
        sequence.len() - matched
    }

    /// Adds a sequence of at least one token.
    ///
    /// # Panics
    /// When the sequence is empty.
    pub fn add(&mut self, sequence: &[u32]) {
        assert!(!sequence.is_empty(), "a sequence has at least one token");
        let (node, matched, within) = self.descend(sequence);
        let parent = node.map(|node| self.cut(node, within));
        let rest = &sequence[matched..];
        let end = match (parent, rest.is_empty()) {
            (Some(parent), true) => parent,
            _ => self.insert(parent, rest),
        };
        self.ends.push(end);
    }

    /// The deepest node a sequence shares, how many of its tokens that covers, and how
    /// many of the node's own.
    fn descend(&self, sequence: &[u32]) -> (Option<usize>, usize, usize) {
        let (mut at, mut matched, mut within) = (None, 0, 0);
        let mut choices = &self.roots;
        loop {
            let rest = &sequence[matched..];
            let common = |node: usize| {
                let pairs = self.nodes[node].tokens.iter().zip(rest);
                pairs.take_while(|(a, b)| a == b).count()
            };
            let best = choices.iter().map(|&node| (common(node), node)).max_by_key(|(n, _)| *n);
            let Some((length, node)) = best else { break };
            let is_whole = length == self.nodes[node].tokens.len();
            // A short stretch is worth it where nothing has to be cut for it.
            if length == 0 || (!is_whole && length < MIN_SHARED_TOKENS) {
                break;
            }
            (at, matched, within) = (Some(node), matched + length, length);
            if !is_whole {
                break;
            }
            choices = &self.nodes[node].children;
        }
        (at, matched, within)
    }

    /// Makes a node end after `within` of its tokens; what follows becomes its child.
    fn cut(&mut self, node: usize, within: usize) -> usize {
        if within == self.nodes[node].tokens.len() {
            return node;
        }
        let upper = self.nodes.len();
        let rest = self.nodes[node].tokens.split_off(within);
        let tokens = std::mem::replace(&mut self.nodes[node].tokens, rest);
        let parent = self.nodes[node].parent.replace(upper);
        self.nodes.push(Node { parent, tokens, children: vec![node] });
        let siblings = match parent {
            Some(parent) => &mut self.nodes[parent].children,
            None => &mut self.roots,
        };
        siblings.iter_mut().filter(|child| **child == node).for_each(|child| *child = upper);
        upper
    }

    fn insert(&mut self, parent: Option<usize>, tokens: &[u32]) -> usize {
        let node = self.nodes.len();
        self.nodes.push(Node { parent, tokens: tokens.to_vec(), children: Vec::new() });
        match parent {
            Some(parent) => self.nodes[parent].children.push(node),
            None => self.roots.push(node),
        }
        self.num_tokens += tokens.len();
        node
    }

    /// The forest, and the rows of the tokens of each sequence in the order in which they
    /// were added.
    #[must_use]
    pub fn finish(self) -> (Forest, Vec<Vec<usize>>) {
        let mut forest = Forest::new();
        let mut segments: Vec<Option<SegmentId>> = vec![None; self.nodes.len()];
        let mut open: Vec<usize> = self.roots.iter().rev().copied().collect();
        while let Some(node) = open.pop() {
            let parent = self.nodes[node].parent.and_then(|parent| segments[parent]);
            segments[node] = Some(forest.add(parent, &self.nodes[node].tokens));
            open.extend(self.nodes[node].children.iter().rev());
        }
        let rows = self.ends.iter().map(|end| self.rows_of(*end, &forest, &segments)).collect();
        (forest, rows)
    }

    /// The rows from the root to the end of a node.
    fn rows_of(&self, end: usize, forest: &Forest, segments: &[Option<SegmentId>]) -> Vec<usize> {
        let path = std::iter::successors(Some(end), |node| self.nodes[*node].parent);
        let mut rows: Vec<usize> = path
            .flat_map(|node| {
                let own = 0..self.nodes[node].tokens.len();
                segments[node].into_iter().flat_map(move |segment| {
                    own.clone().rev().map(move |offset| forest.row(segment, offset))
                })
            })
            .collect();
        rows.reverse();
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The path of tokens that ends at each row.
    fn check(sequences: &[Vec<u32>]) -> usize {
        let mut prefixes = SharedPrefixes::default();
        let mut foreseen = 0;
        for sequence in sequences {
            foreseen += prefixes.missing(sequence);
            prefixes.add(sequence);
        }
        let num_tokens = prefixes.num_tokens();
        assert_eq!(num_tokens, foreseen);
        let (forest, rows) = prefixes.finish();
        assert_eq!(forest.num_tokens(), num_tokens);
        let plan = forest.plan();
        for (sequence, rows) in sequences.iter().zip(rows) {
            let own: Vec<u32> = rows.iter().map(|row| forest.tokens()[*row]).collect();
            assert_eq!(&own, sequence);
            let row = rows[rows.len() - 1];
            let run = plan.runs.iter().find(|run| (run.query..run.query + run.len).contains(&row));
            let run = run.expect("every row belongs to a run");
            let spans = run.spans.iter();
            let mut path: Vec<u32> = spans
                .flat_map(|span| &forest.tokens()[span.slot..span.slot + span.len])
                .copied()
                .collect();
            // The run's own segment counts up to the row.
            path.truncate(path.len() - (run.query + run.len - 1 - row));
            assert_eq!(&path, sequence);
        }
        num_tokens
    }

    fn range(range: std::ops::Range<u32>) -> Vec<u32> {
        range.collect()
    }

    #[test]
    fn common_beginnings_are_stored_once() {
        let with = |base: std::ops::Range<u32>, tail: &[u32]| [range(base), tail.to_vec()].concat();
        // Twenty shared, then three tails of two.
        let group = [with(0..20, &[90, 91]), with(0..20, &[92, 93]), with(0..20, &[94, 95])];
        assert_eq!(check(&group), 26);
        // A sequence that is another's beginning, and the same sequence again.
        assert_eq!(check(&[range(0..20), range(0..10), range(0..20)]), 20);
        // Cuts below cuts.
        let nested = [range(0..40), with(0..30, &[99]), with(0..15, &[98]), with(0..30, &[97])];
        assert_eq!(check(&nested), 43);
        // Too short to be worth a cut.
        assert_eq!(check(&[with(0..3, &[50]), with(0..3, &[51])]), 8);
        // But free where the whole node is shared.
        assert_eq!(check(&[range(0..3), with(0..3, &[51])]), 4);
        assert_eq!(check(&[range(0..3), range(50..60)]), 13);
    }

    #[test]
    fn random_groups_keep_their_paths() {
        use patarm_kernels::random::below;
        for seed in 0..200 {
            let draw = |n: usize, at: &[u64]| below(n, seed, at);
            let sequences: Vec<Vec<u32>> = (0..12)
                .map(|i| {
                    let len = 1 + draw(40, &[i, 0]);
                    // Few values and a common stretch make long common beginnings.
                    let fixed = draw(30, &[i, 1]);
                    (0..len as u64)
                        .map(|k| {
                            if (k as usize) < fixed {
                                k as u32
                            } else {
                                draw(3, &[i, k + 2]) as u32
                            }
                        })
                        .collect()
                })
                .collect();
            check(&sequences);
        }
    }
}
