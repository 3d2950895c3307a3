//! `patarm bench`: how fast a model trains, generates and scores on this machine.
//!
//! Every number is the median of repeats after a warm-up. Arithmetic is counted
//! as the model needs it, not as this program happens to do it, and set against a
//! matrix product and a copy measured in the same process.

mod arithmetic;
mod batches;
mod ceilings;
mod grpo;
mod process;
mod rollout;
mod score;
mod serve;
mod shapes;
mod sizes;
mod train;
mod work;

use std::collections::BTreeMap;
use std::time::Instant;

use patarm_models::kernels::{Backend, Precision};
use patarm_models::{Decoder, OptimizerStates};
use serde::Serialize;

use crate::cli::{self, Bench, BenchKind, BenchStates, Global};
use crate::device;
use crate::exit::{Code, failure};
use crate::resolve::{self, Located};
use crate::{commands::model, output};
use ceilings::Ceilings;
use sizes::Sizes;
use work::{Cost, Phases, Work};

/// Seed of random weights.
const WEIGHT_SEED: u64 = 0;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct BenchReport {
    version: u32,
    what: &'static str,
    shape: String,
    model: String,
    device: String,
    precision: String,
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
    /// Medians of the parts of a step.
    phases: BTreeMap<&'static str, f64>,
    tokens_per_s: f64,
    /// Tokens after the first of every sequence, over the time of decoding alone.
    decode_tokens_per_s: Option<f64>,
    /// Weights read while decoding, each step all of them, over the same time.
    decode_bytes_per_s: Option<f64>,
    copy_bytes_per_s: f64,
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
    if options.what == BenchKind::Serve {
        return serve::run(&options.load, global);
    }
    let sizes = Sizes::resolve(options.what, &options.sizes);
    if !sizes.are_usable(options.what) {
        return Err(failure(Code::Usage, "every size of the work must be at least 1"));
    }
    if matches!(options.what, BenchKind::Train | BenchKind::Grpo) {
        refuse_quantised(global)?;
    }
    let mut decoder = open(options, global)?;
    let backend = decoder.backend.clone();
    let weight_bytes = weight_bytes(&decoder);
    let states = match options.optimizer_states {
        BenchStates::F32 => OptimizerStates::F32,
        BenchStates::EightBits => OptimizerStates::EightBits,
    };
    let Some(mut work) = piece(options.what, &mut decoder, (sizes, states)) else {
        return Ok(());
    };
    work.warm_up()?;
    let product = ceilings::product(backend.as_ref());
    let samples: Vec<Sample> =
        (0..options.repeats).map(|_| sample(work.as_mut())).collect::<anyhow::Result<_>>()?;
    // Before the copies below take memory of their own.
    let peak_memory_bytes = backend.peak_memory_bytes().or_else(process::peak_memory_bytes);
    // On both sides of the work: another program may have been running at one time.
    let ceilings = Ceilings::measure(backend.as_ref(), product);
    let cost = work.cost();
    let measured = Measured { cost, samples, ceilings, weight_bytes, peak_memory_bytes };
    let report = measured.report(options, global, (work.describe(), backend.as_ref()));
    if global.json {
        return output::json(&report);
    }
    report.lines().iter().try_for_each(|line| output::line(line))
}

fn open(options: &Bench, global: &Global) -> anyhow::Result<Decoder> {
    if let Some(shape) = options.shape {
        return Ok(Decoder::random(device::open(global)?, shapes::named(shape), WEIGHT_SEED));
    }
    let located = resolve::locate(&options.model)?;
    // An adapter would change what has to be computed; its base is measured.
    let base = Located { adapter: None, ..located };
    Ok(model::open_decoder(&base, global)?.1)
}

fn refuse_quantised(global: &Global) -> anyhow::Result<()> {
    let message = "every parameter is trained here, and quantised weights cannot be";
    match global.precision {
        cli::Precision::Quantised => Err(failure(Code::Usage, message)),
        _ => Ok(()),
    }
}

/// The work of one step; `None` for a load, which has none.
fn piece<'a>(
    what: BenchKind,
    decoder: &'a mut Decoder,
    (sizes, states): (Sizes, OptimizerStates),
) -> Option<Box<dyn Work + 'a>> {
    Some(match what {
        BenchKind::Train => Box::new(train::Train::new(decoder, sizes, states)),
        BenchKind::Rollout => Box::new(rollout::Rollout::new(decoder, sizes)),
        BenchKind::Score => Box::new(score::Score::new(decoder, sizes)),
        BenchKind::Grpo => Box::new(grpo::Grpo::new(decoder, sizes, states)),
        BenchKind::Serve => return None,
    })
}

/// One step.
#[derive(Clone, Debug)]
struct Sample {
    seconds: f64,
    phases: Phases,
    page_faults: Option<u64>,
}

fn sample(work: &mut dyn Work) -> anyhow::Result<Sample> {
    let before = process::minor_page_faults();
    let start = Instant::now();
    let phases = work.step()?;
    let seconds = start.elapsed().as_secs_f64();
    let after = process::minor_page_faults();
    let page_faults = before.zip(after).map(|(before, after)| after.saturating_sub(before));
    Ok(Sample { seconds, phases, page_faults })
}

/// Everything a report is made of.
#[derive(Debug)]
struct Measured {
    cost: Cost,
    samples: Vec<Sample>,
    ceilings: Ceilings,
    /// Bytes of the weights that decoding one token reads.
    weight_bytes: usize,
    peak_memory_bytes: Option<u64>,
}

impl Measured {
    fn report(
        &self,
        options: &Bench,
        global: &Global,
        (shape, backend): (String, &dyn Backend),
    ) -> BenchReport {
        let seconds = self.median_of(|sample| Some(sample.seconds)).unwrap_or(f64::NAN);
        let cost = &self.cost;
        let rows = Some(cost.row_tokens).filter(|rows| *rows > cost.load.tokens);
        let flop_per_s = cost.flop / seconds;
        let phases = self.phases();
        let decode = phases.get("decode").filter(|_| cost.weight_reads > 0).copied();
        let bytes = cost.weight_reads * self.weight_bytes as u64;
        let first = cost.tokens / (cost.weight_reads + 1);
        BenchReport {
            version: 1,
            what: name(options.what),
            shape,
            model: options.shape.map_or_else(|| options.model.clone(), shape_name),
            device: backend.name(),
            precision: backend.precision().name().into(),
            threads: global.threads,
            repeats: self.samples.len(),
            tokens: cost.tokens,
            row_tokens: rows,
            row_ratio: rows.map(|rows| rows as f64 / cost.load.tokens as f64),
            seconds,
            tokens_per_s: cost.tokens as f64 / seconds,
            decode_tokens_per_s: decode.map(|seconds| (cost.tokens - first) as f64 / seconds),
            decode_bytes_per_s: decode.map(|seconds| bytes as f64 / seconds),
            copy_bytes_per_s: self.ceilings.copy_bytes_per_s,
            flop_per_s,
            matrix_product_flop_per_s: self.ceilings.matrix_product_flop_per_s,
            model_flops_utilisation: flop_per_s / self.ceilings.matrix_product_flop_per_s,
            peak_memory_bytes: self.peak_memory_bytes,
            minor_page_faults_per_step: self
                .median_of(|sample| sample.page_faults.map(|count| count as f64))
                .map(|count| count as u64),
            phases,
        }
    }

    fn median_of(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.iter().filter_map(value).collect())
    }

    /// The median of every part; a part that occurs several times in a step is summed.
    fn phases(&self) -> BTreeMap<&'static str, f64> {
        let names = self.samples.iter().flat_map(|sample| &sample.phases).map(|(name, _)| *name);
        let names: std::collections::BTreeSet<&'static str> = names.collect();
        let total = |sample: &Sample, wanted: &str| -> f64 {
            sample.phases.iter().filter(|(name, _)| *name == wanted).map(|(_, s)| s).sum()
        };
        let each = names.into_iter();
        each.filter_map(|name| Some((name, self.median_of(|sample| Some(total(sample, name)))?)))
            .collect()
    }
}

fn name(what: BenchKind) -> &'static str {
    match what {
        BenchKind::Train => "train",
        BenchKind::Rollout => "rollout",
        BenchKind::Score => "score",
        BenchKind::Grpo => "grpo",
        BenchKind::Serve => "serve",
    }
}

fn shape_name(shape: crate::cli::NamedShape) -> String {
    use clap::ValueEnum;
    let value = shape.to_possible_value();
    value.map_or_else(String::new, |value| format!("{} (random weights)", value.get_name()))
}

/// Bytes of the weights as products read them: blocks and output matrix.
fn weight_bytes(decoder: &Decoder) -> usize {
    let shape = &decoder.shape;
    let weights = shape.block_parameters() + shape.hidden * shape.vocab;
    match decoder.backend.precision() {
        Precision::F32 => 4 * weights,
        Precision::Bf16 => 2 * weights,
        Precision::Quantised => {
            let blocks = decoder.blocks.iter().flat_map(|block| block.parameter_ids());
            let bytes = |id| decoder.parameters.value(id).num_bytes();
            blocks.chain([decoder.output]).map(bytes).sum()
        }
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
        if !self.phases.is_empty() {
            let parts: Vec<String> = self
                .phases
                .iter()
                .map(|(name, seconds)| format!("{name} {seconds:.3} s"))
                .collect();
            lines.push(format!("of which     {}", parts.join(", ")));
        }
        if let (Some(tokens), Some(bytes)) = (self.decode_tokens_per_s, self.decode_bytes_per_s) {
            lines.push(format!(
                "decoding     {tokens:.1} tokens/s, weights at {:.1} GB/s, {:.0} % of a copy's {:.1}",
                bytes / 1e9,
                100.0 * bytes / self.copy_bytes_per_s,
                self.copy_bytes_per_s / 1e9
            ));
        }
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

    #[test]
    fn parts_of_a_step_are_summed_within_it() {
        let sample = |forward: f64| Sample {
            seconds: 1.0,
            phases: vec![("forward", forward), ("backward", 0.5), ("forward", 1.0)],
            page_faults: None,
        };
        let measured = Measured {
            cost: Cost::default(),
            samples: vec![sample(1.0), sample(2.0), sample(9.0)],
            ceilings: Ceilings { matrix_product_flop_per_s: 1.0, copy_bytes_per_s: 1.0 },
            weight_bytes: 0,
            peak_memory_bytes: None,
        };
        let phases = measured.phases();
        assert_eq!(phases.get("forward"), Some(&3.0));
        assert_eq!(phases.get("backward"), Some(&0.5));
    }
}
