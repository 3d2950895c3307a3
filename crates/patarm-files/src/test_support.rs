//! What several test modules need: paths of shared test data, tiny models and
//! a deterministic corpus of damaged files.

use std::path::{Path, PathBuf};

use crate::config::{Architecture, ModelConfig};
use crate::error::Result;
use crate::gguf_writer::GgufWriter;
use crate::weights::WeightSource;

/// A path in the shared `testdata` folder.
pub(crate) fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(path)
}

/// Calls `open` with damaged copies of `bytes`: cut at every 16th byte, and with
/// one to four bytes replaced, from a fixed seed. The call itself must not panic.
///
/// Returns how many copies were refused.
pub(crate) fn damage(bytes: &[u8], mut open: impl FnMut(Vec<u8>) -> Result<()>) -> usize {
    let mut refused = 0;
    for end in (0..bytes.len()).step_by(16) {
        refused += usize::from(open(bytes[..end].to_vec()).is_err());
    }
    let mut state = 0x5eed;
    for _ in 0..4_000 {
        let mut copy = bytes.to_vec();
        for _ in 0..=next(&mut state) % 4 {
            let position = next(&mut state) as usize % copy.len();
            copy[position] = next(&mut state) as u8;
        }
        refused += usize::from(open(copy).is_err());
    }
    refused
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The metadata that describes `config`, under the keys of its architecture.
pub(crate) fn gguf_metadata(config: &ModelConfig) -> GgufWriter {
    let prefix = match config.architecture {
        Architecture::Llama => "llama",
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
    };
    let mut writer = GgufWriter::new();
    writer.metadata("general.architecture", prefix);
    for (key, number) in [
        ("block_count", config.num_hidden_layers),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
        ("attention.key_length", config.head_dim),
    ] {
        writer.metadata(&format!("{prefix}.{key}"), number as u32);
    }
    let float = |key: &str| format!("{prefix}.{key}");
    writer.metadata(&float("rope.freq_base"), config.rope_theta as f32);
    writer.metadata(&float("attention.layer_norm_rms_epsilon"), config.rms_norm_eps as f32);
    writer.metadata("tokenizer.ggml.bos_token_id", config.bos_token_id.unwrap_or(0));
    writer.metadata("tokenizer.ggml.eos_token_id", config.eos_token_ids[0]);
    writer.metadata("tokenizer.ggml.padding_token_id", config.pad_token_id.unwrap_or(0));
    writer
}

/// The model as a GGUF converter writes it: its names, and for Llama the rows of
/// queries and keys reordered for interleaved rotation.
pub(crate) fn as_gguf(config: &ModelConfig, weights: &WeightSource) -> GgufWriter {
    let mut writer = gguf_metadata(config);
    for name in weights.names() {
        let mut tensor = weights.read(name).unwrap();
        let heads = match name {
            _ if config.architecture != Architecture::Llama => 0,
            _ if name.contains("q_proj") => config.num_attention_heads,
            _ if name.contains("k_proj") => config.num_key_value_heads,
            _ => 0,
        };
        if heads > 0 {
            tensor.values = interleaved(&tensor.values, tensor.shape[0], heads);
        }
        writer.tensor_f32(&gguf_name(name), &tensor.shape, &tensor.values).unwrap();
    }
    writer
}

/// Row `2i + part` of a head is its row `part · half + i`.
fn interleaved(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let width = values.len() / rows;
    let half = rows / heads / 2;
    let mut out = Vec::new();
    for head in 0..heads {
        for i in 0..half {
            for part in 0..2 {
                let row = head * 2 * half + part * half + i;
                out.extend_from_slice(&values[row * width..(row + 1) * width]);
            }
        }
    }
    out
}

fn gguf_name(name: &str) -> String {
    [
        ("model.layers.", "blk."),
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ]
    .iter()
    .fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}
