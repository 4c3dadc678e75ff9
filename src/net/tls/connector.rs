//! Starts TLS, and tells what came of it.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion};
use tokio_rustls::TlsConnector;

use super::certificate::Certificate;
use super::error::TlsError;
use super::identity::{Identity, IdentityFiles};
use super::legacy_probe::{self, Old};
use super::pins::Fingerprint;
use super::policy::{Policy, version_name};
use super::roots::Roots;
use super::verifier::Verifier;
use crate::mail::{Endpoint, Server};
use crate::net::transport::Transport;

/// Starts TLS on connections to one server; keeps sessions for resumption.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    identity: Arc<Identity>,
    pub(super) policy: Arc<Policy>,
    /// Whether this server has offered STARTTLS before: without it nothing is sent now.
    pub offered_starttls: bool,
}

impl Tls {
    pub(super) fn new(
        server: &Server,
        roots: Arc<Roots>,
        policy: Policy,
        pinned: Vec<Fingerprint>,
        identity: Option<&IdentityFiles>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(policy.provider.clone());
        let identity = Arc::new(Identity::load(identity, &provider)?);
        let verifier = Verifier {
            roots,
            host: server.host.clone(),
            endpoint: Endpoint::of(server).to_string(),
            pinned,
            schemes: policy.signatures.clone(),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&policy.versions)
            .map_err(|error| TlsError::Settings(error.to_string()))?
            .dangerous() // it refuses whatever the platform's own verifier does, but for pins
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&identity) as _);
        if policy.without_resumption {
            config.resumption = Resumption::disabled();
        }
        Ok(Tls {
            connector: TlsConnector::from(Arc::new(config)),
            identity,
            policy: Arc::new(policy),
            offered_starttls: false,
        })
    }

    /// Runs the handshake for `host` on `transport`.
    pub async fn start(
        &self,
        host: &str,
        transport: Box<dyn Transport>,
    ) -> Result<(Box<dyn Transport>, Channel), TlsError> {
        let name = ServerName::try_from(ascii(host))
            .map_err(|_| TlsError::Settings(format!("no certificate can be for {host:?}")))?;
        match self.connector.connect(name, transport).await {
            Ok(stream) => {
                let channel = Channel::of(stream.get_ref().1);
                Ok((Box::new(stream), channel))
            }
            Err(error) => Err(self.explain(&error)),
        }
    }

    /// What the server makes of an old client, on a connection that ends with that.
    pub async fn probe(
        &self,
        host: &str,
        transport: Box<dyn Transport>,
        limit: Duration,
    ) -> Option<Old> {
        legacy_probe::probe(&ascii(host), transport, limit).await
    }

    /// Whether the server has asked for a client certificate, and there was none.
    pub fn lacks_identity(&self) -> bool {
        self.identity.was_asked() && !self.identity.is_there()
    }
}

/// A host name or address as it is in certificates.
fn ascii(host: &str) -> String {
    let bare = host.trim_matches(['[', ']']);
    idna::domain_to_ascii(bare).unwrap_or_else(|_| bare.to_owned())
}

/// What is known of an encrypted line.
#[derive(Clone, Debug, Default)]
pub struct Channel {
    /// Version, key exchange, cipher suite and the server's certificate, in words.
    pub description: String,
    /// Channel binding data of the type tls-exporter (RFC 9266), for TLS 1.3.
    pub exporter: Option<[u8; 32]>,
}

impl Channel {
    fn of(connection: &ClientConnection) -> Self {
        let version = connection
            .protocol_version()
            .map(version_name)
            .unwrap_or_default();
        // There is none where a session of TLS 1.2 is resumed.
        let group = connection
            .negotiated_key_exchange_group()
            .map(|group| format!("{:?}, ", group.name()))
            .unwrap_or_default();
        let cipher = connection
            .negotiated_cipher_suite()
            .map(|suite| format!("{:?}", suite.suite()))
            .unwrap_or_default();
        let certificate = connection
            .peer_certificates()
            .and_then(|chain| chain.first())
            .and_then(describe)
            .unwrap_or_else(|| "a certificate".to_owned());
        let exporter = connection
            .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))
            .ok()
            .filter(|_| connection.protocol_version() == Some(ProtocolVersion::TLSv1_3));
        Channel {
            description: format!("{version}, {group}{cipher}, {certificate}"),
            exporter,
        }
    }
}

fn describe(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::read(certificate)?;
    Some(format!(
        "certificate of {}, issued by {}, valid until {}, SHA-256 of its key {}",
        certificate.subject, certificate.issuer, certificate.not_after, certificate.key
    ))
}
