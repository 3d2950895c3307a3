//! Opening what a user points at: a folder in Hugging Face layout or a GGUF file.

use std::path::{Path, PathBuf};

use crate::config::{ModelConfig, gguf_token_id, json_token_ids};
use crate::error::{Error, ErrorKind, Result};
use crate::gguf::{GgufFile, Metadata};
use crate::json;
use crate::limits::MAX_JSON_BYTES;
use crate::safetensors_reader::SafetensorsSet;
use crate::weights::WeightSource;

/// An open model: what it is, its weights, and where its tokenizer is.
#[derive(Debug)]
pub struct ModelFiles {
    /// The folder or file that was opened.
    pub path: PathBuf,
    /// Shapes and constants. `eos_token_ids` also holds those of
    /// `generation_config.json`, where there is one.
    pub config: ModelConfig,
    /// The weights.
    pub weights: WeightSource,
    /// Where the tokenizer is.
    pub tokenizer: TokenizerSource,
}

/// Where the data of a tokenizer are.
#[derive(Clone, Debug)]
pub enum TokenizerSource {
    /// Files in the model folder.
    Files(TokenizerFiles),
    /// The vocabulary inside a GGUF file.
    Gguf(Box<GgufTokenizer>),
    /// The folder has no `tokenizer.json`, or the GGUF file no vocabulary.
    Missing,
}

/// The tokenizer files of a folder; the optional ones exist when given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// `tokenizer_config.json`: special tokens and often the chat template.
    pub tokenizer_config: Option<PathBuf>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<PathBuf>,
    /// `chat_template.jinja`, which newer models use instead.
    pub chat_template: Option<PathBuf>,
    /// `generation_config.json`.
    pub generation_config: Option<PathBuf>,
}

/// The tokenizer stored in GGUF metadata, as it stands there.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufTokenizer {
    /// `tokenizer.ggml.model`: `gpt2` is byte-level BPE, `llama` is SentencePiece.
    pub model: String,
    /// `tokenizer.ggml.pre`: which rule splits text before BPE.
    pub pre: Option<String>,
    /// The tokens; the position is the id.
    pub tokens: Vec<String>,
    /// BPE merges as `left right`, best first.
    pub merges: Vec<String>,
    /// Kind of each token, empty or as long as `tokens`: 1 normal, 2 unknown,
    /// 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// SentencePiece scores, empty or as long as `tokens`.
    pub scores: Vec<f32>,
    /// Token that begins a sequence.
    pub bos_token_id: Option<u32>,
    /// Token that ends a sequence.
    pub eos_token_id: Option<u32>,
    /// Token that stands for what cannot be encoded.
    pub unknown_token_id: Option<u32>,
    /// Token that pads.
    pub padding_token_id: Option<u32>,
    /// Whether text is meant to begin with the begin token.
    pub add_bos_token: bool,
    /// Whether text is meant to end with the end token.
    pub add_eos_token: bool,
    /// Whether a space is put in front of the text, when the file says so.
    pub add_space_prefix: Option<bool>,
    /// The Jinja chat template.
    pub chat_template: Option<String>,
}

/// Opens a folder in Hugging Face layout, a `.gguf` file, or a folder without
/// `config.json` that holds exactly one `.gguf` file.
///
/// # Errors
/// When the path does not exist, a file is broken, or the model uses something
/// that is not supported; the sentence names file and field or tensor. A
/// missing tokenizer is no error: token ids may be all a caller needs.
pub fn open_model(path: &Path) -> Result<ModelFiles> {
    if !path.exists() {
        let sentence = format!("there is no model at {}", path.display());
        return Err(Error::new(ErrorKind::NotFound, sentence));
    }
    if !path.is_dir() {
        return open_gguf(path);
    }
    if path.join("config.json").exists() {
        return open_folder(path);
    }
    if path.join("adapter_config.json").exists() {
        return Err(Error::unsupported(format!(
            "{} is an adapter; open the model it belongs to",
            path.display()
        )));
    }
    match gguf_files(path)?.as_slice() {
        [only] => open_gguf(only),
        [] => Err(Error::new(
            ErrorKind::NotFound,
            format!("{} holds neither config.json nor a .gguf file", path.display()),
        )),
        several => Err(Error::malformed(format!(
            "{} holds {} .gguf files; name the one to open",
            path.display(),
            several.len()
        ))),
    }
}

fn open_folder(folder: &Path) -> Result<ModelFiles> {
    let mut config = ModelConfig::read(&folder.join("config.json"))?;
    let generation = folder.join("generation_config.json");
    if generation.exists() {
        add_eos_tokens(&mut config, &generation)?;
    }
    let weights = WeightSource::from_safetensors(SafetensorsSet::open_folder(folder)?, &config);
    let tokenizer = tokenizer_files(folder);
    Ok(ModelFiles { path: folder.to_owned(), config, weights, tokenizer })
}

fn open_gguf(path: &Path) -> Result<ModelFiles> {
    let file = GgufFile::open(path)?;
    let in_file = |error: Error| error.in_file(path);
    let config = ModelConfig::from_gguf(&file).map_err(in_file)?;
    let tokenizer = match GgufTokenizer::read(file.metadata()).map_err(in_file)? {
        Some(tokenizer) => TokenizerSource::Gguf(Box::new(tokenizer)),
        None => TokenizerSource::Missing,
    };
    let weights = WeightSource::from_gguf(file, &config).map_err(in_file)?;
    Ok(ModelFiles { path: path.to_owned(), config, weights, tokenizer })
}

fn gguf_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let refused = |cause| Error::io("list", folder, &cause);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        if path.extension().is_some_and(|extension| extension == "gguf") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Chat models often name their end-of-turn token only in `generation_config.json`.
fn add_eos_tokens(config: &mut ModelConfig, path: &Path) -> Result<()> {
    let object = json::read_object(path, MAX_JSON_BYTES)?;
    let ids = json_token_ids(&object, "eos_token_id").map_err(|error| error.in_file(path))?;
    for id in ids {
        if !config.eos_token_ids.contains(&id) {
            config.eos_token_ids.push(id);
        }
    }
    Ok(())
}

fn tokenizer_files(folder: &Path) -> TokenizerSource {
    let existing = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    let Some(tokenizer) = existing("tokenizer.json") else {
        return TokenizerSource::Missing;
    };
    TokenizerSource::Files(TokenizerFiles {
        tokenizer,
        tokenizer_config: existing("tokenizer_config.json"),
        special_tokens_map: existing("special_tokens_map.json"),
        chat_template: existing("chat_template.jinja"),
        generation_config: existing("generation_config.json"),
    })
}

impl GgufTokenizer {
    /// Takes the tokenizer out of GGUF metadata; none when there is no vocabulary.
    ///
    /// # Errors
    /// When a key has a wrong type or lists of different lengths belong together.
    pub fn read(metadata: &Metadata) -> Result<Option<Self>> {
        let Some(model) = metadata.string("tokenizer.ggml.model")? else {
            return Ok(None);
        };
        let Some(tokens) = metadata.strings("tokenizer.ggml.tokens")? else {
            return Ok(None);
        };
        let boolean = |key| Ok(metadata.boolean(key)?.unwrap_or(false));
        let token_types = metadata.i32s("tokenizer.ggml.token_type")?.unwrap_or_default();
        let scores = metadata.f32s("tokenizer.ggml.scores")?.unwrap_or_default();
        for (key, len) in [("token_type", token_types.len()), ("scores", scores.len())] {
            if len != 0 && len != tokens.len() {
                return Err(Error::malformed(format!(
                    "`tokenizer.ggml.{key}` has {len} entries for {} tokens",
                    tokens.len()
                )));
            }
        }
        Ok(Some(Self {
            model: model.to_owned(),
            pre: metadata.string("tokenizer.ggml.pre")?.map(str::to_owned),
            tokens: tokens.to_vec(),
            merges: metadata.strings("tokenizer.ggml.merges")?.unwrap_or_default().to_vec(),
            token_types: token_types.to_vec(),
            scores: scores.to_vec(),
            bos_token_id: gguf_token_id(metadata, "bos")?,
            eos_token_id: gguf_token_id(metadata, "eos")?,
            unknown_token_id: gguf_token_id(metadata, "unknown")?,
            padding_token_id: gguf_token_id(metadata, "padding")?,
            add_bos_token: boolean("tokenizer.ggml.add_bos_token")?,
            add_eos_token: boolean("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: metadata.boolean("tokenizer.ggml.add_space_prefix")?,
            chat_template: metadata.string("tokenizer.chat_template")?.map(str::to_owned),
        }))
    }
}

#[cfg(test)]
mod tests;
