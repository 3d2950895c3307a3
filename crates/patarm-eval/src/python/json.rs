//! Whether `json.loads` of Python accepts a text.
//!
//! Python's reader takes more than RFC 8259: `NaN`, `Infinity` and `-Infinity`, repeated keys, lone
//! surrogates in escapes. It also takes less: an integer of more than 4,300 digits is refused
//! (`sys.int_info.default_max_str_digits`), and so is a byte order mark. Nothing is built here; the
//! answer is yes or no, in one pass and without recursion.

/// Deepest nesting accepted. CPython stops with an error of its own near its recursion limit of
/// 1,000, which ends the reference's run; here the text just does not count as JSON.
pub const MAX_DEPTH: usize = 990;

/// Most digits of an integer.
const MAX_INTEGER_DIGITS: usize = 4300;

/// Whether `json.loads(text)` succeeds.
pub fn is_json(text: &str) -> bool {
    Reader { bytes: text.as_bytes(), at: 0 }.document().is_some()
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What an open container waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

impl Reader<'_> {
    /// One value between white space and nothing else.
    fn document(&mut self) -> Option<()> {
        let mut open = Vec::new();
        self.space();
        loop {
            // A value is due here.
            match self.peek()? {
                b'[' => {
                    self.at += 1;
                    self.space();
                    if self.peek()? != b']' {
                        push(&mut open, Container::Array)?;
                        continue;
                    }
                    self.at += 1;
                }
                b'{' => {
                    self.at += 1;
                    self.space();
                    if self.peek()? != b'}' {
                        push(&mut open, Container::Object)?;
                        self.key()?;
                        continue;
                    }
                    self.at += 1;
                }
                _ => self.scalar()?,
            }
            // A value has ended: close containers until the next value is due.
            if self.close(&mut open)? {
                self.space();
                return (self.at == self.bytes.len()).then_some(());
            }
        }
    }

    /// After a value: true where the document is complete, false where another value is due.
    fn close(&mut self, open: &mut Vec<Container>) -> Option<bool> {
        while let Some(&container) = open.last() {
            self.space();
            match (self.next()?, container) {
                (b',', Container::Array) => {
                    self.space();
                    return Some(false);
                }
                (b',', Container::Object) => {
                    self.space();
                    self.key()?;
                    return Some(false);
                }
                (b']', Container::Array) | (b'}', Container::Object) => {
                    open.pop();
                }
                _ => return None,
            }
        }
        Some(true)
    }

    /// A key with its colon, up to the value.
    fn key(&mut self) -> Option<()> {
        self.string()?;
        self.space();
        (self.next()? == b':').then(|| self.space())
    }

    fn scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string(),
            b'n' => self.literal("null"),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'N' => self.literal("NaN"),
            b'I' => self.literal("Infinity"),
            b'-' if self.bytes[self.at..].starts_with(b"-Infinity") => self.literal("-Infinity"),
            _ => self.number(),
        }
    }

    fn literal(&mut self, word: &str) -> Option<()> {
        let found = self.bytes[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        found.then_some(())
    }

    fn number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        let num_digits = match self.peek()? {
            b'0' => {
                self.at += 1;
                1
            }
            b'1'..=b'9' => self.digits(),
            _ => return None,
        };
        let fraction = self.part(|reader| (reader.next()? == b'.').then_some(()));
        let exponent = self.part(|reader| {
            matches!(reader.next()?, b'e' | b'E').then_some(())?;
            if matches!(reader.peek()?, b'+' | b'-') {
                reader.at += 1;
            }
            Some(())
        });
        (fraction || exponent || num_digits <= MAX_INTEGER_DIGITS).then_some(())
    }

    /// An optional part of a number: its lead and then digits. Where it is incomplete, Python ends
    /// the number before it.
    fn part(&mut self, lead: impl Fn(&mut Self) -> Option<()>) -> bool {
        let start = self.at;
        let complete = lead(self).is_some() && self.digits() > 0;
        if !complete {
            self.at = start;
        }
        complete
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    /// A string: no control characters, the escapes of JSON.
    fn string(&mut self) -> Option<()> {
        if self.next()? != b'"' {
            return None;
        }
        loop {
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        for _ in 0..4 {
                            self.next()?.is_ascii_hexdigit().then_some(())?;
                        }
                    }
                    _ => return None,
                },
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }
}

fn push(open: &mut Vec<Container>, container: Container) -> Option<()> {
    open.push(container);
    (open.len() <= MAX_DEPTH).then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn python_takes_more_than_the_standard() {
        for text in [
            "NaN",
            "-Infinity",
            "[Infinity]",
            r#"{"a":1,"a":2}"#,
            r#""\ud800""#,
            " \t\r\n1 ",
            "-0",
            "1E+2",
            "[]",
            "{ }",
            r#"{"a":[{}, []]}"#,
            "1.5e3",
            r#""é\u00e9""#,
            "\"\u{7f}\"",
        ] {
            assert!(is_json(text), "{text}");
        }
    }

    #[test]
    fn and_refuses_the_rest() {
        for text in [
            "",
            " ",
            "nan",
            "+1",
            "01",
            "1.",
            ".5",
            "1e",
            "-",
            "[1,]",
            r#"{"a":1,}"#,
            "{a:1}",
            "'a'",
            "\"a\nb\"",
            r#""\x""#,
            r#""\u12g4""#,
            "[1 2]",
            "{}{}",
            "\u{feff}1",
            "[",
            "{\"a\"",
            "]",
            "\"",
            "1\u{a0}",
            "{\"a\":}",
            "[,1]",
            "-NaN",
            "tru",
        ] {
            assert!(!is_json(text), "{text}");
        }
        assert!(is_json(&"9".repeat(4300)) && !is_json(&"9".repeat(4301)));
        assert!(is_json(&format!("{}.0", "9".repeat(5000))));
        assert!(!is_json(&"[".repeat(100_000)));
    }

    proptest! {
        #[test]
        fn whatever_serde_writes_is_json(text in ".{0,40}", number in any::<f64>()) {
            let value = serde_json::json!({"text": text, "n": [number, null, true]});
            prop_assert!(is_json(&value.to_string()));
        }

        #[test]
        fn what_serde_reads_python_reads(text in r#"[\[\]{}",:0-9a-zNI\\ .eE+-]{0,24}"#) {
            if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() {
                prop_assert!(is_json(&text), "{text}");
            }
        }
    }
}
