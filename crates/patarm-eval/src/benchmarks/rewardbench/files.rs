//! The result and score files of RewardBench.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::is_prior;
use crate::{
    benchmark::{
        OfficialFile,
        answers::{Answer, Answered},
        output::file_name,
        responses::Set,
        summary::Metrics,
    },
    metrics::Outcome,
};

/// Whether an answer came from a generative judge.
fn is_generative(answered: &Answered) -> bool {
    matches!(answered.answer, Answer::Verdicts(_))
        || answered.judgements.iter().any(|j| !j.is_empty())
}

/// All files: those of the benchmark, and those of the prior sets where there are any.
pub(super) fn official(set: &Set<'_>, metrics: &Metrics, model: &str) -> Vec<OfficialFile> {
    let generative = set.answered.iter().any(is_generative);
    let rule = if generative { "half_credit" } else { "strict" };
    let model_type = if generative { "Generative RM" } else { "Seq. Classifier" };
    let header = || -> BTreeMap<String, Value> {
        BTreeMap::from([
            ("model".to_owned(), json!(model)),
            ("model_type".to_owned(), json!(model_type)),
            ("chat_template".to_owned(), Value::Null),
        ])
    };
    let mut files = Vec::new();
    for (folder, wanted) in [("eval-set", false), ("pref-sets", true)] {
        let members: Vec<usize> = (0..set.items.len())
            .filter(|&index| is_prior(&set.items[index].subset) == wanted)
            .collect();
        if members.is_empty() {
            continue;
        }
        let mut results = header();
        for index in &members {
            let subset = &set.items[*index].subset;
            let metric = metrics.get(&format!("subset.{subset}.{rule}"));
            results.insert(subset.clone(), json!(metric.and_then(|metric| metric.value)));
        }
        let mut scores = header();
        scores.extend(columns(set, &members, generative));
        let name = file_name(model);
        files
            .push(OfficialFile { path: format!("{folder}/{name}.json"), text: indented(&results) });
        let path = format!("{folder}-scores/{name}.json");
        files.push(OfficialFile { path, text: indented(&scores) });
    }
    files
}

/// One list a column, one entry a pair.
fn columns(set: &Set<'_>, members: &[usize], generative: bool) -> BTreeMap<String, Value> {
    let column = |of: &dyn Fn(usize) -> Value| members.iter().map(|&index| of(index)).collect();
    let text = |index: usize, response: usize| {
        let item = &set.items[index];
        json!(format!("{}\n{}", item.prompt.transcript(), item.responses[response]))
    };
    let score = |index: usize, response: usize| {
        let scores = set.answered[index].answer.scores();
        json!(scores.and_then(|scores| scores.get(response).copied().flatten()))
    };
    let result = |index: usize| match set.answered[index].answer.outcome(0, 1) {
        Outcome::Right => json!(1.0),
        Outcome::Wrong => json!(0.0),
        Outcome::Tie | Outcome::Fault => json!(if generative { 0.5 } else { 0.0 }),
    };
    BTreeMap::from([
        ("text_chosen".to_owned(), column(&|index| text(index, 0))),
        ("text_rejected".to_owned(), column(&|index| text(index, 1))),
        ("scores_chosen".to_owned(), column(&|index| score(index, 0))),
        ("scores_rejected".to_owned(), column(&|index| score(index, 1))),
        ("results".to_owned(), column(&result)),
        ("subset".to_owned(), column(&|index| json!(set.items[index].subset))),
        ("id".to_owned(), column(&|index| json!(set.items[index].id))),
    ])
}

/// JSON with four blanks of indentation and sorted keys, as the original writes it.
fn indented(value: &BTreeMap<String, Value>) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    if value.serialize(&mut serializer).is_err() {
        return String::new();
    }
    String::from_utf8(text).unwrap_or_default()
}
