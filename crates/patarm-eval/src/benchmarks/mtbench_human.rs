//! MT-Bench human judgements: votes of experts on pairs of models.
//!
//! Source: the data card of lmsys/mt_bench_human_judgments: rows `question_id`,
//! `model_a`, `model_b`, `winner` (`model_a`, `model_b`, or something that begins with
//! `tie`), `judge`, `conversation_a`, `conversation_b`, `turn` [recalled; not checked
//! against a copy]. Several judges may vote on one pair; every vote is an item, and
//! items of one question are resampled together. The last assistant turn is the
//! response; what precedes it may differ between the sides.

use patarm_text::{Conversation, Preference};
use serde_json::Value;

use crate::{
    benchmark::{
        Asks, Info,
        agreement::{agreement, credit},
        answers::Answered,
        item::{Item, Label},
        load::{Row, RowProblem, conversation},
        responses::{Credit, ResponseBenchmark, Set},
        summary::Metrics,
    },
    interval::Resampling,
};

/// The benchmark.
pub struct MtBenchHuman;

const INFO: Info = Info {
    name: "mtbench-human",
    about: "MT-Bench human judgements: votes on pairs of models, two turns.",
    data: "rows `question_id`, `model_a`, `model_b`, `winner`, `judge`, `conversation_a`, `conversation_b`, `turn`",
    hub: Some("lmsys/mt_bench_human_judgments"),
    asks: Asks::Responses,
    metrics: &[
        ("agreement", "share of votes whose answer is the label, ties included"),
        ("subset.turn-<1|2>.agreement", "one turn"),
        ("accuracy.<rule>", "votes that are no ties"),
    ],
    files: &[],
    headline: &["agreement", "accuracy.strict", "accuracy.half_credit"],
};

impl ResponseBenchmark for MtBenchHuman {
    fn info(&self) -> &'static Info {
        &INFO
    }

    fn read(&self, row: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
        let label = match row.text("winner")? {
            "model_a" => Preference::First,
            "model_b" => Preference::Second,
            tie if tie.starts_with("tie") => Preference::Tie,
            other => return Err(format!("field `winner` is {other:?}").into()),
        };
        let turn = row.get("turn").and_then(Value::as_u64).unwrap_or(1);
        let question = row.id("question_id")?;
        let models = [row.text("model_a")?, row.text("model_b")?];
        let judge = row.text("judge").unwrap_or("human");
        let (first, second) =
            (side(row, "conversation_a", turn)?, side(row, "conversation_b", turn)?);
        let own_prompts = match first.0 == second.0 {
            true => Vec::new(),
            false => vec![first.0.clone(), second.0],
        };
        Ok(vec![Item {
            id: format!("{question}/{}/{}/{judge}/{turn}", models[0], models[1]),
            subset: format!("turn-{turn}"),
            prompt: first.0,
            own_prompts,
            responses: vec![first.1, second.1],
            label: Label::Preference(label),
            group: question,
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

/// Everything before the answer of a turn, and the answer.
fn side(row: &Row<'_>, field: &str, turn: u64) -> Result<(Conversation, String), RowProblem> {
    let value = row.get(field).ok_or_else(|| format!("field `{field}` is missing"))?;
    let mut whole =
        conversation(value).ok_or_else(|| format!("field `{field}` must be a list of messages"))?;
    whole.messages.truncate(2 * turn as usize);
    let answer =
        whole.messages.pop().filter(|message| message.role == patarm_text::Role::Assistant);
    let answer = answer.ok_or_else(|| {
        RowProblem::MissingResponse(format!("`{field}` has no answer in turn {turn}"))
    })?;
    Ok((whole, answer.plain_text()))
}
