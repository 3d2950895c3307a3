//! Generation: a prompt is computed, then sequences below it grow token by token.

use patarm_models::kernels::SamplingOptions;
use patarm_models::{Decoder, Engine, EngineLimits, Generation, GenerationRequest};

use super::arithmetic::Load;
use super::batches::ids;
use super::sizes::Sizes;
use super::work::{Cost, Phases, Work, timed};

/// The work of `bench rollout`.
#[derive(Debug)]
pub(super) struct Rollout<'a> {
    decoder: &'a Decoder,
    sizes: Sizes,
}

impl<'a> Rollout<'a> {
    pub(super) fn new(decoder: &'a Decoder, sizes: Sizes) -> Self {
        Self { decoder, sizes }
    }

    /// The sequences: `branches` below each of `rows` prompts.
    fn requests(&self) -> Vec<GenerationRequest> {
        let Sizes { rows, branches, prompt, length, .. } = self.sizes;
        let sequences = (0..rows).flat_map(|row| (0..branches).map(move |branch| (row, branch)));
        let vocab = self.decoder.shape.vocab;
        sequences
            .map(|(row, branch)| {
                let sequence = row * branches + branch;
                let above = self.sizes.above(vec![ids(prompt, vocab, row)], sequence);
                request(above, sequence as u64, length)
            })
            .collect()
    }
}

/// Draws exactly `length` tokens after a prompt at temperature 1.
pub(super) fn request(prompt: Vec<Vec<u32>>, sequence: u64, length: usize) -> GenerationRequest {
    GenerationRequest {
        prompt,
        max_new_tokens: length,
        sampling: SamplingOptions {
            temperature: 1.0,
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

/// Runs all requests at once; the first step, which computes the prompts and draws
/// one token a sequence, is timed apart from the rest.
pub(super) fn generate(
    decoder: &Decoder,
    requests: Vec<GenerationRequest>,
    phases: &mut Phases,
) -> anyhow::Result<Vec<Generation>> {
    let slots = requests
        .iter()
        .map(|one| one.prompt.iter().map(Vec::len).sum::<usize>() + one.max_new_tokens + 2)
        .sum();
    let limits = EngineLimits { slots, max_active: requests.len(), ..EngineLimits::default() };
    let mut engine = Engine::new(decoder, limits);
    for request in requests {
        engine.submit(request)?;
    }
    let mut finished = timed(phases, "prefill", || engine.step());
    finished.extend(timed(phases, "decode", || engine.run()));
    finished.sort_by_key(|generation| generation.id);
    Ok(finished)
}

impl Work for Rollout<'_> {
    fn step(&mut self) -> anyhow::Result<Phases> {
        let mut phases = Phases::new();
        generate(self.decoder, self.requests(), &mut phases)?;
        Ok(phases)
    }

    fn cost(&self) -> Cost {
        let Sizes { rows, branches, prompt, length, .. } = self.sizes;
        let sequences = rows * branches;
        let load = decode_load(&self.sizes);
        Cost {
            tokens: (sequences * length) as u64,
            row_tokens: (sequences * (prompt + length)) as u64,
            load,
            flop: load.forward_flop(&self.decoder.shape),
            weight_reads: length.saturating_sub(1) as u64,
        }
    }

    fn describe(&self) -> String {
        let Sizes { rows, branches, prompt, length, .. } = self.sizes;
        format!(
            "{rows} prompts of {prompt} tokens, {branches} sequences of {length} tokens after each{}",
            self.sizes.sharing()
        )
    }
}

/// A prompt runs once, or once a sequence; the last token of a sequence is drawn but never run.
fn decode_load(sizes: &Sizes) -> Load {
    let Sizes { rows, branches, prompt, length, .. } = *sizes;
    let triangle = |n: usize| (n * (n + 1) / 2) as u64;
    let decoded = branches * length.saturating_sub(1);
    let after = triangle(prompt + length.saturating_sub(1)) - triangle(prompt);
    let copies = if sizes.shared { 1 } else { branches };
    let keys = copies as u64 * triangle(prompt) + branches as u64 * after;
    Load {
        tokens: (rows * (copies * prompt + decoded)) as u64,
        keys: rows as u64 * keys,
        head_rows: (rows * branches * length) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_counts_the_prompt_once() {
        let sizes = Sizes { rows: 1, length: 2, prompt: 3, response: 0, branches: 2, shared: true };
        // The prompt sees 1 + 2 + 3 keys, each decoded token 4.
        assert_eq!(decode_load(&sizes), Load { tokens: 5, keys: 6 + 2 * 4, head_rows: 4 });
        let rows = Sizes { shared: false, ..sizes };
        assert_eq!(decode_load(&rows), Load { tokens: 8, keys: 2 * (6 + 4), head_rows: 4 });
    }
}
