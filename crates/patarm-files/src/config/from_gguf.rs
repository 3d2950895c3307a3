//! The description of a decoder from GGUF metadata.

use super::{Architecture, ModelConfig, RopeScaling};
use crate::error::{Error, Result};
use crate::gguf::{GgufFile, Metadata};

/// Tensor with one divisor per rotation frequency, in files of models whose
/// frequencies are scaled.
const FREQUENCY_DIVISORS: &str = "rope_freqs.weight";

/// Largest relative difference between stored and recomputed divisors.
const DIVISOR_TOLERANCE: f64 = 1e-4;

/// Keys of one architecture: `llama.block_count` and so on.
struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'static str,
}

/// Takes the description out of the metadata; ranges are checked by the caller.
pub(super) fn read(file: &GgufFile) -> Result<ModelConfig> {
    let (architecture, prefix) = architecture(file.metadata())?;
    let keys = Keys { metadata: file.metadata(), prefix };
    refuse_unsupported(&keys, file, architecture)?;
    let hidden_size = keys.required_size("embedding_length")?;
    let num_attention_heads = keys.required_size("attention.head_count")?;
    let head_dim = head_dim(&keys, hidden_size, num_attention_heads)?;
    let mut config = ModelConfig {
        architecture,
        hidden_size,
        intermediate_size: keys.required_size("feed_forward_length")?,
        num_hidden_layers: keys.required_size("block_count")?,
        num_attention_heads,
        num_key_value_heads: keys.size("attention.head_count_kv")?.unwrap_or(num_attention_heads),
        head_dim,
        rms_norm_eps: keys.required_float("attention.layer_norm_rms_epsilon")?,
        rope_theta: keys.float("rope.freq_base")?.unwrap_or(10_000.0),
        rope_scaling: None,
        tie_word_embeddings: file.find("output.weight").is_none(),
        vocab_size: vocab_size(file)?,
        max_position_embeddings: keys.required_size("context_length")?,
        bos_token_id: token_id(file.metadata(), "bos")?,
        eos_token_ids: token_id(file.metadata(), "eos")?.into_iter().collect(),
        pad_token_id: token_id(file.metadata(), "padding")?,
    };
    config.rope_scaling = rope_scaling(file, &config)?;
    Ok(config)
}

fn architecture(metadata: &Metadata) -> Result<(Architecture, &'static str)> {
    match metadata.string("general.architecture")? {
        Some("llama") => Ok((Architecture::Llama, "llama")),
        Some("qwen2") => Ok((Architecture::Qwen2, "qwen2")),
        Some("qwen3") => Ok((Architecture::Qwen3, "qwen3")),
        Some(other) => Err(Error::unsupported(format!(
            "`general.architecture` is `{other}`; supported are llama, qwen2 and qwen3"
        ))),
        None => Err(Error::malformed("the metadata key `general.architecture` is missing")),
    }
}

fn refuse_unsupported(keys: &Keys<'_>, file: &GgufFile, architecture: Architecture) -> Result<()> {
    for key in ["attention.sliding_window", "expert_count"] {
        if keys.size(key)?.unwrap_or(0) != 0 {
            let prefix = keys.prefix;
            return Err(Error::unsupported(format!(
                "`{prefix}.{key}` is set, which is not supported"
            )));
        }
    }
    let scaling = keys.metadata.string(&keys.name("rope.scaling.type"))?;
    if let Some(other) = scaling.filter(|&kind| kind != "none") {
        return Err(Error::unsupported(format!(
            "`{}.rope.scaling.type` is `{other}`, which is not supported",
            keys.prefix
        )));
    }
    let biased = architecture != Architecture::Qwen2;
    if biased && file.find("blk.0.attn_q.bias").is_some() {
        return Err(Error::unsupported(format!(
            "tensor `blk.0.attn_q.bias`: biases are not supported for {}",
            keys.prefix
        )));
    }
    Ok(())
}

fn head_dim(keys: &Keys<'_>, hidden_size: usize, num_attention_heads: usize) -> Result<usize> {
    let head_dim = match keys.size("attention.key_length")? {
        Some(width) => width,
        None => hidden_size.checked_div(num_attention_heads).unwrap_or(0),
    };
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = keys.size(key)?.filter(|&width| width != head_dim) {
            return Err(Error::unsupported(format!(
                "`{}.{key}` is {other}, but heads are {head_dim} wide; this is not supported",
                keys.prefix
            )));
        }
    }
    Ok(head_dim)
}

/// Rows of the embedding matrix, which is what ids index; the metadata may
/// count fewer tokens when the matrix is padded.
fn vocab_size(file: &GgufFile) -> Result<usize> {
    match file.tensor("token_embd.weight")?.shape.as_slice() {
        [rows, _] => Ok(*rows),
        shape => Err(Error::malformed(format!(
            "tensor `token_embd.weight` has shape {shape:?}; two dimensions were expected"
        ))),
    }
}

/// The id of a special token, `tokenizer.ggml.{which}_token_id`.
pub(crate) fn token_id(metadata: &Metadata, which: &str) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{which}_token_id");
    let Some(id) = metadata.integer(&key)? else {
        return Ok(None);
    };
    u32::try_from(id).map(Some).map_err(|_| Error::malformed(format!("`{key}` is {id}, too large")))
}

/// GGUF stores the divisors that Llama-3 scaling gives, not its constants; they
/// are recovered by trying those of the published models.
fn rope_scaling(file: &GgufFile, config: &ModelConfig) -> Result<Option<RopeScaling>> {
    if file.find(FREQUENCY_DIVISORS).is_none() {
        return Ok(None);
    }
    let divisors = file.dequantise(FREQUENCY_DIVISORS)?;
    let plain = config.inverse_frequencies();
    if divisors.len() != plain.len() {
        return Err(Error::malformed(format!(
            "tensor `{FREQUENCY_DIVISORS}` has {} values; {} were expected",
            divisors.len(),
            plain.len()
        )));
    }
    let factor = divisors.iter().copied().fold(1.0, f32::max);
    let scaling = RopeScaling {
        factor: factor.into(),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8_192,
    };
    let fits = plain.iter().zip(&divisors).all(|(&frequency, &divisor)| {
        let expected = frequency / scaling.apply(frequency);
        (expected - f64::from(divisor)).abs() <= DIVISOR_TOLERANCE * expected
    });
    if !fits {
        return Err(Error::unsupported(format!(
            "tensor `{FREQUENCY_DIVISORS}` does not hold the scaling of Llama 3.1 or 3.2, \
             the only one that is supported"
        )));
    }
    Ok(Some(scaling))
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn size(&self, key: &str) -> Result<Option<usize>> {
        let name = self.name(key);
        let Some(number) = self.metadata.integer(&name)? else {
            return Ok(None);
        };
        let too_large = |_| Error::malformed(format!("`{name}` is {number}, too large"));
        usize::try_from(number).map(Some).map_err(too_large)
    }

    fn required_size(&self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| self.missing(key))
    }

    fn float(&self, key: &str) -> Result<Option<f64>> {
        self.metadata.float(&self.name(key))
    }

    fn required_float(&self, key: &str) -> Result<f64> {
        self.float(key)?.ok_or_else(|| self.missing(key))
    }

    fn missing(&self, key: &str) -> Error {
        Error::malformed(format!("the metadata key `{}` is missing", self.name(key)))
    }
}
