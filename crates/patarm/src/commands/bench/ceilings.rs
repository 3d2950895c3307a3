//! What this device can do at best: a large matrix product and a large copy.

use std::time::Instant;

use patarm_models::kernels::{Backend, Buffer, LinearShape, Update};

/// Rows and both widths of the product.
const PRODUCT: LinearShape = LinearShape { tokens: 1_024, input: 1_024, output: 1_024 };
/// Elements copied: far more than any cache holds.
const COPY_ELEMENTS: usize = 128 << 20;
/// Runs; the best one counts.
const RUNS: usize = 5;

/// The best rates measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ceilings {
    /// Of a product `x · wᵀ`.
    pub(super) matrix_product_flop_per_s: f64,
    /// Bytes read and written while copying.
    pub(super) copy_bytes_per_s: f64,
}

impl Ceilings {
    /// Measures both; the product as well as it did at another time.
    pub(super) fn measure(backend: &dyn Backend, product_before: f64) -> Self {
        Self {
            matrix_product_flop_per_s: product(backend).max(product_before),
            copy_bytes_per_s: copy(backend),
        }
    }
}

/// Operations per second of a large product.
pub(super) fn product(backend: &dyn Backend) -> f64 {
    let LinearShape { tokens, input, output } = PRODUCT;
    let x = backend.upload(&vec![0.5; tokens * input]);
    let mut weight = backend.upload(&vec![0.25; output * input]);
    backend.prepare_weight(&mut weight, output, input);
    let mut out = backend.zeros(tokens * output);
    let seconds = best_of(backend, &mut out, |out| {
        backend.linear(&x, &weight, None, PRODUCT, 1.0, (out, Update::Set));
    });
    2.0 * (tokens * input * output) as f64 / seconds
}

fn copy(backend: &dyn Backend) -> f64 {
    let from = backend.zeros(COPY_ELEMENTS);
    let mut to = backend.zeros(COPY_ELEMENTS);
    let seconds = best_of(backend, &mut to, |to| backend.copy(&from, 0, to, 0, COPY_ELEMENTS));
    (2 * size_of::<f32>() * COPY_ELEMENTS) as f64 / seconds
}

/// Seconds of the fastest run. A device may queue work; asking for a number waits.
fn best_of(backend: &dyn Backend, out: &mut Buffer, run: impl Fn(&mut Buffer)) -> f64 {
    let (mut one, mut last) = (backend.zeros(1), [0.0]);
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let start = Instant::now();
        run(out);
        backend.copy(out, 0, &mut one, 0, 1);
        backend.download(&one, &mut last);
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}
