//! `patarm eval`.

use std::path::Path;
use std::sync::Arc;

use patarm_eval::compare::{ComparisonResult, compare};
use patarm_eval::interval::Estimate;
use patarm_eval::pairs::{
    Evaluated, PairsOptions, PairsResult, Readout, evaluate_pairs, pairs_from_scores,
};
use patarm_eval::scores::ScoreTable;
use patarm_eval::store;
use patarm_reward::observer::Observer;

use crate::cli::{self, EvalCommand, EvalPairs, Global, JudgeOptions, TaskChoice};
use crate::exit::{Code, failure};
use crate::judging::with_pointwise;
use crate::observer::Terminal;
use crate::training::pairs_options;
use crate::{datasets, output};

/// Runs one of the evaluations.
pub(super) fn run(command: &EvalCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        EvalCommand::Pairs(options) => pairs(options, global),
        EvalCommand::Compare { first, second } => compare_folders(first, second, global),
    }
}

fn pairs(options: &EvalPairs, global: &Global) -> anyhow::Result<()> {
    let mut comparisons = datasets::read(&options.data)?;
    comparisons.truncate(options.limit.unwrap_or(usize::MAX));
    let mut settings = resolved(options);
    let evaluated = match (&options.model, &options.scores) {
        (_, Some(path)) => {
            let table = ScoreTable::read(path)?;
            pairs_from_scores(&path.to_string_lossy(), &comparisons, &table, &settings)?
        }
        (Some(model), None) => {
            let observer: Arc<dyn Observer> = Arc::new(Terminal::install());
            settings.settings.insert("model".into(), model.as_str().into());
            let mut result = None;
            with_pointwise(&judge_options(options, model), global, &observer, &mut |judge| {
                result = Some(evaluate_pairs(&AsModel(judge), &comparisons, &settings)?);
                Ok(())
            })?;
            if observer.is_interrupted() {
                return Err(failure(Code::Interrupted, "interrupted; nothing was written"));
            }
            result.ok_or_else(|| failure(Code::Bug, "the evaluation left no result"))?
        }
        (None, None) => return Err(failure(Code::Usage, "give --model or --scores")),
    };
    store::write_folder(&options.out, &evaluated)?;
    if global.json { output::json(&versioned(&evaluated.result)) } else { show(&evaluated) }
}

/// A result under the version of what `--json` prints.
fn versioned(result: &impl serde::Serialize) -> serde_json::Value {
    serde_json::json!({ "version": 1, "result": result })
}

/// A judge seen as a reward model only.
struct AsModel<'a>(&'a dyn crate::judging::Pointwise);

impl patarm_reward::model::RewardModel for AsModel<'_> {
    fn score(
        &self,
        items: &[patarm_text::Item],
    ) -> Vec<Result<patarm_reward::model::Reward, patarm_reward::model::ItemFault>> {
        self.0.score(items)
    }

    fn name(&self) -> String {
        patarm_reward::model::RewardModel::name(self.0)
    }
}

fn resolved(options: &EvalPairs) -> PairsOptions {
    let mut resolved = PairsOptions { readout: Readout::Value, ..pairs_options(options.seed) };
    let readout = match options.readout {
        cli::Readout::Sampled => "sampled",
        cli::Readout::Expected => "expected",
    };
    resolved.settings.insert("data".into(), options.data.as_str().into());
    resolved.settings.insert("votes".into(), options.votes.into());
    resolved.settings.insert("readout".into(), readout.into());
    resolved.settings.insert("seed".into(), options.seed.into());
    resolved
}

fn judge_options(options: &EvalPairs, model: &str) -> JudgeOptions {
    JudgeOptions {
        model: model.to_owned(),
        template: options.template.clone(),
        votes: options.votes,
        readout: options.readout,
        task: TaskChoice::Auto,
        seed: options.seed,
        temperature: 1.0,
        max_tokens: options.max_tokens,
        concurrency: options.concurrency,
    }
}

fn show(evaluated: &Evaluated) -> anyhow::Result<()> {
    let result = &evaluated.result;
    output::line(&format!("{} on {} pairs", result.model, result.accuracy.num_pairs))?;
    for (name, estimate) in rows(result) {
        output::line(&format!("  {name:<26} {}", shown(estimate)))?;
    }
    for (name, subset) in &result.subsets {
        output::line(&format!("    {name:<24} {}", shown(&subset.half_credit)))?;
    }
    let faults = result.judgements.as_ref().and_then(|judgements| judgements.share());
    if let Some(share) = faults {
        output::line(&format!("  {:<26} {:.1} %", "judgements with a fault", 100.0 * share))?;
    }
    Ok(())
}

fn rows(result: &PairsResult) -> [(&'static str, &Estimate); 5] {
    [
        ("accuracy, ties wrong", &result.accuracy.strict),
        ("accuracy, ties half", &result.accuracy.half_credit),
        ("  faults left out", &result.accuracy.half_credit_without_faults),
        ("longer response wins", &result.baselines.longer_wins.half_credit),
        ("a coin", &result.baselines.random),
    ]
}

fn shown(estimate: &Estimate) -> String {
    let value =
        estimate.value.map_or_else(|| "    –".into(), |value| format!("{:5.1} %", 100.0 * value));
    match estimate.interval {
        Some(interval) => {
            format!("{value}  95 % [{:.1}, {:.1}]", 100.0 * interval.low, 100.0 * interval.high)
        }
        None => value,
    }
}

fn compare_folders(first: &Path, second: &Path, global: &Global) -> anyhow::Result<()> {
    let (first, second) = (store::read_folder(first)?, store::read_folder(second)?);
    let resampling = pairs_options(0).resampling;
    let result = compare(&first, &second, resampling)?;
    if global.json { output::json(&versioned(&result)) } else { show_comparison(&result) }
}

fn show_comparison(result: &ComparisonResult) -> anyhow::Result<()> {
    output::line(&format!("{} against {}", result.second_model, result.first_model))?;
    let overall = &result.overall;
    output::line(&format!("  difference, ties half      {}", shown(&overall.half_credit)))?;
    output::line(&format!("  difference, ties wrong     {}", shown(&overall.strict)))?;
    output::line(&format!("  McNemar p                  {:.4}", overall.mcnemar_p))?;
    for (name, subset) in &result.subsets {
        let difference = shown(&subset.difference.half_credit);
        output::line(&format!("    {name:<24} {difference}  p {:.3} (Holm)", subset.holm_p))?;
    }
    Ok(())
}
