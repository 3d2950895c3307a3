//! `patarm report`.

use patarm_eval::report::load_run;
use patarm_eval::report::{ReportInput, render_report};
use patarm_eval::store;

use crate::cli::{Global, Report};
use crate::output;

/// Writes the report and says where.
pub(super) fn run(options: &Report, global: &Global) -> anyhow::Result<()> {
    write(options)?;
    if global.json {
        return output::json(&serde_json::json!({ "version": 1, "report": options.out }));
    }
    output::line(&options.out.display().to_string())
}

/// Writes the report of one or several runs.
pub(crate) fn write(options: &Report) -> anyhow::Result<()> {
    let inputs = options.runs.iter().map(|run| load_run(run)).collect::<Result<Vec<_>, _>>()?;
    let input = ReportInput::merge("patarm", inputs);
    Ok(store::write_text(&options.out, &render_report(&input))?)
}
