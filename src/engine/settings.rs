//! The process's settings: each wing's options, and those of sending itself. They may
//! change between messages.

use std::time::Duration;

use super::backoff::Backoff;
use crate::credentials::CredentialsOptions;
use crate::mail::ServerError;
use crate::net::NetOptions;
use crate::net::tls::PinError;
use crate::smtp::SessionOptions;

/// Process-wide settings, read anew from Lisp with each command that sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How connections are made.
    pub net: NetOptions,
    /// Where credentials are looked up.
    pub credentials: CredentialsOptions,
    /// How sessions log in.
    pub session: SessionOptions,
    /// Sessions to one server at a time (`rs-smtpmail-max-connections`).
    pub max_connections: usize,
    /// How long a session is kept for the next message.
    pub idle_timeout: Duration,
    /// Whether the dialogue is shown (`smtpmail-debug-info`).
    pub trace: bool,
    /// See [`Unconfirmed`].
    pub unconfirmed: Unconfirmed,
    /// When to try again after transient trouble.
    pub backoff: Backoff,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            net: NetOptions::default(),
            credentials: CredentialsOptions::default(),
            session: SessionOptions::default(),
            max_connections: 2,
            idle_timeout: Duration::from_secs(5),
            trace: false,
            unconfirmed: Unconfirmed::Ask,
            backoff: Backoff::default(),
        }
    }
}

impl Settings {
    /// What the user has said beforehand of what is to become of messages.
    pub fn policy(&self) -> Policy {
        Policy {
            backoff: self.backoff,
            unconfirmed: self.unconfirmed,
        }
    }
}

/// What the user has said beforehand.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// When to try again.
    pub backoff: Backoff,
    /// What to do with a message that the server may have.
    pub unconfirmed: Unconfirmed,
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
