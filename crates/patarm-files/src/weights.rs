//! The weights of a model under Hugging Face names, whatever file they come from.
//!
//! Names are those of `LlamaForCausalLM`: `model.embed_tokens.weight`,
//! `model.layers.N.self_attn.q_proj.weight`, `model.norm.weight`,
//! `lm_head.weight` (absent when tied), … Matrices are `[out, in]`, row-major.

mod gguf_names;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::config::{Architecture, ModelConfig};
use crate::error::{Error, Result};
use crate::gguf::{BlockOffsets, GgufFile, QuantisedTensor};
use crate::safetensors_reader::SafetensorsSet;

/// Name of the output matrix, which tied models do without.
pub const LM_HEAD: &str = "lm_head.weight";

/// A tensor in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Shape, slowest dimension first.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

/// The weights of a model as `f32` under Hugging Face names.
///
/// Nothing is converted until it is read, and nothing is kept.
#[derive(Debug)]
pub struct WeightSource(Source);

#[derive(Debug)]
enum Source {
    Safetensors {
        set: SafetensorsSet,
        /// Whether `lm_head.weight` is hidden because the embedding takes its place.
        tied: bool,
    },
    Gguf {
        file: GgufFile,
        /// Hugging Face name to place in the file.
        tensors: BTreeMap<String, GgufPlace>,
    },
}

/// Where a weight lies in a GGUF file.
#[derive(Debug)]
struct GgufPlace {
    name: String,
    /// Number of heads whose rows are stored for interleaved rotation, if they are.
    interleaved_heads: Option<usize>,
}

impl WeightSource {
    /// The weights of a folder; `lm_head.weight` of a tied model is hidden.
    pub fn from_safetensors(set: SafetensorsSet, config: &ModelConfig) -> Self {
        Self(Source::Safetensors { set, tied: config.tie_word_embeddings })
    }

    /// The weights of a GGUF file. A tensor without a Hugging Face name keeps its own.
    ///
    /// # Errors
    /// When two tensors would get the same name.
    pub fn from_gguf(file: GgufFile, config: &ModelConfig) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for tensor in file.tensors() {
            let name = gguf_names::hugging_face_name(&tensor.name);
            let place = GgufPlace {
                interleaved_heads: interleaved_heads(&name, config),
                name: tensor.name.clone(),
            };
            if let Some(other) = tensors.insert(name, place) {
                return Err(Error::malformed(format!(
                    "tensors `{}` and `{}` mean the same weight",
                    other.name, tensor.name
                )));
            }
        }
        Ok(Self(Source::Gguf { file, tensors }))
    }

    /// The names of all weights, sorted.
    pub fn names(&self) -> Vec<&str> {
        match &self.0 {
            Source::Safetensors { set, .. } => {
                set.tensors().map(|(name, _)| name).filter(|name| !self.hides(name)).collect()
            }
            Source::Gguf { tensors, .. } => tensors.keys().map(String::as_str).collect(),
        }
    }

    /// Whether there is a weight called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.shape(name).is_ok()
    }

    /// The shape of the weight called `name`, slowest dimension first.
    ///
    /// # Errors
    /// When there is none.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        if self.hides(name) {
            return Err(Error::missing_tensor(name));
        }
        match &self.0 {
            Source::Safetensors { set, .. } => Ok(&set.tensor(name)?.shape),
            Source::Gguf { file, tensors } => Ok(&file.tensor(&place(tensors, name)?.name)?.shape),
        }
    }

    /// Shape and values of the weight called `name`.
    ///
    /// # Errors
    /// When there is none or its stored type cannot be read.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let shape = self.shape(name)?.to_vec();
        let values = match &self.0 {
            Source::Safetensors { set, .. } => set.read(name)?,
            Source::Gguf { file, tensors } => {
                let place = place(tensors, name)?;
                let stored = file.dequantise(&place.name)?;
                match place.interleaved_heads {
                    Some(heads) => half_split_rows(&stored, &shape, heads, name)?,
                    None => stored,
                }
            }
        };
        Ok(Tensor { shape, values })
    }

    /// The values of the weight called `name`, whose shape must be `shape`.
    ///
    /// # Errors
    /// When there is none, its shape is another one (both are named), or its
    /// stored type cannot be read.
    pub fn read_shaped(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.check_shape(name, shape)?;
        Ok(self.read(name)?.values)
    }

    /// The weight called `name` as its file quantises it; none where the file holds it
    /// in floating point. Its shape must be `shape`.
    ///
    /// # Errors
    /// As [`WeightSource::read_shaped`].
    pub fn read_quantised(&self, name: &str, shape: &[usize]) -> Result<Option<QuantisedTensor>> {
        self.check_shape(name, shape)?;
        let Source::Gguf { file, tensors } = &self.0 else { return Ok(None) };
        let place = place(tensors, name)?;
        let stored = file.quantised(&place.name)?;
        match (stored, place.interleaved_heads) {
            (Some(stored), Some(heads)) => Ok(Some(half_split_blocks(stored, heads, name)?)),
            (stored, _) => Ok(stored),
        }
    }

    fn check_shape(&self, name: &str, shape: &[usize]) -> Result<()> {
        let found = self.shape(name)?;
        if found != shape {
            return Err(Error::shape(format!(
                "tensor `{name}` has shape {found:?}; the configuration asks for {shape:?}"
            )));
        }
        Ok(())
    }

    fn hides(&self, name: &str) -> bool {
        matches!(self.0, Source::Safetensors { tied: true, .. }) && name == LM_HEAD
    }
}

fn place<'a>(tensors: &'a BTreeMap<String, GgufPlace>, name: &str) -> Result<&'a GgufPlace> {
    tensors.get(name).ok_or_else(|| Error::missing_tensor(name))
}

/// Heads of a weight whose rows a `llama` GGUF stores for interleaved rotation.
fn interleaved_heads(name: &str, config: &ModelConfig) -> Option<usize> {
    if config.architecture != Architecture::Llama {
        return None;
    }
    if name.ends_with(".self_attn.q_proj.weight") {
        Some(config.num_attention_heads)
    } else if name.ends_with(".self_attn.k_proj.weight") {
        Some(config.num_key_value_heads)
    } else {
        None
    }
}

/// Reorders the rows of each head from interleaved to half-split rotation.
///
/// Interleaved, rows `2i` and `2i + 1` of a head rotate together; half-split,
/// rows `i` and `i + head_dim / 2` do. So row `part · half + i` of the result is
/// row `2i + part` of the file.
fn half_split_rows<T: Copy>(
    stored: &[T],
    shape: &[usize],
    heads: usize,
    name: &str,
) -> Result<Vec<T>> {
    let &[rows, width] = shape else {
        return Err(Error::shape(format!("tensor `{name}` of shape {shape:?} is no matrix")));
    };
    if heads == 0 || !rows.is_multiple_of(2 * heads) {
        return Err(Error::shape(format!(
            "tensor `{name}` has {rows} rows, which {heads} heads of even width cannot share"
        )));
    }
    let head_dim = rows / heads;
    let half = head_dim / 2;
    let mut values = Vec::with_capacity(stored.len());
    for head in 0..heads {
        for part in 0..2 {
            for i in 0..half {
                let start = (head * head_dim + 2 * i + part) * width;
                values.extend_from_slice(&stored[start..start + width]);
            }
        }
    }
    Ok(values)
}

/// [`half_split_rows`] of every part of a quantised matrix.
fn half_split_blocks(stored: QuantisedTensor, heads: usize, name: &str) -> Result<QuantisedTensor> {
    let QuantisedTensor { shape, block, integers, scales, offsets } = stored;
    let numbers = [shape[0], shape[1] / block];
    let integers = half_split_rows(&integers, &shape, heads, name)?;
    let scales = half_split_rows(&scales, &numbers, heads, name)?;
    let offsets = match offsets {
        BlockOffsets::Each(each) => {
            BlockOffsets::Each(half_split_rows(&each, &numbers, heads, name)?)
        }
        centre @ BlockOffsets::Centre(_) => centre,
    };
    Ok(QuantisedTensor { shape, block, integers, scales, offsets })
}
