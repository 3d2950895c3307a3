//! Completions from any server that speaks the OpenAI chat protocol.
//!
//! Requests go out over a bounded number of worker threads and come back in any order;
//! every request ends in exactly one result, in its own place. Refusals that pass (429,
//! 5xx, timeouts, answers that are no answer) are tried again with growing, jittered
//! pauses; refusals that do not are final. Pauses go through a clock that tests replace.

pub mod retry;
pub mod target;
mod wire;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::completer::{Completer, CompletionError, CompletionRequest, CompletionResult, OnDone};
use crate::error::{Error, ErrorKind, Result};
use crate::observer::{Observer, Silent};
use crate::random::SplitMix64;
use retry::{Clock, RetryConfig, SystemClock, pause};
pub use target::OpenAiTarget;
use wire::{Answer, Attempt};

/// How a remote engine is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenAiConfig {
    /// Requests under way at the same time.
    pub concurrency: usize,
    /// Longest wait for one answer, in seconds.
    pub timeout_s: f64,
    /// Longest answer read, in bytes.
    pub max_response_bytes: usize,
    /// Ask for the log-probability of every generated token.
    pub logprobs: bool,
    /// Address of an HTTP proxy; empty = none. The environment is not consulted.
    pub proxy: String,
    /// When and how often to try again.
    pub retry: RetryConfig,
}

impl Default for OpenAiConfig {
    fn default() -> Self {
        Self {
            concurrency: 8,
            timeout_s: 600.0,
            max_response_bytes: 16 << 20,
            logprobs: false,
            proxy: String::new(),
            retry: RetryConfig::default(),
        }
    }
}

impl OpenAiConfig {
    /// Refuses settings that cannot work.
    ///
    /// # Errors
    /// When the concurrency, the timeout or the response limit is out of range, or the
    /// retry settings are.
    pub fn validate(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
        if !(1..=1024).contains(&self.concurrency) {
            return wrong(format!("concurrency = {}: must lie in 1..=1024", self.concurrency));
        }
        if !(self.timeout_s > 0.0 && self.timeout_s <= 86_400.0) {
            return wrong(format!("timeout_s = {}: must lie above 0, to 86400", self.timeout_s));
        }
        if self.max_response_bytes == 0 {
            return wrong("max_response_bytes = 0: nothing could be read".into());
        }
        self.retry.validate()
    }
}

/// A remote engine.
pub struct OpenAiCompleter {
    target: OpenAiTarget,
    config: OpenAiConfig,
    api_key: Option<String>,
    agent: ureq::Agent,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
}

impl fmt::Debug for OpenAiCompleter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of every log.
        f.debug_struct("OpenAiCompleter")
            .field("target", &self.target)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl OpenAiCompleter {
    /// A completer for `target`. The key, where there is one, is sent as a bearer token.
    ///
    /// # Errors
    /// When the settings cannot work or the key or the proxy cannot be sent.
    pub fn new(
        target: OpenAiTarget,
        config: OpenAiConfig,
        api_key: Option<String>,
    ) -> Result<Self> {
        config.validate()?;
        let printable = |key: &String| key.bytes().all(|byte| (0x21..0x7f).contains(&byte));
        if !api_key.as_ref().is_none_or(printable) {
            let message = "the API key holds blanks or characters that cannot be sent";
            return Err(Error::new(ErrorKind::Config, message));
        }
        let agent = agent(&config)?;
        let (clock, observer) = (Arc::new(SystemClock), Arc::new(Silent));
        Ok(Self { target, config, api_key, agent, clock, observer })
    }

    /// The same completer sleeping by another clock.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The same completer watched, and stopped, by an observer.
    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    /// Tries one request until it has a result.
    fn complete_one(&self, request: &CompletionRequest) -> CompletionResult {
        let body = wire::request_body(&self.target.model, request, self.config.logprobs);
        let mut jitter = SplitMix64::for_stream(self.config.retry.seed, request.seed);
        let mut attempts = 0;
        loop {
            if self.observer.is_interrupted() {
                return Err(CompletionError::Interrupted);
            }
            attempts += 1;
            let (message, retry_after) = match self.attempt(&body) {
                Attempt::Done(answer) => return Ok(answer.into_completion()),
                Attempt::Refused(message) => return Err(self.failed(attempts, message)),
                Attempt::Passing { message, retry_after } => (message, retry_after),
            };
            if attempts >= self.config.retry.max_attempts {
                return Err(self.failed(attempts, message));
            }
            let duration = self.config.retry.pause(attempts, retry_after, &mut jitter);
            if !pause(duration, self.clock.as_ref(), self.observer.as_ref()) {
                return Err(CompletionError::Interrupted);
            }
        }
    }

    fn failed(&self, attempts: usize, message: String) -> CompletionError {
        CompletionError::Failed { engine: self.name(), attempts, message }
    }

    /// Sends a request once.
    fn attempt(&self, body: &[u8]) -> Attempt {
        let mut post = self
            .agent
            .post(&self.target.chat_completions_url())
            .header("content-type", "application/json")
            .header("accept", "application/json");
        if let Some(key) = &self.api_key {
            post = post.header("authorization", format!("Bearer {key}"));
        }
        let mut response = match post.send(body) {
            Ok(response) => response,
            Err(error) => return wire::transport(&error),
        };
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok())
            .and_then(retry::parse_retry_after);
        let limit = self.config.max_response_bytes as u64;
        match response.body_mut().with_config().limit(limit).read_to_vec() {
            Ok(bytes) => wire::classify(status, retry_after, &bytes),
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                Attempt::Refused(format!("the answer is longer than {limit} bytes"))
            }
            Err(error) => wire::transport(&error),
        }
    }
}

fn agent(config: &OpenAiConfig) -> Result<ureq::Agent> {
    let proxy = match config.proxy.as_str() {
        "" => None,
        address => Some(ureq::Proxy::new(address).map_err(|error| {
            Error::new(ErrorKind::Config, format!("proxy {address:?}: {error}"))
        })?),
    };
    let settings = ureq::Agent::config_builder()
        .http_status_as_error(false)
        // A redirect would carry the key and the data to a place nobody named.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(Duration::from_secs_f64(config.timeout_s)))
        .max_idle_connections_per_host(config.concurrency)
        .max_idle_connections(config.concurrency)
        .proxy(proxy)
        .user_agent(concat!("patarm/", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(settings.into())
}

impl Completer for OpenAiCompleter {
    fn complete(&self, requests: &[CompletionRequest]) -> Vec<CompletionResult> {
        self.complete_each(requests, &mut |_, _| {})
    }

    fn complete_each(
        &self,
        requests: &[CompletionRequest],
        on_done: OnDone<'_>,
    ) -> Vec<CompletionResult> {
        let mut results: Vec<Option<CompletionResult>> = requests.iter().map(|_| None).collect();
        let next = AtomicUsize::new(0);
        let workers = self.config.concurrency.min(requests.len());
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            for _ in 0..workers {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    while let Some((i, request)) = take(next, requests) {
                        if sender.send((i, self.complete_one(request))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            for (i, result) in receiver {
                on_done(i, &result);
                results[i] = Some(result);
            }
        });
        let lost = || Err(self.failed(1, "the worker ended before the request did".into()));
        results.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
    }

    fn name(&self) -> String {
        self.target.to_string()
    }
}

/// The next request nobody has taken.
fn take<'a>(
    next: &AtomicUsize,
    requests: &'a [CompletionRequest],
) -> Option<(usize, &'a CompletionRequest)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    requests.get(i).map(|request| (i, request))
}

impl Answer {
    fn into_completion(self) -> crate::completer::Completion {
        crate::completer::Completion {
            text: self.text,
            num_tokens: self.num_tokens,
            truncated: self.truncated,
            logprobs: self.logprobs,
        }
    }
}

#[cfg(test)]
mod tests;
