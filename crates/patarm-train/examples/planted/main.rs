//! Questions about the method that a tiny random judge can answer, on a planted
//! preference: the chosen response says one word, the rejected one another.
//!
//! `cargo run --release -p patarm-train --example planted -- estimators|stages OUT [SEEDS [KEY=VALUE]…]`
//!
//! A run is a directory `OUT/NAME-sSEED` with its metrics and `held_out.json`;
//! `experiments/summarise.py planted OUT` makes the table. Both questions use the same
//! pairs, the same judge and the same recipe, which `KEY=VALUE` changes.

#[path = "../../tests/support/mod.rs"]
mod support;

mod common;
mod estimators;
mod stages;

use std::error::Error;
use std::path::PathBuf;

use common::Setting;

const USAGE: &str = "usage: planted estimators|stages OUT [SEEDS [KEY=VALUE]…]";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let question = arguments.next().ok_or(USAGE)?;
    let out = PathBuf::from(arguments.next().ok_or(USAGE)?);
    let seeds: u64 = arguments.next().map_or(Ok(6), |count| count.parse())?;
    let setting = Setting::new(out, arguments.collect());
    match question.as_str() {
        "estimators" => (0..seeds).try_for_each(|seed| estimators::run(&setting, seed)),
        "stages" => (0..seeds).try_for_each(|seed| stages::run(&setting, seed)),
        _ => Err(USAGE.into()),
    }
}
