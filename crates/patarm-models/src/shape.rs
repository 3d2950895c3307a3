//! The sizes and switches of a decoder.

use patarm_files::ModelConfig;

/// What the decoder needs to know of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderShape {
    /// Model width `d`.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Vocabulary size `v`.
    pub vocab: usize,
    /// Added to mean squares in every norm.
    pub norm_eps: f32,
    /// Rotary frequencies, one per pair, scaling already applied.
    pub inverse_frequencies: Vec<f32>,
    /// Longest sequence.
    pub max_positions: usize,
    /// Biases on q, k and v (Qwen2).
    pub qkv_bias: bool,
    /// Per-head norms of q and k (Qwen3).
    pub qk_norm: bool,
    /// The embedding is also the output matrix.
    pub tied: bool,
}

impl DecoderShape {
    /// Reads a configuration, which the file crate has validated.
    #[must_use]
    pub fn from_config(config: &ModelConfig) -> Self {
        Self {
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            vocab: config.vocab_size,
            norm_eps: config.rms_norm_eps as f32,
            inverse_frequencies: config
                .inverse_frequencies()
                .into_iter()
                .map(|value| value as f32)
                .collect(),
            max_positions: config.max_position_embeddings,
            qkv_bias: config.qkv_bias(),
            qk_norm: config.qk_norm(),
            tied: config.tie_word_embeddings,
        }
    }

    /// Width of all query heads together.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together.
    #[must_use]
    pub fn key_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Parameters multiplied per token in the blocks (norms and biases aside).
    #[must_use]
    pub fn block_parameters(&self) -> usize {
        let attention = self.hidden * (2 * self.query_width() + 2 * self.key_width());
        self.layers * (attention + 3 * self.hidden * self.intermediate)
    }
}
