//! Results on standard output, remarks on standard error.

use std::io::Write;

use patarm_train::lengths::LengthReport;
use serde::Serialize;

/// Writes one line of a result.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(())
}

/// Writes a result as one JSON object.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string(value)?)
}

/// Writes a remark for the person at the terminal.
#[expect(clippy::print_stderr, reason = "remarks go to standard error")]
pub(crate) fn remark(text: &str) {
    eprintln!("{text}");
}

/// Tells what happened to long inputs, where something did.
pub(crate) fn remark_lengths(lengths: LengthReport) {
    if lengths != LengthReport::default() {
        remark(&format!(
            "too long: {} comparisons dropped, {} prompts and {} responses cut",
            lengths.dropped, lengths.cut_prompts, lengths.cut_responses
        ));
    }
}
