//! GFLOP/s of attention by path: packed texts forward and backward, and decoding.
//!
//! Counted are the products a causal query needs (4 · dimensions a key forward, 10
//! backward), so that work on masked keys lowers the figure.
//! `cargo bench -p patarm-kernels --bench attention -- [threads] [decoding] [avx512f]`
#![allow(clippy::print_stdout, missing_docs, reason = "a benchmark prints")]

use std::time::Instant;

use patarm_kernels::{
    AttentionPlan, AttentionShape, Backend, Buffer, Cpu, CpuOptions, Instructions, QueryRun,
    SLOTS_TOGETHER, Span,
};

/// Heads of SmolLM2-135M.
const HEADS: (usize, usize, usize) = (9, 3, 64);

fn main() {
    let threads = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(2);
    let word = |word: &str| std::env::args().any(|given| given == word);
    let paths = [Instructions::Avx512f, Instructions::Avx2, Instructions::Portable];
    for &instructions in &paths[..if word("avx512f") { 1 } else { paths.len() }] {
        let Some(cpu) =
            Cpu::with_options(&CpuOptions { threads, instructions, ..CpuOptions::default() })
        else {
            continue;
        };
        println!("{} on {threads} threads", cpu.name());
        for len in [64, 256, 512, 2048].into_iter().filter(|_| !word("decoding")) {
            report(&cpu, &format!("texts of {len}"), &texts(2048 / len, len));
        }
        for batch in [1, 8, 32] {
            report(&cpu, &format!("decoding {batch}, 300 keys each"), &decoding(batch, 300, 0));
        }
        report(&cpu, "decoding 32, 256 of 300 keys shared", &decoding(32, 44, 256));
        report_layers(&cpu, &decoding(32, 300, 0));
    }
}

/// Decoding as a model does it: by the time a layer comes again, its keys have left the
/// caches.
fn report_layers(cpu: &Cpu, plan: &AttentionPlan) {
    const LAYERS: usize = 24;
    let (heads, kv_heads, head_dim) = HEADS;
    let (queries, slots) = (plan.runs.len(), plan.runs.len() * 300);
    let slots = slots.next_multiple_of(SLOTS_TOGETHER);
    let shape = AttentionShape { queries, slots, heads, kv_heads, head_dim };
    let q = wave(cpu, queries * heads * head_dim);
    let layer = |_| {
        let values = wave(cpu, slots * kv_heads * head_dim);
        [key_table(cpu, &values, slots), values]
    };
    let tables: Vec<[Buffer; 2]> = (0..LAYERS).map(layer).collect();
    let mut out = cpu.alloc(queries * heads * head_dim);
    let mut log_sum_exp = cpu.alloc(queries * heads);
    let seconds = seconds(|| {
        for [k, v] in &tables {
            cpu.attention(&q, k, v, plan, shape, &mut out, &mut log_sum_exp);
        }
    });
    let (ms, bytes) = (seconds * 1e3 / LAYERS as f64, tables[0][0].num_bytes() * 2 * LAYERS);
    let rate = bytes as f64 / seconds / 1e9;
    println!("  decoding 32, 300 keys each, {LAYERS} layers   {ms:6.2} ms a layer, {rate:.1} GB/s");
}

/// Texts of equal length, each seeing itself.
fn texts(count: usize, len: usize) -> AttentionPlan {
    let run = |n| QueryRun {
        query: n * len,
        len,
        first_position: 0,
        spans: vec![Span { slot: n * len, len }],
        causal: true,
    };
    AttentionPlan { runs: (0..count).map(run).collect() }
}

/// One query each, behind `shared` common and `own` further keys.
fn decoding(batch: usize, own: usize, shared: usize) -> AttentionPlan {
    let run = |n| QueryRun {
        query: n,
        len: 1,
        first_position: shared + own - 1,
        spans: vec![Span { slot: 0, len: shared }, Span { slot: shared + n * own, len: own }],
        causal: true,
    };
    AttentionPlan { runs: (0..batch).map(run).collect() }
}

fn report(cpu: &Cpu, name: &str, plan: &AttentionPlan) {
    let (heads, kv_heads, head_dim) = HEADS;
    let queries: usize = plan.runs.iter().map(|run| run.len).sum();
    let slots = plan.runs.iter().flat_map(|run| &run.spans).map(|span| span.slot + span.len);
    let slots = slots.max().unwrap_or(0).next_multiple_of(SLOTS_TOGETHER);
    let shape = AttentionShape { queries, slots, heads, kv_heads, head_dim };
    let cached = plan.runs.iter().all(|run| run.len == 1);
    let pairs: usize =
        plan.runs.iter().map(|run| (0..run.len).map(|j| run.keys_seen(j)).sum::<usize>()).sum();
    let flop = (pairs * heads * head_dim) as f64;
    let q = wave(cpu, queries * heads * head_dim);
    let v = wave(cpu, slots * kv_heads * head_dim);
    let k = if cached { key_table(cpu, &v, slots) } else { wave(cpu, v.len()) };
    let mut out = cpu.alloc(queries * heads * head_dim);
    let mut log_sum_exp = cpu.alloc(queries * heads);
    let forward = seconds(|| {
        cpu.attention(&q, &k, &v, plan, shape, &mut out, &mut log_sum_exp);
    });
    let mut line = format!(
        "  {name:38} forward {:6.2} ms, {:3.0} GFLOP/s",
        forward * 1e3,
        4.0 * flop / forward / 1e9
    );
    if !cached {
        let d_out = wave(cpu, queries * heads * head_dim);
        let mut d_q = cpu.zeros(queries * heads * head_dim);
        let [mut d_k, mut d_v] = [0; 2].map(|_| cpu.zeros(slots * kv_heads * head_dim));
        let backward = seconds(|| {
            cpu.attention_backward(
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
        });
        line += &format!(
            ", backward {:6.2} ms, {:3.0} GFLOP/s",
            backward * 1e3,
            10.0 * flop / backward / 1e9
        );
    }
    println!("{line}");
}

/// Keys as a cache holds them.
fn key_table(cpu: &Cpu, keys: &Buffer, slots: usize) -> Buffer {
    let width = HEADS.1 * HEADS.2;
    let mut table = cpu.key_table(slots, width, HEADS.2);
    let ids: Vec<u32> = (0..slots as u32).collect();
    cpu.scatter_rows(keys, &ids, width, &mut table);
    table
}

/// Numbers between -1 and 1.
fn wave(cpu: &Cpu, len: usize) -> Buffer {
    cpu.upload(&(0..len).map(|n| (n as f32 * 0.7).sin()).collect::<Vec<_>>())
}

/// The shortest of repeated runs.
fn seconds(mut work: impl FnMut()) -> f64 {
    work();
    let (mut best, start) = (f64::INFINITY, Instant::now());
    while start.elapsed().as_secs_f64() < 0.4 {
        let begun = Instant::now();
        work();
        best = best.min(begun.elapsed().as_secs_f64());
    }
    best
}
