//! Text that went through a chat template, taken apart again.
//!
//! Some trainers send what their policy read and wrote, control tokens spelt out. A
//! judge should read the conversation, not another model's markup. Two common formats
//! are recognised, and only when the whole text is in them; anything else is one user
//! message, as it is.

use patarm_text::{Conversation, Message, Role};

use super::native::role;

/// What may end a response in such text.
const ENDS: [&str; 6] =
    ["<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "</s>", "<eos>"];
/// What may begin a prompt.
const BEGINS: [&str; 2] = ["<|begin_of_text|>", "<s>"];

/// How turns look in one format.
struct Format {
    /// Before the role.
    open: &'static str,
    /// Between role and text.
    middle: &'static str,
    /// After the text.
    close: &'static str,
}

const FORMATS: [Format; 2] = [
    Format { open: "<|im_start|>", middle: "\n", close: "<|im_end|>" },
    Format { open: "<|start_header_id|>", middle: "<|end_header_id|>\n\n", close: "<|eot_id|>" },
];

/// A templated prompt as a conversation. What introduces the model's next turn is left out.
pub(crate) fn conversation(text: &str) -> Conversation {
    let begin = BEGINS.iter().find_map(|begin| text.strip_prefix(begin)).unwrap_or(text);
    let parsed = FORMATS.iter().find_map(|format| parse(begin, format));
    parsed.unwrap_or_else(|| Conversation::from_user(text))
}

/// A response without the tokens that end it.
pub(crate) fn response(text: &str) -> &str {
    let mut rest = text.trim_end();
    while let Some(shorter) = ENDS.iter().find_map(|end| rest.strip_suffix(end)) {
        rest = shorter.trim_end();
    }
    // Without an end token the text is complete as it is, blanks included.
    if rest.len() == text.trim_end().len() { text } else { rest }
}

fn parse(text: &str, format: &Format) -> Option<Conversation> {
    let mut messages = Vec::new();
    let mut rest = text;
    while !rest.trim().is_empty() {
        let turn = rest.trim_start().strip_prefix(format.open)?;
        let (name, body) = turn.split_once(format.middle)?;
        let who = role(name.trim()).ok()?;
        match body.split_once(format.close) {
            Some((content, after)) => {
                messages.push(Message::text(who, content.trim()));
                rest = after;
            }
            // An open turn of the model with nothing in it asks for the response.
            None if who == Role::Assistant && body.trim().is_empty() => break,
            None => return None,
        }
    }
    (!messages.is_empty()).then_some(Conversation { messages, tools: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_formats_become_messages() {
        let chatml = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi\nthere<|im_end|>\n\
                      <|im_start|>assistant\n";
        let llama = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>\
                     <|start_header_id|>user<|end_header_id|>\n\nHi\nthere<|eot_id|>\
                     <|start_header_id|>assistant<|end_header_id|>\n\n";
        let expected = Conversation {
            messages: vec![
                Message::text(Role::System, "Be kind."),
                Message::text(Role::User, "Hi\nthere"),
            ],
            tools: Vec::new(),
        };
        assert_eq!(conversation(chatml), expected);
        assert_eq!(conversation(llama), expected);
    }

    #[test]
    fn anything_else_stays_as_it_is() {
        for text in [
            "plain",
            "",
            "<|im_start|>user\nnever closed",
            "<|im_start|>nobody\nx<|im_end|>",
            "text before <|im_start|>user\nx<|im_end|>",
        ] {
            assert_eq!(conversation(text), Conversation::from_user(text));
        }
    }

    #[test]
    fn responses_lose_their_end_tokens() {
        assert_eq!(response("Yes.<|im_end|>"), "Yes.");
        assert_eq!(response("Yes.<|im_end|>\n<|endoftext|>"), "Yes.");
        assert_eq!(response("Yes. \n"), "Yes. \n");
        assert_eq!(response("say </s> twice</s>"), "say </s> twice");
        assert_eq!(response("</s>"), "");
    }
}
