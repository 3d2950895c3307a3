//! Products of packed operands with sums in `f32`: in single precision, and of
//! operands rounded to bfloat16.
//!
//! In bfloat16 both operands are rounded to the nearest bfloat16, ties to even; products of
//! two such numbers are exact in `f32`. An element of the result is one chain of
//! additions over the inner dimension, two numbers at a time, the second of each
//! pair first. That is what the processor's pair instruction does (`VDPBF16PS`,
//! Intel SDM volume 2, found equal on hardware), so that every instruction set
//! gives the same bits, up to numbers below 2⁻¹²⁶, which the instruction takes for
//! zero. The chain knows nothing of the rows and columns beside it, of threads,
//! or of how the work is cut: forward values are equal to the bit in any batch.
//!
//! In single precision an element is summed as [`super::linear`] says, so that few
//! rows here and many rows there give the same bits.
//!
//! Weights are packed into panels of [`PANEL`] rows once, when first used after a
//! change; activations and gradients are packed at every call.

mod pack;
mod product;
mod tile;

use super::simd::{Isa, Kernel, LANES, Lanes};
use super::{Cpu, Precision};
use crate::buffer::Buffer;
pub(crate) use pack::Source;
pub(crate) use product::{Product, Right};

/// Vectors of a panel.
const PANEL_VECTORS: usize = 3;
/// Columns of a panel of the right operand.
pub(crate) const PANEL: usize = PANEL_VECTORS * LANES;
/// Rows of a tile of the left operand.
const TILE: usize = LANES;
/// Rows multiplied at one time: with [`PANEL_VECTORS`], 24 sums in registers.
const ROWS: usize = 8;

/// How packed operands are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// An `f32`, one after another along the inner dimension.
    Single,
    /// A bfloat16 as an `f32`, one after another along the inner dimension.
    Wide,
    /// Two bfloat16 in 32 bits.
    Paired,
}

impl Form {
    /// Vectors along an inner dimension of `inner`.
    fn depth(self, inner: usize) -> usize {
        match self {
            Self::Single | Self::Wide => inner.next_multiple_of(2),
            Self::Paired => inner.div_ceil(2),
        }
    }
}

/// What multiplies two packed operands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Multiplier {
    /// Multiply-adds of numbers widened to `f32`, on the backend's instructions.
    Widened,
    /// The processor's pair instruction.
    #[cfg(target_arch = "x86_64")]
    Pairs(super::simd::x86::Avx512Bf16),
}

impl Multiplier {
    /// The faster one. Measured: on Sapphire and Emerald Rapids the pair
    /// instruction starts every second cycle at any width, so that it does half the
    /// arithmetic of two multiply-adds a cycle; on Zen 5 it does twice as much.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if super::simd::x86::vendor() == *b"AuthenticAMD"
            && let Some(pairs) = Self::detect_pairs()
        {
            return pairs;
        }
        Self::Widened
    }

    /// The pair instruction, where there is one.
    pub(crate) fn detect_pairs() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return super::simd::x86::Avx512Bf16::detect().map(Self::Pairs);
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Whether it outruns multiply-adds in single precision.
    pub(crate) fn is_fast(self) -> bool {
        !matches!(self, Self::Widened)
    }

    fn form(self) -> Form {
        match self {
            Self::Widened => Form::Wide,
            #[cfg(target_arch = "x86_64")]
            Self::Pairs(_) => Form::Paired,
        }
    }

    /// Name of the arithmetic on an instruction set.
    pub(crate) fn name(self, isa: Isa) -> &'static str {
        match (self, isa) {
            #[cfg(target_arch = "x86_64")]
            (Self::Pairs(_), _) => "avx512bf16-bf16",
            (Self::Widened, Isa::Portable) => "portable-bf16",
            #[cfg(target_arch = "x86_64")]
            (Self::Widened, Isa::Avx2(_)) => "avx2-bf16",
            #[cfg(target_arch = "x86_64")]
            (Self::Widened, Isa::Avx512(_)) => "avx512f-bf16",
        }
    }

    fn run<K: Kernel>(self, cpu: &Cpu, kernel: K) -> K::Output {
        match self {
            Self::Widened => cpu.isa.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Pairs(token) => token.run(kernel),
        }
    }
}

/// How the left operand and one packed at every call are stored.
fn call_form(cpu: &Cpu, precision: Precision) -> Form {
    match precision {
        Precision::F32 | Precision::Quantised => Form::Single,
        Precision::Bf16 => cpu.multiplier.form(),
    }
}

/// How a weight is stored that is packed once.
fn weight_form(precision: Precision) -> Form {
    match precision {
        Precision::F32 | Precision::Quantised => Form::Single,
        Precision::Bf16 => Form::Paired,
    }
}

fn lanes(buffer: &Buffer) -> &[Lanes] {
    buffer.host().as_chunks().0
}

fn lanes_mut(buffer: &mut Buffer) -> &mut [Lanes] {
    buffer.host_mut().as_chunks_mut().0
}

/// The panels of a weight `[output, input]`, for `x · weightᵀ`.
pub(crate) fn pack_weight(cpu: &Cpu, weight: &[f32], input: usize) -> Buffer {
    let source = Source::Across { data: weight, stride: input };
    let output = weight.len().checked_div(input).unwrap_or(0);
    pack::panels(cpu, source, (output, input), weight_form(cpu.precision))
}

/// The panels of columns `first..` of a weight packed in `precision` with an inner
/// dimension of `input`.
pub(crate) fn panels_from(
    panels: &Buffer,
    precision: Precision,
    (first, input): (usize, usize),
) -> &[Lanes] {
    assert!(first.is_multiple_of(PANEL), "a range of columns starts with a panel");
    &lanes(panels)[first / PANEL * PANEL_VECTORS * weight_form(precision).depth(input)..]
}
