//! A cold start from a teacher that is wrong one time in five.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use crate::support::{rows, succeed, text, write};
use crate::training::tiny_judge;

/// Prompts the teacher is asked about.
const NUM_PROMPTS: usize = 40;

/// The teacher's script: wrong on one prompt in five, undecided on one in ten, and
/// without a score on one in thirteen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opinion {
    Right,
    Wrong,
    Tie,
    Unreadable,
}

fn opinion(prompt: usize) -> Opinion {
    match prompt {
        n if n % 5 == 3 => Opinion::Wrong,
        n if n % 10 == 6 => Opinion::Tie,
        n if n % 13 == 7 => Opinion::Unreadable,
        _ => Opinion::Right,
    }
}

fn answer_to(asked: &str) -> String {
    if asked.starts_with("Which kind of work") {
        return if asked.contains("question 1.") { "math".into() } else { "no idea".into() };
    }
    judgement(asked)
}

fn judgement(asked: &str) -> String {
    let number = asked.split("question ").nth(1).and_then(|rest| rest.split('.').next());
    let prompt: usize = number.and_then(|n| n.parse().ok()).expect("a known question");
    let is_good = asked.contains("good answer");
    let score = match opinion(prompt) {
        Opinion::Right => {
            if is_good {
                "7"
            } else {
                "3"
            }
        }
        Opinion::Wrong => {
            if is_good {
                "2"
            } else {
                "8"
            }
        }
        Opinion::Tie => "5",
        Opinion::Unreadable => "many",
    };
    format!("<rule>Use (60)\nTopic (40)</rule>\n<note>Read.</note>\n<score>{score}</score>")
}

fn answer(mut stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().ok()?;
            }
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request: Value = serde_json::from_slice(&body).ok()?;
    let said = answer_to(request["messages"][0]["content"].as_str()?);
    let reply = serde_json::json!({ "choices": [{ "message": { "content": said } }] }).to_string();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", reply.len());
    stream.write_all(format!("{head}{reply}").as_bytes()).ok()
}

/// Starts the teacher; gives what `--model` takes.
fn start_teacher() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer(stream));
        }
    });
    format!("openai:http://{address}/v1#scripted")
}

const RECIPE: &str = r#"
version = 1
model = "MODEL"
[data]
train = "pairs.jsonl"
held_out_share = 0.0
[judge]
template = "patarm-short"
rubric_mode = "generated"
max_judgement_tokens = 48
terminator = "none"
[cold_start]
steps = 1
batch = 2
source = { kind = "teacher", model = "TEACHER", judgements = 2 }
[grpo]
steps = 1
pairs = 2
num_judgements = 2
estimator = "marginal"
loss = { kl_estimator = "off" }
replay = { batch = 2 }
"#;

fn score(record: &Value) -> f64 {
    let text = record["judgement"].as_str().expect("text");
    let inside = text.split("<score>").nth(1).and_then(|rest| rest.split('<').next());
    inside.and_then(|digits| digits.parse().ok()).expect("kept judgements have a score")
}

#[test]
fn judgements_kept_from_a_fallible_teacher_agree_with_the_label_without_exception() {
    let folder = tempfile::tempdir().expect("folder");
    let pair = |n: usize| {
        format!(
            "{{\"prompt\": \"question {n}.\", \"chosen\": \"good answer\", \"rejected\": \"bad answer\"}}\n"
        )
    };
    write(folder.path(), "pairs.jsonl", (0..NUM_PROMPTS).map(pair).collect::<String>());
    let text_of_recipe =
        RECIPE.replace("MODEL", &tiny_judge(folder.path())).replace("TEACHER", &start_teacher());
    let recipe = write(folder.path(), "recipe.toml", text_of_recipe);
    let run = folder.path().join("run");
    succeed(&["train", &recipe, "--out", &text(&run)]);

    let kept = rows(&std::fs::read_to_string(run.join("cold_start.jsonl")).expect("records"));
    let mut scores: BTreeMap<usize, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    for record in &kept {
        let prompt = record["item"]["prompt"].to_string();
        let number = prompt.split("question ").nth(1).and_then(|rest| rest.split('.').next());
        let number = number.and_then(|n| n.parse().ok()).expect("a known question");
        let side = record["item"]["response"].as_str().expect("text");
        scores.entry(number).or_default().entry(side).or_default().push(score(record));
    }
    for (prompt, sides) in &scores {
        let mean = |side: &str| sides[side].iter().sum::<f64>() / sides[side].len() as f64;
        assert!(mean("good answer") > mean("bad answer"), "question {prompt}");
        assert!(sides.values().all(|scores| scores.len() == 2), "both judgements are kept");
    }
    let right: BTreeSet<usize> =
        (0..NUM_PROMPTS).filter(|prompt| opinion(*prompt) == Opinion::Right).collect();
    assert!(right.len() < NUM_PROMPTS && right.len() > NUM_PROMPTS / 2);
    assert_eq!(scores.keys().copied().collect::<BTreeSet<_>>(), right);
}

#[test]
fn a_model_fills_in_tasks_and_the_rules_where_it_fails() {
    let folder = tempfile::tempdir().expect("folder");
    let row = |prompt: &str| {
        format!("{{\"prompt\": \"{prompt}\", \"chosen\": \"good\", \"rejected\": \"bad\"}}\n")
    };
    let prompts = ["question 1.", "Write a Python function that sorts.", "question 1."];
    let pairs = write(folder.path(), "pairs.jsonl", prompts.map(row).concat());
    let out = text(&folder.path().join("out.jsonl"));
    let convert = |by: &str| {
        succeed(&["data", "convert", &pairs, "--to", "native", "--out", &out, "--tasks", by])
    };
    let tasks = || -> Vec<String> {
        let written = rows(&std::fs::read_to_string(&out).expect("file"));
        written.iter().map(|row| row["task"].as_str().expect("a task").to_owned()).collect()
    };
    convert(&start_teacher());
    assert_eq!(tasks(), ["math", "code", "math"]);
    convert("rules");
    assert_eq!(tasks(), ["chat", "code", "chat"]);
}
