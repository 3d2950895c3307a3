//! Every stored type against values worked out by hand from its definition.

use half::{bf16, f16};

use super::parse;
use crate::gguf::TensorType;
use crate::gguf_writer::GgufWriter;

/// Reads `bytes` as one row of `len` values of the given type.
fn decode(tensor_type: TensorType, len: usize, bytes: Vec<u8>) -> Vec<f32> {
    let mut writer = GgufWriter::new();
    writer.tensor_bytes("t", &[1, len], tensor_type, bytes);
    parse(writer.to_bytes()).unwrap().dequantise("t").unwrap()
}

fn half_bytes(value: f32) -> [u8; 2] {
    f16::from_f32(value).to_le_bytes()
}

#[test]
fn floats() {
    let numbers = [1.5_f32, -0.25, 3.0e4];
    let f32_bytes = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(decode(TensorType::F32, 3, f32_bytes), numbers);
    let f16_bytes = numbers.iter().flat_map(|v| half_bytes(*v)).collect();
    assert_eq!(decode(TensorType::F16, 3, f16_bytes), numbers);
    // 3.0e4 needs more than the 8 significant bits of BF16; 29952 is the nearest.
    let bf16_bytes = numbers.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
    assert_eq!(decode(TensorType::Bf16, 3, bf16_bytes), [1.5, -0.25, 29952.0]);
}

#[test]
fn q4_0_is_scaled_and_centred_on_8() {
    let mut bytes = half_bytes(0.5).to_vec();
    // Value i is i in the low half, value i + 16 is 15 − i in the high half.
    bytes.extend((0..16_u8).map(|i| i | (15 - i) << 4));
    let values = decode(TensorType::Q4_0, 32, bytes);
    assert_eq!(values[0], -4.0);
    assert_eq!(values[15], 3.5);
    assert_eq!(values[16], 3.5);
    assert_eq!(values[31], -4.0);
    assert_eq!(values[9], 0.5);
}

#[test]
fn q4_1_is_scaled_and_shifted() {
    let mut bytes = half_bytes(0.25).to_vec();
    bytes.extend(half_bytes(-2.0));
    bytes.extend((0..16_u8).map(|i| i | (15 - i) << 4));
    let values = decode(TensorType::Q4_1, 32, bytes);
    assert_eq!(values[0], -2.0);
    assert_eq!(values[1], -1.75);
    assert_eq!(values[15], 1.75);
    assert_eq!(values[16], 1.75);
    assert_eq!(values[31], -2.0);
}

#[test]
fn q5_0_takes_its_fifth_bit_from_the_mask() {
    let mut bytes = half_bytes(2.0).to_vec();
    // Fifth bits of values 0, 17 and 31 are set.
    bytes.extend((1_u32 | 1 << 17 | 1 << 31).to_le_bytes());
    bytes.extend((0..16_u8).map(|i| i | (15 - i) << 4));
    let values = decode(TensorType::Q5_0, 32, bytes);
    assert_eq!(values[0], 0.0, "2 · (0 + 16 − 16)");
    assert_eq!(values[1], -30.0, "2 · (1 − 16)");
    assert_eq!(values[15], -2.0, "2 · (15 − 16)");
    assert_eq!(values[16], -2.0, "2 · (15 − 16)");
    assert_eq!(values[17], 28.0, "2 · (14 + 16 − 16)");
    assert_eq!(values[31], 0.0, "2 · (0 + 16 − 16)");
}

#[test]
fn q8_0_is_a_scaled_signed_byte() {
    let mut bytes = half_bytes(0.125).to_vec();
    bytes.extend((0..32_u8).map(|i| i.wrapping_mul(9).wrapping_sub(128)));
    let values = decode(TensorType::Q8_0, 32, bytes);
    assert_eq!(values[0], -16.0);
    assert_eq!(values[1], 0.125 * -119.0);
    assert_eq!(values[31], 0.125 * -105.0, "31 · 9 = 279 wraps to 23, minus 128");
}

#[test]
fn q4_k_has_eight_scales_and_minima_of_six_bits() {
    // Scales 1, 2, 3, 63 and minima 0, 4, 5, 6 stand plainly in bytes 0–7. The
    // last four scales and minima are split: low four bits in bytes 8–11, high
    // two bits on top of the first eight bytes.
    let scales = [1_u8, 2, 3, 63, 7, 16, 33, 62];
    let minima = [0_u8, 4, 5, 6, 8, 17, 34, 61];
    let mut packed = [0_u8; 12];
    for j in 0..4 {
        packed[j] = scales[j] | (scales[j + 4] >> 4) << 6;
        packed[j + 4] = minima[j] | (minima[j + 4] >> 4) << 6;
        packed[j + 8] = scales[j + 4] & 15 | (minima[j + 4] & 15) << 4;
    }
    let mut bytes = half_bytes(0.5).to_vec();
    bytes.extend(half_bytes(0.25));
    bytes.extend(packed);
    // Byte b of a stretch of 32: low half b mod 16, high half 15 − b mod 16.
    bytes.extend((0..128_u8).map(|b| (b % 16) | ((15 - b % 16) << 4)));
    let values = decode(TensorType::Q4K, 256, bytes);
    for j in 0..8 {
        for i in 0..32 {
            let q = if j % 2 == 0 { i % 16 } else { 15 - i % 16 };
            let expected = 0.5 * f32::from(scales[j]) * q as f32 - 0.25 * f32::from(minima[j]);
            assert_eq!(values[32 * j + i], expected, "sub-block {j}, value {i}");
        }
    }
}

#[test]
fn q6_k_joins_four_low_and_two_high_bits() {
    // The wanted six-bit numbers and scales, packed as the format says.
    let q = |index: usize| ((index * 37 + 11) % 64) as u8;
    let scale = |group: usize| (group as i8 - 8) * 5;
    let mut bytes = vec![0_u8; 210];
    for half in 0..2 {
        for l in 0..32 {
            let at = |run: usize| q(128 * half + 32 * run + l);
            bytes[64 * half + l] = at(0) & 15 | (at(2) & 15) << 4;
            bytes[64 * half + 32 + l] = at(1) & 15 | (at(3) & 15) << 4;
            bytes[128 + 32 * half + l] =
                at(0) >> 4 | (at(1) >> 4) << 2 | (at(2) >> 4) << 4 | (at(3) >> 4) << 6;
        }
    }
    for group in 0..16 {
        bytes[192 + group] = scale(group) as u8;
    }
    bytes[208..].copy_from_slice(&half_bytes(0.5));
    let values = decode(TensorType::Q6K, 256, bytes);
    for (index, value) in values.iter().enumerate() {
        let expected = 0.5 * f32::from(scale(index / 16)) * (f32::from(q(index)) - 32.0);
        assert_eq!(*value, expected, "value {index}");
    }
}

#[test]
fn several_tasks_give_the_same_as_one() {
    // Long enough for several tasks, with another scale in every block.
    let blocks = 20_000;
    let bytes = (0..blocks)
        .flat_map(|block| {
            let d = half_bytes((block % 100) as f32);
            d.into_iter().chain((0..32_u8).map(move |i| i.wrapping_add(block as u8)))
        })
        .collect();
    let values = decode(TensorType::Q8_0, blocks * 32, bytes);
    for (index, value) in values.iter().enumerate() {
        let (block, i) = (index / 32, index % 32);
        let expected = (block % 100) as f32 * f32::from((i as u8).wrapping_add(block as u8) as i8);
        assert_eq!(*value, expected, "value {index}");
    }
}

/// Stored blocks of any bytes whose half-precision numbers are finite.
fn arbitrary(bytes: usize, halves: &[usize], blocks: usize) -> Vec<u8> {
    let mut state = 0x9e37_u32;
    let mut stored: Vec<u8> = (0..bytes * blocks)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    for block in stored.chunks_exact_mut(bytes) {
        for &start in halves {
            // An exponent of all ones would be no number.
            block[start + 1] &= 0b1011_1111;
        }
    }
    stored
}

#[test]
fn the_parts_of_every_quantised_type_give_its_values_bit_for_bit() {
    for (tensor_type, values, bytes, halves) in [
        (TensorType::Q4_0, 32, 18, &[0][..]),
        (TensorType::Q4_1, 32, 20, &[0, 2]),
        (TensorType::Q5_0, 32, 22, &[0]),
        (TensorType::Q8_0, 32, 34, &[0]),
        (TensorType::Q4K, 256, 144, &[0, 2]),
        (TensorType::Q6K, 256, 210, &[208]),
    ] {
        let mut writer = GgufWriter::new();
        let stored = arbitrary(bytes, halves, 6);
        writer.tensor_bytes("t", &[3, 2 * values], tensor_type, stored);
        let file = parse(writer.to_bytes()).unwrap();
        let parts = file.quantised("t").unwrap().unwrap();
        assert_eq!(parts.shape, [3, 2 * values]);
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert!(bits(parts.values()) == bits(file.dequantise("t").unwrap()), "{tensor_type}");
    }
}

#[test]
fn floating_point_and_vectors_have_no_parts() {
    let mut writer = GgufWriter::new();
    writer.tensor_f32("floats", &[2, 32], &[0.5; 64]).unwrap();
    writer.tensor_bytes("vector", &[32], TensorType::Q8_0, vec![1; 34]);
    writer.tensor_bytes("rare", &[1, 256], TensorType::Other(10), vec![0; 84]);
    let file = parse(writer.to_bytes()).unwrap();
    assert_eq!(file.quantised("floats").unwrap(), None);
    assert_eq!(file.quantised("vector").unwrap(), None);
    assert!(file.quantised("rare").is_err());
}
