//! `samples/NAME.jsonl` of a run directory: what a model said of a few held-out
//! responses, for the report.

use std::path::Path;

use patarm_reward::model::{ItemFault, Reward, StepScores};
use patarm_text::{Comparison, Item, LabelledSolution};
use serde_json::{Value, json};

/// Responses kept of an evaluation.
const SAMPLES: usize = 12;

/// Keeps the first labelled pairs with what was said of their sides; `rewards` belong to
/// the items of `pair_items`.
pub(crate) fn keep_pairs(
    out: &Path,
    name: &str,
    pairs: &[Comparison],
    rewards: &[Result<Reward, ItemFault>],
) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let labelled =
        pairs.iter().filter_map(|pair| pair.chosen_rejected().map(|(chosen, _)| (pair, chosen)));
    for ((pair, chosen), sides) in labelled.zip(rewards.chunks(2)).take(SAMPLES / 2) {
        for (item, reward) in [&pair.first, &pair.second].into_iter().zip(sides) {
            let side = if std::ptr::eq(chosen, item) { "chosen" } else { "rejected" };
            let said = reward.as_ref().ok().and_then(|reward| said(item, reward));
            rows.extend(said.map(|mut row| {
                row["pair_id"] = pair.id.clone().into();
                row["side"] = side.into();
                row
            }));
        }
    }
    keep(out, name, &rows)
}

/// Keeps the first solutions with the values of their steps.
pub(crate) fn keep_solutions<'s>(
    out: &Path,
    name: &str,
    scored: impl Iterator<Item = (&'s LabelledSolution, &'s StepScores)>,
) -> anyhow::Result<()> {
    let row = |(labelled, scores): (&LabelledSolution, &StepScores)| {
        let (steps, values) = (&labelled.solution.steps, scores.as_ref().ok()?);
        let texts = steps.iter().map(|step| format!("{step}\n"));
        Some(json!({
            "pair_id": labelled.id,
            "prompt": labelled.solution.prompt.transcript(),
            "response": steps.join("\n"),
            "parts": shown(texts.zip(values.iter().copied())),
        }))
    };
    keep(out, name, &scored.take(SAMPLES).filter_map(row).collect::<Vec<_>>())
}

/// Parts as rows have them; none where a value is not a number, which no row can hold.
fn shown(parts: impl Iterator<Item = (String, f64)>) -> Vec<Value> {
    let part = |(text, value): (String, f64)| {
        value.is_finite().then(|| json!({ "text": text, "value": value }))
    };
    parts.map(part).collect::<Option<_>>().unwrap_or_default()
}

fn keep(out: &Path, name: &str, rows: &[Value]) -> anyhow::Result<()> {
    let folder = out.join("samples");
    std::fs::create_dir_all(&folder)?;
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let path = folder.join(format!("{name}.jsonl"));
    Ok(patarm_train::run_directory::write_atomically(&path, lines.as_bytes())?)
}

/// A row about one response; `None` where a judge wrote nothing that could be kept.
fn said(item: &Item, reward: &Reward) -> Option<Value> {
    let mut row = json!({ "prompt": item.prompt.transcript(), "response": item.response });
    match reward.judgements.first() {
        Some(judgement) => row["judgement"] = serde_json::to_value(judgement).ok()?,
        None => {
            row["score"] = reward.value.into();
            row["parts"] = parts(item, reward).into();
        }
    }
    Some(row)
}

/// Tokens or steps with their values; the text between two steps goes with the first.
fn parts(item: &Item, reward: &Reward) -> Vec<Value> {
    let tokens = reward.token_values.iter().map(|token| (token.text.clone(), token.value));
    let characters: Vec<char> = item.response.chars().collect();
    let starts = reward.step_spans.iter().map(|(start, _)| *start).skip(1);
    let ends = starts.chain([characters.len()]);
    let mut begun = 0;
    let steps = ends.zip(&reward.step_values).filter_map(|(end, value)| {
        let text: String = characters.get(begun..end)?.iter().collect();
        begun = end;
        Some((text, *value))
    });
    shown(tokens.chain(steps))
}

#[cfg(test)]
mod tests {
    use patarm_reward::model::TokenValue;
    use patarm_text::Conversation;

    use super::*;

    fn item() -> Item {
        Item { prompt: Conversation::from_user("q"), response: "one\n\ntwö".into() }
    }

    #[test]
    fn parts_are_the_whole_response() {
        let reward = Reward {
            step_values: vec![0.5, 0.25],
            step_spans: vec![(0, 3), (5, 8)],
            ..Reward::of(0.375)
        };
        let row = said(&item(), &reward).expect("a row");
        assert_eq!(row["score"], 0.375);
        assert_eq!(
            row["parts"],
            json!([{ "text": "one\n\n", "value": 0.5 }, { "text": "twö", "value": 0.25 }])
        );
    }

    #[test]
    fn tokens_are_parts_and_a_plain_number_has_none() {
        let token = |text: &str, value| TokenValue { text: text.into(), value };
        let reward =
            Reward { token_values: vec![token("on", 1.0), token("e", -1.0)], ..Reward::of(0.0) };
        let row = said(&item(), &reward).expect("a row");
        assert_eq!(row["parts"].as_array().map(Vec::len), Some(2));
        assert_eq!(said(&item(), &Reward::of(2.0)).expect("a row")["parts"], json!([]));
    }

    #[test]
    fn what_is_not_a_number_is_left_out() {
        let token = TokenValue { text: "one".into(), value: f64::NAN };
        let row = said(&item(), &Reward { token_values: vec![token], ..Reward::of(f64::NAN) });
        let row = row.expect("a row");
        assert_eq!((&row["score"], &row["parts"]), (&Value::Null, &json!([])));
    }
}
