//! How one token is drawn, and the result.

/// Rules for drawing one token. `temperature == 0` means the most likely token
/// (the lowest id among equals). Filters act in the order of the fields: top-p
/// counts probability within what top-k kept, min-p compares with the most likely
/// token, and the draw is in proportion among the tokens left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Logits are divided by this; 0 = greedy.
    pub temperature: f32,
    /// Keep this many most likely tokens; 0 = all.
    pub top_k: usize,
    /// Keep the smallest set whose probability reaches this; 1 = all.
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the most likely; 0 = all.
    pub min_p: f32,
    /// Seed of the run.
    pub seed: u64,
    /// Identity of the sequence, unique within the run.
    pub sequence: u64,
    /// Position of the drawn token within its sequence.
    pub position: u64,
}

/// A drawn token and its log-probability under the full tempered distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampledToken {
    /// Token id.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}
