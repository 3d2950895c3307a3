//! Punctuation as Python's `string.punctuation` has it, for several rules.

use crate::python::text;

/// The text without ASCII punctuation (`str.translate` with `string.punctuation` deleted).
pub(super) fn without_punctuation(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_punctuation()).collect()
}

/// ASCII punctuation or a space: what the rules strip from words.
pub(super) fn is_mark(c: char) -> bool {
    c.is_ascii_punctuation() || c == ' '
}

/// A word without marks on either side.
pub(super) fn stripped(word: &str) -> &str {
    word.trim_matches(is_mark)
}

/// The words between white space of a text without punctuation.
pub(super) fn bare_words(text: &str) -> Vec<String> {
    text::split(&without_punctuation(text)).map(str::to_owned).collect()
}

/// The first character.
pub(super) fn first(word: &str) -> Option<char> {
    word.chars().next()
}
