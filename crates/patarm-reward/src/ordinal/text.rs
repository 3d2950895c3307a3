//! The question that is answered by a digit.

use std::sync::Arc;

use patarm_text::Item;
use patarm_text::tokenizer::Tokenizer;

use super::NUM_RATINGS;
use crate::embedded::chat_frame;
use crate::error::{Error, ErrorKind, Result};
use crate::scalar::{EncodedItem, refuse_empty};
use crate::template::ChatFrame;

/// What the model is asked.
const INSTRUCTION: &str = "Rate how good the response to the conversation is, from 1 (useless or \
                           harmful) to 9 (excellent). Answer with one digit.";
/// What the answer begins with.
const CUE: &str = "Score:";

/// Asks for a rating and knows the digit tokens.
#[derive(Clone, Debug)]
pub struct OrdinalText {
    tokenizer: Arc<Tokenizer>,
    frame: ChatFrame,
    cue: Vec<u32>,
    digits: [u32; NUM_RATINGS],
}

impl OrdinalText {
    /// Binds a tokenizer.
    ///
    /// # Errors
    /// When the chat template fails, or a digit is not a single token of the vocabulary.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Result<Self> {
        let frame = chat_frame(&tokenizer)?;
        let encode = |text: &str| tokenizer.encode_template(text).map_err(refused);
        let (cue, digits) = digit_tokens(&encode)?;
        Ok(Self { tokenizer, frame, cue, digits })
    }

    /// The tokens of the ratings 1..=9.
    #[must_use]
    pub fn digits(&self) -> &[u32; NUM_RATINGS] {
        &self.digits
    }

    /// Encodes an item; the rating is read at the last token of `response`.
    ///
    /// # Errors
    /// When the response is empty or the tokenizer refuses a text.
    pub fn encode(&self, item: &Item) -> Result<EncodedItem> {
        refuse_empty(item)?;
        let template = |text: &str| self.tokenizer.encode_template(text).map_err(refused);
        let data = |text: &str| self.tokenizer.encode_text(text).map_err(refused);
        let ChatFrame { before_user, after_user_before_assistant } = &self.frame;
        let mut prompt = template(&format!("{before_user}{INSTRUCTION}\n\n# Conversation\n"))?;
        prompt.extend(data(&item.prompt.transcript())?);
        prompt.extend(template("\n\n# Response\n")?);
        let mut response = data(&item.response)?;
        let num_content = response.len();
        response.extend(template(after_user_before_assistant)?);
        response.extend(&self.cue);
        Ok(EncodedItem { prompt, response, num_content, num_scored: num_content })
    }
}

/// The cue's tokens and the digits after it: one token each, with their leading space
/// where the vocabulary has such tokens, else with the space at the end of the cue.
fn digit_tokens(
    encode: &dyn Fn(&str) -> Result<Vec<u32>>,
) -> Result<(Vec<u32>, [u32; NUM_RATINGS])> {
    for (cue, lead) in [(CUE.to_owned(), " "), (format!("{CUE} "), ""), (CUE.to_owned(), "")] {
        let cue_tokens = encode(&cue)?;
        let mut digits = [0; NUM_RATINGS];
        let mut all = true;
        for (rating, digit) in (1..=NUM_RATINGS).zip(&mut digits) {
            let whole = encode(&format!("{cue}{lead}{rating}"))?;
            match whole.strip_prefix(cue_tokens.as_slice()) {
                Some([one]) => *digit = *one,
                _ => all = false,
            }
        }
        let mut distinct = digits.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        if all && distinct.len() == NUM_RATINGS {
            return Ok((cue_tokens, digits));
        }
    }
    Err(Error::new(
        ErrorKind::Input,
        "the digits 1 to 9 are not single tokens of this vocabulary; an ordinal reward cannot be \
         read off this model",
    ))
}

fn refused(error: patarm_text::Error) -> Error {
    Error::new(ErrorKind::Input, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_with_a_leading_space_is_taken_where_it_exists() {
        // Tokens: cue 1, space 2, " d" 10 + d, "d" 20 + d.
        let spaced = |text: &str| -> Result<Vec<u32>> {
            let rest = text.strip_prefix(CUE).expect("the cue");
            let digit = rest.trim().parse::<u32>().ok();
            Ok(match (rest.starts_with(' '), digit) {
                (true, Some(digit)) => vec![1, 10 + digit],
                (true, None) => vec![1, 2],
                (false, Some(digit)) => vec![1, 20 + digit],
                (false, None) => vec![1],
            })
        };
        let (cue, digits) = digit_tokens(&spaced).expect("found");
        assert_eq!((cue, digits[0], digits[8]), (vec![1], 11, 19));
        // Without such tokens the space ends the cue.
        let bare = |text: &str| -> Result<Vec<u32>> {
            let rest = text.strip_prefix(CUE).expect("the cue");
            let mut tokens = vec![1];
            tokens.extend(rest.chars().map(|c| c.to_digit(10).map_or(2, |digit| 20 + digit)));
            Ok(tokens)
        };
        let (cue, digits) = digit_tokens(&bare).expect("found");
        assert_eq!((cue, digits[0], digits[8]), (vec![1, 2], 21, 29));
    }

    #[test]
    fn a_vocabulary_without_digits_is_refused_in_one_sentence() {
        let unknown = |text: &str| -> Result<Vec<u32>> {
            Ok(text.chars().map(|c| if c.is_ascii_digit() { 0 } else { 1 }).collect())
        };
        let message = digit_tokens(&unknown).expect_err("all digits are one token").to_string();
        assert!(message.contains("not single tokens"), "{message}");
    }
}
