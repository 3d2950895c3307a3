//! Writing safetensors: streaming, one tensor in memory at a time, all or nothing.

use std::collections::BTreeMap;
use std::path::Path;

use half::bf16;
use serde_json::{Map, Value, json};

use crate::atomic::AtomicFile;
use crate::error::{Error, Result};

/// Values converted at a time.
const VALUES_PER_CHUNK: usize = 1 << 16;

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// 32-bit floating point.
    F32,
    /// The upper half of an `f32`, rounded to nearest, ties to even.
    Bf16,
}

/// Name and shape of a tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name, for example `model.norm.weight`.
    pub name: String,
    /// Shape, slowest dimension first.
    pub shape: Vec<usize>,
}

/// A safetensors file under way: the header is written first, then every tensor
/// in the order of the header. Until [`SafetensorsWriter::finish`] nothing is
/// visible under the final name; dropping the writer removes what was written.
#[derive(Debug)]
pub struct SafetensorsWriter {
    file: AtomicFile,
    specs: Vec<TensorSpec>,
    written: usize,
    stored_type: StoredType,
}

impl SafetensorsWriter {
    /// Starts a file that will become `path`. `metadata` becomes `__metadata__`,
    /// with `format = pt` added when it is absent, because readers ask for it.
    ///
    /// # Errors
    /// When the file cannot be created, a name occurs twice or is `__metadata__`,
    /// or a shape overflows.
    pub fn create(
        path: &Path,
        specs: Vec<TensorSpec>,
        stored_type: StoredType,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let header = header(&specs, stored_type, metadata).map_err(|error| error.in_file(path))?;
        let mut file = AtomicFile::create(path)?;
        file.write(&(header.len() as u64).to_le_bytes())?;
        file.write(&header)?;
        Ok(Self { file, specs, written: 0, stored_type })
    }

    /// Writes the values of the next tensor, which must be called `name`, row-major.
    ///
    /// # Errors
    /// When another tensor is next, the number of values does not fit its shape,
    /// or the disk refuses.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let next = self.specs.get(self.written).filter(|spec| spec.name == name);
        let spec = next.ok_or_else(|| {
            Error::shape(format!("tensor `{name}` is not the next one of the header"))
        })?;
        if num_values(spec)? != values.len() {
            return Err(Error::shape(format!(
                "tensor `{name}` of shape {:?} was given {} values",
                spec.shape,
                values.len()
            )));
        }
        self.written += 1;
        values
            .chunks(VALUES_PER_CHUNK)
            .try_for_each(|chunk| self.file.write(&self.stored_type.encode(chunk)))
    }

    /// Syncs the file and gives it its final name.
    ///
    /// # Errors
    /// When tensors of the header have not been written, or the disk refuses; a
    /// file that stood under the final name is then untouched.
    pub fn finish(self) -> Result<()> {
        if let Some(missing) = self.specs.get(self.written) {
            return Err(Error::shape(format!("tensor `{}` was never written", missing.name)));
        }
        self.file.commit()
    }
}

/// Writes `tensors` (name, shape, values) to `path` in their order, all or nothing.
///
/// # Errors
/// As [`SafetensorsWriter`].
pub fn write_safetensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a [usize], &'a [f32])>,
    stored_type: StoredType,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let tensors: Vec<_> = tensors.into_iter().collect();
    let specs = tensors
        .iter()
        .map(|(name, shape, _)| TensorSpec { name: (*name).into(), shape: shape.to_vec() })
        .collect();
    let mut writer = SafetensorsWriter::create(path, specs, stored_type, metadata)?;
    for (name, _, values) in tensors {
        writer.write(name, values)?;
    }
    writer.finish()
}

impl StoredType {
    /// Name in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
        }
    }

    /// Bytes of one value.
    pub fn value_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Bf16 => {
                values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
            }
        }
    }
}

fn num_values(spec: &TensorSpec) -> Result<usize> {
    spec.shape
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size))
        .ok_or_else(|| Error::shape(format!("the shape of tensor `{}` overflows", spec.name)))
}

/// The JSON header, padded with spaces so that the data begin at a multiple of 8.
fn header(
    specs: &[TensorSpec],
    stored_type: StoredType,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut entries = Map::new();
    let mut about: Map<String, Value> =
        metadata.iter().map(|(key, text)| (key.clone(), json!(text))).collect();
    about.entry("format").or_insert_with(|| json!("pt"));
    entries.insert("__metadata__".to_owned(), Value::Object(about));
    let mut start = 0_usize;
    for spec in specs {
        let end = num_values(spec)?
            .checked_mul(stored_type.value_bytes())
            .and_then(|len| start.checked_add(len))
            .ok_or_else(|| {
                Error::shape(format!("the shape of tensor `{}` overflows", spec.name))
            })?;
        let entry = json!({
            "dtype": stored_type.name(), "shape": spec.shape, "data_offsets": [start, end],
        });
        if entries.insert(spec.name.clone(), entry).is_some() {
            return Err(Error::shape(format!("tensor `{}` is given twice", spec.name)));
        }
        start = end;
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok(text)
}
