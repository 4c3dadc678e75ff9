//! Judges the certificate of one server: by the pins, else by the roots.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use super::certificate::{Certificate, Problem, Rejected};
use super::pins::Fingerprint;
use super::roots::Roots;

/// The verifier for one server.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) roots: Arc<Roots>,
    /// As the user wrote it.
    pub(super) host: String,
    pub(super) endpoint: String,
    /// If there are any, the server must have one of these keys; and then nothing else
    /// matters, but for revocation.
    pub(super) pinned: Vec<Fingerprint>,
    /// Which signatures the server may make.
    pub(super) schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self
            .roots
            .verify(end_entity, intermediates, server_name, ocsp_response, now);
        let Some(certificate) = Certificate::read(end_entity) else {
            return Err(CertificateError::BadEncoding.into());
        };
        let is_revoked = matches!(
            verdict,
            Err(Error::InvalidCertificate(CertificateError::Revoked))
        );
        let is_pinned = self.pinned.contains(&certificate.key);
        let is_changed = !is_pinned && !self.pinned.is_empty();
        let is_good = is_pinned || (verdict.is_ok() && !is_changed);
        if is_good && !is_revoked && certificate.weak_key().is_none() {
            return Ok(ServerCertVerified::assertion());
        }
        let mut problems =
            certificate.problems(end_entity, verdict.as_ref().err(), server_name, now);
        if is_changed {
            problems.insert(0, Problem::Changed);
        }
        let rejected = Rejected {
            host: self.host.clone(),
            endpoint: self.endpoint.clone(),
            certificate,
            problems,
        };
        Err(CertificateError::Other(OtherError(Arc::new(rejected))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots
            .signatures()
            .verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots
            .signatures()
            .verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
