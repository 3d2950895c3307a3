//! LLMBar: instruction following, natural and adversarial.
//!
//! Source: princeton-nlp/LLMBar at 900616b. The set of a row is told from its path:
//! `…/LLMBar/Natural`, `…/LLMBar/Adversarial/{Neighbor,GPTInst,GPTOut,Manual}`,
//! `…/Processed/{MT-Bench,FairEval,LLMEval^2}`, `…/CaseStudy/…`. The paper's accuracy
//! of a judge is the mean over both orders, `accuracy.mean_of_orders` here; its
//! agreement of orders is `position.consistency`.

use serde_json::Value;

use crate::{
    benchmark::{
        Asks, Info,
        accuracy::{Groups, Rule, by_subset, overall_figures},
        item::{Item, Label},
        load::{Row, RowProblem},
        responses::{ResponseBenchmark, Set},
        summary::Metrics,
        tally::Figure,
    },
    interval::Resampling,
};
use patarm_text::{Conversation, Preference};

/// The benchmark.
pub struct LlmBar;

const INFO: Info = Info {
    name: "llmbar",
    about: "LLMBar: instruction following, natural and adversarial pairs.",
    data: "the folder `Dataset`, or files of rows `input`, `output_1`, `output_2`, `label`",
    hub: None,
    asks: Asks::Responses,
    metrics: &[
        ("accuracy.<rule>", "all pairs"),
        ("subset.<set>.<rule>", "one set"),
        ("adversarial.<rule>", "mean of the four adversarial sets, where all are there"),
        ("average.<rule>", "mean of Natural and the four, where all are there"),
    ],
    files: &[],
    headline: &[
        "average.half_credit",
        "accuracy.strict",
        "accuracy.half_credit",
        "accuracy.mean_of_orders",
    ],
};

const NATURAL: &str = "Natural";
const ADVERSARIAL: [&str; 4] = ["Neighbor", "GPTInst", "GPTOut", "Manual"];

/// The sets with their numbers of pairs, as far as they have an average.
const SIZES: [(&str, usize); 5] =
    [(NATURAL, 100), ("Neighbor", 134), ("GPTInst", 92), ("GPTOut", 47), ("Manual", 46)];

impl ResponseBenchmark for LlmBar {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn read(&self, row: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
        let label = match row.get("label").and_then(Value::as_u64) {
            Some(1) => Preference::First,
            Some(2) => Preference::Second,
            _ => return Err("field `label` must be 1 or 2".to_owned().into()),
        };
        let subset = set_of(row);
        Ok(vec![Item {
            id: format!("{subset}/{}", row.index),
            prompt: Conversation::from_user(row.text("input")?),
            responses: vec![row.response("output_1")?, row.response("output_2")?],
            label: Label::Preference(label),
            subset,
            ..Item::default()
        }])
    }

    fn missing(&self, items: &[Item]) -> Vec<String> {
        let missing = |(set, wanted): &(&str, usize)| {
            let found = items.iter().filter(|item| item.subset == *set).count();
            match found {
                0 => Some((*set).to_owned()),
                _ if found != *wanted => Some(format!("{set} ({found} of {wanted} pairs)")),
                _ => None,
            }
        };
        SIZES.iter().filter_map(missing).collect()
    }

    fn measure(&self, set: &Set<'_>, resampling: Resampling) -> Metrics {
        let groups = by_subset(set);
        let mut figures = overall_figures(&groups);
        for name in groups.names().filter(|name| !name.starts_with('\u{0}')) {
            figures.extend(groups.figures(name, &format!("subset.{name}")));
        }
        for rule in Rule::ALL {
            figures.extend(mean_of(&groups, "adversarial", &ADVERSARIAL, rule));
            let all: Vec<&str> = std::iter::once(NATURAL).chain(ADVERSARIAL).collect();
            figures.extend(mean_of(&groups, "average", &all, rule));
        }
        groups.measure(&figures, resampling)
    }
}

/// The set of a row: the folder of a file called `dataset`, else the file's name.
fn set_of(row: &Row<'_>) -> String {
    let parent = row.file.parent().and_then(|folder| folder.file_name());
    match parent.and_then(|name| name.to_str()) {
        Some(folder) if row.stem() == "dataset" => folder.to_owned(),
        _ => row.stem().to_owned(),
    }
}

/// The plain mean of sets; `None` unless each is whole.
fn mean_of(groups: &Groups, name: &str, sets: &[&str], rule: Rule) -> Option<Figure<'static>> {
    let size = |set: &str| SIZES.iter().find(|(name, _)| *name == set).map_or(0, |(_, n)| *n);
    if !sets.iter().all(|set| groups.count(set) == size(set)) {
        return None;
    }
    let places: Vec<usize> = sets.iter().filter_map(|set| groups.place(set)).collect();
    let n = sets.iter().map(|set| groups.count(set)).sum();
    Some(Figure::of(format!("{name}.{}", rule.name()), n, move |sums: &[f64]| {
        let mut total = 0.0;
        for &place in &places {
            total += rule.at(sums, place)?;
        }
        Some(total / places.len() as f64)
    }))
}
