//! Heads that give an item one number, behind one type.

use patarm_kernels::Buffer;

use crate::decoder::{Decoder, Saved};
use crate::error::Error;
use crate::forest::Forest;
use crate::head::{HeadValues, LinearHead};
use crate::hpqa::{HpqaHead, HpqaValues, States};
use crate::linear::Linear;
use crate::parameters::Gradients;

/// A head that gives an item one number. Items are named by the row of their last token.
#[derive(Clone, Debug, PartialEq)]
pub enum ScalarHead {
    /// A linear map of the last token's state.
    LastToken(LinearHead),
    /// Attention over all tokens in several layers.
    Hpqa(Box<HpqaHead>),
}

/// Values of items, and what the backward needs.
#[derive(Debug)]
pub struct ScalarValues {
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    LastToken(HeadValues),
    Hpqa(Box<HpqaValues>),
}

impl ScalarValues {
    /// One for each item.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        match &self.kept {
            Kept::LastToken(output) => &output.values,
            Kept::Hpqa(output) => &output.values,
        }
    }

    /// What the head's output matrix reads, `[items, d]`.
    #[must_use]
    pub fn embedding(&self) -> &Buffer {
        match &self.kept {
            Kept::LastToken(output) => output.gathered(),
            Kept::Hpqa(output) => &output.embedding,
        }
    }
}

impl ScalarHead {
    /// The map from an embedding to the number.
    #[must_use]
    pub fn output(&self) -> &Linear {
        match self {
            Self::LastToken(head) => &head.linear,
            Self::Hpqa(head) => head.output(),
        }
    }

    /// Blocks whose output a forward must keep for this head.
    #[must_use]
    pub fn taps(&self, decoder: &Decoder) -> Vec<usize> {
        match self {
            Self::LastToken(_) => Vec::new(),
            Self::Hpqa(head) => head.taps(decoder.shape.layers),
        }
    }

    /// Runs a forest and reads the items that end at the given rows; keeps nothing of
    /// the decoder.
    ///
    /// # Errors
    /// As [`Decoder::infer`].
    pub fn infer(
        &self,
        decoder: &Decoder,
        forest: &Forest,
        rows: &[usize],
    ) -> Result<ScalarValues, Error> {
        let (hidden, taps) = decoder.infer(forest, &self.taps(decoder))?;
        Ok(self.read(decoder, States { hidden: &hidden, taps: &taps }, (forest, rows)))
    }

    /// Reads the items that end at the given rows of a training forward, which must have
    /// kept [`ScalarHead::taps`].
    #[must_use]
    pub fn forward(
        &self,
        decoder: &Decoder,
        saved: &Saved,
        place: (&Forest, &[usize]),
    ) -> ScalarValues {
        self.read(decoder, States { hidden: &saved.hidden, taps: &saved.taps }, place)
    }

    fn read(
        &self,
        decoder: &Decoder,
        states: States<'_>,
        (forest, rows): (&Forest, &[usize]),
    ) -> ScalarValues {
        let kept = match self {
            Self::LastToken(head) => Kept::LastToken(head.forward(decoder, states.hidden, rows)),
            Self::Hpqa(head) => Kept::Hpqa(Box::new(head.forward(decoder, states, (forest, rows)))),
        };
        ScalarValues { kept }
    }

    /// Accumulates the gradients of head and decoder, given one by each value.
    ///
    /// # Panics
    /// When the values are of another kind of head.
    pub fn backward(
        &self,
        decoder: &Decoder,
        (saved, output): (&Saved, &ScalarValues),
        d_values: &[f32],
        gradients: &mut Gradients,
    ) {
        match (self, &output.kept) {
            (Self::LastToken(head), Kept::LastToken(output)) => {
                let d_hidden = head.backward(decoder, output, d_values, gradients);
                decoder.backward(saved, &d_hidden, &[], gradients);
            }
            (Self::Hpqa(head), Kept::Hpqa(output)) => {
                let states = States { hidden: &saved.hidden, taps: &saved.taps };
                let found = head.backward(decoder, (states, output), d_values, gradients);
                let d_taps: Vec<(usize, &Buffer)> =
                    found.taps.iter().map(|(block, d_tap)| (*block, d_tap)).collect();
                decoder.backward(saved, &found.hidden, &d_taps, gradients);
            }
            _ => unreachable!("values come from the head they are given back to"),
        }
    }
}
