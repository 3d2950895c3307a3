//! Repository checks: `cargo xtask tidy`.
//!
//! Verbs that call one program live in the `justfile`; what needs logic lives here.

mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => run_tidy(),
        _ => {
            report("usage: cargo xtask tidy");
            ExitCode::from(2)
        }
    }
}

fn run_tidy() -> ExitCode {
    let findings = match tidy::check_workspace() {
        Ok(findings) => findings,
        Err(error) => {
            report(&format!("cannot read the workspace: {error}"));
            return ExitCode::FAILURE;
        }
    };
    for finding in &findings {
        report(&finding.to_string());
    }
    let failures = findings.iter().filter(|f| f.is_failure()).count();
    report(&format!("tidy: {failures} failures, {} warnings", findings.len() - failures));
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stderr, reason = "this program's output is for people")]
fn report(line: &str) {
    eprintln!("{line}");
}
