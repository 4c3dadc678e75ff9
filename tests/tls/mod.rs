//! Real TLS servers in every bad condition: stunnel (OpenSSL) before a mail server, with
//! certificates made for the occasion.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

mod authority;
mod stunnel;
mod world;

pub use authority::{Authority, Kind, Leaf, revocation_list};
pub use stunnel::{Stunnel, is_missing};
pub use world::{User, World};
