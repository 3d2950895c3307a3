//! Figures of several runs beside each other.

use std::collections::BTreeMap;

use super::{BenchmarkRun, Group, headline, named_in};
use crate::{
    benchmark::Metric,
    interval::{Estimate, Interval},
    report::{
        charts::{Whisker, interval_chart},
        html::{escape, estimate, number, table},
    },
};

/// Groups of figures by the first word of their names, in the order they are shown, and
/// their headings. Figures of other names stand in the first table.
const GROUPS: &[(&str, &str)] = &[
    ("section", "By section"),
    ("present", "Over what is there"),
    ("domain", "By domain"),
    ("difficulty", "By difficulty"),
    ("category", "By category"),
    ("class", "By class"),
    ("subset", "By subset"),
    ("error", "By kind of error"),
    ("source", "By source"),
    ("style", "By style"),
    ("instruction", "By instruction"),
    ("position", "Order of showing"),
    ("length", "Length"),
    ("votes", "Spread of votes"),
    ("voting", "By number of votes"),
];

/// Ways of counting, the one preferred where there is room for one coming first.
const MEASURES: &[&str] = &[
    "half_credit",
    "strict",
    "f1",
    "accuracy",
    "error_accuracy",
    "correct_accuracy",
    "half_credit_without_faults",
    "strict_without_faults",
    "tie_rate",
    "fault_rate",
];

/// Most rows of a table.
const MAX_ROWS: usize = 400;

/// Most rows of a chart of intervals.
const MAX_WHISKERS: usize = 48;

/// Baselines as they are called in tables.
const BASELINES: &[(&str, &str)] = &[
    ("longer_wins", "longer wins"),
    ("random", "random"),
    ("base", "base model"),
    ("all_right", "all right"),
    ("all_wrong", "all wrong"),
    ("coin", "coin"),
];

/// A figure's name in words.
pub(super) fn words(name: &str) -> String {
    name.replace('_', " ").replace('.', ", ")
}

/// Texts in a row, at most so many.
pub(super) fn enumerated(texts: &[String]) -> String {
    const MOST: usize = 12;
    let shown: Vec<String> = texts.iter().take(MOST).map(|text| escape(text)).collect();
    let more = texts.len().saturating_sub(MOST);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &rest
}

fn shown(metric: Option<&Metric>) -> String {
    let Some(metric) = metric else {
        return "–".to_owned();
    };
    let interval = metric.ci95.map(|[low, high]| Interval { low, high });
    estimate(&Estimate { value: metric.value, interval, n: metric.n })
}

fn group_of(name: &str) -> Option<&'static str> {
    let (first, _) = name.split_once('.')?;
    GROUPS.iter().map(|(group, _)| *group).find(|group| *group == first)
}

/// The table of figures that are no part's, headline first, with the baselines of the
/// first run.
pub(super) fn figures(group: &Group<'_>) -> String {
    let mut names: Vec<&str> = headline(&group[0].summary).into_iter().map(|(n, _)| n).collect();
    for name in group.iter().flat_map(|run| run.summary.metrics.keys()) {
        if group_of(name).is_none() && !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let baselines: Vec<&(&str, &str)> = BASELINES
        .iter()
        .filter(|(name, _)| group[0].summary.baselines.contains_key(*name))
        .collect();
    let mut headings = vec!["Figure".to_owned()];
    headings.extend(group.iter().map(|run| format!("#{}", escape(&run.name))));
    headings.push("#n".to_owned());
    headings.extend(baselines.iter().map(|(_, title)| format!("#{title}")));
    let row = |name: &&str| {
        let first = group.iter().find_map(|run| run.summary.metrics.get(*name));
        let mut row = vec![escape(&words(name))];
        row.extend(group.iter().map(|run| shown(run.summary.metrics.get(*name))));
        row.push(first.map_or("–".to_owned(), |metric| metric.n.to_string()));
        row.extend(baselines.iter().map(|(baseline, _)| {
            let figures = group[0].summary.baselines.get(*baseline);
            let value = figures.and_then(|figures| figures.get(*name)).and_then(|m| m.value);
            number(value)
        }));
        row
    };
    let rows: Vec<Vec<String>> = names.iter().take(MAX_ROWS).map(row).collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    format!(
        "<p class=\"hint\">Brackets hold 95 % intervals; n counts items, pairs or steps. Strict \
         counts ties and faults as 0, half credit as one half.</p>{}",
        table(&headings, &rows)
    )
}

/// A part's name and the way of counting: `subset.a.b.strict` is (`a.b`, `strict`).
fn split_part<'a>(group: &str, name: &'a str) -> (&'a str, &'a str) {
    let rest = name.strip_prefix(group).and_then(|r| r.strip_prefix('.')).unwrap_or(name);
    match rest.rsplit_once('.') {
        Some((part, measure)) if MEASURES.contains(&measure) => (part, measure),
        _ => (rest, ""),
    }
}

/// Tables of the parts, those with intervals between 0 and 1 also drawn.
pub(super) fn parts(group: &Group<'_>) -> String {
    let mut drawn = String::new();
    for (name, title) in GROUPS {
        let parts = Parts::of(group, name);
        if parts.names.is_empty() {
            continue;
        }
        let chart = if *name == "voting" { String::new() } else { parts.chart(group, title) };
        drawn.push_str(&format!(
            "{chart}<details><summary>{title}: {} figures</summary>{}</details>",
            parts.names.len(),
            parts.table(group)
        ));
    }
    drawn
}

/// Figures by part and way of counting.
type ByPart<'a> = BTreeMap<(&'a str, &'a str), &'a Metric>;

fn of_kind<'a>(run: &'a BenchmarkRun, kind: &str) -> ByPart<'a> {
    let metrics = run.summary.metrics.iter().filter(|(name, _)| group_of(name) == Some(kind));
    metrics.map(|(name, metric)| (split_part(kind, name), metric)).collect()
}

/// The figures of one group of parts.
struct Parts<'a> {
    /// Names of the parts, in alphabetical order.
    names: Vec<&'a str>,
    /// Ways of counting, preferred ones first.
    measures: Vec<&'a str>,
    /// Per run, figures by part and way of counting.
    runs: Vec<ByPart<'a>>,
}

impl<'a> Parts<'a> {
    fn of(group: &Group<'a>, kind: &str) -> Self {
        let runs: Vec<_> = group.iter().map(|run| of_kind(run, kind)).collect();
        let keys = || runs.iter().flat_map(BTreeMap::keys);
        let mut names: Vec<&str> = keys().map(|(part, _)| *part).collect();
        names.sort_unstable();
        names.dedup();
        let mut measures: Vec<&str> = keys().map(|(_, measure)| *measure).collect();
        let rank = |measure: &str| MEASURES.iter().position(|m| *m == measure);
        measures.sort_by_key(|measure| (rank(measure), *measure));
        measures.dedup();
        Self { names, measures, runs }
    }

    fn figure<'s>(&'s self, run: usize, part: &'s str, measure: &'s str) -> Option<&'s Metric> {
        let figures: &ByPart<'s> = &self.runs[run];
        figures.get(&(part, measure)).copied()
    }

    /// All ways of counting of a single run; the first one of several.
    fn table(&self, group: &Group<'_>) -> String {
        let single = self.runs.len() == 1;
        let columns: Vec<(usize, &str)> = match (single, self.measures.first()) {
            (true, _) => self.measures.iter().map(|measure| (0, *measure)).collect(),
            (false, Some(first)) => (0..self.runs.len()).map(|run| (run, *first)).collect(),
            (false, None) => Vec::new(),
        };
        let mut headings = vec!["Part".to_owned(), "#n".to_owned()];
        headings.extend(columns.iter().map(|(run, measure)| match single {
            true if measure.is_empty() => "#figure".to_owned(),
            true => format!("#{}", escape(&words(measure))),
            false => format!("#{}", escape(&group[*run].name)),
        }));
        let row = |part: &str| -> Vec<String> {
            let cells = columns.iter().map(|(run, measure)| self.figure(*run, part, measure));
            let cells: Vec<Option<&Metric>> = cells.collect();
            let n = cells.iter().flatten().next().map_or("–".to_owned(), |m| m.n.to_string());
            let shown = cells.into_iter().map(shown);
            [escape(&words(part)), n].into_iter().chain(shown).collect()
        };
        let rows: Vec<Vec<String>> = self.names.iter().take(MAX_ROWS).map(|p| row(p)).collect();
        let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
        table(&headings, &rows)
    }

    /// The preferred way of counting with its intervals, runs in colours.
    fn chart(&self, group: &Group<'_>, title: &str) -> String {
        let mut whiskers = Vec::new();
        for part in &self.names {
            for run in 0..self.runs.len() {
                let metric = self.measures.iter().find_map(|m| self.figure(run, part, m));
                let drawable = metric.and_then(|metric| Some((metric.value?, metric.ci95?)));
                let Some((value, [low, high])) = drawable else { continue };
                if !(0.0..=1.0).contains(&low) || !(0.0..=1.0).contains(&high) {
                    continue;
                }
                let name = match named_in(group[run], group) {
                    Some(name) => format!("{}: {name}", words(part)),
                    None => words(part),
                };
                let interval = Interval { low, high };
                whiskers.push(Whisker { name, value, interval, colour: run });
            }
        }
        let rest = whiskers.len().saturating_sub(MAX_WHISKERS);
        whiskers.truncate(MAX_WHISKERS);
        let chart = interval_chart(title, &whiskers);
        match rest {
            0 => chart,
            rest => chart + &format!("<p class=\"hint\">{rest} more in the table.</p>"),
        }
    }
}

/// What was counted, and the first problems.
pub(super) fn counts(group: &Group<'_>) -> String {
    let mut names: Vec<&String> = group.iter().flat_map(|run| run.summary.counts.keys()).collect();
    names.sort();
    names.dedup();
    let mut headings = vec!["Counted".to_owned()];
    headings.extend(group.iter().map(|run| format!("#{}", escape(&run.name))));
    let row = |name: &&String| {
        let count = |run: &&BenchmarkRun| {
            run.summary.counts.get(*name).map_or("–".to_owned(), u64::to_string)
        };
        let counts = group.iter().map(count);
        std::iter::once(escape(&words(name))).chain(counts).collect()
    };
    let rows: Vec<Vec<String>> = names.iter().take(MAX_ROWS).map(row).collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let problems: String = group
        .iter()
        .flat_map(|run| run.summary.problems.iter().take(20))
        .map(|problem| format!("<li>{}</li>", escape(problem)))
        .collect();
    let problems = match problems.is_empty() {
        true => problems,
        false => format!("<ul class=\"notes\">{problems}</ul>"),
    };
    format!(
        "<details><summary>What was counted</summary>{}{problems}</details>",
        table(&headings, &rows)
    )
}
