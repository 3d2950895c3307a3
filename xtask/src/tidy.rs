//! The checks behind the invariants of ARCHITECTURE.md and the caps of STYLE.md.
//!
//! Each check is a function from a file to findings. Exceptions stand in
//! [`ALLOWED`], by path and with a reason; one that is no longer needed fails.

mod manifests;
mod shape;
mod source;
mod words;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use source::Source;

/// Exceptions: check, path, reason.
const ALLOWED: &[(Check, &str, &str)] =
    &[(Check::Place, "xtask/src/tidy/words.rs", "names the words it looks for")];

/// Folders that hold nothing of ours, by path.
const SKIPPED_FOLDERS: &[&str] = &[
    "target",
    "fuzz/target",
    "runs",
    ".git",
    ".oracle",
    "testdata/goldens",
    "testdata/models",
    "testdata/templates",
];

/// Files read as text.
const EXTENSIONS: &[&str] = &["rs", "toml", "md", "py", "sh", "yml", "yaml", "css", "jinja"];

/// Text files without an extension.
const NAMES: &[&str] = &["justfile", "run", "fetch-model", "LICENSE"];

/// Largest file read, in bytes; larger ones are data.
const MAX_BYTES: u64 = 2 << 20;

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Lines of a file.
    FileSize,
    /// Lines of a function.
    FunctionSize,
    /// Module docs and headers.
    Header,
    /// Which crate may use which.
    Arrow,
    /// Manifest conventions.
    Manifest,
    /// `unsafe` outside its places.
    Unsafe,
    /// Printing, environment and exits outside the binary; `anyhow` below it.
    Surroundings,
    /// Marks of unfinished work.
    Unfinished,
    /// Lint exceptions without a reason.
    Lint,
    /// Tests that need more than the checkout and do not say so.
    Marked,
    /// Machine paths and registry hosts.
    Place,
    /// Trailing blanks, tabs in Rust, missing last line end.
    Blanks,
}

/// Something to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    check: Check,
    path: String,
    line: usize,
    message: String,
    is_warning: bool,
}

impl Finding {
    fn failure(check: Check, source: &Source, line: usize, message: impl Into<String>) -> Self {
        let path = source.path.clone();
        Self { check, path, line, message: message.into(), is_warning: false }
    }

    fn warning(check: Check, source: &Source, line: usize, message: impl Into<String>) -> Self {
        Self { is_warning: true, ..Self::failure(check, source, line, message) }
    }

    /// Whether it must be changed, rather than should be.
    pub(crate) fn is_failure(&self) -> bool {
        !self.is_warning
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_warning { "warning" } else { "failure" };
        let Self { check, path, line, message, .. } = self;
        write!(f, "{path}:{line}: {kind} ({check:?}): {message}")
    }
}

/// Checks every file of the workspace this program was built from.
pub(crate) fn check_workspace() -> io::Result<Vec<Finding>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = Vec::new();
    collect(&root, Path::new(""), &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    let found = sources.iter().flat_map(check_source).collect();
    Ok(without_allowed(found))
}

fn check_source(source: &Source) -> Vec<Finding> {
    let mut found = words::check(source);
    if source.is_rust() {
        found.extend(shape::check(source));
    }
    if source.is_manifest() {
        found.extend(manifests::check(source));
    }
    found
}

/// Takes out what is allowed, and adds a failure for every allowance without use.
fn without_allowed(found: Vec<Finding>) -> Vec<Finding> {
    let is_allowed =
        |f: &Finding| ALLOWED.iter().any(|(check, path, _)| *check == f.check && *path == f.path);
    let unused = ALLOWED
        .iter()
        .filter(|(check, path, _)| !found.iter().any(|f| f.check == *check && f.path == *path));
    let unused: Vec<Finding> = unused
        .map(|(check, path, reason)| Finding {
            check: *check,
            path: (*path).to_owned(),
            line: 1,
            message: format!("allowed ({reason}) but no longer needed; take it off the list"),
            is_warning: false,
        })
        .collect();
    found.into_iter().filter(|f| !is_allowed(f)).chain(unused).collect()
}

fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = folder.join(&name);
        if entry.file_type()?.is_dir() {
            if !SKIPPED_FOLDERS.contains(&slashed(&path).as_str()) {
                collect(root, &path, sources)?;
            }
        } else if is_text(&path, &name) && entry.metadata()?.len() <= MAX_BYTES {
            let text = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
            sources.push(Source::new(slashed(&path), text));
        }
    }
    Ok(())
}

fn is_text(path: &Path, name: &str) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy());
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_ref())) || NAMES.contains(&name)
}

fn slashed(path: &Path) -> String {
    let parts: Vec<String> =
        PathBuf::from(path).iter().map(|p| p.to_string_lossy().into_owned()).collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let findings = check_workspace().expect("the workspace is readable");
        let failures: Vec<String> =
            findings.iter().filter(|f| f.is_failure()).map(Finding::to_string).collect();
        assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
    }

    #[test]
    fn allowances_without_use_are_found() {
        let findings = without_allowed(Vec::new());
        assert_eq!(findings.len(), ALLOWED.len());
        assert!(findings.iter().all(Finding::is_failure));
    }
}
