//! Completions and man pages, from the definition that parses the command line.

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Arguments;
use crate::exit::{Code, failure};
use crate::output;

/// Prints a completion script.
pub(crate) fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "patarm", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())
}

/// Writes one man page for the program and one for every command, each whole or
/// not at all.
pub(crate) fn man_pages(out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).map_err(|cause| {
        failure(Code::Data, format!("cannot create {}: {cause}", out.display()))
    })?;
    for (name, page) in pages()? {
        patarm_files::write_atomically(&out.join(name), &page)
            .map_err(|error| failure(Code::Data, error.to_string()))?;
    }
    output::line(&out.display().to_string())
}

/// File name and text of every page.
fn pages() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add_pages(&command, &mut pages)?;
    Ok(pages)
}

fn add_pages(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    let man = Man::new(command.clone());
    let mut text = Vec::new();
    man.render(&mut text)?;
    pages.push((man.get_filename(), text));
    let shown = command.get_subcommands().filter(|inner| !inner.is_hide_set());
    shown.into_iter().try_for_each(|inner| add_pages(inner, pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_page_and_an_explanation() {
        let pages = pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for expected in ["patarm.1", "patarm-model.1", "patarm-model-logprobs.1", "patarm-bench.1"]
        {
            assert!(names.contains(&expected), "{expected} in {names:?}");
        }
        let mut command = Arguments::command();
        command.build();
        assert_described(&command);
    }

    #[test]
    fn the_documentation_names_every_command_and_option() {
        let page = include_str!("../../../../docs/commands.md");
        let mut command = Arguments::command().disable_help_subcommand(true);
        command.build();
        assert_documented(&command, page);
    }

    fn assert_documented(command: &Command, page: &str) {
        let name = command.get_name();
        assert!(page.contains(name), "docs/commands.md does not name {name}");
        let options = command.get_arguments().filter_map(|argument| argument.get_long());
        for option in options.filter(|option| !matches!(*option, "help" | "version")) {
            let option = format!("--{option}");
            assert!(page.contains(&option), "docs/commands.md does not name {option} of {name}");
        }
        command.get_subcommands().for_each(|inner| assert_documented(inner, page));
    }

    fn assert_described(command: &Command) {
        assert!(command.get_about().is_some(), "{} has no description", command.get_name());
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{}: {}", command.get_name(), argument.get_id());
        }
        command.get_subcommands().for_each(assert_described);
    }
}
