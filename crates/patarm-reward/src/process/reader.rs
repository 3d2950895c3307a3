//! One number a row, whatever kind of head gives it.

use patarm_models::files::StepReadout;
use patarm_models::kernels::Buffer;
use patarm_models::{
    Decoder, Gradients, Saved, StepHead, StepValues, Target, TargetRows, TargetStatistics,
};

use super::Link;

/// Reads log-odds or values off hidden states.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepReader {
    /// A head of two outputs: u is the second less the first.
    Classes(StepHead),
    /// A head of one output.
    Value(StepHead, Link),
    /// u is the log-probability of the first token less that of the second.
    Tokens([u32; 2]),
}

/// The numbers of some rows, and what the backward needs.
#[derive(Debug)]
pub struct StepNumbers {
    /// u of each row.
    pub u: Vec<f64>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Head(StepValues),
    Tokens(Box<TargetStatistics>),
}

impl StepReader {
    /// The reader of a description; `None` where its head or its tokens are not there.
    #[must_use]
    pub fn of(
        readout: &StepReadout,
        head: Option<StepHead>,
        tokens: Option<[u32; 2]>,
    ) -> Option<Self> {
        match readout {
            StepReadout::Classes {} => head.map(Self::Classes),
            StepReadout::Value {} => head.map(|head| Self::Value(head, Link::Identity)),
            StepReadout::Logistic {} => head.map(|head| Self::Value(head, Link::Logistic)),
            StepReadout::Tokens { .. } => tokens.map(Self::Tokens),
        }
    }

    /// How u becomes a score.
    #[must_use]
    pub fn link(&self) -> Link {
        match self {
            Self::Value(_, link) => *link,
            Self::Classes(_) | Self::Tokens(_) => Link::Logistic,
        }
    }

    /// The numbers at the given rows of `hidden` (`[t, d]`).
    #[must_use]
    pub fn read(&self, decoder: &Decoder, hidden: &Buffer, rows: &[usize]) -> StepNumbers {
        match self {
            Self::Classes(head) => {
                let values = head.forward(decoder, hidden, rows);
                let each = values.values.chunks_exact(2);
                let u = each.map(|pair| f64::from(pair[1]) - f64::from(pair[0])).collect();
                StepNumbers { u, source: Source::Head(values) }
            }
            Self::Value(head, _) => {
                let values = head.forward(decoder, hidden, rows);
                let u = values.values.iter().map(|value| f64::from(*value)).collect();
                StepNumbers { u, source: Source::Head(values) }
            }
            Self::Tokens(ids) => {
                let mut targets = TargetRows::new();
                for &row in rows {
                    targets.push(Target { row, ids: ids.to_vec() });
                }
                let statistics = decoder.target_statistics(hidden, &targets, 1.0);
                let each = (0..rows.len()).map(|row| statistics.logprobs_of(row));
                let u = each.map(|pair| f64::from(pair[0]) - f64::from(pair[1])).collect();
                StepNumbers { u, source: Source::Tokens(Box::new(statistics)) }
            }
        }
    }

    /// Accumulates the gradient of head or output matrix and returns that of the hidden
    /// states, `[t, d]`.
    ///
    /// # Shapes
    /// `d_u`: as [`StepNumbers::u`].
    #[must_use]
    pub fn backward(
        &self,
        (decoder, saved): (&Decoder, &Saved),
        numbers: &StepNumbers,
        d_u: &[f64],
        gradients: &mut Gradients,
    ) -> Buffer {
        let pairs =
            |sign: f64| d_u.iter().flat_map(move |d| [(sign * d) as f32, (-sign * d) as f32]);
        match (self, &numbers.source) {
            (Self::Value(head, _), Source::Head(values)) => {
                let d: Vec<f32> = d_u.iter().map(|d| *d as f32).collect();
                head.backward(decoder, values, &d, gradients)
            }
            (Self::Classes(head), Source::Head(values)) => {
                let d: Vec<f32> = pairs(-1.0).collect();
                head.backward(decoder, values, &d, gradients)
            }
            // The gradient sums to zero over both tokens, so that it is the same by the
            // log-probabilities over the whole vocabulary.
            (_, Source::Tokens(statistics)) => {
                let d: Vec<f32> = pairs(1.0).collect();
                decoder.target_statistics_backward(saved, statistics, &d, None, gradients)
            }
            (Self::Tokens(_), Source::Head(_)) => decoder.backend.zeros(saved.hidden.len()),
        }
    }
}
