//! The server as a process: it listens, answers, and stops cleanly under load.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{HIDDEN_GPU, fail, repository, text, write};
use crate::training::tiny_judge;

struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(arguments: &[&str]) -> Self {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_patarm")), arguments)
    }

    /// A server that cannot write a single byte to any file, as on a full disk.
    fn start_without_disk(arguments: &[&str]) -> Self {
        let mut command = Command::new("bash");
        // The signal that comes with the limit is ignored, so that writing returns an error.
        let script = "trap '' XFSZ; ulimit -f 0; exec \"$@\"";
        command.args(["-c", script, "bash", env!("CARGO_BIN_EXE_patarm")]);
        Self::start_as(command, arguments)
    }

    fn start_as(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command
            .args(["serve", "--port", "0", "--threads", "1", "--log-format", "json"])
            .args(arguments)
            .current_dir(repository())
            .env(HIDDEN_GPU.0, HIDDEN_GPU.1)
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

/// The results of `/v1/score` with the values of parts, from a server of its own.
pub(crate) fn served_scores(model: &str, items: &[Value]) -> Vec<Value> {
    let served = Served::start(&["--model", model]);
    let body = json!({ "items": items, "tokens": true });
    let (status, reply) = read(served.send("/v1/score", &body));
    let (code, log) = served.stop();
    assert_eq!((status, code), (200, Some(0)), "{reply} {log}");
    let mut reply: Value = serde_json::from_str(&reply).expect("JSON");
    serde_json::from_value(reply["results"].take()).expect("a list")
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

/// An engine that answers every request in the same words.
fn remote_engine() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = listener.local_addr().expect("address");
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut request, mut piece) = (Vec::new(), [0; 1 << 12]);
            // A body here is an object and nothing follows it.
            while !request.ends_with(b"}") {
                match stream.read(&mut piece) {
                    Ok(read) if read > 0 => request.extend_from_slice(&piece[..read]),
                    _ => break,
                }
            }
            counter.fetch_add(1, Ordering::SeqCst);
            let said = "<rule>\n- a (0.5): b\n</rule>\n<note>fine</note>\n<score>7</score>";
            let choice = json!({ "message": { "content": said }, "finish_reason": "stop" });
            let answer = json!({ "choices": [choice] }).to_string();
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length";
            let _ = write!(stream, "{head}: {}\r\n\r\n{answer}", answer.len());
        }
    });
    (format!("far=openai:http://{address}/v1#m"), asked)
}

#[test]
fn answers_of_a_remote_model_are_kept_and_a_full_disk_costs_no_answer() {
    let folder = tempfile::tempdir().expect("folder");
    let (model, asked) = remote_engine();
    let cache = text(&folder.path().join("cache.jsonl"));
    let arguments = ["--model", &model, "--template", "patarm-short", "--cache", &cache];
    let body = json!({ "items": [{ "prompt": "q", "response": "r" }] });
    let score = |served: &Served| {
        let (status, reply) = read(served.send("/v1/score", &body));
        let reply: Value = serde_json::from_str(&reply).expect("JSON");
        assert_eq!((status, &reply["results"][0]["score"]), (200, &json!(7.0)), "{reply}");
    };
    let full = Served::start_without_disk(&arguments);
    score(&full);
    let (code, log) = full.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("answers are given but not kept"), "{log}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    for _ in 0..2 {
        let served = Served::start(&arguments);
        score(&served);
        assert_eq!(served.stop().0, Some(0));
    }
    // The second of these two runs asked nobody.
    assert_eq!(asked.load(Ordering::SeqCst), 2);
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

/// A collector that keeps the body of the first request.
#[cfg(feature = "opentelemetry")]
fn collector() -> (String, std::thread::JoinHandle<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("address"));
    let heard = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(stream);
        let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
        reader.read_line(&mut first).expect("a line");
        while reader.read_line(&mut line).expect("a header") > 2 {
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        reader.get_mut().write_all(answer).expect("answers");
        (first, serde_json::from_slice(&body).expect("JSON"))
    });
    (address, heard)
}

#[test]
#[cfg(feature = "opentelemetry")]
fn a_collector_gets_a_span_within_the_callers_trace() {
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let (address, heard) = collector();
    let mut command = Command::new(env!("CARGO_BIN_EXE_patarm"));
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", address);
    let served = Served::start_as(command, &["--par-only"]);
    let mut stream = TcpStream::connect(&served.address).expect("connects");
    let head = format!(
        "POST /v1/par HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntraceparent: \
         00-{trace}-{parent}-01\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    stream.write_all(head.as_bytes()).expect("is sent");
    let (status, _) = read(stream);
    let (code, log) = served.stop();
    assert_eq!((status, code), (400, Some(0)), "{log}");
    let (first, sent) = heard.join().expect("the collector heard");
    assert!(first.starts_with("POST /v1/traces "), "{first}");
    let resource = &sent["resourceSpans"][0];
    assert!(resource["resource"].to_string().contains("\"patarm\""), "{sent}");
    let span = &resource["scopeSpans"][0]["spans"][0];
    assert_eq!(
        (&span["traceId"], &span["parentSpanId"], &span["name"]),
        (&json!(trace), &json!(parent), &json!("/v1/par")),
        "{sent}"
    );
    assert!(span["attributes"].to_string().contains("http.response.status_code"), "{span}");
}
