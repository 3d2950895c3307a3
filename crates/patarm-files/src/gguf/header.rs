//! The GGUF header: magic, version, counts, metadata and tensor infos, all
//! checked against the length of the file.

use std::collections::HashSet;

use super::cursor::Cursor;
use super::metadata::{self, Metadata};
use super::quant::TensorType;
use super::{DEFAULT_ALIGNMENT, GgufTensor, MAGIC};
use crate::error::{Error, Result};
use crate::limits::{MAX_ALIGNMENT, MAX_DIMENSIONS, MAX_NAME_BYTES, MAX_TENSORS};

/// A parsed header.
pub(super) struct Header {
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<GgufTensor>,
}

/// A tensor info as it stands in the file.
struct RawInfo {
    name: String,
    shape: Vec<usize>,
    tensor_type: TensorType,
    offset: u64,
}

/// Parses and checks the header of `bytes`, a whole file.
pub(super) fn read(bytes: &[u8]) -> Result<Header> {
    let mut cursor = Cursor::new(bytes);
    check_version(&mut cursor)?;
    let tensor_count = cursor.u64("the number of tensors")?;
    let entry_count = cursor.u64("the number of metadata entries")?;
    let metadata = metadata::read(&mut cursor, entry_count)?;
    // The shortest info: an empty name, one dimension, type and offset.
    let limit = MAX_TENSORS as u64;
    let tensor_count = cursor.check_count(tensor_count, "the number of tensors", limit, 32)?;
    let infos = (0..tensor_count).map(|_| read_info(&mut cursor)).collect::<Result<Vec<_>>>()?;
    check_unique(&infos)?;
    let alignment = alignment(&metadata)?;
    let data_start = align(cursor.position(), alignment)?;
    let tensors = infos
        .into_iter()
        .map(|info| place(info, data_start, alignment, bytes.len()))
        .collect::<Result<Vec<_>>>()?;
    Ok(Header { metadata, tensors })
}

fn check_version(cursor: &mut Cursor<'_>) -> Result<()> {
    let magic: [u8; 4] = cursor.array("the magic number")?;
    if magic != MAGIC {
        return Err(Error::malformed("this is not a GGUF file: it does not begin with `GGUF`"));
    }
    match cursor.u32("the version")? {
        2 | 3 => Ok(()),
        swapped if (1..=3).contains(&swapped.swap_bytes()) => {
            Err(Error::unsupported("this GGUF file is big-endian; convert it to little-endian"))
        }
        other => Err(Error::unsupported(format!(
            "this is GGUF version {other}; versions 2 and 3 are supported"
        ))),
    }
}

fn read_info(cursor: &mut Cursor<'_>) -> Result<RawInfo> {
    let name = cursor.string("a tensor name", MAX_NAME_BYTES)?;
    let what = format!("tensor `{name}`");
    let num_dimensions = cursor.u32(&what)?;
    if !(1..=MAX_DIMENSIONS).contains(&num_dimensions) {
        return Err(Error::malformed(format!(
            "{what} has {num_dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible"
        )));
    }
    let mut shape = Vec::with_capacity(num_dimensions as usize);
    for _ in 0..num_dimensions {
        let size = cursor.u64(&what)?;
        let size = usize::try_from(size)
            .ok()
            .filter(|&size| size > 0)
            .ok_or_else(|| Error::malformed(format!("{what} has a dimension of size {size}")))?;
        shape.push(size);
    }
    // The file lists the fastest dimension first.
    shape.reverse();
    let tensor_type = TensorType::from_id(cursor.u32(&what)?);
    let offset = cursor.u64(&what)?;
    Ok(RawInfo { name, shape, tensor_type, offset })
}

fn check_unique(infos: &[RawInfo]) -> Result<()> {
    let mut seen = HashSet::with_capacity(infos.len());
    for info in infos {
        if !seen.insert(info.name.as_str()) {
            return Err(Error::malformed(format!("tensor `{}` occurs twice", info.name)));
        }
    }
    Ok(())
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    let alignment = metadata.integer("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(Error::malformed(format!(
            "`general.alignment` is {alignment}; a power of two up to {MAX_ALIGNMENT} was expected"
        )));
    }
    Ok(alignment)
}

fn align(position: usize, alignment: u64) -> Result<u64> {
    (position as u64)
        .checked_next_multiple_of(alignment)
        .ok_or_else(|| Error::malformed("the header is too long"))
}

/// Turns an offset into a place in the file, or says why it cannot be one.
fn place(info: RawInfo, data_start: u64, alignment: u64, file_len: usize) -> Result<GgufTensor> {
    let RawInfo { name, shape, tensor_type, offset } = info;
    let num_values = shape
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size))
        .ok_or_else(|| Error::malformed(format!("the shape of tensor `{name}` overflows")))?;
    if !offset.is_multiple_of(alignment) {
        return Err(Error::malformed(format!(
            "tensor `{name}` begins at offset {offset}, which is no multiple of {alignment}"
        )));
    }
    let len = stored_bytes(&name, &shape, num_values, tensor_type)?;
    let start = data_start
        .checked_add(offset)
        .and_then(|start| usize::try_from(start).ok())
        .filter(|&start| start.checked_add(len.unwrap_or(0)).is_some_and(|end| end <= file_len))
        .ok_or_else(|| {
            Error::malformed(format!(
                "the file is truncated: tensor `{name}` ends behind its last byte ({file_len})"
            ))
        })?;
    Ok(GgufTensor { name, shape, tensor_type, num_values, start, len })
}

/// Bytes a tensor takes; none for a type of unknown size.
fn stored_bytes(
    name: &str,
    shape: &[usize],
    num_values: usize,
    tensor_type: TensorType,
) -> Result<Option<usize>> {
    let Some(format) = tensor_type.block_format() else {
        return Ok(None);
    };
    let row = shape.last().copied().unwrap_or(0);
    if !row.is_multiple_of(format.values) {
        return Err(Error::malformed(format!(
            "tensor `{name}` has rows of {row} values, but type {tensor_type} stores blocks of {}",
            format.values
        )));
    }
    let len = (num_values / format.values).checked_mul(format.bytes);
    len.map(Some).ok_or_else(|| Error::malformed(format!("the shape of tensor `{name}` overflows")))
}
