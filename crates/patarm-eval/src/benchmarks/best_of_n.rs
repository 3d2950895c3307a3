//! Best-of-N: several responses to a prompt, some of them right.
//!
//! Rows of our own: `prompt`, `responses`, `correct` (a truth value a response), and
//! perhaps `id` and `subset` (`all` otherwise). Figures are the best-of-k
//! curves of the PPE benchmark; choosing at random is worth the first point of the curve,
//! an oracle 1 wherever a right response is there.

use serde_json::Value;

use super::ppe::{best_of_k, truth};
use crate::{
    benchmark::{
        Asks, Info,
        answers::Answered,
        item::{Item, Label},
        load::{MAX_RESPONSES, Row, RowProblem},
        responses::{Credit, ResponseBenchmark, Set},
        summary::Metrics,
    },
    interval::Resampling,
};

/// The benchmark.
pub struct BestOfN;

const INFO: Info = Info {
    name: "best-of-n",
    about: "Best-of-N: does the best-scored of several responses answer rightly?",
    data: "rows `prompt`, `responses`, `correct` (a truth value a response), perhaps `id`, `subset`",
    hub: None,
    asks: Asks::Responses,
    metrics: &[
        ("correctness.<set>.accuracy", "mean over prompts of right above wrong, ties ½"),
        ("correctness.<set>.roc_auc", "the same over all pairs of a prompt's responses"),
        (
            "correctness.<set>.end_score",
            "correctness of the best-scored of all N, mean over prompts",
        ),
        ("correctness.<set>.max_score", "largest value over k of the best-of-k curve"),
        (
            "correctness.<set>.loss",
            "mean over k of the squared distance of that curve from the ideal one",
        ),
    ],
    files: &[],
    headline: &["correctness.all.end_score", "correctness.all.accuracy"],
};

impl ResponseBenchmark for BestOfN {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn read(&self, row: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
        let list = |field: &str| match row.get(field) {
            Some(Value::Array(list)) if list.len() <= MAX_RESPONSES => Ok(list),
            Some(Value::Array(_)) => {
                Err(format!("`{field}` has more than {MAX_RESPONSES} entries"))
            }
            _ => Err(format!("field `{field}` must be a list")),
        };
        let (responses, correct) = (list("responses")?, list("correct")?);
        if responses.len() != correct.len() || responses.is_empty() {
            let counts = (responses.len(), correct.len());
            return Err(format!("{} responses and {} truth values", counts.0, counts.1).into());
        }
        let texts: Option<Vec<String>> =
            responses.iter().map(|text| text.as_str().map(str::to_owned)).collect();
        let labels: Option<Vec<bool>> = correct.iter().map(truth).collect();
        let subset = row.text("subset").unwrap_or("all").to_owned();
        let id = row.id("id").unwrap_or_else(|_| row.index.to_string());
        Ok(vec![Item {
            id: format!("{subset}/{id}"),
            prompt: row.prompt("prompt")?,
            responses: texts.ok_or("field `responses` must hold texts".to_owned())?,
            label: Label::Correct(
                labels.ok_or("field `correct` must hold truth values".to_owned())?,
            ),
            group: id,
            subset,
            ..Item::default()
        }])
    }

    fn measure(&self, set: &Set<'_>, resampling: Resampling) -> Metrics {
        best_of_k::curves(set, resampling)
    }

    fn credit(&self, item: &Item, answered: &Answered) -> Credit {
        Credit::of_pairs(item, &answered.answer)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::benchmark::responses::clusters;

    fn read(row: &Value) -> Result<Vec<Item>, RowProblem> {
        let fields = row.as_object().expect("an object");
        BestOfN.read(&Row { file: Path::new("x.jsonl"), line: 1, index: 0, fields })
    }

    #[test]
    fn the_chosen_response_counts() {
        let row = |prompt: &str, correct: [bool; 2]| json!({ "id": prompt, "prompt": prompt, "responses": ["a", "b"], "correct": correct });
        let items: Vec<Item> = [row("p", [true, false]), row("q", [false, true])]
            .iter()
            .flat_map(|row| read(row).expect("an item"))
            .collect();
        let answered = [[2.0, 1.0], [2.0, 1.0]].map(Answered::of_scores);
        let clusters = clusters(&items);
        let set = Set { items: &items, answered: &answered, clusters: &clusters };
        let metrics = BestOfN.measure(&set, Resampling { resamples: 20, seed: 0 });
        assert_eq!(metrics["correctness.all.end_score"].value, Some(0.5));
    }

    #[test]
    fn rows_that_do_not_fit_are_told_why() {
        for (row, words) in [
            (json!({ "prompt": "p", "correct": [true] }), "`responses`"),
            (json!({ "prompt": "p", "responses": ["a"], "correct": [] }), "1 responses and 0"),
            (json!({ "prompt": "p", "responses": [], "correct": [] }), "0 responses"),
            (json!({ "prompt": "p", "responses": [1], "correct": [true] }), "texts"),
            (json!({ "prompt": "p", "responses": ["a"], "correct": ["x"] }), "truth values"),
        ] {
            let Err(RowProblem::Malformed(problem)) = read(&row) else { panic!("{row}") };
            assert!(problem.contains(words), "{problem}");
        }
    }
}
