//! Finding a model's tokenizer, end tokens and chat template on disk.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{SpecialIds, Tokenizer};
use crate::error::{Error, ErrorKind, Result};

/// Larger configuration files are refused.
const MAX_CONFIG_BYTES: u64 = 64 << 20;

/// Reads a text file of at most `limit` bytes.
pub(super) fn read_limited(path: &Path, limit: u64) -> Result<String> {
    let mut file = File::open(path).map_err(|source| Error::io("open", path, source))?;
    let mut text = String::new();
    let mut limited = Read::by_ref(&mut file).take(limit + 1);
    limited.read_to_string(&mut text).map_err(|source| Error::io("read", path, source))?;
    if text.len() as u64 > limit {
        let context = format!("{} is larger than {limit} bytes", path.display());
        return Err(Error::new(ErrorKind::Limit, context));
    }
    Ok(text)
}

pub(super) fn open(path: &Path) -> Result<Tokenizer> {
    let file = find(path)?;
    if file.extension().is_some_and(|extension| extension == "json") {
        open_json(&file)
    } else {
        open_gguf(&file)
    }
}

/// The file a path means: itself, or the folder's `tokenizer.json`, or the only
/// GGUF file of a folder without one.
fn find(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let json = path.join("tokenizer.json");
    if json.is_file() {
        return Ok(json);
    }
    let entries = std::fs::read_dir(path).map_err(|source| Error::io("list", path, source))?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|file| {
        file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
    });
    match (files.next(), files.next()) {
        (Some(only), None) => Ok(only),
        _ => {
            let context = format!(
                "{} has no tokenizer: neither tokenizer.json nor exactly one .gguf file",
                path.display()
            );
            Err(Error::new(ErrorKind::Tokenizer, context))
        }
    }
}

fn open_gguf(path: &Path) -> Result<Tokenizer> {
    let failed = |source: patarm_files::Error| {
        let context = format!("cannot use the tokenizer in {}", path.display());
        Error::with_source(ErrorKind::Tokenizer, context, source)
    };
    let file = patarm_files::GgufFile::open(path).map_err(failed)?;
    let found = patarm_files::GgufTokenizer::read(file.metadata()).map_err(failed)?;
    let Some(found) = found else {
        let context = format!("{} carries no tokenizer", path.display());
        return Err(Error::new(ErrorKind::Tokenizer, context));
    };
    Tokenizer::from_gguf_parts(found.into()).map_err(|error| {
        let context = format!("cannot use the tokenizer in {}", path.display());
        Error::with_source(error.kind(), context, error)
    })
}

fn open_json(file: &Path) -> Result<Tokenizer> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut tokenizer = Tokenizer::from_file(file)?;
    let config = read_json(&folder.join("tokenizer_config.json"))?;
    let special = special_ids(&tokenizer, folder, &config)?;
    tokenizer.set_special_ids(special)?;
    tokenizer.chat_template = chat_template(folder, &config)?;
    Ok(tokenizer)
}

/// A JSON file, or `null` where there is none.
fn read_json(path: &Path) -> Result<Value> {
    if !path.is_file() {
        return Ok(Value::Null);
    }
    let text = read_limited(path, MAX_CONFIG_BYTES)?;
    serde_json::from_str(&text).map_err(|source| {
        Error::with_source(ErrorKind::Tokenizer, format!("cannot use {}", path.display()), source)
    })
}

/// End tokens from `generation_config.json`, else `config.json`, else the
/// tokenizer's own configuration.
fn special_ids(tokenizer: &Tokenizer, folder: &Path, config: &Value) -> Result<SpecialIds> {
    let generation = read_json(&folder.join("generation_config.json"))?;
    let model = read_json(&folder.join("config.json"))?;
    let named = |name: &str| named_token(tokenizer, &config[name]);
    let listed = |name: &str| {
        [&generation, &model].iter().map(|file| ids(&file[name])).find(|ids| !ids.is_empty())
    };
    let mut eos = listed("eos_token_id").unwrap_or_default();
    // The end of a turn may be known to the tokenizer alone.
    eos.extend(named("eos_token").filter(|id| !eos.contains(id)));
    let first = |name: &str| listed(name).and_then(|ids| ids.first().copied());
    Ok(SpecialIds {
        bos: named("bos_token").or_else(|| first("bos_token_id")),
        eos,
        pad: named("pad_token").or_else(|| first("pad_token_id")),
        add_bos: config["add_bos_token"].as_bool().unwrap_or(false),
    })
}

/// The id of `"<token>"` or `{"content": "<token>"}`.
fn named_token(tokenizer: &Tokenizer, value: &Value) -> Option<u32> {
    let text = value.as_str().or_else(|| value["content"].as_str())?;
    tokenizer.token_id(text)
}

/// One id or a list of ids.
fn ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(all) => all.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    }
}

/// `chat_template.jinja`, else the template in the configuration: a string, or a
/// list of named ones of which `default` is meant.
fn chat_template(folder: &Path, config: &Value) -> Result<Option<String>> {
    let beside = folder.join("chat_template.jinja");
    if beside.is_file() {
        return read_limited(&beside, MAX_CONFIG_BYTES).map(Some);
    }
    let value = &config["chat_template"];
    let named =
        || value.as_array()?.iter().find(|one| one["name"] == "default")?["template"].as_str();
    Ok(value.as_str().or_else(named).map(str::to_owned))
}
