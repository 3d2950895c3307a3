//! Attention: values, gradients, and the same bits however a forest is cut.

use super::*;
use crate::attention_plan::{QueryRun, Span};

/// A forest in which token `n` is stored in slot `n`: `(parent, len)` per segment.
fn forest(segments: &[(Option<usize>, usize)]) -> (AttentionPlan, usize) {
    let mut placed: Vec<(usize, Vec<Span>, usize)> = Vec::new();
    let mut plan = AttentionPlan::default();
    let mut start = 0;
    for &(parent, len) in segments {
        let (depth, mut spans) = match parent {
            Some(parent) => (placed[parent].2, placed[parent].1.clone()),
            None => (0, Vec::new()),
        };
        spans.push(Span { slot: start, len });
        let run = QueryRun {
            query: start,
            len,
            first_position: depth,
            spans: spans.clone(),
            causal: true,
        };
        plan.runs.push(run);
        placed.push((start, spans, depth + len));
        start += len;
    }
    (plan, start)
}

struct Case {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    plan: AttentionPlan,
    shape: AttentionShape,
}

impl Case {
    fn new(plan: AttentionPlan, slots: usize, heads: (usize, usize), head_dim: usize) -> Self {
        let queries = plan.runs.iter().map(|run| run.len).sum();
        let shape = AttentionShape { queries, slots, heads: heads.0, kv_heads: heads.1, head_dim };
        Self {
            q: values(queries * heads.0 * head_dim, 1),
            k: values(slots * heads.1 * head_dim, 2),
            v: values(slots * heads.1 * head_dim, 3),
            plan,
            shape,
        }
    }

    /// Output and log-sum-exp.
    fn compute(&self, cpu: &Cpu) -> [Vec<f32>; 2] {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|data| cpu.upload(data));
        let mut out = cpu.alloc(q.len());
        let mut lse = cpu.alloc(self.shape.queries * self.shape.heads);
        cpu.attention(&q, &k, &v, &self.plan, self.shape, &mut out, &mut lse);
        [out, lse].map(|buffer| buffer.host().to_vec())
    }

    /// The same from tables as a cache has them.
    fn compute_cached(&self, cpu: &Cpu) -> [Vec<f32>; 2] {
        let AttentionShape { kv_heads, head_dim, .. } = self.shape;
        let slots = self.shape.slots.next_multiple_of(SLOTS_TOGETHER);
        let (shape, width) = (AttentionShape { slots, ..self.shape }, kv_heads * head_dim);
        let ids: Vec<u32> = (0..self.shape.slots as u32).collect();
        let mut k = cpu.key_table(slots, width, head_dim);
        cpu.scatter_rows(&cpu.upload(&self.k), &ids, width, &mut k);
        let mut v = cpu.alloc(slots * width);
        cpu.scatter_rows(&cpu.upload(&self.v), &ids, width, &mut v);
        let (q, mut out) = (cpu.upload(&self.q), cpu.alloc(self.q.len()));
        let mut lse = cpu.alloc(shape.queries * shape.heads);
        cpu.attention(&q, &k, &v, &self.plan, shape, &mut out, &mut lse);
        [out, lse].map(|buffer| buffer.host().to_vec())
    }

    fn gradients(&self, cpu: &Cpu, d_out: &[f32]) -> [Vec<f32>; 3] {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|data| cpu.upload(data));
        let [out, lse] = self.compute(cpu).map(|data| cpu.upload(&data));
        let d_out = cpu.upload(d_out);
        let (mut d_q, mut d_k, mut d_v) =
            (cpu.alloc(q.len()), cpu.zeros(k.len()), cpu.zeros(v.len()));
        cpu.attention_backward(
            &q, &k, &v, &out, &lse, &d_out, &self.plan, self.shape, &mut d_q, &mut d_k, &mut d_v,
        );
        [d_q, d_k, d_v].map(|buffer| buffer.host().to_vec())
    }

    fn wide(&self) -> [Vec<f64>; 3] {
        [wide(&self.q), wide(&self.k), wide(&self.v)]
    }
}

/// Calls `visit` with (row of q, key rows of k and v, index of the log-sum-exp).
fn each_row(
    plan: &AttentionPlan,
    shape: AttentionShape,
    mut visit: impl FnMut(usize, &[usize], usize),
) {
    for run in &plan.runs {
        let slots: Vec<usize> =
            run.spans.iter().flat_map(|span| span.slot..span.slot + span.len).collect();
        for j in 0..run.len {
            for head in 0..shape.heads {
                let kv_head = head / (shape.heads / shape.kv_heads);
                let keys: Vec<usize> = slots[..run.keys_seen(j)]
                    .iter()
                    .map(|slot| slot * shape.kv_heads + kv_head)
                    .collect();
                let row = (run.query + j) * shape.heads + head;
                visit(row, &keys, row);
            }
        }
    }
}

fn softmax(q: &[f64], k: &[f64], keys: &[usize], dim: usize) -> (Vec<f64>, f64) {
    let scores: Vec<f64> =
        keys.iter().map(|key| dot(q, &k[key * dim..][..dim]) / (dim as f64).sqrt()).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lse = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
    (scores.iter().map(|s| (s - lse).exp()).collect(), lse)
}

fn reference(arrays: &[Vec<f64>], plan: &AttentionPlan, shape: AttentionShape) -> [Vec<f64>; 2] {
    let dim = shape.head_dim;
    let mut out = vec![0.0; arrays[0].len()];
    let mut lse = vec![0.0; shape.queries * shape.heads];
    each_row(plan, shape, |row, keys, index| {
        let (weights, row_lse) = softmax(&arrays[0][row * dim..][..dim], &arrays[1], keys, dim);
        for (weight, key) in weights.iter().zip(keys) {
            for d in 0..dim {
                out[row * dim + d] += weight * arrays[2][key * dim + d];
            }
        }
        lse[index] = row_lse;
    });
    [out, lse]
}

/// The textbook gradient, itself compared with differences below.
fn reference_gradients(
    arrays: &[Vec<f64>],
    plan: &AttentionPlan,
    shape: AttentionShape,
    d_out: &[f64],
) -> [Vec<f64>; 3] {
    let dim = shape.head_dim;
    let scale = 1.0 / (dim as f64).sqrt();
    let mut gradients = [0, 1, 2].map(|n: usize| vec![0.0; arrays[n].len()]);
    each_row(plan, shape, |row, keys, _| {
        let q = &arrays[0][row * dim..][..dim];
        let d_out = &d_out[row * dim..][..dim];
        let (weights, _) = softmax(q, &arrays[1], keys, dim);
        let d_weights: Vec<f64> =
            keys.iter().map(|key| dot(d_out, &arrays[2][key * dim..][..dim])).collect();
        let mean = dot(&weights, &d_weights);
        for ((weight, d_weight), key) in weights.iter().zip(&d_weights).zip(keys) {
            let d_score = weight * (d_weight - mean) * scale;
            for d in 0..dim {
                gradients[0][row * dim + d] += d_score * arrays[1][key * dim + d];
                gradients[1][key * dim + d] += d_score * q[d];
                gradients[2][key * dim + d] += weight * d_out[d];
            }
        }
    });
    gradients
}

fn cases() -> Vec<Case> {
    let judge =
        [(None, 70), (Some(0), 33), (Some(0), 5), (Some(1), 20), (Some(1), 1), (Some(2), 64)];
    let (plan, slots) = forest(&judge);
    let single = |len| forest(&[(None, len)]);
    let item = QueryRun {
        query: 0,
        len: 2,
        first_position: 0,
        spans: vec![Span { slot: 3, len: 70 }, Span { slot: 0, len: 2 }],
        causal: false,
    };
    vec![
        Case::new(plan.clone(), slots, (9, 3), 64),
        Case::new(plan.clone(), slots, (2, 2), 128),
        Case::new(plan, slots, (4, 1), 6),
        Case::new(single(1).0, 1, (1, 1), 2),
        Case::new(single(64).0, 64, (3, 1), 16),
        Case::new(single(65).0, 65, (2, 1), 20),
        Case::new(single(300).0, 300, (2, 2), 34),
        Case::new(AttentionPlan { runs: vec![item] }, 80, (4, 2), 18),
    ]
}

#[test]
fn values_equal_plain_softmax() {
    for case in cases() {
        let expected = reference(&case.wide(), &case.plan, case.shape);
        for cpu in backends() {
            let [out, lse] = case.compute(&cpu);
            assert_close(&out, &expected[0], 2e-6);
            assert_close(&lse, &expected[1], 2e-6);
        }
    }
}

#[test]
fn the_textbook_gradient_equals_differences() {
    let (plan, slots) = forest(&[(None, 4), (Some(0), 2), (Some(0), 3)]);
    let case = Case::new(plan, slots, (4, 2), 4);
    let d_out = wide(&values(case.q.len(), 9));
    let loss = |arrays: &[Vec<f64>]| dot(&reference(arrays, &case.plan, case.shape)[0], &d_out);
    let found = reference_gradients(&case.wide(), &case.plan, case.shape, &d_out);
    for which in 0..3 {
        let differences = differences(&case.wide(), which, loss);
        for (a, b) in found[which].iter().zip(&differences) {
            assert!((a - b).abs() < 1e-8, "{a} {b}");
        }
    }
}

#[test]
fn gradients_equal_the_textbook() {
    for case in cases() {
        let d_out = values(case.q.len(), 9);
        let expected = reference_gradients(&case.wide(), &case.plan, case.shape, &wide(&d_out));
        for cpu in backends() {
            let found = case.gradients(&cpu, &d_out);
            for which in 0..3 {
                assert_close(&found[which], &expected[which], 5e-6);
            }
        }
    }
}

#[test]
fn gradients_are_added_to_keys_and_values_and_set_on_queries() {
    let (plan, slots) = forest(&[(None, 5)]);
    let case = Case::new(plan, slots, (2, 1), 8);
    let cpu = Cpu::new(1);
    let d_out = values(case.q.len(), 4);
    let plain = case.gradients(&cpu, &d_out);
    let [q, k, v, d_out] = [&case.q, &case.k, &case.v, &d_out].map(|data| cpu.upload(data));
    let [out, lse] = case.compute(&cpu).map(|data| cpu.upload(&data));
    let [mut d_q, mut d_k, mut d_v] =
        [&q, &k, &v].map(|buffer| cpu.upload(&vec![100.0; buffer.len()]));
    cpu.attention_backward(
        &q, &k, &v, &out, &lse, &d_out, &case.plan, case.shape, &mut d_q, &mut d_k, &mut d_v,
    );
    assert_eq!(d_q.host(), plain[0]);
    for (added, plain) in [(&d_k, &plain[1]), (&d_v, &plain[2])] {
        let expected: Vec<f64> = plain.iter().map(|&x| 100.0 + f64::from(x)).collect();
        assert_close(added.host(), &expected, 1e-6);
    }
}

/// The bits of every query along one path of a forest, from root to leaf.
fn path_bits(found: &[Vec<f32>; 2], tokens: &[usize], shape: AttentionShape) -> Vec<u32> {
    let width = shape.heads * shape.head_dim;
    tokens
        .iter()
        .flat_map(|&token| {
            let out = bits(&found[0][token * width..][..width]);
            let lse = bits(&found[1][token * shape.heads..][..shape.heads]);
            out.into_iter().chain(lse)
        })
        .collect()
}

#[test]
fn a_tree_equals_its_rows_to_the_bit() {
    let segments =
        [(None, 70), (Some(0), 33), (Some(0), 50), (Some(1), 20), (Some(1), 7), (Some(2), 64)];
    let starts = [0, 70, 103, 153, 173, 180];
    let (plan, slots) = forest(&segments);
    for (heads, head_dim) in [((9, 3), 64), ((4, 2), 10), ((2, 2), 128)] {
        let tree = Case::new(plan.clone(), slots, heads, head_dim);
        for cpu in [Cpu::new(2), Cpu::portable(1)] {
            let found = tree.compute(&cpu);
            for leaf in [[0, 1, 3], [0, 1, 4], [0, 2, 5]] {
                let tokens: Vec<usize> =
                    leaf.iter().flat_map(|&s| starts[s]..starts[s] + segments[s].1).collect();
                let (row_plan, len) = forest(&[(None, tokens.len())]);
                let pick = |data: &[f32], width: usize| -> Vec<f32> {
                    tokens.iter().flat_map(|&t| data[t * width..][..width].to_vec()).collect()
                };
                let row = Case {
                    q: pick(&tree.q, heads.0 * head_dim),
                    k: pick(&tree.k, heads.1 * head_dim),
                    v: pick(&tree.v, heads.1 * head_dim),
                    plan: row_plan,
                    shape: AttentionShape { queries: len, slots: len, ..tree.shape },
                };
                let all: Vec<usize> = (0..len).collect();
                let expected = path_bits(&row.compute(&cpu), &all, row.shape);
                assert!(path_bits(&found, &tokens, tree.shape) == expected, "{leaf:?} {head_dim}");
            }
        }
    }
}

#[test]
fn decoding_one_query_at_a_time_equals_one_run_to_the_bit() {
    let (plan, slots) = forest(&[(None, 150)]);
    let whole = Case::new(plan, slots, (6, 2), 64);
    let cpu = Cpu::new(2);
    let expected = whole.compute(&cpu).map(|data| bits(&data));
    // Keys scattered over slots, spans cut anywhere, queries in runs of one to three.
    let place = |position: usize| (position * 67) % 150;
    let move_rows = |data: &[f32]| {
        let mut moved = vec![0.0; data.len()];
        for (position, row) in data.chunks(2 * 64).enumerate() {
            moved[place(position) * 128..][..128].copy_from_slice(row);
        }
        moved
    };
    let mut runs = Vec::new();
    let mut query = 0;
    while query < 150 {
        let len = (1 + query % 3).min(150 - query);
        let spans = (0..query + len).map(|p| Span { slot: place(p), len: 1 }).collect();
        runs.push(QueryRun { query, len, first_position: query, spans, causal: true });
        query += len;
    }
    runs.reverse();
    let cut = Case {
        q: whole.q.clone(),
        k: move_rows(&whole.k),
        v: move_rows(&whole.v),
        plan: AttentionPlan { runs },
        shape: whole.shape,
    };
    assert!(cut.compute(&cpu).map(|data| bits(&data)) == expected);
    assert!(cut.compute_cached(&cpu).map(|data| bits(&data)) == expected);
}

#[test]
fn a_cache_gives_the_bits_of_rows() {
    let mut cpus = vec![Cpu::new(1), Cpu::new(3), Cpu::portable(2)];
    let avx2 = CpuOptions { instructions: Instructions::Avx2, ..CpuOptions::default() };
    cpus.extend(Cpu::with_options(&avx2));
    // One query behind spans that begin anywhere, and many.
    let spans =
        vec![Span { slot: 37, len: 41 }, Span { slot: 90, len: 3 }, Span { slot: 0, len: 30 }];
    let run = |query, len| QueryRun {
        query,
        len,
        first_position: 74 - len,
        spans: spans.clone(),
        causal: true,
    };
    let behind = AttentionPlan { runs: vec![run(0, 1), run(1, 1), run(2, 17)] };
    let more = [((6, 2), 16), ((4, 4), 48), ((3, 1), 80)];
    let more = more.map(|(heads, dim)| Case::new(behind.clone(), 93, heads, dim));
    for case in cases().into_iter().chain(more) {
        for cpu in &cpus {
            let [cached, rows] = [case.compute_cached(cpu), case.compute(cpu)];
            assert!(cached.map(|data| bits(&data)) == rows.map(|data| bits(&data)), "{cpu:?}");
        }
    }
}

#[test]
fn threads_change_nothing() {
    for case in cases() {
        let d_out = values(case.q.len(), 9);
        let all = [1, 2, 4].map(|threads| {
            let cpu = Cpu::new(threads);
            let (found, gradients) = (case.compute(&cpu), case.gradients(&cpu, &d_out));
            (found.map(|data| bits(&data)), gradients.map(|data| bits(&data)))
        });
        assert!(all[0] == all[1] && all[0] == all[2]);
    }
}

#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let (plan, slots) = forest(&[(None, 130)]);
    let mut case = Case::new(plan, slots, (2, 1), 64);
    case.q.iter_mut().for_each(|x| *x *= 40.0);
    let expected = reference(&case.wide(), &case.plan, case.shape);
    let [out, lse] = case.compute(&Cpu::new(1));
    assert_close(&out, &expected[0], 1e-4);
    assert_close(&lse, &expected[1], 1e-6);
}

#[test]
fn a_query_without_keys_gives_zero() {
    let run = QueryRun { query: 0, len: 1, first_position: 0, spans: vec![], causal: false };
    let case = Case::new(AttentionPlan { runs: vec![run] }, 0, (2, 1), 4);
    let cpu = Cpu::new(1);
    let [out, lse] = case.compute(&cpu);
    assert_eq!((out, lse), (vec![0.0; 8], vec![f32::NEG_INFINITY; 2]));
    assert_eq!(case.gradients(&cpu, &[1.0; 8])[0], [0.0; 8]);
}

#[test]
fn no_queries_are_no_work() {
    let case = Case::new(AttentionPlan::default(), 3, (2, 1), 4);
    assert!(case.compute(&Cpu::new(2))[0].is_empty());
    assert_eq!(case.gradients(&Cpu::new(2), &[])[1], [0.0; 12]);
}

#[test]
fn random_forests_equal_plain_softmax_and_their_own_rows() {
    let cpus = [Cpu::new(2), Cpu::portable(1)];
    for seed in 0..30 {
        let below = |n: usize, what: u64| random::below(n, seed, &[what]);
        let segments: Vec<_> = (0..1 + below(7, 0) as u64)
            .map(|n| {
                let parent = below(n as usize + 1, 10 + n).checked_sub(1);
                (parent, 1 + below(90, 20 + n))
            })
            .collect();
        let (plan, slots) = forest(&segments);
        let kv_heads = 1 + below(3, 1);
        let heads = (kv_heads * (1 + below(4, 2)), kv_heads);
        let case = Case::new(plan, slots, heads, 2 * (1 + below(40, 3)));
        let expected = reference(&case.wide(), &case.plan, case.shape);
        let d_out = values(case.q.len(), 5);
        let slopes = reference_gradients(&case.wide(), &case.plan, case.shape, &wide(&d_out));
        for cpu in &cpus {
            let found = case.compute(cpu);
            assert_close(&found[0], &expected[0], 2e-6);
            assert_close(&found[1], &expected[1], 2e-6);
            let gradients = case.gradients(cpu, &d_out);
            for which in 0..3 {
                assert_close(&gradients[which], &slopes[which], 5e-6);
            }
            // Each query as a run of its own, the last first.
            let alone = case.plan.runs.iter().flat_map(|run| {
                (0..run.len).map(|j| QueryRun {
                    query: run.query + j,
                    len: 1,
                    first_position: run.first_position + j,
                    ..run.clone()
                })
            });
            let mut runs: Vec<_> = alone.collect();
            runs.reverse();
            let alone = Case {
                q: case.q.clone(),
                k: case.k.clone(),
                v: case.v.clone(),
                plan: AttentionPlan { runs },
                shape: case.shape,
            };
            let bits_of = |found: [Vec<f32>; 2]| found.map(|data| bits(&data));
            assert!(bits_of(alone.compute(cpu)) == bits_of(found), "seed {seed}");
        }
    }
}
