//! Auto-J: pairs of 58 scenarios with human labels; ties are labels.
//!
//! Source: the test data of GAIR-NLP/auto-j, `testdata_pairwise.jsonl`: rows `prompt`,
//! `response 1`, `response 2`, `scenario` and `label` of 0 (first), 1 (second) or 2
//! (tie) [field names recalled; not checked against a copy].

use patarm_text::{Conversation, Preference};
use serde_json::Value;

use crate::{
    benchmark::{
        Asks, Info,
        agreement::{agreement, credit},
        answers::Answered,
        item::{Item, Label},
        load::{Row, RowProblem},
        responses::{Credit, ResponseBenchmark, Set},
        summary::Metrics,
    },
    interval::Resampling,
};

/// The benchmark.
pub struct AutoJ;

const INFO: Info = Info {
    name: "autoj",
    about: "Auto-J: pairs of 58 scenarios; ties are labels.",
    data: "rows `prompt`, `response 1`, `response 2`, `scenario`, `label` (0, 1, or 2 for a tie)",
    hub: None,
    asks: Asks::Responses,
    metrics: &[
        ("agreement", "share of pairs whose answer is the label, ties included"),
        ("subset.<scenario>.agreement", "one scenario"),
        ("cohen_kappa, macro_precision, macro_recall, macro_f1", "over the three labels"),
        ("accuracy.<rule>", "pairs whose label is no tie"),
    ],
    files: &[],
    headline: &["agreement", "cohen_kappa", "accuracy.half_credit"],
};

impl ResponseBenchmark for AutoJ {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn read(&self, row: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
        let label = match row.get("label").and_then(Value::as_u64) {
            Some(0) => Preference::First,
            Some(1) => Preference::Second,
            Some(2) => Preference::Tie,
            _ => return Err("field `label` must be 0, 1 or 2".to_owned().into()),
        };
        Ok(vec![Item {
            id: row.index.to_string(),
            subset: row.text("scenario").unwrap_or_default().to_owned(),
            prompt: Conversation::from_user(row.text("prompt")?),
            responses: vec![row.response("response 1")?, row.response("response 2")?],
            label: Label::Preference(label),
            ..Item::default()
        }])
    }

    fn measure(&self, set: &Set<'_>, resampling: Resampling) -> Metrics {
        agreement(set, resampling)
    }

    fn credit(&self, item: &Item, answered: &Answered) -> Credit {
        credit(item, answered)
    }
}
