//! The network: connections, TLS over them, and HTTP over that.

mod connect;
mod http;
pub mod tls;
mod transport;

pub use connect::{ConnectError, Connection, connect};
pub(crate) use http::{Answer, post_form};
pub use transport::Transport;
