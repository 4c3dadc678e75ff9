//! The network: connections, TLS over them, and HTTP over that.

mod connect;
mod http;
mod options;
pub mod tls;
mod transport;

pub use connect::{ConnectError, Connection, connect};
pub(crate) use http::{Answer, post_form};
pub use options::NetOptions;
pub use transport::Transport;
