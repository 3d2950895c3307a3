//! JudgeBench: pairs of which one answer is objectively right, judged in both orders.
//!
//! Source: the description of ScalerLab/JudgeBench (its repository states no licence,
//! so only the description was used). Every pair is judged in both orders; the second
//! decision is flipped back; a counter goes up for the label, down for its opposite
//! and stays for anything else; the pair is right when the counter is above 0. So one
//! right decision and one tie count, one right and one wrong do not. A scalar model
//! plays a single game.

mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use patarm_text::{Conversation, Preference};

use crate::{
    benchmark::{
        Asks, Info, OfficialFile,
        answers::{Answer, Answered},
        item::{Item, Label},
        load::{Row, RowProblem},
        responses::{About, Credit, ResponseBenchmark, Set},
        summary::Metrics,
        tally::{Figure, Tally},
    },
    interval::Resampling,
    metrics::Outcome,
};

/// The benchmark.
pub struct JudgeBench;

const INFO: Info = Info {
    name: "judgebench",
    about: "JudgeBench: pairs with one objectively right answer, in both orders.",
    data: "rows `pair_id`, `original_id`, `source`, `question`, `response_model`, `response_A`, `response_B`, `label`",
    hub: Some("ScalerLab/JudgeBench"),
    asks: Asks::Responses,
    metrics: &[
        ("overall", "share of pairs whose counter is above 0; only where a split is whole"),
        ("present", "the same where a split is not whole"),
        (
            "source.<source>",
            "the same for mmlu-pro, livebench-reasoning, livebench-math or livecodebench",
        ),
        ("accuracy.<rule>", "pairs with orders that differ as ties"),
    ],
    files: &[(
        "dataset=judgebench,response_model=…,judge_name=…,judge_model=….jsonl",
        "the rows with `judge_name` and `judgments`; rows that are there are not judged again",
    )],
    headline: &["overall", "present", "accuracy.strict", "accuracy.half_credit"],
};

/// Sources with their pairs in the split of GPT-4o and of Claude 3.5 Sonnet.
const SOURCES: [(&str, [usize; 2]); 4] = [
    ("mmlu-pro", [154, 154]),
    ("livebench-reasoning", [98, 51]),
    ("livebench-math", [56, 34]),
    ("livecodebench", [42, 31]),
];

impl ResponseBenchmark for JudgeBench {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn read(&self, row: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
        let correct = match row.text("label")? {
            "A>B" => vec![true, false],
            "B>A" => vec![false, true],
            other => return Err(format!("field `label` is {other:?}, not A>B or B>A").into()),
        };
        let mut item = Item {
            id: row.id("pair_id")?,
            subset: source_of(row.text("source")?),
            prompt: Conversation::from_user(row.text("question")?),
            responses: vec![row.response("response_A")?, row.response("response_B")?],
            label: Label::Correct(correct),
            group: row.id("original_id").unwrap_or_default(),
            ..Item::default()
        };
        for (name, value) in row.fields {
            if !matches!(name.as_str(), "question" | "response_A" | "response_B") {
                item.extra.insert(name.clone(), value.clone());
            }
        }
        Ok(vec![item])
    }

    fn missing(&self, items: &[Item]) -> Vec<String> {
        let counts = counts(items);
        let count = |source: &str| counts.get(source).copied().unwrap_or(0);
        let fits = |split: usize| SOURCES.iter().all(|(name, sizes)| count(name) == sizes[split]);
        if fits(0) || fits(1) {
            return Vec::new();
        }
        SOURCES
            .iter()
            .filter(|(name, sizes)| !sizes.contains(&count(name)))
            .map(|(name, sizes)| {
                format!("{name} ({} pairs of {} or {})", count(name), sizes[0], sizes[1])
            })
            .chain(std::iter::once("a whole split of 350 or 270 pairs".to_owned()))
            .collect()
    }

    fn measure(&self, set: &Set<'_>, resampling: Resampling) -> Metrics {
        let names: Vec<&str> = counts(set.items).into_keys().collect();
        let overall = if self.missing(set.items).is_empty() { "overall" } else { "present" };
        let mut tally = Tally::new(2 * (names.len() + 1));
        for (index, (item, answered)) in set.items.iter().zip(set.answered).enumerate() {
            let right = f64::from(u8::from(counter(item, &answered.answer) > 0));
            let subset = names.iter().position(|name| *name == item.subset).map(|n| n + 1);
            for group in std::iter::once(0).chain(subset) {
                tally.add(set.clusters[index], 2 * group, right);
                tally.add(set.clusters[index], 2 * group + 1, 1.0);
            }
        }
        let sources = names.iter().map(|name| format!("source.{name}"));
        let figures: Vec<Figure<'_>> = std::iter::once(overall.to_owned())
            .chain(sources)
            .enumerate()
            .map(|(group, name)| {
                let n = tally.total(2 * group + 1) as usize;
                Figure::proportion(name, 2 * group, 2 * group + 1, n)
            })
            .collect();
        let mut metrics = tally.measure(&figures, resampling);
        metrics.extend(crate::benchmark::accuracy::pair_accuracy(set, resampling));
        metrics
    }

    fn credit(&self, item: &Item, answered: &Answered) -> Credit {
        let of_pair = Credit::of_pairs(item, &answered.answer);
        let strict = f64::from(u8::from(counter(item, &answered.answer) > 0));
        let outcome = if strict > 0.0 { Outcome::Right } else { of_pair.outcome };
        Credit { outcome, strict, half_credit: of_pair.half_credit.max(strict) }
    }

    fn files(&self, set: &Set<'_>, about: &About<'_>) -> Vec<OfficialFile> {
        file::official(set, about.model)
    }
}

/// The source's family: `mmlu-pro-law` belongs to `mmlu-pro`.
fn source_of(source: &str) -> String {
    let known = SOURCES.iter().find(|(name, _)| source.starts_with(name));
    known.map_or(source, |(name, _)| name).to_owned()
}

fn counts(items: &[Item]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    items.iter().for_each(|item| *counts.entry(item.subset.as_str()).or_default() += 1);
    counts
}

/// The counter of a pair; a scalar model's single game moves it by one.
fn counter(item: &Item, answer: &Answer) -> i32 {
    let label = if item.right() == [0] { Preference::First } else { Preference::Second };
    let step = |decision: Option<Preference>| match decision {
        Some(decision) if decision == label => 1,
        Some(decision) if decision == label.swap() => -1,
        _ => 0,
    };
    match answer {
        Answer::Scores(_) => step(answer.preference(0, 1)),
        Answer::Verdicts(verdicts) => match verdicts.get(&(0, 1)) {
            Some(verdicts) => verdicts.preferences().into_iter().map(|v| step(v.flatten())).sum(),
            None => 0,
        },
    }
}
