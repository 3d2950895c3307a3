//! Packing: rounding to bfloat16 and putting sixteen rows into sixteen lanes.

use super::{Form, PANEL_VECTORS, lanes_mut};
use crate::buffer::Buffer;
use crate::cpu::Cpu;
use crate::cpu::simd::{Half, Kernel, LANES, Lanes, Simd};

/// Where the rows of an operand lie in memory.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// The inner elements of a row lie side by side, rows `stride` apart.
    Across { data: &'a [f32], stride: usize },
    /// The rows' elements of one inner index lie side by side, inner indices
    /// `stride` apart: the transpose of the above.
    Along { data: &'a [f32], stride: usize },
}

impl Source<'_> {
    fn holds(self, rows: usize, inner: usize) -> bool {
        let (data, stride, outer, width) = match self {
            Self::Across { data, stride } => (data, stride, rows, inner),
            Self::Along { data, stride } => (data, stride, inner, rows),
        };
        if rows == 0 || inner == 0 {
            return true;
        }
        (outer == 1 || width <= stride) && (outer - 1) * stride + width <= data.len()
    }

    /// Leaves the first inner elements out.
    pub(super) fn inner_from(self, start: usize) -> Self {
        match self {
            Self::Across { data, stride } => Self::Across { data: &data[start..], stride },
            Self::Along { data, stride } => Self::Along { data: &data[start * stride..], stride },
        }
    }
}

/// Rows in tiles of sixteen: `[tile][depth]` vectors.
pub(super) fn tiles(cpu: &Cpu, source: Source<'_>, size: (usize, usize), form: Form) -> Buffer {
    packed(cpu, source, size, (form, 1))
}

/// Rows in panels: `[panel][depth][PANEL_VECTORS]` vectors.
pub(super) fn panels(cpu: &Cpu, source: Source<'_>, size: (usize, usize), form: Form) -> Buffer {
    packed(cpu, source, size, (form, PANEL_VECTORS))
}

fn packed(
    cpu: &Cpu,
    source: Source<'_>,
    (rows, inner): (usize, usize),
    (form, vectors): (Form, usize),
) -> Buffer {
    assert!(source.holds(rows, inner), "an operand is whole");
    let size = form.depth(inner) * vectors;
    let height = vectors * LANES;
    let mut buffer = cpu.memory.take(rows.div_ceil(height) * size * LANES);
    cpu.threads.each_chunk(lanes_mut(&mut buffer), size, |n, out| {
        for vector in 0..vectors {
            let first = n * height + vector * LANES;
            let to = Target { out: &mut *out, vectors, vector, form };
            if first < rows {
                cpu.isa.run(PackVector { source, first, rows, inner, to });
            } else {
                to.clear();
            }
        }
    });
    buffer
}

/// One vector's worth of rows of a tile or panel.
struct Target<'a> {
    out: &'a mut [Lanes],
    vectors: usize,
    vector: usize,
    form: Form,
}

impl Target<'_> {
    #[inline(always)]
    fn put<S: Simd>(&mut self, simd: S, pair: usize, even: S::V, odd: S::V) {
        let (even, odd) = match self.form {
            Form::Single => (even, odd),
            Form::Wide | Form::Paired => (simd.round_bf16(even), simd.round_bf16(odd)),
        };
        let (vectors, vector) = (self.vectors, self.vector);
        let at = |depth: usize| depth * vectors + vector;
        match self.form {
            Form::Single | Form::Wide => {
                simd.store(even, &mut self.out[at(2 * pair)]);
                simd.store(odd, &mut self.out[at(2 * pair + 1)]);
            }
            Form::Paired => simd.store(simd.pair(even, odd), &mut self.out[at(pair)]),
        }
    }

    /// Lanes beyond the last row are never written to a result, but read.
    fn clear(self) {
        let lanes = self.out.iter_mut().skip(self.vector).step_by(self.vectors);
        lanes.for_each(|lanes| *lanes = [0.0; LANES]);
    }
}

struct PackVector<'a> {
    source: Source<'a>,
    /// First row of the vector.
    first: usize,
    rows: usize,
    inner: usize,
    to: Target<'a>,
}

impl Kernel for PackVector<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.source {
            Source::Across { data, stride } => self.across(simd, data, stride),
            Source::Along { data, stride } => self.along(simd, data, stride),
        }
    }
}

impl PackVector<'_> {
    #[inline(always)]
    fn across<S: Simd>(mut self, simd: S, data: &[f32], stride: usize) {
        let inner = self.inner;
        // Lanes beyond the last row repeat it.
        let mut rows: [&[f32]; LANES] = [&[]; LANES];
        for (n, row) in rows.iter_mut().enumerate() {
            *row = &data[(self.first + n).min(self.rows - 1) * stride..][..inner];
        }
        let mut block = [[0.0; LANES]; 8];
        let whole = inner / 8;
        for n in 0..whole {
            for half in [Half::Low, Half::High] {
                let mut eight = [&[0.0; 8]; 8];
                for (r, row) in eight.iter_mut().enumerate() {
                    *row = &rows[half as usize + r].as_chunks::<8>().0[n];
                }
                simd.transpose_8x8(&eight, &mut block, half);
            }
            for pair in 0..4 {
                let (even, odd) = (simd.load(&block[2 * pair]), simd.load(&block[2 * pair + 1]));
                self.to.put(simd, 4 * n + pair, even, odd);
            }
        }
        for pair in 4 * whole..inner.div_ceil(2) {
            let (mut even, mut odd) = ([0.0; LANES], [0.0; LANES]);
            for (n, row) in rows.iter().enumerate() {
                even[n] = row[2 * pair];
                odd[n] = row.get(2 * pair + 1).copied().unwrap_or(0.0);
            }
            self.to.put(simd, pair, simd.load(&even), simd.load(&odd));
        }
    }

    #[inline(always)]
    fn along<S: Simd>(mut self, simd: S, data: &[f32], stride: usize) {
        let (first, width) = (self.first, LANES.min(self.rows - self.first));
        for pair in 0..self.inner.div_ceil(2) {
            let even = &data[2 * pair * stride + first..][..width];
            let even = simd.load_part(even, 0.0);
            let mut odd = simd.splat(0.0);
            if 2 * pair + 1 < self.inner {
                odd = simd.load_part(&data[(2 * pair + 1) * stride + first..][..width], 0.0);
            }
            self.to.put(simd, pair, even, odd);
        }
    }
}
