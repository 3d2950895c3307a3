//! The least HTTP/1.1 client that keeps a connection and can walk away from it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::exit::{Code, failure};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Longest answer that is read.
const MAX_BODY_BYTES: usize = 64 << 20;

/// A connection to one server, made when it is needed.
#[derive(Debug)]
pub(super) struct Client {
    host: String,
    stream: Option<BufReader<TcpStream>>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    body: Vec<u8>,
}

impl Reply {
    pub(super) fn json(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

impl Client {
    /// A client for `http://HOST:PORT`.
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let host = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        match host {
            Some(host) if !host.is_empty() && !host.contains('/') => {
                Ok(Self { host: host.to_owned(), stream: None })
            }
            _ => Err(failure(Code::Usage, format!("--url {url}: write http://HOST:PORT"))),
        }
    }

    fn connected(&mut self) -> anyhow::Result<&mut BufReader<TcpStream>> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.host)
                .map_err(|error| failure(Code::Remote, format!("{}: {error}", self.host)))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            self.stream = Some(BufReader::new(stream));
        }
        self.stream.as_mut().context("not connected")
    }

    fn send(&mut self, path: &str, body: &[u8]) -> anyhow::Result<()> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        let stream = self.connected()?.get_mut();
        stream.write_all(&[head.as_bytes(), body].concat())?;
        Ok(())
    }

    /// Sends a body and reads the answer.
    pub(super) fn post(&mut self, path: &str, body: &[u8]) -> anyhow::Result<Reply> {
        self.send(path, body)?;
        let (reply, is_last) = read_reply(self.connected()?)?;
        if is_last {
            self.stream = None;
        }
        Ok(reply)
    }

    /// Sends a body and closes the connection after a while without reading.
    pub(super) fn post_and_leave(
        &mut self,
        path: &str,
        body: &[u8],
        after: Duration,
    ) -> anyhow::Result<()> {
        self.send(path, body)?;
        std::thread::sleep(after);
        self.stream = None;
        Ok(())
    }
}

/// An answer with a declared length; says whether the server closes the connection.
fn read_reply(stream: &mut BufReader<TcpStream>) -> anyhow::Result<(Reply, bool)> {
    let mut line = String::new();
    let mut next_line = |stream: &mut BufReader<TcpStream>| -> anyhow::Result<String> {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            bail!("the server closed the connection before it had answered");
        }
        Ok(line.trim_end().to_owned())
    };
    let status = next_line(stream)?;
    let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.context("no status line")?;
    let (mut length, mut is_last) = (0, false);
    loop {
        let header = next_line(stream)?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').context("a header without a colon")?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse()?,
            "connection" => is_last = value.trim().eq_ignore_ascii_case("close"),
            "transfer-encoding" => bail!("an answer of unknown length"),
            _ => {}
        }
    }
    if length > MAX_BODY_BYTES {
        bail!("an answer of {length} bytes");
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((Reply { status, body }, is_last))
}
