//! PandaLM: 999 pairs with three annotators; ties are labels.
//!
//! Source: WeOpenML/PandaLM at 3871806. The label is what two of three annotators say;
//! where all three differ there is none. How annotators agree with the majority and
//! with each other (Cohen's κ) stands beside the model's agreement.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use patarm_text::{Conversation, Preference};
use serde_json::{Value, json};

use crate::{
    benchmark::{
        Asks, Info,
        agreement::{agreement, credit},
        answers::Answered,
        item::{Item, Label},
        load::{Row, RowProblem},
        responses::{Credit, ResponseBenchmark, Set, clusters},
        summary::Metrics,
    },
    interval::Resampling,
};

/// The benchmark.
pub struct PandaLm;

const INFO: Info = Info {
    name: "pandalm",
    about: "PandaLM: pairs with three annotators; ties are labels.",
    data: "rows `idx`, `instruction`, `input`, `response1`, `response2`, `annotator1` to `annotator3`",
    hub: None,
    asks: Asks::Responses,
    metrics: &[
        ("agreement", "share of pairs whose answer is the majority's label, ties included"),
        ("cohen_kappa, macro_precision, macro_recall, macro_f1", "over the three labels"),
        ("accuracy.<rule>", "pairs whose label is no tie"),
    ],
    files: &[],
    headline: &["agreement", "cohen_kappa", "accuracy.half_credit"],
};

const ANNOTATORS: [&str; 3] = ["annotator1", "annotator2", "annotator3"];

impl ResponseBenchmark for PandaLm {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn read(&self, row: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
        let mut prompt = row.text("instruction")?.to_owned();
        if let Some(Value::String(input)) = row.get("input").filter(|input| **input != "") {
            prompt = format!("{prompt}\n\n{input}");
        }
        let mut votes = Vec::new();
        for name in ANNOTATORS {
            votes.push(preference(row, name)?);
        }
        let mut item = Item {
            id: row.id("idx")?,
            prompt: Conversation::from_user(prompt),
            responses: vec![response(row, "response1")?, response(row, "response2")?],
            label: Label::Preference(majority(&votes)),
            ..Item::default()
        };
        item.extra.insert("annotators".to_owned(), json!(votes));
        Ok(vec![item])
    }

    fn measure(&self, set: &Set<'_>, resampling: Resampling) -> Metrics {
        agreement(set, resampling)
    }

    fn credit(&self, item: &Item, answered: &Answered) -> Credit {
        credit(item, answered)
    }

    fn details(&self, set: &Set<'_>) -> BTreeMap<String, Value> {
        annotators(set.items)
    }
}

/// A response. Six of the published rows hold a truth value where the model wrote the
/// word `True`.
fn response(row: &Row<'_>, name: &str) -> Result<String, RowProblem> {
    match row.get(name) {
        Some(Value::Bool(true)) => Ok("True".to_owned()),
        Some(Value::Bool(false)) => Ok("False".to_owned()),
        _ => row.response(name),
    }
}

fn preference(row: &Row<'_>, name: &str) -> Result<Preference, String> {
    match row.get(name).and_then(Value::as_u64) {
        Some(0) => Ok(Preference::Tie),
        Some(1) => Ok(Preference::First),
        Some(2) => Ok(Preference::Second),
        _ => Err(format!("field `{name}` must be 0, 1 or 2")),
    }
}

/// What two of the votes agree on.
fn majority(votes: &[Preference]) -> Preference {
    let agreed = votes.iter().find(|vote| votes.iter().filter(|other| other == vote).count() > 1);
    agreed.copied().unwrap_or(Preference::Unknown)
}

/// Agreement of each annotator with the majority, κ of each two, and how many pairs
/// all three agree on.
fn annotators(items: &[Item]) -> BTreeMap<String, Value> {
    let votes: Vec<Vec<Preference>> = items
        .iter()
        .filter_map(|item| serde_json::from_value(item.extra.get("annotators")?.clone()).ok())
        .collect();
    if votes.is_empty() || votes.iter().any(|votes| votes.len() != ANNOTATORS.len()) {
        return BTreeMap::new();
    }
    let column = |of: usize| votes.iter().map(move |votes| votes[of]).collect::<Vec<_>>();
    let labels: Vec<Preference> = votes.iter().map(|votes| majority(votes)).collect();
    let bare = Resampling { resamples: 0, seed: 0 };
    let against = |labels: &[Preference], answers: &[Preference], name: &str| {
        compared(labels, answers, bare).get(name).and_then(|metric| metric.value)
    };
    let unanimous = votes.iter().filter(|v| v[0] == v[1] && v[1] == v[2]).count();
    let mut details = BTreeMap::from([("annotators.unanimous".to_owned(), json!(unanimous))]);
    for (of, name) in ANNOTATORS.iter().enumerate() {
        let agreement = against(&labels, &column(of), "agreement");
        details.insert(format!("{name}.agreement_with_majority"), json!(agreement));
        for (other, other_name) in ANNOTATORS.iter().enumerate().skip(of + 1) {
            let kappa = against(&column(of), &column(other), "cohen_kappa");
            details.insert(format!("{name}_{other_name}.cohen_kappa"), json!(kappa));
        }
    }
    details
}

/// The figures of answers held against labels.
fn compared(labels: &[Preference], answers: &[Preference], resampling: Resampling) -> Metrics {
    let item = |(number, label): (usize, &Preference)| Item {
        id: number.to_string(),
        group: number.to_string(),
        label: Label::Preference(*label),
        ..Item::default()
    };
    let items: Vec<Item> = labels.iter().enumerate().map(item).collect();
    let answered: Vec<Answered> = answers
        .iter()
        .map(|answer| match answer {
            Preference::First => Answered::of_scores([1.0, 0.0]),
            Preference::Second => Answered::of_scores([0.0, 1.0]),
            Preference::Tie | Preference::Unknown => Answered::of_scores([0.0, 0.0]),
        })
        .collect();
    let clusters = clusters(&items);
    agreement(&Set { items: &items, answered: &answered, clusters: &clusters }, resampling)
}
