//! JudgeBench's own file of judgements.

use patarm_text::Preference;
use serde_json::{Value, json};

use crate::{
    benchmark::{
        OfficialFile,
        answers::{Answer, Answered},
        item::Item,
        output::file_name,
        responses::Set,
    },
    scores::Shown,
};

/// The name judgements stand under.
const JUDGE_NAME: &str = "patarm";

/// One file for every model whose responses were judged.
pub(super) fn official(set: &Set<'_>, model: &str) -> Vec<OfficialFile> {
    let response_model = |item: &Item| {
        let name = item.extra.get("response_model").and_then(Value::as_str);
        name.unwrap_or("unknown").to_owned()
    };
    let mut names: Vec<String> = set.items.iter().map(response_model).collect();
    names.sort_unstable();
    names.dedup();
    let judge = file_name(model);
    let file = |name: &String| {
        let of_model =
            set.items.iter().zip(set.answered).filter(|(i, _)| response_model(i) == *name);
        let text = of_model.map(|(item, answered)| row(item, answered, model) + "\n").collect();
        let path = format!(
            "dataset=judgebench,response_model={},judge_name={JUDGE_NAME},judge_model={judge}.jsonl",
            file_name(name)
        );
        OfficialFile { path, text }
    };
    names.iter().map(file).collect()
}

/// A row of the data with its judgements.
fn row(item: &Item, answered: &Answered, model: &str) -> String {
    let mut row = item.extra.clone();
    row.insert("question".to_owned(), json!(item.prompt.transcript()));
    row.insert("response_A".to_owned(), json!(item.responses[0]));
    row.insert("response_B".to_owned(), json!(item.responses[1]));
    row.insert("judge_name".to_owned(), json!(JUDGE_NAME));
    row.insert("judgments".to_owned(), Value::Array(judgements(answered, model)));
    Value::Object(row).to_string()
}

/// One entry a game; decisions speak of what was shown.
fn judgements(answered: &Answered, model: &str) -> Vec<Value> {
    let entry = |decision: Option<Shown>, response: Option<String>| {
        let decision = decision.map(|shown| match shown {
            Shown::First => "A>B",
            Shown::Second => "B>A",
            Shown::Tie => "A=B",
        });
        let judgement =
            json!({ "judge_model": model, "prompt": Value::Null, "response": response });
        json!({ "judgment": judgement, "decision": decision })
    };
    let text = |first: usize| {
        let votes = answered.votes.iter().find(|votes| votes.first == first);
        votes.and_then(|votes| votes.votes.first()).map(|vote| vote.text.clone())
    };
    match &answered.answer {
        Answer::Scores(_) => {
            let preference: Option<Preference> = answered.answer.preference(0, 1);
            vec![entry(preference.and_then(Shown::of_preference), None)]
        }
        Answer::Verdicts(verdicts) => {
            let verdicts = verdicts.get(&(0, 1)).copied().unwrap_or_default();
            [(verdicts.straight, 0), (verdicts.swapped, 1)]
                .into_iter()
                .filter_map(|(verdict, first)| Some(entry(verdict?, text(first))))
                .collect()
        }
    }
}
