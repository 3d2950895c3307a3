//! Rows of comma-separated values as Python's `csv.reader` reads them with its default dialect:
//! fields may be quoted, a doubled quote inside is one, and what follows a closing quote joins the
//! field.

/// Longest field, in characters (`csv.field_size_limit`).
const MAX_FIELD_CHARS: usize = 131_072;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Record,
    Field,
    Plain,
    Quoted,
    QuoteInQuoted,
    /// A carriage return has ended the record; only the line's end may follow.
    End,
}

/// The rows of a text; `None` where Python raises an error. A blank line is a row without fields.
pub(super) fn rows(text: &str, delimiter: char) -> Option<Vec<Vec<String>>> {
    let mut reader = Reader::default();
    for line in text.split_inclusive('\n') {
        for c in line.chars() {
            reader.take(c, delimiter)?;
        }
        // Python ends every line it is given, also the last one without a line feed.
        if !line.ends_with('\n') {
            reader.end_line()?;
        }
        reader.close_record();
    }
    if !matches!(reader.state, State::Record) {
        reader.save();
        reader.finish_row();
    }
    Some(reader.rows)
}

struct Reader {
    state: State,
    field: String,
    length: usize,
    row: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            state: State::Record,
            field: String::new(),
            length: 0,
            row: Vec::new(),
            rows: Vec::new(),
        }
    }
}

impl Reader {
    fn take(&mut self, c: char, delimiter: char) -> Option<()> {
        let is_end = matches!(c, '\n' | '\r');
        match self.state {
            State::Record if is_end => self.state = State::End,
            State::Record | State::Field if is_end => self.end_record(),
            State::Record | State::Field if c == '"' => self.state = State::Quoted,
            State::QuoteInQuoted if c == '"' => {
                self.state = State::Quoted;
                self.push(c)?;
            }
            State::Record | State::Field | State::Plain | State::QuoteInQuoted
                if c == delimiter =>
            {
                self.save();
                self.state = State::Field;
            }
            State::Plain | State::QuoteInQuoted if is_end => self.end_record(),
            State::Record | State::Field | State::Plain | State::QuoteInQuoted => {
                self.state = State::Plain;
                self.push(c)?;
            }
            State::Quoted if c == '"' => self.state = State::QuoteInQuoted,
            State::Quoted => self.push(c)?,
            State::End if is_end => {}
            State::End => return None,
        }
        Some(())
    }

    fn end_line(&mut self) -> Option<()> {
        match self.state {
            State::Record | State::Quoted | State::End => {}
            State::Field | State::Plain | State::QuoteInQuoted => self.end_record(),
        }
        Some(())
    }

    fn end_record(&mut self) {
        self.save();
        self.state = State::End;
    }

    /// After a line: a finished record becomes a row.
    fn close_record(&mut self) {
        if self.state == State::End {
            self.finish_row();
            self.state = State::Record;
        }
    }

    fn push(&mut self, c: char) -> Option<()> {
        self.length += 1;
        self.field.push(c);
        (self.length <= MAX_FIELD_CHARS).then_some(())
    }

    fn save(&mut self) {
        self.length = 0;
        self.row.push(std::mem::take(&mut self.field));
    }

    fn finish_row(&mut self) {
        self.rows.push(std::mem::take(&mut self.row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<Vec<String>>> {
        rows(text, ',')
    }

    #[test]
    fn fields_are_python_s() {
        let row = |fields: &[&str]| fields.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>();
        assert_eq!(read("a,\"b,c\",d\"e\n").unwrap(), [row(&["a", "b,c", "d\"e"])]);
        assert_eq!(
            read("\"a\"\"b\"c,\n\nx").unwrap(),
            [row(&["a\"bc", ""]), row(&[]), row(&["x"])]
        );
        assert_eq!(read("\"a\nb\",c\r\n").unwrap(), [row(&["a\nb", "c"])]);
        assert_eq!(read("\"open\n").unwrap(), [row(&["open\n"])]);
        assert_eq!(read("").unwrap(), Vec::<Vec<String>>::new());
        assert_eq!(read("a\rb\n"), None);
        assert_eq!(read(&"x".repeat(MAX_FIELD_CHARS + 1)), None);
    }
}
