//! Every instruction set against plain arithmetic.

use super::*;

struct Everything<'a> {
    a: &'a Lanes,
    b: &'a Lanes,
    c: &'a Lanes,
    rows: [&'a [f32; 8]; 8],
}

#[derive(Debug, PartialEq)]
struct Results {
    lanes: Vec<Lanes>,
    sum: f32,
    largest: f32,
    transposed: [Lanes; 8],
}

impl Kernel for Everything<'_> {
    type Output = Results;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Results {
        let (a, b, c) = (simd.load(self.a), simd.load(self.b), simd.load(self.c));
        let shifted = simd.add(c, simd.splat(12_582_912.0));
        let lanes = [
            simd.add(a, b),
            simd.sub(a, b),
            simd.mul(a, b),
            simd.div(a, b),
            simd.max(a, b),
            simd.sqrt(simd.mul(a, a)),
            simd.mul_add(a, b, c),
            simd.select_less(a, b, c, a),
            simd.power_of_two(shifted),
            simd.round_bf16(simd.div(a, b)),
            simd.pair(a, b),
            simd.low_of_pair(simd.pair(a, b)),
            simd.high_of_pair(simd.pair(a, b)),
            simd.dot_pairs(simd.pair(a, b), simd.pair(b, c), c),
        ];
        let mut transposed = [[0.0; LANES]; 8];
        simd.transpose_8x8(&self.rows, &mut transposed, Half::Low);
        simd.transpose_8x8(&self.rows, &mut transposed, Half::High);
        Results {
            lanes: lanes.map(|v| simd.spill(v)).to_vec(),
            sum: simd.sum(a),
            largest: simd.largest(a),
            transposed,
        }
    }
}

#[test]
fn every_instruction_set_agrees_with_plain_arithmetic() {
    // Small integers, so that fused and plain multiplication agree exactly.
    let a: Lanes = std::array::from_fn(|n| n as f32 * 3.0 - 20.0);
    let b: Lanes = std::array::from_fn(|n| 7.0 - n as f32 * 2.0);
    let c: Lanes = std::array::from_fn(|n| n as f32 * 8.0 - 60.0);
    let rows: [[f32; 8]; 8] = std::array::from_fn(|n| std::array::from_fn(|m| (n * 8 + m) as f32));
    let kernel = || Everything { a: &a, b: &b, c: &c, rows: rows.each_ref() };
    let plain = kernel().run(Portable);
    assert_eq!(plain.lanes[8][0], (-60.0f32).exp2());
    assert_eq!(plain.transposed[2][5], rows[5][2]);
    assert_eq!(plain.transposed[2][8 + 5], rows[5][2]);
    assert_eq!(plain.sum, a.iter().sum::<f32>());
    assert_eq!(plain.largest, 25.0);
    assert_eq!(Isa::detect().run(kernel()), plain);
    #[cfg(target_arch = "x86_64")]
    if let Some(token) = x86::Avx2::detect() {
        assert_eq!(token.run(kernel()), plain);
    }
}

#[test]
fn parts_of_a_vector_keep_to_their_length() {
    let simd = Portable;
    let value = simd.load_part(&[1.0, 2.0, 3.0], -1.0);
    assert_eq!(value[..4], [1.0, 2.0, 3.0, -1.0]);
    let mut to = [0.0; 2];
    simd.store_part(value, &mut to);
    assert_eq!(to, [1.0, 2.0]);
}

#[test]
fn less_is_false_for_nan() {
    let nan = [f32::NAN; LANES];
    let chosen = Portable.select_less(nan, [0.0; LANES], [1.0; LANES], [2.0; LANES]);
    assert_eq!(chosen, [2.0; LANES]);
}
