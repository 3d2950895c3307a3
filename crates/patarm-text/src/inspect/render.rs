//! Statistics as text for people.

use std::collections::BTreeMap;
use std::fmt;

use super::{Inspection, Lengths, LongerWins, Part};

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (labels, faults) = (&self.labels, &self.faults);
        writeln!(f, "{} comparisons", self.comparisons)?;
        line(f, "first preferred", labels.first)?;
        line(f, "second preferred", labels.second)?;
        line(f, "ties", labels.tie)?;
        line(f, "not labelled", labels.unknown)?;
        line(f, "with a strength", self.with_strength)?;
        line(f, "several turns", self.several_turns)?;
        line(f, "with tools", self.with_tools)?;
        line(f, "distinct prompts", self.distinct_prompts)?;
        line(f, "repeated prompts", self.repeated_prompts)?;
        writeln!(f, "to look at")?;
        line(f, "duplicates", faults.duplicates)?;
        line(f, "conflicting labels", faults.conflicting_labels)?;
        line(f, "identical sides", faults.identical_sides)?;
        line(f, "empty responses", faults.empty_sides)?;
        line(f, "empty prompts", faults.empty_prompts)?;
        line(f, "prompts differ by side", faults.different_prompts)?;
        writeln!(f, "characters                 p10    p50    p90    p99    max   mean")?;
        lengths(f, "prompt", &self.prompt_length)?;
        lengths(f, "chosen", &self.chosen_length)?;
        lengths(f, "rejected", &self.rejected_length)?;
        writeln!(f, "preferring the longer response is right in {}", share(&self.longer_wins))?;
        parts(f, "by task", &self.tasks)?;
        parts(f, "by subset", &self.subsets)
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, count: u64) -> fmt::Result {
    writeln!(f, "  {name:<24}{count:>8}")
}

fn lengths(f: &mut fmt::Formatter<'_>, name: &str, found: &Lengths) -> fmt::Result {
    let Lengths { p10, p50, p90, p99, max, mean, .. } = found;
    writeln!(f, "  {name:<21}{p10:>7}{p50:>7}{p90:>7}{p99:>7}{max:>7}{mean:>7.0}")
}

fn share(found: &LongerWins) -> String {
    match found.accuracy {
        Some(accuracy) => format!("{:.1} % of {}", 100.0 * accuracy, found.decided),
        None => "– (no preference)".to_owned(),
    }
}

fn parts(f: &mut fmt::Formatter<'_>, title: &str, parts: &BTreeMap<String, Part>) -> fmt::Result {
    if parts.is_empty() {
        return Ok(());
    }
    writeln!(f, "{title:<26}{:>8}   longer is right", "count")?;
    for (name, part) in parts {
        writeln!(f, "  {name:<24}{:>8}   {}", part.comparisons, share(&part.longer_wins))?;
    }
    Ok(())
}
