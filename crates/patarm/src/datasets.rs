//! Comparisons from what a user typed: a file, a hub id, or bundled data.

use std::path::{Path, PathBuf};

use patarm_text::Comparison;
use patarm_text::dataset::{ComparisonReader, ReadOptions};
use patarm_text::hub::{HubFile, fetch};
use patarm_text::split::{HeldOut, split as split_by_prompt};
use patarm_train::recipe::DataConfig;

use crate::exit::{Code, failure};
use crate::{output, quickstart};

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
    let flipped = flip(&mut train, config.flip_share, seed);
    if config.flip_share > 0.0 {
        output::remark(&format!(
            "{flipped} of {} training labels swapped (data.flip_share)",
            train.len()
        ));
    }
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

/// Swaps the labels of a share of the comparisons that prefer a side, and says how many.
/// Which ones depends on the seed and their place alone, and a larger share swaps those
/// of a smaller one too.
fn flip(comparisons: &mut [Comparison], share: f64, seed: u64) -> usize {
    let mut flipped = 0;
    for (index, comparison) in comparisons.iter_mut().enumerate() {
        let is_labelled = comparison.chosen_rejected().is_some();
        let drawn = patarm_models::kernels::random::uniform(seed, &[0xf11b, index as u64]);
        if is_labelled && drawn < share {
            comparison.label = comparison.label.swap();
            flipped += 1;
        }
    }
    flipped
}

#[cfg(test)]
mod tests {
    use patarm_text::{Conversation, Item, Preference};

    use super::*;

    fn comparisons() -> Vec<Comparison> {
        let item = Item { prompt: Conversation::from_user("q"), response: "r".into() };
        let one = |n: usize| Comparison {
            id: n.to_string(),
            first: item.clone(),
            second: item.clone(),
            label: if n.is_multiple_of(4) { Preference::Tie } else { Preference::First },
            strength: None,
            task: None,
            subset: None,
        };
        (0..2000).map(one).collect()
    }

    fn flipped(share: f64, seed: u64) -> Vec<usize> {
        let mut all = comparisons();
        let count = flip(&mut all, share, seed);
        let places: Vec<usize> =
            (0..all.len()).filter(|n| all[*n].label == Preference::Second).collect();
        assert_eq!(places.len(), count);
        let ties = all.iter().filter(|pair| pair.label == Preference::Tie).count();
        assert_eq!(ties, 500, "ties stay ties");
        places
    }

    #[test]
    fn a_share_of_the_labels_is_swapped_by_the_seed() {
        assert!(flipped(0.0, 1).is_empty());
        assert_eq!(flipped(1.0, 1).len(), 1500);
        let (few, many) = (flipped(0.15, 1), flipped(0.3, 1));
        assert!((180..270).contains(&few.len()), "{}", few.len());
        assert!((400..500).contains(&many.len()), "{}", many.len());
        assert!(few.iter().all(|place| many.contains(place)));
        assert_eq!(flipped(0.15, 1), few);
        assert_ne!(flipped(0.15, 2), few);
    }
}
