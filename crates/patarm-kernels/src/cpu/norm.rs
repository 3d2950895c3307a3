//! Root-mean-square normalisation (Zhang & Sennrich, arXiv 1910.07467).

use super::Cpu;
use super::rope::Rotations;
use super::rows::add_partial_sums;
use super::simd::{Kernel, LANES, Simd};
use crate::backend::{NormShape, RopeTurn, Update};

/// Rows of one piece of work; also fixes how the weight's gradient is summed.
const ROWS: usize = 64;

/// `out = x · inv_rms · weight`, rotated where rows are heads that are.
pub(crate) fn forward(
    cpu: &Cpu,
    (x, weight): (&[f32], &[f32]),
    shape: NormShape,
    rotations: Option<&Rotations<'_>>,
    (out, inv_rms): (&mut [f32], &mut [f32]),
) {
    let dim = shape.dim;
    cpu.threads.each_chunk_of_two((out, ROWS * dim), (inv_rms, ROWS), |n, out, inv_rms| {
        let x = &x[n * ROWS * dim..][..out.len()];
        cpu.isa.run(Forward { x, weight, eps: shape.eps, out: &mut *out, inv_rms });
        if let Some(rotations) = rotations {
            rotations.rotate_rows(n * ROWS, out, RopeTurn::Forward);
        }
    });
}

struct Forward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
    inv_rms: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let dim = self.weight.len();
        let rows = self.x.chunks_exact(dim).zip(self.out.chunks_exact_mut(dim));
        for ((x, out), inv_rms) in rows.zip(self.inv_rms) {
            let mut squares = simd.splat(0.0);
            for x in x.chunks(LANES) {
                let x = simd.load_part(x, 0.0);
                squares = simd.mul_add(x, x, squares);
            }
            *inv_rms = 1.0 / (simd.sum(squares) / dim as f32 + self.eps).sqrt();
            let scale = simd.splat(*inv_rms);
            let parts = x.chunks(LANES).zip(self.weight.chunks(LANES));
            for ((x, weight), out) in parts.zip(out.chunks_mut(LANES)) {
                let scaled = simd.mul(simd.load_part(x, 0.0), scale);
                simd.store_part(simd.mul(scaled, simd.load_part(weight, 0.0)), out);
            }
        }
    }
}

/// Operands of the backward pass.
#[derive(Clone, Copy)]
pub(crate) struct Backward<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) inv_rms: &'a [f32],
    pub(crate) d_out: &'a [f32],
    /// What rotated the output.
    pub(crate) rotations: Option<&'a Rotations<'a>>,
}

impl Backward<'_> {
    /// With `r = inv_rms` and `g = weight · d_out`:
    /// `d_x = r g - x r³ mean(x g)`, `d_weight = Σ_rows d_out x r`.
    pub(crate) fn compute(
        self,
        cpu: &Cpu,
        d_x: &mut [f32],
        update: Update,
        d_weight: Option<&mut [f32]>,
    ) {
        let dim = self.weight.len();
        let pieces = d_x.len().div_ceil(ROWS * dim);
        let partial_len = if d_weight.is_some() { pieces * dim } else { 0 };
        let mut partial = cpu.memory.take(partial_len);
        cpu.threads.each_chunk_of_two(
            (d_x, ROWS * dim),
            (partial.host_mut(), dim),
            |n, d_x, d_weight| {
                d_weight.fill(0.0);
                let part = self.rows_from(n * ROWS, d_x.len() / dim);
                let back = self.rotations.map(|rotations| {
                    let mut rows = part.d_out.to_vec();
                    rotations.rotate_rows(n * ROWS, &mut rows, RopeTurn::Backward);
                    rows
                });
                let rows = Backward { d_out: back.as_deref().unwrap_or(part.d_out), ..part };
                cpu.isa.run(BackwardRows { rows, update, d_x, d_weight });
            },
        );
        if let Some(d_weight) = d_weight {
            add_partial_sums(partial.host(), dim, d_weight);
        }
    }

    fn rows_from(self, row: usize, rows: usize) -> Self {
        let dim = self.weight.len();
        Self {
            x: &self.x[row * dim..][..rows * dim],
            inv_rms: &self.inv_rms[row..][..rows],
            d_out: &self.d_out[row * dim..][..rows * dim],
            ..self
        }
    }
}

struct BackwardRows<'a> {
    rows: Backward<'a>,
    update: Update,
    d_x: &'a mut [f32],
    /// Empty where it is not wanted.
    d_weight: &'a mut [f32],
}

impl Kernel for BackwardRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Backward { x, weight, inv_rms, d_out, .. } = self.rows;
        let dim = weight.len();
        let operands = x.chunks_exact(dim).zip(d_out.chunks_exact(dim)).zip(inv_rms);
        for (((x, d_out), &inv_rms), d_x) in operands.zip(self.d_x.chunks_exact_mut(dim)) {
            input_row(simd, [x, weight, d_out], inv_rms, d_x, self.update);
            weight_row(simd, [x, d_out], inv_rms, self.d_weight);
        }
    }
}

#[inline(always)]
fn input_row<S: Simd>(
    simd: S,
    [x, weight, d_out]: [&[f32]; 3],
    inv_rms: f32,
    d_x: &mut [f32],
    update: Update,
) {
    let mut dot = simd.splat(0.0);
    let operands = x.chunks(LANES).zip(weight.chunks(LANES)).zip(d_out.chunks(LANES));
    for ((x, weight), d_out) in operands.clone() {
        let gradient = simd.mul(simd.load_part(weight, 0.0), simd.load_part(d_out, 0.0));
        dot = simd.mul_add(simd.load_part(x, 0.0), gradient, dot);
    }
    let mean = simd.sum(dot) / x.len() as f32;
    let back = simd.splat(-mean * inv_rms * inv_rms * inv_rms);
    let scale = simd.splat(inv_rms);
    for (((x, weight), d_out), d_x) in operands.zip(d_x.chunks_mut(LANES)) {
        let gradient = simd.mul(simd.load_part(weight, 0.0), simd.load_part(d_out, 0.0));
        let start = match update {
            Update::Set => simd.splat(0.0),
            Update::Add => simd.load_part(d_x, 0.0),
        };
        let along = simd.mul_add(simd.load_part(x, 0.0), back, start);
        simd.store_part(simd.mul_add(gradient, scale, along), d_x);
    }
}

#[inline(always)]
fn weight_row<S: Simd>(simd: S, [x, d_out]: [&[f32]; 2], inv_rms: f32, d_weight: &mut [f32]) {
    let scale = simd.splat(inv_rms);
    let operands = x.chunks(LANES).zip(d_out.chunks(LANES));
    for ((x, d_out), d_weight) in operands.zip(d_weight.chunks_mut(LANES)) {
        let scaled = simd.mul(simd.load_part(x, 0.0), scale);
        let sum = simd.mul_add(simd.load_part(d_out, 0.0), scaled, simd.load_part(d_weight, 0.0));
        simd.store_part(sum, d_weight);
    }
}
