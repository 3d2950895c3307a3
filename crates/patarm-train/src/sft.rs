//! Supervised cold start of a judge.
//!
//! Implements the SFT stage of the method notes, section 6 (inferred): next-token
//! loss on the tokens of a judgement given its judge prompt.
//!
//! # Deviations
//! - The paper's teacher data are unknown; judgements come from any teacher, kept
//!   when they agree with the label, or from the built-in label-free builder.
//! - Judgements of the same prompt share one prefix tree instead of rows.

use patarm_reward::cold_start::ColdStartRecord;

use crate::batches::batch_indices;
use crate::error::Error;
use crate::judgement_batch::{EncodedJudgement, TokenWeights, accumulate};
use crate::recipe::ColdStartConfig;
use crate::run_directory::Phase;
use crate::trainer::{Meter, Trainer, peak_memory_bytes};

/// Stream of the cold start's data order.
const ORDER_STREAM: u64 = 0xc01d;

/// Trains on the records until the stage's last step.
///
/// # Errors
/// When a judgement does not fit, a file cannot be written, or the user stops.
pub fn train(
    trainer: &mut Trainer<'_>,
    config: &ColdStartConfig,
    records: &[ColdStartRecord],
) -> Result<(), Error> {
    let text = trainer.context.text;
    let judgements: Vec<EncodedJudgement> = records
        .iter()
        .map(|record| EncodedJudgement::new(record, text))
        .collect::<Result<_, _>>()?;
    if judgements.is_empty() {
        return Err(Error::Data("the cold start has no judgement to learn from".into()));
    }
    let observer = trainer.context.observer;
    observer.begin("cold start", config.steps);
    while trainer.position.step < config.steps {
        step(trainer, config, &judgements)?;
        trainer.after_step(config.steps)?;
    }
    observer.end();
    Ok(())
}

fn step(
    trainer: &mut Trainer<'_>,
    config: &ColdStartConfig,
    judgements: &[EncodedJudgement],
) -> Result<(), Error> {
    let step = trainer.position.step + 1;
    let order = (trainer.context.recipe.seed, ORDER_STREAM);
    let indices = batch_indices(judgements.len(), config.batch, step, order);
    let batch: Vec<&EncodedJudgement> = indices.iter().map(|index| &judgements[*index]).collect();
    let weights = TokenWeights { before: 1.0, score: config.score_weight, after: 1.0 };
    let options = trainer.forward_options();
    trainer.clear_gradients();
    let mut meter = Meter::default();
    let loss = meter.time(|| {
        accumulate(
            &trainer.decoder,
            &batch,
            weights,
            (&options, MICRO_BATCH_TOKENS),
            &mut trainer.gradients,
        )
    })?;
    let update = meter.time(|| trainer.update(&config.optimizer, step, config.steps));
    meter.tokens = loss.num_tokens;
    trainer.position.step = step;
    let values = [
        ("loss".to_owned(), loss.loss),
        ("gradient_norm".to_owned(), update.gradient_norm),
        ("learning_rate".to_owned(), update.learning_rate),
        ("num_tokens".to_owned(), loss.num_tokens as f64),
        ("num_row_tokens".to_owned(), loss.num_row_tokens as f64),
        ("train_tokens_per_s".to_owned(), meter.tokens_per_s()),
        (
            "peak_memory_bytes".to_owned(),
            peak_memory_bytes(trainer.decoder.backend.as_ref()) as f64,
        ),
    ];
    trainer.run.metrics(Phase::ColdStart, step, &values)?;
    let note = format!("loss {:.3}  {:.0} tokens/s", loss.loss, meter.tokens_per_s());
    trainer.context.observer.advance(step, &note);
    Ok(())
}

/// Tokens of one forward; judgements are never split.
const MICRO_BATCH_TOKENS: usize = 2048;
