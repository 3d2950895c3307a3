//! Products of matrices, and the linear map whose rows do not know each other.
//!
//! The library's kernel sums an element over the inner dimension in one order,
//! block by block. Three things would change that order with the number of rows,
//! and are avoided for forward values: the length of a block (products are cut
//! into blocks of at most [`INNER_BLOCK`] here, by the inner width alone), the
//! special kernels for one row or column, and the one for very small results
//! (both avoided by adding rows of zeros). Few rows of a prepared weight are
//! multiplied by our own kernel, which keeps that order.
#![expect(unsafe_code, reason = "the library's entry point takes pointers")]

use std::ops::Range;

use gemm_common::Parallelism;

use super::bf16::{self, Right, Source};
use super::quantised::{self, Packed};
use super::simd::{Isa, Kernel, LANES, Simd};
use super::threads::Threads;
use super::{Cpu, Precision};
use crate::backend::{LinearShape, Update};
use crate::buffer::{Buffer, PreparedWeight};

/// Longest stretch of the inner dimension given to the library at once; it sums
/// stretches up to this length in one go on every processor.
const INNER_BLOCK: usize = 512;
/// Results of up to this many elements use other kernels in the library.
const SMALL_RESULT: usize = 256;
/// Thin inputs are weighted sums of columns.
const THIN_INPUT: usize = 2;
/// Narrow outputs are computed as dot products.
const NARROW_OUTPUT: usize = 4;
/// Up to this many rows, rows and columns exchange roles.
const FEW_TOKENS: usize = 128;
/// Products with fewer multiplications than this stay on the calling thread.
const PARALLEL_WORK: usize = 1 << 20;
/// Rows of one piece of work in the paths without the library.
const ROWS: usize = 32;

/// Length of the stretches that an inner dimension is cut into.
pub(crate) fn inner_block(input: usize) -> usize {
    input.div_ceil(input.div_ceil(INNER_BLOCK).max(1)).max(1)
}

/// A matrix that is a view of a slice.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `stride` elements each, one after the other.
    pub(crate) fn rows(data: &'a [f32], stride: usize) -> Self {
        Self { data, row_stride: stride, column_stride: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    /// As rows of an operand in bfloat16.
    fn source(self) -> Source<'a> {
        match self.column_stride {
            1 => Source::Across { data: self.data, stride: self.row_stride },
            stride => Source::Along { data: self.data, stride },
        }
    }

    pub(crate) fn columns_from(self, column: usize) -> Self {
        Self { data: &self.data[column * self.column_stride..], ..self }
    }

    fn holds(self, rows: usize, columns: usize) -> bool {
        (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.data.len()
    }
}

/// `out[m, n] (+)= scale · left[m, k] · right[k, n]`.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) size: [usize; 3],
    pub(crate) left: Matrix<'a>,
    pub(crate) right: Matrix<'a>,
    pub(crate) scale: f32,
    pub(crate) update: Update,
}

impl Product<'_> {
    /// Computes the product into rows of width `n`. The result does not depend
    /// on the number of threads.
    pub(crate) fn compute(self, cpu: &Cpu, precision: Precision, out: &mut [f32]) {
        match precision {
            Precision::F32 | Precision::Quantised => self.single(&cpu.threads, out),
            Precision::Bf16 => self.bf16(cpu, out),
        }
    }

    fn bf16(self, cpu: &Cpu, out: &mut [f32]) {
        let right = self.right.transposed().source();
        let product = bf16::Product {
            size: self.size,
            precision: Precision::Bf16,
            left: self.left.source(),
            right: Right::Values(right),
            scale: self.scale,
            update: self.update,
        };
        product.compute_in_parts(cpu, right, out);
    }

    fn single(self, threads: &Threads, out: &mut [f32]) {
        let [m, n, k] = self.size;
        if m == 0 || n == 0 {
            return;
        }
        assert!(m * n <= out.len(), "a product needs room for its result");
        if k == 0 {
            if self.update == Update::Set {
                out[..m * n].fill(0.0);
            }
            return;
        }
        assert!(self.left.holds(m, k) && self.right.holds(k, n), "a product's operands are whole");
        let parallel = threads.count() > 1 && m * n * k >= PARALLEL_WORK;
        if parallel {
            threads.install(|| self.call(Parallelism::Rayon(threads.count()), out));
        } else {
            self.call(Parallelism::None, out);
        }
    }

    fn call(self, parallelism: Parallelism, out: &mut [f32]) {
        let [m, n, k] = self.size;
        let (left, right) = (self.left, self.right);
        // SAFETY: `compute` has checked that every element named by sizes and
        // strides lies within its slice.
        unsafe {
            // Column-major output with the sides exchanged: what the kernel prefers.
            gemm_f32::gemm::f32::get_gemm_fn()(
                n,
                m,
                k,
                out.as_mut_ptr(),
                n as isize,
                1,
                self.update == Update::Add,
                right.data.as_ptr(),
                right.row_stride as isize,
                right.column_stride as isize,
                left.data.as_ptr(),
                left.row_stride as isize,
                left.column_stride as isize,
                1.0,
                self.scale,
                false,
                false,
                false,
                parallelism,
            );
        }
    }
}

/// The weight of a linear map, `[output, input]`.
#[derive(Clone, Copy)]
pub(crate) enum Weight<'a> {
    Dense(DenseWeight<'a>),
    /// It has no values beside its quantised ones.
    Quantised(&'a Packed),
}

impl Weight<'_> {
    /// Arithmetic of gradients.
    pub(crate) fn precision(self) -> Precision {
        match self {
            Self::Dense(weight) => weight.precision,
            Self::Quantised(_) => Precision::F32,
        }
    }
}

/// A weight with a number for every value.
#[derive(Clone, Copy)]
pub(crate) struct DenseWeight<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) precision: Precision,
    /// Where its packed form is kept, if it was prepared.
    pub(crate) prepared: Option<&'a PreparedWeight>,
}

impl<'a> DenseWeight<'a> {
    /// Where the packed form is kept, if products with that many rows use it. In
    /// single precision those are products with few rows, which spend more on the
    /// library's copies than on the product; and none without vector instructions,
    /// whose multiply-adds round twice where the library's round once.
    fn packed_for(&self, cpu: &Cpu, shape: LinearShape) -> Option<&'a PreparedWeight> {
        let LinearShape { tokens, input, output } = shape;
        let single = tokens <= FEW_TOKENS
            && input > THIN_INPUT
            && output > NARROW_OUTPUT
            && !matches!(cpu.isa, Isa::Portable);
        self.prepared.filter(|_| self.precision == Precision::Bf16 || single)
    }

    /// The packed form.
    fn panels(&self, cpu: &Cpu, prepared: &'a PreparedWeight) -> &'a Buffer {
        let pack = || bf16::pack_weight(cpu, self.values, prepared.columns);
        prepared.panels.get_or_init(pack)
    }
}

/// Operands of `out (+)= scale · x · weightᵀ`.
#[derive(Clone, Copy)]
pub(crate) struct LinearMap<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) weight: Weight<'a>,
    pub(crate) shape: LinearShape,
    pub(crate) scale: f32,
}

impl LinearMap<'_> {
    /// A row of the result is a function of that row of `x` alone, to the bit.
    pub(crate) fn compute(self, cpu: &Cpu, out: &mut [f32], update: Update) {
        let LinearShape { tokens, output, .. } = self.shape;
        if tokens > 0 && output > 0 {
            self.columns(cpu, 0..output, &mut out[..tokens * output], update);
        }
    }

    /// The outputs of some rows of the weight, a range that starts with a panel.
    pub(crate) fn columns(self, cpu: &Cpu, columns: Range<usize>, out: &mut [f32], update: Update) {
        let LinearShape { tokens, input, .. } = self.shape;
        let (x, scale) = (self.x, self.scale);
        let weight = match self.weight {
            Weight::Dense(weight) => weight,
            Weight::Quantised(weight) => {
                let x = &x[..tokens * input];
                let product = quantised::Product { x, weight, scale, update };
                return product.compute(cpu, columns, out);
            }
        };
        let shape = LinearShape { output: columns.len(), ..self.shape };
        let map = DenseMap { x, weight, shape, scale };
        match weight.packed_for(cpu, shape) {
            Some(prepared) => map.panels(cpu, (prepared, columns.start), out, update),
            None => {
                let values = &weight.values[columns.start * input..columns.end * input];
                let weight = DenseWeight { values, prepared: None, ..weight };
                DenseMap { weight, ..map }.compute(cpu, out, update);
            }
        }
    }
}

/// Operands of a linear map whose weight has a number for every value.
#[derive(Clone, Copy)]
struct DenseMap<'a> {
    x: &'a [f32],
    weight: DenseWeight<'a>,
    shape: LinearShape,
    scale: f32,
}

impl DenseMap<'_> {
    /// Without a packed form.
    fn compute(self, cpu: &Cpu, out: &mut [f32], update: Update) {
        let LinearShape { tokens, input, output } = self.shape;
        if input <= THIN_INPUT {
            self.thin(cpu, out, update);
        } else if output <= NARROW_OUTPUT {
            self.narrow(cpu, out, update);
        } else if tokens < 2 || tokens * output <= SMALL_RESULT {
            self.padded(cpu, out, update);
        } else if tokens <= FEW_TOKENS {
            self.turned(cpu, out, update);
        } else {
            self.blocks(&cpu.threads, [self.left(), self.right()], out, update);
        }
    }

    /// The outputs of a part of a weight that is packed once, from row `first` on.
    fn panels(
        self,
        cpu: &Cpu,
        (prepared, first): (&PreparedWeight, usize),
        out: &mut [f32],
        update: Update,
    ) {
        let panels = self.weight.panels(cpu, prepared);
        let LinearShape { tokens, input, output } = self.shape;
        let first = (first, input);
        let product = bf16::Product {
            size: [tokens, output, input],
            precision: self.weight.precision,
            left: Source::Across { data: self.x, stride: input },
            right: Right::Panels(bf16::panels_from(panels, self.weight.precision, first)),
            scale: self.scale,
            update,
        };
        product.compute(cpu, out);
    }

    fn left(&self) -> (Matrix<'_>, usize) {
        (Matrix::rows(self.x, self.shape.input), self.shape.tokens)
    }

    fn right(&self) -> (Matrix<'_>, usize) {
        (Matrix::rows(self.weight.values, self.shape.input), self.shape.output)
    }

    /// With the roles of rows and columns exchanged: the library copies its left
    /// operand into another order, which for few rows costs more than the product.
    fn turned(self, cpu: &Cpu, out: &mut [f32], update: Update) {
        let LinearShape { tokens, output, .. } = self.shape;
        let mut turned = cpu.memory.take(tokens * output);
        if update == Update::Add {
            transpose(out, output, turned.host_mut());
        }
        self.blocks(&cpu.threads, [self.right(), self.left()], turned.host_mut(), update);
        transpose(turned.host(), tokens, out);
    }

    /// `out (+)= scale · left · rightᵀ` of two matrices with rows of the inner width.
    fn blocks(
        self,
        threads: &Threads,
        [left, right]: [(Matrix<'_>, usize); 2],
        out: &mut [f32],
        update: Update,
    ) {
        let input = self.shape.input;
        let block = inner_block(input);
        for start in (0..input).step_by(block) {
            let product = Product {
                size: [left.1, right.1, block.min(input - start)],
                left: left.0.columns_from(start),
                right: right.0.columns_from(start).transposed(),
                scale: self.scale,
                update: if start == 0 { update } else { Update::Add },
            };
            product.single(threads, out);
        }
    }

    /// With enough rows of zeros for the ordinary kernel.
    fn padded(self, cpu: &Cpu, out: &mut [f32], update: Update) {
        let LinearShape { tokens, input, output } = self.shape;
        let rows = (SMALL_RESULT / output + 1).max(2);
        let mut x = cpu.memory.take(rows * input);
        let mut padded = cpu.memory.take(rows * output);
        x.host_mut()[..tokens * input].copy_from_slice(&self.x[..tokens * input]);
        x.host_mut()[tokens * input..].fill(0.0);
        if update == Update::Add {
            padded.host_mut()[..tokens * output].copy_from_slice(&out[..tokens * output]);
            padded.host_mut()[tokens * output..].fill(0.0);
        }
        let shape = LinearShape { tokens: rows, ..self.shape };
        DenseMap { x: x.host(), shape, ..self }.turned(cpu, padded.host_mut(), update);
        out[..tokens * output].copy_from_slice(&padded.host()[..tokens * output]);
    }

    /// Inner width 0, 1 or 2: a weighted sum of columns of the weight.
    fn thin(self, cpu: &Cpu, out: &mut [f32], update: Update) {
        let LinearShape { input, output, .. } = self.shape;
        cpu.threads.each_chunk(out, ROWS * output, |n, rows| {
            for (r, row) in rows.chunks_exact_mut(output).enumerate() {
                let x = &self.x[(n * ROWS + r) * input..][..input];
                for (o, out) in row.iter_mut().enumerate() {
                    let weight = &self.weight.values[o * input..][..input];
                    let sum: f32 = x.iter().zip(weight).map(|(x, w)| x * w).sum();
                    write(out, self.scale * sum, update);
                }
            }
        });
    }

    /// A few outputs: a dot product each.
    fn narrow(self, cpu: &Cpu, out: &mut [f32], update: Update) {
        let LinearShape { input, output, .. } = self.shape;
        cpu.threads.each_chunk(out, ROWS * output, |n, rows| {
            for (r, row) in rows.chunks_exact_mut(output).enumerate() {
                let x = &self.x[(n * ROWS + r) * input..][..input];
                for (o, out) in row.iter_mut().enumerate() {
                    let weight = &self.weight.values[o * input..][..input];
                    write(out, self.scale * cpu.isa.run(Dot { a: x, b: weight }), update);
                }
            }
        });
    }
}

/// Writes the columns of rows of `width` elements as rows, a cache line's worth of
/// columns at a time.
fn transpose(from: &[f32], width: usize, to: &mut [f32]) {
    let height = from.len() / width;
    for (block, to) in to.chunks_mut(LANES * height).enumerate() {
        for (r, row) in from.chunks_exact(width).enumerate() {
            for (column, &value) in to.chunks_exact_mut(height).zip(&row[block * LANES..]) {
                column[r] = value;
            }
        }
    }
}

fn write(out: &mut f32, value: f32, update: Update) {
    match update {
        Update::Set => *out = value,
        Update::Add => *out += value,
    }
}

/// `Σ a b` of two slices of one length.
pub(crate) struct Dot<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) b: &'a [f32],
}

impl Kernel for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut sum = simd.splat(0.0);
        for (a, b) in self.a.chunks(LANES).zip(self.b.chunks(LANES)) {
            sum = simd.mul_add(simd.load_part(a, 0.0), simd.load_part(b, 0.0), sum);
        }
        simd.sum(sum)
    }
}

/// Adds `bias` to, or writes it over, every row.
pub(crate) fn spread_bias(threads: &Threads, bias: &[f32], out: &mut [f32], update: Update) {
    if bias.is_empty() {
        return;
    }
    threads.each_chunk(out, ROWS * bias.len(), |_, rows| {
        for row in rows.chunks_exact_mut(bias.len()) {
            match update {
                Update::Set => row.copy_from_slice(bias),
                Update::Add => row.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias),
            }
        }
    });
}
