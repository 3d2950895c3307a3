//! `patarm model merge` and `patarm model convert`: models written as folders in
//! Hugging Face layout.

use std::path::{Path, PathBuf};

use patarm_files::{ModelFiles, RewardConfig, StoredType, TokenizerFiles, TokenizerSource};
use patarm_models::{Decoder, checkpoint, reward_checkpoint};
use patarm_text::{Error, Tokenizer};
use serde::Serialize;
use tempfile::TempDir;

use crate::cli::{Global, StoredDtype};
use crate::exit::{Code, failure};
use crate::resolve::{self, Located};
use crate::{output, pull, reward_models};

/// What `--json` prints for both commands.
#[derive(Debug, Serialize)]
struct ExportReport<'a> {
    version: u32,
    path: &'a Path,
    dtype: &'static str,
    parameters: usize,
    sha256: String,
}

/// Writes the base of an adapter with the adapter added to its weights.
pub(super) fn merge(
    adapter: &Path,
    base: Option<&str>,
    out: &Path,
    global: &Global,
) -> anyhow::Result<()> {
    refuse_existing(out)?;
    let located = locate_adapter(adapter, base)?;
    let (files, mut decoder, reward) = open_any(&located, global)?;
    decoder.merge_adapter();
    let dtype = merged_type(&files)?;
    write(&files, (&decoder, reward.as_ref()), dtype, (out, global))
}

/// A model that writes text, or a reward model with its head.
fn open_any(
    located: &Located,
    global: &Global,
) -> anyhow::Result<(ModelFiles, Decoder, Option<RewardConfig>)> {
    if let Some(reward) = reward_models::description(located)? {
        let (files, decoder, _) = reward_models::load_weights(located, &reward, global)?;
        return Ok((files, decoder, Some(reward)));
    }
    let (files, decoder) = super::open_decoder(located, global)?;
    Ok((files, decoder, None))
}

/// Writes a model as safetensors.
pub(super) fn convert(
    source: &str,
    out: &Path,
    dtype: StoredDtype,
    global: &Global,
) -> anyhow::Result<()> {
    refuse_existing(out)?;
    let located = resolve::locate(source)?;
    if located.adapter.is_some() {
        let message = format!("{source} is an adapter; write it with `patarm model merge`");
        return Err(failure(Code::Usage, message));
    }
    let (files, decoder, reward) = open_any(&located, global)?;
    let dtype = match dtype {
        StoredDtype::Bf16 => StoredType::Bf16,
        StoredDtype::F32 => StoredType::F32,
    };
    write(&files, (&decoder, reward.as_ref()), dtype, (out, global))
}

fn locate_adapter(adapter: &Path, base: Option<&str>) -> anyhow::Result<Located> {
    let Some(base) = base else {
        let located = resolve::locate(&adapter.to_string_lossy())?;
        return match located.adapter {
            Some(_) => Ok(located),
            None => Err(no_adapter(adapter)),
        };
    };
    if !adapter.join(checkpoint::ADAPTER_CONFIG_FILE).exists() {
        return Err(no_adapter(adapter));
    }
    let located = resolve::locate(base)?;
    if located.adapter.is_some() {
        let message = format!("{base} is an adapter itself; merge it first");
        return Err(failure(Code::Usage, message));
    }
    Ok(Located { adapter: Some(adapter.to_owned()), ..located })
}

fn no_adapter(path: &Path) -> anyhow::Error {
    let wanted = checkpoint::ADAPTER_CONFIG_FILE;
    failure(Code::Model, format!("{} is no adapter: it has no {wanted}", path.display()))
}

/// Single precision where the base has it, bfloat16 otherwise.
fn merged_type(files: &ModelFiles) -> anyhow::Result<StoredType> {
    let stored = super::inspect::stored_types(files)?;
    // A quantised file keeps its norms in F32, so all tensors have to agree.
    Ok(match stored.keys().all(|name| name == "F32") {
        true => StoredType::F32,
        false => StoredType::Bf16,
    })
}

fn write(
    files: &ModelFiles,
    (decoder, reward): (&Decoder, Option<&RewardConfig>),
    dtype: StoredType,
    (out, global): (&Path, &Global),
) -> anyhow::Result<()> {
    let staged = stage_beside(out)?;
    match reward {
        Some(reward) => {
            let description = (&files.config, reward);
            reward_checkpoint::save_reward_model(staged.path(), decoder, description, dtype)
        }
        None => checkpoint::save_model(staged.path(), decoder, &files.config, dtype),
    }
    .map_err(unwritten)?;
    write_tokenizer(files, staged.path())?;
    let sha256 = pull::sha256_of(&staged.path().join(checkpoint::WEIGHTS_FILE))?;
    publish(staged, out)?;
    let own = decoder.parameters.iter().filter(|(_, entry)| !entry.name.contains(".lora_"));
    let report = ExportReport {
        version: 1,
        path: out,
        dtype: if dtype == StoredType::F32 { "f32" } else { "bf16" },
        parameters: own.map(|(_, entry)| entry.value.len()).sum(),
        sha256,
    };
    if global.json {
        return output::json(&report);
    }
    output::line(&format!("{}\nsha256 {}", out.display(), report.sha256))
}

/// An output that cannot be written says nothing about the model.
fn unwritten(error: impl std::fmt::Display) -> anyhow::Error {
    failure(Code::Data, error.to_string())
}

fn refuse_existing(out: &Path) -> anyhow::Result<()> {
    let is_empty_folder = out.read_dir().is_ok_and(|mut entries| entries.next().is_none());
    if !out.exists() || is_empty_folder {
        return Ok(());
    }
    Err(failure(Code::Usage, format!("{} exists; name a new folder", out.display())))
}

/// A folder beside the target, removed again unless it is published.
fn stage_beside(out: &Path) -> anyhow::Result<TempDir> {
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let refused = |cause: std::io::Error| {
        failure(Code::Data, format!("cannot write in {}: {cause}", parent.display()))
    };
    std::fs::create_dir_all(parent).map_err(refused)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".patarm-").suffix(".partial");
    // A temporary folder is private by default; this one becomes an ordinary folder.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.tempdir_in(parent).map_err(refused)
}

/// Gives a complete folder its final name.
fn publish(staged: TempDir, out: &Path) -> anyhow::Result<()> {
    let refused = |cause: std::io::Error| {
        failure(Code::Data, format!("cannot write {}: {cause}", out.display()))
    };
    if out.exists() {
        std::fs::remove_dir(out).map_err(refused)?;
    }
    std::fs::rename(staged.path(), out).map_err(refused)?;
    // The folder has moved away: there is nothing left to remove.
    let _ = staged.keep();
    Ok(())
}

fn write_tokenizer(files: &ModelFiles, folder: &Path) -> anyhow::Result<()> {
    match &files.tokenizer {
        TokenizerSource::Files(found) => copy_files(found, folder),
        TokenizerSource::Gguf(_) => {
            let broken = |error: Error| failure(Code::Model, error.to_string());
            Tokenizer::open(&files.path).map_err(broken)?.save_files(folder).map_err(unwritten)
        }
        TokenizerSource::Missing => {
            output::remark("the model has no tokenizer; only config.json and weights are written");
            Ok(())
        }
    }
}

fn copy_files(found: &TokenizerFiles, folder: &Path) -> anyhow::Result<()> {
    let optional = [
        &found.tokenizer_config,
        &found.special_tokens_map,
        &found.chat_template,
        &found.generation_config,
    ];
    let all: Vec<&PathBuf> =
        std::iter::once(&found.tokenizer).chain(optional.into_iter().flatten()).collect();
    for path in all {
        let Some(name) = path.file_name() else {
            continue;
        };
        std::fs::copy(path, folder.join(name)).map_err(|cause| {
            failure(Code::Data, format!("cannot copy {}: {cause}", path.display()))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abandoned_folder_disappears_and_a_published_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("deep/model");
        drop(stage_beside(&out).unwrap());
        assert_eq!(folder.path().join("deep").read_dir().unwrap().count(), 0);
        let staged = stage_beside(&out).unwrap();
        std::fs::write(staged.path().join("config.json"), "{}").unwrap();
        publish(staged, &out).unwrap();
        assert!(out.join("config.json").exists());
        assert!(refuse_existing(&out).is_err());
        assert_eq!(folder.path().join("deep").read_dir().unwrap().count(), 1);
    }
}
