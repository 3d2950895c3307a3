//! Which keys each query sees: the segment table of a forest, flattened.
//!
//! A *run* is a stretch of consecutive query tokens that share a path. Its keys
//! are listed as spans of slots of the key table, in position order from
//! position 0. A training forward stores the keys of token `n` in slot `n`; a
//! generation engine stores them wherever its cache has room. Attention cannot
//! tell the difference.

/// Keys are reduced in blocks of this many positions, aligned to position 0, so
/// that the order of summation does not depend on where segments begin.
pub const KEY_BLOCK: usize = 64;

/// A contiguous range of slots of the key table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First slot.
    pub slot: usize,
    /// Number of slots.
    pub len: usize,
}

/// Consecutive query tokens that share a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryRun {
    /// Row of the first query in the query buffer.
    pub query: usize,
    /// Number of queries.
    pub len: usize,
    /// Position of the first query: query `j` of the run stands at
    /// `first_position + j` and, when causal, sees positions `0..=first_position + j`.
    pub first_position: usize,
    /// The keys in position order. When causal they cover at least
    /// `first_position + len` positions.
    pub spans: Vec<Span>,
    /// `false`: every query of the run sees every key of the spans.
    pub causal: bool,
}

impl QueryRun {
    /// Number of key positions listed in the spans.
    #[must_use]
    pub fn num_keys(&self) -> usize {
        self.spans.iter().map(|span| span.len).sum()
    }

    /// Number of keys that some query of the run sees.
    #[must_use]
    pub fn visible_keys(&self) -> usize {
        if self.causal { self.first_position + self.len } else { self.num_keys() }
    }

    /// Number of keys query `j` of the run sees.
    #[must_use]
    pub fn keys_seen(&self, j: usize) -> usize {
        if self.causal { self.first_position + j + 1 } else { self.num_keys() }
    }
}

/// Every run of one attention call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttentionPlan {
    /// The runs; each query row belongs to exactly one.
    pub runs: Vec<QueryRun>,
}

/// Sizes of one attention call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query tokens `t`.
    pub queries: usize,
    /// Slots `s` of the key and value tables.
    pub slots: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`. Query head `n` reads key head
    /// `n / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
}
