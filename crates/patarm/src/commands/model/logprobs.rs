//! `patarm model logprobs`: log-probabilities of given texts or token ids.
//!
//! Rows are packed into forests of bounded size, without padding. On the CPU a
//! row's numbers do not depend on the rows it shares a forest with.

mod rows;
mod sink;

use std::path::Path;

use patarm_models::kernels::SamplingOptions;
use patarm_models::{
    Decoder, Engine, EngineLimits, Forest, ForwardOptions, GenerationRequest, TargetRows,
};
use patarm_text::Tokenizer;
use serde::Serialize;

use crate::cli::Global;
use crate::exit::{Code, failure};
use crate::{output, resolve};
use rows::{Limits, NumberedRow, RowReader};
use sink::Sink;

/// Tokens, continuations included, computed together.
const MAX_BATCH_TOKENS: usize = 2_048;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// JSONL rows.
    pub(super) input: &'a Path,
    /// Where results go; standard output by default.
    pub(super) out: Option<&'a Path>,
    /// Tokens by which each row is continued.
    pub(super) greedy: usize,
}

/// One line of the result.
#[derive(Debug, Serialize)]
struct ScoredRow {
    ids: Vec<u32>,
    /// `null` first: nothing predicts the first token.
    logprobs: Vec<Option<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    greedy_ids: Option<Vec<u32>>,
}

/// What `--json` prints where the rows go to a file.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    version: u32,
    rows: usize,
    tokens: usize,
    out: &'a Path,
}

/// Scores every row of the input.
pub(super) fn run(model: &str, request: Request<'_>, global: &Global) -> anyhow::Result<()> {
    let located = resolve::locate(model)?;
    let reader = RowReader::open(request.input)?;
    let (files, mut decoder) = super::open_decoder(&located, &resolve::single_precision(global))?;
    freeze(&mut decoder);
    let limits = Limits {
        vocab: decoder.shape.vocab,
        max_tokens: decoder.shape.max_positions,
        greedy: request.greedy,
    };
    let open_tokenizer = || Tokenizer::open(&files.path);
    let mut rows = reader.rows(limits, &open_tokenizer);
    let mut sink = Sink::create(request.out)?;
    let (mut num_rows, mut num_tokens) = (0, 0);
    loop {
        let batch = rows.next_batch(MAX_BATCH_TOKENS)?;
        if batch.is_empty() {
            break;
        }
        num_rows += batch.len();
        num_tokens += batch.iter().map(|row| row.ids.len()).sum::<usize>();
        for scored in score(&decoder, batch, request.greedy)? {
            sink.write(&serde_json::to_string(&scored)?)?;
        }
    }
    sink.finish()?;
    match request.out {
        Some(out) if global.json => {
            output::json(&Summary { version: 1, rows: num_rows, tokens: num_tokens, out })
        }
        _ => Ok(()),
    }
}

/// Nothing is trained here, so the forward keeps no activations.
fn freeze(decoder: &mut Decoder) {
    for (_, parameter) in decoder.parameters.iter_mut() {
        parameter.trainable = false;
    }
}

fn score(
    decoder: &Decoder,
    batch: Vec<NumberedRow>,
    greedy: usize,
) -> anyhow::Result<Vec<ScoredRow>> {
    let mut logprobs = logprobs(decoder, &batch)?.into_iter();
    let mut continuations = continuations(decoder, &batch, greedy)?.into_iter();
    let mut scored = Vec::with_capacity(batch.len());
    for row in batch {
        let logprobs = logprobs.next().unwrap_or_default();
        if logprobs.iter().flatten().any(|value| !value.is_finite()) {
            let message = format!(
                "{}: the model gives a log-probability that is not a number; its weights are damaged",
                row.place
            );
            return Err(failure(Code::Model, message));
        }
        scored.push(ScoredRow { ids: row.ids, logprobs, greedy_ids: continuations.next() });
    }
    Ok(scored)
}

fn logprobs(decoder: &Decoder, batch: &[NumberedRow]) -> anyhow::Result<Vec<Vec<Option<f32>>>> {
    let (mut forest, mut targets) = (Forest::new(), TargetRows::new());
    let mut ranges = Vec::with_capacity(batch.len());
    for row in batch {
        ranges.push(match row.ids.is_empty() {
            true => None,
            false => {
                let segment = forest.add(None, &row.ids);
                Some(targets.push_segment(&forest, segment, 1))
            }
        });
    }
    if forest.num_tokens() == 0 {
        return Ok(vec![Vec::new(); batch.len()]);
    }
    let saved = decoder.forward(&forest, &ForwardOptions::default())?;
    if targets.is_empty() {
        let first_alone = |range: &Option<_>| vec![None; usize::from(range.is_some())];
        return Ok(ranges.iter().map(first_alone).collect());
    }
    let statistics = decoder.target_statistics(&saved.hidden, &targets, 1.0);
    let row = |range: Option<std::ops::Range<usize>>| match range {
        None => Vec::new(),
        Some(range) => {
            let known = range.map(|target| Some(statistics.logprob(target)));
            std::iter::once(None).chain(known).collect()
        }
    };
    Ok(ranges.into_iter().map(row).collect())
}

/// Each row continued by the most likely tokens, exactly `greedy` of them; no rows
/// where none are asked for.
fn continuations(
    decoder: &Decoder,
    batch: &[NumberedRow],
    greedy: usize,
) -> anyhow::Result<Vec<Vec<u32>>> {
    if greedy == 0 {
        return Ok(Vec::new());
    }
    let slots = batch.iter().map(|row| row.ids.len() + greedy + 1).sum();
    let limits = EngineLimits { slots, ..EngineLimits::default() };
    let mut engine = Engine::new(decoder, limits);
    for (sequence, row) in batch.iter().enumerate() {
        engine.submit(greedy_request(&row.ids, greedy, sequence as u64))?;
    }
    Ok(engine.run().into_iter().map(|generation| generation.tokens).collect())
}

fn greedy_request(ids: &[u32], greedy: usize, sequence: u64) -> GenerationRequest {
    GenerationRequest {
        prompt: vec![ids.to_vec()],
        max_new_tokens: greedy,
        sampling: SamplingOptions {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            sequence,
            position: 0,
        },
        stop_ids: Vec::new(),
        stop_rule: None,
        readout: Vec::new(),
    }
}
