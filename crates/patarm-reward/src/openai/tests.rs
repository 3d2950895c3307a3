//! The completer against a scripted server on the loopback interface.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use patarm_text::Conversation;

use super::*;

/// What the server does with one request.
#[derive(Clone)]
enum Reply {
    /// Answers with this text.
    Say(String),
    /// Sends this status line, these headers and this body.
    Raw(&'static str, &'static str, &'static str),
    /// Takes the request and says nothing until the other side gives up.
    Silence,
    /// Closes the connection before a whole answer.
    HangUp,
}

/// A server that answers the n-th request for each prompt by a script.
struct Server {
    address: String,
    /// How often each prompt was asked, and with which authorization.
    seen: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
}

impl Server {
    fn start(script: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen: Arc<Mutex<BTreeMap<String, Vec<String>>>> = Arc::default();
        let (record, script) = (seen.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(std::result::Result::ok) {
                let (record, script) = (record.clone(), script.clone());
                std::thread::spawn(move || serve(stream, &record, script.as_ref()));
            }
        });
        Self { address, seen }
    }

    fn completer(&self, config: OpenAiConfig, clock: &Arc<FakeClock>) -> OpenAiCompleter {
        let target = OpenAiTarget::parse(&format!("openai:{}#m", self.address)).unwrap();
        OpenAiCompleter::new(target, config, Some("sesame".into()))
            .unwrap()
            .with_clock(clock.clone())
    }

    fn times_asked(&self, prompt: &str) -> usize {
        self.seen.lock().unwrap().get(prompt).map_or(0, Vec::len)
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<BTreeMap<String, Vec<String>>>,
    script: &dyn Fn(&str, usize) -> Reply,
) {
    let Some((prompt, authorization)) = read_request(&stream) else {
        return;
    };
    let time = {
        let mut seen = seen.lock().unwrap();
        let times = seen.entry(prompt.clone()).or_default();
        times.push(authorization);
        times.len()
    };
    let (status, headers, body) = match script(&prompt, time) {
        Reply::Say(text) => {
            let message = serde_json::json!({ "message": { "content": text } });
            ("200 OK", "", serde_json::json!({ "choices": [message] }).to_string())
        }
        Reply::Raw(status, headers, body) => (status, headers, body.to_owned()),
        Reply::Silence => {
            // Returns when the client closes the connection.
            let _ = stream.read(&mut [0; 1]);
            return;
        }
        Reply::HangUp => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"cho");
            return;
        }
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n");
    let _ = stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes());
}

fn read_request(stream: &TcpStream) -> Option<(String, String)> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut authorization) = (0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" => authorization = value.trim().to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let json: serde_json::Value = serde_json::from_slice(&body).ok()?;
    Some((json["messages"][0]["content"].as_str()?.to_owned(), authorization))
}

/// Adds up what it was asked to sleep.
#[derive(Default)]
struct FakeClock {
    slept: Mutex<Duration>,
}

impl FakeClock {
    fn slept(&self) -> Duration {
        *self.slept.lock().unwrap()
    }
}

impl Clock for FakeClock {
    fn sleep(&self, duration: Duration) {
        *self.slept.lock().unwrap() += duration;
    }
}

fn request(prompt: &str) -> CompletionRequest {
    CompletionRequest {
        prompt: Conversation::from_user(prompt),
        max_tokens: 8,
        temperature: 1.0,
        top_p: 1.0,
        stop: Vec::new(),
        seed: 1,
    }
}

fn config() -> OpenAiConfig {
    let retry = RetryConfig { max_attempts: 3, base_pause_s: 1.0, max_pause_s: 60.0, seed: 0 };
    OpenAiConfig { concurrency: 4, timeout_s: 10.0, retry, ..OpenAiConfig::default() }
}

fn text(result: &CompletionResult) -> &str {
    &result.as_ref().unwrap().text
}

fn failure(result: &CompletionResult) -> (usize, &str) {
    match result {
        Err(CompletionError::Failed { attempts, message, .. }) => (*attempts, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn too_many_requests_then_an_answer() {
    let server = Server::start(|_, time| match time {
        1 => Reply::Raw("429 Too Many Requests", "Retry-After: 7\r\n", "{}"),
        _ => Reply::Say("fine".into()),
    });
    let clock = Arc::new(FakeClock::default());
    let results = server.completer(config(), &clock).complete(&[request("a")]);
    assert_eq!(text(&results[0]), "fine");
    assert_eq!(clock.slept(), Duration::from_secs(7), "what the server asked for");
    assert_eq!(server.seen.lock().unwrap()["a"], ["Bearer sesame", "Bearer sesame"]);
}

#[test]
fn failures_that_pass_are_tried_until_attempts_run_out() {
    let server = Server::start(|prompt, time| match (prompt, time) {
        ("recovers", 3) => Reply::Say("at last".into()),
        ("recovers", 1) => Reply::Raw("500 Internal Server Error", "", ""),
        _ => Reply::Raw("503 Service Unavailable", "", r#"{"error":{"message":"loading"}}"#),
    });
    let clock = Arc::new(FakeClock::default());
    let completer = server.completer(config(), &clock);
    let results = completer.complete(&[request("recovers"), request("never")]);
    assert_eq!(text(&results[0]), "at last");
    assert_eq!(failure(&results[1]), (3, "status 503: loading"));
    assert_eq!((server.times_asked("recovers"), server.times_asked("never")), (3, 3));
    // Two requests paused twice each: at least half of 1 s and of 2 s.
    let slept = clock.slept().as_secs_f64();
    assert!((3.0..=6.0).contains(&slept), "{slept}");
}

#[test]
fn failures_that_do_not_pass_are_final() {
    let server = Server::start(|prompt, _| match prompt {
        "key" => Reply::Raw("401 Unauthorized", "", r#"{"error":"no such key"}"#),
        "moved" => Reply::Raw("307 Temporary Redirect", "location: http://127.0.0.1:1/\r\n", ""),
        _ => Reply::Raw("400 Bad Request", "", r#"{"error":{"message":"too long"}}"#),
    });
    let clock = Arc::new(FakeClock::default());
    let completer = server.completer(config(), &clock);
    let results = completer.complete(&[request("key"), request("moved"), request("long")]);
    assert_eq!(failure(&results[0]), (1, "status 401: no such key"));
    assert_eq!(failure(&results[1]).0, 1);
    assert_eq!(failure(&results[2]), (1, "status 400: too long"));
    assert_eq!(clock.slept(), Duration::ZERO);
}

#[test]
fn silence_hang_ups_and_nonsense_are_tried_again() {
    let server = Server::start(|prompt, time| match (prompt, time) {
        ("silence", 1) => Reply::Silence,
        ("hang up", 1) => Reply::HangUp,
        ("html", 1) => Reply::Raw("200 OK", "", "<html>not yet</html>"),
        ("empty", _) => Reply::Raw("200 OK", "", r#"{"choices":[]}"#),
        _ => Reply::Say(format!("{prompt} over")),
    });
    let clock = Arc::new(FakeClock::default());
    let completer = server.completer(OpenAiConfig { timeout_s: 1.0, ..config() }, &clock);
    let prompts = ["silence", "hang up", "html", "empty"].map(request);
    let results = completer.complete(&prompts);
    assert_eq!(text(&results[0]), "silence over");
    assert_eq!(text(&results[1]), "hang up over");
    assert_eq!(text(&results[2]), "html over");
    assert_eq!(failure(&results[3]), (3, "the answer holds no choice"));
}

#[test]
fn nobody_listening_is_a_failure_of_each_request() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let target = OpenAiTarget::parse(&format!("openai:http://{address}/v1#m")).unwrap();
    let clock = Arc::new(FakeClock::default());
    let completer = OpenAiCompleter::new(target, config(), None).unwrap().with_clock(clock);
    let results = completer.complete(&[request("a"), request("b")]);
    assert!(results.iter().all(|result| failure(result).0 == 3));
}

#[test]
fn an_endless_answer_is_cut() {
    let server = Server::start(|_, _| Reply::Say("x".repeat(100_000)));
    let clock = Arc::new(FakeClock::default());
    let small = OpenAiConfig { max_response_bytes: 1000, ..config() };
    let results = server.completer(small, &clock).complete(&[request("a")]);
    assert_eq!(failure(&results[0]), (1, "the answer is longer than 1000 bytes"));
}

/// Every prompt fails once with some chance and answers come back in any order; still
/// every request has exactly one result, its own, and is told of exactly once.
#[test]
fn no_request_is_lost_or_doubled() {
    let server = Server::start(|prompt, time| {
        let number: usize = prompt.parse().unwrap_or(0);
        std::thread::sleep(Duration::from_millis((number * 7 % 5) as u64));
        match time {
            1 if number.is_multiple_of(3) => Reply::Raw("429 Too Many Requests", "", ""),
            _ => Reply::Say(format!("answer {prompt}")),
        }
    });
    let clock = Arc::new(FakeClock::default());
    let completer = server.completer(config(), &clock);
    let requests: Vec<_> = (0..40).map(|i| request(&i.to_string())).collect();
    let mut told = vec![0; requests.len()];
    let results = completer.complete_each(&requests, &mut |i, result| {
        assert_eq!(text(result), format!("answer {i}"));
        told[i] += 1;
    });
    assert_eq!(told, vec![1; 40]);
    for (i, result) in results.iter().enumerate() {
        assert_eq!(text(result), format!("answer {i}"));
        let expected = if i.is_multiple_of(3) { 2 } else { 1 };
        assert_eq!(server.times_asked(&i.to_string()), expected, "{i}");
    }
    assert!(completer.complete(&[]).is_empty());
}

#[test]
fn no_more_requests_are_under_way_than_allowed() {
    let under_way = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (under_way.clone(), most.clone());
    let server = Server::start(move |_, _| {
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(10));
        now.fetch_sub(1, Ordering::SeqCst);
        Reply::Say(String::new())
    });
    let clock = Arc::new(FakeClock::default());
    let completer = server.completer(OpenAiConfig { concurrency: 3, ..config() }, &clock);
    let requests: Vec<_> = (0..12).map(|i| request(&i.to_string())).collect();
    assert!(completer.complete(&requests).iter().all(std::result::Result::is_ok));
    assert!((2..=3).contains(&most.load(Ordering::SeqCst)));
}

/// Stops as soon as the clock has been used.
struct StopWhenSlept(Arc<AtomicBool>);

impl Clock for StopWhenSlept {
    fn sleep(&self, _: Duration) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Observer for StopWhenSlept {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64, _: &str) {}
    fn end(&self) {}
    fn is_interrupted(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn an_interruption_ends_the_wait_and_all_that_follows() {
    let server = Server::start(|_, _| Reply::Raw("503 Service Unavailable", "", ""));
    let stop = Arc::new(AtomicBool::new(false));
    let completer = server
        .completer(OpenAiConfig { concurrency: 1, ..config() }, &Arc::default())
        .with_clock(Arc::new(StopWhenSlept(stop.clone())))
        .with_observer(Arc::new(StopWhenSlept(stop)));
    let results = completer.complete(&[request("a"), request("b")]);
    assert_eq!(results, vec![Err(CompletionError::Interrupted); 2]);
    assert_eq!((server.times_asked("a"), server.times_asked("b")), (1, 0));
}

#[test]
fn the_key_is_never_shown_and_settings_are_checked() {
    let target = OpenAiTarget::parse("openai:http://127.0.0.1:1/v1#m").unwrap();
    let completer = OpenAiCompleter::new(target.clone(), config(), Some("sesame".into())).unwrap();
    assert!(!format!("{completer:?}").contains("sesame"));
    assert_eq!(completer.name(), "openai:http://127.0.0.1:1/v1#m");
    let with = |config| OpenAiCompleter::new(target.clone(), config, None).is_err();
    assert!(with(OpenAiConfig { concurrency: 0, ..config() }));
    assert!(with(OpenAiConfig { timeout_s: 0.0, ..config() }));
    assert!(with(OpenAiConfig { proxy: "::".into(), ..config() }));
    let key = Some("a\r\nx-evil: 1".to_owned());
    assert!(OpenAiCompleter::new(target, config(), key).is_err());
}
