//! Manifests: which crate may use which, and the conventions they share.

use super::{Check, Finding, source::Source};

/// The arrows between crates; what is not here is not allowed.
const ARROWS: &[(&str, &[&str])] = &[
    ("patarm-kernels", &[]),
    ("patarm-files", &[]),
    ("patarm-text", &["patarm-files"]),
    ("patarm-models", &["patarm-kernels", "patarm-files"]),
    ("patarm-reward", &["patarm-models", "patarm-text"]),
    ("patarm-train", &["patarm-reward", "patarm-models", "patarm-text"]),
    ("patarm-eval", &["patarm-reward", "patarm-text"]),
    ("patarm-serve", &["patarm-reward", "patarm-text"]),
    (
        "patarm",
        &[
            "patarm-kernels",
            "patarm-files",
            "patarm-text",
            "patarm-models",
            "patarm-reward",
            "patarm-train",
            "patarm-eval",
            "patarm-serve",
        ],
    ),
    ("xtask", &[]),
];

/// Dependencies that only the crates named may have, with the invariant behind it.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("cudarc", &["patarm-kernels"], "device code lives in patarm-kernels"),
    ("libloading", &["patarm-kernels"], "device code lives in patarm-kernels"),
    ("gemm", &["patarm-kernels"], "arithmetic lives in patarm-kernels"),
    ("tokenizers", &["patarm-text"], "only patarm-text turns strings into tokens"),
    ("minijinja", &["patarm-text", "patarm-reward"], "patarm-models never sees a string"),
    ("anyhow", &["patarm"], "library errors are typed"),
    ("clap", &["patarm"], "only the binary has a command line"),
    ("indicatif", &["patarm"], "only the binary prints"),
    ("ctrlc", &["patarm"], "only the binary handles signals"),
    ("axum", &["patarm-serve"], "only patarm-serve speaks wire protocols"),
    ("hyper", &["patarm-serve"], "only patarm-serve speaks wire protocols"),
    ("tokio", &["patarm-serve"], "only patarm-serve is asynchronous"),
];

/// Most cargo features of a crate.
const MAX_FEATURES: usize = 6;

/// Lines every crate's manifest has.
const SHARED: &[&str] = &[
    "version.workspace = true",
    "edition.workspace = true",
    "rust-version.workspace = true",
    "license.workspace = true",
    "publish.workspace = true",
    "[lints]\nworkspace = true",
];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let name = source.crate_name();
    if name.is_empty() {
        return Vec::new();
    }
    let mut found = conventions(source);
    let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name) else {
        let message = format!(
            "crate {name} has no row in the table of arrows; see xtask/src/tidy/manifests.rs"
        );
        found.push(Finding::failure(Check::Arrow, source, 1, message));
        return found;
    };
    for (line, section, key) in entries(&source.text) {
        if !section.ends_with("dependencies") {
            continue;
        }
        if ARROWS.iter().any(|(other, _)| *other == key) && !allowed.contains(&key) {
            let message = format!("{name} must not use {key}; arrows point down only");
            found.push(Finding::failure(Check::Arrow, source, line, message));
        }
        if let Some((_, owners, why)) = RESERVED.iter().find(|(dependency, ..)| *dependency == key)
            && !owners.contains(&name)
        {
            let message = format!("{name} must not use {key}: {why}");
            found.push(Finding::failure(Check::Arrow, source, line, message));
        }
    }
    found
}

fn conventions(source: &Source) -> Vec<Finding> {
    let mut found: Vec<Finding> = SHARED
        .iter()
        .filter(|line| !source.text.contains(*line))
        .map(|line| Finding::failure(Check::Manifest, source, 1, format!("lacks `{line}`")))
        .collect();
    let features = entries(&source.text).filter(|(_, section, _)| *section == "features").count();
    if features > MAX_FEATURES {
        let message = format!("{features} features, at most {MAX_FEATURES}");
        found.push(Finding::failure(Check::Manifest, source, 1, message));
    }
    found
}

/// Line, section and key of every entry; `a.workspace = true` has the key `a`, and
/// so has a section `[dependencies.a]`.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    let mut section = "";
    text.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
            let (parent, key) = section.rsplit_once('.')?;
            return parent.ends_with("dependencies").then_some((index + 1, parent, key));
        }
        let (key, _) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
        let key = key.trim().split('.').next()?.trim_matches('"');
        Some((index + 1, section, key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, dependencies: &str) -> Vec<String> {
        let text = format!("[package]\n{}\n{dependencies}", SHARED.join("\n"));
        let source = Source::new(format!("crates/{name}/Cargo.toml"), text);
        check(&source).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn arrows_point_down() {
        assert!(manifest("patarm-eval", "[dependencies]\npatarm-text.workspace = true").is_empty());
        let up = manifest("patarm-text", "[dependencies]\npatarm-eval.workspace = true");
        assert!(up[0].contains("must not use patarm-eval"), "{up:?}");
        let table = manifest("patarm-text", "[dev-dependencies.patarm-eval]\npath = \"x\"");
        assert_eq!(table.len(), 1);
        let device = "[target.'cfg(unix)'.dependencies]\ncudarc = { version = \"1\" }";
        assert!(manifest("patarm-text", device)[0].contains("device code"));
        assert!(manifest("patarm-new", "")[0].contains("no row"));
    }

    #[test]
    fn conventions_are_demanded() {
        let source =
            Source::new("crates/patarm-eval/Cargo.toml".to_owned(), "[package]".to_owned());
        assert_eq!(check(&source).len(), SHARED.len());
        let features: String = (0..7).map(|i| format!("f{i} = []\n")).collect();
        let found = manifest("patarm-eval", &format!("[features]\n{features}"));
        assert!(found[0].contains("7 features"), "{found:?}");
    }
}
