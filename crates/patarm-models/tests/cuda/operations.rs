//! Every operation but attention.

use patarm_models::kernels::{
    AdamW, Backend, ChosenTokens, LinearShape, Moments, NormShape, Precision, RopeTurn,
    RotatedNorm, Rotation, SamplingOptions, StatisticsGradient, StatisticsShape, Update, random,
};

use crate::{below, close, cpu, devices, download, parity, poisoned, seed, values};

const TIGHT: f32 = 2e-5;
/// Rounded operands whose last bit may differ.
const BF16: f32 = 2e-2;

#[test]
fn flat_arrays() {
    for len in [1, 255, 256, 5_000] {
        parity(Precision::F32, TIGHT, |b| {
            let [gate, up, d_out] = [1, 2, 3].map(|stream| b.upload(&values(len, stream)));
            let [mut out, mut d_gate, mut d_up] = [0; 3].map(|_| poisoned(b, len));
            b.swiglu(&gate, &up, &mut out);
            b.swiglu_backward(&gate, &up, &d_out, &mut d_gate, &mut d_up);
            let mut sum = b.upload(&values(len, 4));
            b.axpy(-0.7, &gate, &mut sum);
            let mut filled = poisoned(b, len);
            b.fill(&mut filled, 2.5);
            let mut copied = b.zeros(len + 3);
            b.copy(&gate, len / 2, &mut copied, 2, len - len / 2);
            let mut squares = b.upload(&[3.0]);
            b.add_sum_of_squares(&gate, &mut squares);
            vec![
                ("swiglu", download(b, &out)),
                ("d_gate", download(b, &d_gate)),
                ("d_up", download(b, &d_up)),
                ("axpy", download(b, &sum)),
                ("fill", download(b, &filled)),
                ("copy", download(b, &copied)),
                ("squares", download(b, &squares)),
            ]
        });
    }
}

const THIRD_STEP: AdamW = AdamW {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.99,
    eps: 1e-8,
    weight_decay: 0.1,
    step: 3,
    gradient_scale: 0.5,
    max_norm: 1.0,
    moments: Moments::Single,
};

#[test]
fn adamw() {
    let step = THIRD_STEP;
    for step in [step, AdamW { max_norm: 0.0, ..step }, AdamW { max_norm: 1e9, step: 1, ..step }] {
        parity(Precision::F32, TIGHT, |b| {
            let len = 1_000;
            let [mut parameter, gradient, mut first] =
                [5, 6, 7].map(|stream| b.upload(&values(len, stream)));
            let second: Vec<f32> = values(len, 8).iter().map(|x| x * x).collect();
            let mut second = b.upload(&second);
            let squares = b.upload(&[900.0]);
            b.adamw(&mut parameter, &gradient, (&mut first, &mut second), &squares, &step);
            vec![
                ("parameter", download(b, &parameter)),
                ("first", download(b, &first)),
                ("second", download(b, &second)),
            ]
        });
    }
}

#[test]
fn adamw_with_moments_in_eight_bits() {
    let moments = Moments::EightBits;
    for len in [1_000, 256, 70_000] {
        parity(Precision::F32, 1e-3, |b| {
            let mut parameter = b.upload(&values(len, 5));
            let buffers = [(); 2].map(|()| b.zeros(moments.buffer_len(len)));
            let [mut first, mut second] = buffers;
            let squares = b.upload(&[900.0]);
            for number in 1..=4 {
                let gradient = b.upload(&values(len, 60 + number));
                let step = AdamW { step: number, moments, ..THIRD_STEP };
                b.adamw(&mut parameter, &gradient, (&mut first, &mut second), &squares, &step);
            }
            vec![("parameter", download(b, &parameter))]
        });
    }
}

#[test]
fn gather_and_scatter() {
    for (count, dim) in [(1, 1), (17, 5), (300, 64), (40, 300)] {
        let rows = 23;
        let ids: Vec<u32> = (0..count).map(|n| below(rows, 9, n) as u32).collect();
        parity(Precision::F32, TIGHT, |b| {
            let table = values(rows * dim, 10);
            let from = b.upload(&values(count * dim, 11));
            let [mut added, mut written, kept] = [0; 3].map(|_| b.upload(&table));
            let mut out = poisoned(b, count * dim);
            b.gather_rows(&kept, &ids, dim, &mut out);
            b.scatter_add_rows(&from, &ids, dim, &mut added);
            b.scatter_rows(&from, &ids, dim, &mut written);
            vec![
                ("gather", download(b, &out)),
                ("scatter_add", download(b, &added)),
                ("scatter", download(b, &written)),
            ]
        });
    }
}

#[test]
fn norms() {
    for (rows, dim) in [(1, 1), (7, 64), (130, 33), (3, 576)] {
        for update in [Update::Set, Update::Add] {
            parity(Precision::F32, TIGHT, |b| {
                let shape = NormShape { rows, dim, eps: 1e-5 };
                let [x, d_out] = [12, 13].map(|stream| b.upload(&values(rows * dim, stream)));
                let weight = b.upload(&values(dim, 14));
                let (mut out, mut inv_rms) = (poisoned(b, rows * dim), poisoned(b, rows));
                b.rms_norm(&x, &weight, shape, &mut out, &mut inv_rms);
                let mut d_x = match update {
                    Update::Set => poisoned(b, rows * dim),
                    Update::Add => b.upload(&values(rows * dim, 15)),
                };
                let mut d_weight = b.upload(&values(dim, 16));
                let mut d_bias = b.upload(&values(dim, 17));
                b.rms_norm_backward(
                    &x,
                    &weight,
                    &inv_rms,
                    &d_out,
                    shape,
                    (&mut d_x, update),
                    Some(&mut d_weight),
                );
                b.bias_backward(&d_out, rows, &mut d_bias);
                vec![
                    ("norm", download(b, &out)),
                    ("inv_rms", download(b, &inv_rms)),
                    ("d_x", download(b, &d_x)),
                    ("d_weight", download(b, &d_weight)),
                    ("d_bias", download(b, &d_bias)),
                ]
            });
        }
    }
}

/// Nine positions, near and far.
fn positions() -> Vec<u32> {
    (0..9).map(|n| below(100_000, 18, n) as u32).collect()
}

fn frequencies(head_dim: usize) -> Vec<f32> {
    (0..head_dim / 2).map(|n| 10_000f32.powf(-2.0 * n as f32 / head_dim as f32)).collect()
}

#[test]
fn rotation() {
    for (heads, head_dim) in [(1, 2), (3, 64), (2, 128)] {
        let (positions, inverse_frequencies) = (positions(), frequencies(head_dim));
        let rotation =
            Rotation { positions: &positions, inverse_frequencies: &inverse_frequencies, heads };
        for turn in [RopeTurn::Forward, RopeTurn::Backward] {
            parity(Precision::F32, TIGHT, |b| {
                let mut x = b.upload(&values(rotation.rows() * head_dim, 19));
                b.rope(&mut x, rotation, turn);
                vec![("rope", download(b, &x))]
            });
        }
    }
}

#[test]
fn memory_is_counted_at_its_most() {
    assert_eq!(cpu(Precision::F32).peak_memory_bytes(), None);
    for device in devices(Precision::F32) {
        let peak = || device.peak_memory_bytes().expect("a device counts its memory");
        let before = peak();
        drop(device.alloc(1 << 20));
        let one = peak();
        assert!((4 << 20..5 << 20).contains(&(one - before)), "{before} {one}");
        // The same memory again.
        let first = device.alloc(1 << 20);
        assert_eq!(peak(), one);
        let both = [first, device.alloc(1 << 20)];
        assert_eq!(peak(), 2 * one - before);
        drop(both);
        assert_eq!(peak(), 2 * one - before);
    }
}

#[test]
fn rotated_norms() {
    for (heads, head_dim) in [(1, 2), (3, 64), (11, 128), (2, 34)] {
        let (positions, inverse_frequencies) = (positions(), frequencies(head_dim));
        let rotation =
            Rotation { positions: &positions, inverse_frequencies: &inverse_frequencies, heads };
        let operation = RotatedNorm { rotation, eps: 1e-5 };
        let len = rotation.rows() * head_dim;
        parity(Precision::F32, TIGHT, |b| {
            let [x, mut d_out] = [91, 92].map(|stream| b.upload(&values(len, stream)));
            let weight = b.upload(&values(head_dim, 93));
            let rows = operation.norm_shape().rows;
            let (mut out, mut inv_rms) = (poisoned(b, len), poisoned(b, rows));
            b.rotated_norm(&x, &weight, operation, &mut out, &mut inv_rms);
            let (mut d_x, mut d_weight) = (poisoned(b, len), b.upload(&values(head_dim, 94)));
            let wanted = Some(&mut d_weight);
            b.rotated_norm_backward(&x, &weight, &inv_rms, &mut d_out, operation, &mut d_x, wanted);
            vec![
                ("rotated_norm", download(b, &out)),
                ("inv_rms", download(b, &inv_rms)),
                ("d_x", download(b, &d_x)),
                ("d_weight", download(b, &d_weight)),
            ]
        });
    }
}

/// Forward, both gradients, twice with the weight changed in between.
fn linear_results(
    b: &dyn Backend,
    shape: LinearShape,
    (bias, update): (bool, Update),
) -> Vec<(&'static str, Vec<f32>)> {
    let LinearShape { tokens, input, output } = shape;
    let out = |len, stream| match update {
        Update::Set => poisoned(b, len),
        Update::Add => b.upload(&values(len, stream)),
    };
    let x = b.upload(&values(tokens * input, 20));
    let d_out = b.upload(&values(tokens * output, 21));
    let mut weight = b.upload(&values(output * input, 22));
    b.prepare_weight(&mut weight, output, input);
    let bias = bias.then(|| b.upload(&values(output, 23)));
    let mut results = Vec::new();
    for _ in 0..2 {
        let (mut y, mut d_x) = (out(tokens * output, 24), out(tokens * input, 25));
        let mut d_weight = b.upload(&values(output * input, 26));
        b.linear(&x, &weight, bias.as_ref(), shape, 0.5, (&mut y, update));
        b.linear_backward_input(&d_out, &weight, shape, 0.5, (&mut d_x, update));
        b.linear_backward_weight(&d_out, &x, &weight, shape, 0.5, &mut d_weight);
        results.push(("linear", download(b, &y)));
        results.push(("d_x", download(b, &d_x)));
        results.push(("d_weight", download(b, &d_weight)));
        b.axpy(1.0, &d_weight, &mut weight);
    }
    results
}

#[test]
fn linear_maps() {
    let sizes = [[1, 1, 1], [5, 7, 3], [33, 64, 48], [64, 17, 130], [2, 256, 16]];
    for [tokens, input, output] in sizes {
        let shape = LinearShape { tokens, input, output };
        for options in [(false, Update::Set), (true, Update::Set), (false, Update::Add)] {
            parity(Precision::F32, 1e-4, |b| linear_results(b, shape, options));
            parity(Precision::Bf16, BF16, |b| linear_results(b, shape, options));
        }
    }
}

/// Statistics and gradients of rows with several, repeated or no chosen ids.
fn statistics_results(b: &dyn Backend, shape: StatisticsShape) -> Vec<(&'static str, Vec<f32>)> {
    let StatisticsShape { rows, dim, vocab, .. } = shape;
    let mut chosen = ChosenTokens { offsets: vec![0], ids: Vec::new() };
    for row in 0..rows {
        chosen.ids.extend((0..row % 4).map(|n| below(vocab, 27, row * 4 + n) as u32));
        if row % 4 == 3 {
            chosen.ids.extend(chosen.ids.last().copied());
        }
        chosen.offsets.push(chosen.ids.len());
    }
    let hidden: Vec<f32> = values(rows * dim, 28).iter().map(|x| 0.3 * x).collect();
    let hidden = b.upload(&hidden);
    let mut weight = b.upload(&values(vocab * dim, 29));
    b.prepare_weight(&mut weight, vocab, dim);
    let statistics = b.token_statistics(&hidden, &weight, &chosen, shape);
    let mut results = vec![
        ("chosen", download(b, &statistics.chosen)),
        ("log_sum_exp", download(b, &statistics.log_sum_exp)),
        ("entropy", download(b, &statistics.entropy)),
    ];
    let d_chosen = b.upload(&values(chosen.ids.len(), 30));
    let [d_lse, d_entropy] = [31, 32].map(|stream| b.upload(&values(rows, stream)));
    for entropy in [None, Some(&d_entropy)] {
        let gradient = StatisticsGradient { chosen: &d_chosen, log_sum_exp: &d_lse, entropy };
        let mut d_hidden = poisoned(b, rows * dim);
        let mut d_weight = b.upload(&values(vocab * dim, 33));
        b.token_statistics_backward(
            &hidden,
            &weight,
            &chosen,
            shape,
            &statistics,
            gradient,
            &mut d_hidden,
            Some(&mut d_weight),
        );
        results.push(("d_hidden", download(b, &d_hidden)));
        results.push(("d_weight", download(b, &d_weight)));
    }
    results
}

#[test]
fn log_probabilities() {
    // The last size has two tiles of columns, the one before it two chunks of rows.
    for (rows, dim, vocab) in [(1, 8, 2), (9, 16, 301), (1_030, 4, 30), (3, 4, 20_000)] {
        for temperature in [1.0, 0.7] {
            let shape = StatisticsShape { rows, dim, vocab, temperature, kept_rows: 0 };
            parity(Precision::F32, 1e-4, |b| statistics_results(b, shape));
            parity(Precision::Bf16, BF16, |b| statistics_results(b, shape));
        }
    }
}

fn sampling(sequence: u64) -> SamplingOptions {
    SamplingOptions {
        temperature: 0.8,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: seed(),
        sequence,
        position: 5 + sequence % 3,
    }
}

/// One row for every kind of filter, many times over.
fn sampling_options(rows: usize) -> Vec<SamplingOptions> {
    (0..rows as u64)
        .map(|row| {
            let options = sampling(row);
            match row % 8 {
                0 => options,
                1 => SamplingOptions { temperature: 0.0, ..options },
                2 => SamplingOptions { top_k: 5, ..options },
                3 => SamplingOptions { top_p: 0.6, ..options },
                4 => SamplingOptions { min_p: 0.05, ..options },
                5 => SamplingOptions { top_k: 40, top_p: 0.9, min_p: 0.02, ..options },
                6 => SamplingOptions { top_k: 1, ..options },
                _ => SamplingOptions { top_p: 0.0, temperature: 1.7, ..options },
            }
        })
        .collect()
}

#[test]
fn tokens_are_drawn_as_on_the_cpu() {
    for vocab in [3, 700] {
        let (rows, dim) = (72, 8);
        parity(Precision::F32, 1e-4, |b| {
            // Few values, so that some logits are equal.
            let hidden: Vec<f32> = values(rows * dim, 34).iter().map(|x| x.round()).collect();
            let weight: Vec<f32> = values(vocab * dim, 35).iter().map(|x| x.round()).collect();
            let (hidden, mut weight) = (b.upload(&hidden), b.upload(&weight));
            b.prepare_weight(&mut weight, vocab, dim);
            let (mut ids, mut logprobs) = (poisoned(b, rows), poisoned(b, rows));
            let shape = StatisticsShape { rows, dim, vocab, temperature: 1.0, kept_rows: 0 };
            let options = sampling_options(rows);
            b.sample(&hidden, &weight, shape, &options, &mut ids, &mut logprobs);
            vec![("ids", download(b, &ids)), ("logprobs", download(b, &logprobs))]
        });
    }
}

#[test]
fn broken_logits_are_not_hidden() {
    for cuda in devices(Precision::F32) {
        let b: &dyn Backend = &cuda;
        let hidden = b.upload(&[f32::NAN, 1.0]);
        let weight = b.upload(&[1.0, 2.0, 3.0]);
        let shape = StatisticsShape { rows: 2, dim: 1, vocab: 3, temperature: 1.0, kept_rows: 0 };
        let (mut ids, mut logprobs) = (poisoned(b, 2), poisoned(b, 2));
        b.sample(&hidden, &weight, shape, &[sampling(0), sampling(1)], &mut ids, &mut logprobs);
        let logprobs = download(b, &logprobs);
        assert!(logprobs[0].is_nan() && logprobs[1].is_finite(), "{logprobs:?}");
        assert!(download(b, &ids).iter().all(|&id| id < 3.0));
    }
}

/// A sampler whose weights are known exactly gives the CPU's id for every draw: the
/// random numbers are the same to the bit.
#[test]
fn draws_have_the_same_bits() {
    let (rows, vocab) = (512, 4_096);
    for cuda in devices(Precision::F32) {
        let b: &dyn Backend = &cuda;
        let (hidden, weight) = (b.zeros(rows), b.zeros(vocab));
        let options: Vec<_> = (0..rows as u64)
            .map(|row| SamplingOptions { temperature: 1.0, ..sampling(row) })
            .collect();
        let shape = StatisticsShape { rows, dim: 1, vocab, temperature: 1.0, kept_rows: 0 };
        let (mut ids, mut logprobs) = (poisoned(b, rows), poisoned(b, rows));
        b.sample(&hidden, &weight, shape, &options, &mut ids, &mut logprobs);
        for (id, o) in download(b, &ids).iter().zip(&options) {
            let u = random::uniform(o.seed, &[o.sequence, o.position]);
            assert_eq!(*id, (u * vocab as f64).floor() as f32);
        }
    }
}

#[test]
fn out_of_memory_says_what_to_lower() {
    for cuda in devices(Precision::F32) {
        let fault = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..64).map(|_| cuda.alloc(1 << 36)).collect::<Vec<_>>()
        }));
        let payload = fault.expect_err("no device has so much");
        let fault = payload.downcast_ref::<patarm_models::kernels::DeviceFault>().expect("a fault");
        assert_eq!(fault.kind(), patarm_models::kernels::FaultKind::OutOfMemory);
        assert!(fault.to_string().contains("lower the batch"), "{fault}");
        // The device goes on.
        close("after", &download(&cuda, &cuda.upload(&[1.0])), &[1.0], 0.0);
    }
}

#[test]
fn memory_is_reused_and_results_repeat() {
    for cuda in devices(Precision::Bf16) {
        let shape = LinearShape { tokens: 33, input: 64, output: 48 };
        let run = || linear_results(&cuda, shape, (true, Update::Set));
        let first = run();
        for (again, first) in run().iter().zip(&first) {
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&again.1), bits(&first.1), "{}", first.0);
        }
        assert_ne!(cuda.name(), cpu(Precision::Bf16).name());
    }
}
