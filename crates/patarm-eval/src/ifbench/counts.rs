//! `count:` instructions, and the share of trigrams.

use std::collections::HashSet;

use super::marks::{bare_words, stripped, without_punctuation};
use super::{Rule, plain};
use crate::ifeval::{InstructionError, arguments::Arguments, response::Variant};
use crate::python::text;

const CONJUNCTIONS: [&str; 7] = ["and", "but", "for", "nor", "or", "so", "yet"];

const PRONOUNS: [&str; 31] = [
    "i",
    "me",
    "my",
    "mine",
    "myself",
    "we",
    "us",
    "our",
    "ours",
    "ourselves",
    "you",
    "your",
    "yours",
    "yourself",
    "yourselves",
    "he",
    "him",
    "his",
    "himself",
    "she",
    "her",
    "hers",
    "herself",
    "it",
    "its",
    "itself",
    "they",
    "them",
    "their",
    "theirs",
    "themselves",
];

/// The names that the prompt of `count:person_names` lists.
const NAMES: [&str; 50] = [
    "Emma",
    "Liam",
    "Sophia",
    "Jackson",
    "Olivia",
    "Noah",
    "Ava",
    "Lucas",
    "Isabella",
    "Mason",
    "Mia",
    "Ethan",
    "Charlotte",
    "Alexander",
    "Amelia",
    "Benjamin",
    "Harper",
    "Leo",
    "Zoe",
    "Daniel",
    "Chloe",
    "Samuel",
    "Lily",
    "Matthew",
    "Grace",
    "Owen",
    "Abigail",
    "Gabriel",
    "Ella",
    "Jacob",
    "Scarlett",
    "Nathan",
    "Victoria",
    "Elijah",
    "Layla",
    "Nicholas",
    "Audrey",
    "David",
    "Hannah",
    "Christopher",
    "Penelope",
    "Thomas",
    "Nora",
    "Andrew",
    "Aria",
    "Joseph",
    "Claire",
    "Ryan",
    "Stella",
    "Jonathan",
];

pub(super) fn rule(id: &str, a: &mut Arguments<'_>) -> Result<Option<Rule>, InstructionError> {
    Ok(match id {
        "count:word_count_range" => {
            let (least, most) = (a.count("min_words")?, a.count("max_words")?);
            plain(move |response| (least..=most).contains(&text::num_words(&response.text)))
        }
        "count:unique_word_count" => {
            let least = a.count("N")?;
            plain(move |response| {
                text::split(response.lower()).map(stripped).collect::<HashSet<_>>().len() >= least
            })
        }
        "count:conjunctions" => {
            let least = a.count("small_n")?;
            plain(move |response| num_conjunctions(response) >= least)
        }
        "count:person_names" => {
            let least = a.count("N")?;
            plain(move |response| {
                NAMES.iter().filter(|name| response.text.contains(**name)).count() >= least
            })
        }
        "count:pronouns" => {
            let least = a.count("N")?;
            plain(move |response| num_pronouns(response) >= least)
        }
        "count:numbers" => {
            let exactly = a.count("N")?;
            plain(move |response| {
                let bare = without_punctuation(&response.text);
                bare.split(|c| !text::is_decimal(c)).filter(|run| !run.is_empty()).count()
                    == exactly
            })
        }
        "count:punctuation" => plain(|response| has_all_punctuation(&response.text)),
        "count:keywords_multiple" => keywords_multiple(a)?,
        "count:words_japanese" => {
            let every = a.positive("N")?;
            plain(move |response| is_every_word_japanese(&response.text, every))
        }
        "ratio:overlap" => overlap(a)?,
        _ => None,
    })
}

/// Distinct coordinating conjunctions as they are written: `And` and `and,` count as two.
fn num_conjunctions(response: &Variant<'_>) -> usize {
    let is_conjunction =
        |word: &&str| CONJUNCTIONS.contains(&stripped(word).to_lowercase().as_str());
    text::split(&response.text).filter(is_conjunction).collect::<HashSet<_>>().len()
}

fn num_pronouns(response: &Variant<'_>) -> usize {
    let lower = response.text.replace('/', " ").to_lowercase();
    let is_pronoun = |word: &&String| PRONOUNS.contains(&word.as_str());
    bare_words(&lower).iter().filter(is_pronoun).count()
}

/// An interrobang, and besides one pair of it every one of `.,!?;:`.
fn has_all_punctuation(response: &str) -> bool {
    if !["!?", "?!", "‽"].iter().any(|bang| response.contains(bang)) {
        return false;
    }
    let bang = if response.contains("?!") { "?!" } else { "!?" };
    let rest = response.replacen(bang, "", 1);
    ['.', ',', '!', '?', ';', ':'].into_iter().all(|mark| rest.contains(mark))
}

/// Five keywords, exactly once, twice, three, five and seven times.
fn keywords_multiple(a: &mut Arguments<'_>) -> Result<Option<Rule>, InstructionError> {
    let mut expected = Vec::new();
    for (name, count) in
        [("keyword1", 1), ("keyword2", 2), ("keyword3", 3), ("keyword4", 5), ("keyword5", 7)]
    {
        expected.push((a.stripped_text(name)?.to_lowercase(), count));
    }
    Ok(plain(move |response| {
        expected
            .iter()
            .all(|(keyword, count)| response.lower().matches(keyword.as_str()).count() == *count)
    }))
}

/// Every n-th word, unless it is empty without marks or a number, has a Japanese character.
fn is_every_word_japanese(response: &str, every: usize) -> bool {
    let is_japanese = |c: char| matches!(c, '\u{3040}'..='\u{30ff}' | '\u{4e00}'..='\u{9fff}');
    text::split(response).enumerate().filter(|(index, _)| (index + 1) % every == 0).all(
        |(_, word)| {
            let word = stripped(word);
            word.chars().all(text::is_digit) || word.chars().any(is_japanese)
        },
    )
}

/// The share of the response's distinct trigrams of characters that the text has, within 2 points.
fn overlap(a: &mut Arguments<'_>) -> Result<Option<Rule>, InstructionError> {
    let reference = trigrams(a.text("reference_text")?);
    let percentage = a.count("percentage")? as f64;
    Ok(plain(move |response| {
        let own = trigrams(&response.text);
        let shared = own.intersection(&reference).count();
        let overlap = shared as f64 / own.len() as f64 * 100.0;
        !own.is_empty() && (percentage - 2.0..=percentage + 2.0).contains(&overlap)
    }))
}

fn trigrams(text: &str) -> HashSet<[char; 3]> {
    let chars: Vec<char> = text.chars().collect();
    chars.windows(3).map(|window| [window[0], window[1], window[2]]).collect()
}
