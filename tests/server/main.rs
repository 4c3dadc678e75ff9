//! The test server's own tests: a raw client talks to it.
#![allow(clippy::unwrap_used)]

#[path = "mod.rs"]
mod server;

mod checks;
