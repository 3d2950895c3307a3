//! A result on the terminal.

use patarm_eval::benchmark::{Info, Metric, Summary};

use crate::output;

/// Figures shown beside the headline, by the beginning of their names.
const SHOWN: [&str; 9] = [
    "section.",
    "present.",
    "category.",
    "class.",
    "error.",
    "subset.",
    "position.",
    "length.controlled",
    "voting.",
];

/// Shows the headline, the parts under half credit, baselines and what went wrong.
pub(super) fn summary(summary: &Summary, info: &Info) -> anyhow::Result<()> {
    let items = summary.counts.get("items").copied().unwrap_or(0);
    output::line(&format!("{} on {} ({items} items)", summary.model, summary.benchmark))?;
    for name in info.headline {
        if let Some(metric) = summary.metrics.get(*name) {
            line(name, metric)?;
        }
    }
    for (baseline, metrics) in &summary.baselines {
        let first = info.headline.iter().find_map(|name| Some((name, metrics.get(*name)?)));
        if let Some((name, metric)) = first {
            line(&format!("{baseline}: {name}"), metric)?;
        }
    }
    for (name, metric) in &summary.metrics {
        let is_part = SHOWN.iter().any(|start| name.starts_with(start));
        let is_other_rule =
            ["_without_faults", "_rate", ".strict"].iter().any(|e| name.ends_with(e));
        if is_part && (!is_other_rule || name.starts_with("position.")) {
            line(&format!("  {name}"), metric)?;
        }
    }
    problems(summary)
}

fn problems(summary: &Summary) -> anyhow::Result<()> {
    if !summary.missing.is_empty() {
        output::line(&format!("  missing: {}", summary.missing.join(", ")))?;
    }
    let quiet = ["items", "responses", "rows", "judgements"];
    for (name, count) in summary.counts.iter().filter(|(_, count)| **count > 0) {
        if !quiet.contains(&name.as_str()) {
            output::line(&format!("  {name}: {count}"))?;
        }
    }
    for problem in summary.problems.iter().take(5) {
        output::remark(problem);
    }
    Ok(())
}

fn line(name: &str, metric: &Metric) -> anyhow::Result<()> {
    output::line(&format!("  {name:<44} {}", shown(metric)))
}

/// A share as per cent with its interval.
fn shown(metric: &Metric) -> String {
    let Some(value) = metric.value else {
        return format!("    –    n {}", metric.n);
    };
    let interval = metric.ci95.map_or(String::new(), |[low, high]| {
        format!("  95 % [{:.1}, {:.1}]", 100.0 * low, 100.0 * high)
    });
    format!("{:5.1} %{interval}  n {}", 100.0 * value, metric.n)
}
