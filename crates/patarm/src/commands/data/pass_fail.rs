//! `patarm data pass-fail`: pairs from single responses that pass or fail.

use std::path::Path;

use patarm_text::dataset::{LabelledItem, Limits, OutputFormat, read_labelled, write_comparisons};
use patarm_text::pass_fail::{PairUp, pair_up, split_labelled};
use patarm_text::{Comparison, Preference};
use serde::Serialize;

use crate::cli::{Global, PassFail};
use crate::output;

#[derive(Debug, Serialize)]
struct PassFailReport<'a> {
    version: u32,
    passes: usize,
    fails: usize,
    train: Part<'a>,
    held_out: Option<Part<'a>>,
}

/// What a file holds.
#[derive(Debug, Serialize)]
struct Part<'a> {
    out: &'a Path,
    responses: usize,
    wins: usize,
    ties: usize,
}

/// Reads labelled responses and writes pairs in the native format.
pub(super) fn run(options: &PassFail, global: &Global) -> anyhow::Result<()> {
    let path = super::local(&options.file)?;
    let items = read_labelled(&path, &Limits::default()).map_err(|error| super::refused(&error))?;
    let passes = items.iter().filter(|one| one.passes).count();
    let fails = items.len() - passes;
    let share = options.held_out.as_ref().map_or(0.0, |_| options.held_out_share);
    let (train, held_out) = split_labelled(items, share, options.seed)
        .map_err(|error| super::usage("--held-out-share", error))?;
    let wins = options.wins.unwrap_or(train.len());
    let counts = (wins, options.ties.unwrap_or(wins));
    let train = write(&options.out, &train, counts, options.seed)?;
    let held_out = match &options.held_out {
        Some(out) => Some(write(out, &held_out, (held_out.len(), held_out.len()), options.seed)?),
        None => None,
    };
    let report = PassFailReport { version: 1, passes, fails, train, held_out };
    if global.json {
        return output::json(&report);
    }
    output::line(&format!("{passes} responses pass, {fails} fail"))?;
    for part in [Some(&report.train), report.held_out.as_ref()].into_iter().flatten() {
        output::line(&format!(
            "{}: {} wins and {} ties of {} responses",
            part.out.display(),
            part.wins,
            part.ties,
            part.responses
        ))?;
    }
    Ok(())
}

fn write<'a>(
    out: &'a Path,
    items: &[LabelledItem],
    (wins, ties): (usize, usize),
    seed: u64,
) -> anyhow::Result<Part<'a>> {
    let named = |error: patarm_text::Error| {
        super::coded(&error).context(format!("{} cannot be made", out.display()))
    };
    let pairs = pair_up(items, PairUp { wins, ties, seed }).map_err(named)?;
    write_comparisons(out, OutputFormat::Native, &pairs).map_err(|error| super::coded(&error))?;
    let count =
        |label: Preference| pairs.iter().filter(|pair: &&Comparison| pair.label == label).count();
    Ok(Part {
        out,
        responses: items.len(),
        wins: count(Preference::First),
        ties: count(Preference::Tie),
    })
}
