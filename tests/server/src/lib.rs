//! An SMTP server for tests: strict about the protocol, faulty on demand, open about what it saw.
//!
//! Integration tests hold a [`Server`]; the program `smtp-sink` makes a process of it, for tests and
//! benchmarks that are no Rust programs.
//!
//! - [`Options`]: what kind of server (TLS, extensions, credentials)
//! - [`Rule`], [`Stage`], [`Gate`]: faults; [`parse_script`] reads them from JSON
//! - [`Log`], [`Received`], [`Connection`], [`Violation`]: what was seen
//! - [`Relay`]: a longer way to any server; [`SocksProxy`]: a roundabout one
//!
//! Turns are counted exactly behind a relay or a server with a round-trip time of its own. Without
//! one, a group of commands that reaches the server in two pieces may count as two turns.

mod auth;
mod certs;
mod content;
mod envelope;
mod handle;
mod log;
mod options;
mod relay;
mod reply;
mod script;
mod script_file;
mod session;
mod socks;
mod store;
mod wire;

pub mod command_line;
pub mod scram;

use std::time::Duration;

pub use certs::{Authority, Leaf, TlsVersions};
pub use handle::Server;
pub use log::{Connection, Log, Login, Received, Recipient, Turns, Violation};
pub use options::{Extension, Options, Support, Tls};
pub use relay::Relay;
pub use reply::Reply;
pub use script::{Action, Ending, Gate, Point, Rule, Stage};
pub use script_file::parse_script;
pub use socks::SocksProxy;
pub use store::Store;

/// How long to wait for a condition before the test fails: 20 s times the factor in the environment
/// variable `RS_SMTPMAIL_TEST_TIMEOUT_SCALE`.
pub fn deadline() -> Duration {
    let scale = std::env::var("RS_SMTPMAIL_TEST_TIMEOUT_SCALE").ok();
    let scale = scale.and_then(|scale| scale.parse().ok()).unwrap_or(1.0);
    Duration::from_secs(20).mul_f64(scale)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
