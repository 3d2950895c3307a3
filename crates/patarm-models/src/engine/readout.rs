//! Log-probabilities of given continuations of finished sequences.
//!
//! The last generated token and every branch but its final token are run against
//! the cache in one forward; each branch attends to its sequence's path and to
//! itself.

use patarm_kernels::{AttentionPlan, QueryRun};

use super::sequence::Active;
use super::{Engine, StopReason};
use crate::targets::{Target, TargetRows};

/// For each ended sequence, the log-probability of each of its branches.
pub(super) fn read(engine: &mut Engine<'_>, ended: &[(Active, StopReason)]) -> Vec<Vec<f64>> {
    let mut batch = Batch::default();
    for (active, reason) in ended {
        if !active.request.readout.is_empty() && *reason == StopReason::StopRule {
            batch.push(active);
        } else {
            batch.skip();
        }
    }
    if batch.tokens.is_empty() {
        return vec![Vec::new(); ended.len()];
    }
    let target = (&mut engine.cache, batch.slots.as_slice());
    let hidden =
        engine.decoder.forward_cached(&batch.tokens, &batch.positions, &batch.plan, target);
    engine.counters.decoded_tokens += batch.tokens.len() as u64;
    let statistics = engine.decoder.target_statistics(&hidden, &batch.targets, 1.0);
    let sum = |branch: &std::ops::Range<usize>| {
        branch.clone().map(|n| f64::from(statistics.logprob(n))).sum()
    };
    batch.branches.iter().map(|branches| branches.iter().map(sum).collect()).collect()
}

#[derive(Default)]
struct Batch {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    plan: AttentionPlan,
    targets: TargetRows,
    branches: Vec<Vec<std::ops::Range<usize>>>,
}

impl Batch {
    fn skip(&mut self) {
        self.branches.push(Vec::new());
    }

    fn push(&mut self, active: &Active) {
        let last = active.drawn.tokens.len() - 1;
        let last_row = self.tokens.len();
        self.plan.runs.push(active.run(last_row, 1));
        self.tokens.push(active.drawn.tokens[last]);
        self.positions.push((active.depth + last) as u32);
        self.slots.extend(active.own.numbers(last..last + 1));
        let mut taken = 0;
        let mut branches = Vec::new();
        for branch in &active.request.readout {
            let start = self.targets.len();
            let first_row = self.tokens.len();
            for (offset, &id) in branch.iter().enumerate() {
                let row = if offset == 0 { last_row } else { first_row + offset - 1 };
                self.targets.push(Target { row, ids: vec![id] });
            }
            self.push_branch(active, &branch[..branch.len() - 1], taken);
            taken += branch.len() - 1;
            branches.push(start..self.targets.len());
        }
        self.branches.push(branches);
    }

    /// `taken`: slots that earlier branches have.
    fn push_branch(&mut self, active: &Active, tokens: &[u32], taken: usize) {
        if tokens.is_empty() {
            return;
        }
        let slots = taken..taken + tokens.len();
        let depth = active.depth + active.drawn.tokens.len();
        let mut spans = active.spans();
        spans.extend(active.branches.spans(slots.clone()));
        let query = self.tokens.len();
        self.plan.runs.push(QueryRun {
            query,
            len: tokens.len(),
            first_position: depth,
            spans,
            causal: true,
        });
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((depth..depth + tokens.len()).map(|position| position as u32));
        self.slots.extend(active.branches.numbers(slots));
    }
}
