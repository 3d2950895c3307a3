//! Rows of benchmarks that label one of two outputs.

use serde_json::Value;

use super::{Fields, Result, labelled};
use crate::comparison::{Comparison, Item, Preference};
use crate::conversation::Conversation;
use crate::dataset::error::ReadError;
use crate::dataset::messages::{required, text, wrong_type};

/// An instruction with its matter, as these benchmarks keep them.
fn instruction(fields: &Fields) -> Result<Conversation> {
    let prompt = text(fields, "instruction")?;
    super::with_input(fields, "instruction", prompt).map(Conversation::from_user)
}

fn item(prompt: &Conversation, response: &str) -> Item {
    Item { prompt: prompt.clone(), response: response.to_owned() }
}

/// A field that must be a whole number.
fn integer(fields: &Fields, name: &str) -> Result<i64> {
    let value = required(fields, name)?;
    value.as_i64().ok_or_else(|| wrong_type("a whole number", value).in_field(name))
}

/// `output` holds two answers; `choice_label` is the index of the better one, or
/// the ranks of both with 0 for the better.
pub(super) fn reward_bench(fields: &Fields) -> Result<Comparison> {
    let outputs = required(fields, "output")?;
    let two = match outputs.as_array().map(Vec::as_slice) {
        Some([first, second]) => first.as_str().zip(second.as_str()),
        _ => None,
    };
    let Some((first, second)) = two else {
        return Err(ReadError::bad_value("this is not a list of two strings").in_field("output"));
    };
    let label = required(fields, "choice_label")?;
    let ranks = label.as_array().map(|ranks| ranks.iter().map(Value::as_i64).collect::<Vec<_>>());
    let label = match (label.as_i64(), ranks.as_deref()) {
        (Some(0), _) | (_, Some([Some(0), Some(1)])) => Preference::First,
        (Some(1), _) | (_, Some([Some(1), Some(0)])) => Preference::Second,
        _ => {
            let problem = format!("{label} is neither 0 or 1 nor two ranks");
            return Err(ReadError::bad_value(problem).in_field("choice_label"));
        }
    };
    let prompt = instruction(fields)?;
    Ok(labelled(item(&prompt, first), item(&prompt, second), label))
}

/// `label` is 1 or 2, the better output.
pub(super) fn llm_bar(fields: &Fields) -> Result<Comparison> {
    let label = match integer(fields, "label")? {
        1 => Preference::First,
        2 => Preference::Second,
        other => {
            let problem = format!("{other} is neither 1 nor 2");
            return Err(ReadError::bad_value(problem).in_field("label"));
        }
    };
    let prompt = Conversation::from_user(text(fields, "input")?);
    let side = |name| text(fields, name).map(|response| item(&prompt, response));
    Ok(labelled(side("output_1")?, side("output_2")?, label))
}

/// `annotator1..` say 0 for a tie, 1 or 2. The majority counts, and how many share
/// its view is the strength; where no view has a majority it is a tie.
pub(super) fn panda_lm(fields: &Fields) -> Result<Comparison> {
    let mut votes = [0usize; 3];
    let mut num_votes = 0;
    for annotator in 1.. {
        let name = format!("annotator{annotator}");
        if fields.get(&name).is_none_or(Value::is_null) {
            break;
        }
        match integer(fields, &name)? {
            vote @ 0..=2 => votes[vote as usize] += 1,
            other => {
                let problem = format!("{other} is none of 0, 1 and 2");
                return Err(ReadError::bad_value(problem).in_field(&name));
            }
        }
        num_votes += 1;
    }
    let winner = (0..3).find(|&view| 2 * votes[view] > num_votes);
    let label = match winner {
        Some(1) => Preference::First,
        Some(2) => Preference::Second,
        _ => Preference::Tie,
    };
    let prompt = instruction(fields)?;
    // Some responses of the published set are bare truth values and numbers.
    let side = |name| match required(fields, name)? {
        scalar @ (Value::Bool(_) | Value::Number(_)) => Ok(item(&prompt, &scalar.to_string())),
        _ => text(fields, name).map(|response| item(&prompt, response)),
    };
    let mut comparison = labelled(side("response1")?, side("response2")?, label);
    comparison.strength = winner.map(|view| votes[view] as f64);
    Ok(comparison)
}

/// `preference` runs from 1 (the first is better) to 2; its distance from the
/// middle, doubled, is the strength. The middle itself is a tie.
pub(super) fn alpaca_eval(fields: &Fields) -> Result<Comparison> {
    let value = required(fields, "preference")?;
    let preference = value.as_f64().filter(|number| (1.0..=2.0).contains(number));
    let Some(preference) = preference else {
        let problem = format!("{value} is not a number from 1 to 2");
        return Err(ReadError::bad_value(problem).in_field("preference"));
    };
    let label = match preference.total_cmp(&1.5) {
        std::cmp::Ordering::Less => Preference::First,
        std::cmp::Ordering::Greater => Preference::Second,
        std::cmp::Ordering::Equal => Preference::Tie,
    };
    let prompt = Conversation::from_user(text(fields, "instruction")?);
    let side = |name| text(fields, name).map(|response| item(&prompt, response));
    let mut comparison = labelled(side("output_1")?, side("output_2")?, label);
    comparison.strength = Some((preference - 1.5).abs() * 2.0);
    Ok(comparison)
}
