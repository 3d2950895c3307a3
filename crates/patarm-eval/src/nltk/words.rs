//! Words as `nltk.word_tokenize` cuts them: sentences first, then the rules of NLTK's Treebank-style
//! tokenizer (`NLTKWordTokenizer`, version 3.9.1), each a rewriting of the text that puts spaces
//! around what is a token of its own. The order of the rules matters.

use super::parameters::Parameters;
use super::sentences::sentences;
use crate::python::pattern::{eq_ignoring_case, fold};
use crate::python::text::{is_decimal, is_space, is_word};

/// The tokens of a text.
pub fn tokens(text: &str, parameters: &Parameters) -> Vec<String> {
    sentences(text, parameters).iter().flat_map(|sentence| sentence_tokens(sentence)).collect()
}

/// The tokens of one sentence.
pub fn sentence_tokens(sentence: &str) -> Vec<String> {
    let mut text: Vec<char> = sentence.chars().collect();
    for rule in [starting_quotes, punctuation, brackets, ending_quotes, contractions] {
        text = rule(&text);
    }
    text.split(|&c| is_space(c))
        .filter(|token| !token.is_empty())
        .map(|token| token.iter().collect())
        .collect()
}

/// Rewrites a text from the left: where `rule` matches at a position, it appends what replaces the
/// match and returns its length; elsewhere the character stays.
fn rewrite(text: &[char], rule: impl Fn(usize, &mut Vec<char>) -> Option<usize>) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 4);
    let mut at = 0;
    while at < text.len() {
        match rule(at, &mut out) {
            Some(length) => at += length,
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

/// Puts a space on both sides of every run of `is`, each run at most `most` long.
fn pad(text: &[char], most: usize, is: impl Fn(char) -> bool) -> Vec<char> {
    rewrite(text, |at, out| {
        let length = text[at..].iter().take(most).take_while(|&&c| is(c)).count();
        (length > 0).then(|| {
            padded(&text[at..at + length], out);
            length
        })
    })
}

fn padded(token: &[char], out: &mut Vec<char>) {
    out.push(' ');
    out.extend_from_slice(token);
    out.push(' ');
}

/// Puts a space on both sides of every occurrence of two characters.
fn pad_pair(text: &[char], pair: [char; 2]) -> Vec<char> {
    rewrite(text, |at, out| {
        text[at..].starts_with(&pair).then(|| {
            padded(&pair, out);
            2
        })
    })
}

fn starting_quotes(text: &[char]) -> Vec<char> {
    let text = rewrite(text, |at, out| {
        let length = match text[at] {
            '«' | '“' | '‘' | '„' => 1,
            '`' => text[at..].iter().take_while(|&&c| c == '`').count(),
            _ => return None,
        };
        padded(&text[at..at + length], out);
        Some(length)
    });
    let text = match text.split_first() {
        Some(('"', rest)) => [&['`', '`'], rest].concat(),
        _ => text,
    };
    let text = pad_pair(&text, ['`', '`']);
    let text = rewrite(&text, |at, out| {
        let quote = match text[at + 1..] {
            _ if !matches!(text[at], ' ' | '(' | '[' | '{' | '<') => return None,
            ['"', ..] => 1,
            ['\'', '\'', ..] => 2,
            _ => return None,
        };
        out.extend([text[at], ' ', '`', '`', ' ']);
        Some(1 + quote)
    });
    rewrite(&text, |at, out| {
        // An apostrophe before a single word character that begins no clitic.
        let letter = *text.get(at + 1)?;
        let ends = text.get(at + 2).is_none_or(|&c| !is_word(c));
        if text[at] != '\'' || !is_word(letter) || !ends || begins_clitic(&text[at + 1..]) {
            return None;
        }
        out.extend(['\'', ' ', letter]);
        Some(2)
    })
}

/// `re`, `ve`, `ll`, `m`, `t`, `s`, `d` or `n`, in either case.
fn begins_clitic(rest: &[char]) -> bool {
    let begins = |clitic: &str| begins_with(rest, clitic);
    ["re", "ve", "ll", "m", "t", "s", "d", "n"].into_iter().any(begins)
}

/// Whether `rest` begins with `word`, blind to case.
fn begins_with(rest: &[char], word: &str) -> bool {
    let mut chars = rest.iter();
    word.chars().all(|expected| chars.next().is_some_and(|&c| eq_ignoring_case(c, expected)))
}

fn punctuation(text: &[char]) -> Vec<char> {
    let text = final_period(
        text,
        |c| matches!(c, ']' | ')' | '}' | '>' | '"' | '\'' | '»' | '”' | '’' | ' '),
        true,
    );
    let text = rewrite(&text, |at, out| {
        let next = *text.get(at + 1)?;
        if !matches!(text[at], ':' | ',') || is_decimal(next) {
            return None;
        }
        out.extend([' ', text[at], ' ', next]);
        Some(2)
    });
    let text = final_comma(&text);
    let text = rewrite(&text, |at, out| {
        let length = text[at..].iter().take_while(|&&c| c == '.').count();
        (length >= 2).then(|| {
            padded(&text[at..at + length], out);
            length
        })
    });
    let text = pad(&text, 1, |c| matches!(c, ';' | '@' | '#' | '$' | '%' | '&'));
    let text = final_period(&text, |c| matches!(c, ']' | ')' | '}' | '>' | '"' | '\''), false);
    let text = pad(&text, 1, |c| matches!(c, '?' | '!'));
    let text = rewrite(&text, |at, out| {
        (text[at] != '\'' && text[at + 1..].starts_with(&['\'', ' '])).then(|| {
            out.extend([text[at], ' ', '\'', ' ']);
            3
        })
    });
    pad(&text, 1, |c| c == '*')
}

/// Splits off a full stop that only closing marks (`is_closing`) and white space follow.
fn final_period(text: &[char], is_closing: impl Fn(char) -> bool, spaced: bool) -> Vec<char> {
    let found = (1..text.len()).find(|&stop| {
        if text[stop] != '.' || text[stop - 1] == '.' {
            return false;
        }
        let rest = &text[stop + 1..];
        let num_closing = rest.iter().take_while(|&&c| is_closing(c)).count();
        rest[num_closing..].iter().all(|&c| is_space(c))
    });
    let Some(stop) = found else { return text.to_vec() };
    let rest = &text[stop + 1..];
    let num_closing = rest.iter().take_while(|&&c| is_closing(c)).count();
    let mut out = text[..stop].to_vec();
    out.extend([' ', '.']);
    if spaced {
        out.push(' ');
    }
    out.extend_from_slice(&rest[..num_closing]);
    out.push(' ');
    out
}

/// Pads a colon or comma at the end, or before a line feed at the end.
fn final_comma(text: &[char]) -> Vec<char> {
    let end = text.strip_suffix(&['\n']).map_or(text.len(), <[char]>::len);
    let ends = [text.len(), end];
    rewrite(text, |at, out| {
        (matches!(text[at], ':' | ',') && ends.contains(&(at + 1))).then(|| {
            padded(&text[at..=at], out);
            1
        })
    })
}

fn brackets(text: &[char]) -> Vec<char> {
    let text = pad(text, 1, |c| matches!(c, ']' | '[' | '(' | ')' | '{' | '}' | '<' | '>'));
    let mut spaced = vec![' '];
    spaced.extend(pad_pair(&text, ['-', '-']));
    spaced.push(' ');
    spaced
}

fn ending_quotes(text: &[char]) -> Vec<char> {
    let text = pad(text, 1, |c| matches!(c, '»' | '”' | '’'));
    let text = pad_pair(&text, ['\'', '\'']);
    let text = rewrite(&text, |at, out| {
        (text[at] == '"').then(|| {
            padded(&['\'', '\''], out);
            1
        })
    });
    let text = rewrite(&text, |at, out| {
        let length = text[at..].iter().take_while(|&&c| is_space(c)).count();
        (length > 0).then(|| {
            out.push(' ');
            length
        })
    });
    let text = split_suffix(&text, &["'s", "'S", "'m", "'M", "'d", "'D", "'"]);
    split_suffix(&text, &["'ll", "'LL", "'re", "'RE", "'ve", "'VE", "n't", "N'T"])
}

/// Splits a suffix off the word it ends: after anything but an apostrophe or a space, before a space.
fn split_suffix(text: &[char], suffixes: &[&str]) -> Vec<char> {
    rewrite(text, |at, out| {
        if matches!(text[at], '\'' | ' ') {
            return None;
        }
        let suffix = suffixes.iter().find(|suffix| {
            let mut rest = text[at + 1..].iter().copied();
            suffix.chars().all(|c| rest.next() == Some(c)) && rest.next() == Some(' ')
        })?;
        out.extend([text[at], ' ']);
        out.extend(suffix.chars());
        out.push(' ');
        Some(2 + suffix.chars().count())
    })
}

/// Contractions that are two words, after R. MacIntyre's tokenizer for the Penn Treebank.
fn contractions(text: &[char]) -> Vec<char> {
    const WHOLE: [(&str, &str); 7] = [
        ("can", "not"),
        ("d", "'ye"),
        ("gim", "me"),
        ("gon", "na"),
        ("got", "ta"),
        ("lem", "me"),
        ("more", "'n"),
    ];
    let mut text = text.to_vec();
    for (first, second) in WHOLE {
        text = split_contraction(&text, first, second, |text, start, end| {
            is_boundary(text, start) && is_boundary(text, end)
        });
    }
    text = split_contraction(&text, "wan", "na", |text, start, end| {
        is_boundary(text, start) && text.get(end).is_some_and(|&c| is_space(c))
    });
    for second in ["is", "was"] {
        text = split_contraction(&text, " 't", second, |text, _, end| is_boundary(text, end));
    }
    text
}

/// Splits `first` from `second` where they stand together and `fits`.
fn split_contraction(
    text: &[char],
    first: &str,
    second: &str,
    fits: impl Fn(&[char], usize, usize) -> bool,
) -> Vec<char> {
    let (cut, length) = (first.chars().count(), first.chars().count() + second.chars().count());
    let lead = first.chars().next().map(fold);
    rewrite(text, |at, out| {
        let rest = &text[at..];
        let found = lead == Some(fold(text[at]))
            && begins_with(rest, first)
            && begins_with(&rest[cut..], second)
            && fits(text, at, at + length);
        found.then(|| {
            // The space that belongs to ` 't` is not doubled.
            let start = usize::from(text[at] == ' ');
            padded(&rest[start..cut], out);
            out.extend_from_slice(&rest[cut..length]);
            out.push(' ');
            length
        })
    })
}

/// `\b` of Python's `re`.
fn is_boundary(text: &[char], at: usize) -> bool {
    let before = at.checked_sub(1).is_some_and(|index| is_word(text[index]));
    before != text.get(at).is_some_and(|&c| is_word(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(sentence: &str) -> String {
        sentence_tokens(sentence).join("|")
    }

    #[test]
    fn punctuation_is_cut_off() {
        assert_eq!(
            cut("Good muffins cost $3.88 (roughly 3,36 euros)\nin New York."),
            "Good|muffins|cost|$|3.88|(|roughly|3,36|euros|)|in|New|York|."
        );
        assert_eq!(cut("NASA, ESA: both! *A* -- B..."), "NASA|,|ESA|:|both|!|*|A|*|--|B|...");
    }

    #[test]
    fn quotes_and_clitics() {
        assert_eq!(cut("\"I'm sure he'd say 'so'.\""), "``|I|'m|sure|he|'d|say|'so|'|.|''");
        assert_eq!(cut("DON'T YOU'LL IT'S"), "DO|N'T|YOU|'LL|IT|'S");
    }

    #[test]
    fn contractions_are_two_words() {
        assert_eq!(cut("I CANNOT, gonna 'tis wanna go"), "I|CAN|NOT|,|gon|na|'t|is|wan|na|go");
        assert_eq!(cut("cannots wanna"), "cannots|wan|na");
    }

    #[test]
    fn hostile_runs_end() {
        for unit in ["' ", ".", "\"", "`", ": ", "n't ", "cannot"] {
            assert!(sentence_tokens(&unit.repeat(20_000)).len() <= 60_000);
        }
    }
}
