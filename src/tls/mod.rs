//! TLS: the platform's roots and the user's trust files, and errors in plain words.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, ProtocolVersion};
use rustls_platform_verifier::Verifier;
use tokio_rustls::TlsConnector;

use crate::smtp::Transport;

/// Why there is no TLS, in words.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The server's certificate is not trusted, or the user's TLS settings can't be used.
    #[error("{0}")]
    Trust(String),
    /// The handshake failed otherwise.
    #[error("{0}")]
    Handshake(String),
}

/// Starts TLS on connections; keeps sessions for resumption.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
}

impl Tls {
    /// TLS 1.2 and 1.3, trusting the platform's roots and the certificates in
    /// `trust_files` (PEM; one that does not exist is passed over, for
    /// `gnutls-trustfiles` lists the places of many systems).
    pub fn new(trust_files: &[PathBuf]) -> Result<Self, TlsError> {
        let mut extra_roots = Vec::new();
        for path in trust_files.iter().filter(|path| path.exists()) {
            let unusable =
                |error| TlsError::Trust(format!("trust file {}: {error:?}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(unusable)? {
                extra_roots.push(certificate.map_err(unusable)?);
            }
        }
        let unusable = |error: rustls::Error| TlsError::Trust(format!("no trusted roots: {error}"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            Verifier::new_with_extra_roots(extra_roots, provider.clone()).map_err(unusable)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous() // it is the platform's own verifier
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Tls {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Runs the handshake for `host` on `transport`.
    pub async fn start(
        &self,
        host: &str,
        transport: Box<dyn Transport>,
    ) -> Result<(Box<dyn Transport>, Channel), TlsError> {
        let bare = host.trim_matches(['[', ']']);
        let name = idna::domain_to_ascii(bare).unwrap_or_else(|_| bare.to_owned());
        let name = ServerName::try_from(name)
            .map_err(|_| TlsError::Trust(format!("no certificate can be for {host:?}")))?;
        match self.connector.connect(name, transport).await {
            Ok(stream) => {
                let channel = Channel::of(stream.get_ref().1);
                Ok((Box::new(stream), channel))
            }
            Err(error) => Err(explain(host, &error)),
        }
    }
}

/// What is known of an encrypted line.
#[derive(Clone, Debug, Default)]
pub struct Channel {
    /// Version, cipher suite and the server's certificate, in words.
    pub description: String,
    /// Channel binding data of the type tls-exporter (RFC 9266), for TLS 1.3.
    pub exporter: Option<[u8; 32]>,
}

impl Channel {
    fn of(connection: &ClientConnection) -> Self {
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        };
        let cipher = connection
            .negotiated_cipher_suite()
            .map(|suite| format!("{:?}", suite.suite()))
            .unwrap_or_default();
        let certificate = connection
            .peer_certificates()
            .and_then(|chain| chain.first())
            .and_then(|certificate| describe(certificate))
            .unwrap_or_else(|| "a certificate".to_owned());
        let exporter = connection
            .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))
            .ok()
            .filter(|_| connection.protocol_version() == Some(ProtocolVersion::TLSv1_3));
        Channel {
            description: format!("{version}, {cipher}, {certificate}"),
            exporter,
        }
    }
}

fn describe(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(format!(
        "certificate of {}, issued by {}, valid until {}",
        certificate.subject(),
        certificate.issuer(),
        certificate.validity().not_after
    ))
}

fn explain(host: &str, error: &std::io::Error) -> TlsError {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            TlsError::Trust(explain_certificate(host, reason))
        }
        Some(rustls::Error::AlertReceived(
            AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure,
        ))
        | Some(rustls::Error::PeerIncompatible(_)) => TlsError::Handshake(format!(
            "the server offers no TLS version and cipher in common with us (TLS 1.2 or 1.3 with \
             forward secrecy): {error}"
        )),
        Some(rustls::Error::InvalidMessage(_)) => TlsError::Handshake(format!(
            "the server does not speak TLS on this port; is the stream type right? ({error})"
        )),
        Some(_) => TlsError::Handshake(error.to_string()),
        None => TlsError::Handshake(format!("the connection broke ({error})")),
    }
}

fn explain_certificate(host: &str, reason: &CertificateError) -> String {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet; is this machine's clock right?".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the server's certificate is not for {host}")
        }
        CertificateError::Revoked => "the server's certificate is revoked".to_owned(),
        // The others come of a trusted root that has the issuer's name, but is not the issuer.
        CertificateError::UnknownIssuer
        | CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the server's certificate is signed by nobody this machine trusts (add it, or its \
             issuer, to gnutls-trustfiles if you do)"
                .to_owned()
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the server's certificate is self-signed (add it to gnutls-trustfiles if you trust it)"
                .to_owned()
        }
        other => format!("the server's certificate is not acceptable: {other}"),
    }
}
