//! Connections: accepting, bounding and draining them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use patarm_reward::serving::ServedModel;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt;

use crate::config::ServerConfig;
use crate::router::{App, router};
use crate::shutdown::Shutdown;

/// Pause after the system refused a connection, for instance for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Threads that read and write connections.
const IO_THREADS: usize = 2;
/// Threads that turn text into tokens.
const TEXT_THREADS: usize = 4;
/// Most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address is open to others and nothing guards it.
    #[error(
        "{0} can be reached from other machines: give --api-key-file, or --allow-unauthenticated \
         if the network is trusted"
    )]
    Unguarded(SocketAddr),
    /// There is nothing to serve, or two models have one name.
    #[error("{0}")]
    Models(String),
    /// The system refuses the address, a thread or a socket.
    #[error("cannot serve on {address}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A server that listens but does not answer yet.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
}

impl Server {
    /// Starts the models and opens the address.
    ///
    /// # Errors
    /// When the address is unguarded or cannot be opened, or the models do not go together.
    pub fn bind(
        config: ServerConfig,
        models: Vec<Box<dyn ServedModel>>,
        shutdown: Shutdown,
    ) -> Result<Self, ServeError> {
        let address = config.address;
        check(&config, &models)?;
        let failed = |source| ServeError::Io { address, source };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(IO_THREADS)
            .max_blocking_threads(TEXT_THREADS)
            .thread_name("patarm-io")
            .enable_all()
            .build()
            .map_err(failed)?;
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let app = App::start(config, models, shutdown).map_err(failed)?;
        Ok(Self { runtime, listener, address, app })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the switch is thrown and what was begun is done.
    pub fn run(self) {
        let Self { runtime, listener, app, .. } = self;
        runtime.block_on(serve(&listener, &app));
        // Idle connections and answers nobody fetched end here.
        runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

fn check(config: &ServerConfig, models: &[Box<dyn ServedModel>]) -> Result<(), ServeError> {
    config.check()?;
    let mut names: Vec<String> =
        models.iter().map(|model| model.text().card().name.clone()).collect();
    names.sort();
    if names.is_empty() && !config.par_only {
        return Err(ServeError::Models("there is no model to serve".into()));
    }
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(ServeError::Models(format!("two models are called {}", pair[0]))),
        None => Ok(()),
    }
}

async fn serve(listener: &TcpListener, app: &Arc<App>) {
    let routes = router(app);
    let graceful = GracefulShutdown::new();
    let limit = Arc::new(Semaphore::new(app.config().limits.max_connections));
    loop {
        let accepted = tokio::select! {
            accepted = accept(listener, &limit) => accepted,
            () = app.shutdown().triggered() => break,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let connection = connection(stream, peer, app, routes.clone());
                let watched = graceful.watch(connection);
                let metrics = Arc::clone(app.metrics());
                metrics.connections().inc();
                tokio::spawn(async move {
                    // What a client does wrong to its connection is its own affair.
                    let _ = watched.await;
                    metrics.connections().dec();
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    tracing::info!("stopping: no new connections");
    let drained = tokio::time::timeout(app.config().limits.drain_timeout, graceful.shutdown());
    if drained.await.is_err() {
        tracing::warn!("stopping: some requests were not done in time");
    }
}

/// Waits for a place, then for a connection.
async fn accept(
    listener: &TcpListener,
    limit: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let closed = |_| std::io::Error::other("the server is stopping");
    let permit = Arc::clone(limit).acquire_owned().await.map_err(closed)?;
    let (stream, peer) = listener.accept().await?;
    // Answers are small and complete: there is nothing to wait for.
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: &Arc<App>,
    routes: Router,
) -> impl GracefulConnection<Error = hyper::Error> + use<> {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        routes.clone().oneshot(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.config().limits.read_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
}

#[cfg(test)]
mod tests;
