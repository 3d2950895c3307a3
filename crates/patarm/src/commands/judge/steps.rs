//! `patarm score --steps`: a number for every step of solutions whose steps are given.

use std::sync::Arc;

use patarm_files::Segmentation;
use patarm_reward::observer::Observer;
use patarm_text::LabelledSolution;
use patarm_text::solutions::read_solutions;
use serde_json::{Value, json};

use super::{CHUNK, Resumable, finish, stop_if_interrupted};
use crate::cli::{Global, Score};
use crate::exit::{Code, failure};
use crate::reward_models::{segmentation, with_reward_model};

/// Writes the scores of every solution's steps, in the form that step benchmarks read.
pub(super) fn score(
    options: &Score,
    global: &Global,
    observer: &Arc<dyn Observer>,
) -> anyhow::Result<()> {
    let model = &options.options.model;
    let how = segmentation(model)?.unwrap_or(Segmentation::BlankLines {});
    let solutions = read_solutions(&options.input, &how)?;
    let mut output = Resumable::open(&options.out)?;
    with_reward_model(&options.options, global, observer, &mut |model| {
        let left: Vec<&LabelledSolution> = output.missing(&solutions, |one| one.id.clone());
        for chunk in left.chunks(CHUNK) {
            let asked: Vec<_> = chunk.iter().map(|one| one.solution.clone()).collect();
            let Some(results) = model.score_steps(&asked) else {
                let message = format!("{} gives no number for a step", model.name());
                return Err(failure(Code::Model, message));
            };
            stop_if_interrupted(observer.as_ref(), &options.out)?;
            for (one, result) in chunk.iter().zip(results) {
                let (scores, fault) = match result {
                    Ok(scores) => (json!(scores), Value::Null),
                    Err(fault) => (Value::Null, json!(fault.to_string())),
                };
                output.write(&json!({ "item": one.id, "steps": scores, "fault": fault }))?;
            }
        }
        Ok(())
    })?;
    finish(output, solutions.len(), global)
}
