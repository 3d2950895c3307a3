//! Rounding activations to bytes, block by block.

use super::{CountFrom, Form, Packed, QUAD};
use crate::buffer::Buffer;
use crate::cpu::Cpu;
use crate::cpu::simd::{Kernel, Simd};

/// Rows that lie together.
pub(super) const TILE: usize = 8;
/// Numbers beside the quads of a block: the step, where the integer sum starts
/// (`−centre · Σ i`, as the bits of an integer) and `step · Σ i`.
pub(super) const EXTRAS: usize = 3;
/// Place of each behind the quads.
pub(super) const STEP: usize = 0;
pub(super) const START: usize = 1;
pub(super) const SHIFT: usize = 2;

/// Magnitudes below this count as zero: their inverse may not be finite.
const TINY: f32 = 1e-36;
/// `1.5 · 2²³`: a small number added to it is rounded to an integer, ties to even,
/// which the lowest bits then hold.
const ROUNDING: f32 = 12_582_912.0;

impl Form {
    /// Numbers of one block of one row: quads, as the bits of four signed bytes each,
    /// and [`EXTRAS`].
    pub(super) fn record(self) -> usize {
        self.block() / QUAD + EXTRAS
    }
}

/// Rows rounded for a weight: `[tile][block][TILE][record]`. Rows beyond the last are
/// unspecified, and never written to a result.
pub(super) fn round(cpu: &Cpu, x: &[f32], tokens: usize, weight: &Packed) -> Buffer {
    let (form, columns) = (weight.form, weight.columns);
    let tile = weight.blocks() * TILE * form.record();
    let centre = match weight.from {
        CountFrom::Centre(centre) => centre,
        CountFrom::Each(_) => 0,
    };
    let mut rounded = cpu.memory.take(tokens.div_ceil(TILE) * tile);
    cpu.threads.each_chunk(rounded.host_mut(), tile, |n, tile| {
        let first = n * TILE;
        let rows = TILE.min(tokens - first);
        let x = &x[first * columns..][..rows * columns];
        match form.block() {
            16 => cpu.isa.run(RoundTile::<16, { 16 / QUAD + EXTRAS }> { x, rows, centre, tile }),
            _ => cpu.isa.run(RoundTile::<32, { 32 / QUAD + EXTRAS }> { x, rows, centre, tile }),
        }
    });
    rounded
}

struct RoundTile<'a, const BLOCK: usize, const RECORD: usize> {
    x: &'a [f32],
    rows: usize,
    centre: i32,
    tile: &'a mut [f32],
}

impl<const BLOCK: usize, const RECORD: usize> Kernel for RoundTile<'_, BLOCK, RECORD> {
    type Output = ();

    /// Plain arithmetic, which the compiler turns into the instructions at hand; it
    /// fuses nothing by itself, so that every path rounds alike.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let columns = self.x.len() / self.rows;
        let records = self.tile.as_chunks_mut::<RECORD>().0;
        for (r, row) in self.x.chunks_exact(columns).enumerate() {
            for (n, block) in row.as_chunks::<BLOCK>().0.iter().enumerate() {
                round_block(block, self.centre, &mut records[n * TILE + r]);
            }
        }
    }
}

#[inline(always)]
fn round_block<const BLOCK: usize, const RECORD: usize>(
    block: &[f32; BLOCK],
    centre: i32,
    record: &mut [f32; RECORD],
) {
    // As integers, magnitudes keep their order, and NaN is above all.
    let magnitude = |x: &f32| x.to_bits() & 0x7fff_ffff;
    let largest = f32::from_bits(block.iter().map(magnitude).fold(0, u32::max));
    let (step, inverse) = match largest {
        // A row that is not finite has no product.
        _ if !largest.is_finite() => (f32::NAN, 0.0),
        _ if largest < TINY => (0.0, 0.0),
        _ => (largest / 127.0, 127.0 / largest),
    };
    let mut bytes = [0; BLOCK];
    for (byte, x) in bytes.iter_mut().zip(block) {
        *byte = (x * inverse + ROUNDING).to_bits() as u8;
    }
    let sum: i32 = bytes.iter().map(|&byte| i32::from(byte.cast_signed())).sum();
    let quads = BLOCK / QUAD;
    for (quad, &bytes) in record.iter_mut().zip(bytes.as_chunks::<QUAD>().0) {
        *quad = f32::from_bits(u32::from_le_bytes(bytes));
    }
    record[quads + STEP] = step;
    record[quads + START] = f32::from_bits((-centre * sum).cast_unsigned());
    record[quads + SHIFT] = step * sum as f32;
}
