//! Safetensors: one file, or a set of files with an index, read as `f32`.
//!
//! Layout: `u64` header length, a JSON header with type, shape and byte range of
//! every tensor, then the data, little-endian and without gaps.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::bytes::FileBytes;
use crate::error::{Error, ErrorKind, Result};
use crate::json;
use crate::limits::{
    MAX_INDEX_BYTES, MAX_NAME_BYTES, MAX_SAFETENSORS_HEADER_BYTES, MAX_SHARDS, MAX_TENSORS,
};

/// Name of the only file of an unsharded model.
pub const SINGLE_FILE: &str = "model.safetensors";
/// Name of the index of a sharded model.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

const LENGTH_BYTES: usize = 8;
/// Values per task when a tensor is converted on several threads.
const VALUES_PER_TASK: usize = 1 << 18;

/// One open safetensors file: the header checked, the data mapped.
#[derive(Debug)]
pub struct SafetensorsFile {
    bytes: FileBytes,
    tensors: BTreeMap<String, StoredTensor>,
    metadata: BTreeMap<String, String>,
}

/// Type, shape and place of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Type as the header spells it, for example `BF16`.
    pub dtype: String,
    /// Shape, slowest dimension first.
    pub shape: Vec<usize>,
    /// Number of values.
    pub num_values: usize,
    conversion: Option<Conversion>,
    start: usize,
    end: usize,
}

/// The stored types that become `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conversion {
    F32,
    F16,
    Bf16,
}

impl SafetensorsFile {
    /// Maps and checks the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is truncated or inconsistent, or passes a limit.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(FileBytes::map(path)?).map_err(|error| error.in_file(path))
    }

    /// Checks bytes that hold a whole file.
    ///
    /// # Errors
    /// As [`SafetensorsFile::open`].
    pub fn parse(bytes: FileBytes) -> Result<Self> {
        let (header, data_start) = read_header(bytes.as_slice())?;
        let data_len = bytes.as_slice().len() - data_start;
        if header.data_len() != data_len {
            return Err(Error::malformed(format!(
                "the header describes {} bytes of tensors, the file holds {data_len}; \
                 is it truncated?",
                header.data_len()
            )));
        }
        let tensors = header
            .tensors()
            .into_iter()
            .map(|(name, info)| Ok((name, stored_tensor(info, data_start)?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        check_names(&tensors)?;
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { bytes, tensors, metadata })
    }

    /// The free text entries of the header (`__metadata__`).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &StoredTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn tensor(&self, name: &str) -> Result<&StoredTensor> {
        self.tensors.get(name).ok_or_else(|| Error::missing_tensor(name))
    }

    /// The values of the tensor called `name`, row-major, as `f32`.
    ///
    /// # Errors
    /// When there is no such tensor or it is not F32, F16 or BF16.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.tensor(name)?.num_values];
        self.read_into(name, &mut values)?;
        Ok(values)
    }

    /// Writes the values of the tensor called `name` into `values`, row-major.
    ///
    /// # Errors
    /// When there is no such tensor, it is not F32, F16 or BF16, or `values` has
    /// another length than the tensor has values.
    pub fn read_into(&self, name: &str, values: &mut [f32]) -> Result<()> {
        let tensor = self.tensor(name)?;
        let Some(conversion) = tensor.conversion else {
            return Err(Error::unsupported(format!(
                "tensor `{name}` has type {}; supported are F32, F16 and BF16",
                tensor.dtype
            )));
        };
        if values.len() != tensor.num_values {
            return Err(Error::shape(format!(
                "tensor `{name}` has {} values, the buffer holds {}",
                tensor.num_values,
                values.len()
            )));
        }
        let bytes = self.bytes.as_slice().get(tensor.start..tensor.end).unwrap_or_default();
        conversion.convert(bytes, values);
        Ok(())
    }
}

/// The header and the first byte of the data.
fn read_header(bytes: &[u8]) -> Result<(Metadata, usize)> {
    let length = bytes.first_chunk::<LENGTH_BYTES>().ok_or_else(|| {
        Error::malformed("the file is truncated: it is shorter than the length of its header")
    })?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_SAFETENSORS_HEADER_BYTES {
        let what = "the length of the header in bytes";
        return Err(Error::limit(what, length, MAX_SAFETENSORS_HEADER_BYTES));
    }
    // The limit keeps the length far below the range of `usize`.
    let data_start = LENGTH_BYTES + length as usize;
    let header = bytes.get(LENGTH_BYTES..data_start).ok_or_else(|| {
        Error::malformed(format!(
            "the file is truncated: its header has {length} bytes, {} are there",
            bytes.len() - LENGTH_BYTES
        ))
    })?;
    let header = serde_json::from_slice::<Metadata>(header)
        .map_err(|cause| Error::malformed(format!("the header is not valid: {cause}")))?;
    Ok((header, data_start))
}

fn check_names(tensors: &BTreeMap<String, StoredTensor>) -> Result<()> {
    if tensors.len() > MAX_TENSORS {
        return Err(Error::limit("the number of tensors", tensors.len(), MAX_TENSORS as u64));
    }
    match tensors.keys().map(|name| name.len() as u64).max() {
        Some(longest) if longest > MAX_NAME_BYTES => {
            Err(Error::limit("the length of a tensor name", longest, MAX_NAME_BYTES))
        }
        _ => Ok(()),
    }
}

/// Offsets and sizes were checked when the header was parsed, and their end
/// against the file; the sums here are checked once more because it is cheap.
fn stored_tensor(info: &TensorInfo, data_start: usize) -> Result<StoredTensor> {
    let overflow = || Error::malformed("a tensor lies outside of the file");
    let num_values = info
        .shape
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size))
        .ok_or_else(overflow)?;
    Ok(StoredTensor {
        dtype: format!("{:?}", info.dtype),
        shape: info.shape.clone(),
        num_values,
        conversion: Conversion::of(info.dtype),
        start: data_start.checked_add(info.data_offsets.0).ok_or_else(overflow)?,
        end: data_start.checked_add(info.data_offsets.1).ok_or_else(overflow)?,
    })
}

impl Conversion {
    fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    fn convert(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            Self::F32 => each(bytes, values, f32::from_le_bytes),
            Self::F16 => each(bytes, values, |pair| f16::from_le_bytes(pair).to_f32()),
            Self::Bf16 => each(bytes, values, |pair| bf16::from_le_bytes(pair).to_f32()),
        }
    }
}

fn each<const N: usize>(bytes: &[u8], values: &mut [f32], convert: fn([u8; N]) -> f32) {
    let (stored, _) = bytes.as_chunks::<N>();
    values.par_chunks_mut(VALUES_PER_TASK).zip(stored.par_chunks(VALUES_PER_TASK)).for_each(
        |(values, stored)| {
            for (value, bytes) in values.iter_mut().zip(stored) {
                *value = convert(*bytes);
            }
        },
    );
}

/// The tensors of a model folder: one file, or all files its index names.
#[derive(Debug)]
pub struct SafetensorsSet {
    files: Vec<SafetensorsFile>,
    /// Tensor name to position in `files`.
    index: BTreeMap<String, usize>,
}

impl SafetensorsSet {
    /// Opens one file.
    ///
    /// # Errors
    /// As [`SafetensorsFile::open`].
    pub fn open_file(path: &Path) -> Result<Self> {
        let file = SafetensorsFile::open(path)?;
        let index = file.tensors.keys().map(|name| (name.clone(), 0)).collect();
        Ok(Self { files: vec![file], index })
    }

    /// Opens the weights in `folder`: `model.safetensors.index.json` with its
    /// files when it exists, else `model.safetensors`.
    ///
    /// # Errors
    /// When neither exists, a file is broken, or the index does not fit the files.
    pub fn open_folder(folder: &Path) -> Result<Self> {
        let index = folder.join(INDEX_FILE);
        if index.exists() {
            return Self::open_index(folder, &index).map_err(|error| error.in_file(&index));
        }
        let single = folder.join(SINGLE_FILE);
        if !single.exists() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{} holds neither {SINGLE_FILE} nor {INDEX_FILE}", folder.display()),
            ));
        }
        Self::open_file(&single)
    }

    fn open_index(folder: &Path, index_path: &Path) -> Result<Self> {
        let object = json::read_object(index_path, MAX_INDEX_BYTES)?;
        let map = object.get("weight_map").and_then(|map| map.as_object()).ok_or_else(|| {
            Error::malformed("`weight_map` should be an object of tensor names and file names")
        })?;
        let mut set = Self { files: Vec::new(), index: BTreeMap::new() };
        let mut opened = HashMap::new();
        for (tensor, file) in map {
            let file = file.as_str().ok_or_else(|| {
                Error::malformed(format!("`weight_map` gives no file name for `{tensor}`"))
            })?;
            let position = match opened.get(file) {
                Some(&position) => position,
                None => {
                    let position = set.open_shard(&shard_path(folder, file)?)?;
                    opened.insert(file.to_owned(), position);
                    position
                }
            };
            if !set.files[position].tensors.contains_key(tensor) {
                return Err(Error::malformed(format!(
                    "tensor `{tensor}` should be in {file}, but it is not"
                )));
            }
            set.index.insert(tensor.clone(), position);
        }
        Ok(set)
    }

    fn open_shard(&mut self, path: &Path) -> Result<usize> {
        if self.files.len() == MAX_SHARDS {
            return Err(Error::limit("the number of files", "larger", MAX_SHARDS as u64));
        }
        self.files.push(SafetensorsFile::open(path)?);
        Ok(self.files.len() - 1)
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &StoredTensor)> {
        self.index.iter().filter_map(|(name, &position)| {
            let tensor = self.files[position].tensors.get(name)?;
            Some((name.as_str(), tensor))
        })
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn tensor(&self, name: &str) -> Result<&StoredTensor> {
        self.file_of(name)?.tensor(name)
    }

    /// The values of the tensor called `name`; see [`SafetensorsFile::read`].
    ///
    /// # Errors
    /// When there is no such tensor or it is not F32, F16 or BF16.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.file_of(name)?.read(name)
    }

    /// Writes the values of the tensor called `name` into `values`.
    ///
    /// # Errors
    /// As [`SafetensorsFile::read_into`].
    pub fn read_into(&self, name: &str, values: &mut [f32]) -> Result<()> {
        self.file_of(name)?.read_into(name, values)
    }

    fn file_of(&self, name: &str) -> Result<&SafetensorsFile> {
        let position = self.index.get(name).ok_or_else(|| Error::missing_tensor(name))?;
        Ok(&self.files[*position])
    }
}

/// The path of a shard, which must lie in the folder itself: an index must not
/// make us open files elsewhere.
fn shard_path(folder: &Path, file: &str) -> Result<PathBuf> {
    let plain = Path::new(file).file_name().is_some_and(|name| name == file);
    if !plain || file.contains(['/', '\\']) {
        return Err(Error::malformed(format!(
            "`weight_map` names the file {file:?}; a plain file name was expected"
        )));
    }
    Ok(folder.join(file))
}

#[cfg(test)]
mod tests;
