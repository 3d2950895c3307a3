//! What the sentence splitter knows about a language.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::path::Path;
use std::sync::LazyLock;

use crate::{Error, Result};

/// Largest parameter file read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Orthographic contexts of a word (Kiss and Strunk, 2006, section 4.1.1), the bits of NLTK's files.
pub(super) mod context {
    /// Seen with a capital inside a sentence.
    pub(in crate::nltk) const MID_UPPER: u8 = 1 << 2;
    /// Seen with a small first letter at the beginning of a sentence.
    pub(in crate::nltk) const BEGIN_LOWER: u8 = 1 << 4;
    /// Seen with a capital at the beginning, inside, or at an unknown position.
    pub(in crate::nltk) const UPPER: u8 = (1 << 1) | (1 << 2) | (1 << 3);
    /// Seen with a small first letter, anywhere.
    pub(in crate::nltk) const LOWER: u8 = (1 << 4) | (1 << 5) | (1 << 6);
}

/// Parameters of the Punkt algorithm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Types that end in a full stop without ending a sentence, without that stop.
    pub(super) abbreviations: HashSet<String>,
    /// Types that often begin a sentence.
    pub(super) starters: HashSet<String>,
    /// Pairs of types between which a full stop ends no sentence.
    pub(super) collocations: HashSet<(String, String)>,
    /// Orthographic contexts by type.
    pub(super) contexts: HashMap<String, u8>,
}

impl Parameters {
    /// The built-in parameters for English.
    ///
    /// They are not NLTK's: those are published without a clear licence. These were counted on text
    /// under MIT and Apache-2.0 by `testdata/make_punkt_english.py`; `docs/ifeval.md` says how often
    /// the two cut differently.
    pub fn english() -> &'static Self {
        static ENGLISH: LazyLock<Parameters> =
            LazyLock::new(|| parse_sections(include_str!("english.txt")));
        &ENGLISH
    }

    /// Reads a directory of NLTK's `punkt_tab` (such as `tokenizers/punkt_tab/english`).
    ///
    /// # Errors
    ///
    /// A file is missing, too large, not text or has a malformed line.
    pub fn from_punkt_tab(directory: &Path) -> Result<Self> {
        let read = |name: &str| read_text(&directory.join(name));
        let pairs = |name: &str| -> Result<Vec<(String, String)>> {
            let text = read(name)?;
            text.lines()
                .enumerate()
                .map(|(index, line)| pair(directory, name, index, line))
                .collect()
        };
        let mut contexts = HashMap::new();
        for (word, flags) in pairs("ortho_context.tab")? {
            let flags = flags.parse().map_err(|_| {
                let message =
                    format!("the context {flags:?} of {word:?} is not a number below 256");
                Error::bad_input(message).in_file(&directory.join("ortho_context.tab"))
            })?;
            contexts.insert(word, flags);
        }
        Ok(Self {
            abbreviations: read("abbrev_types.txt")?.lines().map(str::to_owned).collect(),
            starters: read("sent_starters.txt")?.lines().map(str::to_owned).collect(),
            collocations: pairs("collocations.tab")?.into_iter().collect(),
            contexts,
        })
    }
}

fn read_text(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path).map_err(|e| Error::io("open the file", path, e))?;
    let mut text = String::new();
    let mut limited = file.take(MAX_FILE_BYTES + 1);
    limited.read_to_string(&mut text).map_err(|e| Error::io("read the file", path, e))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        let large = format!("the file is larger than {MAX_FILE_BYTES} bytes");
        return Err(Error::bad_input(large).in_file(path));
    }
    Ok(text)
}

/// The two fields of a line.
fn pair(directory: &Path, name: &str, index: usize, line: &str) -> Result<(String, String)> {
    let fields = line.split_once('\t').filter(|(_, second)| !second.contains('\t'));
    let (first, second) = fields.ok_or_else(|| {
        let message = "the line does not have two fields with a tab between them";
        Error::bad_input(message).at_line(index + 1).in_file(&directory.join(name))
    })?;
    Ok((first.to_owned(), second.to_owned()))
}

/// Reads the built-in file: sections of one entry a line.
fn parse_sections(text: &str) -> Parameters {
    let mut parameters = Parameters::default();
    let mut section = "";
    for line in text.lines().filter(|line| !line.starts_with("# ")) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            continue;
        }
        match (section, line.split_once('\t')) {
            ("abbreviations", None) => _ = parameters.abbreviations.insert(line.to_owned()),
            ("starters", None) => _ = parameters.starters.insert(line.to_owned()),
            ("contexts", Some((word, flags))) => {
                if let Ok(flags) = flags.parse() {
                    parameters.contexts.insert(word.to_owned(), flags);
                }
            }
            _ => {}
        }
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_file_is_read_whole() {
        let english = Parameters::english();
        let num_lines = include_str!("english.txt").lines().count();
        let num_entries =
            english.abbreviations.len() + english.starters.len() + english.contexts.len();
        // Two lines of comment and three headings.
        assert_eq!(num_entries + 5, num_lines);
        assert!(english.abbreviations.contains("mr") && english.starters.contains("the"));
    }

    #[test]
    fn a_directory_of_tables_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text);
        write("abbrev_types.txt", "mr\n. . ").unwrap();
        write("sent_starters.txt", "the").unwrap();
        write("collocations.tab", "b\tsmith\n").unwrap();
        write("ortho_context.tab", "word\t46\n##number##\t110").unwrap();
        let read = Parameters::from_punkt_tab(directory.path()).unwrap();
        assert!(read.abbreviations.contains(". . ") && read.contexts["##number##"] == 110);
        assert!(read.collocations.contains(&("b".to_owned(), "smith".to_owned())));

        write("ortho_context.tab", "word\t46\nword").unwrap();
        let error = Parameters::from_punkt_tab(directory.path()).unwrap_err().to_string();
        assert!(error.contains("ortho_context.tab:2"), "{error}");
        write("ortho_context.tab", "word\t300").unwrap();
        let error = Parameters::from_punkt_tab(directory.path()).unwrap_err().to_string();
        assert!(error.contains("below 256"), "{error}");
    }
}
