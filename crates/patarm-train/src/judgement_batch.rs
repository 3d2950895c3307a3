//! Supervised judgements: given texts, a weight for every token.
//!
//! Used by the cold start and by replay during reinforcement.

use std::ops::Range;

use patarm_models::{Decoder, ForwardOptions, Gradients, TreeBuilder};
use patarm_reward::cold_start::ColdStartRecord;
use patarm_reward::embedded::{JudgeText, StopAt};

use crate::error::Error;

/// A judgement to imitate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedJudgement {
    /// Judge prompt as segments.
    pub prompt: Vec<Vec<u32>>,
    /// Judgement tokens, end of turn included.
    pub tokens: Vec<u32>,
    /// Tokens of the score itself, without its tags.
    pub score: Range<usize>,
}

/// Weights of the tokens of a judgement in the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenWeights {
    /// Up to and including the opening score tag.
    pub before: f64,
    /// The score.
    pub score: f64,
    /// From the closing score tag on.
    pub after: f64,
}

/// Loss of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BatchLoss {
    /// Weighted mean negative log-likelihood, nats a token.
    pub loss: f64,
    /// Tokens computed.
    pub num_tokens: usize,
    /// Tokens that padded rows would have computed.
    pub num_row_tokens: usize,
}

impl EncodedJudgement {
    /// Encodes a record.
    ///
    /// # Errors
    /// When the tokenizer refuses a text.
    pub fn new(record: &ColdStartRecord, text: &JudgeText) -> Result<Self, Error> {
        let refuse = |error: patarm_reward::error::Error| Error::Data(error.to_string());
        let prompt = text.encode(&record.item, Some(record.task)).map_err(refuse)?;
        let mut tokens = text.encode_judgement(&record.judgement).map_err(refuse)?;
        let score = score_range(text, &tokens);
        tokens.extend(text.stop_ids().first());
        Ok(Self { prompt, tokens, score })
    }

    fn weight(&self, token: usize, weights: TokenWeights) -> f64 {
        if token < self.score.start {
            weights.before
        } else if token < self.score.end {
            weights.score
        } else {
            weights.after
        }
    }
}

/// Tokens between the opening and the closing score tag; empty at the end when
/// there is no opening tag.
#[must_use]
pub fn score_range(text: &JudgeText, tokens: &[u32]) -> Range<usize> {
    let mut opens = text.stop_rule(StopAt::BeforeScore);
    let Some(start) = (1..=tokens.len()).find(|end| opens(&tokens[..*end])) else {
        return tokens.len()..tokens.len();
    };
    let is_closing = |end: &usize| text.decode(&tokens[start..*end]).contains('<');
    let end = (start + 1..=tokens.len()).find(is_closing).map_or(tokens.len(), |end| end - 1);
    start..end.max(start)
}

/// Accumulates the gradient of the weighted negative log-likelihood of a batch.
///
/// # Errors
/// When a judgement does not fit the model.
pub fn accumulate(
    decoder: &Decoder,
    batch: &[&EncodedJudgement],
    weights: TokenWeights,
    options: (&ForwardOptions, usize),
    gradients: &mut Gradients,
) -> Result<BatchLoss, Error> {
    let (forward, micro_batch_tokens) = options;
    // The mean is over tokens that count at all, so that a weight means what it says.
    let counts = |one: &EncodedJudgement| {
        (0..one.tokens.len()).filter(|token| one.weight(*token, weights) > 0.0).count()
    };
    let denominator = batch.iter().map(|one| counts(one)).sum::<usize>().max(1) as f64;
    let mut total = BatchLoss::default();
    let mut rest = batch;
    while !rest.is_empty() {
        let (mut tree, mut ranges, mut taken) = (TreeBuilder::default(), Vec::new(), 0);
        while taken < rest.len() && (taken == 0 || tree.num_tokens() < micro_batch_tokens) {
            let leaf = tree.path(&rest[taken].prompt);
            ranges.push(tree.completion(leaf, &rest[taken].tokens).text);
            taken += 1;
        }
        let (forest, targets) = tree.finish();
        let saved = decoder.forward(&forest, forward)?;
        let statistics = decoder.target_statistics_for_backward(&saved.hidden, &targets, 1.0);
        let mut d_logprobs = vec![0.0f32; statistics.logprobs.len()];
        for (one, range) in rest[..taken].iter().zip(ranges) {
            for (token, target) in range.enumerate() {
                let weight = one.weight(token, weights) / denominator;
                d_logprobs[target] = -weight as f32;
                total.loss -= weight * f64::from(statistics.logprob(target));
            }
        }
        let d_hidden =
            decoder.target_statistics_backward(&saved, &statistics, &d_logprobs, None, gradients);
        decoder.backward(&saved, &d_hidden, &[], gradients);
        total.num_tokens += forest.num_tokens();
        total.num_row_tokens += forest.num_row_tokens();
        rest = &rest[taken..];
    }
    Ok(total)
}
