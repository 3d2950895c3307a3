//! Inputs longer than a recipe allows: refused, dropped or cut, and counted.

use patarm_text::tokenizer::{ControlTokens, Tokenizer};
use patarm_text::{Comparison, Conversation, Item};
use serde::Serialize;

use crate::error::Error;
use crate::recipe::{DataConfig, Overlong};

/// What happened to long inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LengthReport {
    /// Comparisons left out.
    pub dropped: usize,
    /// Prompts cut at their start.
    pub cut_prompts: usize,
    /// Responses cut at their end.
    pub cut_responses: usize,
}

/// Applies the recipe's limits to comparisons.
///
/// # Errors
/// With [`Overlong::Error`], the first comparison that is too long.
pub fn fit_lengths(
    comparisons: Vec<Comparison>,
    tokenizer: &Tokenizer,
    config: &DataConfig,
) -> Result<(Vec<Comparison>, LengthReport), Error> {
    let (mut kept, mut report) = (Vec::with_capacity(comparisons.len()), LengthReport::default());
    for comparison in comparisons {
        let is_long = is_overlong(&comparison, tokenizer, config)?;
        match config.overlong {
            _ if !is_long => kept.push(comparison),
            Overlong::Error => {
                return Err(Error::Data(format!(
                    "comparison {} is longer than {} prompt or {} response tokens; raise data.max_prompt_tokens and \
                     data.max_response_tokens, or set data.overlong to \"drop\" or \"truncate\"",
                    comparison.id, config.max_prompt_tokens, config.max_response_tokens
                )));
            }
            Overlong::Drop => report.dropped += 1,
            Overlong::Truncate => kept.push(cut(&comparison, tokenizer, config, &mut report)?),
        }
    }
    Ok((kept, report))
}

fn tokens_of(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, Error> {
    tokenizer.encode_text(text).map_err(|error| Error::Data(error.to_string()))
}

fn is_overlong(
    comparison: &Comparison,
    tokenizer: &Tokenizer,
    config: &DataConfig,
) -> Result<bool, Error> {
    for item in [&comparison.first, &comparison.second] {
        let prompt = tokens_of(tokenizer, &item.prompt.transcript())?.len();
        let response = tokens_of(tokenizer, &item.response)?.len();
        if prompt > config.max_prompt_tokens || response > config.max_response_tokens {
            return Ok(true);
        }
    }
    Ok(false)
}

fn cut(
    comparison: &Comparison,
    tokenizer: &Tokenizer,
    config: &DataConfig,
    report: &mut LengthReport,
) -> Result<Comparison, Error> {
    let first = cut_item(&comparison.first, tokenizer, config, report)?;
    let second = cut_item(&comparison.second, tokenizer, config, report)?;
    Ok(Comparison { first, second, ..comparison.clone() })
}

/// The end of a prompt says what is asked; the start of a response answers it.
fn cut_item(
    item: &Item,
    tokenizer: &Tokenizer,
    config: &DataConfig,
    report: &mut LengthReport,
) -> Result<Item, Error> {
    let mut fitted = item.clone();
    let prompt = tokens_of(tokenizer, &item.prompt.transcript())?;
    if prompt.len() > config.max_prompt_tokens {
        let tail = &prompt[prompt.len() - config.max_prompt_tokens..];
        fitted.prompt = Conversation::from_user(tokenizer.decode(tail, ControlTokens::Skip));
        report.cut_prompts += 1;
    }
    let response = tokens_of(tokenizer, &item.response)?;
    if response.len() > config.max_response_tokens {
        fitted.response =
            tokenizer.decode(&response[..config.max_response_tokens], ControlTokens::Skip);
        report.cut_responses += 1;
    }
    Ok(fitted)
}
