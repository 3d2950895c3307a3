//! Instructions about sentences, as the benchmark's own rules cut them.
//!
//! The splitter is the widely copied one of regular expressions: full stops that end no sentence
//! (titles, web addresses, decimals, initials, suffixes) are protected, then every `.`, `?` and `!`
//! ends one.

use super::marks::{bare_words, first, is_mark, without_punctuation};
use super::{Rule, plain};
use crate::ifeval::{InstructionError, arguments::Arguments, format::pattern};
use crate::python::text::{self, SPACE};

pub(super) fn rule(id: &str, a: &mut Arguments<'_>) -> Result<Option<Rule>, InstructionError> {
    Ok(match id {
        "ratio:sentence_type" => plain(|response| {
            let [declarative, interrogative, _] = types(&response.rule_sentences());
            declarative == 2 * interrogative
        }),
        "ratio:sentence_balance" => plain(|response| {
            let [declarative, interrogative, exclamatory] = types(&response.rule_sentences());
            declarative == interrogative && interrogative == exclamatory
        }),
        "ratio:sentence_words" => plain(|response| {
            let sentences = response.rule_sentences();
            let length = |sentence: &String| sentence.chars().count();
            sentences.len() == 3 && sentences.iter().all(|s| length(s) == length(&sentences[0]))
        }),
        "sentence:keyword" => {
            let (keyword, nth) = (a.text("word")?.to_lowercase(), a.positive("N")?);
            plain(move |response| {
                let sentences = response.rule_sentences();
                sentences.get(nth - 1).is_some_and(|text| text.to_lowercase().contains(&keyword))
            })
        }
        "sentence:increment" => {
            let step = a.count("small_n")?;
            plain(move |response| {
                let sentences = response.rule_sentences();
                let counts: Vec<usize> = sentences.iter().map(|s| bare_words(s).len()).collect();
                !counts.is_empty() && counts.windows(2).all(|pair| pair[1] == pair[0] + step)
            })
        }
        "sentence:alliteration_increment" => plain(|response| {
            let sentences = response.rule_sentences();
            let lengths: Vec<usize> = sentences.iter().map(|text| alliteration(text)).collect();
            lengths.windows(2).all(|pair| pair[1] > pair[0])
        }),
        "custom:sentence_alphabet" => plain(|response| {
            let sentences = response.rule_sentences();
            sentences.len() == 26
                && sentences.iter().zip('a'..='z').all(|(sentence, letter)| {
                    let word = text::split(sentence).next().unwrap_or_default();
                    first(&word.to_lowercase()) == Some(letter)
                })
        }),
        "format:emoji" => plain(|response| has_emoji_at_every_end(&response.rule_sentences())),
        _ => None,
    })
}

/// Numbers of sentences that end in `.`, `?` and `!`.
fn types(sentences: &[String]) -> [usize; 3] {
    ['.', '?', '!'].map(|mark| sentences.iter().filter(|text| text.ends_with(mark)).count())
}

/// The number of words in runs of words with one first letter.
fn alliteration(sentence: &str) -> usize {
    let lower = sentence.to_lowercase();
    let letters: Vec<char> =
        text::split(&lower).filter_map(|word| first(word.trim_start_matches(is_mark))).collect();
    let (mut length, mut running) = (0, false);
    for pair in letters.windows(2) {
        let same = pair[0] == pair[1];
        if same {
            length += if running { 1 } else { 2 };
        }
        running = same;
    }
    length
}

/// Every sentence has an emoji among its last two characters besides punctuation, or the next
/// sentence begins with one.
fn has_emoji_at_every_end(sentences: &[String]) -> bool {
    let bare: Vec<String> = sentences
        .iter()
        .map(|sentence| text::strip(&without_punctuation(sentence)).to_owned())
        .collect();
    bare.iter().enumerate().all(|(index, sentence)| {
        let ends = sentence.chars().rev().take(2).any(is_emoji);
        let next = bare.get(index + 1).and_then(|next| first(next)).is_some_and(is_emoji);
        !sentence.is_empty() && (ends || next)
    })
}

/// A character that is an emoji by itself: the property Emoji without digits, `#`, `*` and the
/// letters of flags.
fn is_emoji(c: char) -> bool {
    let mut buffer = [0; 4];
    !c.is_ascii()
        && !matches!(c, '\u{1f1e6}'..='\u{1f1ff}')
        && pattern!(r"^\p{Emoji}$").is_match(c.encode_utf8(&mut buffer))
}

/// Sentences by the benchmark's rules.
pub(crate) fn split(text: &str) -> Vec<String> {
    // No more than the rules need: replacements are many, so each pattern is compiled once.
    let mut text = format!(" {text}  ").replace('\n', " ");
    for (rule, replacement) in [
        (pattern!("(Mr|St|Mrs|Ms|Dr)[.]"), "${1}<prd>"),
        (pattern!("[.](com|net|org|io|gov|edu|me)"), "<prd>${1}"),
        (pattern!("([0-9])[.]([0-9])"), "${1}<prd>${2}"),
    ] {
        text = rule.replace_all(&text, replacement).into_owned();
    }
    text = pattern!(r"\.{2,}")
        .replace_all(&text, |dots: &regex::Captures<'_>| "<prd>".repeat(dots[0].len()) + "<stop>")
        .into_owned();
    text = text.replace("Ph.D.", "Ph<prd>D<prd>");
    for (rule, replacement) in [
        (pattern!(&format!("[{SPACE}]([A-Za-z])[.] ")), " ${1}<prd> "),
        (pattern!(&format!("([A-Z][.][A-Z][.](?:[A-Z][.])?) {}", starters())), "${1}<stop> ${2}"),
        (pattern!("([A-Za-z])[.]([A-Za-z])[.]([A-Za-z])[.]"), "${1}<prd>${2}<prd>${3}<prd>"),
        (pattern!("([A-Za-z])[.]([A-Za-z])[.]"), "${1}<prd>${2}<prd>"),
        (pattern!(&format!(" (Inc|Ltd|Jr|Sr|Co)[.] {}", starters())), " ${1}<stop> ${2}"),
        (pattern!(" (Inc|Ltd|Jr|Sr|Co)[.]"), " ${1}<prd>"),
        (pattern!(" ([A-Za-z])[.]"), " ${1}<prd>"),
    ] {
        text = rule.replace_all(&text, replacement).into_owned();
    }
    for (from, to) in [
        (".”", "”."),
        (".\"", "\"."),
        ("!\"", "\"!"),
        ("?\"", "\"?"),
        (".", ".<stop>"),
        ("?", "?<stop>"),
        ("!", "!<stop>"),
        ("<prd>", "."),
    ] {
        text = text.replace(from, to);
    }
    let mut sentences: Vec<String> =
        text.split("<stop>").map(|sentence| text::strip(sentence).to_owned()).collect();
    if sentences.last().is_some_and(String::is_empty) {
        sentences.pop();
    }
    sentences
}

/// Words that begin a sentence after an acronym or a suffix.
fn starters() -> String {
    let pronouns =
        ["He", "She", "It", "They", "Their", "Our", "We", "But", "However", "That", "This"]
            .map(|word| format!("{word}[{SPACE}]"))
            .join("|");
    format!("(Mr|Mrs|Ms|Dr|Prof|Capt|Cpt|Lt|{pronouns}|Wherever)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protected_stops_end_no_sentence() {
        assert_eq!(
            split("Mr. A. Smith paid 3.50 at shop.com. Why? \"So.\" U.S. He left... Inc. It"),
            [
                "Mr. A. Smith paid 3.50 at shop.com.",
                "Why?",
                "\"So\".",
                "U.S.",
                "He left...",
                "Inc",
                "It"
            ]
        );
        assert!(split("").is_empty());
    }

    #[test]
    fn emoji_are_single_characters() {
        assert!(
            is_emoji('😀') && is_emoji('©') && !is_emoji('1') && !is_emoji('🇦') && !is_emoji('a')
        );
    }

    #[test]
    fn alliteration_counts_words_in_runs() {
        assert_eq!(alliteration("Big blue balls, red rings."), 5);
        assert_eq!(alliteration("one two"), 0);
    }
}
