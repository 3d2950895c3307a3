//! What every request goes through: key, admission, body, deadline, panics, log.
//!
//! A route says how its body is parsed, a pure function of bytes, and how it is
//! answered. Everything around that is here, once.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http_body_util::{BodyExt, Limited};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use crate::core::Ticket;
use crate::dialect::Dialect;
use crate::fault::{Fault, FaultCode};
use crate::router::App;
use crate::spans;
use patarm_reward::serving::{Answer, Ask, Crash};

/// Bytes of body that one permit of the semaphore stands for.
pub(crate) const BYTES_PER_PERMIT: usize = 1 << 10;
/// Longest request id that is taken over from a client.
const MAX_REQUEST_ID: usize = 64;
/// The header that carries request ids.
const REQUEST_ID: &str = "x-request-id";

/// A route that takes a body.
pub(crate) trait Route: Send + Sync + 'static {
    /// Its path.
    const PATH: &'static str;
    /// In whose shape it speaks.
    const DIALECT: Dialect;
    /// One sentence for the description.
    const ABOUT: &'static str;
    /// What it takes.
    type Request: DeserializeOwned + JsonSchema + Send;
    /// What it answers.
    type Reply: JsonSchema;

    /// Reads a body. A pure function of its bytes.
    fn parse(body: &[u8]) -> Result<Self::Request, Fault> {
        parse_json(body)
    }

    /// Answers a request.
    fn answer(
        exchange: &Exchange,
        request: Self::Request,
    ) -> impl Future<Output = Result<Response, Fault>> + Send;
}

/// Reads JSON; says whether it is no JSON at all or JSON of another form.
pub(crate) fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Fault::bad_request(error),
        _ => Fault::new(FaultCode::BadJson, format!("the body is not JSON: {error}")),
    })
}

/// One request and what surrounds it.
pub(crate) struct Exchange {
    pub(crate) app: Arc<App>,
    /// Whose it is, for fairness.
    pub(crate) client: u64,
    /// Identity in the log and in the answer.
    pub(crate) id: String,
    pub(crate) deadline: tokio::time::Instant,
    /// When it came in, in seconds since 1970, for dialects that say so.
    pub(crate) created_s: u64,
}

impl Exchange {
    /// Has the items done; results stand in their order, each failing alone.
    pub(crate) async fn run(
        &self,
        model: Option<&str>,
        asks: Vec<Ask>,
    ) -> Result<Vec<Result<Answer, Fault>>, Fault> {
        Ok(self.submit(model, asks).await?.collect().await)
    }

    /// Has the items queued.
    pub(crate) async fn submit(
        &self,
        model: Option<&str>,
        asks: Vec<Ask>,
    ) -> Result<Ticket, Fault> {
        let core = self.app.core();
        core.submit(core.host(model)?, self.client, asks).await
    }
}

/// A JSON answer.
pub(crate) fn json(reply: &impl Serialize) -> Result<Response, Fault> {
    let body = serde_json::to_vec(reply).map_err(|_| Fault::plain(FaultCode::Internal))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Answers a request to `R`, whatever happens.
pub(crate) async fn handle<R: Route>(app: Arc<App>, request: Request) -> Response {
    let started = Instant::now();
    let id = request_id(&app, request.headers());
    let guard = InFlight::new(&app);
    let (parts, body) = request.into_parts();
    let span = spans::of_request(R::PATH, &id, &parts.headers);
    let attempt = attempt::<R>(&app, &id, &parts, body).instrument(span.clone());
    let attempt = AssertUnwindSafe(attempt).catch_unwind();
    let result = attempt.await.unwrap_or_else(|panic| {
        let message = Crash::of(panic.as_ref()).message;
        tracing::error!(request_id = id, message, "panic");
        Err(Fault::plain(FaultCode::Internal))
    });
    drop(guard);
    let fault_code = result.as_ref().err().map_or("", |fault| fault.code.name());
    let mut response = match result {
        Ok(response) => response,
        Err(fault) => refuse(R::DIALECT, &fault, &id),
    };
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let (status, time) = (response.status().as_u16(), started.elapsed());
    app.metrics().request(R::DIALECT.name(), status, time);
    spans::end(&span, status, fault_code);
    tracing::info!(
        request_id = id,
        path = R::PATH,
        status,
        fault = fault_code,
        ms = time.as_secs_f64() * 1e3,
        "request"
    );
    response
}

async fn attempt<R: Route>(
    app: &Arc<App>,
    id: &str,
    parts: &axum::http::request::Parts,
    body: Body,
) -> Result<Response, Fault> {
    let key = app.keys().check(&parts.headers)?;
    if app.shutdown().is_triggered() {
        return Err(Fault { retry_after_s: Some(5), ..Fault::plain(FaultCode::Unavailable) });
    }
    let (bytes, held) = read_body(app, &parts.headers, body).await?;
    let request = R::parse(&bytes)?;
    drop(bytes);
    let deadline = tokio::time::Instant::now() + app.config().limits.deadline;
    let exchange = Exchange {
        app: Arc::clone(app),
        client: key.unwrap_or_else(|| peer(parts)),
        id: id.to_owned(),
        deadline,
        created_s: app.now_s(),
    };
    let answered = tokio::time::timeout_at(deadline, R::answer(&exchange, request)).await;
    drop(held);
    answered.unwrap_or_else(|_| Err(Fault::plain(FaultCode::DeadlineExceeded)))
}

/// Reads a body within its limits of size and time, holding its share of memory.
async fn read_body(app: &App, headers: &HeaderMap, body: Body) -> Result<(Bytes, Held), Fault> {
    let limits = &app.config().limits;
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    let size = declared.unwrap_or(limits.max_body_bytes);
    if size > limits.max_body_bytes {
        let message = format!("{size} bytes, at most {}", limits.max_body_bytes);
        return Err(Fault::new(FaultCode::BodyTooLarge, message));
    }
    let held = app.hold(size).ok_or_else(|| Fault::busy(1))?;
    let read = Limited::new(body, limits.max_body_bytes).collect();
    match tokio::time::timeout(limits.read_timeout, read).await {
        Ok(Ok(collected)) => Ok((collected.to_bytes(), held)),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("more than {} bytes", limits.max_body_bytes);
            Err(Fault::new(FaultCode::BodyTooLarge, message))
        }
        Ok(Err(_)) => Err(Fault::bad_request("the body ended early")),
        Err(_) => Err(Fault::plain(FaultCode::BodyTimeout)),
    }
}

/// A share of the memory for bodies.
pub(crate) struct Held {
    pub(crate) app: Arc<crate::metrics::Metrics>,
    pub(crate) bytes: i64,
    pub(crate) _permit: OwnedSemaphorePermit,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.app.held_bytes().dec_by(self.bytes);
    }
}

/// Counts a request as long as it is being answered.
pub(crate) struct InFlight {
    metrics: Arc<crate::metrics::Metrics>,
}

impl InFlight {
    pub(crate) fn new(app: &App) -> Self {
        app.metrics().in_flight().inc();
        Self { metrics: Arc::clone(app.metrics()) }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.in_flight().dec();
    }
}

/// A fault in the shape of a dialect.
pub(crate) fn refuse(dialect: Dialect, fault: &Fault, request_id: &str) -> Response {
    let body = dialect.error(fault, request_id);
    let mut response = (fault.code.status(), axum::Json(body)).into_response();
    if let Some(seconds) = fault.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if fault.code.status() == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

/// The client's own id where it is short and printable, else a fresh one.
fn request_id(app: &App, headers: &HeaderMap) -> String {
    let own = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_fine = |id: &&str| {
        !id.is_empty()
            && id.len() <= MAX_REQUEST_ID
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    own.filter(is_fine).map_or_else(|| app.ids().next(), str::to_owned)
}

/// Fresh request ids: a prefix of this process and a number.
#[derive(Debug)]
pub(crate) struct Ids {
    prefix: u32,
    next: AtomicU64,
}

impl Ids {
    pub(crate) fn new(prefix: u32) -> Self {
        Self { prefix, next: AtomicU64::new(1) }
    }

    pub(crate) fn next(&self) -> String {
        format!("{:08x}-{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// The address a request came from, as a client to be fair to.
fn peer(parts: &axum::http::request::Parts) -> u64 {
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    match address {
        Some(IpAddr::V4(ip)) => u64::from(u32::from(ip)),
        // A customer usually has a whole /64.
        Some(IpAddr::V6(ip)) => (u128::from(ip) >> 64) as u64,
        None => 0,
    }
}

/// A JSON value as an error body.
pub(crate) type ErrorBody = Value;

/// How long a stream stays silent before a comment shows that it lives.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);
