//! GFLOP/s of the products of a training step and of decoding, by path.
//!
//! `cargo bench -p patarm-kernels --bench products -- [threads]`
#![allow(clippy::print_stdout, missing_docs, reason = "a benchmark prints")]

use std::time::Instant;

use patarm_kernels::{Backend, Cpu, CpuOptions, Instructions, LinearShape, Precision, Update};

/// Input and output widths of SmolLM2-135M, and a tile of its vocabulary.
const WIDTHS: [(usize, usize); 5] = [(576, 192), (576, 576), (576, 1536), (1536, 576), (576, 4608)];
const TOKENS: [usize; 5] = [1, 8, 32, 512, 2048];

fn main() {
    let threads = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(2);
    let f32 = CpuOptions { threads, ..CpuOptions::default() };
    let bf16 = CpuOptions { precision: Precision::Bf16, ..f32 };
    let pairs = CpuOptions { instructions: Instructions::Avx512Bf16, ..bf16 };
    for cpu in [f32, bf16, pairs].iter().filter_map(Cpu::with_options) {
        println!("{} on {threads} threads: forward / into input / into weight", cpu.name());
        for (input, output) in WIDTHS {
            let line = TOKENS
                .map(|tokens| measure((&cpu, threads), LinearShape { tokens, input, output }));
            println!("  {input:5} -> {output:5}  {}", line.join("  "));
        }
    }
}

fn measure((cpu, threads): (&Cpu, usize), shape: LinearShape) -> String {
    let LinearShape { tokens, input, output } = shape;
    let fill = |len: usize| cpu.upload(&(0..len).map(|n| (n % 7) as f32).collect::<Vec<_>>());
    let (x, d_out) = (fill(tokens * input), fill(tokens * output));
    let mut weight = fill(output * input);
    cpu.prepare_weight(&mut weight, output, input);
    let (mut out, mut d_x) = (fill(tokens * output), fill(tokens * input));
    let mut d_weight = fill(output * input);
    let set = Update::Set;
    let times = [
        seconds(threads, || cpu.linear(&x, &weight, None, shape, 1.0, (&mut out, set))),
        seconds(threads, || {
            cpu.linear_backward_input(&d_out, &weight, shape, 1.0, (&mut d_x, set))
        }),
        seconds(threads, || {
            cpu.linear_backward_weight(&d_out, &x, &weight, shape, 1.0, &mut d_weight)
        }),
    ];
    let flop = 2.0 * (tokens * input * output) as f64;
    let [a, b, c] = times.map(|seconds| flop / seconds / 1e9);
    format!("{tokens:4}: {a:3.0}/{b:3.0}/{c:3.0}")
}

/// Seconds of a run: on one thread the mean time on the processor, which other
/// programs do not lengthen, where the system tells; else the shortest.
fn seconds(threads: usize, mut work: impl FnMut()) -> f64 {
    work();
    let (mut best, mut runs) = (f64::INFINITY, 0.0);
    let (start, on_processor) = (Instant::now(), processor_seconds());
    while runs < 5.0 || start.elapsed().as_secs_f64() < 0.3 {
        let begun = Instant::now();
        work();
        best = best.min(begun.elapsed().as_secs_f64());
        runs += 1.0;
    }
    match (threads, on_processor, processor_seconds()) {
        (1, Some(before), Some(after)) => (after - before) / runs,
        _ => best,
    }
}

/// Time this thread has spent on a processor, to a few milliseconds.
fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e9)
}
