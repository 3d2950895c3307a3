//! Texts as lists of words, for comparing what they say rather than how they are
//! spelt, and hashes that are the same on every machine.

use crate::conversation::Conversation;
use crate::random::mix;

/// FNV-1a over bytes, then mixed: stable for ever, so that splits are too. Not
/// meant to withstand people who look for collisions.
pub(crate) fn stable_hash(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    mix(hash)
}

/// Hashes of the words of a text: runs of letters and digits, in lower case.
/// Characters of scripts written without blanks are words of their own.
pub(crate) fn word_hashes(text: &str) -> Vec<u64> {
    let mut hashes = Vec::new();
    let mut word = String::new();
    let end = |word: &mut String, hashes: &mut Vec<u64>| {
        if !word.is_empty() {
            hashes.push(stable_hash(word.as_bytes()));
            word.clear();
        }
    };
    for c in text.chars() {
        if is_ideograph(c) {
            end(&mut word, &mut hashes);
            hashes.push(stable_hash(c.encode_utf8(&mut [0; 4]).as_bytes()));
        } else if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        } else {
            end(&mut word, &mut hashes);
        }
    }
    end(&mut word, &mut hashes);
    hashes
}

/// Han, kana and Hangul, the scripts of most data written without blanks.
fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7AF}'
        | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
}

/// A hash of a list of words, in order.
pub(crate) fn sequence_hash(words: &[u64]) -> u64 {
    words.iter().fold(words.len() as u64, |hash, &word| mix(hash.rotate_left(7) ^ word))
}

/// A hash of what a conversation says, whatever the case, blanks and punctuation.
/// A text without any word is told apart by its characters.
pub(crate) fn prompt_hash(prompt: &Conversation) -> u64 {
    let text = prompt.transcript();
    let words = word_hashes(&text);
    if words.is_empty() { stable_hash(text.trim().as_bytes()) } else { sequence_hash(&words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_does_not_matter_and_words_do() {
        assert_eq!(word_hashes("It's  2 GOOD!"), word_hashes("it s\n2 good"));
        assert_ne!(word_hashes("ab c"), word_hashes("a bc"));
        assert_eq!(word_hashes("東京tower都").len(), 4);
        assert!(word_hashes(" -- ").is_empty());
        let hash = |text: &str| prompt_hash(&Conversation::from_user(text));
        assert_eq!(hash("Hello, world"), hash("hello world "));
        assert_ne!(hash("world hello"), hash("hello world"));
        assert_ne!(hash("+"), hash("-"));
    }

    #[test]
    fn the_hash_is_the_published_one_and_stays() {
        // FNV-1a of the empty text is its offset basis.
        assert_eq!(stable_hash(b""), mix(0xCBF2_9CE4_8422_2325));
        assert_eq!(stable_hash(b"a"), mix(0xAF63_DC4C_8601_EC8C));
    }
}
