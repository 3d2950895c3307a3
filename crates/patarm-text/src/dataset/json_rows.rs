//! Rows of JSON text: one a line, or the elements of one array.

use std::io::BufRead;

use serde_json::Value;

use super::error::{ReadError, ReadErrorKind};
use super::rows::{Row, read_line, skip_blanks};

/// Streams rows from JSON text.
pub(super) struct JsonRows<R> {
    reader: R,
    max_row_bytes: usize,
    layout: Layout,
    /// Line of the next byte, from 1.
    line: u64,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Lines,
    /// Inside an array; whether an element was read already.
    Array {
        started: bool,
    },
    Ended,
}

impl<R> std::fmt::Debug for JsonRows<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JsonRows").field("layout", &self.layout).field("line", &self.line).finish()
    }
}

impl<R: BufRead> JsonRows<R> {
    /// Looks at the first byte to tell an array from lines.
    pub(super) fn new(mut reader: R, max_row_bytes: usize) -> Result<Self, ReadError> {
        let (first, lines) = skip_blanks(&mut reader)?;
        let layout = if first == Some(b'[') {
            reader.consume(1);
            Layout::Array { started: false }
        } else {
            Layout::Lines
        };
        Ok(Self { reader, max_row_bytes, layout, line: lines + 1, buffer: Vec::new() })
    }

    /// The next row; `None` at the end.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>, ReadError> {
        let row = match self.layout {
            Layout::Lines => self.next_line(),
            Layout::Array { started } => self.next_element(started),
            Layout::Ended => Ok(None),
        };
        if row.as_ref().is_err_and(ReadError::ends_file) {
            self.layout = Layout::Ended;
        }
        row
    }

    fn next_line(&mut self) -> Result<Option<Row>, ReadError> {
        loop {
            let line = self.line;
            let too_long = read_line(&mut self.reader, self.max_row_bytes, &mut self.buffer)
                .map_err(|error| error.on_line(line))?;
            if self.buffer.is_empty() {
                return Ok(None);
            }
            self.line += 1;
            if too_long {
                let kind = ReadErrorKind::TooLong { limit: self.max_row_bytes };
                return Err(ReadError::new(kind).on_line(line));
            }
            if !self.buffer.trim_ascii().is_empty() {
                return parse(self.buffer.trim_ascii(), line).map(Some);
            }
        }
    }

    fn next_element(&mut self, started: bool) -> Result<Option<Row>, ReadError> {
        let mut next = self.peek()?;
        if started && next == Some(b',') {
            self.reader.consume(1);
            next = self.peek()?;
            if next == Some(b']') {
                return Err(self.damaged("a comma before the end of the array"));
            }
        } else if started && next != Some(b']') {
            return Err(self.damaged("the array goes on without a comma or stops"));
        }
        match next {
            None => Err(self.damaged("the array is not closed")),
            Some(b']') => {
                self.reader.consume(1);
                self.layout = Layout::Ended;
                match self.peek()? {
                    None => Ok(None),
                    Some(_) => Err(self.damaged("something follows the array")),
                }
            }
            Some(_) => {
                let line = self.line;
                self.layout = Layout::Array { started: true };
                self.read_element().map_err(|error| error.on_line(line))?;
                parse(&self.buffer, line).map(Some)
            }
        }
    }

    fn peek(&mut self) -> Result<Option<u8>, ReadError> {
        let (next, lines) = skip_blanks(&mut self.reader)?;
        self.line += lines;
        Ok(next)
    }

    fn damaged(&self, problem: &str) -> ReadError {
        ReadError::container(problem).on_line(self.line)
    }

    /// Reads the bytes of one element, by its brackets and quotes.
    fn read_element(&mut self) -> Result<(), ReadError> {
        self.buffer.clear();
        let mut scan = Scan::default();
        loop {
            let chunk = self.reader.fill_buf().map_err(|error| ReadError::io(&error))?;
            if chunk.is_empty() {
                return Err(ReadError::container("the file ends inside a row"));
            }
            let end = chunk.iter().position(|&byte| scan.ends_before(byte));
            let used = end.unwrap_or(chunk.len());
            // A file that is not closed may be of any length: the limit counts
            // before anything is kept.
            if self.buffer.len() + used > self.max_row_bytes {
                let problem = format!("a row is longer than {} bytes", self.max_row_bytes);
                return Err(ReadError::container(problem));
            }
            self.buffer.extend_from_slice(&chunk[..used]);
            self.line += chunk[..used].iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.reader.consume(used);
            if end.is_some() {
                return Ok(());
            }
        }
    }
}

/// Where in a JSON value the bytes read so far have led.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Takes a byte; tells whether the element has ended before it.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'[' | b'{' => self.depth += 1,
            b',' | b']' | b'}' if self.depth == 0 => return true,
            b']' | b'}' => self.depth -= 1,
            _ => {}
        }
        false
    }
}

fn parse(bytes: &[u8], line: u64) -> Result<Row, ReadError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| ReadError::new(ReadErrorKind::NotUtf8).on_line(line))?;
    match serde_json::from_str::<Value>(text) {
        Ok(value) => Ok(Row { line, value }),
        Err(error) => {
            // The position inside the row is all that is left to say: the line is
            // known better here.
            let problem = error.to_string();
            let problem = problem.split(" at line ").next().unwrap_or_default();
            let kind = ReadErrorKind::NotJson(format!("{problem}, column {}", error.column()));
            Err(ReadError::new(kind).on_line(line))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Result<(u64, String), String>> {
        let mut rows = match JsonRows::new(text.as_bytes(), 64) {
            Ok(rows) => rows,
            Err(error) => return vec![Err(error.kind.to_string())],
        };
        let mut all = Vec::new();
        loop {
            match rows.next_row() {
                Ok(None) => return all,
                Ok(Some(row)) => all.push(Ok((row.line, row.value.to_string()))),
                Err(error) => all.push(Err(format!("{}: {}", error.line, error.kind))),
            }
            assert!(all.len() < 50, "reading does not end");
        }
    }

    fn ok(rows: &[(u64, &str)]) -> Vec<Result<(u64, String), String>> {
        rows.iter().map(|(line, text)| Ok((*line, (*text).to_owned()))).collect()
    }

    #[test]
    fn lines_with_marks_blanks_and_no_last_newline() {
        assert_eq!(
            read("\u{feff}{\"a\":1}\r\n\n 2\n[3]"),
            ok(&[(1, "{\"a\":1}"), (3, "2"), (4, "[3]")])
        );
        assert_eq!(read(""), []);
        assert_eq!(read(" \n\n"), []);
    }

    #[test]
    fn arrays_know_the_line_an_element_begins_on() {
        let text = "\n[\n {\"a\": \"],[\\\"\\\\\"},\n\n [1,\n2], \"x\"\n,3]\n ";
        let want = [(3, r#"{"a":"],[\"\\"}"#), (5, "[1,2]"), (6, "\"x\""), (7, "3")];
        assert_eq!(read(text), ok(&want));
        assert_eq!(read("[]"), []);
    }

    #[test]
    fn a_bad_line_does_not_stop_the_next() {
        let rows = read("{\n1\n\u{0}");
        assert!(rows[0].as_ref().unwrap_err().starts_with("1: not JSON: EOF"));
        assert_eq!(rows[1], Ok((2, "1".into())));
        assert!(rows[2].is_err());
        let long = format!("\"{}\"\n7", "x".repeat(100));
        let rows = read(&long);
        assert!(rows[0].as_ref().unwrap_err().contains("longer than 64"));
        assert_eq!(rows[1], Ok((2, "7".into())));
    }

    #[test]
    fn damaged_arrays_end_with_one_error() {
        for text in ["[", "[1", "[1,", "[1,]", "[1 2]", "[1]x", "[{\"a\":", "[\"", "[1}"] {
            let rows = read(text);
            assert!(rows.last().is_some_and(Result::is_err), "{text}: {rows:?}");
        }
        let long = format!("[\"{}", "x".repeat(1000));
        assert!(read(&long)[0].as_ref().unwrap_err().contains("longer than 64"));
        // Elements that are not JSON by themselves are errors of their rows.
        let rows = read("[,1]");
        assert!(rows[0].is_err());
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let text = format!("{}\n1", "[".repeat(60));
        let rows = read(&format!("1\n{text}"));
        assert!(rows[1].is_err());
    }
}
