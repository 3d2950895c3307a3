//! `patarm data step-quality`: what a judge thinks of each thinking step.

use std::sync::Arc;

use patarm_files::Segmentation;
use patarm_reward::model::{ItemFault, Reward};
use patarm_reward::observer::Observer;
use patarm_text::{Conversation, Item};
use serde_json::{Value, json};

use super::traces::{Trace, read};
use crate::cli::{Global, StepQuality};
use crate::exit::{Code, failure};
use crate::observer::Terminal;
use crate::output;
use crate::reward_models::with_reward_model;

/// Reads traces, asks about every step without a label, and writes the answers as labels.
pub(super) fn run(options: &StepQuality, global: &Global) -> anyhow::Result<()> {
    let [low, high] = options.scale[..] else {
        return Err(failure(Code::Bug, "a scale has two ends"));
    };
    if !low.is_finite() || !high.is_finite() || low >= high {
        return Err(failure(Code::Usage, "--scale: write the lowest and the highest score"));
    }
    let mut traces = read(&options.traces, &Segmentation::BlankLines {})?;
    let asked: Vec<(usize, usize)> = unlabelled(&traces);
    let items: Vec<Item> = asked.iter().map(|&(trace, step)| item(&traces[trace], step)).collect();
    let observer: Arc<dyn Observer> = Arc::new(Terminal::install());
    let mut rewards = Vec::new();
    with_reward_model(&options.judge, global, &observer, &mut |model| {
        rewards = model.score(&items);
        Ok(())
    })?;
    if observer.is_interrupted() {
        return Err(failure(Code::Interrupted, "interrupted; nothing was written"));
    }
    let mut num_faults = 0;
    for (&(trace, step), reward) in asked.iter().zip(&rewards) {
        let label = quality(reward, (low, high));
        num_faults += usize::from(label.is_none());
        traces[trace].thinking.labels[step] = label;
    }
    let lines: String = traces.iter().map(|trace| format!("{}\n", row(trace))).collect();
    patarm_files::write_atomically(&options.out, lines.as_bytes())?;
    if global.json {
        return output::json(&json!({
            "version": 1, "out": options.out, "traces": traces.len(), "steps": asked.len(),
            "faults": num_faults,
        }));
    }
    output::line(&format!(
        "{}: {} traces, {} steps judged, {num_faults} without a usable score",
        options.out.display(),
        traces.len(),
        asked.len()
    ))
}

/// Steps without a label, as trace and place.
fn unlabelled(traces: &[Trace]) -> Vec<(usize, usize)> {
    let of_trace = |(number, trace): (usize, &Trace)| {
        let steps = trace.thinking.labels.iter().enumerate();
        let missing = steps.filter(|(_, label)| label.is_none());
        missing.map(|(step, _)| (number, step)).collect::<Vec<_>>()
    };
    traces.iter().enumerate().flat_map(of_trace).collect()
}

/// J(s_t | x, s_<t, a): the step as a response to the problem, the final answer and the
/// steps before it. The wording is ours; the authors' is not public.
fn item(trace: &Trace, step: usize) -> Item {
    let steps = &trace.thinking.solution.steps;
    let before = match step {
        0 => "(nothing yet)".to_owned(),
        _ => steps[..step].join("\n\n"),
    };
    let prompt = format!(
        "{}\n\nThe final answer that the reasoning leads to:\n{}\n\nThe reasoning so far:\n{before}\n\n\
         Write the next step of the reasoning. It must be sound, coherent with what stands \
         before, and bring the final answer nearer.",
        trace.thinking.solution.prompt.transcript(),
        trace.response.join("\n\n"),
    );
    Item { prompt: Conversation::from_user(prompt), response: steps[step].clone() }
}

/// A score as a share of its scale; `None` where there is no usable one.
fn quality(reward: &Result<Reward, ItemFault>, (low, high): (f64, f64)) -> Option<f64> {
    let value = Some(reward.as_ref().ok()?.value).filter(|value| value.is_finite())?;
    Some(((value - low) / (high - low)).clamp(0.0, 1.0))
}

/// The row with its labels.
fn row(trace: &Trace) -> Value {
    let mut fields = trace.fields.clone();
    fields.insert("labels".to_owned(), json!(trace.thinking.labels));
    Value::Object(fields)
}
