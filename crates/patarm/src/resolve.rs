//! From what a user typed after `--model` to a loaded model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use patarm_files::{ModelFiles, open_model};
use patarm_models::{Decoder, checkpoint};
use patarm_text::tokenizer::Tokenizer;

use crate::cli::{self, Global};
use crate::device;
use crate::exit::{Code, failure};
use crate::pull;

/// Deepest chain of adapters and run directories that is followed.
const MAX_INDIRECTIONS: usize = 4;

/// A model on disk: its base, and the adapter on top where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    /// Folder in Hugging Face layout or GGUF file.
    pub(crate) base: PathBuf,
    /// Adapter folder.
    pub(crate) adapter: Option<PathBuf>,
    /// The recipe saved beside a trained model.
    pub(crate) recipe: Option<PathBuf>,
    /// SHA-256 of a pulled model.
    pub(crate) sha256: Option<String>,
}

/// A model ready to run.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Where it came from.
    pub(crate) located: Located,
    /// Configuration of the base.
    pub(crate) files: ModelFiles,
    /// The decoder, adapter attached.
    pub(crate) decoder: Decoder,
    /// The tokenizer.
    pub(crate) tokenizer: Arc<Tokenizer>,
}

/// The global options of a command that computes in single precision unless told otherwise.
pub(crate) fn single_precision(global: &Global) -> Global {
    let precision = match global.precision {
        cli::Precision::Auto => cli::Precision::F32,
        chosen => chosen,
    };
    Global { precision, ..global.clone() }
}

/// Finds a model by name, path, adapter folder or run directory; pulls named ones.
pub(crate) fn locate(model: &str) -> anyhow::Result<Located> {
    locate_within(model, MAX_INDIRECTIONS)
}

fn locate_within(model: &str, depth: usize) -> anyhow::Result<Located> {
    if depth == 0 {
        return Err(failure(
            Code::Model,
            format!("{model}: adapters and runs refer to each other in a circle"),
        ));
    }
    if let Some(named) = pull::find(model) {
        let pulled = pull::pull(&named)?;
        return Ok(Located {
            base: pulled.path,
            adapter: None,
            recipe: None,
            sha256: Some(pulled.sha256),
        });
    }
    let path = Path::new(model);
    if !path.exists() && pull::is_hub_id(model) {
        let folder = pull::pull_hub_id(model)?;
        return locate_within(&folder.to_string_lossy(), depth - 1);
    }
    if !path.exists() {
        let names: Vec<&str> = pull::NAMED_MODELS.iter().map(|named| named.name).collect();
        let message =
            format!("{model}: no such file or folder, and no known name ({})", names.join(", "));
        return Err(failure(Code::Model, message));
    }
    if path.join("checkpoints").is_dir() {
        let last = final_checkpoint(path)?;
        return locate_within(&last.to_string_lossy(), depth - 1);
    }
    let recipe = Some(path.join("recipe.toml")).filter(|recipe| recipe.exists());
    if path.join(checkpoint::ADAPTER_CONFIG_FILE).exists() {
        let (_, base) = checkpoint::read_adapter_config(path)?;
        let Some(base) = base else {
            return Err(failure(
                Code::Model,
                format!("{model}: the adapter does not name its base model"),
            ));
        };
        let located = locate_within(&base, depth - 1)?;
        if let Some(lower) = &located.adapter {
            let message = format!(
                "{model}: its base is itself an adapter; merge {} first (patarm model merge)",
                lower.display()
            );
            return Err(failure(Code::Model, message));
        }
        return Ok(Located { adapter: Some(path.to_path_buf()), recipe, ..located });
    }
    Ok(Located { base: path.to_path_buf(), adapter: None, recipe, sha256: None })
}

/// The finished model of a run directory: `final`, else `best`.
fn final_checkpoint(run: &Path) -> anyhow::Result<PathBuf> {
    let folders = ["final", "best"].map(|name| run.join("checkpoints").join(name));
    let found = folders.into_iter().find(|folder| folder.join("trainer.json").exists());
    found.ok_or_else(|| {
        failure(
            Code::Model,
            format!("{}: the run has no finished model yet; resume it first", run.display()),
        )
    })
}

/// Loads a located model.
pub(crate) fn load(located: Located, global: &Global) -> anyhow::Result<Loaded> {
    crate::reward_models::refuse_as_judge(&located)?;
    let files = open_model(&located.base)?;
    let mut decoder = Decoder::from_files(device::open(global)?, &files)?;
    if let Some(adapter) = &located.adapter {
        checkpoint::load_adapter(adapter, &mut decoder)?;
    }
    let tokenizer = Arc::new(Tokenizer::open(&located.base)?);
    Ok(Loaded { located, files, decoder, tokenizer })
}

/// Finds and loads a model.
pub(crate) fn open(model: &str, global: &Global) -> anyhow::Result<Loaded> {
    load(locate(model)?, global)
}
