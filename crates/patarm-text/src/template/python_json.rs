//! JSON as Python's `json.dumps` writes it, which is what templates were made with.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Values nested deeper than this are refused.
const MAX_DEPTH: usize = 128;

/// The arguments of `json.dumps` that templates use.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    pub(super) indent: Option<u32>,
    /// Between items, and between key and value.
    pub(super) separators: Option<Vec<String>>,
    pub(super) ensure_ascii: bool,
    pub(super) sort_keys: bool,
}

/// The JSON text of a value.
pub(super) fn dumps(value: &Value, layout: &Layout) -> Result<String, Error> {
    if layout.separators.as_ref().is_some_and(|pair| pair.len() != 2)
        || layout.indent.is_some_and(|indent| indent > 64)
    {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: bad separators or indent"));
    }
    let mut writer = Writer { text: String::new(), layout };
    writer.value(value, 0)?;
    Ok(writer.text)
}

struct Writer<'a> {
    text: String,
    layout: &'a Layout,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::BadSerialization, "tojson: nested too deeply"));
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value)?,
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            other => {
                let message = format!("tojson: cannot write a value of type {other}");
                return Err(Error::new(ErrorKind::BadSerialization, message));
            }
        }
        Ok(())
    }

    fn number(&mut self, value: &Value) -> Result<(), Error> {
        if value.is_integer() {
            self.text.push_str(&value.to_string());
            return Ok(());
        }
        let number = f64::try_from(value.clone())?;
        self.text.push_str(&python_float(number));
        Ok(())
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for c in text.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                // DEL is ASCII and printable enough for Python.
                c if c < ' ' || (self.layout.ensure_ascii && c > '\u{7f}') => self.escape(c),
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }

    fn escape(&mut self, c: char) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(self.text, "\\u{unit:04x}");
        }
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let items: Vec<Value> = value.try_iter()?.collect();
        self.text.push('[');
        for (index, item) in items.iter().enumerate() {
            self.before_item(index, depth);
            self.value(item, depth + 1)?;
        }
        self.end(items.len(), depth, ']');
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut entries = Vec::new();
        for key in value.try_iter()? {
            let item = value.get_item(&key)?;
            entries.push((key_text(&key)?, item));
        }
        if self.layout.sort_keys {
            entries.sort_by(|a, b| a.0.cmp(&b.0));
        }
        self.text.push('{');
        for (index, (key, item)) in entries.iter().enumerate() {
            self.before_item(index, depth);
            self.string(key);
            let colon = self.layout.separators.as_ref().map_or(": ", |pair| pair[1].as_str());
            self.text.push_str(colon);
            self.value(item, depth + 1)?;
        }
        self.end(entries.len(), depth, '}');
        Ok(())
    }

    fn before_item(&mut self, index: usize, depth: usize) {
        if index > 0 {
            // Indented text has no blank after the comma.
            let default = if self.layout.indent.is_some() { "," } else { ", " };
            let comma = self.layout.separators.as_ref().map_or(default, |pair| pair[0].as_str());
            self.text.push_str(comma);
        }
        self.new_line(depth + 1);
    }

    fn end(&mut self, num_items: usize, depth: usize, bracket: char) {
        if num_items > 0 {
            self.new_line(depth);
        }
        self.text.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = self.layout.indent {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', indent as usize * depth));
        }
    }
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool | ValueKind::Number => Ok(key.to_string()),
        other => {
            let message = format!("tojson: a key of type {other} is not possible");
            Err(Error::new(ErrorKind::BadSerialization, message))
        }
    }
}

/// A float as Python prints it: shortest digits, positional for exponents from
/// -4 to 15, else scientific with at least two digits of exponent.
fn python_float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return format!("{number:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_python() {
        let cases = [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (-2.5, "-2.5"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (number, text) in cases {
            assert_eq!(python_float(number), text);
        }
    }

    #[test]
    fn endless_nesting_is_refused() {
        let mut value = Value::from(Vec::<Value>::new());
        for _ in 0..200 {
            value = Value::from(vec![value]);
        }
        assert!(dumps(&value, &Layout::default()).is_err());
    }
}
