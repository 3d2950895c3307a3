//! `patarm eval compare`.

use std::path::Path;

use patarm_eval::compare::{ComparisonResult, compare};
use patarm_eval::interval::Estimate;
use patarm_eval::store;

use crate::cli::Global;
use crate::output;
use crate::training::pairs_options;

/// Sets the second folder against the first.
pub(super) fn folders(first: &Path, second: &Path, global: &Global) -> anyhow::Result<()> {
    let (first, second) = (store::read_folder(first)?, store::read_folder(second)?);
    let resampling = pairs_options(0).resampling;
    let result = compare(&first, &second, resampling)?;
    if global.json {
        output::json(&serde_json::json!({ "version": 1, "result": result }))
    } else {
        show(&result)
    }
}

fn show(result: &ComparisonResult) -> anyhow::Result<()> {
    output::line(&format!("{} against {}", result.second_model, result.first_model))?;
    let overall = &result.overall;
    output::line(&format!("  difference, ties half      {}", shown(&overall.half_credit)))?;
    output::line(&format!("  difference, ties wrong     {}", shown(&overall.strict)))?;
    output::line(&format!("  McNemar p                  {:.4}", overall.mcnemar_p))?;
    for (name, subset) in &result.subsets {
        let difference = shown(&subset.difference.half_credit);
        output::line(&format!("    {name:<24} {difference}  p {:.3} (Holm)", subset.holm_p))?;
    }
    Ok(())
}

fn shown(estimate: &Estimate) -> String {
    let value =
        estimate.value.map_or_else(|| "    –".into(), |value| format!("{:5.1} %", 100.0 * value));
    match estimate.interval {
        Some(interval) => {
            format!("{value}  95 % [{:.1}, {:.1}]", 100.0 * interval.low, 100.0 * interval.high)
        }
        None => value,
    }
}
