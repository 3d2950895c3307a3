//! AdamW with moments in eight bits: a block at a time is brought into single precision,
//! updated as any other, and packed again.
//!
//! A buffer of moments holds the codes of all blocks, then their scales. Number `n` of a
//! block holds the codes of its elements `n`, `n + 64`, `n + 128` and `n + 192`, lowest bits
//! first, so that a vector of numbers unpacks into vectors of neighbours.

use super::{Operands, Step, advance};
use crate::cpu::Cpu;
use crate::cpu::simd::{Kernel, LANES, Simd};
use crate::moments::{BLOCK, Coding, First, NUMBERS, SMALLEST_SCALE, Second, random_bits};

/// Blocks that one thread takes at a time.
const BLOCKS_A_PIECE: usize = 32;

/// One moment's buffer.
struct Packed<'a> {
    codes: &'a mut [f32],
    scales: &'a mut [f32],
}

impl<'a> Packed<'a> {
    fn of(buffer: &'a mut [f32]) -> Self {
        let blocks = buffer.len() / (NUMBERS + 1);
        let (codes, scales) = buffer.split_at_mut(blocks * NUMBERS);
        Self { codes, scales }
    }

    fn pieces(self) -> impl Iterator<Item = Self> {
        let codes = self.codes.chunks_mut(BLOCKS_A_PIECE * NUMBERS);
        codes
            .zip(self.scales.chunks_mut(BLOCKS_A_PIECE))
            .map(|(codes, scales)| Self { codes, scales })
    }
}

pub(super) fn update(
    cpu: &Cpu,
    (parameter, gradient): (&mut [f32], &[f32]),
    (first, second): (&mut [f32], &mut [f32]),
    (step, number): (Step, u32),
) {
    const PIECE: usize = BLOCKS_A_PIECE * BLOCK;
    let values = parameter.chunks_mut(PIECE).zip(gradient.chunks(PIECE));
    let moments = Packed::of(first).pieces().zip(Packed::of(second).pieces());
    let mut updates: Vec<_> = values
        .zip(moments)
        .enumerate()
        .map(|(n, ((parameter, gradient), (first, second)))| {
            let start = (n * PIECE) as u32;
            Some(Update { parameter, gradient, first, second, step, number, start })
        })
        .collect();
    cpu.threads.each_chunk(&mut updates, 1, |_, update| {
        update.iter_mut().filter_map(Option::take).for_each(|update| cpu.isa.run(update));
    });
}

struct Update<'a> {
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    first: Packed<'a>,
    second: Packed<'a>,
    step: Step,
    /// Number of the step and of the first element, which draw the rounding.
    number: u32,
    start: u32,
}

impl Kernel for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (mut first, mut second) = ([0.0; BLOCK], [0.0; BLOCK]);
        let values = self.parameter.chunks_mut(BLOCK).zip(self.gradient.chunks(BLOCK));
        for (n, (parameter, gradient)) in values.enumerate() {
            let codes = n * NUMBERS..(n + 1) * NUMBERS;
            let first_codes = &mut self.first.codes[codes.clone()];
            let second_codes = &mut self.second.codes[codes];
            unpack::<First>(first_codes, self.first.scales[n], &mut first);
            unpack::<Second>(second_codes, self.second.scales[n], &mut second);
            let len = parameter.len();
            let moments = (&mut first[..len], &mut second[..len]);
            advance(simd, self.step, Operands { parameter, gradient, moments });
            first[len..].fill(0.0);
            second[len..].fill(0.0);
            let draw = (self.start.wrapping_add((n * BLOCK) as u32), self.number);
            self.first.scales[n] = pack::<First, _>(simd, &first, draw, first_codes);
            self.second.scales[n] = pack::<Second, _>(simd, &second, draw, second_codes);
        }
    }
}

#[inline(always)]
fn unpack<C: Coding>(codes: &[f32], scale: f32, out: &mut [f32; BLOCK]) {
    for quarter in 0..BLOCK / NUMBERS {
        let out = &mut out[quarter * NUMBERS..(quarter + 1) * NUMBERS];
        for n in 0..NUMBERS {
            out[n] = scale * C::value(codes[n].to_bits() >> (8 * quarter) & 0xff);
        }
    }
}

/// Packs a block and returns its scale; the numbers of its first element and of the step
/// draw the rounding.
#[inline(always)]
fn pack<C: Coding, S: Simd>(
    simd: S,
    values: &[f32; BLOCK],
    (start, step): (u32, u32),
    codes: &mut [f32],
) -> f32 {
    let (scale, inverse) = scale_of(simd, values);
    for n in 0..NUMBERS {
        let mut number = 0;
        for quarter in 0..BLOCK / NUMBERS {
            let at = quarter * NUMBERS + n;
            let random = random_bits(start.wrapping_add(at as u32), step);
            number |= C::code(values[at] * inverse, random) << (8 * quarter);
        }
        codes[n] = f32::from_bits(number);
    }
    scale
}

/// Largest magnitude of a block and its inverse; zeros where it is next to nothing.
#[inline(always)]
fn scale_of<S: Simd>(simd: S, values: &[f32; BLOCK]) -> (f32, f32) {
    let zero = simd.splat(0.0);
    let mut largest = zero;
    for lanes in values.chunks_exact(LANES) {
        let x = simd.load_part(lanes, 0.0);
        largest = simd.max(largest, simd.max(x, simd.sub(zero, x)));
    }
    let largest = simd.largest(largest);
    if largest < SMALLEST_SCALE { (0.0, 0.0) } else { (largest, 1.0 / largest) }
}
