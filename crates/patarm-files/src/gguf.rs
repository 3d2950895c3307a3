//! GGUF, versions 2 and 3: header, metadata, and tensors turned into `f32`.
//!
//! Layout, all little-endian: magic `GGUF`, `u32` version, `u64` number of
//! tensors, `u64` number of metadata entries, the entries, the tensor infos,
//! padding to the alignment (`general.alignment`, 32 when absent), the data.
//! Source: the public GGUF specification of the ggml project.

mod blocks;
mod cursor;
mod header;
mod metadata;
mod quant;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;

use rayon::prelude::*;

pub use blocks::{BlockOffsets, QuantisedTensor};
pub(crate) use metadata::write_string;
pub use metadata::{Array, Metadata, Value};
pub use quant::TensorType;

use crate::bytes::FileBytes;
use crate::error::{Error, Result};
use quant::BlockFormat;

/// First four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Alignment of tensor data when `general.alignment` is absent, in bytes.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// Values per task when a tensor is turned into `f32` on several threads.
const VALUES_PER_TASK: usize = 1 << 18;

/// An open GGUF file: the header parsed and checked, the data mapped.
#[derive(Debug)]
pub struct GgufFile {
    bytes: FileBytes,
    metadata: Metadata,
    tensors: Vec<GgufTensor>,
    index: HashMap<String, usize>,
}

/// Where one tensor lies and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// Name as in the file, for example `blk.0.attn_q.weight`.
    pub name: String,
    /// Shape with the slowest dimension first (`[out, in]` of a matrix), the
    /// reverse of the order in the file.
    pub shape: Vec<usize>,
    /// How the values are stored.
    pub tensor_type: TensorType,
    /// Number of values: the product of `shape`, checked not to overflow.
    pub num_values: usize,
    /// First byte in the file.
    start: usize,
    /// Bytes stored; none when the type is not supported, so that its size is unknown.
    len: Option<usize>,
}

impl GgufFile {
    /// Maps and parses the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is not GGUF 2 or 3 in little-endian, is truncated
    /// or inconsistent, or passes a limit. A tensor of an unsupported type is no
    /// error until it is read.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(FileBytes::map(path)?).map_err(|error| error.in_file(path))
    }

    /// Parses bytes that hold a whole file.
    ///
    /// # Errors
    /// As [`GgufFile::open`].
    pub fn parse(bytes: FileBytes) -> Result<Self> {
        let header::Header { metadata, tensors } = header::read(bytes.as_slice())?;
        let index = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        Ok(Self { bytes, metadata, tensors, index })
    }

    /// The key-value pairs of the header.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn tensor(&self, name: &str) -> Result<&GgufTensor> {
        self.find(name).ok_or_else(|| Error::missing_tensor(name))
    }

    /// The tensor called `name`, if there is one.
    pub fn find(&self, name: &str) -> Option<&GgufTensor> {
        self.index.get(name).map(|&i| &self.tensors[i])
    }

    /// The values of the tensor called `name`, row-major in its `shape`.
    ///
    /// # Errors
    /// When there is no such tensor or its type is not supported.
    pub fn dequantise(&self, name: &str) -> Result<Vec<f32>> {
        // Asked first, so that a tensor of unknown size never sizes an allocation.
        let (tensor, _, _) = self.readable(name)?;
        let mut values = vec![0.0; tensor.num_values];
        self.dequantise_into(name, &mut values)?;
        Ok(values)
    }

    /// Writes the values of the tensor called `name` into `values`, row-major.
    ///
    /// # Errors
    /// When there is no such tensor, its type is not supported, or `values` has
    /// another length than the tensor has values.
    pub fn dequantise_into(&self, name: &str, values: &mut [f32]) -> Result<()> {
        let (tensor, format, bytes) = self.readable(name)?;
        if values.len() != tensor.num_values {
            return Err(Error::shape(format!(
                "tensor `{name}` has {} values, the buffer holds {}",
                tensor.num_values,
                values.len()
            )));
        }
        let blocks_per_task = VALUES_PER_TASK / format.values;
        values
            .par_chunks_mut(blocks_per_task * format.values)
            .zip(bytes.par_chunks(blocks_per_task * format.bytes))
            .for_each(|(values, bytes)| (format.decode)(bytes, values));
        Ok(())
    }

    /// The integers, scales and offsets of the matrix called `name`; none where it is
    /// stored in floating point or is no matrix.
    ///
    /// # Errors
    /// When there is no such tensor or its type is not supported.
    pub fn quantised(&self, name: &str) -> Result<Option<QuantisedTensor>> {
        let (tensor, format, bytes) = self.readable(name)?;
        let &[rows, columns] = tensor.shape.as_slice() else { return Ok(None) };
        Ok(blocks::read(tensor.tensor_type, format, ([rows, columns], bytes)))
    }

    fn readable(&self, name: &str) -> Result<(&GgufTensor, BlockFormat, &[u8])> {
        let tensor = self.tensor(name)?;
        let (Some(format), Some(len)) = (tensor.tensor_type.block_format(), tensor.len) else {
            return Err(Error::unsupported(format!(
                "tensor `{name}` has type {}; supported are {}",
                tensor.tensor_type,
                quant::SUPPORTED
            )));
        };
        // The header reader has checked the range; asking again costs nothing
        // and keeps this function free of panics whatever happens above.
        let range = tensor.start..tensor.start.saturating_add(len);
        let bytes = self.bytes.as_slice().get(range);
        let bytes = bytes
            .ok_or_else(|| Error::malformed(format!("tensor `{name}` lies outside of the file")))?;
        Ok((tensor, format, bytes))
    }
}
