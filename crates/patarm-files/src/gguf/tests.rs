//! The reader against files written by [`GgufWriter`] and damaged by hand.

mod quant_values;

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::gguf_writer::GgufWriter;
use crate::limits::{MAX_ARRAY_DEPTH, MAX_ARRAY_ITEMS};
use crate::test_support::damage;

fn parse(bytes: Vec<u8>) -> Result<GgufFile> {
    GgufFile::parse(FileBytes::owned(bytes))
}

fn refused(bytes: Vec<u8>) -> (ErrorKind, String) {
    let error = parse(bytes).unwrap_err();
    (error.kind(), error.to_string())
}

/// A header up to its counts, to which tests append what they like.
fn header(tensors: u64, entries: u64) -> Vec<u8> {
    let mut bytes = Vec::from(MAGIC);
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(entries.to_le_bytes());
    bytes
}

fn every_value() -> Vec<(&'static str, Value)> {
    vec![
        ("u8", Value::U8(200)),
        ("i8", Value::I8(-3)),
        ("u16", Value::U16(60_000)),
        ("i16", Value::I16(-300)),
        ("u32", Value::U32(4_000_000_000)),
        ("i32", Value::I32(-70_000)),
        ("f32", Value::F32(1e-5)),
        ("bool", Value::Bool(true)),
        ("string", "é".into()),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f64", Value::F64(0.1)),
        ("array of u8", Value::Array(Array::U8(vec![1, 2]))),
        ("array of i8", Value::Array(Array::I8(vec![-1]))),
        ("array of u16", Value::Array(Array::U16(vec![3]))),
        ("array of i16", Value::Array(Array::I16(vec![-3]))),
        ("array of u32", Value::Array(Array::U32(vec![5, 6, 7]))),
        ("array of i32", Value::Array(Array::I32(vec![-5]))),
        ("array of f32", Value::Array(Array::F32(vec![0.5, -0.5]))),
        ("array of bool", Value::Array(Array::Bool(vec![true, false]))),
        ("array of string", vec!["a".to_owned(), String::new()].into()),
        ("array of u64", Value::Array(Array::U64(vec![8]))),
        ("array of i64", Value::Array(Array::I64(vec![-8]))),
        ("array of f64", Value::Array(Array::F64(vec![0.25]))),
        (
            "array of arrays",
            Value::Array(Array::Array(vec![Array::U8(vec![1]), Array::U8(vec![])])),
        ),
    ]
}

fn small_file() -> GgufWriter {
    let mut writer = GgufWriter::new();
    for (key, value) in every_value() {
        writer.metadata(key, value);
    }
    let values: Vec<f32> = (0..6).map(|i| i as f32).collect();
    writer.tensor_f32("matrix", &[2, 3], &values).unwrap();
    writer.tensor_f32("vector", &[3], &[0.5, -1.0, f32::MAX]).unwrap();
    writer.tensor_bytes("q8", &[1, 32], TensorType::Q8_0, vec![1; 34]);
    writer
}

#[test]
fn every_value_type_survives() {
    let file = parse(small_file().to_bytes()).unwrap();
    for (key, value) in every_value() {
        assert_eq!(file.metadata().get(key), Some(&value), "{key}");
    }
    assert_eq!(file.metadata().iter().count(), every_value().len());
}

#[test]
fn typed_access_accepts_what_fits_and_names_what_does_not() {
    let file = parse(small_file().to_bytes()).unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata.integer("u8").unwrap(), Some(200));
    assert_eq!(metadata.integer("u64").unwrap(), Some(u64::MAX));
    assert_eq!(metadata.integer("absent").unwrap(), None);
    assert_eq!(metadata.float("f32").unwrap(), Some(1e-5));
    assert_eq!(metadata.boolean("bool").unwrap(), Some(true));
    assert_eq!(metadata.string("string").unwrap(), Some("é"));
    assert_eq!(metadata.strings("array of string").unwrap().unwrap().len(), 2);
    let error = metadata.integer("i32").unwrap_err();
    assert_eq!(error.to_string(), "metadata key `i32` should be a non-negative whole number");
    assert!(metadata.i32s("array of u32").is_err());
}

#[test]
fn shapes_are_slowest_dimension_first() {
    let file = parse(small_file().to_bytes()).unwrap();
    assert_eq!(file.tensor("matrix").unwrap().shape, [2, 3]);
    assert_eq!(file.dequantise("matrix").unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(file.dequantise("vector").unwrap(), [0.5, -1.0, f32::MAX]);
    assert_eq!(file.tensors().len(), 3);
}

#[test]
fn version_2_reads_like_version_3_and_others_are_refused() {
    let with_version = |version: u32| {
        let mut bytes = small_file().to_bytes();
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        bytes
    };
    assert!(parse(with_version(2)).is_ok());
    let (kind, sentence) = refused(with_version(1));
    assert_eq!(kind, ErrorKind::Unsupported);
    assert_eq!(sentence, "this is GGUF version 1; versions 2 and 3 are supported");
    assert!(refused(with_version(3_u32.swap_bytes())).1.contains("big-endian"));
    assert!(refused(b"GGML".to_vec()).1.contains("not a GGUF file"));
}

#[test]
fn reading_an_unsupported_type_names_tensor_and_type() {
    let mut writer = small_file();
    writer.tensor_bytes("rare", &[256], TensorType::Other(10), vec![0; 84]);
    let file = parse(writer.to_bytes()).unwrap();
    let error = file.dequantise("rare").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().starts_with("tensor `rare` has type Q2_K; supported are"), "{error}");
    assert!(file.dequantise("matrix").is_ok());
}

#[test]
fn a_buffer_of_another_length_and_a_missing_tensor_are_refused() {
    let file = parse(small_file().to_bytes()).unwrap();
    let error = file.dequantise_into("vector", &mut [0.0; 4]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shape);
    assert_eq!(file.dequantise("none").unwrap_err().kind(), ErrorKind::MissingTensor);
}

#[test]
fn inconsistent_tensors_are_refused() {
    let with = |shape: &[usize], tensor_type, len| {
        let mut writer = GgufWriter::new();
        writer.tensor_bytes("t", shape, tensor_type, vec![0; len]);
        refused(writer.to_bytes())
    };
    let huge = 1 << 40;
    assert!(with(&[huge, huge], TensorType::F32, 4).1.contains("overflows"));
    // The product fits in 64 bits, its size in bytes does not.
    assert!(with(&[1 << 31, 1 << 32], TensorType::F32, 4).1.contains("overflows"));
    assert!(with(&[huge], TensorType::F32, 4).1.contains("truncated"));
    assert!(with(&[2, 0], TensorType::F32, 4).1.contains("dimension of size 0"));
    assert!(with(&[], TensorType::F32, 4).1.contains("0 dimensions"));
    assert!(with(&[1; 5], TensorType::F32, 4).1.contains("5 dimensions"));
    assert!(with(&[32, 16], TensorType::Q4_1, 320).1.contains("blocks of 32"));
}

#[test]
fn names_and_keys_must_be_unique() {
    let mut writer = GgufWriter::new();
    writer.tensor_f32("t", &[1], &[0.0]).unwrap();
    writer.tensor_f32("t", &[1], &[0.0]).unwrap();
    assert_eq!(refused(writer.to_bytes()).1, "tensor `t` occurs twice");
    let mut writer = GgufWriter::new();
    writer.metadata("k", 1_u32).metadata("k", 2_u32);
    assert_eq!(refused(writer.to_bytes()).1, "metadata key `k` occurs twice");
}

#[test]
fn alignment_is_obeyed_and_checked() {
    for wrong in [0_u32, 3, 1 << 30] {
        let mut writer = GgufWriter::new();
        writer.metadata("general.alignment", wrong);
        assert!(refused(writer.to_bytes()).1.contains("power of two"), "{wrong}");
    }
    let mut writer = GgufWriter::new();
    writer.metadata("general.alignment", 64_u32);
    writer.tensor_f32("a", &[1], &[1.0]).unwrap();
    writer.tensor_f32("b", &[1], &[2.0]).unwrap();
    assert!(refused(writer.to_bytes()).1.contains("no multiple of 64"));
}

#[test]
fn absurd_counts_are_refused_before_anything_is_allocated() {
    assert!(refused(header(0, u64::MAX)).0 == ErrorKind::Limit);
    assert!(refused(header(0, 1_000)).1.contains("truncated"));
    assert!(refused(header(u64::MAX, 0)).0 == ErrorKind::Limit);
    assert!(refused(header(1_000, 0)).1.contains("truncated"));

    let array = |item_type: u32, count: u64| {
        let mut bytes = header(0, 1);
        bytes.extend(1_u64.to_le_bytes());
        bytes.push(b'k');
        bytes.extend(9_u32.to_le_bytes());
        bytes.extend(item_type.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend([0; 64]);
        refused(bytes)
    };
    assert_eq!(array(8, u64::MAX).0, ErrorKind::Limit);
    assert_eq!(array(0, MAX_ARRAY_ITEMS + 1).0, ErrorKind::Limit);
    assert!(array(8, 1_000_000).1.contains("truncated"));
    assert!(array(0, 65).1.contains("truncated"));
    assert!(array(77, 1).1.contains("value type 77 is unknown"));
}

#[test]
fn arrays_nest_only_so_deep() {
    let nested = |depth: usize| {
        let mut array = Array::U8(vec![1]);
        for _ in 1..depth {
            array = Array::Array(vec![array]);
        }
        let mut writer = GgufWriter::new();
        writer.metadata("k", Value::Array(array));
        parse(writer.to_bytes())
    };
    assert!(nested(MAX_ARRAY_DEPTH).is_ok());
    assert_eq!(nested(MAX_ARRAY_DEPTH + 1).unwrap_err().kind(), ErrorKind::Limit);
}

#[test]
fn text_must_be_utf8_and_truth_must_be_0_or_1() {
    let find = |bytes: &[u8], needle: &[u8]| {
        bytes.windows(needle.len()).position(|window| window == needle).unwrap()
    };
    let mut writer = GgufWriter::new();
    writer.metadata("key", "text");
    let mut bytes = writer.to_bytes();
    let position = find(&bytes, b"text");
    bytes[position] = 0xff;
    assert!(refused(bytes).1.contains("metadata key `key`: a string"));

    let mut writer = GgufWriter::new();
    writer.metadata("key", true);
    let mut bytes = writer.to_bytes();
    let position = find(&bytes, &[7, 0, 0, 0, 1]) + 4;
    bytes[position] = 2;
    assert!(refused(bytes).1.contains("stored as 2"));
}

#[test]
fn damaged_files_never_panic() {
    let bytes = small_file().to_bytes();
    let refused = damage(&bytes, |copy| {
        let file = parse(copy)?;
        for tensor in file.tensors() {
            // A changed type or shape may make a tensor unreadable, not more.
            let _ = file.dequantise(&tensor.name);
            let _ = file.quantised(&tensor.name);
        }
        Ok(())
    });
    // Most damage hits metadata bytes that mean something; what is only a
    // changed value or text is rightly accepted.
    assert!(refused > 1_000, "only {refused} damaged files were refused");
}

#[test]
fn every_truncation_before_the_last_tensor_is_refused() {
    let mut writer = GgufWriter::new();
    writer.tensor_f32("t", &[8], &[1.0; 8]).unwrap();
    let bytes = writer.to_bytes();
    for end in 0..bytes.len() {
        assert!(parse(bytes[..end].to_vec()).is_err(), "cut at {end}");
    }
    assert!(parse(bytes).is_ok());
}

proptest! {
    #[test]
    fn written_tensors_come_back_bit_for_bit(values in prop::collection::vec(any::<u32>(), 1..200)) {
        let values: Vec<f32> = values.into_iter().map(f32::from_bits).collect();
        let mut writer = GgufWriter::new();
        writer.tensor_f32("t", &[values.len()], &values).unwrap();
        let read = parse(writer.to_bytes()).unwrap().dequantise("t").unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&values), bits(&read));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut with_magic = header(1, 1);
        with_magic.extend(&bytes);
        let _ = parse(with_magic);
        let _ = parse(bytes);
    }
}
