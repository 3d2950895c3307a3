//! `patarm eval compare`.

use std::path::Path;

use patarm_eval::benchmark::output::{SUMMARY_FILE, read_items, read_summary};
use patarm_eval::compare::{ComparisonResult, compare, compare_items};
use patarm_eval::interval::{Estimate, Resampling};
use patarm_eval::store;

use crate::cli::Global;
use crate::exit::{Code, failure};
use crate::output;
use crate::training::pairs_options;

/// Sets the second folder against the first: items of any benchmark, or the pairs of an
/// evaluation that a training run left.
pub(super) fn folders(first: &Path, second: &Path, global: &Global) -> anyhow::Result<()> {
    let resampling = pairs_options(0).resampling;
    let is_evaluation = |dir: &Path| dir.join(SUMMARY_FILE).is_file();
    let result = if is_evaluation(first) && is_evaluation(second) {
        items(first, second, resampling)?
    } else {
        compare(&store::read_folder(first)?, &store::read_folder(second)?, resampling)?
    };
    if global.json {
        output::json(&serde_json::json!({ "version": 1, "result": result }))
    } else {
        show(&result)
    }
}

fn items(first: &Path, second: &Path, resampling: Resampling) -> anyhow::Result<ComparisonResult> {
    let (one, other) = (read_summary(first)?, read_summary(second)?);
    if one.benchmark != other.benchmark {
        let (one, other) = (one.benchmark, other.benchmark);
        let message = format!("one folder is of {one}, the other of {other}; give two of the same");
        return Err(failure(Code::Data, message));
    }
    let (first, second) = (read_items(first)?, read_items(second)?);
    Ok(compare_items((&one.model, &first), (&other.model, &second), resampling)?)
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
