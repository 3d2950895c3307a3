//! Everything about a judge that its answers depend on, as one line: the key under
//! which answers are kept.

use std::path::{Path, PathBuf};

use patarm_reward::openai::OpenAiTarget;
use patarm_reward::template::JudgeTemplate;

use crate::cli::{Global, JudgeOptions};
use crate::device;
use crate::judging::judge_config;
use crate::pull::{sha256_of, sha256_of_bytes};
use crate::resolve;

/// Endings of the files of a model folder that its answers depend on.
const ENDINGS: [&str; 5] = ["safetensors", "json", "gguf", "model", "jinja"];

/// The fingerprint of a judge. Of a remote engine only its address and model name are
/// known, so a server that changes its weights under one name is not noticed.
pub(crate) fn of_judge(options: &JudgeOptions, global: &Global) -> anyhow::Result<String> {
    let asking = &options.asking;
    let is_remote = OpenAiTarget::is_remote(&options.model);
    let device = match is_remote {
        true => format!("{:?}", global.device),
        false => device::label(global)?,
    };
    let sampling = format!(
        "seed {} temperature {} readout {:?} task {:?} device {device} precision {:?}",
        asking.seed, asking.temperature, asking.readout, asking.task, global.precision,
    );
    if is_remote {
        let template = JudgeTemplate::load(asking.template.as_deref().unwrap_or("patarm"))?;
        let tokens = asking.max_tokens.unwrap_or(0);
        let (model, digest) = (&options.model, template.digest());
        return Ok(format!("{model} template {digest} max {tokens} {sampling}"));
    }
    let located = resolve::locate(&options.model)?;
    let config = judge_config(options, &located)?;
    let template = JudgeTemplate::load(&config.template)?;
    let adapter = located.adapter.as_deref().map(content_hash).transpose()?.unwrap_or_default();
    Ok(format!(
        "model {} adapter {adapter} template {} mode {:?} terminator {:?} max {} {sampling}",
        content_hash(&located.base)?,
        template.digest(),
        config.rubric_mode,
        config.terminator,
        config.max_judgement_tokens,
    ))
}

/// The hash of a file, or of the files of a model folder.
fn content_hash(path: &Path) -> anyhow::Result<String> {
    if path.is_file() {
        return sha256_of(path);
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if path.is_file() && ENDINGS.contains(&ending) {
            files.push(path);
        }
    }
    files.sort();
    let mut all = String::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        all.push_str(&format!("{name} {}\n", sha256_of(&file)?));
    }
    Ok(sha256_of_bytes(all.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_changes_the_hash() {
        let folder = tempfile::tempdir().expect("folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        write("model.safetensors", "a").expect("written");
        write("notes.txt", "a").expect("written");
        let before = content_hash(folder.path()).expect("hashed");
        write("notes.txt", "b").expect("written");
        assert_eq!(content_hash(folder.path()).expect("hashed"), before);
        write("model.safetensors", "b").expect("written");
        assert_ne!(content_hash(folder.path()).expect("hashed"), before);
    }
}
