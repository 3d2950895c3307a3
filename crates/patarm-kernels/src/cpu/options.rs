//! Which instructions and which arithmetic a CPU backend uses.

use super::bf16::Multiplier;
use super::simd::Isa;
use super::simd::dots::Bytes;

/// Arithmetic of the products with weights. Everything else is `f32` always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Single precision: the reference.
    #[default]
    F32,
    /// Operands rounded to bfloat16, sums in `f32`.
    Bf16,
    /// Weights of small integers, as a quantised file holds them or rounded to eight
    /// bits a block, and the other operand rounded to eight bits a block.
    Quantised,
}

impl Precision {
    /// What is fastest here: bfloat16 where its pair instruction outruns
    /// multiply-adds in single precision, single precision elsewhere. An instruction
    /// that is there but slower costs precision and gains no time.
    #[must_use]
    pub fn detect() -> Self {
        if Multiplier::detect().is_fast() { Self::Bf16 } else { Self::F32 }
    }

    /// `f32`, `bf16` or `quantised`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Quantised => "quantised",
        }
    }
}

/// Instructions a backend may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Instructions {
    /// The fastest this processor has.
    #[default]
    Detect,
    /// None beyond the baseline.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512F; bytes are multiplied with AVX2.
    Avx512f,
    /// AVX-512F, and products of bfloat16 by the pair instruction of AVX512-BF16.
    Avx512Bf16,
}

/// Settings of a CPU backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads; 0 stands for one per core.
    pub threads: usize,
    /// Instructions.
    pub instructions: Instructions,
    /// Arithmetic of the products with weights.
    pub precision: Precision,
}

/// What a backend computes with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    pub(crate) isa: Isa,
    pub(crate) multiplier: Multiplier,
    pub(crate) bytes: Bytes,
}

impl Kernels {
    pub(crate) fn detect() -> Self {
        let bytes = Bytes::detect();
        Self { isa: Isa::detect(), multiplier: Multiplier::detect(), bytes }
    }

    pub(crate) fn portable() -> Self {
        Self { isa: Isa::Portable, multiplier: Multiplier::Widened, bytes: Bytes::Portable }
    }
}

impl Instructions {
    /// The kernels for these instructions; `None` where the processor lacks them.
    pub(crate) fn resolve(self) -> Option<Kernels> {
        match self {
            Self::Detect => Some(Kernels::detect()),
            Self::Portable => Some(Kernels::portable()),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                let isa = Isa::Avx2(super::simd::x86::Avx2::detect()?);
                Some(Kernels { isa, multiplier: Multiplier::Widened, bytes: Bytes::without_vnni() })
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512f => {
                let isa = Isa::Avx512(super::simd::x86::Avx512::detect()?);
                Some(Kernels { isa, multiplier: Multiplier::Widened, bytes: Bytes::without_vnni() })
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => {
                let isa = Isa::Avx512(super::simd::x86::Avx512::detect()?);
                let multiplier = Multiplier::detect_pairs()?;
                Some(Kernels { isa, multiplier, bytes: Bytes::without_vnni() })
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512f | Self::Avx512Bf16 => None,
        }
    }
}
