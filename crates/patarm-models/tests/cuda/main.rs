//! CPU = CUDA, for every operation and for whole steps. One binary that can be carried
//! to a machine with a GPU; see `testdata/gpu_checks.sh`.
//!
//! `PATARM_TEST_CUDA=1` runs it on the first GPU (libraries also from the folders of
//! `PATARM_TEST_CUDA_LIBRARIES`), `PATARM_TEST_CXX=c++` on an emulator that compiles
//! the kernels as C++ with that compiler: it checks their logic, not the hardware.
//! Without either, every test skips itself. `PATARM_TEST_SEED` draws other inputs.

#![allow(clippy::print_stderr, reason = "a test that skips itself says so")]

mod attention;
mod operations;
mod steps;

use std::path::Path;

use patarm_models::kernels::cuda::Emulator;
use patarm_models::kernels::{
    Backend, Buffer, Cpu, CpuOptions, Cuda, CudaOptions, Precision, random,
};

/// Memory of the emulator.
const EMULATED_BYTES: usize = 256 << 20;

/// The devices asked for: the first GPU, the emulator with threads in either order.
fn devices(precision: Precision) -> Vec<Cuda> {
    let mut found = Vec::new();
    if std::env::var_os("PATARM_TEST_CUDA").is_some() {
        let libraries = std::env::var_os("PATARM_TEST_CUDA_LIBRARIES").unwrap_or_default();
        let options = CudaOptions {
            precision,
            library_folders: std::env::split_paths(&libraries).collect(),
            ..CudaOptions::default()
        };
        found.push(Cuda::open(&options).expect("a GPU"));
    }
    if let Some(compiler) = std::env::var_os("PATARM_TEST_CXX") {
        for backwards in [false, true] {
            let (compiler, folder) = (Path::new(&compiler), Path::new(env!("CARGO_TARGET_TMPDIR")));
            let emulator = Emulator::new(compiler, folder, EMULATED_BYTES, backwards);
            found.push(Cuda::emulated(emulator, precision));
        }
    }
    if found.is_empty() {
        eprintln!("skipped: neither PATARM_TEST_CUDA nor PATARM_TEST_CXX is set");
    }
    found
}

/// The emulator again, where every recording of a decoding step fails.
fn unrecorded() -> Option<Cuda> {
    let compiler = std::env::var_os("PATARM_TEST_CXX")?;
    let (compiler, folder) = (Path::new(&compiler), Path::new(env!("CARGO_TARGET_TMPDIR")));
    let emulator = Emulator::new(compiler, folder, EMULATED_BYTES, false);
    Some(Cuda::emulated(emulator.without_recordings(), Precision::F32))
}

fn cpu(precision: Precision) -> Cpu {
    let options = CpuOptions { threads: 1, precision, ..CpuOptions::default() };
    Cpu::with_options(&options).expect("detected instructions are present")
}

/// Seed of every input.
fn seed() -> u64 {
    std::env::var("PATARM_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// Standard normal values of one stream.
fn values(len: usize, stream: u64) -> Vec<f32> {
    (0..len).map(|n| random::normal(seed(), &[stream, n as u64]) as f32).collect()
}

/// A number in `0..n` of one stream.
fn below(n: usize, stream: u64, index: usize) -> usize {
    random::below(n, seed(), &[stream, index as u64])
}

/// An output that has to be overwritten.
fn poisoned(backend: &dyn Backend, len: usize) -> Buffer {
    backend.upload(&vec![f32::NAN; len])
}

fn download(backend: &dyn Backend, buffer: &Buffer) -> Vec<f32> {
    let mut values = vec![0.0; buffer.len()];
    backend.download(buffer, &mut values);
    values
}

/// Runs the same on the CPU and on every device; every result may differ by
/// `tolerance` times its largest value (or 1).
fn parity(
    precision: Precision,
    tolerance: f32,
    run: impl Fn(&dyn Backend) -> Vec<(&'static str, Vec<f32>)>,
) {
    let devices = devices(precision);
    if devices.is_empty() {
        return;
    }
    let expected = run(&cpu(precision));
    for cuda in devices {
        let found = run(&cuda);
        assert_eq!(found.len(), expected.len());
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            close(&format!("{} {name}", cuda.name()), found, expected, tolerance);
        }
    }
}

#[track_caller]
fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected
        .iter()
        .fold(1.0f32, |size, x| if x.is_finite() { size.max(x.abs()) } else { size });
    for (n, (found, expected)) in found.iter().zip(expected).enumerate() {
        let same = found == expected || (found.is_nan() && expected.is_nan());
        assert!(
            same || (found - expected).abs() <= tolerance * size,
            "{what}, element {n}: {found} instead of {expected}"
        );
    }
}
