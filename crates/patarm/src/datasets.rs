//! Comparisons from what a user typed: a file, a hub id, or bundled data.

use std::path::{Path, PathBuf};

use patarm_text::Comparison;
use patarm_text::dataset::{ComparisonReader, ReadOptions};
use patarm_text::hub::{HubFile, fetch};
use patarm_text::split::{HeldOut, split as split_by_prompt};
use patarm_train::recipe::DataConfig;

use crate::exit::{Code, failure};
use crate::quickstart;

/// Name of the bundled data: as training data both parts, elsewhere the held-out one.
pub(crate) const BUNDLED: &str = "bundled:quickstart";
/// Name of the training part of the bundled data, for files and other tools.
const BUNDLED_TRAIN: &str = "bundled:quickstart-train";

/// The bundled comparisons of that name, where it is one.
pub(crate) fn read_bundled(source: &str) -> anyhow::Result<Option<Vec<Comparison>>> {
    Ok(match source {
        BUNDLED => Some(quickstart::bundled(0)?.held_out),
        BUNDLED_TRAIN => Some(quickstart::bundled(0)?.train),
        _ => None,
    })
}

/// Reads every comparison of a source.
pub(crate) fn read(source: &str) -> anyhow::Result<Vec<Comparison>> {
    if let Some(comparisons) = read_bundled(source)? {
        return Ok(comparisons);
    }
    let path = locate(source)?;
    let mut reader = ComparisonReader::open(&path, &ReadOptions::default())?;
    let comparisons = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
    if comparisons.is_empty() {
        return Err(failure(Code::Data, format!("{source}: no comparison in it")));
    }
    Ok(comparisons)
}

/// The local path of a file, a folder or a file on the hub. The bundled pairs are
/// written to `folder` first.
pub(crate) fn locate_in(folder: &Path, source: &str) -> anyhow::Result<PathBuf> {
    if source != BUNDLED {
        return locate(source);
    }
    let mut lines = Vec::new();
    for comparison in quickstart::bundled(0)?.held_out {
        serde_json::to_writer(&mut lines, &comparison)?;
        lines.push(b'\n');
    }
    std::fs::create_dir_all(folder)?;
    let path = folder.join("data.jsonl");
    patarm_files::write_atomically(&path, &lines)?;
    Ok(path)
}

/// The local path of a file or a file on the hub.
pub(crate) fn locate(source: &str) -> anyhow::Result<PathBuf> {
    match HubFile::parse(source)? {
        Some(file) => Ok(fetch(&file)?),
        None => Ok(PathBuf::from(source)),
    }
}

/// Training and held-out comparisons of a recipe, disjoint by prompt.
pub(crate) fn split(
    config: &DataConfig,
    seed: u64,
    folder: &Path,
) -> anyhow::Result<(Vec<Comparison>, Vec<Comparison>)> {
    let (mut train, mut held_out) = if config.train == BUNDLED {
        let bundled = quickstart::bundled(seed)?;
        (bundled.train, bundled.held_out)
    } else {
        let train = read(&beside(folder, &config.train))?;
        match &config.held_out {
            Some(held_out) => (train, read(&beside(folder, held_out))?),
            None => {
                let split =
                    split_by_prompt(train, HeldOut::Share(config.held_out_share), HELD_OUT_SEED)?;
                (split.train, split.held_out)
            }
        }
    };
    train.truncate(config.max_pairs.unwrap_or(usize::MAX));
    held_out.truncate(config.max_held_out.unwrap_or(usize::MAX));
    flip(&mut train, config.flip_share, seed);
    Ok((train, held_out))
}

/// The split does not follow the run's seed, so that seeds are measured on the same pairs.
const HELD_OUT_SEED: u64 = 0;

/// Paths in a recipe are relative to the recipe.
pub(crate) fn beside(folder: &Path, source: &str) -> String {
    if source.contains(':') || Path::new(source).is_absolute() {
        return source.to_owned();
    }
    folder.join(source).to_string_lossy().into_owned()
}

/// Swaps the labels of a share of the comparisons.
fn flip(comparisons: &mut [Comparison], share: f64, seed: u64) {
    for (index, comparison) in comparisons.iter_mut().enumerate() {
        if patarm_models::kernels::random::uniform(seed, &[0xf11b, index as u64]) < share {
            comparison.label = comparison.label.swap();
        }
    }
}
