//! Scoring as a scalar reward model does it: a forward pass over every item, and
//! one number from the hidden state of its last token.

use patarm_models::kernels::{LinearShape, Update};
use patarm_models::{ActivationPolicy, Decoder, ForwardOptions};

use super::arithmetic::Load;
use super::batches::{self, Batch};
use super::sizes::Sizes;
use super::work::{Cost, Phases, Work};

/// Tokens of one forward.
const PACK_TOKENS: usize = 4_096;

/// The work of `bench score`.
#[derive(Debug)]
pub(super) struct Score<'a> {
    decoder: &'a Decoder,
    batches: Vec<Batch>,
    sizes: Sizes,
}

impl<'a> Score<'a> {
    pub(super) fn new(decoder: &'a mut Decoder, sizes: Sizes) -> Self {
        for (_, parameter) in decoder.parameters.iter_mut() {
            parameter.trainable = false;
        }
        let vocab = decoder.shape.vocab;
        let batches = match sizes.prompt {
            0 => batches::texts(&sizes, vocab, PACK_TOKENS),
            _ => batches::prompts(&sizes, vocab, PACK_TOKENS),
        };
        Self { decoder, batches, sizes }
    }

    /// The reward of every leaf of a forest under a head of ones.
    fn rewards(&self, batch: &Batch) -> anyhow::Result<Vec<f32>> {
        let options =
            ForwardOptions { activations: ActivationPolicy::Recompute, ..Default::default() };
        let saved = self.decoder.forward(&batch.forest, &options)?;
        let rows: Vec<u32> = batch
            .forest
            .leaves()
            .into_iter()
            .map(|leaf| batch.forest.last_row(leaf) as u32)
            .collect();
        let (backend, dim) = (self.decoder.backend.as_ref(), self.decoder.shape.hidden);
        let mut last = backend.alloc(rows.len() * dim);
        backend.gather_rows(&saved.hidden, &rows, dim, &mut last);
        let head = backend.upload(&vec![1.0; dim]);
        let mut out = backend.alloc(rows.len());
        let shape = LinearShape { tokens: rows.len(), input: dim, output: 1 };
        backend.linear(&last, &head, None, shape, 1.0, (&mut out, Update::Set));
        let mut rewards = vec![0.0; rows.len()];
        backend.download(&out, &mut rewards);
        Ok(rewards)
    }
}

impl Work for Score<'_> {
    fn step(&mut self) -> anyhow::Result<Phases> {
        for batch in &self.batches {
            self.rewards(batch)?;
        }
        Ok(Phases::new())
    }

    fn warm_up(&mut self) -> anyhow::Result<()> {
        self.batches.iter().take(2).try_for_each(|batch| self.rewards(batch).map(|_| ()))
    }

    fn cost(&self) -> Cost {
        let load = self.batches.iter().map(Batch::load).fold(Load::default(), Load::plus);
        let rows = self.batches.iter().map(|batch| batch.forest.num_row_tokens() as u64);
        Cost {
            tokens: load.tokens,
            row_tokens: rows.sum(),
            load,
            flop: load.forward_flop(&self.decoder.shape),
            weight_reads: 0,
        }
    }

    fn describe(&self) -> String {
        let Sizes { rows, length, prompt, branches, .. } = self.sizes;
        match prompt {
            0 => format!("{rows} distinct texts of up to {length} tokens"),
            _ => {
                let sharing = self.sizes.sharing();
                format!(
                    "{rows} prompts of {prompt} tokens, {branches} responses of {length} each{sharing}"
                )
            }
        }
    }
}
