//! Character classes and string methods of Python's `str` and `re`.

use std::sync::LazyLock;

use regex_syntax::hir::{self, HirKind};

/// `\s` of Python's `re` inside a character class: `White_Space` and the four separators U+001C to
/// U+001F, which Python counts as space (`str.isspace`).
pub(crate) const SPACE: &str = r"\s\x1c-\x1f";

/// Whether `str.isspace` holds for the character.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Whether `\w` of Python's `re` matches: `str.isalnum` or an underscore.
///
/// `isalnum` is true of letters (general category L) and of everything with a numeric value, which
/// are the categories Nd, Nl and No. Combining marks and joiners are not word characters in Python,
/// unlike in Unicode's own definition of `\w`.
pub fn is_word(c: char) -> bool {
    static WORD: LazyLock<Class> = LazyLock::new(|| Class::new(r"[\p{L}\p{N}]"));
    if c.is_ascii() { c.is_ascii_alphanumeric() || c == '_' } else { WORD.contains(c) }
}

/// Whether `\d` of Python's `re` matches: general category Nd (`str.isdecimal`).
pub fn is_decimal(c: char) -> bool {
    static DECIMAL: LazyLock<Class> = LazyLock::new(|| Class::new(r"\p{Nd}"));
    if c.is_ascii() { c.is_ascii_digit() } else { DECIMAL.contains(c) }
}

/// Whether `str.isdigit` holds: a decimal, or a digit in another form, such as a superscript (property
/// Numeric_Type = Digit).
pub fn is_digit(c: char) -> bool {
    is_decimal(c)
        || matches!(u32::from(c),
            0xB2..=0xB3 | 0xB9 | 0x1369..=0x1371 | 0x19DA | 0x2070 | 0x2074..=0x2079
                | 0x2080..=0x2089 | 0x2460..=0x2468 | 0x2474..=0x247C | 0x2488..=0x2490 | 0x24EA
                | 0x24F5..=0x24FD | 0x24FF | 0x2776..=0x277E | 0x2780..=0x2788 | 0x278A..=0x2792
                | 0x10A40..=0x10A43 | 0x10E60..=0x10E68 | 0x11052..=0x1105A | 0x1F100..=0x1F10A)
}

/// A set of characters as sorted ranges.
struct Class(Vec<(char, char)>);

impl Class {
    /// The class that a constant pattern names; empty if it does not parse, which a test excludes.
    fn new(pattern: &str) -> Self {
        let hir = regex_syntax::parse(pattern).ok().map(hir::Hir::into_kind);
        Self(match hir {
            Some(HirKind::Class(hir::Class::Unicode(class))) => {
                class.iter().map(|range| (range.start(), range.end())).collect()
            }
            _ => Vec::new(),
        })
    }

    fn contains(&self, c: char) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= c);
        after.checked_sub(1).is_some_and(|at| c <= self.0[at].1)
    }
}

/// Whether the character is title case (general category Lt), like `ǅ`.
fn is_title(c: char) -> bool {
    matches!(u32::from(c),
        0x1C5 | 0x1C8 | 0x1CB | 0x1F2 | 0x1F88..=0x1F8F | 0x1F98..=0x1F9F | 0x1FA8..=0x1FAF
            | 0x1FBC | 0x1FCC | 0x1FFC)
}

/// `str.isupper`: at least one cased character, and every cased character is upper case.
pub fn is_upper(text: &str) -> bool {
    let mut cased = false;
    for c in text.chars() {
        if c.is_lowercase() || is_title(c) {
            return false;
        }
        cased |= c.is_uppercase();
    }
    cased
}

/// `str.islower`: at least one cased character, and every cased character is lower case.
pub fn is_lower(text: &str) -> bool {
    let mut cased = false;
    for c in text.chars() {
        if c.is_uppercase() || is_title(c) {
            return false;
        }
        cased |= c.is_lowercase();
    }
    cased
}

/// `str.strip()`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.rstrip()`.
pub fn strip_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// `str.split()`: the runs between white space.
pub fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|part| !part.is_empty())
}

/// The number of matches of `\w+`.
pub fn num_words(text: &str) -> usize {
    words(text).count()
}

/// The matches of `\w+`, in order.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_python() {
        assert_eq!(num_words("it's a_b ½ x² — 第一"), 6);
        // The vowel signs of Devanagari are marks: five runs, not one.
        assert_eq!(words("हिन्दी").collect::<Vec<_>>(), ["ह", "न", "द"]);
        assert_eq!(num_words("a\u{200d}b"), 2);
    }

    #[test]
    fn case_needs_a_cased_character() {
        assert!(is_upper("A 1.") && !is_upper("12") && !is_upper("Aa") && !is_upper("ǅ"));
        assert!(is_lower("a 1.") && !is_lower("") && !is_lower("ǅa"));
        assert!(is_upper("Ⅷ") && is_lower("ª"));
    }

    #[test]
    fn separators_are_space() {
        assert_eq!(strip("\u{1c}\u{a0} a\u{85}\u{3000}"), "a");
        assert_eq!(strip("\u{200b}a"), "\u{200b}a");
        assert_eq!(split("a\u{1f}b  c").collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
