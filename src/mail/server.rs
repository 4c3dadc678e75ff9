//! Where a message goes: a [`Server`] is stored with its message, so that a later change
//! of options never reroutes accepted mail.

use std::fmt;

use lettre::transport::smtp::extension::ClientId;
use serde::{Deserialize, Serialize};

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
pub enum ServerError {
    /// `:host` is empty or holds a character no host name has.
    #[error("server host {0:?} is not a host name or address")]
    Host(String),
    /// `:port` is no number from 1 to 65535 and no service name.
    #[error("server port {0:?} is neither a port number nor a service name")]
    Port(String),
    /// `:helo` can't be given with EHLO.
    #[error("EHLO name {0:?} is not a host name or address literal; see smtpmail-local-domain")]
    Helo(String),
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
    ) -> Result<Self, ServerError> {
        let forbidden = |c: char| c.is_control() || c.is_whitespace();
        if host.is_empty() || host.contains(forbidden) {
            return Err(ServerError::Host(host));
        }
        if helo.is_empty() || !helo.is_ascii() || helo.contains(forbidden) {
            return Err(ServerError::Helo(helo));
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
    pub fn parse(text: &str) -> Result<Self, ServerError> {
        let error = || ServerError::Port(text.to_owned());
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
    pub fn number(&self) -> Result<u16, ServerError> {
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
                .ok_or_else(|| ServerError::Port(name.to_owned())),
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

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Number(number) => number.fmt(f),
            Port::Service(name) => f.write_str(name),
        }
    }
}

/// A server as far as trust goes: host and port, whatever the user is called there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// The endpoint of `server`.
    pub fn of(server: &Server) -> Self {
        // An unknown service fails long before anybody asks whom to trust.
        let port = server.port.number().unwrap_or_default();
        Endpoint::new(&server.host, port)
    }

    /// The endpoint at `port` of `host`.
    pub fn new(host: &str, port: u16) -> Self {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.');
        Endpoint {
            host: host.to_lowercase(),
            port,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
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
