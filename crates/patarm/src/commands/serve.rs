//! `patarm serve`: models behind every trainer's protocol.

mod cohort;
mod kept;
mod models;
mod spans;

use std::io::IsTerminal;
use std::path::Path;

use anyhow::Context;
use patarm_serve::{Limits, ServeError, Server, ServerConfig, Shutdown};
use spans::Exporter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::Global;
use crate::cli::serve::{LogFormat, Serve};
use crate::exit::{Code, failure};
use crate::output;

/// Key files beyond this are refused.
const MAX_KEY_FILE_BYTES: u64 = 1 << 20;

/// Serves until SIGTERM or Ctrl-C; requests under way are finished.
pub(super) fn run(options: &Serve, global: &Global) -> anyhow::Result<()> {
    let exporter = Exporter::from_environment()?;
    log_to_stderr(options, &exporter)?;
    let config = config(options)?;
    config.check().map_err(exit_code)?;
    let models = models::open(options, global)?;
    let shutdown = stop_on_signals()?;
    let server = Server::bind(config, models, shutdown).map_err(exit_code)?;
    output::line(&format!("listening on http://{}", server.address()))?;
    server.run();
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` takes")]
fn exit_code(error: ServeError) -> anyhow::Error {
    let code = match error {
        ServeError::Unguarded(_) | ServeError::Models(_) => Code::Usage,
        _ => Code::Bug,
    };
    let message = match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    failure(code, message)
}

/// The first signal drains, the second ends the program at once.
fn stop_on_signals() -> anyhow::Result<Shutdown> {
    let shutdown = Shutdown::default();
    let heard = shutdown.clone();
    ctrlc::set_handler(move || {
        if heard.is_triggered() {
            std::process::exit(Code::Interrupted as i32);
        }
        heard.trigger();
    })
    .context("cannot listen for signals")?;
    Ok(shutdown)
}

fn log_to_stderr(options: &Serve, exporter: &Exporter) -> anyhow::Result<()> {
    let level: tracing::Level = options.log_level.into();
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match options.log_format {
        LogFormat::Text => builder.finish().with(exporter.layer()).try_init(),
        LogFormat::Json => {
            builder.json().flatten_event(true).finish().with(exporter.layer()).try_init()
        }
    };
    installed.map_err(|error| anyhow::anyhow!("cannot write a log: {error}"))
}

fn config(options: &Serve) -> anyhow::Result<ServerConfig> {
    let address = (options.host.as_str(), options.port);
    let mut addresses = std::net::ToSocketAddrs::to_socket_addrs(&address)
        .map_err(|error| failure(Code::Usage, format!("--host {}: {error}", options.host)))?;
    let address = addresses
        .next()
        .ok_or_else(|| failure(Code::Usage, format!("--host {}: no address", options.host)))?;
    let api_keys = options.api_key_file.as_deref().map(read_keys).transpose()?.unwrap_or_default();
    let default = Limits::default();
    let limits = Limits {
        max_batch_tokens: options.max_batch_tokens.max(1),
        max_queue: options.max_queue.max(1),
        max_body_bytes: options.max_body_mib.clamp(1, 1_024) << 20,
        deadline: std::time::Duration::from_secs(options.deadline_s.max(1)),
        max_connections: options.max_connections.max(1),
        ..default
    };
    let limits =
        Limits { max_held_bytes: limits.max_held_bytes.max(2 * limits.max_body_bytes), ..limits };
    Ok(ServerConfig {
        address,
        api_keys,
        allow_unauthenticated: options.allow_unauthenticated,
        limits,
        fault_score: options.fault_score,
        par_only: options.cohort.par_only,
        cohorts: cohort::settings(&options.cohort, options.asking.template.as_deref())?,
    })
}

fn read_keys(path: &Path) -> anyhow::Result<Vec<String>> {
    let wrong = |what: String| failure(Code::Usage, format!("{}: {what}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if size > MAX_KEY_FILE_BYTES {
        return Err(wrong("is no file of keys: it is larger than 1 MiB".into()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    patarm_serve::parse_keys(&text).map_err(wrong)
}
