//! Who sums which key gradients.
//!
//! Several queries write the gradient of one key. They are dealt into a number of
//! shares that the plan alone decides; each share sums into its own copy of the
//! slots it touches, and the copies are added in order.

use std::ops::Range;

use super::Piece;
use super::tile;
use crate::attention_plan::{AttentionPlan, AttentionShape};
use crate::cpu::Cpu;
use crate::cpu::simd::{LANES, Lanes};

/// Queries whose gradients are computed together.
const CHUNK_QUERIES: usize = 32;
/// Shares times key heads is about this: enough for as many threads.
const TASKS: usize = 24;
/// Key slots of one piece of the final summation.
const SLOTS: usize = 64;

/// Pieces of runs, and the slots their keys lie in.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    pub(crate) pieces: Vec<Piece<'a>>,
    slots: Range<usize>,
}

impl<'a> Share<'a> {
    fn new(pieces: Vec<Piece<'a>>) -> Self {
        let spans = pieces.iter().flat_map(|piece| &piece.run.spans);
        let spans = spans.filter(|span| span.len > 0);
        let start = spans.clone().map(|span| span.slot).min().unwrap_or(0);
        let end = spans.map(|span| span.slot + span.len).max().unwrap_or(0);
        let slots = start..end;
        Self { pieces, slots }
    }
}

/// Deals the queries of all runs into shares of about equal cost.
pub(crate) fn deal(plan: &AttentionPlan, kv_heads: usize) -> Vec<Share<'_>> {
    let count = TASKS.div_ceil(kv_heads);
    let pieces: Vec<Piece<'_>> = plan.runs.iter().flat_map(Piece::of_run).collect();
    let cost = |piece: &Piece<'_>| piece.len * piece.num_blocks();
    let total: usize = pieces.iter().map(cost).sum();
    let mut shares = Vec::new();
    let mut share = Vec::new();
    let mut dealt = 0;
    for piece in pieces {
        dealt += cost(&piece);
        share.push(piece);
        if dealt * count >= total * (shares.len() + 1) {
            shares.push(Share::new(std::mem::take(&mut share)));
        }
    }
    if !share.is_empty() {
        shares.push(Share::new(share));
    }
    shares
}

impl<'a> Piece<'a> {
    fn of_run(run: &'a super::QueryRun) -> impl Iterator<Item = Self> {
        (0..run.len).step_by(CHUNK_QUERIES).map(|first| Piece {
            run,
            first,
            len: CHUNK_QUERIES.min(run.len - first),
        })
    }
}

/// One share's copy of the gradients of one key head: a row per slot.
#[derive(Debug)]
pub(crate) struct Copy<'a> {
    /// Slot of the first row.
    pub(crate) first_slot: usize,
    pub(crate) d_keys: &'a mut [Lanes],
    pub(crate) d_values: &'a mut [Lanes],
}

/// Where every share's copies lie in one buffer, share by share and head by head.
#[derive(Debug)]
pub(crate) struct Copies {
    slots: Vec<Range<usize>>,
    kv_heads: usize,
    panels: usize,
}

impl Copies {
    pub(crate) fn new(shares: &[Share<'_>], shape: AttentionShape) -> Self {
        Self {
            slots: shares.iter().map(|share| share.slots.clone()).collect(),
            kv_heads: shape.kv_heads,
            panels: tile::dim_panels(shape.head_dim),
        }
    }

    /// Elements of the buffer.
    pub(crate) fn len(&self) -> usize {
        self.slots.iter().map(|slots| self.share_len(slots)).sum::<usize>() * LANES
    }

    /// Vectors of one share: keys and values of every head.
    fn share_len(&self, slots: &Range<usize>) -> usize {
        2 * self.kv_heads * slots.len() * self.panels
    }

    /// The copies, in order of share, then head.
    pub(crate) fn cut<'a>(&self, buffer: &'a mut [f32]) -> Vec<Copy<'a>> {
        let mut rest = buffer.as_chunks_mut::<LANES>().0;
        let mut copies = Vec::new();
        for slots in &self.slots {
            for _ in 0..self.kv_heads {
                let len = slots.len() * self.panels;
                let (d_keys, after) = rest.split_at_mut(len);
                let (d_values, after) = after.split_at_mut(len);
                rest = after;
                copies.push(Copy { first_slot: slots.start, d_keys, d_values });
            }
        }
        copies
    }

    /// `gradient += Σ copies`, share by share, of the keys (`which` 0) or the
    /// values (1).
    pub(crate) fn add_to(
        &self,
        cpu: &Cpu,
        buffer: &[f32],
        which: usize,
        gradient: &mut [f32],
        head_dim: usize,
    ) {
        let (vectors, _) = buffer.as_chunks::<LANES>();
        let rows = SLOTS * self.kv_heads;
        cpu.threads.each_chunk(gradient, rows * head_dim, |n, gradient| {
            for (row, gradient) in gradient.chunks_exact_mut(head_dim).enumerate() {
                let (slot, kv_head) = (n * SLOTS + row / self.kv_heads, row % self.kv_heads);
                let mut share_start = 0;
                for slots in &self.slots {
                    if slots.contains(&slot) {
                        let part = (2 * kv_head + which) * slots.len() + slot - slots.start;
                        let from = &vectors[share_start + part * self.panels..][..self.panels];
                        let sum = gradient.iter_mut().zip(from.as_flattened());
                        sum.for_each(|(sum, x)| *sum += x);
                    }
                    share_start += self.share_len(slots);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention_plan::{QueryRun, Span};

    fn plan(lens: &[usize]) -> AttentionPlan {
        let mut start = 0;
        let run = |&len: &usize| {
            let spans = vec![Span { slot: start, len }];
            start += len;
            let query = start - len;
            QueryRun { query, len, first_position: 0, spans, causal: true }
        };
        AttentionPlan { runs: lens.iter().map(run).collect() }
    }

    #[test]
    fn every_query_is_dealt_once_and_slots_are_those_touched() {
        for (lens, kv_heads) in
            [(vec![1], 1), (vec![500], 3), (vec![30; 40], 2), (vec![3, 200, 1, 64], 30)]
        {
            let plan = plan(&lens);
            let shares = deal(&plan, kv_heads);
            assert!(shares.len() <= TASKS.div_ceil(kv_heads));
            let mut query = 0;
            for share in &shares {
                for piece in &share.pieces {
                    assert_eq!(piece.query(), query);
                    query += piece.len;
                    assert!(share.slots.start <= piece.run.query);
                    assert!(share.slots.end >= piece.run.query + piece.run.len);
                }
            }
            assert_eq!(query, lens.iter().sum::<usize>());
        }
    }

    #[test]
    fn a_forest_of_equal_runs_is_dealt_evenly() {
        let plan = plan(&[32; 48]);
        let shares = deal(&plan, 3);
        assert_eq!(shares.len(), 8);
        assert!(shares.iter().all(|share| share.pieces.len() == 6 && share.slots.len() == 192));
    }
}
