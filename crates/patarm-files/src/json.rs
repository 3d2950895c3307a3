//! Reading JSON files of bounded size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Reads the JSON object in the file at `path`, at most `limit_bytes` long.
///
/// # Errors
/// When the file is missing, longer than the limit, not JSON or not an object;
/// the sentence names the file, and line and column where there are any.
pub fn read_object(path: &Path, limit_bytes: u64) -> Result<Map<String, Value>> {
    let file = File::open(path).map_err(|cause| Error::io("open", path, &cause))?;
    let mut text = Vec::new();
    // One byte more than allowed tells a file that is too long from one that just fits.
    file.take(limit_bytes + 1)
        .read_to_end(&mut text)
        .map_err(|cause| Error::io("read", path, &cause))?;
    if text.len() as u64 > limit_bytes {
        return Err(Error::limit("the length in bytes", "larger", limit_bytes).in_file(path));
    }
    parse_object(&text).map_err(|error| error.in_file(path))
}

/// Parses `text` as one JSON object.
///
/// # Errors
/// When it is not JSON, nested too deep, or not an object.
pub fn parse_object(text: &[u8]) -> Result<Map<String, Value>> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::malformed("a JSON object was expected at the top")),
        Err(cause) => Err(Error::malformed(format!("this is not valid JSON: {cause}"))),
    }
}
