//! Which instructions and which arithmetic a CPU backend uses.

use super::bf16::Multiplier;
use super::simd::Isa;

/// Arithmetic of the products with weights. Everything else is `f32` always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Single precision: the reference.
    #[default]
    F32,
    /// Operands rounded to bfloat16, sums in `f32`.
    Bf16,
}

impl Precision {
    /// What is fastest here: bfloat16 where its pair instruction outruns
    /// multiply-adds in single precision, single precision elsewhere. An instruction
    /// that is there but slower costs precision and gains no time.
    #[must_use]
    pub fn detect() -> Self {
        if Multiplier::detect().is_fast() { Self::Bf16 } else { Self::F32 }
    }

    /// `f32` or `bf16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
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
    /// AVX-512F.
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

impl Instructions {
    /// The kernels for these instructions; `None` where the processor lacks them.
    pub(crate) fn resolve(self) -> Option<(Isa, Multiplier)> {
        match self {
            Self::Detect => Some((Isa::detect(), Multiplier::detect())),
            Self::Portable => Some((Isa::Portable, Multiplier::Widened)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                let token = super::simd::x86::Avx2::detect()?;
                Some((Isa::Avx2(token), Multiplier::Widened))
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512f => {
                let token = super::simd::x86::Avx512::detect()?;
                Some((Isa::Avx512(token), Multiplier::Widened))
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => {
                let token = super::simd::x86::Avx512::detect()?;
                Some((Isa::Avx512(token), Multiplier::detect_pairs()?))
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512f | Self::Avx512Bf16 => None,
        }
    }
}
