//! One decoder, its heads, adapters, optimiser and generation engine.
//!
//! Everything here works on token ids and buffers; no string is ever seen. The
//! decoder covers Llama, SmolLM2, Qwen2, Qwen2.5 and Qwen3 by configuration. Its
//! unit of computation is a [`forest::Forest`]: token segments with a parent
//! each, so that a prompt shared by many judgements is computed once.
//!
//! There is no general autograd: [`decoder::Decoder::forward`] returns what
//! [`decoder::Decoder::backward`] needs, and every pair of functions is held by
//! finite differences and by reference gradients.

pub mod adapter;
pub mod block;
pub mod checkpoint;
pub mod decoder;
pub mod energy;
pub mod engine;
pub mod error;
pub mod forest;
pub mod head;
pub mod hpqa;
pub mod kv_cache;
pub mod linear;
pub mod load;
pub mod optimizer;
pub mod parameters;
pub mod prefixes;
pub mod reward_checkpoint;
pub mod scalar_head;
mod self_check;
mod shape;
pub mod step_head;
pub mod targets;
pub mod tree;

pub use adapter::LoraConfig;
pub use decoder::{ActivationPolicy, Decoder, ForwardOptions, Saved};
pub use energy::{EnergyNet, EnergyShape};
pub use engine::{Engine, EngineLimits, Generation, GenerationRequest, RequestId, StopReason};
pub use error::{Error, ErrorKind};
pub use forest::{Forest, SegmentId};
pub use head::{HeadInit, HeadValues, LinearHead};
pub use hpqa::{HpqaHead, HpqaShape};
pub use optimizer::{AdamWConfig, Optimizer, OptimizerStates};
pub use parameters::{Gradients, ParameterId, ParameterSet};
pub use patarm_files as files;
pub use patarm_kernels as kernels;
pub use prefixes::SharedPrefixes;
pub use scalar_head::{ScalarHead, ScalarValues};
pub use self_check::agrees_with_cpu;
pub use shape::DecoderShape;
pub use step_head::{StepHead, StepHeadShape, StepValues};
pub use targets::{Target, TargetRows, TargetStatistics};
pub use tree::{CompletionTargets, TreeBuilder};
