//! GFLOP/s of the products of a training step and of decoding, by path.
//!
//! `cargo bench -p patarm-kernels --bench products -- [threads] [part of a path's name]`
#![allow(clippy::print_stdout, missing_docs, reason = "a benchmark prints")]

use std::time::Instant;

use patarm_kernels::{
    Backend, Buffer, Cpu, CpuOptions, Instructions, LinearShape, Offsets, Precision,
    QuantisedMatrix, Update,
};

/// Input and output widths of SmolLM2-135M, and a tile of its vocabulary.
const WIDTHS: [(usize, usize); 5] = [(576, 192), (576, 576), (576, 1536), (1536, 576), (576, 4608)];
const TOKENS: [usize; 5] = [1, 8, 32, 512, 2048];
/// A stored type by name: values of a block, different integers, whether there are offsets.
const STORED: [(&str, usize, usize, bool); 4] = [
    ("Q4_0", 32, 16, false),
    ("Q4_1", 32, 16, true),
    ("Q8_0", 32, 256, false),
    ("Q6_K", 16, 64, false),
];

fn main() {
    let threads = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(2);
    let f32 = CpuOptions { threads, ..CpuOptions::default() };
    let bf16 = CpuOptions { precision: Precision::Bf16, ..f32 };
    let pairs = CpuOptions { instructions: Instructions::Avx512Bf16, ..bf16 };
    let quantised = CpuOptions { precision: Precision::Quantised, ..f32 };
    let avx2 = CpuOptions { instructions: Instructions::Avx2, ..quantised };
    let named = |cpu: &Cpu| match std::env::args().nth(2) {
        Some(part) if !part.starts_with('-') => cpu.name().contains(&part),
        _ => true,
    };
    for cpu in [f32, bf16, pairs].iter().filter_map(Cpu::with_options).filter(named) {
        println!("{} on {threads} threads: forward / into input / into weight", cpu.name());
        each_width(|shape| measure((&cpu, threads), shape));
    }
    for cpu in [quantised, avx2].iter().filter_map(Cpu::with_options).filter(named) {
        for stored in STORED {
            println!("{} {} on {threads} threads: forward / into input", cpu.name(), stored.0);
            each_width(|shape| measure_quantised((&cpu, threads), stored, shape));
        }
    }
}

fn each_width(measure: impl Fn(LinearShape) -> String) {
    for (input, output) in WIDTHS {
        let line = TOKENS.map(|tokens| measure(LinearShape { tokens, input, output }));
        println!("  {input:5} -> {output:5}  {}", line.join("  "));
    }
}

fn fill(cpu: &Cpu, len: usize) -> Buffer {
    cpu.upload(&(0..len).map(|n| (n % 7) as f32).collect::<Vec<_>>())
}

fn measure((cpu, threads): (&Cpu, usize), shape: LinearShape) -> String {
    let LinearShape { tokens, input, output } = shape;
    let (x, d_out) = (fill(cpu, tokens * input), fill(cpu, tokens * output));
    let mut weight = fill(cpu, output * input);
    cpu.prepare_weight(&mut weight, output, input);
    let mut d_weight = fill(cpu, output * input);
    let [a, b] = forward_and_back((cpu, threads), shape, &weight);
    let c = rate(shape, threads, || {
        cpu.linear_backward_weight(&d_out, &x, &weight, shape, 1.0, &mut d_weight)
    });
    format!("{tokens:4}: {a:3.0}/{b:3.0}/{c:3.0}")
}

fn measure_quantised(
    (cpu, threads): (&Cpu, usize),
    (_, block, levels, has_offsets): (&str, usize, usize, bool),
    shape: LinearShape,
) -> String {
    let LinearShape { tokens, input, output } = shape;
    let integers: Vec<u8> = (0..input * output).map(|n| (n * 37 % levels) as u8).collect();
    // A number that half precision holds where the type has such scales.
    let scale = if block == 16 { 0.1 } else { 0.125 };
    let (scales, offsets) =
        (vec![scale; input * output / block], vec![-1.0; input * output / block]);
    let weight = cpu.quantised_weight(&QuantisedMatrix {
        rows: output,
        columns: input,
        block,
        integers: &integers,
        scales: &scales,
        offsets: if has_offsets { Offsets::Each(&offsets) } else { Offsets::Centre(8) },
    });
    let [a, b] = forward_and_back((cpu, threads), shape, &weight);
    format!("{tokens:4}: {a:3.0}/{b:3.0}")
}

fn forward_and_back(
    (cpu, threads): (&Cpu, usize),
    shape: LinearShape,
    weight: &Buffer,
) -> [f64; 2] {
    let LinearShape { tokens, input, output } = shape;
    let (x, d_out) = (fill(cpu, tokens * input), fill(cpu, tokens * output));
    let (mut out, mut d_x) = (fill(cpu, tokens * output), fill(cpu, tokens * input));
    [
        rate(shape, threads, || cpu.linear(&x, weight, None, shape, 1.0, (&mut out, Update::Set))),
        rate(shape, threads, || {
            cpu.linear_backward_input(&d_out, weight, shape, 1.0, (&mut d_x, Update::Set))
        }),
    ]
}

/// GFLOP/s of a product.
fn rate(shape: LinearShape, threads: usize, work: impl FnMut()) -> f64 {
    let flop = 2.0 * (shape.tokens * shape.input * shape.output) as f64;
    flop / seconds(threads, work) / 1e9
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
