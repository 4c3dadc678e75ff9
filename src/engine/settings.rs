//! The process's settings: each wing's options, and those of sending itself. They may
//! change between messages.

use std::time::Duration;

use crate::credentials::AuthSource;
use crate::mail::ServerError;
use crate::net::tls::{PinError, TlsOptions};
use crate::schedule::Patience;

/// Process-wide settings, read anew from Lisp with each command that sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where credentials are looked up.
    pub auth_sources: Vec<AuthSource>,
    /// Whether Lisp has an OAuth 2 token before these are searched
    /// (`rs-smtpmail-oauth2-token-function`, `rs-smtpmail-oauth2-token-command`).
    pub lisp_has_tokens: bool,
    /// What the user says of TLS.
    pub tls: TlsOptions,
    /// Hosts to which credentials may go in clear (`rs-smtpmail-allow-cleartext-auth`).
    pub cleartext_auth_hosts: Vec<String>,
    /// Sessions to one server at a time (`rs-smtpmail-max-connections`).
    pub max_connections: usize,
    /// How long a session is kept for the next message.
    pub idle_timeout: Duration,
    /// A SOCKS5 proxy, `host:port` (`rs-smtpmail-proxy`).
    pub proxy: Option<String>,
    /// Whether the dialogue is shown (`smtpmail-debug-info`).
    pub trace: bool,
    /// For a connection to come about, over all addresses of the host.
    pub connect_timeout: Duration,
    /// For a reply; the stages' ceilings of RFC 5321 section 4.5.3.2 hold as well.
    pub reply_timeout: Duration,
    /// Whether gpg asks for passphrases through Lisp (`epg-pinentry-mode`).
    pub loopback_pinentry: bool,
    /// See [`Unconfirmed`].
    pub unconfirmed: Unconfirmed,
    /// When to try again after transient trouble.
    pub patience: Patience,
    /// Mechanisms allowed, in order (`smtpmail-auth-supported`); `None` for all.
    pub auth_mechanisms: Option<Vec<String>>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            auth_sources: Vec::new(),
            lisp_has_tokens: false,
            tls: TlsOptions::default(),
            cleartext_auth_hosts: Vec::new(),
            max_connections: 2,
            idle_timeout: Duration::from_secs(5),
            proxy: None,
            trace: false,
            connect_timeout: Duration::from_secs(30),
            reply_timeout: Duration::from_secs(300),
            loopback_pinentry: false,
            unconfirmed: Unconfirmed::Ask,
            patience: Patience::default(),
            auth_mechanisms: None,
        }
    }
}

/// What to do with a message whose line was cut between its last byte and the reply
/// (`rs-smtpmail-unconfirmed`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unconfirmed {
    /// Leave it to the user.
    #[default]
    Ask,
    /// Send it again, at the risk of a second copy.
    Retry,
}

/// Something given that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A server that is none.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// `:stream-type` is none of those smtpmail knows.
    #[error("stream type {0:?} is none of nil, starttls, ssl, tls and plain")]
    StreamType(String),
    /// `:protocol` is neither.
    #[error("protocol {0:?} is neither smtp nor lmtp")]
    Protocol(String),
    /// `:dsn` holds something that RFC 3461 does not know.
    #[error(
        "{0:?} is no DSN option: :ret is full or hdrs, :notify has success, failure, delay or never"
    )]
    Dsn(String),
    /// A pinned key that is none.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The list of recipients is empty.
    #[error("no recipients")]
    NoRecipients,
    /// The message is empty.
    #[error("the message is empty")]
    EmptyMessage,
}
