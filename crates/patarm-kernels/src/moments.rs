//! Forms in which AdamW's moments are kept.
//!
//! In eight bits, each block of [`BLOCK`] elements has a scale, its largest magnitude, and
//! each element a small floating-point number relative to it (block-wise quantisation of
//! optimiser states: Dettmers et al., arXiv 2110.02861, section 2; the codes here are our
//! own, a few bits of exponent and three of mantissa in place of their table).
//!
//! A moment moves by a few per cent a step, less than the distance of two codes, so that
//! rounding to the nearest would hold it where it is. It is rounded up or down by chance
//! instead, such that the mean is right; the draw is a function of element and step, so
//! that a run repeats itself on any device.

/// Elements that share a scale.
pub const BLOCK: usize = 256;
/// Codes in a number of the buffer.
const CODES_IN_A_NUMBER: usize = 4;
/// Numbers of a buffer that hold the codes of a block.
pub(crate) const NUMBERS: usize = BLOCK / CODES_IN_A_NUMBER;

/// How the two moments of a parameter are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Moments {
    /// A number in single precision each.
    #[default]
    Single,
    /// A byte each, and a scale for every 256.
    EightBits,
}

impl Moments {
    /// Length of the buffer of one moment of `elements` elements. Zeros are the state before
    /// the first step in both forms.
    #[must_use]
    pub fn buffer_len(self, elements: usize) -> usize {
        match self {
            Self::Single => elements,
            Self::EightBits => elements.div_ceil(BLOCK) * (NUMBERS + 1),
        }
    }
}

/// Bits of a single-precision mantissa that a code drops.
const DROPPED_BITS: u32 = 20;
/// What the remaining bits of 2⁻¹⁵, the smallest of the first moment's 15 octaves, are:
/// codes count from there. One bit is its sign.
const FIRST_BASE: u32 = (127 - 15) << 3;
/// The same of 2⁻³¹, for the second moment: it is squares that are counted.
const SECOND_BASE: u32 = (127 - 31) << 3;
/// The bit of a first moment's code that is its sign.
const SIGN: u32 = 0x80;
/// Blocks whose largest magnitude is below this are zero: its inverse would not be finite.
pub(crate) const SMALLEST_SCALE: f32 = 1e-36;

/// Random bits of an element at a step (the integer hash lowbias32 of C. Wellons, "Prospecting
/// for hash functions", 2018): the lowest 20 round the first moment, the highest the second.
#[inline(always)]
pub(crate) fn random_bits(element: u32, step: u32) -> u32 {
    let mut x = element.wrapping_mul(0x9e37_79b9).wrapping_add(step.wrapping_mul(0x85eb_ca6b));
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// `magnitude`, at most 1, as the exponent and mantissa bits that are kept; `random` is
/// below 2²⁰.
#[inline(always)]
fn kept_bits(magnitude: f32, random: u32) -> u32 {
    // A product with an inverse may end a little above 1.
    (magnitude.min(1.0).to_bits() + random) >> DROPPED_BITS
}

/// How a moment relative to its block's scale becomes a code and comes back.
pub(crate) trait Coding {
    /// The code of a value between -1 and 1, rounded by [`random_bits`].
    fn code(relative: f32, random: u32) -> u32;

    /// The value of a code.
    fn value(code: u32) -> f32;
}

/// Codes of first moments; what is too small is zero.
pub(crate) struct First;

impl Coding for First {
    #[inline(always)]
    fn code(relative: f32, random: u32) -> u32 {
        let kept = kept_bits(relative.abs(), random & ((1 << DROPPED_BITS) - 1));
        kept.saturating_sub(FIRST_BASE) | (relative.to_bits() >> 24 & SIGN)
    }

    #[inline(always)]
    fn value(code: u32) -> f32 {
        let magnitude = code & (SIGN - 1);
        let bits = (magnitude + FIRST_BASE) << DROPPED_BITS | (code & SIGN) << 24;
        if magnitude == 0 { 0.0 } else { f32::from_bits(bits) }
    }
}

/// Codes of second moments, which are not negative. What is too small is raised: a divisor of
/// zero would make a step of any size.
pub(crate) struct Second;

impl Coding for Second {
    #[inline(always)]
    fn code(relative: f32, random: u32) -> u32 {
        kept_bits(relative, random >> (32 - DROPPED_BITS)).saturating_sub(SECOND_BASE).max(1)
    }

    #[inline(always)]
    fn value(code: u32) -> f32 {
        f32::from_bits((code + SECOND_BASE) << DROPPED_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws() -> impl Iterator<Item = u32> {
        (0..4_000).map(|element| random_bits(element, 7))
    }

    #[test]
    fn codes_keep_an_eighth_and_are_right_in_the_mean() {
        for value in [1.0f32, 0.9999, 0.731, 0.5, 0.0123, 4e-4] {
            let (mut first, mut second) = (0.0, 0.0);
            for random in draws() {
                let one = First::value(First::code(-value, random));
                let other = Second::value(Second::code(value, random));
                assert!((one / -value - 1.0).abs() <= 0.125, "{value} became {one}");
                assert!((other / value - 1.0).abs() <= 0.125, "{value} became {other}");
                first += f64::from(one);
                second += f64::from(other);
            }
            for (mean, expected) in [(first, -value), (second, value)] {
                let mean = mean / 4_000.0;
                assert!((mean / f64::from(expected) - 1.0).abs() < 0.003, "{expected}: {mean}");
            }
        }
    }

    #[test]
    fn the_smallest_first_moments_are_zero_and_the_smallest_second_ones_are_not() {
        for random in draws() {
            assert_eq!(First::value(First::code(1e-5, random)), 0.0);
            assert_eq!(First::value(First::code(0.0, random)), 0.0);
            for tiny in [0.0, 1e-12] {
                let raised = Second::value(Second::code(tiny, random));
                assert!(raised > 0.0 && raised < 1e-9, "{raised}");
            }
        }
        assert_eq!(First::value(0), 0.0);
    }

    #[test]
    fn every_code_fits_a_byte_and_comes_back() {
        for code in 0..=255 {
            let (first, second) = (First::value(code), Second::value(code));
            if code & 127 <= 120 {
                assert_eq!(First::value(First::code(first, 0)), first, "{code}");
            }
            if (1..=248).contains(&code) {
                assert_eq!(Second::code(second, 0), code);
            }
        }
        let largest = First::code(-1.0, u32::MAX).max(Second::code(1.0, u32::MAX));
        assert!(largest < 256, "{largest}");
    }

    #[test]
    fn buffers_have_room_for_whole_blocks() {
        assert_eq!(Moments::Single.buffer_len(1_000), 1_000);
        assert_eq!(Moments::EightBits.buffer_len(1_000), 4 * 65);
        assert_eq!(Moments::EightBits.buffer_len(0), 0);
    }
}
