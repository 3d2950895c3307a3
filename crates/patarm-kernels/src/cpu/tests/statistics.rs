//! Linear → log-probability: values, gradients, bits.

use super::*;

/// Chosen logits, log-sum-exp and entropy in f64, one array each.
fn reference(
    hidden: &[f64],
    weight: &[f64],
    chosen: &ChosenTokens,
    shape: StatisticsShape,
) -> [Vec<f64>; 3] {
    let mut found = [vec![], vec![], vec![]];
    for (row, hidden) in hidden.chunks(shape.dim).enumerate() {
        let logits: Vec<f64> = weight
            .chunks(shape.dim)
            .map(|weight| dot(hidden, weight) / f64::from(shape.temperature))
            .collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = max + logits.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
        let mean: f64 = logits.iter().map(|z| (z - lse).exp() * z).sum();
        let ids = &chosen.ids[chosen.offsets[row]..chosen.offsets[row + 1]];
        found[0].extend(ids.iter().map(|&id| logits[id as usize]));
        found[1].push(lse);
        found[2].push(lse - mean);
    }
    found
}

/// Row `n` wants `n % 4` ids, some twice.
fn chosen(rows: usize, vocab: usize) -> ChosenTokens {
    let mut chosen = ChosenTokens { offsets: vec![0], ids: vec![] };
    for row in 0..rows {
        for n in 0..row % 4 {
            let id = random::below(vocab, 77, &[row as u64, (n / 2) as u64]);
            chosen.ids.push(id as u32);
        }
        chosen.offsets.push(chosen.ids.len());
    }
    if let Some(last) = chosen.ids.last_mut() {
        *last = vocab as u32 - 1;
    }
    chosen
}

fn shape(rows: usize, dim: usize, vocab: usize, temperature: f32) -> StatisticsShape {
    StatisticsShape { rows, dim, vocab, temperature, kept_rows: 0 }
}

#[test]
fn tiles_cover_the_vocabulary_and_none_is_narrow() {
    for vocab in [0, 1, 5, 4607, 4608, 4609, 4671, 4672, 9300, 49_152, 151_936] {
        let tiles: Vec<_> = super::super::statistics::tiles(vocab).collect();
        assert_eq!(tiles.iter().map(|tile| tile.len()).sum::<usize>(), vocab);
        assert!(tiles.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(tiles.len() < 2 || tiles.iter().all(|tile| tile.len() >= 64));
    }
}

#[test]
fn values() {
    for cpu in backends() {
        for (rows, dim, vocab, temperature) in [
            (1, 3, 1, 1.0),
            (4, 8, 3, 1.0),
            (5, 16, 7, 0.7),
            (7, 5, 100, 2.0),
            (3, 12, 4697, 1.0),
            (300, 4, 4800, 0.5),
        ] {
            let shape = shape(rows, dim, vocab, temperature);
            let (hidden, weight) = (super::values(rows * dim, 1), super::values(vocab * dim, 2));
            let chosen = chosen(rows, vocab);
            let expected = reference(&wide(&hidden), &wide(&weight), &chosen, shape);
            let (hidden, weight) = (cpu.upload(&hidden), cpu.upload(&weight));
            let found = cpu.token_statistics(&hidden, &weight, &chosen, shape);
            assert_close(found.chosen.host(), &expected[0], 3e-6);
            assert_close(found.log_sum_exp.host(), &expected[1], 3e-6);
            assert_close(found.entropy.host(), &expected[2], 1e-5);
        }
    }
}

#[test]
fn peaked_and_flat_distributions_have_exact_entropy() {
    let cpu = Cpu::new(1);
    let chosen = ChosenTokens { offsets: vec![0, 0, 0], ids: vec![] };
    let mut weight = vec![0.0; 5000];
    weight[4500] = 1.0;
    let hidden = cpu.upload(&[1000.0, 0.0]);
    let found =
        cpu.token_statistics(&hidden, &cpu.upload(&weight), &chosen, shape(2, 1, 5000, 1.0));
    assert_close(found.entropy.host(), &[0.0, 5000f64.ln()], 1e-6);
    assert_close(found.log_sum_exp.host(), &[1000.0, 5000f64.ln()], 1e-6);
}

/// Gradients of `Σ chosen·a + lse·b + entropy·c` in hidden states and weight.
fn gradients(
    cpu: &Cpu,
    [hidden, weight]: [&[f32]; 2],
    chosen: &ChosenTokens,
    shape: StatisticsShape,
    factors: &[Vec<f32>; 3],
) -> [Vec<f32>; 2] {
    let (hidden, weight) = (cpu.upload(hidden), cpu.upload(weight));
    let statistics = cpu.token_statistics(&hidden, &weight, chosen, shape);
    let factors = factors.each_ref().map(|data| cpu.upload(data));
    let gradient = StatisticsGradient {
        chosen: &factors[0],
        log_sum_exp: &factors[1],
        entropy: Some(&factors[2]),
    };
    let (mut d_hidden, mut d_weight) = (cpu.alloc(hidden.len()), cpu.zeros(weight.len()));
    cpu.token_statistics_backward(
        &hidden,
        &weight,
        chosen,
        shape,
        &statistics,
        gradient,
        &mut d_hidden,
        Some(&mut d_weight),
    );
    [d_hidden, d_weight].map(|gradient| gradient.host().to_vec())
}

fn factors(chosen: &ChosenTokens, rows: usize) -> [Vec<f32>; 3] {
    [super::values(chosen.ids.len(), 3), super::values(rows, 4), super::values(rows, 5)]
}

#[test]
fn gradients_equal_differences() {
    for cpu in backends() {
        for (rows, dim, vocab, temperature) in [(1, 2, 2, 1.0), (4, 5, 11, 0.8), (6, 3, 40, 1.7)] {
            let shape = shape(rows, dim, vocab, temperature);
            let (hidden, weight) = (super::values(rows * dim, 6), super::values(vocab * dim, 7));
            let chosen = chosen(rows, vocab);
            let factors = factors(&chosen, rows);
            let loss = |a: &[Vec<f64>]| {
                let found = reference(&a[0], &a[1], &chosen, shape);
                (0..3).map(|n| dot(&found[n], &wide(&factors[n]))).sum()
            };
            let arrays = [wide(&hidden), wide(&weight)];
            let found = gradients(&cpu, [&hidden, &weight], &chosen, shape, &factors);
            assert_close(&found[0], &differences(&arrays, 0, loss), 1e-5);
            assert_close(&found[1], &differences(&arrays, 1, loss), 1e-5);
        }
    }
}

#[test]
fn gradients_across_tiles_and_chunks_equal_differences_along_random_directions() {
    let (rows, dim, vocab) = (261, 6, 4200);
    let shape = shape(rows, dim, vocab, 1.3);
    let (hidden, weight) = (super::values(rows * dim, 8), super::values(vocab * dim, 9));
    let chosen = chosen(rows, vocab);
    let factors = factors(&chosen, rows);
    let found = gradients(&Cpu::new(2), [&hidden, &weight], &chosen, shape, &factors);
    let loss = |hidden: &[f64], weight: &[f64]| -> f64 {
        let found = reference(hidden, weight, &chosen, shape);
        (0..3).map(|n| dot(&found[n], &wide(&factors[n]))).sum()
    };
    for seed in 0..2 {
        let along = [
            wide(&super::values(rows * dim, 30 + seed)),
            wide(&super::values(vocab * dim, 40 + seed)),
        ];
        let moved = |x: &[f32], by: &[f64], step: f64| -> Vec<f64> {
            x.iter().zip(by).map(|(&x, by)| f64::from(x) + step * by).collect()
        };
        let at =
            |step: f64| loss(&moved(&hidden, &along[0], step), &moved(&weight, &along[1], step));
        let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
        let slope = dot(&wide(&found[0]), &along[0]) + dot(&wide(&found[1]), &along[1]);
        assert!(
            (slope - difference).abs() < 1e-4 * difference.abs().max(10.0),
            "{slope} {difference}"
        );
    }
}

#[test]
fn a_loss_without_entropy_or_weight_gradient_gives_the_same_hidden_gradient() {
    let cpu = Cpu::new(2);
    let (rows, dim, vocab) = (5, 4, 30);
    let shape = shape(rows, dim, vocab, 1.0);
    let chosen = chosen(rows, vocab);
    let (hidden, weight) = (super::values(rows * dim, 1), super::values(vocab * dim, 2));
    let mut factors = factors(&chosen, rows);
    factors[2].fill(0.0);
    let full = gradients(&cpu, [&hidden, &weight], &chosen, shape, &factors);
    let (hidden, weight) = (cpu.upload(&hidden), cpu.upload(&weight));
    let statistics = cpu.token_statistics(&hidden, &weight, &chosen, shape);
    let (a, b) = (cpu.upload(&factors[0]), cpu.upload(&factors[1]));
    let gradient = StatisticsGradient { chosen: &a, log_sum_exp: &b, entropy: None };
    let mut d_hidden = cpu.alloc(hidden.len());
    cpu.token_statistics_backward(
        &hidden,
        &weight,
        &chosen,
        shape,
        &statistics,
        gradient,
        &mut d_hidden,
        None,
    );
    assert_eq!(bits(d_hidden.host()), bits(&full[0]));
}

#[test]
fn kept_logits_change_no_bit() {
    let (rows, dim, vocab) = (700, 6, 4800);
    let (hidden, weight) = (super::values(rows * dim, 1), super::values(vocab * dim, 2));
    let chosen = chosen(rows, vocab);
    let factors = factors(&chosen, rows);
    let cpu = Cpu::new(2);
    let found = |kept_rows| {
        let shape = StatisticsShape { kept_rows, ..shape(rows, dim, vocab, 0.9) };
        gradients(&cpu, [&hidden, &weight], &chosen, shape, &factors)
            .map(|gradient| bits(&gradient))
    };
    let recomputed = found(0);
    for kept_rows in [255, 256, 600, 700, 1 << 27] {
        assert!(found(kept_rows) == recomputed, "{kept_rows} rows kept");
    }
}

#[test]
fn rows_do_not_know_each_other_and_threads_change_nothing() {
    let (rows, dim, vocab) = (270, 64, 4200);
    let (hidden, weight) = (super::values(rows * dim, 1), super::values(vocab * dim, 2));
    let compute = |cpu: &Cpu, first: usize, rows: usize| {
        let hidden = cpu.upload(&hidden[first * dim..][..rows * dim]);
        let chosen = ChosenTokens { offsets: (0..=rows).collect(), ids: vec![4199; rows] };
        let shape = shape(rows, dim, vocab, 0.9);
        let found = cpu.token_statistics(&hidden, &cpu.upload(&weight), &chosen, shape);
        [found.chosen, found.log_sum_exp, found.entropy].map(|buffer| bits(buffer.host()))
    };
    for cpus in [[Cpu::new(1), Cpu::new(2)], [Cpu::portable(1), Cpu::portable(3)]] {
        let all = compute(&cpus[0], 0, rows);
        assert!(all == compute(&cpus[1], 0, rows));
        for (first, rows) in [(0, 1), (269, 1), (100, 2), (50, 37), (3, 256)] {
            let some = compute(&cpus[1], first, rows);
            for n in 0..3 {
                assert_eq!(some[n], all[n][first..first + rows], "{rows} rows from {first}");
            }
        }
    }
    let (shape, chosen) = (shape(rows, dim, vocab, 0.9), chosen(rows, vocab));
    let factors = factors(&chosen, rows);
    let found = [1, 2].map(|threads| {
        gradients(&Cpu::new(threads), [&hidden, &weight], &chosen, shape, &factors)
            .map(|gradient| bits(&gradient))
    });
    assert!(found[0] == found[1]);
}
