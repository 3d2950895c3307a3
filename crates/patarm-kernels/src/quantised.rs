//! A matrix of small integers, as a quantised file holds it or rounded from numbers.

use half::f16;

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

/// Values of a block of an [`EightBitMatrix`].
const BLOCK: usize = 32;
/// Largest magnitude of a rounded value: a signed byte but for −128, so that a value
/// and its negative are rounded alike.
const LARGEST: f32 = 127.0;
/// What the stored bytes count from.
const CENTRE: u8 = 128;

/// A matrix rounded to signed bytes, `scale · i` with a scale for every block of 32
/// neighbours in a row: the form of GGUF's `Q8_0`, scales in half precision.
#[derive(Clone, Debug, PartialEq)]
pub struct EightBitMatrix {
    rows: usize,
    columns: usize,
    integers: Vec<u8>,
    scales: Vec<f32>,
}

impl EightBitMatrix {
    /// Rounds the values of `[rows, columns]` to the nearest; none where a row is not
    /// made of whole blocks.
    ///
    /// # Panics
    /// When there are not `rows · columns` values.
    #[must_use]
    pub fn round(values: &[f32], rows: usize, columns: usize) -> Option<Self> {
        assert_eq!(values.len(), rows * columns, "a matrix has all its values");
        if rows == 0 || columns == 0 || !columns.is_multiple_of(BLOCK) {
            return None;
        }
        let blocks = values.as_chunks::<BLOCK>().0;
        let scales: Vec<f32> = blocks.iter().map(scale).collect();
        let mut integers = Vec::with_capacity(values.len());
        for (block, &scale) in blocks.iter().zip(&scales) {
            integers.extend(block.iter().map(|&value| integer(value, scale)));
        }
        Some(Self { rows, columns, integers, scales })
    }

    /// The parts of the matrix.
    #[must_use]
    pub fn matrix(&self) -> QuantisedMatrix<'_> {
        QuantisedMatrix {
            rows: self.rows,
            columns: self.columns,
            block: BLOCK,
            integers: &self.integers,
            scales: &self.scales,
            offsets: Offsets::Centre(CENTRE),
        }
    }
}

/// The block's largest magnitude over [`LARGEST`]. That of a block with a value that is
/// not finite is not a number, and so are the block's products.
fn scale(block: &[f32; BLOCK]) -> f32 {
    match block.iter().all(|value| value.is_finite()) {
        true => nearest_half(block.iter().fold(0.0, |m: f32, value| m.max(value.abs())) / LARGEST),
        false => f32::NAN,
    }
}

/// The value rounded to half precision; itself where that has no finite number so large.
fn nearest_half(value: f32) -> f32 {
    let half = f16::from_f32(value);
    if half.is_finite() { half.to_f32() } else { value }
}

fn integer(value: f32, scale: f32) -> u8 {
    let steps = if scale > 0.0 { (value / scale).round_ties_even() } else { 0.0 };
    (f32::from(CENTRE) + steps.clamp(-LARGEST, LARGEST)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    fn value(matrix: &EightBitMatrix, n: usize) -> f32 {
        matrix.scales[n / BLOCK] * (f32::from(matrix.integers[n]) - f32::from(CENTRE))
    }

    #[test]
    fn values_are_rounded_by_half_a_step_at_most() {
        // Blocks of very different sizes, down to scales that half precision holds badly.
        let size = |n: usize| 10.0_f32.powi(2 - (n / BLOCK) as i32 % 9);
        let each = (0..20 * 64).map(|n| size(n) * random::normal(5, &[n as u64]) as f32);
        let values: Vec<f32> = each.collect();
        let rounded = EightBitMatrix::round(&values, 20, 64).expect("whole blocks");
        for (block, scale) in values.as_chunks::<BLOCK>().0.iter().zip(&rounded.scales) {
            let largest = block.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            // Half precision has steps of 2⁻¹¹ of a number, of 2⁻²⁵ at least.
            let off = (scale - largest / LARGEST).abs();
            assert!(off <= (largest / LARGEST / 2048.0).max(2.0_f32.powi(-25)), "{off}");
        }
        for (n, &x) in values.iter().enumerate() {
            let scale = rounded.scales[n / BLOCK];
            // The largest may lie beyond the last step by what its scale was rounded by.
            let bound = 0.501 * scale + LARGEST * 2.0_f32.powi(-25) + x.abs() / 2048.0;
            assert!((value(&rounded, n) - x).abs() <= bound, "{x} {}", value(&rounded, n));
        }
    }

    #[test]
    fn rounding_keeps_signs_zeros_and_what_is_rounded_already() {
        let steps: Vec<f32> = (0..64).map(|n| 0.25 * ((n % 32) as f32 * 8.0 - 127.0)).collect();
        let rounded = EightBitMatrix::round(&steps, 1, 64).expect("whole blocks");
        assert!((0..64).all(|n| value(&rounded, n) == steps[n]), "{rounded:?}");
        let negated: Vec<f32> = steps.iter().map(|x| -x).collect();
        let turned = EightBitMatrix::round(&negated, 1, 64).expect("whole blocks");
        assert!((0..64).all(|n| value(&turned, n) == negated[n]), "{turned:?}");
        let zeros = EightBitMatrix::round(&[0.0; 32], 1, 32).expect("whole blocks");
        assert!((0..32).all(|n| value(&zeros, n) == 0.0));
    }

    #[test]
    fn what_is_not_finite_stays_so_and_parts_of_blocks_are_refused() {
        let mut values = [1.0; 64];
        values[40] = f32::INFINITY;
        let rounded = EightBitMatrix::round(&values, 2, 32).expect("whole blocks");
        assert!((value(&rounded, 3) - 1.0).abs() < 1e-3 && value(&rounded, 33).is_nan());
        assert_eq!(EightBitMatrix::round(&values, 4, 16), None);
        let large = EightBitMatrix::round(&[1e9; 32], 1, 32).expect("whole blocks");
        assert!((value(&large, 0) / 1e9 - 1.0).abs() < 1e-6);
    }
}
