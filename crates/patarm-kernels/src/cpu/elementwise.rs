//! Operations on flat arrays.

use super::Cpu;
use super::simd::{Kernel, LANES, Simd};
use super::threads::ELEMENTS;

pub(crate) fn fill(cpu: &Cpu, data: &mut [f32], value: f32) {
    cpu.threads.each_chunk(data, ELEMENTS, |_, data| data.fill(value));
}

pub(crate) fn copy(cpu: &Cpu, from: &[f32], to: &mut [f32]) {
    cpu.threads.each_chunk(to, ELEMENTS, |n, to| {
        to.copy_from_slice(&from[n * ELEMENTS..][..to.len()]);
    });
}

/// `y += scale · x`.
pub(crate) fn axpy(cpu: &Cpu, scale: f32, x: &[f32], y: &mut [f32]) {
    cpu.threads.each_chunk(y, ELEMENTS, |n, y| {
        let x = &x[n * ELEMENTS..][..y.len()];
        cpu.isa.run(Axpy { scale, x, y });
    });
}

struct Axpy<'a> {
    scale: f32,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Axpy<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let scale = simd.splat(self.scale);
        for (x, y) in self.x.chunks(LANES).zip(self.y.chunks_mut(LANES)) {
            let sum = simd.mul_add(scale, simd.load_part(x, 0.0), simd.load_part(y, 0.0));
            simd.store_part(sum, y);
        }
    }
}

/// Elements of one piece of a sum: another number would give other bits.
const SQUARES: usize = 16 * 1024;

/// `Σ x²` in f64: pieces of fixed length, summed in order.
pub(crate) fn sum_of_squares(cpu: &Cpu, x: &[f32]) -> f64 {
    let mut pieces = vec![0.0; x.len().div_ceil(SQUARES)];
    cpu.threads.each_chunk(&mut pieces, 1, |n, sum| {
        let piece = &x[n * SQUARES..x.len().min((n + 1) * SQUARES)];
        sum[0] = cpu.isa.run(SumOfSquares { x: piece });
    });
    pieces.iter().sum()
}

struct SumOfSquares<'a> {
    x: &'a [f32],
}

impl Kernel for SumOfSquares<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        // Squares of f32 are exact in f64, so plain and fused sums agree.
        let mut lanes = [0.0f64; 8];
        let (whole, rest) = self.x.as_chunks::<8>();
        for x in whole {
            for n in 0..8 {
                lanes[n] += f64::from(x[n]) * f64::from(x[n]);
            }
        }
        let rest: f64 = rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        lanes.iter().sum::<f64>() + rest
    }
}
