//! Train, evaluate and serve reward models for language models.
//!
//! The binary turns arguments into configuration, calls a library, and turns the
//! outcome into an exit code. Nothing else in the workspace prints, reads the
//! environment or exits.

mod cli;

mod combined;
mod commands;
mod datasets;
mod device;
mod energy;
mod exit;
mod fingerprint;
mod judging;
mod measure;
mod observer;
mod output;
mod pull;
mod quickstart;
mod resolve;
mod reward_base;
mod reward_models;
mod reward_training;
mod samples;
mod stages;
mod step_models;
mod step_training;
mod teacher;
mod training;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let arguments = cli::Arguments::parse();
    match exit::without_faults(|| commands::run(&arguments)) {
        Ok(()) => exit::Code::Ok.into(),
        Err(error) => exit::report(&error),
    }
}
