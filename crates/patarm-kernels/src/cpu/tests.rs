//! Every operation against a plain implementation in f64, every backward against
//! finite differences, and the promises about bits.

mod attention;
mod bf16;
mod linear;
mod quantised;
mod simple;
mod statistics;

use super::*;
use crate::random;

/// Every way of computing that has to give the same answer up to rounding.
fn backends() -> [Cpu; 3] {
    [Cpu::new(1), Cpu::new(3), Cpu::portable(2)]
}

/// Standard normal values, a function of the seed alone.
fn values(len: usize, seed: u64) -> Vec<f32> {
    (0..len).map(|n| random::normal(seed, &[n as u64]) as f32).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The largest error may be `tolerance` times the largest expected value (or 1).
#[track_caller]
fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    let size = expected.iter().fold(1.0, |size: f64, x| size.max(x.abs()));
    for (n, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(actual) - expected).abs();
        assert!(error <= tolerance * size, "element {n}: {actual} instead of {expected}");
    }
}

/// Central differences of a function of several arrays with respect to one of them.
fn differences(
    arrays: &[Vec<f64>],
    which: usize,
    function: impl Fn(&[Vec<f64>]) -> f64,
) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut arrays = arrays.to_vec();
    (0..arrays[which].len())
        .map(|n| {
            let x = arrays[which][n];
            arrays[which][n] = x + STEP;
            let above = function(&arrays);
            arrays[which][n] = x - STEP;
            let below = function(&arrays);
            arrays[which][n] = x;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn a_backend_says_what_it_runs_on() {
    assert!(Cpu::new(1).name().starts_with("cpu-"));
    assert_eq!(Cpu::portable(1).name(), "cpu-portable");
    let bf16 = CpuOptions {
        instructions: Instructions::Portable,
        precision: Precision::Bf16,
        ..CpuOptions::default()
    };
    let name = Cpu::with_options(&bf16).map(|cpu| (cpu.name(), cpu.precision()));
    assert_eq!(name, Some(("cpu-portable-bf16".to_owned(), Precision::Bf16)));
}
