//! Dialogues written as `"\n\nHuman: …\n\nAssistant: …"`.

use super::error::ReadError;
use crate::conversation::{Message, Role};

const MARKS: [(&str, Role); 2] = [("\n\nHuman:", Role::User), ("\n\nAssistant:", Role::Assistant)];

/// The turns of a transcript. One blank after each mark is part of the mark, all
/// other text is kept as it stands.
///
/// # Errors
/// When the text does not begin with a mark.
pub(super) fn parse(text: &str) -> Result<Vec<Message>, ReadError> {
    // The first mark may lack its blank lines.
    let text = format!("\n\n{}", text.trim_start());
    let mut rest = text.as_str();
    let mut messages = Vec::new();
    let Some((0, mut role, mut length)) = next_mark(rest) else {
        return Err(ReadError::bad_value(
            "the transcript does not begin with Human: or Assistant:",
        ));
    };
    loop {
        rest = &rest[length..];
        let next = next_mark(rest);
        let end = next.map_or(rest.len(), |(at, _, _)| at);
        let content = &rest[..end];
        messages.push(Message::text(role, content.strip_prefix(' ').unwrap_or(content)));
        match next {
            Some((at, next_role, next_length)) => {
                rest = &rest[at..];
                role = next_role;
                length = next_length;
            }
            None => return Ok(messages),
        }
    }
}

/// Place, speaker and length of the next mark.
fn next_mark(text: &str) -> Option<(usize, Role, usize)> {
    MARKS
        .iter()
        .filter_map(|(mark, role)| Some((text.find(mark)?, *role, mark.len())))
        .min_by_key(|(at, _, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_cut_at_marks_and_kept_exact() {
        let text =
            "\n\nHuman: Hi\n\nthere \n\nAssistant:  Hello\nHuman: no\n\nHuman:\n\nAssistant: ";
        let turns: Vec<(Role, String)> = parse(text)
            .unwrap()
            .into_iter()
            .map(|message| (message.role, message.plain_text()))
            .collect();
        let want = [
            (Role::User, "Hi\n\nthere "),
            (Role::Assistant, " Hello\nHuman: no"),
            (Role::User, ""),
            (Role::Assistant, ""),
        ];
        assert_eq!(turns, want.map(|(role, text)| (role, text.to_owned())));
        assert!(parse("Human: x").is_ok());
        assert!(parse("hello\n\nHuman: x").is_err());
        assert!(parse("").is_err());
    }
}
