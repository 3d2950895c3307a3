//! `patarm model inspect`: what a model is, without loading its weights.

use std::collections::BTreeMap;
use std::path::Path;

use patarm_files::{
    Architecture, GgufFile, ModelConfig, ModelFiles, SafetensorsSet, TokenizerSource, open_model,
};
use patarm_models::{DecoderShape, checkpoint};
use patarm_text::Tokenizer;
use serde::Serialize;

use crate::cli::Global;
use crate::exit::{Code, failure};
use crate::output;
use crate::resolve::{self, Located};

/// What `patarm model inspect --json` prints.
#[derive(Debug, Serialize)]
struct Inspection {
    version: u32,
    path: String,
    container: &'static str,
    architecture: &'static str,
    parameters: usize,
    sizes: Sizes,
    /// Number of tensors by the type they are stored in.
    stored: BTreeMap<String, usize>,
    tokenizer: Option<TokenizerFacts>,
    adapter: Option<AdapterFacts>,
}

#[derive(Debug, Serialize)]
struct Sizes {
    layers: usize,
    hidden: usize,
    intermediate: usize,
    heads: usize,
    key_value_heads: usize,
    head_dim: usize,
    vocabulary: usize,
    max_positions: usize,
    tied_output: bool,
}

#[derive(Debug, Serialize)]
struct TokenizerFacts {
    vocabulary: usize,
    bos: Option<TokenFact>,
    eos: Vec<TokenFact>,
    pad: Option<TokenFact>,
    add_bos: bool,
    chat_template: bool,
}

#[derive(Debug, Serialize)]
struct TokenFact {
    id: u32,
    text: String,
}

#[derive(Debug, Serialize)]
struct AdapterFacts {
    path: String,
    rank: usize,
    alpha: f64,
    target_modules: Vec<String>,
}

/// Inspects a model given by path or name.
pub(super) fn run(model: &str, global: &Global) -> anyhow::Result<()> {
    let inspection = inspect(&resolve::locate(model)?)?;
    if global.json {
        return output::json(&inspection);
    }
    inspection.lines().iter().try_for_each(|line| output::line(line))
}

fn inspect(located: &Located) -> anyhow::Result<Inspection> {
    let files = open_model(&located.base)?;
    let is_folder = files.path.is_dir();
    Ok(Inspection {
        version: 1,
        path: files.path.display().to_string(),
        container: if is_folder { "safetensors" } else { "gguf" },
        architecture: architecture_name(files.config.architecture),
        parameters: num_parameters(&DecoderShape::from_config(&files.config)),
        sizes: Sizes::of(&files.config),
        stored: stored_types(&files)?,
        tokenizer: tokenizer_facts(&files, &located.base)?,
        adapter: located.adapter.as_deref().map(adapter_facts).transpose()?,
    })
}

fn architecture_name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Llama => "llama",
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
    }
}

/// Every number the decoder learns, norms and biases included; a tied output
/// matrix counts once.
fn num_parameters(shape: &DecoderShape) -> usize {
    let table = shape.vocab * shape.hidden;
    let tables = if shape.tied { table } else { 2 * table };
    let biases = if shape.qkv_bias { shape.query_width() + 2 * shape.key_width() } else { 0 };
    let head_norms = if shape.qk_norm { 2 * shape.head_dim } else { 0 };
    let vectors = shape.layers * (2 * shape.hidden + biases + head_norms) + shape.hidden;
    tables + shape.block_parameters() + vectors
}

/// Number of tensors by stored type.
pub(super) fn stored_types(files: &ModelFiles) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    let mut count = |name: String| *counts.entry(name).or_insert(0) += 1;
    if files.path.is_dir() {
        let set = SafetensorsSet::open_folder(&files.path)?;
        set.tensors().for_each(|(_, tensor)| count(tensor.dtype.clone()));
    } else {
        let file = GgufFile::open(&files.path)?;
        file.tensors().iter().for_each(|tensor| count(tensor.tensor_type.to_string()));
    }
    Ok(counts)
}

fn tokenizer_facts(files: &ModelFiles, base: &Path) -> anyhow::Result<Option<TokenizerFacts>> {
    if matches!(files.tokenizer, TokenizerSource::Missing) {
        return Ok(None);
    }
    let tokenizer =
        Tokenizer::open(base).map_err(|error| failure(Code::Model, error.to_string()))?;
    let fact = |id: u32| TokenFact { id, text: tokenizer.token_text(id).unwrap_or_default() };
    let special = tokenizer.special_ids();
    Ok(Some(TokenizerFacts {
        vocabulary: tokenizer.vocab_size(),
        bos: special.bos.map(fact),
        eos: special.eos.iter().copied().map(fact).collect(),
        pad: special.pad.map(fact),
        add_bos: special.add_bos,
        chat_template: tokenizer.chat_template().is_some(),
    }))
}

fn adapter_facts(folder: &Path) -> anyhow::Result<AdapterFacts> {
    let (config, _) = checkpoint::read_adapter_config(folder)?;
    Ok(AdapterFacts {
        path: folder.display().to_string(),
        rank: config.rank,
        alpha: config.alpha,
        target_modules: config.target_modules,
    })
}

impl Sizes {
    fn of(config: &ModelConfig) -> Self {
        Self {
            layers: config.num_hidden_layers,
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            heads: config.num_attention_heads,
            key_value_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            vocabulary: config.vocab_size,
            max_positions: config.max_position_embeddings,
            tied_output: config.tie_word_embeddings,
        }
    }
}

impl Inspection {
    fn lines(&self) -> Vec<String> {
        let (path, sizes) = (&self.path, &self.sizes);
        let output =
            if sizes.tied_output { "tied to the embedding" } else { "a matrix of its own" };
        let stored: Vec<String> =
            self.stored.iter().map(|(name, count)| format!("{count} × {name}")).collect();
        let mut lines = vec![
            format!("path           {path}"),
            format!("container      {}", self.container),
            format!("architecture   {}", self.architecture),
            format!("parameters     {}", self.parameters),
            format!(
                "layers         {} of width {}, feed-forward {}",
                sizes.layers, sizes.hidden, sizes.intermediate
            ),
            format!(
                "attention      {} heads of {}, {} key-value heads",
                sizes.heads, sizes.head_dim, sizes.key_value_heads
            ),
            format!("vocabulary     {}, output {output}", sizes.vocabulary),
            format!("positions      {}", sizes.max_positions),
            format!("stored tensors {}", stored.join(", ")),
        ];
        lines.extend(tokenizer_lines(self.tokenizer.as_ref()));
        if let Some(adapter) = &self.adapter {
            lines.push(format!(
                "adapter        {}: rank {}, alpha {}, on {}",
                adapter.path,
                adapter.rank,
                adapter.alpha,
                adapter.target_modules.join(", ")
            ));
        }
        lines
    }
}

fn tokenizer_lines(facts: Option<&TokenizerFacts>) -> Vec<String> {
    let Some(facts) = facts else {
        return vec!["tokenizer      none".into()];
    };
    let eos: Vec<String> = facts.eos.iter().map(TokenFact::shown).collect();
    let bos = facts.bos.as_ref().map_or("none".into(), TokenFact::shown);
    let template = if facts.chat_template { "present" } else { "absent" };
    vec![
        format!("tokenizer      {} entries", facts.vocabulary),
        format!(
            "begin token    {bos}{}",
            if facts.add_bos { ", put before every text" } else { "" }
        ),
        format!("end tokens     {}", if eos.is_empty() { "none".into() } else { eos.join(", ") }),
        format!("chat template  {template}"),
    ]
}

impl TokenFact {
    fn shown(&self) -> String {
        format!("{:?} ({})", self.text, self.id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use patarm_models::Decoder;
    use patarm_models::kernels::Cpu;

    use super::*;

    fn shape(tied: bool, qkv_bias: bool, qk_norm: bool) -> DecoderShape {
        DecoderShape {
            hidden: 12,
            intermediate: 20,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 6,
            vocab: 17,
            norm_eps: 1e-5,
            inverse_frequencies: vec![1.0, 0.1, 0.01],
            max_positions: 8,
            qkv_bias,
            qk_norm,
            tied,
        }
    }

    #[test]
    fn parameters_are_counted_as_the_decoder_holds_them() {
        for (tied, bias, norm) in [(true, false, false), (false, true, false), (true, false, true)]
        {
            let shape = shape(tied, bias, norm);
            let decoder = Decoder::random(Arc::new(Cpu::new(1)), shape.clone(), 0);
            assert_eq!(num_parameters(&shape), decoder.parameters.num_elements());
        }
    }
}
