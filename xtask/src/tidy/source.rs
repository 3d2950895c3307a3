//! A file as the checks see it: its text, and its code without texts and comments.

/// One file of the workspace.
pub(super) struct Source {
    /// Path from the root, with slashes.
    pub(super) path: String,
    /// Content.
    pub(super) text: String,
    /// For Rust: the content with comments and literals blanked, line by line.
    pub(super) code: String,
    /// `code` with test modules blanked too; all blank in test files.
    pub(super) shipped: String,
}

impl Source {
    pub(super) fn new(path: String, text: String) -> Self {
        if !path.ends_with(".rs") {
            return Self { code: text.clone(), shipped: text.clone(), path, text };
        }
        let code = masked(&text);
        let shipped = if is_test_path(&path) { blanked(&code) } else { without_tests(&code) };
        Self { path, text, code, shipped }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(super) fn is_manifest(&self) -> bool {
        self.path == "Cargo.toml" || self.path.ends_with("/Cargo.toml")
    }

    /// Name of the crate's folder; empty outside `crates`.
    pub(super) fn crate_name(&self) -> &str {
        match self.path.strip_prefix("crates/").and_then(|rest| rest.split_once('/')) {
            Some((name, _)) => name,
            None if self.path.starts_with("xtask/") => "xtask",
            None => "",
        }
    }
}

/// Whether a path holds tests, benches or examples only.
pub(super) fn is_test_path(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "benches" | "examples" | "fuzz"))
        || path.ends_with("/tests.rs")
}

/// Line and rest of the line of every place where `word` stands alone in `code`.
pub(super) fn find_word<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.lines().enumerate().filter_map(move |(index, line)| {
        let mut places = line.match_indices(word);
        places
            .any(|(at, _)| {
                let before = line[..at].chars().next_back();
                let after = line[at + word.len()..].chars().next();
                let starts_part = word.starts_with(is_part);
                let ends_part = word.ends_with(is_part);
                let goes_on = starts_part && before.is_some_and(is_part)
                    || ends_part && after.is_some_and(is_part);
                !goes_on
            })
            .then_some(index + 1)
    })
}

/// Where the scanner of [`masked`] is.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Code,
    LineComment,
    BlockComment(usize),
    Text,
    RawText(usize),
}

/// Rust code with the contents of comments, strings and characters blanked; lines
/// stay where they are.
fn masked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut state = State::Code;
    let mut at = 0;
    while at < chars.len() {
        let (next, length, shown) = step(state, &chars[at..], at.checked_sub(1).map(|b| chars[b]));
        for &c in &chars[at..(at + length).min(chars.len())] {
            out.push(if shown || c == '\n' { c } else { ' ' });
        }
        state = next;
        at += length;
    }
    out
}

/// One step of the scanner: the next state, the characters taken, whether they are code.
fn step(state: State, rest: &[char], before: Option<char>) -> (State, usize, bool) {
    let starts = |text: &str| text.chars().zip(rest).filter(|(a, b)| a == *b).count() == text.len();
    match state {
        State::Code => step_in_code(rest, before),
        State::LineComment if rest[0] == '\n' => (State::Code, 1, false),
        State::LineComment => (state, 1, false),
        State::BlockComment(depth) if starts("/*") => (State::BlockComment(depth + 1), 2, false),
        State::BlockComment(1) if starts("*/") => (State::Code, 2, false),
        State::BlockComment(depth) if starts("*/") => (State::BlockComment(depth - 1), 2, false),
        State::BlockComment(_) => (state, 1, false),
        State::Text if rest[0] == '\\' => (state, 2, false),
        State::Text if rest[0] == '"' => (State::Code, 1, false),
        State::Text => (state, 1, false),
        State::RawText(hashes) if rest[0] == '"' && count_hashes(&rest[1..]) >= hashes => {
            (State::Code, 1 + hashes, false)
        }
        State::RawText(_) => (state, 1, false),
    }
}

fn step_in_code(rest: &[char], before: Option<char>) -> (State, usize, bool) {
    let second = rest.get(1).copied();
    let in_name = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    match rest[0] {
        '/' if second == Some('/') => (State::LineComment, 2, false),
        '/' if second == Some('*') => (State::BlockComment(1), 2, false),
        '"' => (State::Text, 1, false),
        'r' if !in_name || before == Some('b') => {
            let hashes = count_hashes(&rest[1..]);
            match rest.get(1 + hashes) {
                Some('"') => (State::RawText(hashes), 2 + hashes, false),
                _ => (State::Code, 1, true),
            }
        }
        '\'' => (
            State::Code,
            character_length(rest),
            rest.get(2) != Some(&'\'') && second != Some('\\'),
        ),
        _ => (State::Code, 1, true),
    }
}

fn count_hashes(rest: &[char]) -> usize {
    rest.iter().take_while(|c| **c == '#').count()
}

/// Length of a character literal, or 1 for the tick of a lifetime.
fn character_length(rest: &[char]) -> usize {
    match (rest.get(1), rest.get(2)) {
        (Some('\\'), Some(_)) => {
            let close = rest.iter().skip(3).position(|c| *c == '\'');
            close.map_or(1, |place| place + 4)
        }
        (Some(_), Some('\'')) => 3,
        _ => 1,
    }
}

/// Code with every module under `#[cfg(test)]` blanked.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    let mut from = 0;
    while let Some(found) = out[from..].find("#[cfg(test)]") {
        let start = from + found;
        let end = block_end(&out, start).unwrap_or(start + 1);
        out.replace_range(start..end, &blanked(&code[start..end]));
        from = end;
    }
    out
}

/// End of the block or statement that follows `start`: after its closing brace, or
/// after a semicolon that comes first.
pub(super) fn block_end(code: &str, start: usize) -> Option<usize> {
    let (mut braces, mut parentheses) = (0usize, 0usize);
    for (place, c) in code[start..].char_indices() {
        match c {
            '(' | '[' => parentheses += 1,
            ')' | ']' => parentheses = parentheses.saturating_sub(1),
            ';' if braces == 0 && parentheses == 0 => return Some(start + place + 1),
            '{' => braces += 1,
            '}' if braces <= 1 => return Some(start + place + 1),
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}

/// As many bytes of blanks, lines kept.
fn blanked(text: &str) -> String {
    text.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(masked(text), expected);
    }

    #[test]
    fn literals_and_comments_are_blanked() {
        check("a // unsafe\nb", "a          \nb");
        check("a /* x /* y */ z */ b", "a                   b");
        check("f(\"un\\\"safe\") + 1", "f(          ) + 1");
        check("r#\"a \" b\"# c", "           c");
        check("br\"x\" c", "b     c");
        check("'{' '\\'' '\\u{1}' 'a", "                 'a");
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
        check("for r in rows", "for r in rows");
    }

    #[test]
    fn test_modules_are_taken_out() {
        let source = |text: &str| Source::new("crates/a/src/b.rs".to_owned(), text.to_owned());
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n";
        let shipped = source(text).shipped;
        assert!(shipped.contains("fn a") && shipped.contains("fn c"));
        assert!(!shipped.contains("fn b"));
        assert_eq!(shipped.lines().count(), text.lines().count());
        assert!(source("#[cfg(test)]\nmod tests;\nfn c() {}").shipped.contains("fn c"));
        let tests = Source::new("crates/a/tests/b.rs".to_owned(), "fn a() {}".to_owned());
        assert_eq!((tests.shipped.trim(), tests.crate_name()), ("", "a"));
    }

    #[test]
    fn words_stand_alone() {
        let lines = |word| {
            find_word("unsafe_code\nx unsafe {\nprintln!(1)\neprintln!()", word).collect::<Vec<_>>()
        };
        assert_eq!(lines("unsafe"), [2]);
        assert_eq!(lines("println!"), [3]);
    }
}
