//! Reader and writer against each other, against the reference crate, and
//! against damaged files.

use std::collections::BTreeMap;

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;
use crate::safetensors_writer::{SafetensorsWriter, StoredType, TensorSpec, write_safetensors};
use crate::test_support::{damage, testdata};

fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn parse(bytes: Vec<u8>) -> Result<SafetensorsFile> {
    SafetensorsFile::parse(FileBytes::owned(bytes))
}

fn spec(name: &str, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), shape: shape.to_vec() }
}

#[test]
fn three_types_become_f32_and_others_are_refused() {
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
        "b":{"dtype":"F16","shape":[1,1],"data_offsets":[4,6]},
        "c":{"dtype":"BF16","shape":[2],"data_offsets":[6,10]},
        "d":{"dtype":"I64","shape":[],"data_offsets":[10,18]}}"#;
    let mut data = 1.5_f32.to_le_bytes().to_vec();
    data.extend(f16::from_f32(-2.5).to_le_bytes());
    data.extend(bf16::from_f32(0.75).to_le_bytes());
    data.extend(bf16::from_f32(-8.0).to_le_bytes());
    data.extend(7_i64.to_le_bytes());
    let file = parse(file_of(header, &data)).unwrap();
    assert_eq!(file.read("a").unwrap(), [1.5]);
    assert_eq!(file.read("b").unwrap(), [-2.5]);
    assert_eq!(file.read("c").unwrap(), [0.75, -8.0]);
    assert_eq!(file.tensor("b").unwrap().shape, [1, 1]);
    let error = file.read("d").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("`d` has type I64"), "{error}");
    assert_eq!(file.read("e").unwrap_err().kind(), ErrorKind::MissingTensor);
    assert_eq!(file.read_into("a", &mut [0.0; 2]).unwrap_err().kind(), ErrorKind::Shape);
}

#[test]
fn broken_headers_are_refused() {
    let tensor = |shape: &str, offsets: &str| {
        let header =
            format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#);
        parse(file_of(&header, &[0; 8])).map(|_| ()).map_err(|error| error.kind())
    };
    assert_eq!(tensor("[2]", "[0,8]"), Ok(()));
    for (shape, offsets) in [
        ("[2]", "[0,7]"),
        ("[2]", "[8,0]"),
        ("[2]", "[1,9]"),
        ("[3]", "[0,12]"),
        ("[1]", "[0,4]"),
        ("[18446744073709551615,2]", "[0,8]"),
        ("[4611686018427387904]", "[0,0]"),
        ("[-1]", "[0,8]"),
        ("[2]", "[0,18446744073709551615]"),
    ] {
        assert_eq!(tensor(shape, offsets), Err(ErrorKind::Malformed), "{shape} {offsets}");
    }
}

#[test]
fn sizes_that_add_up_past_every_file_are_refused() {
    // Eight tensors that end at the last representable byte.
    let eighth = 1_u64 << 61;
    let entries: Vec<_> = (0..8_u64)
        .map(|i| {
            let len = if i == 7 { eighth - 1 } else { eighth };
            let (start, end) = (i * eighth, i * eighth + len);
            format!(r#""t{i}":{{"dtype":"U8","shape":[{len}],"data_offsets":[{start},{end}]}}"#)
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    assert_eq!(parse(file_of(&header, &[])).unwrap_err().kind(), ErrorKind::Malformed);
}

#[test]
fn truncated_and_absurd_lengths_are_refused() {
    assert!(parse(Vec::new()).is_err());
    assert!(parse(vec![0; 7]).is_err());
    assert_eq!(parse(vec![0xff; 64]).unwrap_err().kind(), ErrorKind::Limit);
    let error = parse(1_000_u64.to_le_bytes().to_vec()).unwrap_err();
    assert!(error.to_string().contains("truncated"), "{error}");
    let bytes = std::fs::read(testdata("models/tiny-llama/model.safetensors")).unwrap();
    let error = parse(bytes[..bytes.len() - 1].to_vec()).unwrap_err();
    assert!(error.to_string().contains("is it truncated?"), "{error}");
}

#[test]
fn damaged_files_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    let tensors: [(&str, &[usize], &[f32]); 2] =
        [("a", &[2, 2], &[1.0; 4]), ("b", &[3], &[2.0; 3])];
    write_safetensors(&path, tensors, StoredType::F32, &BTreeMap::new()).unwrap();
    let refused = damage(&std::fs::read(&path).unwrap(), |copy| {
        let file = parse(copy)?;
        for (name, _) in file.tensors() {
            let _ = file.read(name);
        }
        Ok(())
    });
    assert!(refused > 1_000, "only {refused} damaged files were refused");
}

#[test]
fn the_reference_crate_reads_what_we_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let about = BTreeMap::from([("step".to_owned(), "7".to_owned())]);
    let tensors: [(&str, &[usize], &[f32]); 2] =
        [("weight", &[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), ("scalar", &[], &[9.0])];
    write_safetensors(&path, tensors, StoredType::F32, &about).unwrap();

    let bytes = std::fs::read(&path).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let weight = read.tensor("weight").unwrap();
    assert_eq!(weight.shape(), [2, 3]);
    assert_eq!(&weight.data()[4..8], 1.0_f32.to_le_bytes());
    assert_eq!(read.tensor("scalar").unwrap().data(), 9.0_f32.to_le_bytes());

    let ours = SafetensorsFile::open(&path).unwrap();
    assert_eq!(ours.metadata()["step"], "7");
    assert_eq!(ours.metadata()["format"], "pt");
}

#[test]
fn bf16_rounds_to_nearest_even() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    // 1 + 2⁻⁸ lies halfway between two BF16 numbers, and so does 1 + 3·2⁻⁸.
    let values = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -0.1];
    let tensors: [(&str, &[usize], &[f32]); 1] = [("t", &[3], &values)];
    write_safetensors(&path, tensors, StoredType::Bf16, &BTreeMap::new()).unwrap();
    let read = SafetensorsFile::open(&path).unwrap().read("t").unwrap();
    assert_eq!(read, [1.0, 1.0 + 4.0 / 256.0, -205.0 / 2048.0]);
}

#[test]
fn a_writer_that_was_not_fed_right_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, b"old").unwrap();
    let start = || {
        let specs = vec![spec("a", &[2]), spec("b", &[1])];
        SafetensorsWriter::create(&path, specs, StoredType::F32, &BTreeMap::new()).unwrap()
    };

    assert_eq!(start().write("b", &[1.0]).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(start().write("a", &[1.0]).unwrap_err().kind(), ErrorKind::Shape);
    let mut writer = start();
    writer.write("a", &[1.0, 2.0]).unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("`b` was never written"));

    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn names_given_twice_and_reserved_names_are_refused() {
    let create = |names: [&str; 2]| {
        let specs = names.map(|name| spec(name, &[1])).to_vec();
        let nowhere = Path::new("never-created");
        SafetensorsWriter::create(nowhere, specs, StoredType::F32, &BTreeMap::new()).map(|_| ())
    };
    assert_eq!(create(["a", "a"]).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(create(["a", "__metadata__"]).unwrap_err().kind(), ErrorKind::Shape);
}

/// A folder with two shards and the given index.
fn sharded(index: &str) -> (tempfile::TempDir, Result<SafetensorsSet>) {
    let folder = tempfile::tempdir().unwrap();
    for (file, name, value) in [("one.safetensors", "a", 1.0), ("two.safetensors", "b", 2.0)] {
        let tensors: [(&str, &[usize], &[f32]); 1] = [(name, &[1], &[value])];
        let path = folder.path().join(file);
        write_safetensors(&path, tensors, StoredType::F32, &BTreeMap::new()).unwrap();
    }
    std::fs::write(folder.path().join(INDEX_FILE), index).unwrap();
    let set = SafetensorsSet::open_folder(folder.path());
    (folder, set)
}

#[test]
fn shards_are_found_through_the_index() {
    let (_folder, set) =
        sharded(r#"{"metadata":{},"weight_map":{"b":"two.safetensors","a":"one.safetensors"}}"#);
    let set = set.unwrap();
    assert_eq!(set.tensors().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(set.read("a").unwrap(), [1.0]);
    assert_eq!(set.read("b").unwrap(), [2.0]);
    assert_eq!(set.read("c").unwrap_err().kind(), ErrorKind::MissingTensor);
}

#[test]
fn an_index_that_does_not_fit_is_refused() {
    let refused = |index: &str| sharded(index).1.unwrap_err().to_string();
    assert!(refused("{").contains("not valid JSON"));
    assert!(refused("[]").contains("object"));
    assert!(refused("{}").contains("`weight_map`"));
    assert!(refused(r#"{"weight_map":{"a":1}}"#).contains("no file name"));
    assert!(refused(r#"{"weight_map":{"b":"one.safetensors"}}"#).contains("but it is not"));
    assert!(refused(r#"{"weight_map":{"a":"three.safetensors"}}"#).contains("three.safetensors"));
    for outside in ["../one.safetensors", "/etc/passwd", "x\\\\y", "..", ""] {
        let index = format!(r#"{{"weight_map":{{"a":"{outside}"}}}}"#);
        assert!(refused(&index).contains("plain file name"), "{outside}");
    }
}

#[test]
fn an_empty_folder_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = SafetensorsSet::open_folder(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

proptest! {
    #[test]
    fn written_values_come_back_bit_for_bit(values in prop::collection::vec(any::<u32>(), 0..200)) {
        let values: Vec<f32> = values.into_iter().map(f32::from_bits).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        let shape = [values.len()];
        let tensors: [(&str, &[usize], &[f32]); 1] = [("t", &shape, &values)];
        write_safetensors(&path, tensors, StoredType::F32, &BTreeMap::new()).unwrap();
        let read = SafetensorsFile::open(&path).unwrap().read("t").unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&values), bits(&read));
    }
}
