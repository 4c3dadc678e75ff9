//! What went wrong with a handshake, in plain words.

use std::io;

use rustls::{AlertDescription, CertificateError};

use super::certificate::Rejected;
use super::connector::Tls;
use super::error::TlsError;
use super::legacy_probe::Old;

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
}

/// Whether this alert is about the certificate that we showed, or did not show.
fn is_about_our_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}

impl Tls {
    /// The trouble that this error of a handshake stands for.
    pub(super) fn explain(&self, error: &io::Error) -> TlsError {
        let Some(tls) = rustls_error(error) else {
            return TlsError::Handshake(format!("the connection broke ({error})"));
        };
        match tls {
            rustls::Error::InvalidCertificate(CertificateError::Other(other))
                if other.0.is::<Rejected>() =>
            {
                match other.0.downcast_ref::<Rejected>() {
                    Some(rejected) => TlsError::Rejected(Box::new(rejected.clone())),
                    None => TlsError::Settings(tls.to_string()),
                }
            }
            rustls::Error::InvalidCertificate(reason) => TlsError::Settings(format!(
                "the server's certificate is not acceptable: {reason}"
            )),
            rustls::Error::AlertReceived(alert) if is_about_our_certificate(*alert) => {
                TlsError::Settings(self.certificate_trouble(&format!("{alert:?}")))
            }
            // TLS 1.2 has no alert of its own for a certificate that is missing.
            rustls::Error::AlertReceived(AlertDescription::HandshakeFailure)
                if self.lacks_identity() =>
            {
                TlsError::Settings(self.certificate_trouble("HandshakeFailure"))
            }
            rustls::Error::AlertReceived(
                AlertDescription::ProtocolVersion
                | AlertDescription::HandshakeFailure
                | AlertDescription::InsufficientSecurity,
            )
            | rustls::Error::PeerIncompatible(_) => {
                let restriction = match self.policy.restriction() {
                    Some(restriction) => format!("; {restriction}"),
                    None => String::new(),
                };
                TlsError::Incompatible(format!(
                    "the server offers no TLS version and cipher in common with us (TLS 1.2 or \
                     1.3 with forward secrecy{restriction}): {error}"
                ))
            }
            rustls::Error::InvalidMessage(_) => TlsError::Handshake(format!(
                "the server does not speak TLS on this port; is the stream type right? ({error})"
            )),
            _ => TlsError::Handshake(error.to_string()),
        }
    }

    /// Why the line broke just after the handshake, if it was for our certificate: in
    /// TLS 1.3 the server says so only then.
    pub fn refused_certificate(&self, error: &io::Error) -> Option<String> {
        match rustls_error(error)? {
            rustls::Error::AlertReceived(alert) if is_about_our_certificate(*alert) => {
                Some(self.certificate_trouble(&format!("{alert:?}")))
            }
            _ => None,
        }
    }

    fn certificate_trouble(&self, alert: &str) -> String {
        if self.lacks_identity() {
            format!(
                "the server wants a client certificate, and there is none to show; name its PEM \
                 files in the server's entry of auth-sources: key FILE cert FILE ({alert})"
            )
        } else {
            format!("the server does not accept our client certificate ({alert})")
        }
    }

    /// What a server speaks that has nothing in common with us, given what it made of
    /// an old client.
    pub fn incompatible(&self, old: Option<Old>) -> Option<String> {
        let remedy = "which is no longer safe and which this package does not speak; whoever \
                      runs the server must allow TLS 1.2 or 1.3 with ECDHE";
        match (old?, self.policy.restriction()) {
            (Old::Version(version), _) => {
                Some(format!("the server only speaks {version}, {remedy}"))
            }
            (Old::KeyExchange(what), None) => Some(format!(
                "the server only speaks TLS 1.2 with {what}, {remedy}"
            )),
            (Old::KeyExchange(what), Some(restriction)) => Some(format!(
                "the server speaks TLS 1.2 with {what}, and {restriction}"
            )),
            (Old::Tls12, Some(restriction)) => {
                let suits = if self.policy.allows_tls12() {
                    "the server speaks TLS 1.2, but with nothing that is allowed"
                } else {
                    "the server only speaks TLS 1.2"
                };
                Some(format!("{suits}: {restriction}"))
            }
            (Old::Refused, Some(restriction)) => Some(format!(
                "the server does not speak TLS 1.2 or older, or with nothing that is allowed: \
                 {restriction}"
            )),
            (Old::Tls12 | Old::Refused, None) => None,
        }
    }
}
