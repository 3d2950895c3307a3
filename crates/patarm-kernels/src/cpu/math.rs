//! The exponential and what is built on it, sixteen lanes at a time.

use super::simd::Simd;

/// Below this, `eˣ` is less than the smallest normal number and flushed to zero.
const UNDERFLOW: f32 = -87.336_54;
/// From here on, `eˣ` is infinite (the true overflow begins 0.35 later).
const OVERFLOW: f32 = 88.376_26;
/// Adding this to a small number leaves its nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0;
/// High part of ln 2 with so few bits that its product with an exponent is exact.
const LN_2_HIGH: f32 = 355.0 / 512.0;
/// The rest of ln 2.
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `eˣ` to about one unit in the last place; NaN stays NaN, `-∞` gives 0.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; the Taylor polynomial of degree 7
/// leaves `r⁸ / 8! < 6e-9` of `eʳ`, a tenth of a unit.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    let splat = |value: f32| simd.splat(value);
    let (low, high) = (splat(UNDERFLOW), splat(OVERFLOW));
    // Beyond the overflow any argument that rounds to the exponent 128 will do.
    let bounded = simd.select_less(x, low, low, x);
    let bounded = simd.select_less(high, bounded, splat(89.0), bounded);

    let shifted = simd.mul_add(bounded, splat(std::f32::consts::LOG2_E), splat(ROUND));
    let n = simd.sub(shifted, splat(ROUND));
    let r = simd.mul_add(n, splat(-LN_2_HIGH), bounded);
    let r = simd.mul_add(n, splat(-LN_2_LOW), r);

    let mut sum = splat(1.0 / 5040.0);
    sum = simd.mul_add(sum, r, splat(1.0 / 720.0));
    sum = simd.mul_add(sum, r, splat(1.0 / 120.0));
    sum = simd.mul_add(sum, r, splat(1.0 / 24.0));
    sum = simd.mul_add(sum, r, splat(1.0 / 6.0));
    sum = simd.mul_add(sum, r, splat(0.5));
    sum = simd.mul_add(sum, r, splat(1.0));
    sum = simd.mul_add(sum, r, splat(1.0));
    let value = simd.mul(sum, simd.power_of_two(shifted));
    simd.select_less(x, low, splat(0.0), value)
}

/// The logistic function `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, x: S::V) -> S::V {
    let one = simd.splat(1.0);
    let exponential = exp(simd, simd.sub(simd.splat(0.0), x));
    simd.div(one, simd.add(one, exponential))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::{Isa, Kernel, LANES, Portable};

    struct Exp<'a>(&'a mut [f32]);

    impl Kernel for Exp<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            for x in self.0.chunks_mut(LANES) {
                let value = exp(simd, simd.load_part(x, 0.0));
                simd.store_part(value, x);
            }
        }
    }

    fn units_in_the_last_place(value: f32, exact: f64) -> f64 {
        let unit = f64::from((exact as f32).next_up()) - f64::from(exact as f32);
        (f64::from(value) - exact).abs() / unit
    }

    #[test]
    fn exp_is_exact_to_two_units_in_the_last_place() {
        for isa in [Isa::Portable, Isa::detect()] {
            let x: Vec<f32> = (0..350_000).map(|n| -87.3 + n as f32 * 0.0005).collect();
            let mut value = x.clone();
            isa.run(Exp(&mut value));
            let worst = x
                .iter()
                .zip(&value)
                .map(|(&x, &value)| units_in_the_last_place(value, f64::from(x).exp()))
                .fold(0.0, f64::max);
            assert!(worst < 2.0, "{isa:?}: {worst} units");
        }
    }

    #[test]
    fn exp_at_the_ends_of_the_range() {
        for isa in [Isa::Portable, Isa::detect()] {
            let mut value =
                [f32::NEG_INFINITY, -1e30, -88.0, 0.0, 89.0, 1e30, f32::INFINITY, f32::NAN];
            isa.run(Exp(&mut value));
            assert_eq!(value[..4], [0.0, 0.0, 0.0, 1.0]);
            assert_eq!(value[4..7], [f32::INFINITY; 3]);
            assert!(value[7].is_nan());
        }
    }

    #[test]
    fn sigmoid_saturates_without_nan() {
        let mut x = [0.0; LANES];
        x[..3].copy_from_slice(&[0.0, -200.0, 200.0]);
        let value = sigmoid(Portable, x);
        assert_eq!(value[..3], [0.5, 0.0, 1.0]);
    }
}
