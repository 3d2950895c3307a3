//! The items a judge got most wrong, with what it wrote of them.

use super::BenchmarkRun;
use crate::{
    benchmark::{ItemRecord, summary::JudgementRecord},
    metrics::Outcome,
    report::{
        charts::shortened,
        html::{escape, number},
    },
};

/// How many items are shown.
const MAX_ITEMS: usize = 10;

/// Longest text shown, in characters.
const MAX_TEXT: usize = 4_000;

/// Most responses or steps of an item that are listed.
const MAX_LISTED: usize = 40;

/// The worst items, worst first: least credit, then the largest lead of a wrong response
/// over a right one. Items with full credit are not among them.
pub(super) fn worst(items: &[ItemRecord]) -> Vec<&ItemRecord> {
    let mut order: Vec<(&ItemRecord, f64)> =
        items.iter().filter(|item| item.strict < 1.0).map(|item| (item, lead(item))).collect();
    order.sort_by(|(a, lead_a), (b, lead_b)| {
        let by_credit = a.half_credit.total_cmp(&b.half_credit);
        by_credit.then(lead_b.total_cmp(lead_a)).then_with(|| a.id.cmp(&b.id))
    });
    order.into_iter().take(MAX_ITEMS).map(|(item, _)| item).collect()
}

/// How far a wrong response scores above a right one; 0 without scores.
fn lead(item: &ItemRecord) -> f64 {
    let score = |index: usize| item.scores.get(index).copied().flatten();
    let is_right = |index: &usize| item.right.contains(index);
    let lowest = item.right.iter().filter_map(|i| score(*i)).fold(f64::INFINITY, f64::min);
    let wrong = (0..item.scores.len()).filter(|index| !is_right(index)).filter_map(score);
    let lead = wrong.fold(f64::NEG_INFINITY, f64::max) - lowest;
    if lead.is_finite() { lead } else { 0.0 }
}

/// The section of a run; empty when nothing is wrong.
pub(super) fn section(run: &BenchmarkRun, named: Option<&str>) -> String {
    let items = worst(&run.items);
    if items.is_empty() {
        return String::new();
    }
    let name = named.map_or(String::new(), |name| format!("{}: ", escape(name)));
    let shown: String = items.iter().map(|item| item_markup(item, run)).collect();
    format!("<h3>{name}the {} worst items</h3>{shown}", items.len())
}

fn item_markup(item: &ItemRecord, run: &BenchmarkRun) -> String {
    let subset = item.subset.as_ref().map_or(String::new(), |s| format!("{} · ", escape(s)));
    let judgements: String = run
        .judgements
        .iter()
        .filter(|judgement| judgement.item == item.id)
        .map(judgement_markup)
        .collect();
    format!(
        "<details><summary>{}<small>{subset}</small>{}</summary>{}{}{judgements}</details>",
        badge(item),
        escape(&shortened(&item.id, 120)),
        responses(item),
        notes(item),
    )
}

fn badge(item: &ItemRecord) -> String {
    let (colour, word) = match item.outcome {
        Outcome::Right => ("c2", "right"),
        Outcome::Wrong => ("c4", "wrong"),
        Outcome::Tie => ("c5", "tie"),
        Outcome::Fault => ("c7", "fault"),
    };
    let lead = lead(item);
    let lead = if lead > 0.0 { format!(" by {}", number(Some(lead))) } else { String::new() };
    format!("<span class=\"badge {colour}\">{word}{lead}</span>")
}

/// Scores and lengths of the responses, right ones marked.
fn responses(item: &ItemRecord) -> String {
    let count = item.lengths.len().max(item.scores.len());
    if count == 0 {
        return String::new();
    }
    let one = |index: usize| {
        let mark = if item.right.contains(&index) { "good" } else { "bad" };
        let word = if item.right.contains(&index) { "right" } else { "wrong" };
        let word = if item.right.is_empty() { "" } else { word };
        let score = item.scores.get(index).copied().flatten();
        let length = item.lengths.get(index).map_or(String::new(), |l| format!("{l} characters"));
        format!(
            "<li><span class=\"{mark}\">{index} {word}</span> score {} <small>{length}</small></li>",
            number(score)
        )
    };
    let shown: String = (0..count.min(MAX_LISTED)).map(one).collect();
    let more = count.saturating_sub(MAX_LISTED);
    let more = if more > 0 { format!("<li>and {more} more</li>") } else { String::new() };
    format!("<ul class=\"responses\">{shown}{more}</ul>")
}

/// Verdicts, faults, and what else the benchmark recorded.
fn notes(item: &ItemRecord) -> String {
    let mut notes: Vec<String> = item
        .verdicts
        .iter()
        .take(MAX_LISTED)
        .map(|verdict| {
            let word = verdict.verdict.as_deref().unwrap_or("unreadable");
            format!("{} before {}: {}", verdict.first, verdict.second, escape(word))
        })
        .collect();
    notes.extend(item.faults.iter().take(MAX_LISTED).map(|f| escape(&shortened(f, 400))));
    notes.extend(item.details.iter().take(MAX_LISTED).map(|(name, value)| {
        format!("{}: {}", escape(name), escape(&shortened(&value.to_string(), 400)))
    }));
    if notes.is_empty() {
        return String::new();
    }
    let notes: String = notes.iter().map(|note| format!("<li>{note}</li>")).collect();
    format!("<ul class=\"responses\">{notes}</ul>")
}

fn judgement_markup(judgement: &JudgementRecord) -> String {
    let of = match judgement.second {
        Some(second) => format!("{} shown before {second}", judgement.response),
        None => format!("response {}", judgement.response),
    };
    let mut said = Vec::new();
    said.extend(judgement.score.map(|score| format!("score {}", number(Some(score)))));
    said.extend(judgement.expected_score.map(|s| format!("expected {}", number(Some(s)))));
    said.extend(judgement.fault.as_ref().map(|fault| escape(fault)));
    format!(
        "<div class=\"label\">judgement of {of}, {}</div><pre dir=\"auto\">{}</pre>",
        said.join(", "),
        escape(&shortened(&judgement.text, MAX_TEXT))
    )
}
