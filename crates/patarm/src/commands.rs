//! One module a command: arguments in, library calls, results out.

mod bench;
mod data;
mod documentation;
mod eval;
mod judge;
mod model;
pub(crate) mod report;
mod serve;
mod train;

use crate::cli::{Arguments, Command};
use crate::quickstart;

/// Runs what was asked for.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Quickstart(options) => quickstart::run(options, global),
        Command::Model(command) => model::run(command, global),
        Command::Data(command) => data::run(command, global),
        Command::Train(options) => train::run(options, global),
        Command::Judge(options) => judge::judge(options, global),
        Command::Score(options) => judge::score(options, global),
        Command::Eval(command) => eval::run(command, global),
        Command::Serve(options) => serve::run(options, global),
        Command::Report(options) => report::run(options, global),
        Command::Bench(options) => bench::run(options, global),
        Command::Completions { shell } => documentation::completions(*shell),
        Command::Man { out } => documentation::man_pages(out),
    }
}
