//! Mixing data sets by recipe, the same on every run.
//!
//! ```toml
//! version = 1
//! seed = 7
//! total = 1000            # needed where a source has a weight
//!
//! [[source]]
//! path = "chat.jsonl"     # relative to the recipe
//! weight = 3.0
//!
//! [[source]]
//! path = "code.parquet"
//! weight = 1.0
//!
//! [[source]]
//! path = "safety.jsonl"
//! count = 50              # besides the total; without count and weight: all
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::comparison::Comparison;
use crate::dataset::{ComparisonReader, Format, OnError, ReadError, ReadOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::random::{below, mix};

/// Version of the recipe this crate reads.
const VERSION: u32 = 1;
/// Larger recipes are refused.
const MAX_RECIPE_BYTES: u64 = 1 << 20;

/// A mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixRecipe {
    /// Version of the format; 1.
    pub version: u32,
    /// Decides which comparisons are drawn and in which order they come.
    pub seed: u64,
    /// Comparisons that the sources with a weight give together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<usize>,
    /// Where the comparisons come from.
    #[serde(rename = "source")]
    pub sources: Vec<MixSource>,
}

/// A source of a mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixSource {
    /// The file; relative paths start at the recipe's folder.
    pub path: PathBuf,
    /// Put before the ids, so that they stay unique; the file's name by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Format of the rows, where it should not be found from the first row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Share of the total, relative to the other weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Comparisons to draw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
}

/// What became of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MixedSource {
    /// Its name.
    pub name: String,
    /// Comparisons in the file.
    pub available: usize,
    /// Comparisons in the mixture.
    pub taken: usize,
    /// Rows that were left out because they could not be used.
    pub skipped: u64,
}

impl MixRecipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// When the file cannot be read or is not a valid recipe.
    pub fn from_file(path: &Path) -> Result<Self> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            let context = format!("cannot use mix recipe {}", path.display());
            Error::with_source(ErrorKind::Recipe, context, source)
        };
        let length = std::fs::metadata(path).map_err(|e| Error::io("open", path, e))?.len();
        if length > MAX_RECIPE_BYTES {
            return Err(Error::new(ErrorKind::Limit, format!("{} is too large", path.display())));
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let recipe: Self = toml::from_str(&text).map_err(|error| failed(error.into()))?;
        recipe.check().map_err(|error| failed(error.into()))?;
        Ok(recipe)
    }

    fn check(&self) -> Result<()> {
        let wrong = |context: String| Err(Error::new(ErrorKind::Recipe, context));
        if self.version != VERSION {
            return wrong(format!("version is {}, this program reads {VERSION}", self.version));
        }
        if self.sources.is_empty() {
            return wrong("there is no source".into());
        }
        for source in &self.sources {
            let path = source.path.display();
            if source.weight.is_some() && source.count.is_some() {
                return wrong(format!("source {path} has both weight and count"));
            }
            if source.weight.is_some_and(|weight| !(weight > 0.0 && weight.is_finite())) {
                return wrong(format!("the weight of source {path} is not a positive number"));
            }
            if source.weight.is_some() && self.total.is_none() {
                return wrong(format!("source {path} has a weight, but there is no total"));
            }
            if let Some(Err(problem)) = source.format.as_deref().map(str::parse::<Format>) {
                return wrong(format!("source {path}: {problem}"));
            }
        }
        if self.total.is_some() && self.sources.iter().all(|source| source.weight.is_none()) {
            return wrong("there is a total, but no source has a weight".into());
        }
        Ok(())
    }

    /// How many each source with a weight gives: the total in proportion, the
    /// remainder to the largest fractions.
    fn shares(&self) -> Vec<Option<usize>> {
        let total = self.total.unwrap_or(0);
        let weights: f64 = self.sources.iter().filter_map(|source| source.weight).sum();
        let exact: Vec<Option<f64>> = self
            .sources
            .iter()
            .map(|source| source.weight.map(|weight| total as f64 * (weight / weights)))
            .collect();
        let mut shares: Vec<Option<usize>> =
            exact.iter().map(|exact| exact.map(|exact| exact.floor() as usize)).collect();
        let given: usize = shares.iter().flatten().sum();
        let mut order: Vec<usize> = (0..exact.len()).filter(|&at| exact[at].is_some()).collect();
        let fraction = |at: usize| exact[at].map_or(0.0, f64::fract);
        order.sort_by(|&a, &b| fraction(b).total_cmp(&fraction(a)).then(a.cmp(&b)));
        for &at in order.iter().cycle().take(total.saturating_sub(given)) {
            shares[at] = shares[at].map(|share| share + 1);
        }
        shares
    }
}

/// Draws the mixture of a recipe; relative paths start at `folder`.
///
/// # Errors
/// When a source cannot be read, holds an unusable row under
/// [`OnError::Fail`], or has fewer comparisons than it should give.
pub fn mix_sources(
    recipe: &MixRecipe,
    folder: &Path,
    on_error: OnError,
) -> Result<(Vec<Comparison>, Vec<MixedSource>)> {
    recipe.check()?;
    let mut mixture = Vec::new();
    let mut report = Vec::new();
    for (index, (source, share)) in recipe.sources.iter().zip(recipe.shares()).enumerate() {
        let (mut all, skipped) = read(source, folder, on_error)?;
        let available = all.len();
        let wanted = source.count.or(share).unwrap_or(available);
        let name = source_name(source);
        if wanted > available {
            let context = format!("source {name} has {available} comparisons, {wanted} are wanted");
            return Err(Error::new(ErrorKind::Data, context));
        }
        let mut state = mix(recipe.seed ^ mix(index as u64 + 1));
        shuffle_front(&mut all, wanted, &mut state);
        all.truncate(wanted);
        for comparison in &mut all {
            comparison.id = format!("{name}/{}", comparison.id);
        }
        mixture.append(&mut all);
        report.push(MixedSource { name, available, taken: wanted, skipped });
    }
    let count = mixture.len();
    shuffle_front(&mut mixture, count, &mut mix(recipe.seed));
    Ok((mixture, report))
}

fn source_name(source: &MixSource) -> String {
    let stem = || {
        let name = source.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.split('.').next().unwrap_or_default().to_owned()
    };
    source.name.clone().unwrap_or_else(stem)
}

fn read(source: &MixSource, folder: &Path, on_error: OnError) -> Result<(Vec<Comparison>, u64)> {
    let failed = |error: ReadError| Error::with_source(ErrorKind::Data, "cannot mix", error);
    let format = source.format.as_deref().and_then(|name| name.parse().ok());
    let options = ReadOptions { format, on_error, ..ReadOptions::default() };
    let mut reader =
        ComparisonReader::open(&folder.join(&source.path), &options).map_err(failed)?;
    let all: std::result::Result<Vec<Comparison>, ReadError> = reader.by_ref().collect();
    Ok((all.map_err(failed)?, reader.skipped().count))
}

/// Fisher and Yates' shuffle, as far as the first `count` places.
fn shuffle_front<T>(items: &mut [T], count: usize, state: &mut u64) {
    for at in 0..count.min(items.len()) {
        let other = at + below(state, items.len() - at);
        items.swap(at, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sources(tempfile::TempDir);

    impl Sources {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (name, count) in [("a", 40), ("b", 20), ("c", 3)] {
                let rows: String = (0..count)
                    .map(|row| {
                        format!(
                            "{{\"prompt\":\"{name}{row}\",\"chosen\":\"c\",\"rejected\":\"r\"}}\n"
                        )
                    })
                    .collect();
                std::fs::write(folder.path().join(format!("{name}.jsonl")), rows).unwrap();
            }
            Self(folder)
        }

        fn recipe(&self, text: &str) -> Result<MixRecipe> {
            let path = self.0.path().join("mix.toml");
            std::fs::write(&path, text).unwrap();
            MixRecipe::from_file(&path)
        }

        fn mix(&self, text: &str) -> Result<(Vec<Comparison>, Vec<MixedSource>)> {
            mix_sources(&self.recipe(text)?, self.0.path(), OnError::Fail)
        }
    }

    const RECIPE: &str = "version = 1\nseed = 7\ntotal = 10\n\
        [[source]]\npath = 'a.jsonl'\nweight = 2\n\
        [[source]]\npath = 'b.jsonl'\nweight = 1\nname = 'bee'\n\
        [[source]]\npath = 'c.jsonl'\n";

    #[test]
    fn weights_counts_and_wholes() {
        let (mixture, report) = Sources::new().mix(RECIPE).unwrap();
        let taken: Vec<(&str, usize, usize)> =
            report.iter().map(|one| (one.name.as_str(), one.available, one.taken)).collect();
        assert_eq!(taken, [("a", 40, 7), ("bee", 20, 3), ("c", 3, 3)]);
        let ids: std::collections::HashSet<&str> =
            mixture.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids.len(), 13);
        assert!(ids.iter().any(|id| id.starts_with("bee/b:")));
    }

    #[test]
    fn the_seed_decides_and_nothing_else() {
        let sources = Sources::new();
        let ids = |text: &str| -> Vec<String> {
            sources.mix(text).unwrap().0.into_iter().map(|one| one.id).collect()
        };
        assert_eq!(ids(RECIPE), ids(RECIPE));
        assert_ne!(ids(RECIPE), ids(&RECIPE.replace("seed = 7", "seed = 8")));
    }

    #[test]
    fn remainders_go_to_the_largest_fractions() {
        let recipe = |total: usize, weights: &[f64]| MixRecipe {
            version: 1,
            seed: 0,
            total: Some(total),
            sources: weights
                .iter()
                .map(|&weight| MixSource {
                    path: "x".into(),
                    name: None,
                    format: None,
                    weight: Some(weight),
                    count: None,
                })
                .collect(),
        };
        let shares = |total, weights: &[f64]| {
            recipe(total, weights).shares().into_iter().map(Option::unwrap).collect::<Vec<_>>()
        };
        assert_eq!(shares(10, &[1.0, 1.0, 1.0]), [4, 3, 3]);
        assert_eq!(shares(10, &[0.5, 0.25, 0.25]), [5, 3, 2]);
        assert_eq!(shares(0, &[1.0]), [0]);
        assert_eq!(shares(1, &[1e-300, 1e300]), [0, 1]);
    }

    #[test]
    fn senseless_recipes_are_refused() {
        let sources = Sources::new();
        let cases = [
            ("version = 2\nseed = 1\n[[source]]\npath = 'a.jsonl'", "version"),
            ("version = 1\nseed = 1\nsource = []", "no source"),
            ("version = 1\nseed = 1\ncolour = 3\n[[source]]\npath = 'a.jsonl'", "colour"),
            ("version = 1\nseed = 1\n[[source]]\npath = 'a.jsonl'\nweight = 1.0", "no total"),
            ("version = 1\nseed = 1\ntotal = 5\n[[source]]\npath = 'a.jsonl'", "no source has"),
            ("version = 1\nseed = 1\ntotal = 5\n[[source]]\npath = 'a'\nweight = -1.0", "positive"),
            ("version = 1\nseed = 1\n[[source]]\npath = 'a'\ncount = 1\nweight = 1.0", "both"),
            ("version = 1\nseed = 1\n[[source]]\npath = 'a'\nformat = 'x'", "unknown data format"),
            ("version = 1\nseed = 1\n[[source]]\npath = 'c.jsonl'\ncount = 4", "4 are wanted"),
            ("version = 1\nseed = 1\n[[source]]\npath = 'gone.jsonl'", "gone.jsonl"),
            ("version = ", "cannot use mix recipe"),
        ];
        for (text, reason) in cases {
            let error = sources.mix(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
