//! A remote engine behind the server: it answers, dies in the middle, and comes back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use patarm_reward::judge::{CompleterJudge, CompleterJudgeConfig};
use patarm_reward::openai::retry::RetryConfig;
use patarm_reward::openai::{OpenAiCompleter, OpenAiConfig, OpenAiTarget};
use patarm_reward::serving::{ModelCard, RemoteModel};
use patarm_reward::template::JudgeTemplate;
use patarm_serve::{Server, ServerConfig, Shutdown};

const ANSWER: &str = r#"{"choices": [{"message": {"content": "<rule>\n- a (0.5): b\n</rule>\n<note>fine</note>\n<score>7</score>"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 9}}"#;

/// Reads one request; its body.
fn request(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

/// An engine that hangs up on whoever asks while it is dead.
fn engine(is_dead: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("works");
    let address = listener.local_addr().expect("works");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let is_dead = Arc::clone(&is_dead);
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                while request(&mut stream).is_some() {
                    if is_dead.load(Ordering::SeqCst) {
                        return;
                    }
                    let head =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", ANSWER.len());
                    let _ = stream.get_mut().write_all((head + ANSWER).as_bytes());
                }
            });
        }
    });
    address
}

fn model(engine: SocketAddr) -> RemoteModel<OpenAiCompleter> {
    let target = OpenAiTarget::parse(&format!("openai:http://{engine}/v1#m")).expect("works");
    let retry = RetryConfig { max_attempts: 1, ..RetryConfig::default() };
    let completer =
        OpenAiCompleter::new(target, OpenAiConfig { retry, ..OpenAiConfig::default() }, None)
            .expect("works");
    let template = JudgeTemplate::load("patarm-short").expect("works");
    let card = ModelCard::of_remote_judge("remote", &template, 1);
    RemoteModel::new(
        CompleterJudge::new(completer, template, CompleterJudgeConfig::default()),
        card,
        4,
    )
}

fn post(address: SocketAddr, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("works");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("works");
    let head = format!(
        "POST /get_reward HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).expect("works");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("works");
    reply
}

#[test]
fn a_remote_engine_may_die_and_come_back() {
    let is_dead = Arc::new(AtomicBool::new(false));
    let engine = engine(Arc::clone(&is_dead));
    let shutdown = Shutdown::default();
    let config =
        ServerConfig { address: "127.0.0.1:0".parse().expect("works"), ..ServerConfig::default() };
    let server =
        Server::bind(config, vec![Box::new(model(engine))], shutdown.clone()).expect("works");
    let address = server.address();
    let running = std::thread::spawn(move || server.run());
    let body = r#"{"query": ["p r"], "prompts": ["p"], "labels": [""]}"#;
    let alive = post(address, body);
    assert!(alive.starts_with("HTTP/1.1 200") && alive.contains("\"rewards\":[7.0]"), "{alive}");
    is_dead.store(true, Ordering::SeqCst);
    let dead = post(address, body);
    assert!(dead.starts_with("HTTP/1.1 502") && dead.contains("engine_failed"), "{dead}");
    assert!(!dead.contains(&engine.to_string()), "{dead}");
    is_dead.store(false, Ordering::SeqCst);
    assert!(post(address, body).starts_with("HTTP/1.1 200"));
    shutdown.trigger();
    running.join().expect("works");
}
