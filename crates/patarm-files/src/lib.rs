//! Model containers: GGUF, safetensors and `config.json`, bytes and metadata only.
//!
//! [`open_model`] takes what a user points at, a folder in Hugging Face layout
//! or a `.gguf` file, and answers three questions: what architecture is it
//! ([`ModelConfig`]), what are its weights ([`WeightSource`], under Hugging Face names,
//! as `f32` or as quantised blocks), and where is its tokenizer ([`TokenizerSource`]).
//! Nothing here computes with a tensor and nothing here tokenizes.
//!
//! ```no_run
//! # fn main() -> Result<(), patarm_files::Error> {
//! let model = patarm_files::open_model("models/smollm2".as_ref())?;
//! let shape = [model.config.vocab_size, model.config.hidden_size];
//! let embedding = model.weights.read_shaped("model.embed_tokens.weight", &shape)?;
//! assert_eq!(embedding.len(), shape[0] * shape[1]);
//! # Ok(())
//! # }
//! ```
//!
//! # Untrusted files
//!
//! Every count, length, offset and nesting depth that a file states is checked
//! against [`limits`] and against the bytes that are really there, before
//! anything is allocated. A broken file gives an [`Error`]; it never panics.
//! What is assumed: nobody shortens a file while it is mapped.

#![deny(missing_docs)]

pub mod atomic;
pub mod bytes;
pub mod config;
pub mod error;
pub mod gguf;
pub mod gguf_writer;
pub mod json;
pub mod limits;
pub mod model_files;
pub mod reward_config;
pub mod safetensors_reader;
pub mod safetensors_writer;
pub mod step_config;
#[cfg(test)]
mod test_support;
pub mod weights;

pub use atomic::{AtomicFile, write_atomically};
pub use bytes::FileBytes;
pub use config::{Architecture, ModelConfig, RopeScaling};
pub use error::{Error, ErrorKind, Result};
pub use gguf::{
    Array, BlockOffsets, GgufFile, GgufTensor, Metadata, QuantisedTensor, TensorType, Value,
};
pub use gguf_writer::GgufWriter;
pub use model_files::{GgufTokenizer, ModelFiles, TokenizerFiles, TokenizerSource, open_model};
pub use reward_config::{RewardConfig, RewardFamily};
pub use safetensors_reader::{SafetensorsFile, SafetensorsSet, StoredTensor};
pub use safetensors_writer::{SafetensorsWriter, StoredType, TensorSpec, write_safetensors};
pub use step_config::{PromptForm, Segmentation, StepAggregation, StepConfig, StepReadout};
pub use weights::{Tensor, WeightSource};
