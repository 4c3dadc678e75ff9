//! How connections are made.

use std::time::Duration;

use super::tls::TlsOptions;

/// What of the network the user can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetOptions {
    /// For a connection to come about, over all addresses of the host.
    pub connect_timeout: Duration,
    /// For an answer; the stages of a session have ceilings of their own.
    pub reply_timeout: Duration,
    /// A SOCKS5 proxy, `host:port` (`rs-smtpmail-proxy`).
    pub proxy: Option<String>,
    /// What the user says of TLS.
    pub tls: TlsOptions,
}

impl Default for NetOptions {
    fn default() -> Self {
        NetOptions {
            connect_timeout: Duration::from_secs(30),
            reply_timeout: Duration::from_secs(300),
            proxy: None,
            tls: TlsOptions::default(),
        }
    }
}
