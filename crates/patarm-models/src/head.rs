//! Linear heads: numbers read off hidden states of chosen rows.
//!
//! One more forward and backward pair on top of the decoder. Which rows are read is
//! the caller's business and comes from the forest (the last token of a segment, every
//! token of a response, separators), never from comparing ids with a padding id.
//! Heads are not prepared as weights of the device, so their products stay `f32`
//! whatever the precision of the decoder.

use patarm_kernels::{Buffer, Update, random};

use crate::decoder::Decoder;
use crate::linear::Linear;
use crate::parameters::Gradients;

/// How a fresh head begins.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum HeadInit {
    /// Every value 0 at first.
    Zero {},
    /// Normal with this standard deviation.
    Normal {
        /// Standard deviation.
        std: f64,
    },
}

/// A linear map from a hidden state to one or several numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearHead {
    /// The map; its parameters are marked as a head's.
    pub linear: Linear,
}

/// Values of a head, and what its backward needs.
#[derive(Debug)]
pub struct HeadValues {
    rows: Vec<u32>,
    gathered: Buffer,
    num_hidden: usize,
    /// `[rows, outputs]`, row after row.
    pub values: Vec<f32>,
}

impl HeadValues {
    /// The states that were read, `[rows, d]`.
    pub(crate) fn gathered(&self) -> &Buffer {
        &self.gathered
    }
}

/// Stream of the draws of fresh heads.
const HEAD_STREAM: u64 = 0x4ead;

impl LinearHead {
    /// Adds a fresh head without bias, named `name.weight`, `[outputs, d]`.
    ///
    /// # Panics
    /// When the decoder has a parameter of this name.
    pub fn attach(
        decoder: &mut Decoder,
        name: &str,
        outputs: usize,
        (init, seed): (HeadInit, u64),
    ) -> Self {
        let draw = |n: usize| match init {
            HeadInit::Zero {} => 0.0,
            HeadInit::Normal { std } => {
                (std * random::normal(seed, &[HEAD_STREAM, n as u64])) as f32
            }
        };
        let weight: Vec<f32> = (0..outputs * decoder.shape.hidden).map(draw).collect();
        Self::with_weight(decoder, name, outputs, &weight)
    }

    /// Adds a head of given weights, `[outputs, d]`.
    ///
    /// # Panics
    /// When the decoder has a parameter of this name, or the size is another one.
    pub fn with_weight(decoder: &mut Decoder, name: &str, outputs: usize, weight: &[f32]) -> Self {
        let input = decoder.shape.hidden;
        let value = decoder.backend.upload(weight);
        let name = format!("{name}.weight");
        let weight = decoder.parameters.add(name, &[outputs, input], value);
        decoder.parameters.get_mut(weight).is_head = true;
        Self { linear: Linear { weight, bias: None, low_rank: None, input, output: outputs } }
    }

    /// Values at the given rows of `hidden` (`[t, d]`).
    #[must_use]
    pub fn forward(&self, decoder: &Decoder, hidden: &Buffer, rows: &[usize]) -> HeadValues {
        let backend = decoder.backend.as_ref();
        let rows: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
        let mut gathered = backend.alloc(rows.len() * self.linear.input);
        backend.gather_rows(hidden, &rows, self.linear.input, &mut gathered);
        let mut out = backend.alloc(rows.len() * self.linear.output);
        self.linear.forward(backend, &decoder.parameters, &gathered, (&mut out, Update::Set));
        let mut values = vec![0.0; out.len()];
        backend.download(&out, &mut values);
        HeadValues { rows, gathered, num_hidden: hidden.len(), values }
    }

    /// Accumulates the head's gradient and returns that of the hidden states, `[t, d]`.
    ///
    /// # Shapes
    /// `d_values`: as [`HeadValues::values`].
    #[must_use]
    pub fn backward(
        &self,
        decoder: &Decoder,
        output: &HeadValues,
        d_values: &[f32],
        gradients: &mut Gradients,
    ) -> Buffer {
        let backend = decoder.backend.as_ref();
        let d_out = backend.upload(d_values);
        let mut d_gathered = backend.alloc(output.gathered.len());
        self.linear.backward(
            backend,
            &decoder.parameters,
            gradients,
            (&output.gathered, &d_out),
            (&mut d_gathered, Update::Set),
        );
        let mut d_hidden = backend.zeros(output.num_hidden);
        backend.scatter_add_rows(&d_gathered, &output.rows, self.linear.input, &mut d_hidden);
        d_hidden
    }
}
