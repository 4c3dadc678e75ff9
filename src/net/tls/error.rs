//! What keeps TLS from starting.

use super::certificate::Rejected;

/// Why there is no TLS, in words.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The server's certificate is not accepted.
    #[error("{0}")]
    Rejected(Box<Rejected>),
    /// The user must put something in order.
    #[error("{0}")]
    Settings(String),
    /// The server has nothing in common with us: `Tls::incompatible` may say more.
    #[error("{0}")]
    Incompatible(String),
    /// The handshake failed otherwise; it may go well another time.
    #[error("{0}")]
    Handshake(String),
}
