//! `patarm data step-targets`: ReasonFlux-PRM's targets for thinking steps.

use patarm_models::kernels::random;
use patarm_reward::embedding::embed;
use patarm_reward::reasonflux::{
    Alignment, CoherenceConfig, StepTarget, TargetConfig, Trace, targets,
};
use patarm_text::LabelledSolution;
use serde_json::{Value, json};

use super::steps::segmentation;
use super::traces::read;
use crate::cli::{Global, StepTargets};
use crate::exit::{Code, failure};
use crate::{output, resolve};

/// Stream of the draws of unrelated steps.
const STREAM: u64 = 0x7a5;

/// A trace's vectors.
struct Embedded {
    prompt: Vec<f32>,
    steps: Vec<Vec<f32>>,
    response: Vec<Vec<f32>>,
}

/// Reads traces and writes them with targets as labels.
pub(super) fn run(options: &StepTargets, global: &Global) -> anyhow::Result<()> {
    if !options.temperature.is_finite() || options.temperature <= 0.0 {
        return Err(failure(Code::Usage, "--temperature must be positive"));
    }
    let traces = read(&options.traces, &segmentation(options.cut))?;
    if traces.len() < 2 {
        return Err(failure(Code::Data, "coherence needs steps of other traces; give at least 2"));
    }
    let loaded = resolve::open(&options.encoder, global)?;
    let vectors: Vec<Embedded> = traces
        .iter()
        .map(|trace| {
            let of = |texts: &[String]| {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                embed(&loaded.decoder, &loaded.tokenizer, &texts)
            };
            let prompt = of(&[trace.thinking.solution.prompt.transcript()])?.remove(0);
            let steps = of(&trace.thinking.solution.steps)?;
            anyhow::Ok(Embedded { prompt, steps, response: of(&trace.response)? })
        })
        .collect::<anyhow::Result<_>>()?;
    let config = TargetConfig {
        alignment: if options.by_index { Alignment::Index } else { Alignment::Max },
        coherence: CoherenceConfig {
            temperature: options.temperature,
            ..CoherenceConfig::default()
        },
    };
    let mut text = String::new();
    for (number, trace) in traces.iter().enumerate() {
        let unrelated = unrelated(&vectors, number, options);
        let own = Trace {
            prompt: &vectors[number].prompt,
            steps: &vectors[number].steps,
            response: &vectors[number].response,
            quality: &trace.thinking.labels,
            unrelated: &unrelated,
        };
        let found = targets(&own, &config).map_err(|error| {
            failure(Code::Data, format!("trace {}: {error}", trace.thinking.id))
        })?;
        text.push_str(&format!("{}\n", row(&trace.thinking, &found)));
    }
    patarm_files::write_atomically(&options.out, text.as_bytes())?;
    if global.json {
        return output::json(&json!({ "version": 1, "out": options.out, "traces": traces.len() }));
    }
    output::line(&format!("{}: {} traces", options.out.display(), traces.len()))
}

/// The trace with r_step as labels and the parts beside it.
fn row(thinking: &LabelledSolution, found: &[StepTarget]) -> Value {
    let labels = found.iter().map(|target| Some(target.step)).collect();
    let mut row = LabelledSolution { labels, ..thinking.clone() }.to_json();
    row["targets"] = json!(found);
    row
}

/// Steps of other traces, as many as asked for, drawn anew for each trace.
fn unrelated<'v>(vectors: &'v [Embedded], own: usize, options: &StepTargets) -> Vec<&'v [f32]> {
    let others: Vec<&[f32]> = vectors
        .iter()
        .enumerate()
        .filter(|(number, _)| *number != own)
        .flat_map(|(_, other)| other.steps.iter().map(Vec::as_slice))
        .collect();
    let draw = |n: usize| {
        others[random::below(others.len(), options.seed, &[STREAM, own as u64, n as u64])]
    };
    (0..options.unrelated).map(draw).collect()
}
