//! Words that have a place, or none: `unsafe`, printing, marks of unfinished work,
//! machine paths, lint exceptions without a reason, stray blanks.

use super::{
    Check, Finding,
    source::{Source, find_word, is_test_path},
};

/// Where `unsafe` may stand.
const UNSAFE_PLACES: &[&str] = &["crates/patarm-kernels/src/", "crates/patarm-files/src/bytes.rs"];

/// Crates that print, read the environment and exit.
const PROGRAMS: &[&str] = &["patarm", "xtask"];

/// What only programs do.
const SURROUNDINGS: &[&str] = &[
    "anyhow",
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
    "env::var",
    "env::var_os",
    "env::vars",
    "env::args",
    "process::exit",
];

/// Marks of unfinished work, cut so that this file does not bear them.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
];

/// Paths of somebody's machine and hosts of package registries, which mean nothing
/// to a reader elsewhere.
const PLACES: &[&str] = &[
    "/work/",
    "/tmp/",
    "/root/",
    "/home/",
    "/Users/",
    "C:\\Users",
    "pypi.org",
    "pythonhosted.org",
    "crates.io",
    "registry.npmjs",
    "artifactory",
    "localhost:8081",
];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    if source.is_rust() {
        found.extend(unsafe_code(source));
        found.extend(surroundings(source));
        found.extend(lint_exceptions(source));
        found.extend(unmarked_model_test(source));
    }
    found.extend(plain_words(source));
    found.extend(blanks(source));
    found
}

fn unsafe_code(source: &Source) -> Vec<Finding> {
    if UNSAFE_PLACES.iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let message = "unsafe code lives in patarm-kernels and in the memory map of patarm-files only";
    find_word(&source.code, "unsafe")
        .map(|line| Finding::failure(Check::Unsafe, source, line, message))
        .collect()
}

fn surroundings(source: &Source) -> Vec<Finding> {
    if PROGRAMS.contains(&source.crate_name()) {
        return Vec::new();
    }
    let of_word = |word: &&'static str| {
        let word = *word;
        find_word(&source.shipped, word).map(move |line| {
            let message = format!(
                "{word} belongs in the binary: only it prints, reads the environment and exits"
            );
            Finding::failure(Check::Surroundings, source, line, message)
        })
    };
    SURROUNDINGS.iter().flat_map(of_word).collect()
}

/// An exception is `#[expect(lint, reason = "…")]`; in tests, where a shared module
/// serves several binaries, also `#[allow(lint, reason = "…")]`.
fn lint_exceptions(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, attribute) in ["#[allow(", "#![allow(", "#[expect(", "#![expect("]
        .iter()
        .flat_map(|start| source.code.match_indices(start).map(|(at, _)| (at, *start)))
    {
        let end = source.code[at..].find(")]").map_or(source.code.len(), |end| at + end);
        let has_reason = source.code[at..end].contains("reason");
        let line = source.code[..at].matches('\n').count() + 1;
        let is_allow = attribute.contains("allow") && !is_test_path(&source.path);
        if is_allow || !has_reason {
            let message = "write `#[expect(lint, reason = \"…\")]`, so that it goes when it is no longer needed";
            found.push(Finding::failure(Check::Lint, source, line, message));
        }
    }
    found
}

/// `.ci/run` finds the tests on the real model by their name.
fn unmarked_model_test(source: &Source) -> Option<Finding> {
    let variable = concat!("PATARM_TEST", "_MODEL");
    let line = source.text.lines().position(|line| line.contains(variable))? + 1;
    let message = "a test on the real model has `real_model` in its name";
    (!source.code.contains("real_model"))
        .then(|| Finding::failure(Check::Marked, source, line, message))
}

fn plain_words(source: &Source) -> Vec<Finding> {
    let unfinished = UNFINISHED.iter().flat_map(|word| {
        find_word(&source.text, word).map(move |line| {
            let message = format!("{word}: finish it, or write an issue");
            Finding::failure(Check::Unfinished, source, line, message)
        })
    });
    let places = PLACES.iter().flat_map(|word| {
        source.text.lines().enumerate().filter(move |(_, line)| line.contains(word)).map(
            move |(index, _)| {
                let message =
                    format!("{word} is a place on somebody's machine or network; say it without");
                Finding::failure(Check::Place, source, index + 1, message)
            },
        )
    });
    unfinished.chain(places).collect()
}

fn blanks(source: &Source) -> Vec<Finding> {
    let lines = source.text.lines().enumerate();
    let mut found: Vec<Finding> = lines
        .filter(|(_, line)| {
            line.ends_with([' ', '\t']) || (source.is_rust() && line.contains('\t'))
        })
        .map(|(index, _)| Finding::failure(Check::Blanks, source, index + 1, "stray blank or tab"))
        .collect();
    if !source.text.is_empty() && !source.text.ends_with('\n') {
        let last = source.text.lines().count();
        found.push(Finding::failure(Check::Blanks, source, last, "the last line has no end"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn checked(path: &str, text: &str, expected: &[Check]) {
        let source = Source::new(path.to_owned(), text.to_owned());
        let found: Vec<Check> = check(&source).iter().map(|f| f.check).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn unsafe_has_its_places() {
        checked("crates/patarm-text/src/a.rs", "fn a() { unsafe {} }\n", &[Check::Unsafe]);
        checked("crates/patarm-kernels/src/a.rs", "fn a() { unsafe {} }\n", &[]);
        checked("crates/patarm-text/src/a.rs", "// unsafe\n#![deny(unsafe_code)]\n", &[]);
    }

    #[test]
    fn only_programs_print() {
        checked("crates/patarm-text/src/a.rs", "fn a() { println!(); }\n", &[Check::Surroundings]);
        checked("crates/patarm-text/src/a.rs", "/// println!()\nfn a() {}\n", &[]);
        checked("crates/patarm/src/a.rs", "fn a() { println!(); }\n", &[]);
        checked("crates/patarm-text/tests/a.rs", "fn a() { println!(); }\n", &[]);
        checked("crates/patarm-text/src/a.rs", "use anyhow::Result;\n", &[Check::Surroundings]);
    }

    #[test]
    fn exceptions_give_reasons() {
        let path = "crates/patarm-text/src/a.rs";
        checked(path, "#[expect(dead_code, reason = \"x\")]\nfn a() {}\n", &[]);
        checked(path, "#[expect(dead_code)]\nfn a() {}\n", &[Check::Lint]);
        checked(path, "#[allow(dead_code)]\nfn a() {}\n", &[Check::Lint]);
        checked(path, "#[allow(dead_code, reason = \"x\")]\nfn a() {}\n", &[Check::Lint]);
        checked("crates/a/tests/b.rs", "#![allow(dead_code, reason = \"x\")]\n", &[]);
    }

    #[test]
    fn model_tests_are_marked() {
        let test = |name: &str| {
            format!("fn {name}() {{ path(\"{}\") }}\n", concat!("PATARM_TEST", "_MODEL"))
        };
        checked("crates/a/tests/b.rs", &test("scores"), &[Check::Marked]);
        checked("crates/a/tests/b.rs", &test("scores_of_the_real_model"), &[]);
    }

    #[test]
    fn marks_and_places_are_found_in_any_text() {
        checked("docs/a.md", concat!("TO", "DO: more\n"), &[Check::Unfinished]);
        checked("docs/a.md", concat!("see /wo", "rk/x\n"), &[Check::Place]);
        checked("docs/a.md", "blank \nno end", &[Check::Blanks, Check::Blanks]);
    }
}
