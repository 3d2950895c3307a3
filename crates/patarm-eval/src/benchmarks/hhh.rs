//! HHH alignment: helpful, honest, harmless and other, 221 pairs.
//!
//! Reads the form in which prometheus-eval (dcfb442) carries the set: prompt and
//! response stand inside a rubric text and are cut out at its headings.

use std::collections::BTreeMap;

use patarm_text::Conversation;

use crate::{
    benchmark::{
        Asks, Info,
        accuracy::{Rule, by_subset, overall_figures},
        item::Item,
        load::{Row, RowProblem},
        responses::{ResponseBenchmark, Set},
        summary::Metrics,
        tally::Figure,
    },
    interval::Resampling,
};

/// The benchmark.
pub struct Hhh;

const INFO: Info = Info {
    name: "hhh",
    about: "HHH alignment: helpful, honest, harmless and other pairs.",
    data: "rows `source`, `chosen_instruction`, `rejected_instruction`",
    hub: None,
    asks: Asks::Responses,
    metrics: &[
        ("accuracy.<rule>", "all pairs"),
        ("subset.<source>.<rule>", "helpful, honest, harmless or other"),
        ("average.<rule>", "mean of the four, where all are whole"),
    ],
    files: &[],
    headline: &["average.strict", "accuracy.strict", "accuracy.half_credit"],
};

/// The parts with their numbers of pairs.
const PARTS: [(&str, usize); 4] =
    [("helpful", 59), ("honest", 61), ("harmless", 58), ("other", 43)];

const PROMPT: &str = "###The instruction to evaluate:";
const RESPONSE: &str = "###Response to evaluate:";
const RUBRIC: &str = "###Score Rubrics:";

impl ResponseBenchmark for Hhh {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn read(&self, row: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
        let subset = row.text("source")?.to_owned();
        let (prompt, chosen) = cut(row.text("chosen_instruction")?, "chosen_instruction")?;
        let (other, rejected) = cut(row.text("rejected_instruction")?, "rejected_instruction")?;
        if prompt != other {
            return Err("the two sides have different prompts".to_owned().into());
        }
        let prompt = Conversation::from_user(prompt);
        let id = format!("{subset}/{}", row.index);
        let item = Item::pair(id, prompt, chosen.to_owned(), rejected.to_owned());
        Ok(vec![Item { subset, ..item }])
    }

    fn missing(&self, items: &[Item]) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        items.iter().for_each(|item| *counts.entry(&item.subset).or_default() += 1);
        let missing = |(part, wanted): &(&str, usize)| match counts.get(part) {
            None => Some((*part).to_owned()),
            Some(found) if found != wanted => Some(format!("{part} ({found} of {wanted} pairs)")),
            Some(_) => None,
        };
        PARTS.iter().filter_map(missing).collect()
    }

    fn measure(&self, set: &Set<'_>, resampling: Resampling) -> Metrics {
        let groups = by_subset(set);
        let mut figures = overall_figures(&groups);
        for name in groups.names().filter(|name| !name.starts_with('\u{0}')) {
            figures.extend(groups.figures(name, &format!("subset.{name}")));
        }
        let places: Option<Vec<usize>> = PARTS.iter().map(|(part, _)| groups.place(part)).collect();
        if let Some(places) = places.filter(|_| self.missing(set.items).is_empty()) {
            for rule in Rule::ALL {
                let places = places.clone();
                let name = format!("average.{}", rule.name());
                figures.push(Figure::of(name, set.items.len(), move |sums: &[f64]| {
                    let mut total = 0.0;
                    for &place in &places {
                        total += rule.at(sums, place)?;
                    }
                    Some(total / places.len() as f64)
                }));
            }
        }
        groups.measure(&figures, resampling)
    }
}

/// Prompt and response out of the rubric text.
fn cut<'a>(text: &'a str, field: &str) -> Result<(&'a str, &'a str), String> {
    let without = |heading: &str| format!("field `{field}` lacks the heading {heading:?}");
    let (_, rest) = text.split_once(PROMPT).ok_or_else(|| without(PROMPT))?;
    // A prompt may quote a heading; the response follows the last one.
    let (prompt, rest) = rest.rsplit_once(RESPONSE).ok_or_else(|| without(RESPONSE))?;
    let (response, _) = rest.split_once(RUBRIC).ok_or_else(|| without(RUBRIC))?;
    Ok((prompt.trim(), response.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_and_response_are_cut_out() {
        let text = "x\n###The instruction to evaluate:\nWhy?\n\n###Response to evaluate:\nSo.\n\n\
                    ###Score Rubrics:\n[…]";
        assert_eq!(cut(text, "f"), Ok(("Why?", "So.")));
        assert!(cut("###The instruction to evaluate:\nWhy?", "f").is_err());
    }
}
