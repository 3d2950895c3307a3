//! The whole main job on an embedded default: pull, cold-start, train, measure, report.

mod data;

use std::path::Path;
use std::time::Instant;

use patarm_models::Decoder;
use patarm_reward::observer::Observer;
use patarm_train::Recipe;
use patarm_train::run_directory::{Phase, Resume};
use serde::Serialize;

use crate::cli::{Global, Quickstart, Report};
use crate::exit::{Code, failure};
use crate::measure::{self, Measured, Measurement};
use crate::observer::Terminal;
use crate::output;
use crate::resolve;
use crate::training::{self, Prepared};
pub(crate) use data::bundled;

/// The recipe of the quickstart.
const RECIPE: &str = include_str!("../../../recipes/quickstart.toml");
/// Version of the object `--json` prints.
const OUTPUT_VERSION: u32 = 1;

/// What the quickstart found.
#[derive(Debug, Serialize)]
struct Outcome {
    version: u32,
    method: &'static str,
    seed: u64,
    model_sha256: Option<String>,
    accuracy_zero_shot: Option<f64>,
    accuracy_cold_start: f64,
    accuracy_trained: f64,
    accuracy_interval: [f64; 2],
    gain: f64,
    gain_interval: [f64; 2],
    accuracy_votes_4: f64,
    accuracy_spliced: f64,
    accuracy_longer_wins: f64,
    accuracy_by_kind: std::collections::BTreeMap<String, f64>,
    parse_fault_rate: f64,
    num_held_out: usize,
    num_training_pairs: usize,
    tokens_per_s: f64,
    seconds: f64,
    report: String,
}

/// Runs the quickstart.
pub(crate) fn run(options: &Quickstart, global: &Global) -> anyhow::Result<()> {
    // bfloat16 cost eight to twenty-one points of accuracy here (docs/results.md).
    let global = &resolve::single_precision(global);
    let start = Instant::now();
    if options.out.join("recipe.toml").exists() {
        let message = format!(
            "{}: a run is here already; choose another --out, or remove it",
            options.out.display()
        );
        return Err(failure(Code::Usage, message));
    }
    let recipe = recipe(options)?;
    let bundled = bundled(recipe.seed)?;
    let observer = Terminal::install();
    output::remark(&format!(
        "{} training pairs, {} held out",
        bundled.train.len(),
        bundled.held_out.len()
    ));
    let prepared = training::prepare(recipe, (bundled.train, bundled.held_out), global)?;
    let measured = train_and_measure(prepared, &options.out, &observer)?;
    let report = options.out.join("report.html");
    crate::commands::report::write(&Report {
        runs: vec![options.out.clone()],
        out: report.clone(),
    })?;
    let outcome = outcome(&measured, options, (start.elapsed().as_secs_f64(), &report))?;
    patarm_train::run_directory::write_json(&options.out.join("quickstart.json"), &outcome)?;
    if global.json { output::json(&outcome) } else { show(&outcome) }
}

fn recipe(options: &Quickstart) -> anyhow::Result<Recipe> {
    let mut changes = vec![format!("seed={}", options.seed), format!("model={:?}", options.model)];
    changes.extend(options.changes.iter().cloned());
    Recipe::parse(RECIPE, &changes).map_err(|message| failure(Code::Usage, message))
}

struct AllMeasured {
    zero_shot: Measured,
    cold_start: Measured,
    trained: Measured,
    votes_4: f64,
    spliced: f64,
    model_sha256: Option<String>,
    num_training_pairs: usize,
    tokens_per_s: f64,
}

fn train_and_measure(
    prepared: Prepared,
    out: &Path,
    observer: &dyn Observer,
) -> anyhow::Result<AllMeasured> {
    let text = prepared.text.clone();
    let held_out = prepared.held_out.clone();
    let (model_sha256, num_training_pairs) =
        (prepared.located.sha256.clone(), prepared.train.len());
    let measurement = Measurement {
        text: &text,
        held_out: &held_out,
        observer,
        out,
        seed: prepared.recipe.seed,
        max_tokens: prepared.recipe.judge.max_judgement_tokens,
    };
    let zero_shot = measurement.few(&prepared.decoder, "zero_shot")?;
    let (mut cold_start, mut trained) = (None, None);
    let (mut votes_4, mut spliced) = (f64::NAN, f64::NAN);
    let mut after_stage = |phase: Phase, decoder: &Decoder| -> anyhow::Result<()> {
        match phase {
            Phase::ColdStart => cold_start = Some(measurement.all(decoder, "cold_start")?),
            Phase::Grpo => {
                let measured = measurement.all(decoder, "trained")?;
                votes_4 = measurement.votes_4(decoder)?;
                spliced = measurement.spliced(decoder, &measured)?;
                trained = Some(measured);
            }
            _ => {}
        }
        Ok(())
    };
    training::run(prepared, (out, Resume::No), observer, &mut after_stage)?;
    let missing =
        || failure(Code::Usage, "the quickstart needs both [cold_start] and [grpo] in its recipe");
    let tokens_per_s = measure::training_tokens_per_s(out)?;
    Ok(AllMeasured {
        zero_shot,
        cold_start: cold_start.ok_or_else(missing)?,
        trained: trained.ok_or_else(missing)?,
        votes_4,
        spliced,
        model_sha256,
        num_training_pairs,
        tokens_per_s,
    })
}

fn outcome(
    measured: &AllMeasured,
    options: &Quickstart,
    (seconds, report): (f64, &Path),
) -> anyhow::Result<Outcome> {
    let AllMeasured { zero_shot, cold_start, trained, .. } = measured;
    let difference = measure::paired(cold_start, trained, options.seed)?;
    Ok(Outcome {
        version: OUTPUT_VERSION,
        method: "PaTaRM-style",
        seed: options.seed,
        model_sha256: measured.model_sha256.clone(),
        accuracy_zero_shot: zero_shot.accuracy(),
        accuracy_cold_start: cold_start.accuracy().unwrap_or(f64::NAN),
        accuracy_trained: trained.accuracy().unwrap_or(f64::NAN),
        accuracy_interval: trained.interval(),
        gain: difference.0,
        gain_interval: difference.1,
        accuracy_votes_4: measured.votes_4,
        accuracy_spliced: measured.spliced,
        accuracy_longer_wins: trained.longer_wins(),
        accuracy_by_kind: trained.by_kind(),
        parse_fault_rate: trained.fault_rate,
        num_held_out: trained.num_pairs(),
        num_training_pairs: measured.num_training_pairs,
        tokens_per_s: measured.tokens_per_s,
        seconds,
        report: report.to_string_lossy().into_owned(),
    })
}

fn show(outcome: &Outcome) -> anyhow::Result<()> {
    let percent = |value: f64| format!("{:5.1} %", 100.0 * value);
    let range = |[low, high]: [f64; 2]| format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high);
    output::line(&format!(
        "Held-out pair accuracy ({} pairs, expected score, ties count half)",
        outcome.num_held_out
    ))?;
    if let Some(zero_shot) = outcome.accuracy_zero_shot {
        output::line(&format!("  untrained model        {}", percent(zero_shot)))?;
    }
    output::line(&format!("  longer answer wins     {}", percent(outcome.accuracy_longer_wins)))?;
    output::line(&format!("  after the cold start   {}", percent(outcome.accuracy_cold_start)))?;
    let trained = percent(outcome.accuracy_trained);
    output::line(&format!(
        "  after reinforcement    {trained}  95 % {}",
        range(outcome.accuracy_interval)
    ))?;
    let gain = 100.0 * outcome.gain;
    output::line(&format!(
        "  gain                   {gain:+5.1}    95 % {}",
        range(outcome.gain_interval)
    ))?;
    output::line(&format!("  four sampled votes     {}", percent(outcome.accuracy_votes_4)))?;
    output::line(&format!("  text of another prompt {}", percent(outcome.accuracy_spliced)))?;
    output::line(&format!("  format faults          {}", percent(outcome.parse_fault_rate)))?;
    for (kind, accuracy) in &outcome.accuracy_by_kind {
        output::line(&format!("    {kind:<20} {}", percent(*accuracy)))?;
    }
    output::line(&format!(
        "{:.0} s, {:.0} training tokens/s; report: {}",
        outcome.seconds, outcome.tokens_per_s, outcome.report
    ))
}
