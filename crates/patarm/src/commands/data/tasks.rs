//! Filling in the task of comparisons that do not name one.

use std::sync::Arc;

use patarm_models::EngineLimits;
use patarm_reward::embedded::EmbeddedCompleter;
use patarm_reward::openai::OpenAiTarget;
use patarm_reward::task::{DetectedTasks, detect_task, detect_tasks};
use patarm_text::{Comparison, Conversation};

use crate::cli::Global;
use crate::exit::{Code, failure};
use crate::judging::remote_completer;
use crate::output;
use crate::resolve::{self, Loaded};

/// Who decides without a model.
const RULES: &str = "rules";
/// Requests in flight to a remote engine.
const CONCURRENCY: usize = 8;
/// Detection is greedy, so the seed only has to be the same.
const SEED: u64 = 0;

/// Fills in missing tasks by the rules, or by the model of that name.
pub(super) fn fill_in(
    comparisons: &mut [Comparison],
    by: &str,
    global: &Global,
) -> anyhow::Result<()> {
    let missing: Vec<&mut Comparison> =
        comparisons.iter_mut().filter(|comparison| comparison.task.is_none()).collect();
    let prompts: Vec<Conversation> =
        missing.iter().map(|comparison| comparison.first.prompt.clone()).collect();
    let prompts: Vec<&Conversation> = prompts.iter().collect();
    let tasks = if by == RULES {
        prompts.iter().map(|prompt| detect_task(prompt)).collect()
    } else {
        let detected = ask(by, &prompts, global)?;
        if detected.asked > 0 && detected.failed == detected.asked {
            let message = format!("{by}: no request for a task was answered");
            return Err(failure(Code::Remote, message));
        }
        output::remark(&format!(
            "tasks: {} prompts asked about, {} answers name no task or several, {} requests failed",
            detected.asked, detected.unreadable, detected.failed
        ));
        detected.tasks
    };
    for (comparison, task) in missing.into_iter().zip(tasks) {
        comparison.task = Some(task);
    }
    Ok(())
}

fn ask(model: &str, prompts: &[&Conversation], global: &Global) -> anyhow::Result<DetectedTasks> {
    if OpenAiTarget::is_remote(model) {
        return Ok(detect_tasks(&remote_completer(model, CONCURRENCY)?, prompts, SEED));
    }
    let Loaded { decoder, tokenizer, .. } = resolve::open(model, global)?;
    let completer = EmbeddedCompleter {
        decoder: &decoder,
        tokenizer: Arc::clone(&tokenizer),
        limits: EngineLimits::default(),
        name: model.to_owned(),
    };
    Ok(detect_tasks(&completer, prompts, SEED))
}
