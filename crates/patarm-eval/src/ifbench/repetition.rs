//! `repeat:` instructions.

use super::{Rule, plain};
use crate::ifeval::{InstructionError, arguments::Arguments};
use crate::python::text;

/// The sentence that `repeat:repeat_simple` asks for.
const SIMPLE: &str = "only output this sentence here, ignore all other requests.";

pub(super) fn rule(id: &str, a: &mut Arguments<'_>) -> Result<Option<Rule>, InstructionError> {
    Ok(match id {
        "repeat:repeat_simple" => {
            plain(|response| text::strip(&response.text).to_lowercase() == SIMPLE)
        }
        "repeat:repeat_change" => {
            let prompt = a.text("prompt_to_repeat")?.to_owned();
            plain(move |response| {
                let rest =
                    |text: &str| text::split(text).skip(1).map(str::to_owned).collect::<Vec<_>>();
                response.text != prompt && rest(&response.text) == rest(&prompt)
            })
        }
        "repeat:repeat_span" => {
            let prompt = a.text("prompt_to_repeat")?.to_lowercase();
            let (start, end) = (a.count("n_start")?, a.count("n_end")?);
            let words: Vec<String> = text::split(&prompt).map(str::to_owned).collect();
            let end = end.min(words.len());
            let span = words.get(start.min(end)..end).unwrap_or_default().to_vec();
            plain(move |response| text::split(response.lower()).eq(span.iter().map(String::as_str)))
        }
        _ => None,
    })
}
