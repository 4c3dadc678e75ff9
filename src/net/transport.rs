//! A stream of octets in both directions.

use tokio::io::{AsyncRead, AsyncWrite};

/// What a session runs over: TCP, or TLS over it.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}
