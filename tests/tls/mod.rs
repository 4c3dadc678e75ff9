//! Real TLS servers in every bad condition: stunnel (OpenSSL) before a mail server, Postfix,
//! `openssl s_server`, with certificates made for the occasion.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

mod authority;
mod s_server;
mod stunnel;
mod world;

pub use authority::{Authority, Kind, Leaf, revocation_list};
pub use s_server::SServer;
pub use stunnel::{Stunnel, is_missing};
pub use world::{User, World};
