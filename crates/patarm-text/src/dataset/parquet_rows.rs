//! Rows of a Parquet file.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as ParquetRow};
use serde_json::{Map, Value};

use super::error::ReadError;
use super::rows::Row;

/// Values nested deeper than this are refused.
const MAX_DEPTH: usize = 32;

/// Streams rows from a Parquet file.
pub(super) struct ParquetRows {
    rows: RowIter<'static>,
    num_read: u64,
}

impl std::fmt::Debug for ParquetRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetRows").field("num_read", &self.num_read).finish_non_exhaustive()
    }
}

impl ParquetRows {
    pub(super) fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(|error| ReadError::io(&error))?;
        let reader = guarded(|| SerializedFileReader::new(file))?;
        let rows = guarded(|| Ok(RowIter::from_file_into(Box::new(reader))))?;
        Ok(Self { rows, num_read: 0 })
    }

    pub(super) fn next_row(&mut self) -> Result<Option<Row>, ReadError> {
        let line = self.num_read + 1;
        let Some(row) = guarded(|| self.rows.next().transpose()).map_err(|e| e.on_line(line))?
        else {
            return Ok(None);
        };
        self.num_read = line;
        let value = object(row, 0).map_err(|error| error.on_line(line))?;
        Ok(Some(Row { line, value }))
    }
}

/// Runs a step of the Parquet reader. It checks most of what a damaged file can
/// say, but not all of it: what is left shows as a panic, which is an error of
/// the file like any other here. The reader is not used again afterwards.
fn guarded<T>(step: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, ReadError> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(step)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ReadError::container(error.to_string())),
        Err(_) => Err(ReadError::container("the Parquet structure contradicts itself")),
    }
}

fn object(row: ParquetRow, depth: usize) -> Result<Value, ReadError> {
    let mut fields = Map::new();
    for (name, field) in row.into_columns() {
        let value = json(field, depth + 1).map_err(|error| error.in_field(&name))?;
        fields.insert(name, value);
    }
    Ok(Value::Object(fields))
}

fn json(field: Field, depth: usize) -> Result<Value, ReadError> {
    if depth > MAX_DEPTH {
        return Err(ReadError::bad_value("nested too deeply"));
    }
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => value.to_f64().into(),
        Field::Float(value) => f64::from(value).into(),
        Field::Double(value) => value.into(),
        Field::Str(value) => value.into(),
        Field::Bytes(value) => match std::str::from_utf8(value.data()) {
            Ok(text) => text.into(),
            Err(_) => return Err(ReadError::bad_value("binary data where text is expected")),
        },
        Field::Group(row) => object(row, depth)?,
        Field::ListInternal(list) => {
            let items =
                list.elements().iter().cloned().enumerate().map(|(index, item)| {
                    json(item, depth + 1).map_err(|error| error.in_item(index))
                });
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Field::MapInternal(map) => {
            let mut fields = Map::new();
            for (key, value) in map.entries() {
                let key = match json(key.clone(), depth + 1)? {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                fields.insert(key, json(value.clone(), depth + 1)?);
            }
            Value::Object(fields)
        }
        // Dates and decimals are no part of a comparison.
        other => other.to_string().into(),
    })
}
