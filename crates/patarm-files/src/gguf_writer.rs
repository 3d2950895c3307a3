//! Writing small GGUF files: metadata and `f32` tensors, for tests and examples.
//!
//! Real models are written as safetensors; this writer exists so that every
//! crate can make a tiny, complete GGUF file, tokenizer included, in a test.
//!
//! ```
//! use patarm_files::{FileBytes, GgufFile, GgufWriter};
//! # fn main() -> Result<(), patarm_files::Error> {
//! let mut writer = GgufWriter::new();
//! writer.metadata("general.architecture", "llama");
//! writer.tensor_f32("output_norm.weight", &[2], &[1.0, 0.5])?;
//! let file = GgufFile::parse(FileBytes::owned(writer.to_bytes()))?;
//! assert_eq!(file.dequantise("output_norm.weight")?, [1.0, 0.5]);
//! # Ok(())
//! # }
//! ```

use std::path::Path;

use crate::atomic::write_atomically;
use crate::error::{Error, Result};
use crate::gguf::{DEFAULT_ALIGNMENT, MAGIC, TensorType, Value, write_string};

/// A GGUF file (version 3) under construction, in memory.
#[derive(Clone, Debug, Default)]
pub struct GgufWriter {
    metadata: Vec<(String, Value)>,
    tensors: Vec<PendingTensor>,
}

#[derive(Clone, Debug)]
struct PendingTensor {
    name: String,
    shape: Vec<usize>,
    tensor_type: TensorType,
    bytes: Vec<u8>,
}

impl GgufWriter {
    /// A file without metadata and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metadata entry; a key given twice is written twice, which readers refuse.
    pub fn metadata(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.metadata.push((key.to_owned(), value.into()));
        self
    }

    /// Adds a tensor of `shape` (slowest dimension first) stored as F32.
    ///
    /// # Errors
    /// When `values` has another length than the product of `shape`.
    pub fn tensor_f32(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<&mut Self> {
        let num_values: usize = shape.iter().product();
        if num_values != values.len() {
            return Err(Error::shape(format!(
                "tensor `{name}` of shape {shape:?} has {} values",
                values.len()
            )));
        }
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(self.tensor_bytes(name, shape, TensorType::F32, bytes))
    }

    /// Adds a tensor whose stored bytes are given; nothing is checked, so that
    /// tests can write broken files too.
    pub fn tensor_bytes(
        &mut self,
        name: &str,
        shape: &[usize],
        tensor_type: TensorType,
        bytes: Vec<u8>,
    ) -> &mut Self {
        let (name, shape) = (name.to_owned(), shape.to_vec());
        self.tensors.push(PendingTensor { name, shape, tensor_type, bytes });
        self
    }

    /// The whole file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::from(MAGIC);
        out.extend(3_u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            write_string(&mut out, key);
            out.extend(value.type_id().to_le_bytes());
            value.write_to(&mut out);
        }
        self.write_infos(&mut out);
        for tensor in &self.tensors {
            pad(&mut out);
            out.extend(&tensor.bytes);
        }
        pad(&mut out);
        out
    }

    /// Writes the file at `path`, all or nothing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, &self.to_bytes())
    }

    fn write_infos(&self, out: &mut Vec<u8>) {
        let mut offset = 0_u64;
        for tensor in &self.tensors {
            write_string(out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for &size in tensor.shape.iter().rev() {
                out.extend((size as u64).to_le_bytes());
            }
            out.extend(tensor.tensor_type.id().to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += (tensor.bytes.len() as u64).next_multiple_of(DEFAULT_ALIGNMENT);
        }
    }
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
}
