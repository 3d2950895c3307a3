//! Shapes that can be measured on random weights, without the model.
//!
//! Sizes from the `config.json` of HuggingFaceTB/SmolLM2-135M-Instruct and
//! Qwen/Qwen3-{0.6B,1.7B,8B}.

use patarm_files::{Architecture, ModelConfig};
use patarm_models::DecoderShape;

use crate::cli::NamedShape;

/// The shape of a name.
pub(super) fn named(shape: NamedShape) -> DecoderShape {
    DecoderShape::from_config(&config(shape))
}

fn config(shape: NamedShape) -> ModelConfig {
    match shape {
        NamedShape::Smollm2_135m => smollm2([576, 1_536, 30, 9, 3]),
        NamedShape::Qwen3_0_6b => qwen3([1_024, 3_072, 28, 16, 8], true),
        NamedShape::Qwen3_1_7b => qwen3([2_048, 6_144, 28, 16, 8], true),
        NamedShape::Qwen3_8b => qwen3([4_096, 12_288, 36, 32, 8], false),
    }
}

fn smollm2([hidden, intermediate, layers, heads, kv_heads]: [usize; 5]) -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        hidden_size: hidden,
        intermediate_size: intermediate,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim: hidden / heads,
        rms_norm_eps: 1e-5,
        rope_theta: 1e5,
        rope_scaling: None,
        tie_word_embeddings: true,
        vocab_size: 49_152,
        max_position_embeddings: 8_192,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        pad_token_id: None,
    }
}

fn qwen3(sizes: [usize; 5], tied: bool) -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen3,
        head_dim: 128,
        rms_norm_eps: 1e-6,
        rope_theta: 1e6,
        tie_word_embeddings: tied,
        vocab_size: 151_936,
        max_position_embeddings: 40_960,
        ..smollm2(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts_are_the_published_ones() {
        // Millions, output matrix counted once where it is tied: model cards.
        let published = [
            (NamedShape::Smollm2_135m, 134.5),
            (NamedShape::Qwen3_0_6b, 596.0),
            (NamedShape::Qwen3_1_7b, 1_720.5),
            (NamedShape::Qwen3_8b, 8_190.7),
        ];
        for (name, millions) in published {
            let shape = named(name);
            let vocabulary = shape.vocab * shape.hidden * if shape.tied { 1 } else { 2 };
            let count = (shape.block_parameters() + vocabulary) as f64 / 1e6;
            assert!((count - millions).abs() < 0.001 * millions, "{name:?}: {count}");
        }
    }
}
