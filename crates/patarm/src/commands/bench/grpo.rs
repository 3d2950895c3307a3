//! The preference-aware step: judgements of both responses of every pair are drawn
//! on one tree, then learned from on the same tree.
//!
//! Rewards and advantages cost nothing beside the two; every judgement's tokens get
//! the same weight here.

use patarm_models::{Decoder, Generation};

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
    pub(super) fn new(decoder: &'a mut Decoder, sizes: Sizes) -> Self {
        Self { trainer: Trainer::new(decoder), sizes }
    }

    fn rollout(&self, pairs: usize, phases: &mut Phases) -> anyhow::Result<Vec<Generation>> {
        let (decoder, vocab) = (&*self.trainer.decoder, self.trainer.decoder.shape.vocab);
        let branches = self.sizes.branches;
        let mut requests = Vec::new();
        for pair in 0..pairs {
            let [prompt, responses @ ..] = batches::tree_segments(&self.sizes, vocab, pair);
            for (side, response) in responses.into_iter().enumerate() {
                for n in 0..branches {
                    let sequence = ((2 * pair + side) * branches + n) as u64;
                    let segments = vec![prompt.clone(), response.clone()];
                    requests.push(request(segments, sequence, self.sizes.length));
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
        let trees: Vec<Batch> = (0..pairs)
            .map(|pair| {
                let judgement = |n: usize| drawn[pair * a_pair + n].tokens.clone();
                batches::tree(&self.sizes, (vocab, pair), &judgement)
            })
            .collect();
        self.trainer.update(&trees, &mut phases)?;
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
        let one = batches::tree(&self.sizes, (shape.vocab, 0), &|n| {
            ids(self.sizes.length, shape.vocab, n)
        });
        let rows = self.sizes.rows as u64;
        let Load { tokens, keys, head_rows } = one.load();
        let load = Load { tokens: rows * tokens, keys: rows * keys, head_rows: rows * head_rows };
        Cost {
            tokens: load.tokens,
            row_tokens: rows * one.forest.num_row_tokens() as u64,
            load,
            flop: load.training_flop(shape) + load.forward_flop(shape),
            weight_reads: 0,
        }
    }

    fn describe(&self) -> String {
        let Sizes { rows, length, prompt, response, branches } = self.sizes;
        format!(
            "{rows} pairs, prompt {prompt}, responses {response}, \
             {branches} judgements of {length} a response, drawn and learned"
        )
    }
}
