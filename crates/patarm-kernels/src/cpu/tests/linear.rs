//! Linear maps: values, gradients, and rows that do not know each other.

use super::*;

const SHAPES: [(usize, usize, usize); 14] = [
    (1, 1, 1),
    (1, 2, 7),
    (5, 1, 3),
    (3, 3, 2),
    (1, 64, 5),
    (2, 17, 300),
    (7, 63, 33),
    (40, 576, 1),
    (40, 576, 4),
    (1, 513, 16),
    (130, 100, 5),
    (33, 1100, 20),
    (64, 1537, 48),
    (9, 0, 4),
];

pub(super) fn reference(
    x: &[f64],
    weight: &[f64],
    (tokens, input, output): (usize, usize, usize),
) -> Vec<f64> {
    let mut out = vec![0.0; tokens * output];
    for t in 0..tokens {
        for o in 0..output {
            out[t * output + o] = dot(&x[t * input..][..input], &weight[o * input..][..input]);
        }
    }
    out
}

fn shape_of((tokens, input, output): (usize, usize, usize)) -> LinearShape {
    LinearShape { tokens, input, output }
}

#[test]
fn values_with_and_without_bias_set_and_added() {
    for cpu in backends() {
        for (tokens, input, output) in SHAPES {
            let shape = (tokens, input, output);
            let (x, weight) = (values(tokens * input, 1), values(output * input, 2));
            let (bias, before) = (values(output, 3), values(tokens * output, 4));
            let plain = reference(&wide(&x), &wide(&weight), shape);
            let [x, weight, bias] = [x, weight, bias].map(|data| cpu.upload(&data));
            for (bias, update) in [
                (None, Update::Set),
                (None, Update::Add),
                (Some(&bias), Update::Set),
                (Some(&bias), Update::Add),
            ] {
                let mut out = cpu.upload(&before);
                cpu.linear(&x, &weight, bias, shape_of(shape), 0.5, (&mut out, update));
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
fn gradients_are_those_of_the_bilinear_form() {
    for cpu in backends() {
        for (tokens, input, output) in SHAPES {
            let d_out = values(tokens * output, 5);
            let (x, weight) = (values(tokens * input, 6), values(output * input, 7));
            let before = values(output * input, 8);
            let mut d_x = vec![0.0; tokens * input];
            let mut d_weight = wide(&before);
            for t in 0..tokens {
                for o in 0..output {
                    let d_out = 0.25 * f64::from(d_out[t * output + o]);
                    for i in 0..input {
                        d_x[t * input + i] += d_out * f64::from(weight[o * input + i]);
                        d_weight[o * input + i] += d_out * f64::from(x[t * input + i]);
                    }
                }
            }
            let shape = LinearShape { tokens, input, output };
            let [d_out, x, weight, before] =
                [d_out, x, weight, before].map(|data| cpu.upload(&data));
            let mut into_x = cpu.alloc(tokens * input);
            let target = (&mut into_x, Update::Set);
            cpu.linear_backward_input(&d_out, &weight, shape, 0.25, target);
            assert_close(into_x.host(), &d_x, 3e-6);
            let mut into_weight = before;
            cpu.linear_backward_weight(&d_out, &x, &weight, shape, 0.25, &mut into_weight);
            assert_close(into_weight.host(), &d_weight, 3e-6);
        }
    }
}

/// The widths of real models, and narrow ones around every special path.
const WIDTHS: [(usize, usize); 16] = [
    (576, 192),
    (576, 576),
    (1536, 576),
    (896, 128),
    (576, 49),
    (600, 64),
    (1100, 16),
    (576, 8),
    (576, 5),
    (576, 4),
    (576, 1),
    (16, 576),
    (8, 64),
    (2, 300),
    (1, 20),
    (3, 6),
];

#[test]
fn a_row_is_the_same_to_the_bit_whatever_rows_are_beside_it() {
    const ROWS: usize = 260;
    let backends = [Cpu::new(1), Cpu::new(2), Cpu::portable(4)];
    for (input, output) in WIDTHS {
        let (x, weight) = (values(ROWS * input, 9), values(output * input, 10));
        let compute = |cpu: &Cpu, first: usize, tokens: usize| {
            let x = cpu.upload(&x[first * input..][..tokens * input]);
            let mut weight = cpu.upload(&weight);
            if !tokens.is_multiple_of(3) {
                cpu.prepare_weight(&mut weight, output, input);
            }
            let mut out = cpu.alloc(tokens * output);
            let shape = LinearShape { tokens, input, output };
            cpu.linear(&x, &weight, None, shape, 1.0, (&mut out, Update::Set));
            bits(out.host())
        };
        for cpu in &backends {
            let all = compute(cpu, 0, ROWS);
            let counts = (1..20).chain([31, 32, 33, 52, 63, 64, 65, 66, 97, 128, 129, 200]);
            for tokens in counts {
                let first = (tokens * 7) % (ROWS - tokens);
                let some = compute(cpu, first, tokens);
                let expected = &all[first * output..][..tokens * output];
                assert!(some == expected, "{input} -> {output}: {tokens} rows from {first}");
            }
        }
        assert!(compute(&backends[0], 0, ROWS) == compute(&backends[1], 0, ROWS), "threads");
    }
}

#[test]
fn an_element_does_not_depend_on_the_columns_beside_it() {
    let (tokens, input, output) = (70, 577, 200);
    let cpu = Cpu::new(2);
    let (x, weight) = (cpu.upload(&values(tokens * input, 1)), values(output * input, 2));
    let compute = |first: usize, output: usize| {
        let weight = cpu.upload(&weight[first * input..][..output * input]);
        let mut out = cpu.alloc(tokens * output);
        let shape = LinearShape { tokens, input, output };
        cpu.linear(&x, &weight, None, shape, 1.0, (&mut out, Update::Set));
        bits(out.host())
    };
    let all = compute(0, output);
    for (first, width) in [(0, 5), (1, 16), (3, 64), (17, 100), (199 - 65, 65)] {
        let some = compute(first, width);
        for (t, row) in some.chunks(width).enumerate() {
            assert_eq!(row, &all[t * output + first..][..width], "{width} columns from {first}");
        }
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let (tokens, input, output) = (333, 576, 200);
    let shape = LinearShape { tokens, input, output };
    let gradients = [1, 2, 5].map(|threads| {
        let cpu = Cpu::new(threads);
        let d_out = cpu.upload(&values(tokens * output, 1));
        let x = cpu.upload(&values(tokens * input, 2));
        let weight = cpu.upload(&values(output * input, 3));
        let (mut d_x, mut d_weight) = (cpu.alloc(x.len()), cpu.zeros(weight.len()));
        let mut d_bias = cpu.zeros(output);
        cpu.linear_backward_input(&d_out, &weight, shape, 1.0, (&mut d_x, Update::Set));
        cpu.linear_backward_weight(&d_out, &x, &weight, shape, 1.0, &mut d_weight);
        cpu.bias_backward(&d_out, tokens, &mut d_bias);
        [d_x, d_weight, d_bias].map(|gradient| bits(gradient.host()))
    });
    assert!(gradients[0] == gradients[1] && gradients[0] == gradients[2]);
}

#[test]
fn no_rows_are_no_work() {
    let cpu = Cpu::new(2);
    let weight = cpu.upload(&[1.0; 6]);
    let (x, mut out) = (cpu.alloc(0), cpu.alloc(0));
    let shape = LinearShape { tokens: 0, input: 3, output: 2 };
    cpu.linear(&x, &weight, None, shape, 1.0, (&mut out, Update::Set));
    let mut d_weight = cpu.upload(&[1.0; 6]);
    cpu.linear_backward_weight(&out, &x, &weight, shape, 1.0, &mut d_weight);
    assert_eq!(d_weight.host(), [1.0; 6]);
}

#[test]
fn random_shapes_have_right_values_and_rows_that_stand_alone() {
    let cpus = [Cpu::new(1), Cpu::new(3)];
    for seed in 0..60 {
        let below = |n: usize, what: u64| random::below(n, seed, &[what]);
        let (tokens, input, output) = (1 + below(150, 0), 1 + below(1200, 1), 1 + below(70, 2));
        let (x, weight) = (values(tokens * input, 1), values(output * input, 2));
        let expected = reference(&wide(&x), &wide(&weight), (tokens, input, output));
        let compute = |cpu: &Cpu, first: usize, tokens: usize| {
            let x = cpu.upload(&x[first * input..][..tokens * input]);
            let mut out = cpu.alloc(tokens * output);
            let shape = LinearShape { tokens, input, output };
            let target = (&mut out, Update::Set);
            let mut weight = cpu.upload(&weight);
            if (seed + tokens as u64).is_multiple_of(2) {
                cpu.prepare_weight(&mut weight, output, input);
            }
            cpu.linear(&x, &weight, None, shape, 1.0, target);
            out.host().to_vec()
        };
        let all = compute(&cpus[0], 0, tokens);
        assert_close(&all, &expected, 3e-6);
        assert!(bits(&all) == bits(&compute(&cpus[1], 0, tokens)));
        let row = below(tokens, 3);
        let one = compute(&cpus[1], row, 1);
        assert!(bits(&one) == bits(&all[row * output..][..output]), "seed {seed}");
    }
}
