//! Where a message goes and how: a [`Server`] is stored with its message, so that a
//! later change of options never reroutes accepted mail; [`Settings`] are the
//! process's and may change between messages.

use std::path::PathBuf;
use std::time::Duration;

use lettre::transport::smtp::extension::ClientId;
use serde::{Deserialize, Serialize};

use crate::credentials::Restriction;
use crate::schedule::Patience;
use crate::tls::{Pin, PinError};

/// A submission server and how to speak to it. Two messages with equal servers can
/// share a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Server {
    /// Name or address, from `smtpmail-smtp-server`; or the absolute file name of a
    /// Unix socket.
    pub host: String,
    /// From `smtpmail-smtp-service`.
    pub port: Port,
    /// From `smtpmail-stream-type`.
    #[serde(default)]
    pub stream_type: StreamType,
    /// From `smtpmail-smtp-user`: only this user's credentials are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The name given with EHLO, as `smtpmail-fqdn` makes it.
    pub helo: String,
    /// LMTP (RFC 2033) instead of SMTP.
    #[serde(default)]
    pub is_lmtp: bool,
    /// From `smtpmail-servers-requiring-authorization`: never try without credentials.
    #[serde(default)]
    pub require_auth: bool,
}

/// A port as the user wrote it, for that is what auth-source looks up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Port {
    /// A port number.
    Number(u16),
    /// A service name, resolved when connecting.
    Service(String),
}

/// Whether and when TLS starts (`smtpmail-stream-type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamType {
    /// nil: STARTTLS where the server offers it.
    #[default]
    Opportunistic,
    /// `starttls`: STARTTLS, or nothing is sent.
    Starttls,
    /// `ssl` or `tls`: TLS from the first octet (RFC 8314).
    Ssl,
    /// `plain`: never TLS.
    Plain,
}

/// A server description that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `:host` is empty or holds a character no host name has.
    #[error("server host {0:?} is not a host name or address")]
    Host(String),
    /// `:port` is no number from 1 to 65535 and no service name.
    #[error("server port {0:?} is neither a port number nor a service name")]
    Port(String),
    /// `:helo` can't be given with EHLO.
    #[error("EHLO name {0:?} is not a host name or address literal; see smtpmail-local-domain")]
    Helo(String),
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

impl Server {
    /// A server after checking what goes on the wire or to the resolver.
    pub fn new(
        host: String,
        port: Port,
        stream_type: StreamType,
        user: Option<String>,
        helo: String,
        require_auth: bool,
    ) -> Result<Self, ConfigError> {
        let forbidden = |c: char| c.is_control() || c.is_whitespace();
        if host.is_empty() || host.contains(forbidden) {
            return Err(ConfigError::Host(host));
        }
        if helo.is_empty() || !helo.is_ascii() || helo.contains(forbidden) {
            return Err(ConfigError::Helo(helo));
        }
        Ok(Server {
            host,
            port,
            stream_type,
            user,
            helo,
            is_lmtp: false,
            require_auth,
        })
    }

    /// `host:port` as the user wrote them, for messages.
    pub fn endpoint(&self) -> String {
        match self.socket() {
            Some(socket) => socket.to_owned(),
            None => format!("{}:{}", self.host, self.port),
        }
    }

    /// The Unix socket that the host names, if it names one.
    pub fn socket(&self) -> Option<&str> {
        self.host.starts_with('/').then_some(self.host.as_str())
    }

    /// The name for EHLO in lettre's terms.
    pub fn client_id(&self) -> ClientId {
        ClientId::Domain(self.helo.clone())
    }
}

impl Port {
    /// A port from the text or number of `smtpmail-smtp-service`.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let error = || ConfigError::Port(text.to_owned());
        if text.bytes().all(|digit| digit.is_ascii_digit()) {
            return match text.parse() {
                Ok(number) if number > 0 => Ok(Port::Number(number)),
                _ => Err(error()),
            };
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(error());
        }
        Ok(Port::Service(text.to_owned()))
    }

    /// The number: a known mail service's, or else the system's service database.
    pub fn number(&self) -> Result<u16, ConfigError> {
        let name = match self {
            Port::Number(number) => return Ok(*number),
            Port::Service(name) => name.as_str(),
        };
        match name {
            "smtp" | "mail" => Ok(25),
            "submission" => Ok(587),
            "submissions" | "smtps" | "ssmtp" | "urd" => Ok(465),
            "lmtp" => Ok(24),
            _ => std::fs::read_to_string("/etc/services")
                .ok()
                .and_then(|services| service_port(&services, name))
                .ok_or_else(|| ConfigError::Port(name.to_owned())),
        }
    }
}

/// Looks up a TCP service by name or alias in the text of services(5).
fn service_port(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let line = line.split('#').next()?;
        let mut words = line.split_whitespace();
        let official = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let named = official == name || words.any(|alias| alias == name);
        (named && protocol == "tcp").then(|| port.parse().ok())?
    })
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Port::Number(number) => number.fmt(f),
            Port::Service(name) => f.write_str(name),
        }
    }
}

/// One element of `auth-sources`, in the order they are searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthSource {
    /// A netrc-format file, plain or `.gpg`, read natively.
    Netrc(PathBuf),
    /// The same, but only for some queries.
    RestrictedNetrc(PathBuf, Restriction),
    /// Any other backend: Lisp searches this element of its list.
    Lisp(i64),
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

/// What of TLS the user can set, beside whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Revocation lists, PEM or DER (`gnutls-crlfiles`).
    pub crl_files: Vec<PathBuf>,
    /// A GnuTLS priority string (`gnutls-algorithm-priority`).
    pub priority: Option<String>,
    /// The keys of servers (`rs-smtpmail-tls-pins`).
    pub pins: Vec<Pin>,
}

/// Process-wide settings, read anew from Lisp with each command that sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where credentials are looked up.
    pub auth_sources: Vec<AuthSource>,
    /// Whether Lisp has an OAuth 2 token before these are searched
    /// (`rs-smtpmail-oauth2-token-function`, `rs-smtpmail-oauth2-token-command`).
    pub lisp_has_tokens: bool,
    /// PEM files trusted beside the platform's roots (`gnutls-trustfiles`).
    pub trust_files: Vec<PathBuf>,
    /// What else the user says of TLS.
    pub tls: TlsSettings,
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
            trust_files: Vec::new(),
            tls: TlsSettings::default(),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ports_are_numbers_or_services() {
        assert_eq!(Port::parse("587").unwrap(), Port::Number(587));
        assert_eq!(Port::parse("submission").unwrap().number().unwrap(), 587);
        for text in ["", "0", "65536", "a b", "99999999999"] {
            assert!(Port::parse(text).is_err(), "{text:?}");
        }
        let unknown = Port::parse("no-such-service-here").unwrap();
        assert!(unknown.number().is_err());
    }

    #[test]
    fn services_are_found_by_name_and_alias() {
        let services = "# c\nfoo 7/udp bar\nfoo\t8/tcp bar # baz\n";
        assert_eq!(service_port(services, "foo"), Some(8));
        assert_eq!(service_port(services, "bar"), Some(8));
        assert_eq!(service_port(services, "baz"), None);
    }

    #[test]
    fn names_that_would_break_a_command_are_refused() {
        let server = |host: &str, helo: &str| {
            Server::new(
                host.into(),
                Port::Number(25),
                StreamType::Plain,
                None,
                helo.into(),
                false,
            )
        };
        assert!(server("h", "me").is_ok());
        for (host, helo) in [("", "me"), ("h\r\nx", "me"), ("h", "me\r\nMAIL"), ("h", "")] {
            assert!(server(host, helo).is_err());
        }
    }
}
