//! A server for reward models and judges.
//!
//! One core batches work by tokens across all requests; thin adapters in [`dialect`]
//! speak the protocols that trainers already know. The layers, from outside in:
//!
//! ```text
//! connection (server)  ->  admission, keys, errors (exchange)  ->  a dialect  ->  core
//!                                                      bounded, fair queue (queue)  |
//!                                                   one thread a model (worker)  <--+
//! ```
//!
//! Nothing below a dialect knows a wire format, and nothing above the core knows an
//! engine. The model's thread owns its engine and never waits for a client.

pub mod cohort;
pub mod config;
pub mod core;
pub mod dialect;
mod exchange;
mod fault;
mod keys;
mod metrics;
mod openapi;
mod page;
mod queue;
mod router;
mod server;
mod shutdown;
mod spans;
#[cfg(test)]
mod testing;
mod worker;

pub use config::{CohortSettings, Limits, ServerConfig};
pub use fault::{Fault, FaultCode};
pub use keys::parse_keys;
pub use router::{App, body_paths, parse_body, router};
pub use server::{ServeError, Server};
pub use shutdown::Shutdown;
