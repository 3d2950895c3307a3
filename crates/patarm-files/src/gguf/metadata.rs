//! GGUF metadata: typed values by key, and their wire format.

use std::collections::BTreeMap;

use super::cursor::Cursor;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{
    MAX_ARRAY_DEPTH, MAX_ARRAY_ITEMS, MAX_METADATA_ENTRIES, MAX_NAME_BYTES, MAX_STRING_BYTES,
};

/// One metadata value.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Type 0.
    U8(u8),
    /// Type 1.
    I8(i8),
    /// Type 2.
    U16(u16),
    /// Type 3.
    I16(i16),
    /// Type 4.
    U32(u32),
    /// Type 5.
    I32(i32),
    /// Type 6.
    F32(f32),
    /// Type 7: one byte, 0 or 1.
    Bool(bool),
    /// Type 8: `u64` length, then UTF-8.
    String(String),
    /// Type 9: `u32` item type, `u64` count, then the items.
    Array(Array),
    /// Type 10.
    U64(u64),
    /// Type 11.
    I64(i64),
    /// Type 12.
    F64(f64),
}

/// An array of values of one type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the variants mirror those of `Value`")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// The key-value pairs of a GGUF header.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    /// The value of `key`, if there is one.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// All keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `key` as a non-negative whole number, of whatever integer type.
    ///
    /// # Errors
    /// When it is there but is no such number.
    pub fn integer(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a non-negative whole number", |value| match *value {
            Value::U8(number) => Some(number.into()),
            Value::U16(number) => Some(number.into()),
            Value::U32(number) => Some(number.into()),
            Value::U64(number) => Some(number),
            Value::I8(number) => number.try_into().ok(),
            Value::I16(number) => number.try_into().ok(),
            Value::I32(number) => number.try_into().ok(),
            Value::I64(number) => number.try_into().ok(),
            _ => None,
        })
    }

    /// The value of `key` as a floating-point number. An `f32` becomes the `f64`
    /// with the same shortest decimal form, so that `1e-5` stays `1e-5`.
    ///
    /// # Errors
    /// When it is there but is no floating-point number.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a floating-point number", |value| match *value {
            Value::F32(number) => number.to_string().parse().ok(),
            Value::F64(number) => Some(number),
            _ => None,
        })
    }

    /// The value of `key` as a truth value.
    ///
    /// # Errors
    /// When it is there but is none.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a truth value", |value| match *value {
            Value::Bool(truth) => Some(truth),
            _ => None,
        })
    }

    /// The value of `key` as a string.
    ///
    /// # Errors
    /// When it is there but is none.
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The value of `key` as an array of strings.
    ///
    /// # Errors
    /// When it is there but is none.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::String(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// The value of `key` as an array of `i32`.
    ///
    /// # Errors
    /// When it is there but is none.
    pub fn i32s(&self, key: &str) -> Result<Option<&[i32]>> {
        self.typed(key, "an array of i32", |value| match value {
            Value::Array(Array::I32(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// The value of `key` as an array of `f32`.
    ///
    /// # Errors
    /// When it is there but is none.
    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>> {
        self.typed(key, "an array of f32", |value| match value {
            Value::Array(Array::F32(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.0.get(key) else {
            return Ok(None);
        };
        convert(value)
            .map(Some)
            .ok_or_else(|| Error::malformed(format!("metadata key `{key}` should be {wanted}")))
    }
}

/// Reads `count` entries.
pub(super) fn read(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata> {
    // The shortest entry: an empty key, a type, and one byte.
    let count =
        cursor.check_count(count, "the number of metadata entries", MAX_METADATA_ENTRIES, 13)?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let key = cursor.string("a metadata key", MAX_NAME_BYTES)?;
        let value = read_value(cursor)
            .map_err(|error| prefixed(&error, &format!("metadata key `{key}`")))?;
        if entries.insert(key.clone(), value).is_some() {
            return Err(Error::malformed(format!("metadata key `{key}` occurs twice")));
        }
    }
    Ok(Metadata(entries))
}

fn prefixed(error: &Error, prefix: &str) -> Error {
    Error::new(error.kind(), format!("{prefix}: {error}"))
}

fn read_value(cursor: &mut Cursor<'_>) -> Result<Value> {
    const WHAT: &str = "a metadata value";
    Ok(match cursor.u32("a value type")? {
        0 => Value::U8(u8::from_le_bytes(cursor.array(WHAT)?)),
        1 => Value::I8(i8::from_le_bytes(cursor.array(WHAT)?)),
        2 => Value::U16(u16::from_le_bytes(cursor.array(WHAT)?)),
        3 => Value::I16(i16::from_le_bytes(cursor.array(WHAT)?)),
        4 => Value::U32(cursor.u32(WHAT)?),
        5 => Value::I32(i32::from_le_bytes(cursor.array(WHAT)?)),
        6 => Value::F32(f32::from_le_bytes(cursor.array(WHAT)?)),
        7 => Value::Bool(truth(cursor.array(WHAT)?)?),
        8 => Value::String(cursor.string("a string", MAX_STRING_BYTES)?),
        9 => Value::Array(read_array(cursor, MAX_ARRAY_DEPTH)?),
        10 => Value::U64(cursor.u64(WHAT)?),
        11 => Value::I64(i64::from_le_bytes(cursor.array(WHAT)?)),
        12 => Value::F64(f64::from_le_bytes(cursor.array(WHAT)?)),
        unknown => return Err(unknown_type(unknown)),
    })
}

fn read_array(cursor: &mut Cursor<'_>, depth_left: usize) -> Result<Array> {
    if depth_left == 0 {
        let sentence = format!("arrays are nested deeper than {MAX_ARRAY_DEPTH}");
        return Err(Error::new(ErrorKind::Limit, sentence));
    }
    let item_type = cursor.u32("an item type")?;
    let Some(min_bytes) = min_item_bytes(item_type) else {
        return Err(unknown_type(item_type));
    };
    let count = cursor.count("the number of array items", MAX_ARRAY_ITEMS, min_bytes)?;
    Ok(match item_type {
        0 => Array::U8(numbers(cursor, count, u8::from_le_bytes)?),
        1 => Array::I8(numbers(cursor, count, i8::from_le_bytes)?),
        2 => Array::U16(numbers(cursor, count, u16::from_le_bytes)?),
        3 => Array::I16(numbers(cursor, count, i16::from_le_bytes)?),
        4 => Array::U32(numbers(cursor, count, u32::from_le_bytes)?),
        5 => Array::I32(numbers(cursor, count, i32::from_le_bytes)?),
        6 => Array::F32(numbers(cursor, count, f32::from_le_bytes)?),
        7 => Array::Bool(many(count, || truth(cursor.array("a truth value")?))?),
        8 => Array::String(many(count, || cursor.string("a string", MAX_STRING_BYTES))?),
        9 => Array::Array(many(count, || read_array(cursor, depth_left - 1))?),
        10 => Array::U64(numbers(cursor, count, u64::from_le_bytes)?),
        11 => Array::I64(numbers(cursor, count, i64::from_le_bytes)?),
        _ => Array::F64(numbers(cursor, count, f64::from_le_bytes)?),
    })
}

/// Fewest bytes that one item of a type takes; none for an unknown type.
fn min_item_bytes(item_type: u32) -> Option<usize> {
    match item_type {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        8 | 10..=12 => Some(8),
        9 => Some(12),
        _ => None,
    }
}

fn numbers<T, const N: usize>(
    cursor: &mut Cursor<'_>,
    count: usize,
    convert: fn([u8; N]) -> T,
) -> Result<Vec<T>> {
    let bytes = cursor.take(count.saturating_mul(N), "an array")?;
    Ok(bytes.as_chunks::<N>().0.iter().map(|chunk| convert(*chunk)).collect())
}

fn many<T>(count: usize, mut read: impl FnMut() -> Result<T>) -> Result<Vec<T>> {
    (0..count).map(|_| read()).collect()
}

fn truth(byte: [u8; 1]) -> Result<bool> {
    match byte[0] {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::malformed(format!("a truth value is stored as {other}, not 0 or 1"))),
    }
}

fn unknown_type(found: u32) -> Error {
    Error::malformed(format!("value type {found} is unknown, the types are 0 to 12"))
}

impl Value {
    /// The number of this type in the file.
    pub(crate) fn type_id(&self) -> u32 {
        match self {
            Value::U8(_) => 0,
            Value::I8(_) => 1,
            Value::U16(_) => 2,
            Value::I16(_) => 3,
            Value::U32(_) => 4,
            Value::I32(_) => 5,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::String(_) => 8,
            Value::Array(_) => 9,
            Value::U64(_) => 10,
            Value::I64(_) => 11,
            Value::F64(_) => 12,
        }
    }

    /// Appends the value, without its type, as in the file.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        match self {
            Value::U8(number) => out.extend(number.to_le_bytes()),
            Value::I8(number) => out.extend(number.to_le_bytes()),
            Value::U16(number) => out.extend(number.to_le_bytes()),
            Value::I16(number) => out.extend(number.to_le_bytes()),
            Value::U32(number) => out.extend(number.to_le_bytes()),
            Value::I32(number) => out.extend(number.to_le_bytes()),
            Value::F32(number) => out.extend(number.to_le_bytes()),
            Value::Bool(truth) => out.push((*truth).into()),
            Value::String(text) => write_string(out, text),
            Value::Array(array) => array.write_to(out),
            Value::U64(number) => out.extend(number.to_le_bytes()),
            Value::I64(number) => out.extend(number.to_le_bytes()),
            Value::F64(number) => out.extend(number.to_le_bytes()),
        }
    }
}

impl Array {
    fn write_to(&self, out: &mut Vec<u8>) {
        fn each<T>(out: &mut Vec<u8>, id: u32, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
            out.extend(id.to_le_bytes());
            out.extend((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| write(out, item));
        }
        match self {
            Array::U8(items) => each(out, 0, items, |out, item| out.push(*item)),
            Array::I8(items) => each(out, 1, items, |out, item| out.extend(item.to_le_bytes())),
            Array::U16(items) => each(out, 2, items, |out, item| out.extend(item.to_le_bytes())),
            Array::I16(items) => each(out, 3, items, |out, item| out.extend(item.to_le_bytes())),
            Array::U32(items) => each(out, 4, items, |out, item| out.extend(item.to_le_bytes())),
            Array::I32(items) => each(out, 5, items, |out, item| out.extend(item.to_le_bytes())),
            Array::F32(items) => each(out, 6, items, |out, item| out.extend(item.to_le_bytes())),
            Array::Bool(items) => each(out, 7, items, |out, item| out.push((*item).into())),
            Array::String(items) => each(out, 8, items, |out, item| write_string(out, item)),
            Array::Array(items) => each(out, 9, items, |out, item| item.write_to(out)),
            Array::U64(items) => each(out, 10, items, |out, item| out.extend(item.to_le_bytes())),
            Array::I64(items) => each(out, 11, items, |out, item| out.extend(item.to_le_bytes())),
            Array::F64(items) => each(out, 12, items, |out, item| out.extend(item.to_le_bytes())),
        }
    }
}

/// Appends a string as in the file: `u64` length, then its bytes.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Value::$variant(value.into())
            }
        }
    )*};
}
value_from!(u32 => U32, i32 => I32, u64 => U64, f32 => F32, bool => Bool, String => String, &str => String);

macro_rules! array_from {
    ($($item:ty => $variant:ident),* $(,)?) => {$(
        impl From<Vec<$item>> for Value {
            fn from(items: Vec<$item>) -> Self {
                Value::Array(Array::$variant(items))
            }
        }
    )*};
}
array_from!(String => String, i32 => I32, u32 => U32, f32 => F32);
