//! Chat templates and what they are given: the template, a NUL byte, a message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patarm_text::{ChatTemplate, Conversation, Message, RenderOptions, Role};

fuzz_target!(|data: &str| {
    let (source, message) = data.split_once('\0').unwrap_or((data, "hello"));
    let Ok(template) = ChatTemplate::new(source, "<s>", "</s>") else { return };
    let mut conversation = Conversation::from_user(message);
    conversation.messages.push(Message::text(Role::Assistant, message));
    for options in [RenderOptions::default(), RenderOptions::for_generation()] {
        let whole = template.render(&conversation, &options);
        let segments = template.render_segments(&conversation, &options);
        if let (Ok(whole), Ok(segments)) = (whole, segments) {
            let joined: String = segments.iter().map(|segment| segment.text.as_str()).collect();
            assert_eq!(joined, whole);
        }
    }
});
