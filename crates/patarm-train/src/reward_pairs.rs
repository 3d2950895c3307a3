//! Comparisons as two encoded items, for losses on the two rewards of a pair.

use patarm_reward::scalar::EncodedItem;
use patarm_text::{Comparison, Item};

use crate::error::Error;

/// A labelled pair as tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedRewardPair {
    /// The preferred and the other item.
    pub sides: [EncodedItem; 2],
    /// How strongly, where the data says.
    pub strength: Option<f64>,
}

impl EncodedRewardPair {
    /// Encodes a comparison; `None` for ties and unlabelled ones.
    ///
    /// # Errors
    /// When a side cannot be encoded, such as an empty one; the sentence names the
    /// comparison.
    pub fn new(
        comparison: &Comparison,
        encode: &dyn Fn(&Item) -> patarm_reward::Result<EncodedItem>,
    ) -> Result<Option<Self>, Error> {
        match comparison.chosen_rejected() {
            Some((chosen, rejected)) => {
                Self::of_sides(comparison, (chosen, rejected), encode).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Encodes two sides of a comparison, whatever its label.
    ///
    /// # Errors
    /// As [`EncodedRewardPair::new`].
    pub fn of_sides(
        comparison: &Comparison,
        (first, second): (&Item, &Item),
        encode: &dyn Fn(&Item) -> patarm_reward::Result<EncodedItem>,
    ) -> Result<Self, Error> {
        let side = |item: &Item, which: &str| {
            encode(item).map_err(|error| {
                Error::Data(format!("comparison {}, {which} side: {error}", comparison.id))
            })
        };
        let sides = [side(first, "preferred")?, side(second, "other")?];
        Ok(Self { sides, strength: comparison.strength })
    }

    /// Encodes every labelled comparison; those that cannot be encoded are left out, with
    /// the sentence that says why.
    #[must_use]
    pub fn all(
        comparisons: &[Comparison],
        encode: &dyn Fn(&Item) -> patarm_reward::Result<EncodedItem>,
    ) -> (Vec<Self>, Vec<String>) {
        let (mut pairs, mut left_out) = (Vec::with_capacity(comparisons.len()), Vec::new());
        for comparison in comparisons {
            match Self::new(comparison, encode) {
                Ok(pair) => pairs.extend(pair),
                Err(error) => left_out.push(error.to_string()),
            }
        }
        (pairs, left_out)
    }

    /// Tokens a forest computes for the pair alone.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        let [chosen, rejected] = &self.sides;
        let shared = if chosen.prompt == rejected.prompt { chosen.prompt.len() } else { 0 };
        chosen.len() + rejected.len() - shared
    }
}
