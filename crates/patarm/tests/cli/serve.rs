//! The server as a process: it listens, answers, and stops cleanly under load.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{fail, repository, write};
use crate::training::tiny_judge;

struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_patarm"))
            .args(["serve", "--port", "0", "--threads", "1", "--log-format", "json"])
            .args(arguments)
            .current_dir(repository())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("standard output");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on http://");
        let address = address.unwrap_or_else(|| panic!("no address: {line}")).to_owned();
        Self { child, address }
    }

    fn send(&self, path: &str, body: &Value) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).expect("is sent");
        stream
    }

    /// SIGTERM; gives the exit code and the log.
    fn stop(mut self) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().expect("standard error");
        stderr.read_to_string(&mut log).expect("the log is text");
        (self.child.wait().expect("it ends").code(), log)
    }
}

/// Status and body of an answer.
fn read(mut stream: TcpStream) -> (u16, String) {
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("an answer");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

#[test]
fn a_judge_is_served_and_stops_under_load() {
    let folder = tempfile::tempdir().expect("folder");
    let model = format!("tiny={}", tiny_judge(folder.path()));
    let served = Served::start(&[
        "--model",
        &model,
        "--template",
        "patarm-short",
        "--max-tokens",
        "6",
        "--cache-tokens",
        "4096",
    ]);
    let body = json!({ "model": "tiny", "prompt": "q", "response": "SECRETWORD", "votes": 2 });
    let (status, judged) = read(served.send("/v1/judge", &body));
    let judged: Value = serde_json::from_str(&judged).expect("JSON");
    assert_eq!(status, 200, "{judged}");
    assert_eq!(judged["judgements"].as_array().map(Vec::len), Some(2));
    // The same request has the same answer.
    let (_, again) = read(served.send("/v1/judge", &body));
    assert_eq!(serde_json::from_str::<Value>(&again).expect("JSON"), judged);
    let items: Vec<Value> =
        (0..20).map(|n| json!({ "prompt": "q", "response": format!("r{n}") })).collect();
    let begun = served.send("/v1/score", &json!({ "items": items, "votes": 4 }));
    std::thread::sleep(Duration::from_millis(20));
    let (code, log) = served.stop();
    assert_eq!(code, Some(0), "{log}");
    let (status, scores) = read(begun);
    // What was begun is finished; a request that came too late is told so.
    assert!([200, 503].contains(&status), "{status} {scores}");
    assert!(!log.contains("SECRETWORD"), "{log}");
    let first: Value = serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["path"], &first["status"]), (&json!("/v1/judge"), &json!(200)));
}

#[test]
fn what_cannot_be_served_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().expect("folder");
    let model = tiny_judge(folder.path());
    let keys = write(folder.path(), "keys", "short\n");
    let open = ["--model", &model, "--host", "0.0.0.0", "--port", "0"];
    fail(2, &["--api-key-file"], &[&["serve"], &open[..]].concat());
    fail(2, &["line 1", "16"], &["serve", "--model", &model, "--api-key-file", &keys]);
    fail(2, &["two models"], &["serve", "--port", "0", "--model", &model, "--model", &model]);
    fail(4, &["no such file"], &["serve", "--model", "/no/such/model"]);
}
