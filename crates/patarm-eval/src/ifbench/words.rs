//! `words:` instructions.

use std::collections::{HashMap, HashSet};

use super::marks::{bare_words, first, is_mark, stripped, without_punctuation};
use super::{Rule, plain};
use crate::ifeval::{InstructionError, arguments::Arguments};
use crate::python::text;

pub(super) fn rule(id: &str, a: &mut Arguments<'_>) -> Result<Option<Rule>, InstructionError> {
    Ok(match id {
        "words:alphabet" => plain(|response| is_alphabetical(&response.text)),
        "words:vowel" => plain(|response| {
            let paragraph = text::strip(&response.text).to_lowercase();
            let vowels: HashSet<char> =
                paragraph.chars().filter(|c| "aeiou".contains(*c)).collect();
            !paragraph.contains('\n') && vowels.len() <= 3
        }),
        "words:consonants" => plain(|response| text::split(response.lower()).all(has_cluster)),
        "words:palindrome" => plain(|response| {
            let is_palindrome =
                |word: &&String| word.chars().count() >= 5 && word.chars().eq(word.chars().rev());
            bare_words(response.lower()).iter().filter(is_palindrome).count() >= 10
        }),
        "words:prime_lengths" => plain(|response| {
            bare_words(&response.text).iter().all(|word| is_prime(word.chars().count()))
        }),
        "words:repeats" => {
            let most = a.count("small_n")?;
            plain(move |response| {
                let mut counts = HashMap::<String, usize>::new();
                bare_words(response.lower())
                    .into_iter()
                    .for_each(|w| *counts.entry(w).or_default() += 1);
                counts.values().all(|&count| count <= most)
            })
        }
        "words:no_consecutive" => plain(|response| {
            let words = bare_words(response.lower());
            words.windows(2).all(|pair| first(&pair[0]) != first(&pair[1]))
        }),
        "words:paragraph_last_first" => {
            plain(|response| response.text.split('\n').all(ends_as_it_began))
        }
        "words:last_first" => plain(|response| chain(&response.rule_sentences())),
        "words:keywords_specific_position" => {
            let keyword = a.stripped_text("keyword")?.to_owned();
            let (nth_sentence, nth_word) = (a.positive("n")?, a.positive("m")?);
            plain(move |response| {
                let sentences = response.rule_sentences();
                let tokens = sentences.get(nth_sentence - 1).map(|text| response.tokens_of(text));
                tokens.is_some_and(|tokens| tokens.get(nth_word - 1) == Some(&keyword))
            })
        }
        "words:words_position" => {
            let keyword = a.stripped_text("keyword")?.to_owned();
            plain(move |response| {
                let tokens = response.tokens();
                tokens.len() >= 2 && tokens[1] == keyword && tokens[tokens.len() - 2] == keyword
            })
        }
        _ => None,
    })
}

/// Each word begins with the letter after that of the word before, `a` after `z`.
fn is_alphabetical(response: &str) -> bool {
    let bare = without_punctuation(response);
    let mut words = text::split(bare.trim_matches(is_mark));
    let mut letter = words.next().and_then(first).into_iter().flat_map(char::to_lowercase);
    let (Some(mut due @ 'a'..='z'), None) = (letter.next(), letter.next()) else {
        return false;
    };
    for word in words.map(stripped).filter(|word| !word.is_empty()) {
        due = ('a'..='z').cycle().skip_while(|letter| *letter != due).nth(1).unwrap_or(due);
        if first(&word.to_lowercase()) != Some(due) {
            return false;
        }
    }
    true
}

/// Two consonants side by side.
fn has_cluster(word: &str) -> bool {
    let is_consonant = |byte: u8| byte.is_ascii_lowercase() && !b"aeiou".contains(&byte);
    word.as_bytes().windows(2).any(|pair| is_consonant(pair[0]) && is_consonant(pair[1]))
}

/// Primes below 100; longer words fail.
fn is_prime(length: usize) -> bool {
    (2..100).contains(&length) && (2..length).all(|divisor| !length.is_multiple_of(divisor))
}

/// A paragraph whose last word is its first; blank ones pass.
fn ends_as_it_began(paragraph: &str) -> bool {
    let lower = text::strip(paragraph).to_lowercase();
    if lower.is_empty() {
        return true;
    }
    let words: Vec<&str> = text::split(stripped(&lower)).collect();
    words.first().is_some_and(|first| words.last() == Some(first))
}

/// The last word of each sentence is the first of the next.
fn chain(sentences: &[String]) -> bool {
    sentences.windows(2).all(|pair| {
        let last = text::split(pair[0].trim_end_matches(is_mark)).last();
        let next = text::split(pair[1].trim_start_matches(is_mark)).next();
        match (last, next) {
            (Some(last), Some(next)) => last.to_lowercase() == next.to_lowercase(),
            _ => false,
        }
    })
}
