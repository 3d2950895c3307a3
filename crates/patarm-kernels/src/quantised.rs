//! A matrix of small integers, as a quantised file holds it.

/// A matrix `[rows, columns]` whose values are `scale · (q − centre)` or
/// `scale · q + offset`: an integer `q` each, and a scale (and offset) for every
/// block of neighbours in a row.
///
/// # Shapes
/// `integers`: `[rows, columns]`; `scales` and offsets: `[rows, columns / block]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantisedMatrix<'a> {
    /// Rows: outputs of a linear map.
    pub rows: usize,
    /// Columns: inputs of a linear map; whole blocks.
    pub columns: usize,
    /// Values of a block, 16 or 32.
    pub block: usize,
    /// The integers.
    pub integers: &'a [u8],
    /// The scale of every block.
    pub scales: &'a [f32],
    /// What the integers count from.
    pub offsets: Offsets<'a>,
}

/// What the integers of a quantised matrix count from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Offsets<'a> {
    /// `scale · (q − centre)` everywhere.
    Centre(u8),
    /// `scale · q + offset`, an offset for every block.
    Each(&'a [f32]),
}

impl QuantisedMatrix<'_> {
    /// # Panics
    /// When a slice does not have the size that the others say.
    pub(crate) fn check(&self) {
        assert!(matches!(self.block, 16 | 32), "a block has 16 or 32 values");
        assert!(self.rows > 0 && self.columns > 0, "a quantised matrix has values");
        assert!(self.columns.is_multiple_of(self.block), "a row has whole blocks");
        assert_eq!(self.integers.len(), self.rows * self.columns, "an integer for every value");
        let blocks = self.integers.len() / self.block;
        assert_eq!(self.scales.len(), blocks, "a scale for every block");
        if let Offsets::Each(offsets) = self.offsets {
            assert_eq!(offsets.len(), blocks, "an offset for every block");
        }
    }
}
