//! Which tokens of a forest a loss looks at, and their log-probabilities.
//!
//! A target is a token to be predicted from a hidden row. Targets are computed
//! together, chunked over the vocabulary, and their gradients flow back to the
//! hidden rows they came from.

use patarm_kernels::{Buffer, ChosenTokens, StatisticsGradient, StatisticsShape, TokenStatistics};

use crate::decoder::{Decoder, Saved};
use crate::forest::{Forest, SegmentId};
use crate::parameters::Gradients;

/// Tokens to be predicted from one hidden row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Row of the hidden state.
    pub row: usize,
    /// Ids whose logits are wanted; usually one.
    pub ids: Vec<u32>,
}

/// A list of targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetRows {
    targets: Vec<Target>,
}

impl TargetRows {
    /// No targets.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a target and returns its index.
    pub fn push(&mut self, target: Target) -> usize {
        self.targets.push(target);
        self.targets.len() - 1
    }

    /// Adds every token of a segment from `from` on, each predicted by the token
    /// before it, and returns the range of target indices.
    ///
    /// # Panics
    /// When token 0 of a root is asked for: nothing predicts it.
    pub fn push_segment(
        &mut self,
        forest: &Forest,
        segment: SegmentId,
        from: usize,
    ) -> std::ops::Range<usize> {
        let start = self.targets.len();
        for (offset, &id) in forest.segment_tokens(segment).iter().enumerate().skip(from) {
            let row = forest.predicting_row(segment, offset);
            let row = row.expect("the first token of a root has no prediction");
            self.targets.push(Target { row, ids: vec![id] });
        }
        start..self.targets.len()
    }

    /// Number of targets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    fn rows(&self) -> Vec<u32> {
        self.targets.iter().map(|target| target.row as u32).collect()
    }

    fn chosen(&self) -> ChosenTokens {
        let mut chosen = ChosenTokens { offsets: vec![0], ids: Vec::new() };
        for target in &self.targets {
            chosen.ids.extend_from_slice(&target.ids);
            chosen.offsets.push(chosen.ids.len());
        }
        chosen
    }
}

/// Log-probabilities of targets, and what their gradient needs.
#[derive(Debug)]
pub struct TargetStatistics {
    rows: Vec<u32>,
    chosen: ChosenTokens,
    gathered: Buffer,
    statistics: TokenStatistics,
    temperature: f32,
    /// Log-probability of every chosen id, target after target.
    pub logprobs: Vec<f32>,
    /// Where each target's ids begin in `logprobs`; one more entry than targets.
    pub offsets: Vec<usize>,
    /// Entropy of each target's distribution, in nats.
    pub entropy: Vec<f32>,
}

impl TargetStatistics {
    /// Log-probability of the first (usually only) id of a target.
    #[must_use]
    pub fn logprob(&self, target: usize) -> f32 {
        self.logprobs[self.offsets[target]]
    }

    /// Log-probabilities of all ids of a target.
    #[must_use]
    pub fn logprobs_of(&self, target: usize) -> &[f32] {
        &self.logprobs[self.offsets[target]..self.offsets[target + 1]]
    }
}

/// Logits that may be kept from forward to backward: half a gibibyte of them. To compute
/// them again would cost a third of the output matrix's share of a step.
pub const KEPT_LOGITS: usize = 1 << 27;

/// Rows whose whole distributions are held at the same time.
const ROWS_AT_ONCE: usize = 16;

/// The largest values with their places.
fn largest(values: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> =
        values.iter().enumerate().map(|(id, value)| (id as u32, *value)).collect();
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0));
    let count = count.min(all.len());
    if count < all.len() {
        all.select_nth_unstable_by(count, order);
        all.truncate(count);
    }
    all.sort_by(order);
    all
}

impl Decoder {
    /// Log-probabilities of targets at the given temperature.
    ///
    /// # Shapes
    /// `hidden`: `[t, d]` after the final norm.
    #[must_use]
    pub fn target_statistics(
        &self,
        hidden: &Buffer,
        targets: &TargetRows,
        temperature: f32,
    ) -> TargetStatistics {
        self.statistics_of(hidden, targets, self.statistics_shape(targets.len(), temperature))
    }

    /// [`Decoder::target_statistics`] with a backward to follow, which finds some of the
    /// logits instead of computing them again: the first [`KEPT_LOGITS`].
    #[must_use]
    pub fn target_statistics_for_backward(
        &self,
        hidden: &Buffer,
        targets: &TargetRows,
        temperature: f32,
    ) -> TargetStatistics {
        let kept_rows = KEPT_LOGITS / self.shape.vocab.max(1);
        let shape = self.statistics_shape(targets.len(), temperature);
        self.statistics_of(hidden, targets, StatisticsShape { kept_rows, ..shape })
    }

    fn statistics_of(
        &self,
        hidden: &Buffer,
        targets: &TargetRows,
        shape: StatisticsShape,
    ) -> TargetStatistics {
        let backend = self.backend.as_ref();
        let (rows, chosen) = (targets.rows(), targets.chosen());
        let mut gathered = backend.alloc(rows.len() * self.shape.hidden);
        backend.gather_rows(hidden, &rows, self.shape.hidden, &mut gathered);
        let statistics =
            backend.token_statistics(&gathered, self.parameters.value(self.output), &chosen, shape);
        let mut logprobs = vec![0.0; chosen.ids.len()];
        let mut log_sum_exp = vec![0.0; rows.len()];
        let mut entropy = vec![0.0; rows.len()];
        backend.download(&statistics.chosen, &mut logprobs);
        backend.download(&statistics.log_sum_exp, &mut log_sum_exp);
        backend.download(&statistics.entropy, &mut entropy);
        for (target, total) in log_sum_exp.iter().enumerate() {
            for value in &mut logprobs[chosen.offsets[target]..chosen.offsets[target + 1]] {
                *value -= total;
            }
        }
        let offsets = chosen.offsets.clone();
        TargetStatistics {
            rows,
            chosen,
            gathered,
            statistics,
            temperature: shape.temperature,
            logprobs,
            offsets,
            entropy,
        }
    }

    /// The most probable ids after each row with their log-probabilities, most probable
    /// first, equal ones by id.
    ///
    /// # Shapes
    /// `hidden`: `[t, d]` after the final norm; the result has an entry a row.
    #[must_use]
    pub fn most_probable(
        &self,
        hidden: &Buffer,
        rows: &[usize],
        count: usize,
        temperature: f32,
    ) -> Vec<Vec<(u32, f32)>> {
        let ids: Vec<u32> = (0..self.shape.vocab as u32).collect();
        let mut found = Vec::with_capacity(rows.len());
        for rows in rows.chunks(ROWS_AT_ONCE) {
            let mut targets = TargetRows::new();
            for &row in rows {
                targets.push(Target { row, ids: ids.clone() });
            }
            let statistics = self.target_statistics(hidden, &targets, temperature);
            found.extend((0..rows.len()).map(|row| largest(statistics.logprobs_of(row), count)));
        }
        found
    }

    /// Turns gradients with respect to log-probabilities (and optionally
    /// entropies) into gradients of hidden states (returned, `[t, d]`) and of the
    /// output matrix (accumulated).
    #[must_use]
    pub fn target_statistics_backward(
        &self,
        saved: &Saved,
        statistics: &TargetStatistics,
        d_logprobs: &[f32],
        d_entropy: Option<&[f32]>,
        gradients: &mut Gradients,
    ) -> Buffer {
        let backend = self.backend.as_ref();
        let d_log_sum_exp: Vec<f32> = (0..statistics.rows.len())
            .map(|n| {
                -d_logprobs[statistics.offsets[n]..statistics.offsets[n + 1]].iter().sum::<f32>()
            })
            .collect();
        let (d_chosen, d_total) = (backend.upload(d_logprobs), backend.upload(&d_log_sum_exp));
        let d_entropy = d_entropy.map(|values| backend.upload(values));
        let mut d_gathered = backend.alloc(statistics.gathered.len());
        backend.token_statistics_backward(
            &statistics.gathered,
            self.parameters.value(self.output),
            &statistics.chosen,
            self.statistics_shape(statistics.rows.len(), statistics.temperature),
            &statistics.statistics,
            StatisticsGradient {
                chosen: &d_chosen,
                log_sum_exp: &d_total,
                entropy: d_entropy.as_ref(),
            },
            &mut d_gathered,
            gradients.get_mut(self.output),
        );
        let mut d_hidden = backend.zeros(saved.hidden.len());
        backend.scatter_add_rows(&d_gathered, &statistics.rows, self.shape.hidden, &mut d_hidden);
        d_hidden
    }

    pub(crate) fn statistics_shape(&self, rows: usize, temperature: f32) -> StatisticsShape {
        let (dim, vocab) = (self.shape.hidden, self.shape.vocab);
        StatisticsShape { rows, dim, vocab, temperature, kept_rows: 0 }
    }
}
