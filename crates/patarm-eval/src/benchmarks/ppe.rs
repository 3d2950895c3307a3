//! PPE: human preferences of the arena, and best-of-K sets with known correctness.
//!
//! Source: "How to Evaluate Reward Models for RLHF" and the data cards of
//! lmarena-ai/PPE [metric names recalled; definitions below are ours where the paper's
//! were not at hand]. Human rows have `question_id`, `prompt`, `response_1`,
//! `response_2`, `winner`; correctness rows `question_id`, `model_name`, `prompt`,
//! `scores` (a truth value a response) and `response_1` to `response_K`. The set of a
//! correctness row is its file's name.

pub(super) mod best_of_k;
#[cfg(test)]
mod tests;

use patarm_text::Preference;
use serde_json::Value;

use crate::{
    benchmark::{
        Asks, Info,
        agreement::credit,
        answers::Answered,
        item::{Item, Label},
        load::{MAX_RESPONSES, Row, RowProblem},
        responses::{Credit, ResponseBenchmark, Set},
        summary::Metrics,
    },
    interval::Resampling,
};

/// The benchmark.
pub struct Ppe;

const INFO: Info = Info {
    name: "ppe",
    about: "PPE: human preferences, and best-of-K sets with known correctness.",
    data: "rows of the human or the correctness sets; several files may be given",
    hub: Some("lmarena-ai/PPE-Human-Preference-V1"),
    asks: Asks::Responses,
    metrics: &[
        ("human.accuracy.<rule>", "votes that are no ties"),
        ("correctness.<set>.accuracy", "mean over prompts of right above wrong, ties ½"),
        (
            "correctness.<set>.roc_auc",
            "the same over all pairs of a prompt's responses as one ranking; equals accuracy under ties ½",
        ),
        (
            "correctness.<set>.end_score",
            "correctness of the best-scored of all K, mean over prompts",
        ),
        ("correctness.<set>.max_score", "largest value over k of the best-of-k curve"),
        (
            "correctness.<set>.loss",
            "mean over k of the squared distance of that curve from the ideal one",
        ),
    ],
    files: &[],
    headline: &["human.accuracy.strict", "human.accuracy.half_credit"],
};

const HUMAN: &str = "human";

impl ResponseBenchmark for Ppe {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn read(&self, row: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
        if row.get("winner").is_some() { human(row) } else { correctness(row) }
    }

    fn measure(&self, set: &Set<'_>, resampling: Resampling) -> Metrics {
        let mut metrics = Metrics::new();
        let human = crate::benchmark::accuracy::by_subset(set);
        if human.count(HUMAN) > 0 {
            let figures = human.figures(HUMAN, "human.accuracy");
            metrics.extend(human.measure(&figures, resampling));
        }
        metrics.extend(best_of_k::curves(set, resampling));
        metrics
    }

    fn credit(&self, item: &Item, answered: &Answered) -> Credit {
        match item.label {
            Label::Preference(_) => credit(item, answered),
            Label::Correct(_) => Credit::of_pairs(item, &answered.answer),
        }
    }
}

fn human(row: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
    let label = match row.text("winner")? {
        "model_a" => Preference::First,
        "model_b" => Preference::Second,
        tie if tie.starts_with("tie") => Preference::Tie,
        other => return Err(format!("field `winner` is {other:?}").into()),
    };
    Ok(vec![Item {
        id: format!("{HUMAN}/{}", row.id("question_id")?),
        subset: HUMAN.to_owned(),
        prompt: row.prompt("prompt")?,
        responses: vec![row.response("response_1")?, row.response("response_2")?],
        label: Label::Preference(label),
        ..Item::default()
    }])
}

fn correctness(row: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
    let scores = match row.get("scores") {
        Some(Value::Array(scores)) if scores.len() <= MAX_RESPONSES => scores,
        _ => return Err("neither a field `winner` nor a list `scores`".to_owned().into()),
    };
    let correct: Option<Vec<bool>> = scores.iter().map(truth).collect();
    let correct = correct.ok_or("field `scores` must hold truth values".to_owned())?;
    let responses = (1..=correct.len()).map(|k| row.response(&format!("response_{k}")));
    let subset = row.stem().to_owned();
    let model = row.text("model_name").unwrap_or_default();
    Ok(vec![Item {
        id: format!("{subset}/{}/{model}", row.id("question_id")?),
        prompt: row.prompt("prompt")?,
        responses: responses.collect::<Result<_, _>>()?,
        label: Label::Correct(correct),
        group: row.id("question_id")?,
        subset,
        ..Item::default()
    }])
}

pub(super) fn truth(value: &Value) -> Option<bool> {
    value.as_bool().or_else(|| value.as_f64().map(|number| number > 0.5))
}
