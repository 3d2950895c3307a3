//! What every backend checks before it computes. A wrong shape is a bug of the caller.

use crate::attention_plan::{AttentionPlan, AttentionShape};
use crate::backend::{
    AdamW, ChosenTokens, LinearShape, NormShape, RotatedNorm, Rotation, SLOTS_TOGETHER,
    StatisticsShape,
};
use crate::buffer::Buffer;

pub(crate) fn check(buffer: &Buffer, len: usize, what: &str) {
    assert_eq!(buffer.len(), len, "{what}: length of the buffer");
}

pub(crate) fn check_ids(ids: &[u32], table: &Buffer, dim: usize, what: &str) {
    let rows = table.len() / dim.max(1);
    assert!(ids.iter().all(|&id| (id as usize) < rows), "{what}: an id beyond the table");
}

pub(crate) fn check_norm(rows: &[&Buffer], weight: &Buffer, inv_rms: &Buffer, shape: NormShape) {
    assert!(shape.dim > 0, "rms_norm: a row has a width");
    for buffer in rows {
        check(buffer, shape.rows * shape.dim, "rms_norm: rows");
    }
    check(weight, shape.dim, "rms_norm: weight");
    check(inv_rms, shape.rows, "rms_norm: inv_rms");
}

pub(crate) fn check_rope(x: &Buffer, rotation: &Rotation<'_>) {
    check(x, rotation.rows() * rotation.head_dim(), "rope");
}

pub(crate) fn check_rotated_norm(
    rows: &[&Buffer],
    weight: &Buffer,
    inv_rms: &Buffer,
    operation: &RotatedNorm<'_>,
) {
    check_norm(rows, weight, inv_rms, operation.norm_shape());
}

pub(crate) fn check_linear(x: &Buffer, weight: &Buffer, out: &Buffer, shape: LinearShape) {
    check(x, shape.tokens * shape.input, "linear: x");
    check(weight, shape.output * shape.input, "linear: weight");
    check(out, shape.tokens * shape.output, "linear: out");
}

pub(crate) fn check_adamw(
    parameter: &Buffer,
    gradient: &Buffer,
    moments: [&Buffer; 2],
    step: &AdamW,
) {
    check(gradient, parameter.len(), "adamw: gradient");
    for moment in moments {
        check(moment, step.moments.buffer_len(parameter.len()), "adamw: moments");
    }
}

/// Checks queries, keys and values, and what the kernels rely on in a plan.
pub(crate) fn check_attention(
    [q, k, v]: [&Buffer; 3],
    plan: &AttentionPlan,
    shape: AttentionShape,
) {
    let AttentionShape { queries, slots, heads, kv_heads, head_dim } = shape;
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "key heads divide query heads");
    assert!(head_dim > 0, "a head has a width");
    check(q, queries * heads * head_dim, "attention: q");
    check(k, slots * kv_heads * head_dim, "attention: k");
    check(v, slots * kv_heads * head_dim, "attention: v");
    let mut covered = vec![false; queries];
    for run in &plan.runs {
        assert!(run.query + run.len <= queries, "attention: a run's queries");
        for seen in &mut covered[run.query..run.query + run.len] {
            assert!(!*seen, "attention: a query belongs to one run");
            *seen = true;
        }
        assert!(run.spans.iter().all(|s| s.slot + s.len <= slots), "attention: a run's slots");
        assert!(run.num_keys() >= run.visible_keys(), "attention: a run's keys");
    }
    assert!(covered.iter().all(|&seen| seen), "attention: every query belongs to a run");
}

pub(crate) fn check_slots(slots: usize) {
    assert!(slots.is_multiple_of(SLOTS_TOGETHER), "slots come in groups");
}

/// Checks hidden states, weight and chosen ids.
pub(crate) fn check_statistics(
    [hidden, weight]: [&Buffer; 2],
    chosen: &ChosenTokens,
    shape: StatisticsShape,
) {
    let StatisticsShape { rows, dim, vocab, temperature, .. } = shape;
    check(hidden, rows * dim, "token statistics: hidden");
    check(weight, vocab * dim, "token statistics: weight");
    assert!(temperature > 0.0, "token statistics: temperature");
    let ChosenTokens { offsets, ids } = chosen;
    assert_eq!(offsets.len(), rows + 1, "token statistics: offsets");
    assert!(offsets[0] == 0 && offsets[rows] == ids.len(), "token statistics: offsets");
    assert!(offsets.is_sorted(), "token statistics: offsets");
    assert!(ids.iter().all(|&id| (id as usize) < vocab), "token statistics: ids");
}

/// Checks hidden states, weight, ids and log-probabilities of a draw.
pub(crate) fn check_sample(
    [hidden, weight, ids, logprobs]: [&Buffer; 4],
    shape: StatisticsShape,
    num_options: usize,
) {
    check(hidden, shape.rows * shape.dim, "sample: hidden");
    check(weight, shape.vocab * shape.dim, "sample: weight");
    check(ids, shape.rows, "sample: ids");
    check(logprobs, shape.rows, "sample: logprobs");
    assert_eq!(num_options, shape.rows, "sample: options");
    assert!((1..=1 << 24).contains(&shape.vocab), "sample: an id is exact in f32");
}
