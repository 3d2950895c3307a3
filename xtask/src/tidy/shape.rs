//! Shape of Rust files: size, functions, module docs, headers of training loops.

use super::{
    Check, Finding,
    source::{Source, block_end},
};

/// Lines of a file that call for a cut, and that fail.
const FILE_LINES: (usize, usize) = (600, 1_000);

/// Lines of a function, from `fn` to its closing brace, that call for a cut, and that fail.
const FUNCTION_LINES: (usize, usize) = (60, 100);

/// Files that implement a published method and say how they deviate from it.
const LOOP_FILES: &[&str] = &["crates/patarm-train/src/sft.rs", "crates/patarm-train/src/grpo.rs"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut found: Vec<Finding> = file_size(source).into_iter().collect();
    found.extend(functions(source));
    found.extend(headers(source));
    found
}

fn file_size(source: &Source) -> Option<Finding> {
    let lines = source.text.lines().count();
    let (soft, hard) = FILE_LINES;
    if lines > hard {
        let message = format!("{lines} lines, at most {hard}; cut the file by jobs");
        return Some(Finding::failure(Check::FileSize, source, 1, message));
    }
    (lines > soft).then(|| {
        Finding::warning(Check::FileSize, source, 1, format!("{lines} lines, better below {soft}"))
    })
}

fn functions(source: &Source) -> Vec<Finding> {
    let (soft, hard) = FUNCTION_LINES;
    let measured = function_lines(&source.code);
    measured
        .into_iter()
        .filter(|(_, lines, _)| *lines > soft)
        .map(|(line, lines, name)| {
            if lines > hard {
                let message =
                    format!("fn {name} has {lines} lines, at most {hard}; cut out its steps");
                Finding::failure(Check::FunctionSize, source, line, message)
            } else {
                let message = format!("fn {name} has {lines} lines, better below {soft}");
                Finding::warning(Check::FunctionSize, source, line, message)
            }
        })
        .collect()
}

/// Line, length in lines and name of every function with a body.
fn function_lines(code: &str) -> Vec<(usize, usize, &str)> {
    let mut measured = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let is_word =
            code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let name = code[at + 3..].split(|c: char| !c.is_alphanumeric() && c != '_').next();
        let Some(name) = name.filter(|name| is_word && !name.is_empty()) else {
            continue;
        };
        let Some(end) = block_end(code, at) else {
            continue;
        };
        if code[..end].ends_with('}') {
            let line = code[..at].matches('\n').count() + 1;
            measured.push((line, code[at..end].matches('\n').count() + 1, name));
        }
    }
    measured
}

fn headers(source: &Source) -> Vec<Finding> {
    let first = source.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut found = Vec::new();
    if !first.starts_with("//!") {
        let message = "the file does not start with a module doc (`//! What it is for.`)";
        found.push(Finding::failure(Check::Header, source, 1, message));
    }
    let header: String = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
    if LOOP_FILES.contains(&source.path.as_str()) && !header.contains("Deviations") {
        let message =
            "the header has no part \"Deviations\" that says how the loop differs from its source";
        found.push(Finding::failure(Check::Header, source, 1, message));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(path.to_owned(), text.to_owned());
        check(&source).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn functions_are_measured() {
        let code = "fn one() -> [u8; 3] {\n  a();\n}\ntrait T { fn two(); }\nfn three() {}\n";
        assert_eq!(function_lines(code), [(1, 3, "one"), (5, 1, "three")]);
    }

    #[test]
    fn long_things_are_found() {
        let body = |lines: usize| format!("//! Doc.\nfn long() {{\n{}}}\n", "x();\n".repeat(lines));
        assert!(checked("crates/a/src/b.rs", &body(30)).is_empty());
        assert!(checked("crates/a/src/b.rs", &body(70))[0].contains("warning (FunctionSize)"));
        assert!(checked("crates/a/src/b.rs", &body(120))[0].contains("failure (FunctionSize)"));
        let long = format!("//! Doc.\n{}", "\n".repeat(1_001));
        assert!(checked("crates/a/src/b.rs", &long)[0].contains("failure (FileSize)"));
    }

    #[test]
    fn headers_are_demanded() {
        assert!(checked("crates/a/src/b.rs", "fn a() {}\n")[0].contains("module doc"));
        assert!(checked(LOOP_FILES[0], "//! Doc.\n")[0].contains("Deviations"));
        assert!(checked(LOOP_FILES[0], "//! Doc.\n//! # Deviations\n").is_empty());
    }
}
