//! Keywords as patterns: what `re.search` makes of a word, without a regular expression engine.
//!
//! The reference passes keywords to `re` unescaped. Nearly all are literal words; a full stop in one
//! matches any character. Those two and escaped punctuation are what this module knows: each element
//! matches exactly one character, so a search takes time linear in the text. A keyword with any
//! other operator is refused by name, since running patterns from data on generated text is how a
//! matcher is made to hang.

use std::sync::LazyLock;

use super::text;

/// Most characters of a keyword.
pub const MAX_KEYWORD_CHARS: usize = 1024;

/// One element of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Char(char),
    /// `.`: anything but a line feed.
    Any,
}

/// A keyword ready for search, blind to case as `re.IGNORECASE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyword {
    elements: Vec<Element>,
}

impl Keyword {
    /// Reads a keyword as Python would read a regular expression.
    ///
    /// # Errors
    ///
    /// A sentence, where the keyword is empty, too long or uses an operator other than `.`.
    pub fn new(keyword: &str) -> Result<Self, String> {
        if keyword.is_empty() {
            return Err("a keyword is empty".to_owned());
        }
        if keyword.chars().count() > MAX_KEYWORD_CHARS {
            return Err(format!("a keyword has more than {MAX_KEYWORD_CHARS} characters"));
        }
        let mut elements = Vec::new();
        let mut chars = keyword.chars();
        while let Some(c) = chars.next() {
            elements.push(match c {
                '.' => Element::Any,
                '\\' => match chars.next() {
                    Some(escaped) if escaped.is_ascii_punctuation() || escaped == ' ' => {
                        Element::Char(fold(escaped))
                    }
                    _ => return Err(unsupported(keyword)),
                },
                '^' | '$' | '*' | '+' | '?' | '{' | '[' | '|' | '(' | ')' => {
                    return Err(unsupported(keyword));
                }
                c => Element::Char(fold(c)),
            });
        }
        Ok(Self { elements })
    }

    /// Whether the keyword is found anywhere in the folded text.
    pub fn is_in(&self, text: &Folded) -> bool {
        self.find(text, 0).is_some()
    }

    /// The number of matches that do not overlap, counted from the left (`re.findall`).
    pub fn count_in(&self, text: &Folded) -> usize {
        let (mut count, mut from) = (0, 0);
        while let Some(start) = self.find(text, from) {
            count += 1;
            from = start + self.elements.len();
        }
        count
    }

    /// Whether it is found between two word boundaries (`\b…\b`).
    pub fn is_word_in(&self, text: &Folded) -> bool {
        let mut from = 0;
        while let Some(start) = self.find(text, from) {
            if text.is_boundary(start) && text.is_boundary(start + self.elements.len()) {
                return true;
            }
            from = start + 1;
        }
        false
    }

    fn find(&self, text: &Folded, from: usize) -> Option<usize> {
        let last = text.folded.len().checked_sub(self.elements.len())?;
        (from..=last).find(|&start| {
            let window = &text.folded[start..start + self.elements.len()];
            self.elements.iter().zip(window).all(|(element, &c)| match element {
                Element::Char(expected) => *expected == c,
                Element::Any => c != '\n',
            })
        })
    }
}

fn unsupported(keyword: &str) -> String {
    format!(
        "keyword {keyword:?} uses an operator of regular expressions; only literal text and `.` are \
         supported, so escape it with a backslash"
    )
}

/// A text prepared for [`Keyword`] searches.
#[derive(Clone, Debug)]
pub struct Folded {
    folded: Vec<char>,
    /// Whether each character is a word character.
    word: Vec<bool>,
}

impl Folded {
    /// Prepares a text.
    pub fn new(value: &str) -> Self {
        Self {
            folded: value.chars().map(fold).collect(),
            word: value.chars().map(text::is_word).collect(),
        }
    }

    /// `\b` of Python's `re`: one side is a word character and the other is not.
    fn is_boundary(&self, at: usize) -> bool {
        let before = at.checked_sub(1).is_some_and(|index| self.word[index]);
        let after = self.word.get(at).copied().unwrap_or(false);
        before != after
    }
}

/// Whether `re.IGNORECASE` takes the two characters for the same.
pub fn eq_ignoring_case(a: char, b: char) -> bool {
    fold(a) == fold(b)
}

/// One representative of every class of characters that `re.IGNORECASE` takes for the same: those
/// with the same simple lower case, joined where lower-case letters share an upper case (`s` and
/// `ſ`, `σ` and `ς`, `i` and `ı`; CPython's `re/_casefix.py` is made by the same rule).
pub fn fold(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    let lower = c.to_lowercase().next().unwrap_or(c);
    shared().binary_search_by_key(&lower, |(from, _)| *from).map_or(lower, |at| shared()[at].1)
}

/// No character beyond has case; a test would notice one that has.
const LAST_CASED: char = '\u{1ffff}';

/// Lower-case characters that share their upper case with a smaller one, with that one; sorted.
fn shared() -> &'static [(char, char)] {
    static SHARED: LazyLock<Vec<(char, char)>> = LazyLock::new(|| {
        let mut by_upper = std::collections::HashMap::<String, char>::new();
        let mut shared = Vec::new();
        for lower in (char::MIN..=LAST_CASED).filter(|c| c.to_lowercase().eq([*c])) {
            let upper: String = lower.to_uppercase().collect();
            if upper.chars().eq([lower]) {
                continue;
            }
            match by_upper.get(&upper) {
                Some(&first) => shared.push((lower, first)),
                None => {
                    by_upper.insert(upper, lower);
                }
            }
        }
        shared
    });
    &SHARED
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyword(word: &str) -> Keyword {
        Keyword::new(word).unwrap()
    }

    #[test]
    fn case_is_folded_as_python_does() {
        for (a, b) in
            [('k', '\u{212a}'), ('S', 'ſ'), ('ς', 'Σ'), ('i', 'İ'), ('i', 'ı'), ('ß', 'ẞ')]
        {
            assert!(eq_ignoring_case(a, b), "{a} {b}");
        }
        let beyond = ('\u{20000}'..=char::MAX).find(|c| c.is_lowercase() || c.is_uppercase());
        assert_eq!(beyond, None);
        assert!(!eq_ignoring_case('ß', 's') && !eq_ignoring_case('a', 'á'));
    }

    #[test]
    fn counts_do_not_overlap() {
        assert_eq!(keyword("aa").count_in(&Folded::new("aAaAa")), 2);
        assert_eq!(keyword("a.c").count_in(&Folded::new("abc a\nc A-C")), 2);
        assert!(!keyword("abc").is_in(&Folded::new("ab")));
    }

    #[test]
    fn boundaries_are_those_of_python() {
        assert!(keyword("can").is_word_in(&Folded::new("You CAN.")));
        assert!(!keyword("can").is_word_in(&Folded::new("canes _can can_ scan")));
        // A combining mark is no word character, so the word ends before it.
        assert!(keyword("cafe").is_word_in(&Folded::new("cafe\u{301}")));
        // A pattern that starts with punctuation needs a word character before it.
        assert!(!keyword("#x").is_word_in(&Folded::new(" #x ")));
        assert!(keyword("#x").is_word_in(&Folded::new("a#x ")));
    }

    #[test]
    fn operators_are_refused_by_name() {
        for word in ["c++", "(a", "a|b", "[x]", r"\d", "a{2}", "$5"] {
            assert!(Keyword::new(word).unwrap_err().contains("operator"), "{word}");
        }
        assert!(keyword(r"c\+\+").is_in(&Folded::new("in C++")));
        assert!(Keyword::new("").is_err());
    }
}
