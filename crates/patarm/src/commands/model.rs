//! `patarm model …`: bring models to disk, look at them, run them, write them.

mod export;
mod inspect;
mod logprobs;

use std::path::Path;

use anyhow::Context;
use patarm_files::{ModelFiles, open_model};
use patarm_models::{Decoder, checkpoint};
use serde::Serialize;

use crate::cli::{Global, ModelCommand};
use crate::device;
use crate::exit::{Code, failure};
use crate::resolve::Located;
use crate::{output, pull};

/// Runs one of the model commands.
pub(crate) fn run(command: &ModelCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        ModelCommand::Pull { name } => pull_named(name, global),
        ModelCommand::Inspect { path } => inspect::run(path, global),
        ModelCommand::Logprobs { path, input, out, greedy } => {
            let request = logprobs::Request { input, out: out.as_deref(), greedy: *greedy };
            logprobs::run(path, request, global)
        }
        ModelCommand::Merge { adapter, base, out } => {
            export::merge(adapter, base.as_deref(), out, global)
        }
        ModelCommand::Convert { source, out, dtype } => {
            export::convert(source, out, *dtype, global)
        }
    }
}

/// Files and decoder of a located model; unlike [`crate::resolve::load`] it asks for no
/// tokenizer, because token ids may be all a caller has.
pub(super) fn open_decoder(
    located: &Located,
    global: &Global,
) -> anyhow::Result<(ModelFiles, Decoder)> {
    crate::reward_models::refuse_without_output(located)?;
    let files = open_model(&located.base)?;
    let mut decoder = Decoder::from_files(device::open(global)?, &files)
        .with_context(|| located.base.display().to_string())?;
    if let Some(adapter) = &located.adapter {
        checkpoint::load_adapter(adapter, &mut decoder)?;
    }
    Ok((files, decoder))
}

/// What `patarm model pull --json` prints.
#[derive(Debug, Serialize)]
struct PullReport<'a> {
    version: u32,
    name: &'a str,
    path: &'a Path,
    sha256: &'a str,
}

fn pull_named(name: &str, global: &Global) -> anyhow::Result<()> {
    let Some(model) = pull::find(name) else {
        let names: Vec<&str> = pull::NAMED_MODELS.iter().map(|model| model.name).collect();
        let message = format!("{name}: no model has this name; known are {}", names.join(", "));
        return Err(failure(Code::Model, message));
    };
    let pulled = pull::pull(&model)?;
    if global.json {
        let (path, sha256) = (pulled.path.as_path(), pulled.sha256.as_str());
        return output::json(&PullReport { version: 1, name, path, sha256 });
    }
    output::line(&format!("{}\nsha256 {}", pulled.path.display(), pulled.sha256))
}
