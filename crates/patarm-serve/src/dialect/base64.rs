//! Vectors as clients ask for them: numbers, or base64 of 32-bit floats.

use std::borrow::Cow;

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
                serializer.serialize_str(&encode(&bytes))
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

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, section 4.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let is_used = place <= chunk.len();
            let sextet = (bits >> (18 - 6 * place)) as usize & 63;
            text.push(if is_used { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_the_standard() {
        // RFC 4648, section 10.
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(plain.as_bytes()), coded);
        }
        let one = Vector::new(vec![1.0], Encoding::Base64);
        assert_eq!(serde_json::to_string(&one).unwrap(), "\"AACAPw==\"");
    }
}
