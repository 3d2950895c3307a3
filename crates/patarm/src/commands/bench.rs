//! `patarm bench`: how fast a model trains, generates and scores on this machine.
//!
//! Every number is the median of repeats after a warm-up. Arithmetic is counted
//! as the model needs it, not as this program happens to do it, and set against a
//! matrix product measured in the same process.

mod arithmetic;
mod process;
mod work;

use std::time::Instant;

use patarm_models::kernels::{Backend, LinearShape, Update};
use serde::Serialize;

use crate::cli::{Bench, BenchKind, Global};
use crate::exit::{Code, failure};
use crate::resolve::{self, Located};
use crate::{commands::model, output};
use work::Work;

/// Rows and both widths of the product that stands for the machine's peak.
const PEAK_SHAPE: LinearShape = LinearShape { tokens: 1_024, input: 1_024, output: 1_024 };
/// Runs of that product; the best one counts.
const PEAK_RUNS: usize = 5;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct BenchReport {
    version: u32,
    what: &'static str,
    shape: String,
    model: String,
    device: String,
    precision: &'static str,
    threads: usize,
    repeats: usize,
    /// Tokens of one step that `tokens_per_s` counts.
    tokens: u64,
    /// Tokens that rows without a shared prefix would compute, and how many times
    /// more that is.
    row_tokens: Option<u64>,
    row_ratio: Option<f64>,
    /// Median of the repeats.
    seconds: f64,
    tokens_per_s: f64,
    flop_per_s: f64,
    matrix_product_flop_per_s: f64,
    model_flops_utilisation: f64,
    peak_memory_bytes: Option<u64>,
    minor_page_faults_per_step: Option<u64>,
}

/// Measures what was asked for and prints it.
pub(crate) fn run(options: &Bench, global: &Global) -> anyhow::Result<()> {
    if options.repeats == 0 {
        return Err(failure(Code::Usage, "--repeats must be at least 1"));
    }
    let located = resolve::locate(&options.model)?;
    // An adapter would change what has to be computed; its base is measured.
    let base = Located { adapter: None, ..located };
    let (_, mut decoder) = model::open_decoder(&base, global)?;
    let backend = decoder.backend.clone();
    let mut work = Work::new(options.what, &mut decoder)?;
    work.warm_up()?;
    let before = matrix_product_flop_per_s(backend.as_ref());
    let mut samples = Vec::with_capacity(options.repeats);
    for _ in 0..options.repeats {
        samples.push(sample(&mut work)?);
    }
    // On both sides of the work: another program may have been running at one time.
    let peak = before.max(matrix_product_flop_per_s(backend.as_ref()));
    let report = report(options, global, (&work, backend.name()), (&samples, peak));
    if global.json {
        return output::json(&report);
    }
    report.lines().iter().try_for_each(|line| output::line(line))
}

/// One step.
#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    page_faults: Option<u64>,
}

fn sample(work: &mut Work<'_>) -> anyhow::Result<Sample> {
    let before = process::minor_page_faults();
    let start = Instant::now();
    work.step()?;
    let seconds = start.elapsed().as_secs_f64();
    let after = process::minor_page_faults();
    let page_faults = before.zip(after).map(|(before, after)| after.saturating_sub(before));
    Ok(Sample { seconds, page_faults })
}

fn report(
    options: &Bench,
    global: &Global,
    (work, device): (&Work<'_>, String),
    (samples, peak): (&[Sample], f64),
) -> BenchReport {
    let seconds = median(samples.iter().map(|sample| sample.seconds).collect()).unwrap_or(f64::NAN);
    let faults = samples.iter().filter_map(|sample| sample.page_faults).map(|count| count as f64);
    let flop_per_s = work.flop() / seconds;
    let rows = work.row_tokens();
    BenchReport {
        version: 1,
        what: name(options.what),
        shape: work.shape(),
        model: options.model.clone(),
        device,
        precision: "f32",
        threads: global.threads,
        repeats: samples.len(),
        tokens: work.tokens(),
        row_tokens: rows,
        row_ratio: rows.map(|rows| rows as f64 / work.tokens() as f64),
        seconds,
        tokens_per_s: work.tokens() as f64 / seconds,
        flop_per_s,
        matrix_product_flop_per_s: peak,
        model_flops_utilisation: flop_per_s / peak,
        peak_memory_bytes: process::peak_memory_bytes(),
        minor_page_faults_per_step: median(faults.collect()).map(|count| count as u64),
    }
}

fn name(what: BenchKind) -> &'static str {
    match what {
        BenchKind::Train => "train",
        BenchKind::Rollout => "rollout",
        BenchKind::Score => "score",
        BenchKind::Grpo => "grpo",
    }
}

/// The middle value; of two middle ones their mean.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    match values.len().is_multiple_of(2) {
        true => Some((values[middle - 1] + upper) / 2.0),
        false => Some(upper),
    }
}

/// The fastest of a few large products `x · wᵀ` of this device.
fn matrix_product_flop_per_s(backend: &dyn Backend) -> f64 {
    let LinearShape { tokens, input, output } = PEAK_SHAPE;
    let x = backend.upload(&vec![0.5; tokens * input]);
    let weight = backend.upload(&vec![0.25; output * input]);
    let mut out = backend.zeros(tokens * output);
    let mut last = [0.0];
    let mut one = backend.zeros(1);
    let mut best = f64::INFINITY;
    for _ in 0..PEAK_RUNS {
        let start = Instant::now();
        backend.linear(&x, &weight, None, PEAK_SHAPE, 1.0, (&mut out, Update::Set));
        // A device may queue work; asking for a number waits for it.
        backend.copy(&out, 0, &mut one, 0, 1);
        backend.download(&one, &mut last);
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (tokens * input * output) as f64 / best
}

impl BenchReport {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("{} of {}: {}", self.what, self.model, self.shape),
            format!("device       {}, {}, median of {}", self.device, self.precision, self.repeats),
            format!("step         {:.3} s for {} tokens", self.seconds, self.tokens),
            format!("rate         {:.1} tokens/s", self.tokens_per_s),
            format!(
                "arithmetic   {:.1} GFLOP/s, {:.0} % of a matrix product's {:.1}",
                self.flop_per_s / 1e9,
                self.model_flops_utilisation * 100.0,
                self.matrix_product_flop_per_s / 1e9
            ),
        ];
        if let (Some(rows), Some(ratio)) = (self.row_tokens, self.row_ratio) {
            lines.push(format!(
                "padded rows  would compute {rows} tokens, {ratio:.2} times as many"
            ));
        }
        if let Some(bytes) = self.peak_memory_bytes {
            lines.push(format!("peak memory  {:.2} GiB", bytes as f64 / (1u64 << 30) as f64));
        }
        if let Some(faults) = self.minor_page_faults_per_step {
            lines.push(format!("page faults  {faults} a step"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
