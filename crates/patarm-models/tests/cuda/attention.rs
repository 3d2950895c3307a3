//! Attention over packs, trees, caches and free queries.

use patarm_models::kernels::{AttentionPlan, AttentionShape, Backend, Precision, QueryRun, Span};

use crate::{below, download, parity, poisoned, values};

/// A tree: a prompt, two children, several grandchildren; tokens are slots.
fn tree() -> AttentionPlan {
    let lengths = [70, 33, 1, 5, 64, 9, 2];
    let parents = [None, Some(0), Some(0), Some(1), Some(1), Some(2), None];
    let starts: Vec<usize> =
        lengths.iter().scan(0, |sum, len| Some(std::mem::replace(sum, *sum + len))).collect();
    let runs = (0..lengths.len()).map(|n| {
        let mut path = vec![n];
        while let Some(parent) = parents[path[path.len() - 1]] {
            path.push(parent);
        }
        path.reverse();
        let spans: Vec<Span> =
            path.iter().map(|&n| Span { slot: starts[n], len: lengths[n] }).collect();
        let first_position = path[..path.len() - 1].iter().map(|&n| lengths[n]).sum();
        QueryRun { query: starts[n], len: lengths[n], first_position, spans, causal: true }
    });
    AttentionPlan { runs: runs.collect() }
}

/// Decoding from a cache: one query a run, a shared prefix, scattered slots.
fn decoding() -> AttentionPlan {
    let runs = (0..6).map(|n| {
        let own = 1 + below(90, 40, n);
        let spans = vec![Span { slot: 20, len: 77 }, Span { slot: 100 + 100 * n, len: own }];
        QueryRun { query: n, len: 1, first_position: 77 + own - 1, spans, causal: true }
    });
    AttentionPlan { runs: runs.collect() }
}

/// Few queries behind many keys, which are cut into parts: one of a run, several that see
/// different numbers of keys, one that sees none.
fn long_caches() -> AttentionPlan {
    let run = |query, len, spans: &[(usize, usize)]| {
        let spans: Vec<Span> = spans.iter().map(|&(slot, len)| Span { slot, len }).collect();
        let keys: usize = spans.iter().map(|span| span.len).sum();
        QueryRun { query, len, first_position: keys.saturating_sub(len), spans, causal: keys > 0 }
    };
    let prefix = (10, 600);
    AttentionPlan {
        runs: vec![
            run(0, 1, &[prefix, (700, 1)]),
            run(1, 1, &[prefix, (710, 169)]),
            run(2, 1, &[]),
            run(3, 80, &[prefix, (1_000, 200)]),
            run(83, 1, &[(3, 2)]),
        ],
    }
}

/// Queries that see everything, one that sees nothing, slots read twice by one run.
fn free() -> AttentionPlan {
    let span = |slot, len| Span { slot, len };
    let run = |query, len, spans: &[Span]| QueryRun {
        query,
        len,
        first_position: 0,
        spans: spans.to_vec(),
        causal: false,
    };
    let twice = [span(0, 10), span(60, 10), span(0, 10)];
    AttentionPlan { runs: vec![run(0, 3, &twice), run(4, 70, &[span(5, 130)]), run(3, 1, &[])] }
}

fn results(
    b: &dyn Backend,
    plan: &AttentionPlan,
    shape: AttentionShape,
) -> Vec<(&'static str, Vec<f32>)> {
    let AttentionShape { queries, slots, heads, kv_heads, head_dim } = shape;
    let (width, key_width) = (queries * heads * head_dim, slots * kv_heads * head_dim);
    let [q, d_out] = [41, 42].map(|stream| b.upload(&values(width, stream)));
    let [k, v] = [43, 44].map(|stream| b.upload(&values(key_width, stream)));
    let (mut out, mut log_sum_exp) = (poisoned(b, width), poisoned(b, queries * heads));
    b.attention(&q, &k, &v, plan, shape, &mut out, &mut log_sum_exp);
    let mut d_q = poisoned(b, width);
    let [mut d_k, mut d_v] = [45, 46].map(|stream| b.upload(&values(key_width, stream)));
    b.attention_backward(
        &q,
        &k,
        &v,
        &out,
        &log_sum_exp,
        &d_out,
        plan,
        shape,
        &mut d_q,
        &mut d_k,
        &mut d_v,
    );
    vec![
        ("out", download(b, &out)),
        ("log_sum_exp", download(b, &log_sum_exp)),
        ("d_q", download(b, &d_q)),
        ("d_k", download(b, &d_k)),
        ("d_v", download(b, &d_v)),
    ]
}

fn check(plan: &AttentionPlan, (slots, heads, kv_heads, head_dim): (usize, usize, usize, usize)) {
    let queries = plan.runs.iter().map(|run| run.len).sum();
    let shape = AttentionShape { queries, slots, heads, kv_heads, head_dim };
    parity(Precision::F32, 1e-4, |b| results(b, plan, shape));
    // The CPU's attention is in single precision; operands rounded to eight bits.
    parity(Precision::Bf16, 2e-2, |b| results(b, plan, shape));
}

#[test]
fn trees() {
    check(&tree(), (184, 3, 1, 64));
    check(&tree(), (184, 4, 2, 16));
}

#[test]
fn trees_of_wide_heads() {
    check(&tree(), (184, 2, 1, 128));
}

#[test]
fn heads_whose_width_is_no_multiple_of_sixteen() {
    check(&tree(), (190, 2, 2, 20));
}

#[test]
fn many_heads_to_a_key_head() {
    check(&tree(), (184, 70, 1, 16));
}

#[test]
fn caches() {
    check(&decoding(), (700, 4, 2, 32));
}

#[test]
fn keys_in_parts() {
    check(&long_caches(), (1_300, 4, 2, 32));
    check(&long_caches(), (1_300, 3, 1, 64));
}

#[test]
fn queries_that_see_everything_or_nothing() {
    check(&free(), (140, 2, 1, 32));
}
