//! Real TLS servers in every bad condition: stunnel (OpenSSL) before a mail server, Postfix,
//! `openssl s_server`, with certificates made for the occasion.

mod authority;
mod program;
mod s_server;
mod stunnel;
mod world;

pub use authority::{Authority, Kind, Leaf, revocation_list};
pub use program::Program;
pub use s_server::s_server;
pub use stunnel::{is_missing, stunnel};
pub use world::{User, World};
