//! The description of a decoder: what `config.json` or GGUF metadata say,
//! checked, and written back as a `config.json`.
//!
//! Field names are those of Hugging Face `config.json`. A setting that changes
//! what the model computes and that the decoder does not have is refused by
//! name, never ignored.

mod from_gguf;
mod hugging_face;
#[cfg(test)]
mod tests;

use std::path::Path;

pub(crate) use from_gguf::token_id as gguf_token_id;
pub(crate) use hugging_face::token_ids as json_token_ids;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::gguf::GgufFile;
use crate::json;
use crate::limits::{
    MAX_CONTEXT, MAX_HEAD_DIM, MAX_HEADS, MAX_JSON_BYTES, MAX_LAYERS, MAX_VOCABULARY, MAX_WIDTH,
};

/// The families of decoder that can be described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Llama and everything of its shape, SmolLM2 among it: no biases.
    Llama,
    /// Qwen2 and Qwen2.5: biases on the query, key and value projections.
    Qwen2,
    /// Qwen3: RMS norms on the heads of queries and keys.
    Qwen3,
}

/// Shapes and constants of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides the number of query heads.
    pub num_key_value_heads: usize,
    /// Width of one head; even. `num_attention_heads · head_dim` may differ from `hidden_size`.
    pub head_dim: usize,
    /// Added to the mean square before its root in every RMS norm.
    pub rms_norm_eps: f64,
    /// Base of the rotation frequencies.
    pub rope_theta: f64,
    /// How the rotation frequencies are changed for long contexts, if they are.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output matrix is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Number of rows of the embedding matrix.
    pub vocab_size: usize,
    /// Longest sequence the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Token that begins a sequence, if the model names one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence.
    pub eos_token_ids: Vec<u32>,
    /// Token that pads a batch, if the model names one.
    pub pad_token_id: Option<u32>,
}

/// Llama-3 scaling of rotation frequencies: long wavelengths are stretched by
/// `factor`, short ones are kept, those between are interpolated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeScaling {
    /// How much long wavelengths are stretched.
    pub factor: f64,
    /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are stretched.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept.
    pub high_freq_factor: f64,
    /// Context length before the extension, in tokens.
    pub original_max_position_embeddings: usize,
}

impl ModelConfig {
    /// Reads the `config.json` at `path`.
    ///
    /// # Errors
    /// When it is unreadable, describes another kind of model, lacks a field or
    /// uses a setting that is not supported; the sentence names the field.
    pub fn read(path: &Path) -> Result<Self> {
        let object = json::read_object(path, MAX_JSON_BYTES)?;
        Self::from_json(&object).map_err(|error| error.in_file(path))
    }

    /// Takes the description out of the object of a `config.json`.
    ///
    /// # Errors
    /// As [`ModelConfig::read`].
    pub fn from_json(object: &Map<String, Value>) -> Result<Self> {
        let config = hugging_face::read(object)?;
        config.validate()?;
        Ok(config)
    }

    /// Takes the description out of the metadata of a GGUF file.
    ///
    /// # Errors
    /// When the architecture is another one, a key is missing or has a wrong
    /// type, or a setting is not supported.
    pub fn from_gguf(file: &GgufFile) -> Result<Self> {
        let config = from_gguf::read(file)?;
        config.validate()?;
        Ok(config)
    }

    /// A `config.json` that `transformers` loads; `torch_dtype` is the type of
    /// the weights beside it, `float32` or `bfloat16`.
    pub fn to_json(&self, torch_dtype: &str) -> Map<String, Value> {
        hugging_face::write(self, torch_dtype)
    }

    /// Whether query, key and value projections have a bias.
    pub fn qkv_bias(&self) -> bool {
        self.architecture == Architecture::Qwen2
    }

    /// Whether the heads of queries and keys are normalised.
    pub fn qk_norm(&self) -> bool {
        self.architecture == Architecture::Qwen3
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads together, which is that of the values too.
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Rotation frequencies in radians per position, `head_dim / 2` of them:
    /// `rope_theta^(−2i / head_dim)`, then [`RopeScaling::apply`].
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        let exponent = |i: usize| -2.0 * i as f64 / self.head_dim as f64;
        (0..self.head_dim / 2)
            .map(|i| self.rope_theta.powf(exponent(i)))
            .map(|frequency| match &self.rope_scaling {
                Some(scaling) => scaling.apply(frequency),
                None => frequency,
            })
            .collect()
    }

    fn validate(&self) -> Result<()> {
        self.validate_sizes()?;
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(Error::malformed(format!(
                "`num_attention_heads` ({}) is no multiple of `num_key_value_heads` ({})",
                self.num_attention_heads, self.num_key_value_heads
            )));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(Error::malformed(format!("`head_dim` ({}) is odd", self.head_dim)));
        }
        positive("rms_norm_eps", self.rms_norm_eps)?;
        positive("rope_theta", self.rope_theta)?;
        self.rope_scaling.iter().try_for_each(RopeScaling::validate)
    }

    fn validate_sizes(&self) -> Result<()> {
        let sizes = [
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, MAX_HEADS),
            ("num_key_value_heads", self.num_key_value_heads, MAX_HEADS),
            ("head_dim", self.head_dim, MAX_HEAD_DIM),
            ("vocab_size", self.vocab_size, MAX_VOCABULARY),
            ("max_position_embeddings", self.max_position_embeddings, MAX_CONTEXT),
        ];
        for (field, size, limit) in sizes {
            if size == 0 {
                return Err(Error::malformed(format!("`{field}` is 0")));
            }
            if size > limit {
                return Err(Error::limit(&format!("`{field}`"), size, limit as u64));
            }
        }
        Ok(())
    }
}

impl RopeScaling {
    /// The scaled form of a rotation frequency in radians per position.
    ///
    /// With wavelength `w = 2π / frequency` and original context `c`: unchanged
    /// for `w < c / high`, divided by `factor` for `w > c / low`, and in between
    /// `(1 − s) · frequency / factor + s · frequency` with
    /// `s = (c / w − low) / (high − low)`. Source: the Llama 3.1 release.
    pub fn apply(&self, frequency: f64) -> f64 {
        let wavelength = 2.0 * std::f64::consts::PI / frequency;
        let turns = self.original_max_position_embeddings as f64 / wavelength;
        if turns > self.high_freq_factor {
            return frequency;
        }
        if turns < self.low_freq_factor {
            return frequency / self.factor;
        }
        let smooth =
            (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor);
        (1.0 - smooth) * frequency / self.factor + smooth * frequency
    }

    fn validate(&self) -> Result<()> {
        positive("rope_scaling.factor", self.factor)?;
        positive("rope_scaling.low_freq_factor", self.low_freq_factor)?;
        positive("rope_scaling.high_freq_factor", self.high_freq_factor)?;
        if self.high_freq_factor <= self.low_freq_factor {
            return Err(Error::malformed(
                "`rope_scaling.high_freq_factor` should be larger than `low_freq_factor`",
            ));
        }
        let context = self.original_max_position_embeddings;
        if context == 0 || context > MAX_CONTEXT {
            let field = "rope_scaling.original_max_position_embeddings";
            return Err(Error::malformed(format!("`{field}` ({context}) is out of range")));
        }
        Ok(())
    }
}

fn positive(field: &str, number: f64) -> Result<()> {
    if number.is_finite() && number > 0.0 {
        return Ok(());
    }
    Err(Error::malformed(format!("`{field}` is {number}; a positive number was expected")))
}
