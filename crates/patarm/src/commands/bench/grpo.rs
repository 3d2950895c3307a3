//! The preference-aware step: judgements of both responses of every pair are drawn
//! on one tree, then learned from on the same tree.
//!
//! Rewards and advantages cost nothing beside the two; every judgement's tokens get
//! the same weight here.

use patarm_models::{Decoder, Generation, OptimizerStates};

use super::arithmetic::Load;
use super::batches::{self, Batch, ids};
use super::rollout::{generate, request};
use super::sizes::Sizes;
use super::train::Trainer;
use super::work::{Cost, Phases, Work};

/// The work of `bench grpo`.
#[derive(Debug)]
pub(super) struct Grpo<'a> {
    trainer: Trainer<'a>,
    sizes: Sizes,
}

impl<'a> Grpo<'a> {
    pub(super) fn new(decoder: &'a mut Decoder, sizes: Sizes, states: OptimizerStates) -> Self {
        Self { trainer: Trainer::new(decoder, states), sizes }
    }

    fn rollout(&self, pairs: usize, phases: &mut Phases) -> anyhow::Result<Vec<Generation>> {
        let (decoder, vocab) = (&*self.trainer.decoder, self.trainer.decoder.shape.vocab);
        let branches = self.sizes.branches;
        let mut requests = Vec::new();
        for pair in 0..pairs {
            let [prompt, responses @ ..] = batches::tree_segments(&self.sizes, vocab, pair);
            for (side, response) in responses.into_iter().enumerate() {
                for n in 0..branches {
                    let sequence = (2 * pair + side) * branches + n;
                    let above = self.sizes.above(vec![prompt.clone(), response.clone()], sequence);
                    requests.push(request(above, sequence as u64, self.sizes.length));
                }
            }
        }
        generate(decoder, requests, phases)
    }

    /// Draws and learns `pairs` pairs.
    fn run(&mut self, pairs: usize) -> anyhow::Result<Phases> {
        let mut phases = Phases::new();
        let drawn = self.rollout(pairs, &mut phases)?;
        let (vocab, a_pair) = (self.trainer.decoder.shape.vocab, 2 * self.sizes.branches);
        let learned: Vec<Batch> = (0..pairs)
            .flat_map(|pair| {
                let judgement = |n: usize| drawn[pair * a_pair + n].tokens.clone();
                batches::pair(&self.sizes, (vocab, pair), &judgement)
            })
            .collect();
        self.trainer.update(&learned, &mut phases)?;
        Ok(phases)
    }
}

impl Work for Grpo<'_> {
    fn step(&mut self) -> anyhow::Result<Phases> {
        self.run(self.sizes.rows)
    }

    fn warm_up(&mut self) -> anyhow::Result<()> {
        self.run(1).map(|_| ())
    }

    /// Tokens of the update; the same ones were computed once more while drawing.
    fn cost(&self) -> Cost {
        let shape = &self.trainer.decoder.shape;
        let judgement = |n: usize| ids(self.sizes.length, shape.vocab, n);
        let one = batches::pair(&self.sizes, (shape.vocab, 0), &judgement);
        let rows = self.sizes.rows as u64;
        let Load { tokens, keys, head_rows } =
            one.iter().map(Batch::load).fold(Load::default(), Load::plus);
        let load = Load { tokens: rows * tokens, keys: rows * keys, head_rows: rows * head_rows };
        let row_tokens: usize = one.iter().map(|batch| batch.forest.num_row_tokens()).sum();
        Cost {
            tokens: load.tokens,
            row_tokens: rows * row_tokens as u64,
            load,
            flop: load.training_flop(shape) + load.forward_flop(shape),
            weight_reads: 0,
        }
    }

    fn describe(&self) -> String {
        let Sizes { rows, length, prompt, response, branches, .. } = self.sizes;
        format!(
            "{rows} pairs, prompt {prompt}, responses {response}, \
             {branches} judgements of {length} a response, drawn and learned{}",
            self.sizes.sharing()
        )
    }
}
