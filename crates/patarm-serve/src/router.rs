//! All routes and what they share.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use patarm_reward::serving::ServedModel;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::config::ServerConfig;
use crate::core::Core;
use crate::dialect::native::CohortService;
use crate::dialect::{self, Dialect};
use crate::exchange::{BYTES_PER_PERMIT, Held, Ids, Route, handle, refuse};
use crate::fault::{Fault, FaultCode};
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::openapi::{Description, Operation};
use crate::page;
use crate::shutdown::Shutdown;

/// The running server, shared by all requests.
pub struct App {
    core: Core,
    cohorts: CohortService,
    config: ServerConfig,
    keys: Keys,
    metrics: Arc<Metrics>,
    memory: Arc<Semaphore>,
    ids: Ids,
    shutdown: Shutdown,
    is_ready: AtomicBool,
    description: Value,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("core", &self.core).finish_non_exhaustive()
    }
}

impl App {
    /// Starts the models' threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        config: ServerConfig,
        models: Vec<Box<dyn ServedModel>>,
        shutdown: Shutdown,
    ) -> std::io::Result<Arc<Self>> {
        let metrics = Arc::new(Metrics::default());
        let core = Core::start(models, config.limits, &metrics)?;
        let permits = (config.limits.max_held_bytes / BYTES_PER_PERMIT).min(Semaphore::MAX_PERMITS);
        // Whoever waits must leave connections for those who are waited for.
        let cohorts = CohortService::new(config.cohorts.config, config.limits.max_connections / 2);
        Ok(Arc::new(Self {
            core,
            cohorts,
            keys: Keys::new(&config.api_keys),
            metrics,
            memory: Arc::new(Semaphore::new(permits)),
            ids: Ids::new(process_prefix()),
            shutdown,
            is_ready: AtomicBool::new(true),
            description: routes().description.finish(),
            config,
        }))
    }

    /// The models.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// How the server is set up.
    #[must_use]
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    pub(crate) fn cohorts(&self) -> &CohortService {
        &self.cohorts
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) fn ids(&self) -> &Ids {
        &self.ids
    }

    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// A share of the memory for bodies; `None` when it is used up.
    pub(crate) fn hold(&self, bytes: usize) -> Option<Held> {
        let permits = u32::try_from(bytes.div_ceil(BYTES_PER_PERMIT)).ok()?;
        let permit = Arc::clone(&self.memory).try_acquire_many_owned(permits).ok()?;
        self.metrics.held_bytes().inc_by(bytes as i64);
        Some(Held { app: Arc::clone(&self.metrics), bytes: bytes as i64, _permit: permit })
    }

    /// Seconds since 1970, for dialects that say when an answer was made.
    #[expect(clippy::disallowed_methods, reason = "a date is told, no time measured")]
    pub(crate) fn now_s(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
    }

    fn is_ready(&self) -> bool {
        let alive = self.core.hosts().iter().all(crate::core::Host::is_alive);
        self.is_ready.load(std::sync::atomic::Ordering::Relaxed)
            && alive
            && !self.shutdown.is_triggered()
    }
}

/// Something that differs between processes, so that ids of two runs do not mix in a log.
#[expect(clippy::disallowed_methods, reason = "any number that differs will do")]
fn process_prefix() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    (now as u32) ^ std::process::id().rotate_left(16)
}

/// Reads a body and forgets what was in it.
type Parser = fn(&[u8]) -> Result<(), Fault>;

/// Routes under construction, with their description.
#[derive(Default)]
pub(crate) struct Routes {
    router: Router<Arc<App>>,
    description: Description,
    parsers: Vec<(&'static str, Parser)>,
}

/// Reads `body` as the route at `path` does: a pure function of bytes, for fuzzing.
/// `None` when there is no such route.
///
/// # Errors
/// What a client would be told.
pub fn parse_body(path: &str, body: &[u8]) -> Option<Result<(), Fault>> {
    static PARSERS: LazyLock<Vec<(&'static str, Parser)>> = LazyLock::new(|| routes().parsers);
    PARSERS.iter().find(|(own, _)| *own == path).map(|(_, parser)| parser(body))
}

/// The paths of all routes that take a body.
#[must_use]
pub fn body_paths() -> Vec<&'static str> {
    routes().parsers.into_iter().map(|(path, _)| path).collect()
}

impl Routes {
    /// Adds a route that takes a body.
    pub(crate) fn post<R: Route>(self) -> Self {
        let act = |axum::extract::State(app): axum::extract::State<Arc<App>>, request: Request| async move {
            handle::<R>(app, request).await
        };
        let Self { router, mut description, mut parsers } = self;
        description.post::<R>();
        parsers.push((R::PATH, |body| R::parse(body).map(drop)));
        Self { router: router.route(R::PATH, post(act)), description, parsers }
    }

    /// Adds a route without a body.
    pub(crate) fn get(
        self,
        path: &'static str,
        about: &'static str,
        act: MethodRouter<Arc<App>>,
    ) -> Self {
        let Self { router, mut description, parsers } = self;
        description.add(Operation::get(path, about));
        Self { router: router.route(path, act), description, parsers }
    }

    /// Adds a file of the page, which is no part of the interface.
    pub(crate) fn plain(self, path: &'static str, act: MethodRouter<Arc<App>>) -> Self {
        let Self { router, description, parsers } = self;
        Self { router: router.route(path, act), description, parsers }
    }
}

fn routes() -> Routes {
    let routes = Routes::default()
        .get("/health", "Whether the process answers at all.", get(health))
        .get("/ready", "Whether it takes work.", get(ready))
        .get("/metrics", "Measurements as Prometheus text.", get(metrics))
        .get("/openapi.json", "This description.", get(openapi));
    page::add(dialect::add(routes))
}

/// The routes of a running server.
pub fn router(app: &Arc<App>) -> Router {
    routes()
        .router
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(app))
}

type Shared = axum::extract::State<Arc<App>>;

async fn health() -> Response {
    axum::Json(json!({ "status": "ok" })).into_response()
}

async fn ready(axum::extract::State(app): Shared) -> Response {
    let models: Vec<Value> = app
        .core
        .hosts()
        .iter()
        .map(|host| json!({ "name": host.card().name, "alive": host.is_alive() }))
        .collect();
    let is_ready = app.is_ready();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({ "ready": is_ready, "models": models }))).into_response()
}

async fn metrics(axum::extract::State(app): Shared) -> Response {
    for host in app.core.hosts() {
        app.metrics.queue_depth(&host.card().name, host.depth());
    }
    app.metrics.cohorts(&app.cohorts.counts());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.text()).into_response()
}

async fn openapi(axum::extract::State(app): Shared) -> Response {
    axum::Json(app.description.clone()).into_response()
}

async fn not_found() -> Response {
    refuse(Dialect::Native, &Fault::plain(FaultCode::NotFound), "")
}

async fn wrong_method() -> Response {
    refuse(Dialect::Native, &Fault::plain(FaultCode::MethodNotAllowed), "")
}

#[cfg(test)]
mod tests;
