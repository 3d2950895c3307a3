//! Sentence boundaries by the Punkt algorithm (Kiss and Strunk, *Unsupervised Multilingual Sentence
//! Boundary Detection*, Computational Linguistics 32(4), 2006), as NLTK applies it.
//!
//! Every full stop, question mark and exclamation mark that is followed by white space or by closing
//! punctuation is a candidate. Its context, the word before and the word after, is cut into tokens;
//! a first pass marks abbreviations and ellipses by type, a second pass revises the marks from the
//! pair of words. The corner cases are NLTK's, including the accidental ones: they decide counts.

use std::ops::Range;

use super::parameters::{Parameters, context};
use crate::python::text::{is_decimal, is_space, is_word};

/// Characters that cannot be inside a word, without the full stop.
fn is_non_word(c: char) -> bool {
    matches!(c, ')' | '"' | ';' | '}' | ']' | '*' | ':' | '@' | '\'' | '(' | '{' | '[' | '!' | '?')
}

fn is_sentence_end(c: char) -> bool {
    matches!(c, '.' | '?' | '!')
}

/// The sentences of a text.
pub fn sentences(text: &str, parameters: &Parameters) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    spans(&chars, parameters).into_iter().map(|span| chars[span].iter().collect()).collect()
}

/// The number of sentences of a text.
pub fn num_sentences(text: &str, parameters: &Parameters) -> usize {
    let chars: Vec<char> = text.chars().collect();
    spans(&chars, parameters).len()
}

fn spans(chars: &[char], parameters: &Parameters) -> Vec<Range<usize>> {
    realign(chars, &cut(chars, parameters))
}

/// A possible end of a sentence.
#[derive(Clone)]
struct Candidate {
    /// Where the mark stands.
    mark: usize,
    /// The word before it, up to the mark.
    word: Range<usize>,
    /// End of the context after the mark.
    after: usize,
    /// Start of the next token, where white space follows.
    next: Option<usize>,
}

/// Sentences before closing punctuation is moved: each ends after a mark and the next begins at the
/// following token. The last one may be reversed where only white space is left.
fn cut(chars: &[char], parameters: &Parameters) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut start = 0;
    for candidate in candidates(chars) {
        let context: Vec<char> = chars[candidate.word.start..candidate.after].to_vec();
        if contains_break(&context, parameters) {
            spans.push(start..candidate.mark + 1);
            start = candidate.next.unwrap_or(candidate.mark + 1);
        }
    }
    let end = chars.iter().rposition(|&c| !is_space(c)).map_or(0, |last| last + 1);
    spans.push(start..end);
    spans
}

/// The candidates in order; of those that share their word, the last.
fn candidates(chars: &[char]) -> Vec<Candidate> {
    let mut found = Vec::<Candidate>::new();
    let mut previous: Option<Candidate> = None;
    for mark in (0..chars.len()).filter(|&at| is_sentence_end(chars[at])) {
        let Some((after, next)) = context_after(chars, mark) else { continue };
        let (before_start, before_stop) = previous
            .as_ref()
            .map_or((0, 0), |candidate| (candidate.word.start, candidate.word.end));
        // White space at the very start of what lies between counts as none, as in the original.
        let space = (before_stop + 1..mark)
            .rev()
            .find(|&at| matches!(chars[at], ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}'));
        let word = space.map_or(before_start, |at| at + 1)..mark;
        if let Some(previous) = previous.take()
            && previous.word.end <= word.start
        {
            found.push(previous);
        }
        previous = Some(Candidate { mark, word, after, next });
    }
    found.extend(previous);
    found
}

/// End of the context after a mark and the start of the next token; `None` where it is no candidate.
fn context_after(chars: &[char], mark: usize) -> Option<(usize, Option<usize>)> {
    let first = *chars.get(mark + 1)?;
    if is_non_word(first) {
        return Some((mark + 2, None));
    }
    if !is_space(first) {
        return None;
    }
    let next = mark + 1 + chars[mark + 1..].iter().position(|&c| !is_space(c))?;
    Some((next + run(chars, next, |c| !is_space(c)), Some(next)))
}

/// Moves closing punctuation after a mark into the sentence it closes.
fn realign(chars: &[char], spans: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut moved = 0;
    let mut sentences = Vec::new();
    for (index, span) in spans.iter().enumerate() {
        let start = span.start + moved;
        let closing = spans.get(index + 1).and_then(|next| {
            let length = closing_punctuation(chars.get(next.clone()).unwrap_or_default())?;
            Some((next.start, length))
        });
        if let Some((next, length)) = closing {
            let closed = &chars[next..next + length];
            let end = closed.iter().rposition(|&c| !is_space(c)).map_or(0, |last| last + 1);
            sentences.push(start..next + end);
            moved = length;
            continue;
        }
        moved = 0;
        if start < span.end {
            sentences.push(start..span.end);
        }
    }
    sentences
}

/// Length of the closing punctuation that begins a sentence and belongs to the one before, with the
/// white space after it.
fn closing_punctuation(chars: &[char]) -> Option<usize> {
    let most = run(chars, 0, |c| matches!(c, '"' | '\'' | ')' | ']' | '}'));
    (1..=most).find_map(|length| {
        let space = run(chars, length, is_space);
        let rest = &chars[length..];
        let fits = space > 0 || rest.starts_with(&['-', '-']) || rest.is_empty();
        fits.then_some(length + space)
    })
}

/// A token with its marks.
struct Token {
    text: String,
    /// Lower case, numbers replaced by `##number##`.
    kind: String,
    is_break: bool,
    is_abbreviation: bool,
    is_ellipsis: bool,
}

impl Token {
    fn new(text: String, parameters: &Parameters) -> Self {
        let lower = text.to_lowercase();
        let kind = if is_number(&lower) { "##number##".to_owned() } else { lower };
        let mut token =
            Self { text, kind, is_break: false, is_abbreviation: false, is_ellipsis: false };
        token.mark(parameters);
        token
    }

    /// The first pass: marks by the type alone.
    fn mark(&mut self, parameters: &Parameters) {
        let text = self.text.as_str();
        if matches!(text, "." | "?" | "!") {
            self.is_break = true;
        } else if text.len() > 1 && text.bytes().all(|byte| byte == b'.') {
            self.is_ellipsis = true;
        } else if let Some(stem) = text.strip_suffix('.').filter(|stem| !stem.ends_with('.')) {
            let stem = stem.to_lowercase();
            let last = stem.rsplit('-').next().unwrap_or_default();
            let known = &parameters.abbreviations;
            self.is_abbreviation = known.contains(&stem) || known.contains(last);
            self.is_break = !self.is_abbreviation;
        }
    }

    /// The type without its final full stop.
    fn stem(&self) -> &str {
        match self.kind.strip_suffix('.') {
            Some(stem) if !stem.is_empty() => stem,
            _ => &self.kind,
        }
    }

    /// The type, without its final full stop where that ends a sentence.
    fn stem_at_break(&self) -> &str {
        if self.is_break { self.stem() } else { &self.kind }
    }

    /// One letter and a full stop.
    fn is_initial(&self) -> bool {
        let mut chars = self.text.chars();
        matches!((chars.next(), chars.next(), chars.next()),
            (Some(letter), Some('.'), None) if is_word(letter) && !is_decimal(letter))
    }

    fn begins_upper(&self) -> bool {
        self.text.chars().next().is_some_and(char::is_uppercase)
    }

    fn begins_lower(&self) -> bool {
        self.text.chars().next().is_some_and(char::is_lowercase)
    }

    fn context(&self, parameters: &Parameters) -> u8 {
        parameters.contexts.get(self.stem_at_break()).copied().unwrap_or(0)
    }

    /// Whether the word begins a sentence, by the contexts it is known from (section 4.1.1).
    fn begins_sentence(&self, parameters: &Parameters) -> Option<bool> {
        if matches!(self.text.as_str(), ";" | ":" | "," | "." | "!" | "?") {
            return Some(false);
        }
        let seen = self.context(parameters);
        if self.begins_upper() && seen & context::LOWER != 0 && seen & context::MID_UPPER == 0 {
            return Some(true);
        }
        let lower_only_inside = seen & context::UPPER != 0 || seen & context::BEGIN_LOWER == 0;
        (self.begins_lower() && lower_only_inside).then_some(false)
    }
}

/// `-?[.,]?\d[\d,.-]*\.?`, whole.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let text = text.strip_prefix(['.', ',']).unwrap_or(text);
    let mut chars = text.chars();
    chars.next().is_some_and(is_decimal)
        && chars.all(|c| is_decimal(c) || matches!(c, ',' | '.' | '-'))
}

/// Whether a sentence ends inside the context, not counting its last token.
fn contains_break(context: &[char], parameters: &Parameters) -> bool {
    let mut tokens: Vec<Token> = context
        .split(|&c| c == '\n')
        .filter(|line| line.iter().any(|&c| !is_space(c)))
        .flat_map(tokenize)
        .map(|text| Token::new(text, parameters))
        .collect();
    for index in 1..tokens.len() {
        let (before, after) = tokens.split_at_mut(index);
        if let (Some(token), Some(next)) = (before.last_mut(), after.first()) {
            revise(token, next, parameters);
            if token.is_break {
                return true;
            }
        }
    }
    false
}

/// The second pass: marks revised from the word that follows (sections 4.1 to 4.3).
fn revise(token: &mut Token, next: &Token, parameters: &Parameters) {
    if !token.text.ends_with('.') {
        return;
    }
    let is_initial = token.is_initial();
    let pair = (token.stem().to_owned(), next.stem_at_break().to_owned());
    if parameters.collocations.contains(&pair) {
        (token.is_break, token.is_abbreviation) = (false, true);
        return;
    }
    if (token.is_abbreviation || token.is_ellipsis) && !is_initial {
        let starts = next.begins_upper() && parameters.starters.contains(&pair.1);
        if next.begins_sentence(parameters) == Some(true) || starts {
            token.is_break = true;
            return;
        }
    }
    if is_initial || pair.0 == "##number##" {
        let only_upper =
            is_initial && next.begins_upper() && next.context(parameters) & context::LOWER == 0;
        match next.begins_sentence(parameters) {
            Some(false) => (token.is_break, token.is_abbreviation) = (false, true),
            None if only_upper => (token.is_break, token.is_abbreviation) = (false, true),
            _ => {}
        }
    }
}

/// The tokens of a line: words, runs of dots or hyphens, and single marks.
fn tokenize(line: &[char]) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < line.len() {
        if is_space(line[at]) {
            at += 1;
            continue;
        }
        let length = match run_of_marks(&line[at..]) {
            0 if begins_word(line[at]) => word_length(&line[at..]),
            0 => 1,
            length => length,
        };
        tokens.push(line[at..at + length].iter().collect());
        at += length;
    }
    tokens
}

fn begins_word(c: char) -> bool {
    !matches!(
        c,
        '(' | '"'
            | '`'
            | '{'
            | '['
            | ':'
            | ';'
            | '&'
            | '#'
            | '*'
            | '@'
            | ')'
            | '}'
            | ']'
            | '-'
            | ','
    )
}

/// Length of the word at the start: at least one character, up to where a word can end.
fn word_length(chars: &[char]) -> usize {
    (1..chars.len())
        .find(|&at| {
            let rest = &chars[at..];
            ends_word(rest) || (rest[0] == ',' && ends_word(&rest[1..]))
        })
        .unwrap_or(chars.len())
}

/// Whether a word ends where this rest begins.
fn ends_word(rest: &[char]) -> bool {
    rest.first().is_none_or(|&c| is_space(c) || is_non_word(c)) || run_of_marks(rest) > 0
}

/// Length of a run at the start of two or more hyphens, two or more dots, or three or more dots with
/// one space between each; 0 where there is none.
fn run_of_marks(chars: &[char]) -> usize {
    let hyphens = run(chars, 0, |c| c == '-');
    let dots = run(chars, 0, |c| c == '.');
    if hyphens >= 2 || dots >= 2 {
        return hyphens.max(dots);
    }
    let spaced = chars.chunks_exact(2).take_while(|pair| pair[0] == '.' && is_space(pair[1]));
    let num_pairs = spaced.count();
    let num_pairs = match chars.get(2 * num_pairs) {
        Some('.') => num_pairs,
        _ => num_pairs.saturating_sub(1),
    };
    if num_pairs >= 2 { 2 * num_pairs + 1 } else { 0 }
}

/// Length of the run at `from` of characters that satisfy `is`.
fn run(chars: &[char], from: usize, is: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().take_while(|&&c| is(c)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        sentences(text, Parameters::english())
    }

    #[test]
    fn abbreviations_and_initials_end_no_sentence() {
        assert_eq!(
            split("Mr. Smith met A. Doe at 5 p.m. and left. They talked."),
            ["Mr. Smith met A. Doe at 5 p.m. and left.", "They talked."]
        );
        assert_eq!(split("It cost 3.50 dollars. Cheap!"), ["It cost 3.50 dollars.", "Cheap!"]);
    }

    #[test]
    fn closing_punctuation_stays_with_its_sentence() {
        assert_eq!(split("(How?) \"So.\" He left."), ["(How?)", "\"So.\"", "He left."]);
        assert_eq!(split("Very bad acting!!! I promise."), ["Very bad acting!!!", "I promise."]);
    }

    #[test]
    fn nothing_and_white_space_have_no_sentence() {
        assert!(split("").is_empty() && split(" \n\t").is_empty());
        assert_eq!(split("no end"), ["no end"]);
    }

    #[test]
    fn spaced_dots_are_one_token() {
        let tokens = |text: &str| tokenize(&text.chars().collect::<Vec<_>>());
        assert_eq!(tokens("a . . . b"), ["a", ". . .", "b"]);
        assert_eq!(tokens("a . . . . "), ["a", ". . . ."]);
        assert_eq!(tokens("well--known, 1,000"), ["well", "--", "known", ",", "1,000"]);
        assert_eq!(tokens(". . b"), [".", ".", "b"]);
    }

    #[test]
    fn hostile_runs_take_linear_time() {
        for unit in [". ", "!", "? ", "a.b.", "(\"", "-- ", "1. ", ". . . x "] {
            let text = unit.repeat(20_000);
            assert!(num_sentences(&text, Parameters::english()) <= text.len());
        }
    }
}
