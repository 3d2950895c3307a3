//! Operations without products: rows, norms, rotations, gates, the optimiser.

use super::*;
use crate::moments::Moments;

#[test]
fn rows_are_gathered_and_scattered() {
    for cpu in backends() {
        let table = cpu.upload(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let mut out = cpu.alloc(8);
        cpu.gather_rows(&table, &[2, 0, 2, 1], 2, &mut out);
        assert_eq!(out.host(), [4.0, 5.0, 0.0, 1.0, 4.0, 5.0, 2.0, 3.0]);
        let mut sums = cpu.upload(&[10.0; 6]);
        cpu.scatter_add_rows(&out, &[2, 0, 2, 1], 2, &mut sums);
        assert_eq!(sums.host(), [10.0, 11.0, 12.0, 13.0, 18.0, 20.0]);
        let mut slots = cpu.zeros(6);
        cpu.scatter_rows(&out, &[0, 1, 0, 2], 2, &mut slots);
        assert_eq!(slots.host(), [4.0, 5.0, 0.0, 1.0, 2.0, 3.0]);
    }
}

#[test]
fn long_arrays_are_copied_filled_and_added() {
    for cpu in backends() {
        let data = values(50_001, 1);
        let x = cpu.upload(&data);
        let mut back = vec![0.0; data.len()];
        cpu.download(&x, &mut back);
        assert_eq!(back, data);
        let mut y = cpu.zeros(data.len());
        cpu.axpy(-2.0, &x, &mut y);
        assert!(y.host().iter().zip(&data).all(|(y, x)| *y == -2.0 * x));
        cpu.copy(&x, 10, &mut y, 40_000, 5);
        assert_eq!(y.host()[40_000..40_005], data[10..15]);
        assert_eq!(y.host()[39_999], -2.0 * data[39_999]);
    }
}

#[test]
fn squares_are_summed_exactly_enough_and_onto_what_was_there() {
    let data = values(123_457, 2);
    let exact: f64 = data.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    for cpu in backends() {
        let mut sum = cpu.upload(&[1.5]);
        cpu.add_sum_of_squares(&cpu.upload(&data), &mut sum);
        assert_eq!(sum.host()[0], (1.5 + exact) as f32);
    }
}

#[test]
fn bias_gradients_are_column_sums() {
    for cpu in backends() {
        for (tokens, dim) in [(1, 1), (3, 5), (200, 33)] {
            let rows = values(tokens * dim, 3);
            let mut expected = vec![1.0; dim];
            for row in rows.chunks(dim) {
                expected.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
            }
            let mut d_bias = cpu.upload(&vec![1.0; dim]);
            cpu.bias_backward(&cpu.upload(&rows), tokens, &mut d_bias);
            assert_close(d_bias.host(), &expected, 1e-6);
        }
    }
}

const EPS: f64 = 1e-5;

fn norm_reference(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let dim = weight.len();
    let row = |x: &[f64]| {
        let scale = 1.0 / (dot(x, x) / dim as f64 + EPS).sqrt();
        x.iter().zip(weight).map(|(x, w)| x * scale * w).collect::<Vec<_>>()
    };
    x.chunks(dim).flat_map(row).collect()
}

#[test]
fn rms_norm_and_its_gradient() {
    for cpu in backends() {
        for (rows, dim) in [(1, 2), (3, 7), (2, 16), (70, 5), (4, 33)] {
            let (x, weight) = (values(rows * dim, 4), values(dim, 5));
            let (d_out, before) = (values(rows * dim, 6), values(rows * dim, 7));
            let shape = NormShape { rows, dim, eps: EPS as f32 };
            let arrays = [wide(&x), wide(&weight)];
            let loss = |a: &[Vec<f64>]| dot(&norm_reference(&a[0], &a[1]), &wide(&d_out));
            let [x, weight, d_out] = [&x, &weight, &d_out].map(|data| cpu.upload(data));
            let (mut out, mut inv_rms) = (cpu.alloc(rows * dim), cpu.alloc(rows));
            cpu.rms_norm(&x, &weight, shape, &mut out, &mut inv_rms);
            assert_close(out.host(), &norm_reference(&arrays[0], &arrays[1]), 1e-6);

            let (mut d_x, mut d_weight) = (cpu.alloc(rows * dim), cpu.zeros(dim));
            let target = (&mut d_x, Update::Set);
            let into_weight = Some(&mut d_weight);
            cpu.rms_norm_backward(&x, &weight, &inv_rms, &d_out, shape, target, into_weight);
            let expected = differences(&arrays, 0, loss);
            assert_close(d_x.host(), &expected, 1e-5);
            assert_close(d_weight.host(), &differences(&arrays, 1, loss), 1e-5);

            let mut added = cpu.upload(&before);
            let target = (&mut added, Update::Add);
            cpu.rms_norm_backward(&x, &weight, &inv_rms, &d_out, shape, target, None);
            let sum: Vec<f64> = expected.iter().zip(wide(&before)).map(|(a, b)| a + b).collect();
            assert_close(added.host(), &sum, 1e-5);
        }
    }
}

#[test]
fn norms_do_not_depend_on_threads_or_on_the_batch() {
    let (rows, dim) = (300, 576);
    let (x, weight, d_out) = (values(rows * dim, 1), values(dim, 2), values(rows * dim, 3));
    let compute = |threads: usize, rows: usize| {
        let cpu = Cpu::new(threads);
        let shape = NormShape { rows, dim, eps: 1e-5 };
        let [x, d_out] = [&x, &d_out].map(|data| cpu.upload(&data[..rows * dim]));
        let weight = cpu.upload(&weight);
        let (mut out, mut inv_rms) = (cpu.alloc(rows * dim), cpu.alloc(rows));
        cpu.rms_norm(&x, &weight, shape, &mut out, &mut inv_rms);
        let (mut d_x, mut d_weight) = (cpu.alloc(rows * dim), cpu.zeros(dim));
        let target = (&mut d_x, Update::Set);
        cpu.rms_norm_backward(&x, &weight, &inv_rms, &d_out, shape, target, Some(&mut d_weight));
        [out, d_x, d_weight].map(|buffer| bits(buffer.host()))
    };
    assert!(compute(1, rows) == compute(2, rows));
    assert!(compute(1, rows)[0][..dim] == compute(2, 1)[0]);
}

#[test]
fn rotation_turns_pairs_and_the_gradient_turns_back() {
    let positions = [0, 3, 511, 512, 100_000];
    for cpu in backends() {
        for head_dim in [2, 6, 64] {
            let frequencies: Vec<f32> = (0..head_dim / 2)
                .map(|n| 10_000f32.powf(-2.0 * n as f32 / head_dim as f32))
                .collect();
            let rotation =
                Rotation { positions: &positions, inverse_frequencies: &frequencies, heads: 3 };
            let before = values(rotation.rows() * head_dim, 8);
            let mut x = cpu.upload(&before);
            cpu.rope(&mut x, rotation, RopeTurn::Forward);
            let mut expected = vec![0.0; before.len()];
            for (head, row) in before.chunks(head_dim).enumerate() {
                for (n, &frequency) in frequencies.iter().enumerate() {
                    let angle = f64::from(positions[head / 3]) * f64::from(frequency);
                    let (low, high) = (f64::from(row[n]), f64::from(row[n + head_dim / 2]));
                    let out = &mut expected[head * head_dim..][..head_dim];
                    out[n] = low * angle.cos() - high * angle.sin();
                    out[n + head_dim / 2] = high * angle.cos() + low * angle.sin();
                }
            }
            assert_close(x.host(), &expected, 1e-6);
            cpu.rope(&mut x, rotation, RopeTurn::Backward);
            assert_close(x.host(), &wide(&before), 1e-6);
        }
    }
}

#[test]
fn a_rotated_norm_is_a_norm_and_then_a_rotation() {
    // More rows than one piece of work, heads that straddle pieces, positions off the table.
    let positions: Vec<u32> = (0..70).map(|n| n * 1_000).collect();
    for cpu in backends() {
        for (heads, head_dim) in [(1, 2), (3, 6), (9, 64)] {
            let inverse_frequencies: Vec<f32> =
                (0..head_dim / 2).map(|n| 0.3f32.powi(n as i32 / 4)).collect();
            let rotation = Rotation {
                positions: &positions,
                inverse_frequencies: &inverse_frequencies,
                heads,
            };
            let operation = RotatedNorm { rotation, eps: EPS as f32 };
            let len = rotation.rows() * head_dim;
            let [x, weight] = [values(len, 8), values(head_dim, 9)].map(|data| cpu.upload(&data));
            let norm = operation.norm_shape();
            let [mut out, mut expected] = [0; 2].map(|_| cpu.alloc(len));
            let [mut inv_rms, mut expected_rms] = [0; 2].map(|_| cpu.alloc(norm.rows));
            cpu.rotated_norm(&x, &weight, operation, &mut out, &mut inv_rms);
            cpu.rms_norm(&x, &weight, norm, &mut expected, &mut expected_rms);
            cpu.rope(&mut expected, rotation, RopeTurn::Forward);
            assert!(bits(out.host()) == bits(expected.host()));
            assert!(bits(inv_rms.host()) == bits(expected_rms.host()));

            let [mut d_out, mut back] = [0; 2].map(|_| cpu.upload(&values(len, 10)));
            let [mut d_x, mut expected] = [0; 2].map(|_| cpu.alloc(len));
            let [mut d_weight, mut added] = [0; 2].map(|_| cpu.upload(&values(head_dim, 11)));
            let wanted = Some(&mut d_weight);
            cpu.rotated_norm_backward(
                &x, &weight, &inv_rms, &mut d_out, operation, &mut d_x, wanted,
            );
            cpu.rope(&mut back, rotation, RopeTurn::Backward);
            let (target, wanted) = ((&mut expected, Update::Set), Some(&mut added));
            cpu.rms_norm_backward(&x, &weight, &inv_rms, &back, norm, target, wanted);
            assert!(bits(d_x.host()) == bits(expected.host()));
            assert!(bits(d_weight.host()) == bits(added.host()));
        }
    }
}

#[test]
fn rotations_of_several_models_do_not_mix() {
    let cpu = Cpu::new(1);
    for round in 0..2 {
        for base in 1..8 {
            let mut x = cpu.upload(&[1.0, 0.0]);
            let position = 700 * (round + 1);
            let (positions, inverse_frequencies) = (&[position], &[0.1 * base as f32]);
            let rotation = Rotation { positions, inverse_frequencies, heads: 1 };
            cpu.rope(&mut x, rotation, RopeTurn::Forward);
            let angle = f64::from(position) * f64::from(0.1 * base as f32);
            assert_close(x.host(), &[angle.cos(), angle.sin()], 1e-6);
        }
    }
}

#[test]
fn swiglu_and_its_gradient() {
    for cpu in backends() {
        let len = 67;
        let (mut gate, up, d_out) = (values(len, 9), values(len, 10), values(len, 11));
        gate[..2].copy_from_slice(&[30.0, -30.0]);
        let arrays = [wide(&gate), wide(&up)];
        let reference = |a: &[Vec<f64>]| -> Vec<f64> {
            let silu = |x: f64| x / (1.0 + (-x).exp());
            a[0].iter().zip(&a[1]).map(|(&gate, up)| silu(gate) * up).collect()
        };
        let loss = |a: &[Vec<f64>]| dot(&reference(a), &wide(&d_out));
        let [gate, up, d_out] = [&gate, &up, &d_out].map(|data| cpu.upload(data));
        let mut out = cpu.alloc(len);
        cpu.swiglu(&gate, &up, &mut out);
        assert_close(out.host(), &reference(&arrays), 1e-6);
        let (mut d_gate, mut d_up) = (cpu.alloc(len), cpu.alloc(len));
        cpu.swiglu_backward(&gate, &up, &d_out, &mut d_gate, &mut d_up);
        assert_close(d_gate.host(), &differences(&arrays, 0, loss), 1e-6);
        assert_close(d_up.host(), &differences(&arrays, 1, loss), 1e-6);
    }
}

#[test]
fn extreme_gates_give_no_nan() {
    let cpu = Cpu::new(1);
    let gate = cpu.upload(&[-1e4, -100.0, 100.0, 1e4]);
    let ones = cpu.upload(&[1.0; 4]);
    let (mut out, mut d_gate, mut d_up) = (cpu.alloc(4), cpu.alloc(4), cpu.alloc(4));
    cpu.swiglu(&gate, &ones, &mut out);
    cpu.swiglu_backward(&gate, &ones, &ones, &mut d_gate, &mut d_up);
    assert_eq!(out.host(), [0.0, 0.0, 100.0, 1e4]);
    assert_eq!(d_gate.host(), [0.0, 0.0, 1.0, 1.0]);
}

fn adamw_reference(
    [parameter, first, second]: [&mut [f64]; 3],
    gradient: &[f64],
    sum_of_squares: f64,
    step: &AdamW,
) {
    let wide = |x: f32| f64::from(x);
    let scale = wide(step.gradient_scale);
    let norm = sum_of_squares.sqrt() * scale;
    let clip =
        if step.max_norm > 0.0 { (wide(step.max_norm) / (norm + 1e-6)).min(1.0) } else { 1.0 };
    for n in 0..parameter.len() {
        let gradient = gradient[n] * scale * clip;
        first[n] = wide(step.beta1) * first[n] + (1.0 - wide(step.beta1)) * gradient;
        second[n] = wide(step.beta2) * second[n] + (1.0 - wide(step.beta2)) * gradient * gradient;
        let m = first[n] / (1.0 - wide(step.beta1).powi(step.step as i32));
        let v = second[n] / (1.0 - wide(step.beta2).powi(step.step as i32));
        let decay = wide(step.weight_decay) * parameter[n];
        parameter[n] -= wide(step.learning_rate) * (m / (v.sqrt() + wide(step.eps)) + decay);
    }
}

#[test]
fn adamw_follows_the_algorithm_with_and_without_clipping() {
    let len = 20_011;
    for cpu in backends() {
        for max_norm in [0.0, 0.5, 1e6] {
            let start = values(len, 12);
            let mut expected = [wide(&start), vec![0.0; len], vec![0.0; len]];
            let mut parameter = cpu.upload(&start);
            let (mut first, mut second) = (cpu.zeros(len), cpu.zeros(len));
            for step in 1..=3 {
                let gradient = values(len, 20 + step);
                let step = AdamW {
                    learning_rate: 0.01,
                    beta1: 0.9,
                    beta2: 0.95,
                    eps: 1e-8,
                    weight_decay: 0.1,
                    step,
                    gradient_scale: 0.5,
                    max_norm,
                    moments: Moments::Single,
                };
                let buffer = cpu.upload(&gradient);
                let mut squares = cpu.zeros(1);
                cpu.add_sum_of_squares(&buffer, &mut squares);
                let sum = dot(&wide(&gradient), &wide(&gradient));
                let [p, m, v] = &mut expected;
                adamw_reference([p, m, v], &wide(&gradient), sum, &step);
                cpu.adamw(&mut parameter, &buffer, (&mut first, &mut second), &squares, &step);
            }
            assert_close(parameter.host(), &expected[0], 1e-6);
            assert_close(first.host(), &expected[1], 1e-6);
            assert_close(second.host(), &expected[2], 1e-6);
        }
    }
}

/// A problem of many scales, some hundreds from the smallest to the largest: minimise `Σ scale · (x - target)²` from noisy gradients.
struct Noisy {
    target: Vec<f32>,
    scale: Vec<f32>,
}

impl Noisy {
    fn new(len: usize) -> Self {
        let scale = values(len, 32).iter().map(|x| x.exp()).collect();
        Self { target: values(len, 31), scale }
    }

    fn gradient(&self, x: &[f32], step: u64) -> Vec<f32> {
        let noise = values(x.len(), 100 + step);
        (0..x.len()).map(|n| self.scale[n] * (x[n] - self.target[n] + 0.3 * noise[n])).collect()
    }

    /// Mean squared distance after so many steps.
    fn distance_after(&self, cpu: &Cpu, moments: Moments, steps: u64) -> (f64, Vec<f32>) {
        let len = self.target.len();
        let mut parameter = cpu.zeros(len);
        let (mut first, mut second) =
            (cpu.zeros(moments.buffer_len(len)), cpu.zeros(moments.buffer_len(len)));
        let squares = cpu.zeros(1);
        for step in 1..=steps {
            let gradient = cpu.upload(&self.gradient(parameter.host(), step));
            let left = 1.0 - (step - 1) as f32 / steps as f32;
            let step = AdamW {
                learning_rate: 0.05 * left,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.0,
                step,
                gradient_scale: 1.0,
                max_norm: 0.0,
                moments,
            };
            cpu.adamw(&mut parameter, &gradient, (&mut first, &mut second), &squares, &step);
        }
        let error = |n: usize| f64::from(parameter.host()[n] - self.target[n]).powi(2);
        ((0..len).map(error).sum::<f64>() / len as f64, parameter.host().to_vec())
    }
}

#[test]
fn moments_in_eight_bits_learn_what_single_precision_learns() {
    let problem = Noisy::new(2_000);
    for cpu in backends() {
        let start = problem.target.iter().map(|x| f64::from(x * x)).sum::<f64>() / 2_000.0;
        let (single, _) = problem.distance_after(&cpu, Moments::Single, 150);
        let (eight, _) = problem.distance_after(&cpu, Moments::EightBits, 150);
        assert!(single < 0.02 * start, "{single} of {start}");
        assert!((eight / single - 1.0).abs() < 0.2, "{eight} against {single}");
    }
}

#[test]
fn moments_in_eight_bits_do_not_depend_on_threads_or_the_vector_unit() {
    let problem = Noisy::new(20_011);
    let runs: Vec<_> = backends()
        .iter()
        .map(|cpu| (cpu.name(), problem.distance_after(cpu, Moments::EightBits, 5).1))
        .collect();
    for pair in runs.windows(2) {
        // Where a product is rounded before it is added, a code may fall to its neighbour.
        let close = |a: &f32, b: &f32| (a - b).abs() < 0.02;
        assert!(pair[0].1.iter().zip(&pair[1].1).all(|(a, b)| close(a, b)), "{}", pair[1].0);
        if pair.iter().all(|(name, _)| !name.contains("portable")) {
            assert_eq!(pair[0].1, pair[1].1, "{} and {}", pair[0].0, pair[1].0);
        }
    }
}

#[test]
fn moments_that_vanish_make_no_step_of_any_size() {
    let cpu = Cpu::new(1);
    let moments = Moments::EightBits;
    let mut gradient = vec![1e-12f32; 300];
    // One large gradient in the block makes the others vanish beside it.
    gradient[7] = 1e3;
    let gradient = cpu.upload(&gradient);
    let mut parameter = cpu.zeros(300);
    let len = moments.buffer_len(300);
    let (mut first, mut second, squares) = (cpu.zeros(len), cpu.zeros(len), cpu.zeros(1));
    for number in 1..=20 {
        let step = AdamW {
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-30,
            weight_decay: 0.0,
            step: number,
            gradient_scale: 1.0,
            max_norm: 0.0,
            moments,
        };
        cpu.adamw(&mut parameter, &gradient, (&mut first, &mut second), &squares, &step);
    }
    assert!(parameter.host().iter().all(|x| x.abs() <= 2.5), "{:?}", parameter.host());
    assert!(parameter.host()[7] < -1.5);
}
