//! Data files on the Hugging Face hub, fetched only when a caller asks by name.

use std::path::PathBuf;

use hf_hub::api::sync::Api;

use crate::error::{Error, ErrorKind, Result};

/// What hub addresses begin with.
pub const PREFIX: &str = "hf:";

/// Endings of data files this crate reads.
const ENDINGS: [&str; 5] = [".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz"];
/// Candidates an error lists.
const MAX_LISTED: usize = 20;

/// A data set on the hub, and perhaps a file in it: `hf:owner/name[/file]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// `owner/name`.
    pub repository: String,
    /// Path inside it.
    pub file: Option<String>,
}

impl HubFile {
    /// Parses an address; `None` when the text is not one but a local path.
    ///
    /// # Errors
    /// When it begins like an address but is none.
    pub fn parse(address: &str) -> Result<Option<Self>> {
        let Some(rest) = address.strip_prefix(PREFIX) else {
            return Ok(None);
        };
        let mut parts = rest.splitn(3, '/');
        let (owner, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let file = parts.next().filter(|file| !file.is_empty());
        let steps_up = file.is_some_and(|file| file.split('/').any(|step| step == ".."));
        if !is_name(owner) || !is_name(name) || steps_up {
            let context =
                format!("{address:?} is not of the form hf:owner/name or hf:owner/name/file");
            return Err(Error::new(ErrorKind::Hub, context));
        }
        Ok(Some(Self { repository: format!("{owner}/{name}"), file: file.map(str::to_owned) }))
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.len() <= 96 && name.chars().all(allowed) && !name.starts_with('.')
}

/// Fetches a file, or finds it in the local cache. Where the address names no
/// file, the data set must hold exactly one this crate can read.
///
/// # Errors
/// When the hub cannot be reached, the file is not there, or it is unclear which
/// one is meant.
pub fn fetch(address: &HubFile) -> Result<PathBuf> {
    let failed = |source: hf_hub::api::sync::ApiError| {
        let context = format!("cannot fetch {} from the hub", address.repository);
        Error::with_source(ErrorKind::Hub, context, source)
    };
    let repository = Api::new().map_err(failed)?.dataset(address.repository.clone());
    let file = match &address.file {
        Some(file) => file.clone(),
        None => {
            let info = repository.info().map_err(failed)?;
            only_file(info.siblings.iter().map(|sibling| sibling.rfilename.as_str()), address)?
        }
    };
    repository.get(&file).map_err(failed)
}

/// The only data file among these.
fn only_file<'a>(files: impl Iterator<Item = &'a str>, address: &HubFile) -> Result<String> {
    let is_data = |file: &&str| ENDINGS.iter().any(|ending| file.ends_with(ending));
    let found: Vec<&str> = files.filter(is_data).collect();
    match found.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => {
            let context = format!("{} holds no file this program can read", address.repository);
            Err(Error::new(ErrorKind::Hub, context))
        }
        several => {
            let listed = several[..several.len().min(MAX_LISTED)].join(", ");
            let context = format!(
                "{} holds {} data files; name one of them: {listed}",
                address.repository,
                several.len()
            );
            Err(Error::new(ErrorKind::Hub, context))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parse = |text| HubFile::parse(text).unwrap().unwrap();
        assert_eq!(HubFile::parse("data/pairs.jsonl").unwrap(), None);
        let whole = parse("hf:owner/some-set_1.0");
        assert_eq!((whole.repository.as_str(), whole.file), ("owner/some-set_1.0", None));
        let file = parse("hf:owner/name/data/train.parquet");
        assert_eq!(file.file.as_deref(), Some("data/train.parquet"));
        assert_eq!(parse("hf:owner/name/").file, None);
        for wrong in ["hf:", "hf:owner", "hf:/name", "hf:o/../x", "hf:o/n/../../x", "hf:o/n?x"] {
            assert!(HubFile::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_data_file_is_taken_and_several_are_listed() {
        let address = HubFile { repository: "o/n".into(), file: None };
        let pick = |files: &[&str]| only_file(files.iter().copied(), &address);
        assert_eq!(pick(&["README.md", "x/train.jsonl"]).unwrap(), "x/train.jsonl");
        assert!(pick(&["README.md"]).unwrap_err().to_string().contains("no file"));
        let error = pick(&["a.json", "b.parquet"]).unwrap_err().to_string();
        assert!(error.contains("a.json, b.parquet"), "{error}");
    }
}
