//! `patarm data step-labels`: labels of steps from completions of every prefix.

use std::sync::Arc;

use patarm_reward::completer::{Completer, CompletionError};
use patarm_reward::observer::Observer;
use patarm_reward::rollout_labels::{Estimate, RolloutConfig, RolloutLabels, label_steps};
use patarm_text::LabelledSolution;
use patarm_text::solutions::read_solutions;
use serde_json::{Value, json};

use super::steps::segmentation;
use crate::cli::{Asking, Global, JudgeOptions, Readout, StepEstimate, StepLabels, TaskChoice};
use crate::commands::judge::{Resumable, stop_if_interrupted};
use crate::exit::{Code, failure};
use crate::judging::with_completer;
use crate::observer::Terminal;
use crate::output;

/// Labels every solution that has a reference answer.
pub(super) fn run(options: &StepLabels, global: &Global) -> anyhow::Result<()> {
    let config = config(options)?;
    let mut solutions = read_solutions(&options.solutions, &segmentation(options.cut))?;
    solutions.truncate(options.limit.unwrap_or(usize::MAX));
    let without = solutions.iter().filter(|one| one.reference.is_none()).count();
    solutions.retain(|one| one.reference.is_some());
    if solutions.is_empty() {
        let message = format!(
            "{}: no solution has a `reference`, the right answer to compare with",
            options.solutions.display()
        );
        return Err(failure(Code::Data, message));
    }
    let observer: Arc<dyn Observer> = Arc::new(Terminal::install());
    let mut output = Resumable::open(&options.out)?;
    let mut tally = Tally { without_reference: without, ..Tally::default() };
    with_completer(&judge(options), global, &observer, &mut |completer| {
        let left = output.missing(&solutions, |one| one.id.clone());
        observer.begin("labelling", left.len() as u64);
        for (done, one) in left.iter().enumerate() {
            stop_if_interrupted(observer.as_ref(), &options.out)?;
            let row = label(completer, one, &config, &mut tally)?;
            output.write(&row)?;
            observer.advance(done as u64 + 1, "");
        }
        observer.end();
        Ok(())
    })?;
    let path = output.finish()?;
    tally.show((&path, solutions.len()), global)
}

fn label(
    completer: &dyn Completer,
    one: &LabelledSolution,
    config: &RolloutConfig,
    tally: &mut Tally,
) -> anyhow::Result<Value> {
    let reference = one.reference.as_deref().unwrap_or_default();
    let labels = match label_steps(completer, one, reference, config) {
        Ok(found) => {
            tally.add(&found);
            found.labels
        }
        Err(CompletionError::Interrupted) => {
            let message = "interrupted; the same command goes on";
            return Err(failure(Code::Interrupted, message));
        }
        // A prompt that does not fit is a matter of its solution; an engine that fails
        // is one of all.
        Err(CompletionError::Overlong { .. }) => {
            tally.unlabelled += 1;
            vec![None; one.labels.len()]
        }
        Err(error) => {
            return Err(failure(Code::Remote, format!("solution {}: {error}", one.id)));
        }
    };
    let mut row = LabelledSolution { labels, ..one.clone() }.to_json();
    // What a continued run knows a finished solution by.
    row["item"] = json!(one.id);
    Ok(row)
}

/// What was counted over all solutions of this run.
#[derive(Debug, Default)]
struct Tally {
    without_reference: usize,
    unlabelled: usize,
    completions: usize,
    failed: usize,
    truncated: usize,
    without_answer: usize,
}

impl Tally {
    fn add(&mut self, found: &RolloutLabels) {
        self.completions += found.completions;
        self.failed += found.failed;
        self.truncated += found.truncated;
        self.without_answer += found.without_answer;
    }

    fn show(
        &self,
        (out, solutions): (&std::path::Path, usize),
        global: &Global,
    ) -> anyhow::Result<()> {
        let Self { without_reference, unlabelled, completions, failed, truncated, without_answer } =
            self;
        if global.json {
            return output::json(&json!({
                "version": 1,
                "out": out,
                "solutions": solutions,
                "without_reference": without_reference,
                "unlabelled": unlabelled,
                "completions": completions,
                "failed": failed,
                "truncated": truncated,
                "without_answer": without_answer,
            }));
        }
        output::remark(&format!(
            "{completions} completions, {truncated} cut by --max-tokens, {without_answer} without an \
             answer, {failed} failed; {unlabelled} solutions unlabelled, {without_reference} without \
             a reference"
        ));
        output::line(&format!("{}: {solutions} solutions", out.display()))
    }
}

fn config(options: &StepLabels) -> anyhow::Result<RolloutConfig> {
    if options.samples == 0 || options.max_tokens == 0 {
        return Err(failure(Code::Usage, "--samples and --max-tokens must be at least 1"));
    }
    if options.temperature < 0.0 || !options.temperature.is_finite() {
        return Err(failure(Code::Usage, "--temperature must be a finite number, 0 or more"));
    }
    Ok(RolloutConfig {
        samples: options.samples,
        max_tokens: options.max_tokens,
        temperature: options.temperature,
        top_p: 1.0,
        seed: options.seed,
        estimate: match options.estimate {
            StepEstimate::Soft => Estimate::Soft,
            StepEstimate::Hard => Estimate::Hard,
        },
    })
}

fn judge(options: &StepLabels) -> JudgeOptions {
    let asking = Asking {
        template: None,
        votes: 1,
        readout: Readout::Sampled,
        task: TaskChoice::Auto,
        seed: options.seed,
        temperature: options.temperature,
        max_tokens: Some(options.max_tokens),
        concurrency: options.concurrency,
    };
    JudgeOptions { model: options.model.clone(), asking }
}
