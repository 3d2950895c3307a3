//! The integers, scales and offsets of quantised tensors, as they are stored.
//!
//! Formulas and places of bits are those of [`super::quant`], whose values
//! `scale · (q − centre)` and `scale · q + offset` are, bit for bit.

use super::quant::{half_at, q4_k_scale};
use super::{BlockFormat, TensorType};

/// A matrix of small integers with a scale (and offset) for every block of
/// neighbours in a row.
///
/// # Shapes
/// `integers`: `[rows, columns]`; `scales` and offsets: `[rows, columns / block]`.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantisedTensor {
    /// `[rows, columns]`.
    pub shape: [usize; 2],
    /// Values of a block.
    pub block: usize,
    /// The integers.
    pub integers: Vec<u8>,
    /// The scale of every block.
    pub scales: Vec<f32>,
    /// What the integers count from.
    pub offsets: BlockOffsets,
}

/// What the integers of a quantised tensor count from.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockOffsets {
    /// A value is `scale · (q − centre)`.
    Centre(u8),
    /// A value is `scale · q + offset`, an offset for every block.
    Each(Vec<f32>),
}

impl QuantisedTensor {
    /// The values, row-major; for the reference and for tests.
    pub fn values(&self) -> Vec<f32> {
        let value = |(n, &q): (usize, &u8)| {
            let (block, q) = (n / self.block, f32::from(q));
            match &self.offsets {
                BlockOffsets::Centre(centre) => self.scales[block] * (q - f32::from(*centre)),
                BlockOffsets::Each(offsets) => self.scales[block] * q + offsets[block],
            }
        };
        self.integers.iter().enumerate().map(value).collect()
    }
}

/// Where the parts of one stored block are written.
struct Parts<'a> {
    integers: &'a mut [u8],
    scales: &'a mut [f32],
    offsets: &'a mut [f32],
}

/// How a stored block splits into parts.
struct Split {
    /// Values that share a scale.
    block: usize,
    /// `None`: every block has an offset.
    centre: Option<u8>,
    write: fn(&[u8], &mut Parts<'_>),
}

fn split(tensor_type: TensorType) -> Option<Split> {
    let centred = |block, centre, write| Some(Split { block, centre: Some(centre), write });
    let shifted = |block, write| Some(Split { block, centre: None, write });
    match tensor_type {
        TensorType::Q4_0 => centred(32, 8, q4_0),
        TensorType::Q4_1 => shifted(32, q4_1),
        TensorType::Q5_0 => centred(32, 16, q5_0),
        TensorType::Q8_0 => centred(32, 128, q8_0),
        TensorType::Q4K => shifted(32, q4_k),
        TensorType::Q6K => centred(16, 32, q6_k),
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::Other(_) => None,
    }
}

/// The parts of whole stored blocks; none where the type has none.
pub(super) fn read(
    tensor_type: TensorType,
    format: BlockFormat,
    (shape, bytes): ([usize; 2], &[u8]),
) -> Option<QuantisedTensor> {
    let Split { block, centre, write } = split(tensor_type)?;
    let len = shape[0].checked_mul(shape[1])?;
    let mut integers = vec![0; len];
    let mut scales = vec![0.0; len / block];
    let mut offsets = vec![0.0; if centre.is_none() { len / block } else { 0 }];
    let each = format.values / block;
    for (n, bytes) in bytes.chunks_exact(format.bytes).enumerate() {
        let numbers = n * each..(n + 1) * each;
        let mut parts = Parts {
            integers: &mut integers[n * format.values..][..format.values],
            scales: &mut scales[numbers.clone()],
            offsets: offsets.get_mut(numbers).unwrap_or_default(),
        };
        write(bytes, &mut parts);
    }
    let offsets = centre.map_or(BlockOffsets::Each(offsets), BlockOffsets::Centre);
    Some(QuantisedTensor { shape, block, integers, scales, offsets })
}

/// Sixteen bytes: the low halves are values 0–15, the high ones 16–31.
fn nibbles(bytes: &[u8], integers: &mut [u8]) {
    let (low, high) = integers.split_at_mut(16);
    for (byte, (low, high)) in bytes.iter().zip(low.iter_mut().zip(high)) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

fn q4_0(bytes: &[u8], parts: &mut Parts<'_>) {
    parts.scales[0] = half_at(bytes, 0);
    nibbles(&bytes[2..], parts.integers);
}

fn q4_1(bytes: &[u8], parts: &mut Parts<'_>) {
    parts.scales[0] = half_at(bytes, 0);
    parts.offsets[0] = half_at(bytes, 2);
    nibbles(&bytes[4..], parts.integers);
}

fn q5_0(bytes: &[u8], parts: &mut Parts<'_>) {
    parts.scales[0] = half_at(bytes, 0);
    nibbles(&bytes[6..], parts.integers);
    for (n, q) in parts.integers.iter_mut().enumerate() {
        *q |= (bytes[2 + n / 8] >> (n % 8) & 1) << 4;
    }
}

/// Signed bytes count from 128 once their top bit is turned.
fn q8_0(bytes: &[u8], parts: &mut Parts<'_>) {
    parts.scales[0] = half_at(bytes, 0);
    for (q, byte) in parts.integers.iter_mut().zip(&bytes[2..]) {
        *q = byte ^ 0x80;
    }
}

fn q4_k(bytes: &[u8], parts: &mut Parts<'_>) {
    let (d, d_min) = (half_at(bytes, 0), half_at(bytes, 2));
    let mut packed = [0; 12];
    packed.copy_from_slice(&bytes[4..16]);
    for (j, integers) in parts.integers.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = q4_k_scale(&packed, j);
        parts.scales[j] = d * f32::from(scale);
        parts.offsets[j] = -(d_min * f32::from(minimum));
        for (q, byte) in integers.iter_mut().zip(&bytes[16 + 32 * (j / 2)..]) {
            *q = byte >> (4 * (j % 2)) & 15;
        }
    }
}

fn q6_k(bytes: &[u8], parts: &mut Parts<'_>) {
    let d = half_at(bytes, 208);
    for (scale, byte) in parts.scales.iter_mut().zip(&bytes[192..208]) {
        *scale = d * f32::from(*byte as i8);
    }
    for (place, integers) in parts.integers.chunks_exact_mut(32).enumerate() {
        let (n, run) = (place / 4, place % 4);
        for (l, q) in integers.iter_mut().enumerate() {
            let low = bytes[64 * n + 32 * (run % 2) + l] >> (4 * (run / 2)) & 15;
            let high = bytes[128 + 32 * n + l] >> (2 * run) & 3;
            *q = low | high << 4;
        }
    }
}
