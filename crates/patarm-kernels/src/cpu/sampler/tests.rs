//! What each filter keeps, and that draws follow the distribution.

use super::*;
use crate::backend::{Backend, ChosenTokens};

const PLAIN: SamplingOptions = SamplingOptions {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    seed: 1,
    sequence: 0,
    position: 0,
};

fn isas() -> [Isa; 2] {
    [Isa::detect(), Isa::Portable]
}

/// Ids the filters keep, in order.
fn kept(probabilities: &[f32], options: SamplingOptions) -> Vec<usize> {
    let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
    let scale = 1.0 / options.temperature;
    let mut state = RowState::new();
    let isa = Isa::detect();
    isa.run(AddTile { logits: &logits, scale, state: &mut state });
    let row = Row { isa, logits: &logits, scale, state };
    row.filtered(&options).into_iter().map(|(id, _)| id).collect()
}

#[test]
fn filters_keep_exactly_what_they_say() {
    let p = [0.05, 0.4, 0.15, 0.3, 0.1];
    assert_eq!(kept(&p, PLAIN), [1, 3, 2, 4, 0]);
    assert_eq!(kept(&p, SamplingOptions { top_k: 2, ..PLAIN }), [1, 3]);
    assert_eq!(kept(&p, SamplingOptions { top_p: 0.65, ..PLAIN }), [1, 3]);
    assert_eq!(kept(&p, SamplingOptions { top_p: 0.75, ..PLAIN }), [1, 3, 2]);
    assert_eq!(kept(&p, SamplingOptions { top_p: 0.0, ..PLAIN }), [1]);
    assert_eq!(kept(&p, SamplingOptions { min_p: 0.3, ..PLAIN }), [1, 3, 2]);
    assert_eq!(kept(&p, SamplingOptions { min_p: 2.0, ..PLAIN }), [1]);
    // Within the two kept by top-k, the first has 0.4 / 0.7.
    assert_eq!(kept(&p, SamplingOptions { top_k: 2, top_p: 0.57, ..PLAIN }), [1]);
    assert_eq!(kept(&p, SamplingOptions { top_k: 2, top_p: 0.58, ..PLAIN }), [1, 3]);
    // At temperature 1/2 probabilities are squared: 0.16 : 0.09.
    assert_eq!(kept(&p, SamplingOptions { temperature: 0.5, min_p: 0.57, ..PLAIN }), [1]);
    assert_eq!(kept(&p, SamplingOptions { temperature: 0.5, min_p: 0.56, ..PLAIN }), [1, 3]);
}

#[test]
fn equal_tokens_are_kept_in_order_of_id() {
    assert_eq!(kept(&[0.25; 4], SamplingOptions { top_k: 3, ..PLAIN }), [0, 1, 2]);
    assert_eq!(kept(&[0.25; 4], SamplingOptions { top_p: 0.5, ..PLAIN }), [0, 1]);
}

#[test]
fn candidates_are_ordered_by_logit_then_id() {
    let logits = [0.5, -2.0, f32::NAN, 3.0, -0.25, 3.0, f32::NEG_INFINITY, 1e-30, -1e-30];
    let row = Row { isa: Isa::Portable, logits: &logits, scale: 1.0, state: RowState::new() };
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    ids.sort_by_key(|&id| row.sort_key(id));
    assert_eq!(ids, [3, 5, 0, 7, 8, 4, 1, 2, 6]);
}

#[test]
fn long_tails_are_searched_as_far_as_needed() {
    let flat = vec![1.0 / 5000.0; 5000];
    assert_eq!(kept(&flat, SamplingOptions { top_p: 0.5, ..PLAIN }).len(), 2500);
    assert_eq!(kept(&flat, SamplingOptions { min_p: 0.9, ..PLAIN }).len(), 5000);
    assert_eq!(kept(&flat, SamplingOptions { top_k: 777, ..PLAIN }).len(), 777);
    let mut peaked = vec![1e-6; 5000];
    peaked[4000] = 0.995;
    assert_eq!(kept(&peaked, SamplingOptions { top_p: 0.9, ..PLAIN }), [4000]);
}

/// Counts of `n` draws at positions `0..n`.
fn counts(isa: Isa, logits: &[f32], options: SamplingOptions, n: u64) -> Vec<f64> {
    let mut counts = vec![0.0; logits.len()];
    for position in 0..n {
        let drawn = draw(isa, logits, &SamplingOptions { position, ..options });
        counts[drawn.id as usize] += 1.0;
    }
    counts
}

/// Pearson's statistic of counts against probabilities; tokens of probability zero
/// must not occur.
fn chi_square(counts: &[f64], probabilities: &[f64]) -> f64 {
    let n: f64 = counts.iter().sum();
    counts
        .iter()
        .zip(probabilities)
        .map(|(&count, &p)| {
            if p == 0.0 {
                assert_eq!(count, 0.0);
                return 0.0;
            }
            (count - n * p).powi(2) / (n * p)
        })
        .sum()
}

#[test]
fn draws_follow_the_distribution() {
    let p = [0.05, 0.4, 0.15, 0.3, 0.1];
    let logits = p.map(|p: f64| p.ln() as f32 + 3.0);
    let squared: f64 = p.iter().map(|p| p * p).sum();
    for isa in isas() {
        // 4 degrees of freedom: 18.5 is the 0.1 % point; the draws are fixed.
        let plain = counts(isa, &logits, PLAIN, 20_000);
        assert!(chi_square(&plain, &p) < 18.5);
        let sharp = counts(isa, &logits, SamplingOptions { temperature: 0.5, ..PLAIN }, 20_000);
        assert!(chi_square(&sharp, &p.map(|p| p * p / squared)) < 18.5);
        let top = counts(isa, &logits, SamplingOptions { top_k: 3, ..PLAIN }, 20_000);
        let kept = [0.0, 0.4, 0.15, 0.3, 0.0].map(|p| p / 0.85);
        assert!(chi_square(&top, &kept) < 18.5);
    }
}

#[test]
fn draws_from_a_large_vocabulary_reach_every_stretch() {
    let logits: Vec<f32> = (0..10_000).map(|n| if n % 1000 == 7 { 0.0 } else { -200.0 }).collect();
    for isa in isas() {
        let found = counts(isa, &logits, PLAIN, 5_000);
        let expected: Vec<f64> =
            (0..10_000).map(|n| if n % 1000 == 7 { 0.1 } else { 0.0 }).collect();
        // 9 degrees of freedom: 27.9 is the 0.1 % point.
        assert!(chi_square(&found, &expected) < 27.9);
    }
}

#[test]
fn greedy_takes_the_first_of_the_largest_and_reports_the_plain_probability() {
    let logits = [1.0, 3.0, 3.0, f32::NAN, -1.0];
    let options = SamplingOptions { temperature: 0.0, top_k: 1, ..PLAIN };
    assert_eq!(draw(Isa::detect(), &logits, &options).id, 1);
    let logits = [1.0f32, 3.0, 2.0];
    let lse = logits.iter().map(|z| z.exp()).sum::<f32>().ln();
    let drawn = draw(Isa::detect(), &logits, &options);
    assert!((drawn.logprob - (3.0 - lse)).abs() < 1e-6);
}

#[test]
fn a_filtered_draw_reports_the_probability_before_filters() {
    let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
    let options = SamplingOptions { top_k: 1, temperature: 0.5, ..PLAIN };
    let drawn = draw(Isa::detect(), &logits, &options);
    assert_eq!(drawn.id, 0);
    assert!((drawn.logprob - (0.25f32 / 0.38).ln()).abs() < 1e-6);
}

#[test]
fn useless_logits_still_give_a_token() {
    for logits in [[f32::NAN; 3], [f32::NEG_INFINITY; 3], [f32::INFINITY; 3]] {
        for options in [PLAIN, SamplingOptions { top_p: 0.5, ..PLAIN }] {
            assert!(draw(Isa::detect(), &logits, &options).id < 3);
        }
    }
    let sharp = SamplingOptions { temperature: 1e-38, ..PLAIN };
    assert_eq!(draw(Isa::detect(), &[10.0, 100.0, 20.0], &sharp).id, 1);
}

#[test]
fn a_draw_depends_on_its_coordinates_alone_and_agrees_with_scoring() {
    let (rows, dim, vocab) = (70, 48, 4500);
    let values = |len: usize, seed: u64| -> Vec<f32> {
        (0..len).map(|n| random::normal(seed, &[n as u64]) as f32).collect()
    };
    let (hidden, weight) = (values(rows * dim, 1), values(vocab * dim, 2));
    let temperature = 0.7;
    let options: Vec<_> = (0..rows as u64)
        .map(|n| SamplingOptions { sequence: n / 3, position: n % 3, temperature, ..PLAIN })
        .collect();
    let compute = |cpu: &Cpu, first: usize, rows: usize| {
        let hidden = cpu.upload(&hidden[first * dim..][..rows * dim]);
        let shape = StatisticsShape { rows, dim, vocab, temperature: 1.0, kept_rows: 0 };
        let (mut ids, mut logprobs) = (cpu.alloc(rows), cpu.alloc(rows));
        let options = &options[first..][..rows];
        cpu.sample(&hidden, &cpu.upload(&weight), shape, options, &mut ids, &mut logprobs);
        [ids, logprobs].map(|buffer| buffer.host().to_vec())
    };
    for (cpu, other) in [(Cpu::new(1), Cpu::new(2)), (Cpu::portable(1), Cpu::portable(2))] {
        let [ids, logprobs] = compute(&cpu, 0, rows);
        assert_eq!(compute(&other, 0, rows), [ids.clone(), logprobs.clone()]);
        for (first, rows) in [(0, 1), (69, 1), (20, 13)] {
            let some = compute(&other, first, rows);
            let expected = [&ids[first..][..rows], &logprobs[first..][..rows]].map(<[f32]>::to_vec);
            assert_eq!(some, expected);
        }
        // Scoring the drawn tokens gives the same log-probabilities to the bit.
        let chosen = ChosenTokens {
            offsets: (0..=rows).collect(),
            ids: ids.iter().map(|&id| id as u32).collect(),
        };
        let shape = StatisticsShape { rows, dim, vocab, temperature, kept_rows: 0 };
        let (hidden, weight) = (cpu.upload(&hidden), cpu.upload(&weight));
        let scored = cpu.token_statistics(&hidden, &weight, &chosen, shape);
        let lse = scored.log_sum_exp.host();
        for (n, &logprob) in logprobs.iter().enumerate() {
            assert_eq!(scored.chosen.host()[n] - lse[n], logprob);
        }
    }
}
