//! What needs real sockets: drains, clients that leave, clients that dawdle.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use patarm_reward::serving::Family;

use super::*;
use crate::config::Limits;
use crate::testing::{Gate, Scripted};

/// Longest wait for anything, far beyond what is needed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    app: Arc<App>,
    shutdown: Shutdown,
    thread: JoinHandle<()>,
}

fn start(limits: Limits, gate: &Gate) -> Running {
    let config = ServerConfig {
        address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        limits,
        ..ServerConfig::default()
    };
    let model = Scripted::gated("m", Family::Scalar, gate.clone());
    let shutdown = Shutdown::default();
    let server = Server::bind(config, vec![Box::new(model)], shutdown.clone()).unwrap();
    let (address, app) = (server.address(), Arc::clone(&server.app));
    let thread = std::thread::spawn(move || server.run());
    Running { address, app, shutdown, thread }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn send(stream: &mut TcpStream, body: &str) {
    let head = format!("POST /v1/score HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n", body.len());
    stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).unwrap();
}

fn read(stream: &mut TcpStream) -> String {
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

const BODY: &str = r#"{"items": [{"id": "x", "prompt": "q", "response": "r"}]}"#;

fn wait_until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < PATIENCE, "never happened");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_stop_finishes_what_was_begun() {
    let gate = Gate::default();
    let running = start(Limits::default(), &gate);
    let mut begun = connect(running.address);
    let idle = connect(running.address);
    send(&mut begun, BODY);
    wait_until(|| running.app.metrics().in_flight().get() == 1);
    running.shutdown.trigger();
    wait_until(|| {
        TcpStream::connect(running.address).is_err() || running.thread.is_finished() || {
            // The listener is open until the server has returned, but nobody is served.
            let mut late = connect(running.address);
            late.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            late.read(&mut [0]).is_ok_and(|read| read == 0) || late.read(&mut [0]).is_err()
        }
    });
    assert!(!running.thread.is_finished());
    gate.open();
    let reply = read(&mut begun);
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert!(reply.contains("\"id\":\"x\""));
    running.thread.join().unwrap();
    drop(idle);
}

/// Requests on connections of their own until one is not served any more, counted. An
/// answer that began must be whole and the request's own.
fn ask_until_closed(address: SocketAddr, client: usize, answered: &AtomicUsize) {
    for number in 0.. {
        let Ok(mut stream) = TcpStream::connect(address) else { return };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let id = format!("{client}-{number}");
        let body = BODY.replace("\"x\"", &format!("\"{id}\""));
        let head =
            format!("POST /v1/score HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n", body.len());
        let request = format!("{head}connection: close\r\n\r\n{body}");
        let mut reply = String::new();
        let is_over = stream.write_all(request.as_bytes()).is_err()
            || stream.read_to_string(&mut reply).is_err()
            || reply.is_empty()
            || reply.starts_with("HTTP/1.1 503");
        if is_over {
            assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 503"), "{reply}");
            return;
        }
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        assert!(reply.contains(&format!("\"id\":\"{id}\"")) && reply.ends_with('}'), "{reply}");
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_stop_under_load_breaks_no_answer() {
    let gate = Gate::default();
    gate.open();
    let running = start(Limits::default(), &gate);
    let (address, answered) = (running.address, AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..16 {
            let answered = &answered;
            scope.spawn(move || ask_until_closed(address, client, answered));
        }
        wait_until(|| answered.load(Ordering::Relaxed) > 64);
        running.shutdown.trigger();
        drop(running.app);
        running.thread.join().unwrap();
    });
}

#[test]
fn a_drain_does_not_wait_for_ever() {
    let gate = Gate::default();
    let limits = Limits { drain_timeout: Duration::from_millis(50), ..Limits::default() };
    let running = start(limits, &gate);
    let mut begun = connect(running.address);
    send(&mut begun, BODY);
    wait_until(|| running.app.metrics().in_flight().get() == 1);
    running.shutdown.trigger();
    drop(running.app);
    std::thread::sleep(Duration::from_millis(300));
    gate.open();
    running.thread.join().unwrap();
    let mut reply = Vec::new();
    // The connection ends without an answer, one way or another.
    let _ = begun.read_to_end(&mut reply);
    assert!(!reply.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn a_client_that_leaves_is_not_worked_for() {
    let gate = Gate::default();
    let running = start(Limits { max_batch_tokens: 1, ..Limits::default() }, &gate);
    let depth = || running.app.core().hosts()[0].depth().0;
    let mut first = connect(running.address);
    send(&mut first, BODY);
    wait_until(|| running.app.metrics().in_flight().get() == 1 && depth() == 0);
    let mut leaving = connect(running.address);
    send(&mut leaving, BODY);
    wait_until(|| depth() == 1);
    drop(leaving);
    wait_until(|| depth() == 0);
    gate.open();
    assert!(read(&mut first).starts_with("HTTP/1.1 200"));
    running.shutdown.trigger();
    running.thread.join().unwrap();
}

#[test]
fn slow_and_half_open_clients_are_cut_off() {
    let gate = Gate::default();
    gate.open();
    let limits = Limits {
        read_timeout: Duration::from_millis(100),
        max_connections: 3,
        ..Limits::default()
    };
    let running = start(limits, &gate);
    // One says nothing, one stops within its head, one within its body.
    let mut silent = connect(running.address);
    let mut head = connect(running.address);
    head.write_all(b"POST /v1/score HTTP/1.1\r\nhost:").unwrap();
    let mut body = connect(running.address);
    body.write_all(b"POST /v1/score HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n{").unwrap();
    // All places are taken; the fourth is served when one is free again.
    let mut fourth = connect(running.address);
    send(&mut fourth, BODY);
    assert!(read(&mut fourth).starts_with("HTTP/1.1 200"));
    assert!(read(&mut body).starts_with("HTTP/1.1 408"));
    for stream in [&mut silent, &mut head] {
        assert!(!read(stream).starts_with("HTTP/1.1 200"));
    }
    running.shutdown.trigger();
    running.thread.join().unwrap();
}

#[test]
fn nonsense_is_no_request() {
    let gate = Gate::default();
    gate.open();
    let running = start(Limits::default(), &gate);
    for nonsense in [
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"POST /v1/score HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n".to_vec(),
        [b"GET /".as_slice(), &[b'a'; 100_000], b" HTTP/1.1\r\n\r\n"].concat(),
        [b"GET / HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(1_000), b"\r\n"].concat(),
    ] {
        let mut stream = connect(running.address);
        // The server may close before everything was sent.
        let _ = stream.write_all(&nonsense);
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        let shown = String::from_utf8_lossy(&reply);
        assert!(reply.is_empty() || shown.starts_with("HTTP/1.1 4"), "{shown}");
    }
    let mut fine = connect(running.address);
    send(&mut fine, BODY);
    assert!(read(&mut fine).starts_with("HTTP/1.1 200"));
    running.shutdown.trigger();
    running.thread.join().unwrap();
}

#[test]
fn open_addresses_need_keys_and_models_need_names() {
    let bind = |config: ServerConfig, names: &[&str]| {
        let model =
            |name: &&str| -> Box<dyn ServedModel> { Box::new(Scripted::new(name, Family::Scalar)) };
        Server::bind(config, names.iter().map(model).collect(), Shutdown::default()).map(|_| ())
    };
    let open = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let config = ServerConfig { address: open, ..ServerConfig::default() };
    assert!(matches!(bind(config.clone(), &["m"]), Err(ServeError::Unguarded(_))));
    let trusted = ServerConfig { allow_unauthenticated: true, ..config.clone() };
    assert!(bind(trusted, &["m"]).is_ok());
    let keyed = ServerConfig { api_keys: vec!["0123456789abcdef".into()], ..config };
    assert!(bind(keyed.clone(), &["m"]).is_ok());
    assert!(matches!(bind(keyed.clone(), &[]), Err(ServeError::Models(_))));
    assert!(matches!(bind(keyed, &["m", "m"]), Err(ServeError::Models(_))));
}
