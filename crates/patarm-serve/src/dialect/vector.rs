//! Vectors as clients ask for them: numbers, or base64 of 32-bit floats.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

/// How numbers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As numbers.
    #[default]
    Float,
    /// As base64 of little-endian 32-bit floats.
    Base64,
}

/// A vector with its form.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    values: Vec<f64>,
    encoding: Encoding,
}

impl Vector {
    /// A vector to be written in a form.
    #[must_use]
    pub fn new(values: Vec<f64>, encoding: Encoding) -> Self {
        Self { values, encoding }
    }
}

impl Serialize for Vector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.encoding {
            Encoding::Float => self.values.serialize(serializer),
            Encoding::Base64 => {
                let bytes: Vec<u8> =
                    self.values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
                serializer.serialize_str(&STANDARD.encode(bytes))
            }
        }
    }
}

impl JsonSchema for Vector {
    fn schema_name() -> Cow<'static, str> {
        "Vector".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Numbers, or base64 of little-endian 32-bit floats.",
            "oneOf": [{ "type": "array", "items": { "type": "number" } }, { "type": "string" }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_in_both_forms() {
        let written = |encoding| serde_json::to_string(&Vector::new(vec![1.0], encoding)).unwrap();
        assert_eq!(written(Encoding::Float), "[1.0]");
        assert_eq!(written(Encoding::Base64), "\"AACAPw==\"");
    }
}
