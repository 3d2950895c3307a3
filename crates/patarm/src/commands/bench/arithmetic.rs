//! How many floating-point operations a decoder needs.
//!
//! A product with `n` weights takes `2 n` operations a token forward, and twice
//! that backward (gradients of inputs and of weights), hence the usual `6 n` of a
//! training step (Kaplan et al., arXiv 2001.08361, section 2.1). Attention to `c`
//! keys takes `4 · heads · head_dim · c` a layer forward: one product with keys,
//! one with values.

use patarm_models::{DecoderShape, Forest};

/// Work of one pass, before it is known which pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Tokens that run through the blocks.
    pub(super) tokens: u64,
    /// Keys seen by all these tokens together.
    pub(super) keys: u64,
    /// Rows that run through the output matrix.
    pub(super) head_rows: u64,
}

impl Load {
    /// Work of a whole forest of which `head_rows` tokens are predicted.
    pub(super) fn of_forest(forest: &Forest, head_rows: usize) -> Self {
        // A token sees every token above it and itself: its depth plus one.
        let keys = forest.positions().iter().map(|&depth| u64::from(depth) + 1).sum();
        Self { tokens: forest.num_tokens() as u64, keys, head_rows: head_rows as u64 }
    }

    /// Work of both.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            keys: self.keys + other.keys,
            head_rows: self.head_rows + other.head_rows,
        }
    }

    /// Operations of a forward pass.
    pub(super) fn forward_flop(self, shape: &DecoderShape) -> f64 {
        let blocks = 2.0 * shape.block_parameters() as f64 * self.tokens as f64;
        let head = 2.0 * (shape.hidden * shape.vocab) as f64 * self.head_rows as f64;
        let attention = 4.0 * (shape.layers * shape.query_width()) as f64 * self.keys as f64;
        blocks + head + attention
    }

    /// Operations of a forward and a backward pass.
    pub(super) fn training_flop(self, shape: &DecoderShape) -> f64 {
        3.0 * self.forward_flop(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_by_hand() {
        let shape = DecoderShape {
            hidden: 2,
            intermediate: 3,
            layers: 1,
            heads: 1,
            kv_heads: 1,
            head_dim: 2,
            vocab: 5,
            norm_eps: 1e-5,
            inverse_frequencies: vec![1.0],
            max_positions: 8,
            qkv_bias: false,
            qk_norm: false,
            tied: true,
        };
        let mut forest = Forest::new();
        let root = forest.add(None, &[1, 2]);
        forest.add(Some(root), &[3]);
        forest.add(Some(root), &[4]);
        let load = Load::of_forest(&forest, 2);
        // Depths 0, 1, 2, 2.
        assert_eq!(load, Load { tokens: 4, keys: 1 + 2 + 3 + 3, head_rows: 2 });
        // Blocks: q, k, v, o of 4 weights and three maps of 6, twice, for 4 tokens;
        // head: 10 weights, twice, for 2 rows; attention: 4 · 2 · 9.
        assert_eq!(load.forward_flop(&shape), (2 * 34 * 4 + 2 * 10 * 2 + 4 * 2 * 9) as f64);
        assert_eq!(load.training_flop(&shape), 3.0 * load.forward_flop(&shape));
        assert_eq!(load.plus(load).tokens, 8);
    }
}
