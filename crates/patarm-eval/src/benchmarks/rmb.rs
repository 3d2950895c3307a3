//! RMB: pairs and best-of-N sets, helpful and harmless.
//!
//! Source: the data of Zhou-Zoey/RMB-Reward-Model-Benchmark [field names recalled; not
//! checked against a copy]. Pairwise rows have `pair_uid`, `conversation_input`,
//! `chosen` and `reject` (objects with `answer`), best-of-N rows `bon_uid`, `bon_best`
//! and `loser_list`; both `category_path`. Whether a row is about helpfulness or
//! harmlessness is told from its category or the path of its file. A best-of-N set is
//! right when the best response beats every loser.

#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::{
    benchmark::{
        Asks, Info,
        accuracy::{Groups, Rule, overall_figures},
        item::{Item, Label},
        load::{Row, RowProblem},
        responses::{Credit, ResponseBenchmark, Set},
        summary::Metrics,
        tally::Figure,
    },
    interval::Resampling,
};

/// The benchmark.
pub struct Rmb;

const INFO: Info = Info {
    name: "rmb",
    about: "RMB: pairs and best-of-N sets, helpful and harmless.",
    data: "the folder `RMB_dataset`, or its files",
    hub: None,
    asks: Asks::Responses,
    metrics: &[
        ("pairwise.<goal>.<rule>", "pairs; helpfulness or harmlessness"),
        ("best_of_n.<goal>.<rule>", "sets whose best response beats every loser"),
        ("overall.<rule>", "mean of the four; only where all four are there"),
        ("accuracy.<rule>", "every best against every loser, pairs included"),
    ],
    files: &[],
    headline: &["overall.strict", "overall.half_credit", "accuracy.strict", "accuracy.half_credit"],
};

const PARTS: [&str; 4] = [
    "pairwise.helpfulness",
    "pairwise.harmlessness",
    "best_of_n.helpfulness",
    "best_of_n.harmlessness",
];

impl ResponseBenchmark for Rmb {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn read(&self, row: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
        let (kind, id, best, losers) = if row.get("bon_uid").is_some() {
            let losers = match row.get("loser_list") {
                Some(Value::Array(list)) => list.iter().map(answer).collect::<Result<_, _>>()?,
                _ => return Err("field `loser_list` must be a list".to_owned().into()),
            };
            ("best_of_n", row.id("bon_uid")?, answer_of(row, "bon_best")?, losers)
        } else {
            let rejected = answer_of(row, "reject")?;
            ("pairwise", row.id("pair_uid")?, answer_of(row, "chosen")?, vec![rejected])
        };
        let mut responses = vec![best];
        responses.extend(losers);
        let label = Label::Correct((0..responses.len()).map(|index| index == 0).collect());
        Ok(vec![Item {
            id: format!("{kind}/{id}"),
            subset: format!("{kind}.{}", goal(row)?),
            prompt: row.prompt("conversation_input")?,
            responses,
            label,
            ..Item::default()
        }])
    }

    fn missing(&self, items: &[Item]) -> Vec<String> {
        let is_absent = |part: &&str| !items.iter().any(|item| item.subset == *part);
        PARTS.into_iter().filter(is_absent).map(str::to_owned).collect()
    }

    fn measure(&self, set: &Set<'_>, resampling: Resampling) -> Metrics {
        let mut groups = Groups::default();
        for (index, (item, answered)) in set.items.iter().zip(set.answered).enumerate() {
            let outcome = Credit::of_pairs(item, &answered.answer).outcome;
            groups.add(&item.subset, set.clusters[index], outcome);
        }
        let mut figures = Vec::new();
        for part in PARTS {
            figures.extend(groups.figures(part, part));
        }
        let places: Option<Vec<usize>> = PARTS.iter().map(|part| groups.place(part)).collect();
        for rule in Rule::ALL {
            let Some(places) = places.clone() else { continue };
            let name = format!("overall.{}", rule.name());
            figures.push(Figure::of(name, set.items.len(), move |sums: &[f64]| {
                let mut total = 0.0;
                for &place in &places {
                    total += rule.at(sums, place)?;
                }
                Some(total / places.len() as f64)
            }));
        }
        let mut metrics = groups.measure(&figures, resampling);
        let pairs = crate::benchmark::accuracy::by_subset(set);
        metrics.extend(pairs.measure(&overall_figures(&pairs), resampling));
        metrics
    }
}

/// Helpfulness or harmlessness, from the category or the file's path.
fn goal(row: &Row<'_>) -> Result<&'static str, String> {
    let category = row.get("category_path").and_then(Value::as_str).unwrap_or_default();
    let place = format!("{category}/{}", row.file.display()).to_lowercase();
    match (place.find("helpful"), place.find("harmless")) {
        (Some(helpful), Some(harmless)) if helpful < harmless => Ok("helpfulness"),
        (_, Some(_)) => Ok("harmlessness"),
        (Some(_), None) => Ok("helpfulness"),
        (None, None) => {
            Err("neither category nor path says helpfulness or harmlessness".to_owned())
        }
    }
}

fn answer_of(row: &Row<'_>, field: &str) -> Result<String, RowProblem> {
    let missing = || RowProblem::MissingResponse(format!("response `{field}` is missing"));
    answer(row.get(field).ok_or_else(missing)?)
}

/// A response given as text or as an object with `answer`.
fn answer(value: &Value) -> Result<String, RowProblem> {
    let text = value.as_str().or_else(|| value.get("answer").and_then(Value::as_str));
    let missing = || RowProblem::MissingResponse("a response has no `answer`".to_owned());
    text.map(str::to_owned).ok_or_else(missing)
}
