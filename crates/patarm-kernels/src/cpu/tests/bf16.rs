//! Products in bfloat16: the values of rounded operands, the same bits on every
//! path, rows that do not know each other, panels that follow their weight.

use super::*;
use crate::cpu::simd::round_bf16;

/// Every path this processor has.
fn paths(threads: usize) -> Vec<Cpu> {
    use Instructions::{Avx2, Avx512Bf16, Avx512f, Detect, Portable};
    [Portable, Avx2, Avx512f, Avx512Bf16, Detect]
        .into_iter()
        .filter_map(|instructions| with(threads, instructions))
        .collect()
}

fn with(threads: usize, instructions: Instructions) -> Option<Cpu> {
    Cpu::with_options(&CpuOptions { threads, instructions, precision: Precision::Bf16 })
}

fn bf16(threads: usize) -> Cpu {
    with(threads, Instructions::Detect).expect("detected instructions are present")
}

/// Whether a path uses the pair instruction, whose order of additions is the
/// maker's.
fn pairs(cpu: &Cpu) -> bool {
    cpu.name().contains("avx512bf16")
}

fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| round_bf16(x)).collect()
}

fn prepared(cpu: &Cpu, weight: &[f32], rows: usize) -> Buffer {
    let mut buffer = cpu.upload(weight);
    cpu.prepare_weight(&mut buffer, rows, weight.len().checked_div(rows).unwrap_or(0));
    buffer
}

/// `(tokens, input, output)`, no multiple of anything, and around every edge.
const SHAPES: [(usize, usize, usize); 16] = [
    (1, 1, 1),
    (1, 2, 7),
    (5, 1, 3),
    (3, 3, 2),
    (1, 64, 5),
    (2, 17, 300),
    (7, 63, 33),
    (9, 64, 48),
    (17, 65, 49),
    (23, 48, 96),
    (25, 577, 95),
    (40, 576, 1),
    (333, 129, 200),
    (33, 1537, 50),
    (2, 4601, 3),
    (9, 0, 4),
];

#[test]
fn rounding_is_to_nearest_even() {
    let one = 1.0f32.to_bits();
    for (bits, expected) in [
        (one, one),
        (one + 0x7fff, one),
        (one + 0x8000, one),
        (one + 0x8001, one + 0x1_0000),
        (one + 0x1_8000, one + 0x2_0000),
        (0x7f7f_ffff, f32::INFINITY.to_bits()),
        (f32::NEG_INFINITY.to_bits(), f32::NEG_INFINITY.to_bits()),
        (0x8000_0000, 0x8000_0000),
        (1, 0),
    ] {
        assert_eq!(round_bf16(f32::from_bits(bits)).to_bits(), expected, "{bits:x}");
    }
    assert!(round_bf16(f32::from_bits(0x7f80_0001)).is_nan());
    assert!(round_bf16(f32::from_bits(0xffff_ffff)).is_nan());
}

#[test]
fn values_are_those_of_rounded_operands() {
    for cpu in paths(2) {
        for (tokens, input, output) in SHAPES {
            let shape = LinearShape { tokens, input, output };
            let (x, weight) = (values(tokens * input, 1), values(output * input, 2));
            let (bias, before) = (values(output, 3), values(tokens * output, 4));
            let plain = linear::reference(
                &wide(&rounded(&x)),
                &wide(&rounded(&weight)),
                (tokens, input, output),
            );
            let weight = prepared(&cpu, &weight, output);
            let [x, bias] = [x, bias].map(|data| cpu.upload(&data));
            for (bias, update) in [
                (None, Update::Set),
                (None, Update::Add),
                (Some(&bias), Update::Set),
                (Some(&bias), Update::Add),
            ] {
                let mut out = cpu.upload(&before);
                cpu.linear(&x, &weight, bias, shape, 0.5, (&mut out, update));
                let expected: Vec<f64> = (0..tokens * output)
                    .map(|n| {
                        let start = if update == Update::Add { before[n] } else { 0.0 };
                        let bias = bias.map_or(0.0, |bias| bias.host()[n % output]);
                        f64::from(start + bias) + 0.5 * plain[n]
                    })
                    .collect();
                assert_close(out.host(), &expected, 5e-6);
            }
        }
    }
}

#[test]
fn gradients_are_those_of_rounded_operands() {
    for cpu in paths(3) {
        for (tokens, input, output) in SHAPES {
            let shape = LinearShape { tokens, input, output };
            let d_out = values(tokens * output, 5);
            let (x, weight) = (values(tokens * input, 6), values(output * input, 7));
            let before = values(output * input, 8);
            let [rounded_d, rounded_x, rounded_w] = [&d_out, &x, &weight].map(|x| rounded(x));
            let mut d_x = vec![0.0; tokens * input];
            let mut d_weight = wide(&before);
            for t in 0..tokens {
                for o in 0..output {
                    let d_out = 0.25 * f64::from(rounded_d[t * output + o]);
                    for i in 0..input {
                        d_x[t * input + i] += d_out * f64::from(rounded_w[o * input + i]);
                        d_weight[o * input + i] += d_out * f64::from(rounded_x[t * input + i]);
                    }
                }
            }
            let weight = prepared(&cpu, &weight, output);
            let [d_out, x, before] = [d_out, x, before].map(|data| cpu.upload(&data));
            let mut into_x = cpu.alloc(tokens * input);
            let target = (&mut into_x, Update::Set);
            cpu.linear_backward_input(&d_out, &weight, shape, 0.25, target);
            assert_close(into_x.host(), &d_x, 5e-6);
            cpu.linear_backward_input(&d_out, &weight, shape, 0.25, (&mut into_x, Update::Add));
            assert_close(into_x.host(), &d_x.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), 5e-6);
            let mut into_weight = before;
            cpu.linear_backward_weight(&d_out, &x, &weight, shape, 0.25, &mut into_weight);
            assert_close(into_weight.host(), &d_weight, 5e-6);
        }
    }
}

#[test]
fn every_path_gives_the_same_bits() {
    for (tokens, input, output) in SHAPES {
        let (x, weight) = (values(tokens * input, 11), values(output * input, 12));
        let compute = |cpu: &Cpu| {
            let weight = prepared(cpu, &weight, output);
            let mut out = cpu.alloc(tokens * output);
            let shape = LinearShape { tokens, input, output };
            cpu.linear(&cpu.upload(&x), &weight, None, shape, 1.0, (&mut out, Update::Set));
            bits(out.host())
        };
        let expected = compute(&bf16(1));
        for threads in [1, 2, 5] {
            for cpu in paths(threads) {
                // Another maker's pair instruction may add in another order.
                if !pairs(&cpu) || pairs(&bf16(1)) {
                    assert!(compute(&cpu) == expected, "{} {tokens} {input} {output}", cpu.name());
                }
            }
        }
    }
}

#[test]
fn a_row_is_the_same_to_the_bit_whatever_rows_are_beside_it() {
    const ROWS: usize = 400;
    for (input, output) in [(576, 192), (1537, 49), (64, 1), (3, 200), (896, 64)] {
        let (x, weight) = (values(ROWS * input, 9), values(output * input, 10));
        for cpu in paths(2) {
            let weight = prepared(&cpu, &weight, output);
            let compute = |first: usize, tokens: usize| {
                let x = cpu.upload(&x[first * input..][..tokens * input]);
                let mut out = cpu.alloc(tokens * output);
                let shape = LinearShape { tokens, input, output };
                cpu.linear(&x, &weight, None, shape, 1.0, (&mut out, Update::Set));
                bits(out.host())
            };
            let all = compute(0, ROWS);
            for tokens in (1..10).chain([15, 16, 17, 23, 24, 25, 31, 32, 33, 65, 129, 300]) {
                let first = (tokens * 7) % (ROWS - tokens);
                let expected = &all[first * output..][..tokens * output];
                assert!(compute(first, tokens) == expected, "{tokens} rows from {first}");
            }
        }
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let (tokens, input, output) = (2333, 130, 100);
    let shape = LinearShape { tokens, input, output };
    let gradients = [1, 2, 5].map(|threads| {
        let cpu = bf16(threads);
        let d_out = cpu.upload(&values(tokens * output, 1));
        let x = cpu.upload(&values(tokens * input, 2));
        let weight = prepared(&cpu, &values(output * input, 3), output);
        let (mut d_x, mut d_weight) = (cpu.alloc(x.len()), cpu.zeros(weight.len()));
        cpu.linear_backward_input(&d_out, &weight, shape, 1.0, (&mut d_x, Update::Set));
        cpu.linear_backward_weight(&d_out, &x, &weight, shape, 1.0, &mut d_weight);
        [d_x, d_weight].map(|gradient| bits(gradient.host()))
    });
    assert!(gradients[0] == gradients[1] && gradients[0] == gradients[2]);
}

#[test]
fn logits_of_statistics_and_of_the_sampler_are_those_of_the_linear_map() {
    let (rows, dim, vocab) = (19, 70, 9301);
    let cpu = bf16(2);
    let hidden = cpu.upload(&values(rows * dim, 1));
    let weight = prepared(&cpu, &values(vocab * dim, 2), vocab);
    let mut logits = cpu.alloc(rows * vocab);
    let map = LinearShape { tokens: rows, input: dim, output: vocab };
    cpu.linear(&hidden, &weight, None, map, 1.0, (&mut logits, Update::Set));
    let per_row = 5;
    let chosen = ChosenTokens {
        offsets: (0..=rows).map(|row| row * per_row).collect(),
        ids: (0..rows * per_row).map(|n| ((n * 1873) % vocab) as u32).collect(),
    };
    let shape = StatisticsShape { rows, dim, vocab, temperature: 1.0, kept_rows: 0 };
    let found = cpu.token_statistics(&hidden, &weight, &chosen, shape);
    for (n, &id) in chosen.ids.iter().enumerate() {
        let expected = logits.host()[n / per_row * vocab + id as usize];
        assert_eq!(found.chosen.host()[n].to_bits(), expected.to_bits());
    }
    let greedy = SamplingOptions {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: 0,
        sequence: 0,
        position: 0,
    };
    let (mut ids, mut logprobs) = (cpu.alloc(rows), cpu.alloc(rows));
    cpu.sample(&hidden, &weight, shape, &vec![greedy; rows], &mut ids, &mut logprobs);
    for (row, logits) in logits.host().chunks(vocab).enumerate() {
        let best = (0..vocab).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
        assert_eq!(ids.host()[row], best as f32);
    }
}

#[test]
fn gradients_of_statistics_are_close_to_those_in_single_precision() {
    let (rows, dim, vocab) = (30, 40, 5000);
    let shape = StatisticsShape { rows, dim, vocab, temperature: 0.7, kept_rows: 0 };
    let chosen = ChosenTokens {
        offsets: (0..=rows).collect(),
        ids: (0..rows as u32).map(|n| n * 160).collect(),
    };
    let gradients = |cpu: &Cpu| {
        let hidden = cpu.upload(&rounded(&values(rows * dim, 1)));
        let weight = rounded(&values(vocab * dim, 2)).iter().map(|w| 0.25 * w).collect::<Vec<_>>();
        let weight = prepared(cpu, &weight, vocab);
        let statistics = cpu.token_statistics(&hidden, &weight, &chosen, shape);
        let (d_chosen, d_total) = (cpu.upload(&vec![1.0; rows]), cpu.upload(&vec![-1.0; rows]));
        let gradient =
            StatisticsGradient { chosen: &d_chosen, log_sum_exp: &d_total, entropy: None };
        let (mut d_hidden, mut d_weight) = (cpu.alloc(rows * dim), cpu.zeros(vocab * dim));
        cpu.token_statistics_backward(
            &hidden,
            &weight,
            &chosen,
            shape,
            &statistics,
            gradient,
            &mut d_hidden,
            Some(&mut d_weight),
        );
        [d_hidden, d_weight].map(|gradient| gradient.host().to_vec())
    };
    let (single, found) = (gradients(&Cpu::new(2)), gradients(&bf16(2)));
    for (single, found) in single.iter().zip(&found) {
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let pairs = single.iter().zip(found);
        let error = norm(&mut pairs.map(|(a, b)| f64::from(a - b)));
        let size = norm(&mut single.iter().map(|&x| f64::from(x)));
        assert!(error > 0.0 && error < 4e-3 * size, "{error:e} of {size:e}");
    }
}

#[test]
fn panels_follow_their_weight() {
    let cpu = bf16(1);
    let shape = LinearShape { tokens: 1, input: 2, output: 2 };
    let x = cpu.upload(&[1.0, 1.0]);
    let mut weight = prepared(&cpu, &[1.0, 2.0, 3.0, 4.0], 2);
    let apply = |weight: &Buffer| {
        let mut out = cpu.alloc(2);
        cpu.linear(&x, weight, None, shape, 1.0, (&mut out, Update::Set));
        out.host().to_vec()
    };
    assert_eq!(apply(&weight), [3.0, 7.0]);
    cpu.axpy(1.0, &cpu.upload(&[1.0; 4]), &mut weight);
    assert_eq!(apply(&weight), [5.0, 9.0]);
    cpu.fill(&mut weight, 0.5);
    assert_eq!(apply(&weight), [1.0, 1.0]);
}

#[test]
fn what_was_not_prepared_is_multiplied_in_single_precision() {
    let (tokens, input, output) = (5, 33, 17);
    let shape = LinearShape { tokens, input, output };
    let apply = |cpu: &Cpu| {
        let x = cpu.upload(&values(tokens * input, 1));
        let weight = cpu.upload(&values(output * input, 2));
        let (mut out, mut d_weight) = (cpu.alloc(tokens * output), cpu.zeros(output * input));
        cpu.linear(&x, &weight, None, shape, 1.0, (&mut out, Update::Set));
        cpu.linear_backward_weight(&out, &x, &weight, shape, 1.0, &mut d_weight);
        [out, d_weight].map(|buffer| bits(buffer.host()))
    };
    assert_eq!(apply(&bf16(1)), apply(&Cpu::new(1)));
}

#[test]
fn no_rows_are_no_work() {
    let cpu = bf16(2);
    let weight = prepared(&cpu, &[1.0; 6], 2);
    let (x, mut out) = (cpu.alloc(0), cpu.alloc(0));
    let shape = LinearShape { tokens: 0, input: 3, output: 2 };
    cpu.linear(&x, &weight, None, shape, 1.0, (&mut out, Update::Set));
    let mut d_weight = cpu.upload(&[1.0; 6]);
    cpu.linear_backward_weight(&out, &x, &weight, shape, 1.0, &mut d_weight);
    assert_eq!(d_weight.host(), [1.0; 6]);
    let mut d_x = cpu.alloc(0);
    cpu.linear_backward_input(&out, &weight, shape, 1.0, (&mut d_x, Update::Set));
}
