//! The stored types of GGUF tensors and how their blocks become `f32`.
//!
//! Every block holds a fixed number of values in a fixed number of bytes.
//! Formulas: the public definitions of the ggml project; `d` is the block's
//! scale, `m` its minimum, `q` the small integer of a value.

use std::fmt;

use half::{bf16, f16};

/// The types that can be read, for error sentences.
pub(super) const SUPPORTED: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q8_0, Q4_K and Q6_K";

/// How the values of a GGUF tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TensorType {
    /// 32-bit floating point.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an `f32`.
    Bf16,
    /// 32 values in 18 bytes, `d · (q − 8)`.
    Q4_0,
    /// 32 values in 20 bytes, `d · q + m`.
    Q4_1,
    /// 32 values in 22 bytes, `d · (q − 16)`.
    Q5_0,
    /// 32 values in 34 bytes, `d · q`.
    Q8_0,
    /// 256 values in 144 bytes, eight sub-blocks with 6-bit scales and minima.
    Q4K,
    /// 256 values in 210 bytes, sixteen sub-blocks with 8-bit scales.
    Q6K,
    /// A type that cannot be read here, by its number.
    Other(u32),
}

/// One stored type: values and bytes of a block, and the function that turns
/// whole blocks into values. Both slices given to `decode` hold as many blocks.
#[derive(Clone, Copy)]
pub(super) struct BlockFormat {
    pub(super) values: usize,
    pub(super) bytes: usize,
    pub(super) decode: fn(&[u8], &mut [f32]),
}

impl TensorType {
    /// The type with this number in the format.
    pub fn from_id(id: u32) -> Self {
        match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            other => Self::Other(other),
        }
    }

    /// The number of this type in the format.
    pub fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q6K => 14,
            Self::Bf16 => 30,
            Self::Other(id) => id,
        }
    }

    /// The block of this type; none when the type cannot be read.
    pub(super) fn block_format(self) -> Option<BlockFormat> {
        let format = |values, bytes, decode| Some(BlockFormat { values, bytes, decode });
        match self {
            Self::F32 => format(1, 4, |b, v| blocks(b, v, f32_block)),
            Self::F16 => format(1, 2, |b, v| blocks(b, v, f16_block)),
            Self::Bf16 => format(1, 2, |b, v| blocks(b, v, bf16_block)),
            Self::Q4_0 => format(32, 18, |b, v| blocks(b, v, q4_0_block)),
            Self::Q4_1 => format(32, 20, |b, v| blocks(b, v, q4_1_block)),
            Self::Q5_0 => format(32, 22, |b, v| blocks(b, v, q5_0_block)),
            Self::Q8_0 => format(32, 34, |b, v| blocks(b, v, q8_0_block)),
            Self::Q4K => format(256, 144, |b, v| blocks(b, v, q4_k_block)),
            Self::Q6K => format(256, 210, |b, v| blocks(b, v, q6_k_block)),
            Self::Other(_) => None,
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.id() {
            0 => "F32",
            1 => "F16",
            2 => "Q4_0",
            3 => "Q4_1",
            6 => "Q5_0",
            7 => "Q5_1",
            8 => "Q8_0",
            9 => "Q8_1",
            10 => "Q2_K",
            11 => "Q3_K",
            12 => "Q4_K",
            13 => "Q5_K",
            14 => "Q6_K",
            15 => "Q8_K",
            16 => "IQ2_XXS",
            17 => "IQ2_XS",
            18 => "IQ3_XXS",
            19 => "IQ1_S",
            20 => "IQ4_NL",
            21 => "IQ3_S",
            22 => "IQ2_S",
            23 => "IQ4_XS",
            24 => "I8",
            25 => "I16",
            26 => "I32",
            27 => "I64",
            28 => "F64",
            29 => "IQ1_M",
            30 => "BF16",
            34 => "TQ1_0",
            35 => "TQ2_0",
            39 => "MXFP4",
            unknown => return write!(f, "number {unknown}"),
        };
        f.write_str(name)
    }
}

/// Applies `decode` to every block of `BYTES` bytes and `VALUES` values.
fn blocks<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    values: &mut [f32],
    decode: fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (outputs, _) = values.as_chunks_mut::<VALUES>();
    for (block, output) in blocks.iter().zip(outputs) {
        decode(block, output);
    }
}

fn f32_block(block: &[u8; 4], out: &mut [f32; 1]) {
    out[0] = f32::from_le_bytes(*block);
}

fn f16_block(block: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = f16::from_le_bytes(*block).to_f32();
}

fn bf16_block(block: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = bf16::from_le_bytes(*block).to_f32();
}

/// The half-precision number at `start`.
pub(super) fn half_at(block: &[u8], start: usize) -> f32 {
    f16::from_le_bytes([block[start], block[start + 1]]).to_f32()
}

/// `d`, then 16 bytes: values 0–15 in the low halves, 16–31 in the high halves.
fn q4_0_block(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for i in 0..16 {
        let pair = block[2 + i];
        out[i] = d * (f32::from(pair & 15) - 8.0);
        out[i + 16] = d * (f32::from(pair >> 4) - 8.0);
    }
}

/// `d`, `m`, then 16 bytes ordered as in Q4_0.
fn q4_1_block(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for i in 0..16 {
        let pair = block[4 + i];
        out[i] = d * f32::from(pair & 15) + m;
        out[i + 16] = d * f32::from(pair >> 4) + m;
    }
}

/// `d`, 32 bits that are bit 4 of the values, then 16 bytes ordered as in Q4_0.
fn q5_0_block(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    let fifth_bits = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    let fifth = |i: usize| ((fifth_bits >> i & 1) << 4) as u8;
    for i in 0..16 {
        let pair = block[6 + i];
        out[i] = d * (f32::from(pair & 15 | fifth(i)) - 16.0);
        out[i + 16] = d * (f32::from(pair >> 4 | fifth(i + 16)) - 16.0);
    }
}

/// `d`, then 32 signed bytes.
fn q8_0_block(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for i in 0..32 {
        out[i] = d * f32::from(block[2 + i] as i8);
    }
}

/// The 6-bit scale and minimum of sub-block `j` from the 12 packed bytes.
pub(super) fn q4_k_scale(packed: &[u8; 12], j: usize) -> (u8, u8) {
    if j < 4 {
        return (packed[j] & 63, packed[j + 4] & 63);
    }
    let scale = packed[j + 4] & 15 | (packed[j - 4] >> 6) << 4;
    let minimum = packed[j + 4] >> 4 | (packed[j] >> 6) << 4;
    (scale, minimum)
}

/// `d`, `d_min`, 12 bytes of scales, 128 bytes of values. Sub-block `j` of 32
/// values lies in bytes `32·(j/2)` onwards, low halves for even `j`, high for odd:
/// `d · scale_j · q − d_min · minimum_j`.
fn q4_k_block(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, d_min) = (half_at(block, 0), half_at(block, 2));
    let mut packed = [0; 12];
    packed.copy_from_slice(&block[4..16]);
    for j in 0..8 {
        let (scale, minimum) = q4_k_scale(&packed, j);
        let (step, offset) = (d * f32::from(scale), d_min * f32::from(minimum));
        let shift = 4 * (j % 2);
        for i in 0..32 {
            let q = block[16 + 32 * (j / 2) + i] >> shift & 15;
            out[32 * j + i] = step * f32::from(q) - offset;
        }
    }
}

/// 128 bytes of low 4 bits, 64 bytes of high 2 bits, 16 signed scales, `d`.
/// Each half of the block is four runs of 32 values: runs 0 and 1 take low
/// halves of two stretches of 32 bytes, runs 2 and 3 their high halves; run `r`
/// takes bits `2r, 2r + 1` of the shared high byte. `d · scale · (q − 32)`.
fn q6_k_block(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at(block, 208);
    for n in 0..2 {
        for run in 0..4 {
            for l in 0..32 {
                let low_byte = block[64 * n + 32 * (run % 2) + l];
                let low = low_byte >> (4 * (run / 2)) & 15;
                let high = block[128 + 32 * n + l] >> (2 * run) & 3;
                let scale = block[192 + 8 * n + 2 * run + l / 16] as i8;
                let q = f32::from(low | high << 4) - 32.0;
                out[128 * n + 32 * run + l] = d * f32::from(scale) * q;
            }
        }
    }
}
