//! What kind of server it is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::certs::{Authority, Leaf, TlsVersions};
use super::script::Rule;

/// How TLS starts.
#[allow(clippy::enum_variant_names)] // the name of the command
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    None,
    /// By the STARTTLS command.
    StartTls,
    /// At once.
    Implicit,
}

/// An SMTP service extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the names are the keywords
pub enum Extension {
    Pipelining,
    Size,
    StartTls,
    Auth,
    EnhancedStatusCodes,
    EightBitMime,
    SmtpUtf8,
    Dsn,
    Chunking,
    BinaryMime,
    RequireTls,
    Limits,
}

impl Extension {
    /// Every extension that the server knows, in the order of its EHLO reply.
    pub const ALL: [Self; 12] = [
        Self::Pipelining,
        Self::Size,
        Self::StartTls,
        Self::Auth,
        Self::EnhancedStatusCodes,
        Self::EightBitMime,
        Self::SmtpUtf8,
        Self::Dsn,
        Self::Chunking,
        Self::BinaryMime,
        Self::RequireTls,
        Self::Limits,
    ];

    /// The EHLO keyword.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Pipelining => "PIPELINING",
            Self::Size => "SIZE",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Self::EightBitMime => "8BITMIME",
            Self::SmtpUtf8 => "SMTPUTF8",
            Self::Dsn => "DSN",
            Self::Chunking => "CHUNKING",
            Self::BinaryMime => "BINARYMIME",
            Self::RequireTls => "REQUIRETLS",
            Self::Limits => "LIMITS",
        }
    }
}

impl FromStr for Extension {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|extension| extension.keyword().eq_ignore_ascii_case(name))
            .ok_or_else(|| format!("there is no extension {name:?}"))
    }
}

/// What the server makes of an extension that it announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It works.
    Works,
    /// Announced, and then refused when used.
    Refused,
}

/// The server to start. Without further ado: plain text, every common extension, AUTH PLAIN and
/// LOGIN for "user" with "pass word".
#[derive(Clone, Debug)]
pub struct Options {
    /// 0 for an ephemeral one.
    pub port: u16,
    /// When TLS starts.
    pub tls: Tls,
    /// The certificate to show.
    pub leaf: Leaf,
    /// Who signs it; a new authority unless given (share one to restart a trusted server).
    pub authority: Option<Arc<Authority>>,
    /// Whether clients are asked for a certificate of the same authority. They need not have one;
    /// a wrong one ends the handshake, and without one EXTERNAL fails.
    pub ask_client_certificate: bool,
    /// The protocol versions to speak.
    pub tls_versions: TlsVersions,
    /// The extensions announced.
    pub extensions: BTreeMap<Extension, Support>,
    /// SIZE's limit in octets; 0 announces SIZE without one.
    pub size: u64,
    /// The words after LIMITS, such as "RCPTMAX=10"; RCPTMAX and MAILMAX are enforced.
    pub limits: String,
    /// The mechanisms announced: PLAIN, LOGIN, SCRAM-SHA-1, SCRAM-SHA-256 and their -PLUS (under
    /// TLS), XOAUTH2, OAUTHBEARER and EXTERNAL work, others get 504.
    pub mechanisms: Vec<String>,
    /// Mechanisms that are announced and answered with 535 whatever comes.
    pub refused_mechanisms: Vec<String>,
    /// Who may log in.
    pub user: String,
    /// With PLAIN and LOGIN.
    pub password: String,
    /// With XOAUTH2 and OAUTHBEARER.
    pub token: String,
    /// Whether MAIL without AUTH gets 530.
    pub require_auth: bool,
    /// Whether MAIL without TLS gets 530.
    pub require_tls: bool,
    /// Whether AUTH is announced on a STARTTLS server before STARTTLS.
    pub auth_before_tls: bool,
    /// False for a server that knows only HELO.
    pub ehlo: bool,
    /// True for an LMTP server (RFC 2033): LHLO, and a reply for each recipient after the content.
    pub lmtp: bool,
    /// Whether what comes with the final dot is thrown away, as Courier does.
    pub forgets_after_dot: bool,
    /// The server's name in its greeting.
    pub name: String,
    /// A round-trip time to add, by a [`Relay`](super::Relay) before the server.
    pub round_trip: Option<Duration>,
    /// A Unix socket to listen on beside the TCP port.
    pub unix_socket: Option<PathBuf>,
    /// False to count the messages' octets instead of storing them.
    pub store: bool,
    /// Where to write messages, see [`Store`](super::Store).
    pub directory: Option<PathBuf>,
    /// Where to keep the statistics.
    pub statistics: Option<PathBuf>,
    /// The fault script.
    pub rules: Vec<Rule>,
}

impl Default for Options {
    fn default() -> Self {
        let off = [
            Extension::BinaryMime,
            Extension::RequireTls,
            Extension::Limits,
        ];
        Self {
            port: 0,
            tls: Tls::None,
            leaf: Leaf::Good,
            authority: None,
            ask_client_certificate: false,
            tls_versions: TlsVersions::Both,
            extensions: Extension::ALL
                .into_iter()
                .filter(|extension| !off.contains(extension))
                .map(|extension| (extension, Support::Works))
                .collect(),
            size: 52_428_800,
            limits: String::new(),
            mechanisms: vec!["PLAIN".to_owned(), "LOGIN".to_owned()],
            refused_mechanisms: Vec::new(),
            user: "user".to_owned(),
            password: "pass word".to_owned(),
            token: "token".to_owned(),
            require_auth: false,
            require_tls: false,
            auth_before_tls: false,
            ehlo: true,
            lmtp: false,
            forgets_after_dot: false,
            name: "localhost".to_owned(),
            round_trip: None,
            unix_socket: None,
            store: true,
            directory: None,
            statistics: None,
            rules: Vec::new(),
        }
    }
}

impl Options {
    /// The defaults, with this kind of TLS.
    pub fn new(tls: Tls) -> Self {
        Self {
            tls,
            ..Self::default()
        }
    }

    /// Announces an extension.
    pub fn with(mut self, extension: Extension) -> Self {
        self.extensions.insert(extension, Support::Works);
        self
    }

    /// Leaves an extension out.
    pub fn without(mut self, extension: Extension) -> Self {
        self.extensions.remove(&extension);
        self
    }

    /// Leaves every extension out, STARTTLS and AUTH too.
    pub fn without_extensions(mut self) -> Self {
        self.extensions.clear();
        self
    }

    /// Announces an extension and refuses it when used.
    pub fn refusing(mut self, extension: Extension) -> Self {
        self.extensions.insert(extension, Support::Refused);
        self
    }

    /// Knows HELO only.
    pub fn helo_only(mut self) -> Self {
        self.ehlo = false;
        self
    }

    /// Announces SIZE with this limit.
    pub fn size(mut self, octets: u64) -> Self {
        self.size = octets;
        self.with(Extension::Size)
    }

    /// Announces LIMITS with these words.
    pub fn limits(mut self, words: impl Into<String>) -> Self {
        self.limits = words.into();
        self.with(Extension::Limits)
    }

    /// Announces these mechanisms.
    pub fn mechanisms(mut self, mechanisms: &[&str]) -> Self {
        self.mechanisms = mechanisms.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Announces this mechanism too, and answers it with 535.
    pub fn refusing_mechanism(mut self, mechanism: &str) -> Self {
        self.refused_mechanisms.push(mechanism.to_owned());
        self
    }

    /// Wants these credentials.
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = user.into();
        self.password = password.into();
        self
    }

    /// Answers MAIL without AUTH with 530.
    pub fn require_auth(mut self) -> Self {
        self.require_auth = true;
        self
    }

    /// Shows this kind of certificate.
    pub fn leaf(mut self, leaf: Leaf) -> Self {
        self.leaf = leaf;
        self
    }

    /// Has its certificate signed by this authority.
    pub fn authority(mut self, authority: &Arc<Authority>) -> Self {
        self.authority = Some(authority.clone());
        self
    }

    /// Asks clients for a certificate.
    pub fn ask_client_certificate(mut self) -> Self {
        self.ask_client_certificate = true;
        self
    }

    /// Speaks these TLS versions.
    pub fn tls_versions(mut self, versions: TlsVersions) -> Self {
        self.tls_versions = versions;
        self
    }

    /// Listens on this port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Adds a round-trip time.
    pub fn round_trip(mut self, time: Duration) -> Self {
        self.round_trip = Some(time);
        self
    }

    /// Adds a rule to the fault script.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Speaks LMTP.
    pub fn lmtp(mut self) -> Self {
        self.lmtp = true;
        self
    }

    /// Throws away what comes with the final dot, before its reply.
    pub fn forgets_what_follows_the_dot(mut self) -> Self {
        self.forgets_after_dot = true;
        self
    }

    pub(super) fn support(&self, extension: Extension) -> Option<Support> {
        self.extensions.get(&extension).copied()
    }
}
