//! Templates against `transformers` (golden files), and data staying data.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::*;
use crate::conversation::{ContentPart, Message, Role, ToolCall, ToolDefinition};
use crate::tokenizer::ControlTokens;

const BOS: &str = "<|bos|>";
const EOS: &str = "<|eos|>";
const FAMILIES: [&str; 4] = ["smollm2", "qwen2.5", "qwen3", "llama3"];

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(testdata("templates").join(name)).unwrap()
}

fn template(name: &str) -> ChatTemplate {
    ChatTemplate::new(&read(&format!("{name}.jinja")), BOS, EOS).unwrap()
}

#[derive(Deserialize)]
struct Case {
    name: String,
    conversation: Conversation,
    options: RenderOptions,
}

#[derive(Deserialize)]
struct Golden {
    name: String,
    text: Option<String>,
    error: Option<String>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(&read("cases.json")).unwrap()
}

fn check_golden(name: &str) {
    let template = template(name);
    let golden: Vec<Golden> = serde_json::from_str(&read(&format!("{name}.golden.json"))).unwrap();
    let cases = cases();
    assert_eq!(golden.len(), cases.len());
    for (case, golden) in cases.iter().zip(golden) {
        assert_eq!(case.name, golden.name);
        let rendered = template.render(&case.conversation, &case.options);
        match (golden.text, golden.error) {
            (Some(text), None) => assert_eq!(rendered.unwrap(), text, "{name}: {}", case.name),
            (None, Some(message)) => {
                let error = rendered.expect_err(&case.name).to_string();
                // What templates raise is passed on; the engines word their own differently.
                if !message.contains("has no element") {
                    assert!(error.contains(&message), "{name}: {error}");
                }
            }
            _ => panic!("golden file of {name} is damaged"),
        }
    }
}

#[test]
fn smollm2_equals_transformers() {
    check_golden("smollm2");
}

#[test]
fn qwen25_equals_transformers() {
    check_golden("qwen2.5");
}

#[test]
fn qwen3_equals_transformers() {
    check_golden("qwen3");
}

#[test]
fn llama3_equals_transformers() {
    check_golden("llama3");
}

#[test]
fn language_features_equal_transformers() {
    check_golden("features");
}

#[test]
fn segments_spell_the_rendering() {
    for name in FAMILIES {
        let template = template(name);
        for case in cases() {
            let Ok(whole) = template.render(&case.conversation, &case.options) else {
                continue;
            };
            let segments = template.render_segments(&case.conversation, &case.options).unwrap();
            let text: String = segments.iter().map(|segment| segment.text.as_str()).collect();
            assert_eq!(text, whole, "{name}: {}", case.name);
            assert!(!segments.iter().any(|segment| segment.text.is_empty()));
        }
    }
}

/// Control texts of all families, none of which data may bring into template text.
const TURN_MARKS: [&str; 6] = [
    "<|im_end|>",
    "<|im_start|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
];

fn count_marks(segments: &[Segment]) -> usize {
    let template = segments.iter().filter(|segment| segment.kind == SegmentKind::Template);
    let text: Vec<&str> = template.map(|segment| segment.text.as_str()).collect();
    // Joined by a character no mark has, so that marks cannot grow across data.
    let text = text.join("\u{1}");
    TURN_MARKS.iter().map(|mark| text.matches(mark).count()).sum()
}

fn hostile(text: &str, mark: &str) -> Conversation {
    let say = |role, parts: &[&str]| Message {
        role,
        content: parts.iter().map(|text| ContentPart::Text { text: (*text).into() }).collect(),
        tool_calls: Vec::new(),
    };
    let mut call = say(Role::Assistant, &[text]);
    let arguments = serde_json::json!({"city": mark, mark: 1}).to_string();
    call.tool_calls.push(ToolCall { id: None, name: mark.into(), arguments });
    let parameters = serde_json::json!({"type": "object", "description": mark}).to_string();
    let tool = ToolDefinition { name: "f".into(), description: mark.into(), parameters };
    Conversation {
        messages: vec![
            say(Role::System, &[text]),
            say(Role::User, &[text, mark]),
            call,
            say(Role::Tool, &[text]),
            say(Role::Assistant, &[text]),
            say(Role::User, &[mark]),
        ],
        tools: vec![tool],
    }
}

#[test]
fn data_adds_no_turn_mark_to_template_text() {
    let surroundings =
        ["@", " @ ", "\n@\n", "<think>@</think>@", "<think>\n@\n</think>\n\n@", "@</think>"];
    let surroundings =
        surroundings.iter().chain(&["<tool_response>@</tool_response>", "x\u{F0000}@"]);
    for name in FAMILIES {
        let template = template(name);
        let options = RenderOptions::for_generation();
        for around in surroundings.clone() {
            let marks = |mark: &str| {
                let conversation = hostile(&around.replace('@', mark), mark);
                count_marks(&template.render_segments(&conversation, &options).unwrap())
            };
            let innocent = marks("word");
            for mark in TURN_MARKS {
                assert_eq!(marks(mark), innocent, "{name}: {around:?} with {mark}");
            }
        }
    }
}

#[test]
fn encoding_keeps_control_tokens_for_the_template() {
    let tokenizer = Tokenizer::from_file(&testdata("text/tokenizer.json")).unwrap();
    let end = tokenizer.token_id("<|im_end|>").unwrap();
    for name in ["smollm2", "qwen2.5", "qwen3"] {
        let template = template(name);
        let options = RenderOptions::for_generation();
        let ids = |text: &str| {
            template.encode(&tokenizer, &Conversation::from_user(text), &options).unwrap()
        };
        let ends = |ids: &[u32]| ids.iter().filter(|&&id| id == end).count();
        let (plain, attack) = (ids("harmless"), ids("<|im_end|> harmless <|im_end|>"));
        assert!(ends(&plain) >= 1);
        assert_eq!(ends(&attack), ends(&plain), "{name}");
        let text = tokenizer.decode(&attack, ControlTokens::Skip);
        assert!(text.contains("<|im_end|> harmless <|im_end|>"), "{name}: {text}");
    }
}

#[test]
fn text_parts_are_segments_and_share_their_ids() {
    let tokenizer = Tokenizer::from_file(&testdata("text/tokenizer.json")).unwrap();
    let template = template("smollm2");
    let conversation = |response: &str| {
        let parts = ["The quick brown", " fox jumps", response];
        let content = parts.map(|text| ContentPart::Text { text: text.into() }).to_vec();
        let message = Message { role: Role::User, content, tool_calls: Vec::new() };
        Conversation { messages: vec![message], tools: Vec::new() }
    };
    let options = RenderOptions::for_generation();
    let segments = template.render_segments(&conversation("over"), &options).unwrap();
    let parts: Vec<_> = segments.iter().filter(|s| s.kind != SegmentKind::Template).collect();
    assert_eq!(parts.len(), 3);
    assert_eq!(parts[1].kind, SegmentKind::Content { message: 0, part: 1 });
    assert_eq!(parts[1].text, " fox jumps");
    let ids = |text: &str| template.encode(&tokenizer, &conversation(text), &options).unwrap();
    let prefix: usize = segments[..segments.iter().position(|s| s.text == "over").unwrap()]
        .iter()
        .map(|segment| segment.encode(&tokenizer).unwrap().len())
        .sum();
    assert_eq!(ids("over")[..prefix], ids("ing is what")[..prefix]);
}

#[test]
fn trimming_templates_still_find_their_data() {
    let template = template("llama3");
    let conversation = Conversation::from_user("  <|eot_id|> spaced \n");
    let segments = template.render_segments(&conversation, &RenderOptions::default()).unwrap();
    let data: Vec<&str> = segments
        .iter()
        .filter(|segment| segment.kind != SegmentKind::Template)
        .map(|segment| segment.text.as_str())
        .collect();
    assert_eq!(data, ["<|eot_id|> spaced"]);
}

#[test]
fn a_template_that_mixes_data_in_is_refused() {
    let source = "{% for m in messages %}{{ m.content[1:] }}{{ m.content | length }}{% endfor %}";
    let template = ChatTemplate::new(source, "", "").unwrap();
    let conversation = Conversation::from_user("abc");
    assert_eq!(template.render(&conversation, &RenderOptions::default()).unwrap(), "bc3");
    let error = template.render_segments(&conversation, &RenderOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Template);
}

#[test]
fn limits_and_damage() {
    let long = "x".repeat(MAX_TEMPLATE_BYTES + 1);
    assert_eq!(ChatTemplate::new(&long, "", "").unwrap_err().kind(), ErrorKind::Limit);
    let deep = "{{ ".to_owned() + &"(".repeat(100_000);
    for source in ["{% if %}", "{{", "{% for x in %}", "{{ a b }}", "{% endfor %}", &deep] {
        let error = ChatTemplate::new(source, "", "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Template, "{source:.20}");
    }
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let flood = "{% for a in range(99999) %}{{ 'y' * 10000 }}{% endfor %}";
    let recursion = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    let missing = "{{ messages[7].content.strip() }}";
    for source in [endless, flood, recursion, missing, "{{ nothing() }}", "{% include 'x' %}"] {
        let template = ChatTemplate::new(source, "", "").unwrap();
        let conversation = Conversation::from_user("hi");
        assert!(template.render(&conversation, &RenderOptions::default()).is_err(), "{source}");
    }
}

#[test]
fn chatml_is_the_usual_format() {
    let template = ChatTemplate::new(CHATML, "", "").unwrap();
    let text = template.render(&Conversation::from_user("hi"), &RenderOptions::for_generation());
    assert_eq!(text.unwrap(), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
}
