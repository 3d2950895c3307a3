//! A training step on packed rows: forward, backward and AdamW, all parameters.

use patarm_models::{
    AdamWConfig, Decoder, ForwardOptions, Gradients, Optimizer, OptimizerStates, TargetStatistics,
};

use super::batches::{self, Batch};
use super::sizes::Sizes;
use super::work::{Cost, Phases, Work, timed};

/// A decoder with what training it needs.
#[derive(Debug)]
pub(super) struct Trainer<'a> {
    pub(super) decoder: &'a mut Decoder,
    gradients: Gradients,
    optimizer: Optimizer,
}

impl<'a> Trainer<'a> {
    /// Makes every parameter trainable.
    pub(super) fn new(decoder: &'a mut Decoder, states: OptimizerStates) -> Self {
        for (_, parameter) in decoder.parameters.iter_mut() {
            parameter.trainable = true;
        }
        let gradients = Gradients::zeros(decoder.backend.as_ref(), &decoder.parameters);
        let optimizer = Optimizer::new(decoder.backend.as_ref(), &decoder.parameters, states);
        Self { decoder, gradients, optimizer }
    }

    /// Mean negative log-probability of all targets: its gradient, and the update.
    pub(super) fn update(&mut self, batches: &[Batch], phases: &mut Phases) -> anyhow::Result<()> {
        let backend = self.decoder.backend.clone();
        self.gradients.clear(backend.as_ref());
        for batch in batches {
            self.accumulate(batch, phases)?;
        }
        timed(phases, "optimizer", || {
            let config = AdamWConfig::default();
            let rates = (config.learning_rate, 1.0);
            let parameters = &mut self.decoder.parameters;
            self.optimizer.update(backend.as_ref(), parameters, &self.gradients, &config, rates);
        });
        Ok(())
    }

    fn accumulate(&mut self, batch: &Batch, phases: &mut Phases) -> anyhow::Result<()> {
        let (decoder, gradients) = (&*self.decoder, &mut self.gradients);
        let (saved, statistics) = timed(phases, "forward", || {
            let saved = decoder.forward(&batch.forest, &ForwardOptions::default())?;
            let statistics: TargetStatistics =
                decoder.target_statistics_for_backward(&saved.hidden, &batch.targets, 1.0);
            anyhow::Ok((saved, statistics))
        })?;
        let d_logprobs = vec![-1.0 / batch.targets.len() as f32; batch.targets.len()];
        timed(phases, "backward", || {
            let d_hidden = decoder.target_statistics_backward(
                &saved,
                &statistics,
                &d_logprobs,
                None,
                gradients,
            );
            decoder.backward(&saved, &d_hidden, &[], gradients);
        });
        Ok(())
    }
}

/// The work of `bench train`.
#[derive(Debug)]
pub(super) struct Train<'a> {
    trainer: Trainer<'a>,
    batch: Batch,
    sizes: Sizes,
}

impl<'a> Train<'a> {
    pub(super) fn new(decoder: &'a mut Decoder, sizes: Sizes, states: OptimizerStates) -> Self {
        let batch = batches::rows(&sizes, decoder.shape.vocab);
        Self { trainer: Trainer::new(decoder, states), batch, sizes }
    }
}

impl Work for Train<'_> {
    fn step(&mut self) -> anyhow::Result<Phases> {
        let mut phases = Phases::new();
        self.trainer.update(std::slice::from_ref(&self.batch), &mut phases)?;
        Ok(phases)
    }

    fn cost(&self) -> Cost {
        let load = self.batch.load();
        Cost {
            tokens: load.tokens,
            row_tokens: load.tokens,
            load,
            flop: load.training_flop(&self.trainer.decoder.shape),
            weight_reads: 0,
        }
    }

    fn describe(&self) -> String {
        format!("{} packed rows of {} tokens", self.sizes.rows, self.sizes.length)
    }
}
