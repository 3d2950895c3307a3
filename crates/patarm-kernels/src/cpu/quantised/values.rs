//! The values of a quantised weight, row by row.

use std::ops::Range;

use super::{CountFrom, Form, Numbers, Packed, QUAD};
use crate::cpu::Cpu;
use crate::cpu::simd::dots::widen_half;
use crate::cpu::simd::{Kernel, LANES, Simd};

/// Rows of one piece of work.
const PIECE: usize = LANES;

pub(super) fn dequantise(packed: &Packed, cpu: &Cpu, rows: Range<usize>, out: &mut [f32]) {
    assert!(rows.end <= packed.rows, "a weight has the rows asked for");
    assert_eq!(out.len(), rows.len() * packed.columns, "room for the rows asked for");
    cpu.threads.each_chunk(out, PIECE * packed.columns, |n, out| {
        let first = rows.start + n * PIECE;
        for (r, out) in out.chunks_exact_mut(packed.columns).enumerate() {
            Row { packed, row: first + r }.write(cpu, out);
        }
    });
}

/// One row of a weight.
pub(super) struct Row<'a> {
    pub(super) packed: &'a Packed,
    pub(super) row: usize,
}

impl Row<'_> {
    /// Writes the row's values.
    pub(super) fn write(&self, cpu: &Cpu, out: &mut [f32]) {
        let (strip, lane) = (self.row / LANES, self.row % LANES);
        let (packed, form) = (self.packed, self.packed.form);
        for (block, out) in out.chunks_exact_mut(form.block()).enumerate() {
            let at = strip * packed.blocks() + block;
            let scale = packed.scales.at(at, lane);
            let (centre, offset) = match &packed.from {
                CountFrom::Centre(centre) => (*centre as f32, None),
                CountFrom::Each(offsets) => (0.0, Some(offsets.at(at, lane))),
            };
            let lines = packed.lines(strip, block);
            let numbers = BlockNumbers { scale, centre, offset };
            cpu.isa.run(WriteBlock { lines, lane, form, numbers, out });
        }
    }
}

impl Numbers {
    fn at(&self, place: usize, lane: usize) -> f32 {
        match self {
            Self::Half(halves) => widen_half(halves[place].0[lane]),
            Self::Single(singles) => singles[place].0[lane],
        }
    }
}

#[derive(Clone, Copy)]
struct BlockNumbers {
    scale: f32,
    centre: f32,
    offset: Option<f32>,
}

struct WriteBlock<'a> {
    lines: &'a [super::ByteLine],
    lane: usize,
    form: Form,
    numbers: BlockNumbers,
    out: &'a mut [f32],
}

impl Kernel for WriteBlock<'_> {
    type Output = ();

    /// The file's own order of operations: nothing is fused.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (low, high) = match self.form {
            Form::Nibbles => self.out.split_at_mut(QUAD * self.lines.len()),
            _ => (self.out, [].as_mut_slice()),
        };
        let mask = if self.form == Form::Nibbles { 15 } else { 255 };
        for (line, out) in self.lines.iter().zip(low.as_chunks_mut::<QUAD>().0) {
            let integers = &line.0.as_chunks::<QUAD>().0[self.lane];
            for (out, q) in out.iter_mut().zip(integers) {
                *out = self.numbers.value(q & mask);
            }
        }
        for (line, out) in self.lines.iter().zip(high.as_chunks_mut::<QUAD>().0) {
            let integers = &line.0.as_chunks::<QUAD>().0[self.lane];
            for (out, q) in out.iter_mut().zip(integers) {
                *out = self.numbers.value(q >> 4);
            }
        }
    }
}

impl BlockNumbers {
    #[inline(always)]
    fn value(self, q: u8) -> f32 {
        match self.offset {
            Some(offset) => self.scale * f32::from(q) + offset,
            None => self.scale * (f32::from(q) - self.centre),
        }
    }
}
