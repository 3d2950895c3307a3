//! JSON as other programs write it: `NaN`, `Infinity` and numbers beyond range are
//! read as null and noted, because a file of ten thousand scores with one of them is
//! still a file of scores.

use serde_json::{Map, Value};

/// A row.
pub(crate) struct LenientRow {
    /// Its fields.
    pub(crate) fields: Map<String, Value>,
    /// Whether a number was not finite.
    pub(crate) has_non_finite: bool,
}

/// Parses a line that holds one object.
pub(crate) fn row(line: &[u8]) -> Result<LenientRow, String> {
    let refused = match serde_json::from_slice(line) {
        Ok(fields) => return Ok(LenientRow { fields, has_non_finite: false }),
        Err(error) => format!("not a JSON object: {error}"),
    };
    let Some(repaired) = without_non_finite(line) else {
        return Err(refused);
    };
    let fields = serde_json::from_slice(&repaired).map_err(|_| refused)?;
    Ok(LenientRow { fields, has_non_finite: true })
}

/// The line with every bare token that is no finite number replaced by `null`; `None`
/// where there is no such token.
fn without_non_finite(line: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut found) = (Vec::with_capacity(line.len()), false);
    let mut rest = line;
    while let Some(&byte) = rest.first() {
        let length = match byte {
            b'"' => string_length(rest),
            _ if is_bare(byte) => rest.iter().take_while(|b| is_bare(**b)).count(),
            _ => 1,
        };
        let (token, after) = rest.split_at(length);
        if is_non_finite(token) {
            out.extend_from_slice(b"null");
            found = true;
        } else {
            out.extend_from_slice(token);
        }
        rest = after;
    }
    found.then_some(out)
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

/// Length of the string that begins here, quotes included, or of what is left.
fn string_length(text: &[u8]) -> usize {
    let mut escaped = false;
    for (index, byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether a bare token is a number that is not finite: one of the words for it, or
/// digits beyond the range of a double.
fn is_non_finite(token: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(token) else { return false };
    let unsigned = text.trim_start_matches(['-', '+']);
    if ["nan", "infinity", "inf"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
        return true;
    }
    unsigned.starts_with(|c: char| c.is_ascii_digit())
        && text.parse::<f64>().is_ok_and(f64::is_infinite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_finite_numbers_become_null() {
        for score in ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "inf"] {
            let line = format!("{{\"item\": \"NaN\", \"score\": {score}}}");
            let row = row(line.as_bytes()).expect("repaired");
            assert!(row.has_non_finite, "{score}");
            assert_eq!(row.fields["item"], "NaN");
            assert_eq!(row.fields["score"], Value::Null);
        }
        assert!(!row(b"{\"score\": 1e300}").expect("plain").has_non_finite);
    }

    #[test]
    fn other_damage_stays_damage() {
        for line in ["[]", "{", "{\"a\": nul}", "{\"a\": \"x", "{\"a\": NaN", "", "{\"a\": --1}"] {
            assert!(row(line.as_bytes()).is_err(), "{line}");
        }
    }
}
