//! Products with a weight that stays quantised.
//!
//! A weight's value is `scale · (q − centre)` or `scale · q + offset`, with an integer
//! `q` of four or eight bits and a scale (and offset) for every block of 16 or 32
//! neighbours. An activation is rounded at each call, by row and by the same blocks,
//! to `step · i` with a signed byte `i` (the step is the block's largest magnitude
//! over 127). An element of the product is then
//!
//! `Σ_blocks scale · step · (Σ q i − centre Σ i)`, plus `offset · step · Σ i`,
//!
//! whose inner sums are exact integers. Blocks are added in order, one fused
//! multiply-add each (two where there are offsets), on every path and for any number
//! of rows: results are equal to the bit in any batch, on any number of threads, and
//! with any instructions.
//!
//! The weight is packed once, when it is made. Sixteen outputs share a strip; a line
//! of memory holds four inner values of each of them, or eight in four bits.

mod activations;
mod product;
mod tile;
mod values;

use std::ops::Range;

use super::Cpu;
use super::simd::LANES;
use super::simd::dots::{ByteLine, exact_half};
use crate::quantised::{Offsets, QuantisedMatrix};
pub(crate) use product::{IntoInput, Product};

/// Inner values whose integers lie in one lane of a line.
const QUAD: usize = 4;

/// A quantised weight `[rows, columns]` as products read it.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    form: Form,
    /// `[strip][block][line]`.
    integers: Vec<ByteLine>,
    /// `[strip][block]`.
    scales: Numbers,
    from: CountFrom,
}

/// How the integers of a block are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// 32 values of four bits: quads `n` and `n + 4` share line `n`.
    Nibbles,
    /// 32 bytes.
    Bytes32,
    /// 16 bytes.
    Bytes16,
}

impl Form {
    fn of(matrix: &QuantisedMatrix<'_>) -> Self {
        match matrix.block {
            16 => Self::Bytes16,
            _ if matrix.integers.iter().all(|&q| q < 16) => Self::Nibbles,
            _ => Self::Bytes32,
        }
    }

    /// Values of a block.
    fn block(self) -> usize {
        match self {
            Self::Nibbles | Self::Bytes32 => 32,
            Self::Bytes16 => 16,
        }
    }

    /// Lines of a block of a strip.
    fn lines(self) -> usize {
        match self {
            Self::Nibbles | Self::Bytes16 => 4,
            Self::Bytes32 => 8,
        }
    }
}

/// What the integers count from.
#[derive(Debug)]
enum CountFrom {
    Centre(i32),
    /// `[strip][block]`.
    Each(Numbers),
}

/// Sixteen numbers for every block of a strip, in half precision where that holds
/// every one of them exactly.
#[derive(Debug)]
enum Numbers {
    Half(Vec<Halves>),
    Single(Vec<Singles>),
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
struct Halves([u16; LANES]);

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Singles([f32; LANES]);

impl Numbers {
    /// From the numbers of `[rows, blocks]`.
    fn pack(numbers: &[f32], blocks: usize) -> Self {
        let at = |strip: usize, block: usize, lane: usize| {
            // Lanes beyond the last row are never written to a result.
            numbers.get((strip * LANES + lane) * blocks + block).copied().unwrap_or(0.0)
        };
        let places = || {
            let strips = (numbers.len() / blocks).div_ceil(LANES);
            (0..strips).flat_map(move |strip| (0..blocks).map(move |block| (strip, block)))
        };
        let half = |(strip, block)| {
            let mut halves = [0; LANES];
            for (lane, half) in halves.iter_mut().enumerate() {
                *half = exact_half(at(strip, block, lane))?;
            }
            Some(Halves(halves))
        };
        let single = |(strip, block)| Singles(std::array::from_fn(|lane| at(strip, block, lane)));
        match places().map(half).collect() {
            Some(halves) => Self::Half(halves),
            None => Self::Single(places().map(single).collect()),
        }
    }

    fn num_bytes(&self) -> usize {
        match self {
            Self::Half(halves) => size_of_val(halves.as_slice()),
            Self::Single(singles) => size_of_val(singles.as_slice()),
        }
    }
}

impl Packed {
    /// # Panics
    /// When the parts of the matrix do not fit together.
    pub(crate) fn new(matrix: &QuantisedMatrix<'_>) -> Self {
        matrix.check();
        let QuantisedMatrix { rows, columns, .. } = *matrix;
        let form = Form::of(matrix);
        let blocks = columns / form.block();
        let from = match matrix.offsets {
            Offsets::Centre(centre) => CountFrom::Centre(i32::from(centre)),
            Offsets::Each(offsets) => CountFrom::Each(Numbers::pack(offsets, blocks)),
        };
        let scales = Numbers::pack(matrix.scales, blocks);
        let integers = pack_integers(matrix, form);
        Self { rows, columns, form, integers, scales, from }
    }

    /// Bytes of memory.
    pub(crate) fn num_bytes(&self) -> usize {
        let offsets = match &self.from {
            CountFrom::Centre(_) => 0,
            CountFrom::Each(offsets) => offsets.num_bytes(),
        };
        size_of_val(self.integers.as_slice()) + self.scales.num_bytes() + offsets
    }

    /// Blocks of a row.
    fn blocks(&self) -> usize {
        self.columns / self.form.block()
    }

    /// The lines of a block of a strip.
    #[inline(always)]
    fn lines(&self, strip: usize, block: usize) -> &[ByteLine] {
        let lines = self.form.lines();
        &self.integers[(strip * self.blocks() + block) * lines..][..lines]
    }

    /// Writes the values of some rows, one after another: those of the file, bit for
    /// bit.
    ///
    /// # Shapes
    /// `out`: `[rows, columns]`.
    pub(crate) fn dequantise(&self, cpu: &Cpu, rows: Range<usize>, out: &mut [f32]) {
        values::dequantise(self, cpu, rows, out);
    }

    /// `out[n] = row ids[n]`.
    pub(crate) fn gather(&self, cpu: &Cpu, ids: &[u32], out: &mut [f32]) {
        cpu.threads.each_chunk(out, LANES * self.columns, |n, out| {
            for (out, &id) in out.chunks_exact_mut(self.columns).zip(&ids[n * LANES..]) {
                values::Row { packed: self, row: id as usize }.write(cpu, out);
            }
        });
    }
}

fn pack_integers(matrix: &QuantisedMatrix<'_>, form: Form) -> Vec<ByteLine> {
    let QuantisedMatrix { rows, columns, integers, .. } = *matrix;
    let (block, lines) = (form.block(), form.lines());
    let blocks = columns / block;
    let mut packed = vec![ByteLine([0; QUAD * LANES]); rows.div_ceil(LANES) * blocks * lines];
    for (row, integers) in integers.chunks_exact(columns).enumerate() {
        let (strip, lane) = (row / LANES, row % LANES);
        for (n, block) in integers.chunks_exact(block).enumerate() {
            let to = &mut packed[(strip * blocks + n) * lines..][..lines];
            for (quad, integers) in block.chunks_exact(QUAD).enumerate() {
                // The second half of a block in nibbles lies above the first.
                let shift = 4 * (quad / lines);
                let line = &mut to[quad % lines].0[QUAD * lane..][..QUAD];
                line.iter_mut().zip(integers).for_each(|(to, q)| *to |= q << shift);
            }
        }
    }
    packed
}
