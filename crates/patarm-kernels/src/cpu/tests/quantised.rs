//! Products with quantised weights: those of plain code on rounded activations, the
//! same bits on every path, rows that do not know each other, values and gradients of
//! the file's matrix.

use super::*;
use crate::quantised::{Offsets, QuantisedMatrix};

/// Every path this processor has.
fn paths(threads: usize) -> Vec<Cpu> {
    use Instructions::{Avx2, Avx512f, Detect, Portable};
    let with = |instructions| {
        let precision = Precision::Quantised;
        Cpu::with_options(&CpuOptions { threads, instructions, precision })
    };
    [Portable, Avx2, Avx512f, Detect].into_iter().filter_map(with).collect()
}

fn cpu(threads: usize) -> Cpu {
    paths(threads).pop().expect("detected instructions are present")
}

/// A matrix with its parts.
struct Stored {
    rows: usize,
    columns: usize,
    block: usize,
    integers: Vec<u8>,
    scales: Vec<f32>,
    centre: u8,
    offsets: Option<Vec<f32>>,
}

/// How a stored type of GGUF counts.
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    block: usize,
    /// Number of different integers.
    levels: u64,
    centre: u8,
    has_offsets: bool,
    /// Whether scales are products, which half precision does not hold.
    scaled_scales: bool,
}

const fn kind(name: &'static str, block: usize, levels: u64, centre: u8) -> Kind {
    Kind { name, block, levels, centre, has_offsets: false, scaled_scales: false }
}

const KINDS: [Kind; 6] = [
    kind("q4_0", 32, 16, 8),
    Kind { has_offsets: true, ..kind("q4_1", 32, 16, 0) },
    kind("q5_0", 32, 32, 16),
    kind("q8_0", 32, 256, 128),
    Kind { has_offsets: true, scaled_scales: true, ..kind("q4_k", 32, 16, 0) },
    Kind { scaled_scales: true, ..kind("q6_k", 16, 64, 32) },
];

impl Stored {
    fn new(kind: Kind, rows: usize, columns: usize, seed: u64) -> Self {
        let draw = |stream: u64, n: usize| random::uniform(seed, &[stream, n as u64]);
        let len = rows * columns;
        let integers = (0..len).map(|n| (draw(0, n) * kind.levels as f64) as u8).collect();
        // Few bits, so that half precision holds them.
        let coarse = |stream, n| (1.0 + (draw(stream, n) * 64.0).floor() as f32) / 4096.0;
        let number = |stream: u64, n: usize| match kind.scaled_scales {
            true => coarse(stream, n) * (1.0 + draw(stream + 9, n) as f32),
            false => coarse(stream, n),
        };
        let blocks = len / kind.block;
        Self {
            rows,
            columns,
            block: kind.block,
            integers,
            scales: (0..blocks).map(|n| number(1, n)).collect(),
            centre: kind.centre,
            offsets: kind.has_offsets.then(|| (0..blocks).map(|n| -8.0 * number(2, n)).collect()),
        }
    }

    fn matrix(&self) -> QuantisedMatrix<'_> {
        QuantisedMatrix {
            rows: self.rows,
            columns: self.columns,
            block: self.block,
            integers: &self.integers,
            scales: &self.scales,
            offsets: self.offsets.as_deref().map_or(Offsets::Centre(self.centre), Offsets::Each),
        }
    }

    /// The values, as a reader of the file makes them.
    fn values(&self) -> Vec<f32> {
        let value = |(n, &q): (usize, &u8)| {
            let (block, q) = (n / self.block, f32::from(q));
            match &self.offsets {
                Some(offsets) => self.scales[block] * q + offsets[block],
                None => self.scales[block] * (q - f32::from(self.centre)),
            }
        };
        self.integers.iter().enumerate().map(value).collect()
    }
}

/// Activations as products see them.
fn rounded(x: &[f32], block: usize) -> Vec<f64> {
    let round = |block: &[f32]| {
        let largest = block.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let (step, inverse) =
            if largest > 0.0 { (largest / 127.0, 127.0 / largest) } else { (0.0, 0.0) };
        let one = |&x: &f32| f64::from(step) * f64::from((x * inverse).round_ties_even());
        block.iter().map(one).collect::<Vec<f64>>()
    };
    x.chunks(block).flat_map(round).collect()
}

/// `(tokens, input, output)`: rows around every tile, outputs around every strip.
const SHAPES: [(usize, usize, usize); 10] = [
    (1, 32, 1),
    (1, 576, 17),
    (2, 64, 16),
    (3, 96, 15),
    (5, 32, 33),
    (8, 160, 47),
    (9, 64, 64),
    (17, 128, 50),
    (33, 96, 31),
    (300, 576, 200),
];

fn apply(cpu: &Cpu, x: &[f32], weight: &Buffer, shape: LinearShape) -> Vec<f32> {
    let mut out = cpu.alloc(shape.tokens * shape.output);
    cpu.linear(&cpu.upload(x), weight, None, shape, 1.0, (&mut out, Update::Set));
    out.host().to_vec()
}

#[test]
fn products_are_those_of_rounded_activations_and_the_files_values() {
    for cpu in paths(3) {
        for (kind, (tokens, input, output)) in
            KINDS.into_iter().flat_map(|kind| SHAPES.map(|shape| (kind, shape)))
        {
            let shape = LinearShape { tokens, input, output };
            let stored = Stored::new(kind, output, input, 7);
            let x = values(tokens * input, 1);
            let (bias, before) = (values(output, 3), values(tokens * output, 4));
            let size = (tokens, input, output);
            let plain = linear::reference(&rounded(&x, kind.block), &wide(&stored.values()), size);
            let weight = cpu.quantised_weight(&stored.matrix());
            let bias = cpu.upload(&bias);
            for (bias, update) in [
                (None, Update::Set),
                (None, Update::Add),
                (Some(&bias), Update::Set),
                (Some(&bias), Update::Add),
            ] {
                let mut out = cpu.upload(&before);
                let x = cpu.upload(&x);
                cpu.linear(&x, &weight, bias, shape, 0.5, (&mut out, update));
                let expected: Vec<f64> = (0..tokens * output)
                    .map(|n| {
                        let start = if update == Update::Add { before[n] } else { 0.0 };
                        let bias = bias.map_or(0.0, |bias| bias.host()[n % output]);
                        f64::from(start + bias) + 0.5 * plain[n]
                    })
                    .collect();
                assert_close(out.host(), &expected, 3e-6);
            }
        }
    }
}

#[test]
fn every_path_and_number_of_threads_gives_the_same_bits() {
    for kind in KINDS {
        for (tokens, input, output) in SHAPES {
            let shape = LinearShape { tokens, input, output };
            let stored = Stored::new(kind, output, input, 8);
            let x = values(tokens * input, 2);
            let compute =
                |cpu: &Cpu| bits(&apply(cpu, &x, &cpu.quantised_weight(&stored.matrix()), shape));
            let expected = compute(&Cpu::portable(1));
            for cpu in [1, 2, 5].into_iter().flat_map(paths) {
                assert!(compute(&cpu) == expected, "{} {} {shape:?}", cpu.name(), kind.name);
            }
        }
    }
}

#[test]
fn a_row_is_the_same_to_the_bit_whatever_rows_are_beside_it() {
    const ROWS: usize = 700;
    let (input, output) = (1536, 200);
    for kind in [KINDS[1], KINDS[3], KINDS[5]] {
        let stored = Stored::new(kind, output, input, 9);
        let x = values(ROWS * input, 3);
        for cpu in paths(2) {
            let weight = cpu.quantised_weight(&stored.matrix());
            let compute = |first: usize, tokens: usize| {
                let x = &x[first * input..][..tokens * input];
                bits(&apply(&cpu, x, &weight, LinearShape { tokens, input, output }))
            };
            let all = compute(0, ROWS);
            for tokens in (1..18).chain([31, 32, 33, 65, 129, 300]) {
                let first = (tokens * 7) % (ROWS - tokens);
                let expected = &all[first * output..][..tokens * output];
                assert!(compute(first, tokens) == expected, "{tokens} rows from {first}");
            }
        }
    }
}

#[test]
fn rounding_keeps_zero_the_largest_and_what_is_not_finite() {
    let cpu = cpu(1);
    let stored = Stored::new(KINDS[3], 1, 32, 5);
    let weight = cpu.quantised_weight(&stored.matrix());
    let shape = LinearShape { tokens: 1, input: 32, output: 1 };
    let of = |x: &[f32]| apply(&cpu, x, &weight, shape)[0];
    assert_eq!(of(&[0.0; 32]), 0.0);
    assert_eq!(of(&[1e-38; 32]), 0.0);
    let mut one = [0.0; 32];
    one[5] = -3.5;
    let expected = -3.5 * stored.values()[5];
    assert!((of(&one) - expected).abs() <= 1e-6 * expected.abs());
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        one[9] = bad;
        assert!(of(&one).is_nan(), "{bad}");
    }
}

#[test]
fn values_rows_and_copies_are_those_of_the_file_to_the_bit() {
    let (rows, columns) = (37, 96);
    for kind in KINDS {
        let stored = Stored::new(kind, rows, columns, 6);
        let values = bits(&stored.values());
        for cpu in paths(2) {
            let weight = cpu.quantised_weight(&stored.matrix());
            let mut all = vec![0.0; rows * columns];
            cpu.download(&weight, &mut all);
            assert!(bits(&all) == values, "{}", kind.name);
            let ids = [36, 0, 15, 16, 36];
            let mut gathered = cpu.alloc(ids.len() * columns);
            cpu.gather_rows(&weight, &ids, columns, &mut gathered);
            for (row, id) in gathered.host().chunks(columns).zip(ids) {
                assert!(bits(row) == values[id as usize * columns..][..columns]);
            }
            let mut copied = cpu.zeros(rows * columns);
            cpu.copy(&weight, 17 * columns, &mut copied, columns, 3 * columns);
            assert!(
                bits(&copied.host()[columns..][..3 * columns])
                    == values[17 * columns..][..3 * columns]
            );
        }
    }
}

#[test]
fn memory_is_what_the_integers_and_their_scales_take() {
    let cpu = cpu(1);
    // Sixteen rows of a block: lines of integers, scales and offsets.
    let expected = [256 + 32, 256 + 64, 512 + 32, 512 + 32, 256 + 128, 256 + 64];
    for (kind, bytes) in KINDS.into_iter().zip(expected) {
        let stored = Stored::new(kind, 32, 10 * kind.block, 4);
        let weight = cpu.quantised_weight(&stored.matrix());
        assert_eq!(weight.num_bytes(), 20 * bytes, "{}", kind.name);
        assert_eq!((weight.len(), weight.is_quantised()), (320 * kind.block, true));
    }
    assert_eq!(cpu.alloc(10).num_bytes(), 40);
}

#[test]
fn gradients_into_the_input_are_those_of_the_files_values() {
    for cpu in paths(3) {
        for (kind, (tokens, input, output)) in
            KINDS.into_iter().zip(SHAPES).chain([(KINDS[1], (3, 32, 2500))])
        {
            let shape = LinearShape { tokens, input, output };
            let stored = Stored::new(kind, output, input, 3);
            let dense = cpu.upload(&stored.values());
            let weight = cpu.quantised_weight(&stored.matrix());
            let d_out = cpu.upload(&values(tokens * output, 5));
            let gradient = |weight: &Buffer| {
                let mut d_x = cpu.zeros(tokens * input);
                cpu.linear_backward_input(&d_out, weight, shape, 0.25, (&mut d_x, Update::Set));
                cpu.linear_backward_input(&d_out, weight, shape, 0.25, (&mut d_x, Update::Add));
                d_x.host().to_vec()
            };
            assert_close(&gradient(&weight), &wide(&gradient(&dense)), 3e-6);
        }
    }
}

fn chosen_of(rows: usize, per_row: usize, vocab: usize) -> ChosenTokens {
    ChosenTokens {
        offsets: (0..=rows).map(|row| row * per_row).collect(),
        ids: (0..rows * per_row).map(|n| ((n * 1873) % vocab) as u32).collect(),
    }
}

#[test]
fn logits_of_statistics_and_of_the_sampler_are_those_of_the_linear_map() {
    let (rows, dim, vocab) = (19, 64, 9301);
    let cpu = cpu(2);
    let hidden = values(rows * dim, 1);
    let weight = cpu.quantised_weight(&Stored::new(KINDS[3], vocab, dim, 2).matrix());
    let map = LinearShape { tokens: rows, input: dim, output: vocab };
    let logits = apply(&cpu, &hidden, &weight, map);
    let hidden = cpu.upload(&hidden);
    let chosen = chosen_of(rows, 5, vocab);
    let shape = StatisticsShape { rows, dim, vocab, temperature: 1.0, kept_rows: 0 };
    let found = cpu.token_statistics(&hidden, &weight, &chosen, shape);
    for (n, &id) in chosen.ids.iter().enumerate() {
        let expected = logits[n / 5 * vocab + id as usize];
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
    for (row, logits) in logits.chunks(vocab).enumerate() {
        let best = (0..vocab).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
        assert_eq!(ids.host()[row], best as f32);
    }
}

/// With activations that rounding leaves alone, the only difference to single precision
/// is the order of sums.
#[test]
fn gradients_of_statistics_are_those_in_single_precision() {
    let (rows, dim, vocab) = (300, 64, 5000);
    let shape = StatisticsShape { rows, dim, vocab, temperature: 0.7, kept_rows: 0 };
    let cpu = cpu(2);
    let stored = Stored::new(KINDS[1], vocab, dim, 2);
    let hidden: Vec<f32> =
        values(rows * dim, 1).iter().map(|x| (40.0 * x).round().clamp(-127.0, 127.0)).collect();
    let hidden: Vec<f32> = hidden
        .chunks(32)
        .flat_map(|block| block.iter().enumerate().map(|(n, &x)| if n == 0 { 127.0 } else { x }))
        .map(|x| x / 128.0)
        .collect();
    let hidden = cpu.upload(&hidden);
    let chosen = chosen_of(rows, 1, vocab);
    let gradient = |weight: &Buffer| {
        let statistics = cpu.token_statistics(&hidden, weight, &chosen, shape);
        let (d_chosen, d_total) = (cpu.upload(&vec![1.0; rows]), cpu.upload(&vec![-1.0; rows]));
        let gradient =
            StatisticsGradient { chosen: &d_chosen, log_sum_exp: &d_total, entropy: None };
        let mut d_hidden = cpu.alloc(rows * dim);
        cpu.token_statistics_backward(
            &hidden,
            weight,
            &chosen,
            shape,
            &statistics,
            gradient,
            &mut d_hidden,
            None,
        );
        d_hidden.host().to_vec()
    };
    let dense = gradient(&cpu.upload(&stored.values()));
    let found = gradient(&cpu.quantised_weight(&stored.matrix()));
    assert!(dense.iter().any(|x| x.abs() > 0.1));
    assert_close(&found, &wide(&dense), 2e-5);
}

#[test]
fn a_gradient_of_a_quantised_weight_is_refused() {
    let refused = std::panic::catch_unwind(|| {
        let cpu = cpu(1);
        let weight = cpu.quantised_weight(&Stored::new(KINDS[0], 16, 32, 1).matrix());
        let (x, d_out, mut d_weight) = (cpu.zeros(32), cpu.zeros(16), cpu.zeros(512));
        let shape = LinearShape { tokens: 1, input: 32, output: 16 };
        cpu.linear_backward_weight(&d_out, &x, &weight, shape, 1.0, &mut d_weight);
    });
    let message = refused.unwrap_err();
    assert_eq!(message.downcast_ref::<&str>(), Some(&"a quantised weight has no gradient"));
}

#[test]
fn no_rows_are_no_work() {
    let cpu = cpu(2);
    let weight = cpu.quantised_weight(&Stored::new(KINDS[0], 2000, 32, 1).matrix());
    let shape = LinearShape { tokens: 0, input: 32, output: 2000 };
    assert!(apply(&cpu, &[], &weight, shape).is_empty());
    let (d_out, mut d_x) = (cpu.alloc(0), cpu.alloc(0));
    cpu.linear_backward_input(&d_out, &weight, shape, 1.0, (&mut d_x, Update::Set));
    cpu.gather_rows(&weight, &[], 32, &mut d_x);
}
