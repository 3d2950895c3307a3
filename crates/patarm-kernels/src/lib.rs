//! Fused operations of a decoder, each with its exact backward.
//!
//! This is the only crate with device code. Everything above it talks to a
//! [`Backend`]: an object that owns [`Buffer`]s of `f32` and runs operations on
//! them. Two things are deliberately absent: a tensor type with strides, and
//! automatic differentiation. A buffer is a flat array; every operation names
//! its shape; every operation with a gradient has a second operation that
//! computes it, and a test that compares it with finite differences.
//!
//! Dimension letters used in this crate: `t` tokens (packed, never padded),
//! `d` model width, `h` heads, `k` head width, `v` vocabulary, `s` key slots,
//! `i`/`o` input and output width of a linear map.
//!
//! # Bit-for-bit values
//!
//! The forward value of a token depends on its path alone, never on what else is
//! in the batch: products sum over their inner dimension in one order for every
//! number of rows, and attention reduces over blocks of [`KEY_BLOCK`] keys
//! aligned to position 0, in position order, whichever segment stores them.

pub mod attention_plan;
pub mod backend;
pub mod buffer;
mod checks;
pub mod cpu;
pub mod cuda;
pub mod moments;
pub mod quantised;
pub mod random;
pub mod sampling;

pub use attention_plan::{AttentionPlan, AttentionShape, KEY_BLOCK, QueryRun, Span};
pub use backend::{
    AdamW, Backend, ChosenTokens, LinearShape, NormShape, RopeTurn, RotatedNorm, Rotation,
    SLOTS_TOGETHER, StatisticsGradient, StatisticsShape, TokenStatistics, Update,
};
pub use buffer::Buffer;
pub use cpu::{Cpu, CpuOptions, Instructions, Precision};
pub use cuda::{Cuda, CudaOptions, DeviceFault, FaultKind};
pub use moments::Moments;
pub use quantised::{EightBitMatrix, Offsets, QuantisedMatrix};
pub use sampling::{SampledToken, SamplingOptions};
