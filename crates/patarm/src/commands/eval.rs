//! `patarm eval`: a benchmark from the registry, or two results against each other.

mod compare;
mod show;
mod subject;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use patarm_eval::benchmark::{Completions, Run, Subject, output::write_evaluation};
use patarm_eval::benchmarks;
use patarm_eval::interval::Resampling;
use patarm_reward::observer::Observer;
use serde_json::Value;

use crate::cli::{self, Eval, EvalCommand, EvalMode, Global, Measure, OrderChoice};
use crate::exit::{Code, failure};
use crate::observer::Terminal;
use crate::{datasets, output};

/// Bootstrap resamples.
const RESAMPLES: usize = 2_000;

/// Runs one of the evaluations.
pub(super) fn run(options: &Eval, global: &Global) -> anyhow::Result<()> {
    match (&options.command, &options.measure) {
        (Some(EvalCommand::Compare { first, second }), _) => {
            compare::folders(first, second, global)
        }
        (None, Some(options)) => measure(options, global),
        (None, None) => Err(failure(Code::Usage, "name a benchmark, or `compare`")),
    }
}

fn measure(options: &Measure, global: &Global) -> anyhow::Result<()> {
    let benchmark = benchmarks::find(&options.benchmark)
        .ok_or_else(|| failure(Code::Usage, format!("no benchmark {:?}", options.benchmark)))?;
    let mut data = Vec::new();
    for source in &options.data {
        data.push(datasets::locate_in(&options.out, source)?);
    }
    let observer: Arc<dyn Observer> = Arc::new(Terminal::install());
    let settings = settings(options);
    let run = Run {
        data: &data,
        limit: options.limit,
        resampling: Resampling { resamples: RESAMPLES, seed: options.asking.seed },
        base_scores: options.base_scores.as_deref(),
        responses: options.responses.as_deref(),
        completions: Completions {
            max_tokens: options.asking.max_tokens,
            ratings: options.mode == EvalMode::Ratings,
            punkt: options.punkt.as_deref(),
        },
        threshold: options.threshold.as_deref(),
        settings: &settings,
        out: &options.out,
        observer: observer.as_ref(),
    };
    let mut evaluation = None;
    subject::with(benchmark, options, global, &observer, &mut |subject: &Subject<'_>| {
        evaluation = Some(benchmark.evaluate(subject, &run)?);
        Ok(())
    })?;
    let evaluation =
        evaluation.ok_or_else(|| failure(Code::Bug, "the evaluation left no result"))?;
    write_evaluation(&options.out, &evaluation)?;
    if global.json {
        output::json(&serde_json::json!({ "version": 1, "result": evaluation.summary }))
    } else {
        show::summary(&evaluation.summary, benchmark.info())
    }
}

/// The resolved configuration, as it stands in the result.
fn settings(options: &Measure) -> BTreeMap<String, Value> {
    let asking = &options.asking;
    let paths = |path: &Option<PathBuf>| path.as_ref().map(|p| p.to_string_lossy().into_owned());
    let readout = match asking.readout {
        cli::Readout::Sampled => "sampled",
        cli::Readout::Expected => "expected",
    };
    let mode = match options.mode {
        EvalMode::Pointwise => "pointwise",
        EvalMode::Pairwise => "pairwise",
        EvalMode::FourWay => "four-way",
        EvalMode::Ratings => "ratings",
    };
    let orders = match options.orders {
        OrderChoice::Both => "both",
        OrderChoice::Given => "given",
    };
    let mut settings = BTreeMap::from([
        ("data", options.data.clone().into()),
        ("limit", options.limit.into()),
        ("seed", asking.seed.into()),
        ("resamples", RESAMPLES.into()),
        ("base_scores", paths(&options.base_scores).into()),
        ("responses", paths(&options.responses).into()),
        ("punkt", paths(&options.punkt).into()),
    ]);
    if let Some(model) = &options.model {
        settings.extend([
            ("model", model.as_str().into()),
            ("mode", mode.into()),
            ("orders", orders.into()),
            ("votes", asking.votes.into()),
            ("readout", readout.into()),
            ("template", asking.template.clone().into()),
            ("temperature", asking.temperature.into()),
            ("max_tokens", asking.max_tokens.into()),
        ]);
    }
    settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
