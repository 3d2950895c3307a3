//! The gated unit `silu(gate) · up` (Shazeer, arXiv 2002.05202).

use super::Cpu;
use super::math::sigmoid;
use super::simd::{Kernel, LANES, Simd};
use super::threads::ELEMENTS;

pub(crate) fn forward(cpu: &Cpu, gate: &[f32], up: &[f32], out: &mut [f32]) {
    cpu.threads.each_chunk(out, ELEMENTS, |n, out| {
        let part = n * ELEMENTS..n * ELEMENTS + out.len();
        cpu.isa.run(Forward { gate: &gate[part.clone()], up: &up[part], out });
    });
}

struct Forward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let operands = self.gate.chunks(LANES).zip(self.up.chunks(LANES));
        for ((gate, up), out) in operands.zip(self.out.chunks_mut(LANES)) {
            let gate = simd.load_part(gate, 0.0);
            let silu = simd.mul(gate, sigmoid(simd, gate));
            simd.store_part(simd.mul(silu, simd.load_part(up, 0.0)), out);
        }
    }
}

/// With `s = sigmoid(gate)`: `d_up = d_out gate s`,
/// `d_gate = d_out up s (1 + gate (1 - s))`.
pub(crate) fn backward(
    cpu: &Cpu,
    [gate, up, d_out]: [&[f32]; 3],
    d_gate: &mut [f32],
    d_up: &mut [f32],
) {
    cpu.threads.each_chunk_of_two((d_gate, ELEMENTS), (d_up, ELEMENTS), |n, d_gate, d_up| {
        let part = n * ELEMENTS..n * ELEMENTS + d_gate.len();
        let inputs = [&gate[part.clone()], &up[part.clone()], &d_out[part]];
        cpu.isa.run(Backward { inputs, d_gate, d_up });
    });
}

struct Backward<'a> {
    inputs: [&'a [f32]; 3],
    d_gate: &'a mut [f32],
    d_up: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let [gate, up, d_out] = self.inputs.map(|x| x.chunks(LANES));
        let outputs = self.d_gate.chunks_mut(LANES).zip(self.d_up.chunks_mut(LANES));
        let one = simd.splat(1.0);
        for (((gate, up), d_out), (d_gate, d_up)) in gate.zip(up).zip(d_out).zip(outputs) {
            let gate = simd.load_part(gate, 0.0);
            let d_out = simd.load_part(d_out, 0.0);
            let logistic = sigmoid(simd, gate);
            let slope = simd.mul_add(gate, simd.sub(one, logistic), one);
            let d_silu = simd.mul(d_out, simd.load_part(up, 0.0));
            simd.store_part(simd.mul(simd.mul(d_silu, logistic), slope), d_gate);
            simd.store_part(simd.mul(simd.mul(d_out, gate), logistic), d_up);
        }
    }
}
