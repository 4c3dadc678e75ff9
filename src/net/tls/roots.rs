//! Whom certificates must be signed by: the platform's roots and the user's trust
//! files; and who has been revoked, by the user's files of revocation lists.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;

use super::certificate::Certificate;
use super::error::TlsError;
use super::policy::provider;

/// Files, and when they were last changed.
pub(super) type Dated = Vec<(PathBuf, Option<SystemTime>)>;

pub(super) fn dated(paths: &[PathBuf]) -> Dated {
    let modified = |path: &Path| std::fs::metadata(path).ok()?.modified().ok();
    paths
        .iter()
        .map(|path| (path.clone(), modified(path)))
        .collect()
}

/// What certificates are checked against.
#[derive(Debug)]
pub(super) struct Roots {
    verifier: Arc<dyn ServerCertVerifier>,
    /// Certificates of `gnutls-trustfiles`: trusted also when they are a server's own.
    extra: Vec<CertificateDer<'static>>,
}

impl Roots {
    /// The platform's roots and the certificates in `trust_files` (PEM or DER; one that
    /// does not exist is passed over, for `gnutls-trustfiles` lists the places of many
    /// systems), less what the lists in `crl_files` revoke.
    pub(super) fn load(trust_files: &[PathBuf], crl_files: &[PathBuf]) -> Result<Self, TlsError> {
        let mut extra = Vec::new();
        for path in trust_files.iter().filter(|path| path.exists()) {
            extra.extend(objects::<CertificateDer<'_>>(path, "trust file")?);
        }
        let mut lists = Vec::new();
        for path in crl_files.iter().filter(|path| path.exists()) {
            lists.extend(objects::<CertificateRevocationListDer<'_>>(
                path,
                "revocation list",
            )?);
        }
        let unusable = |error: &dyn std::fmt::Display| {
            TlsError::Settings(format!("no trusted roots: {error}"))
        };
        let provider = Arc::new(provider());
        let verifier: Arc<dyn ServerCertVerifier> = if lists.is_empty() {
            let with_extra = rustls_platform_verifier::Verifier::new_with_extra_roots(
                extra.iter().cloned(),
                provider,
            );
            Arc::new(with_extra.map_err(|error| unusable(&error))?)
        } else {
            revocable(&extra, lists, provider).map_err(|error| unusable(&error))?
        };
        Ok(Roots { verifier, extra })
    }

    /// Checks a server's certificate.
    pub(super) fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        match self
            .verifier
            .verify_server_cert(certificate, intermediates, name, ocsp, now)
        {
            Ok(_) => Ok(()),
            // webpki refuses to see an authority's certificate as a server's, but what
            // tools make as "self-signed" is both, and GnuTLS trusts what is in the file.
            Err(rustls::Error::InvalidCertificate(reason))
                if reason != rustls::CertificateError::Revoked
                    && self.extra.iter().any(|trusted| trusted == certificate) =>
            {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                match Certificate::read(certificate) {
                    Some(read) if read.problems(certificate, None, name, now).is_empty() => Ok(()),
                    _ => Err(rustls::Error::InvalidCertificate(reason)),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Checks the signatures of handshakes.
    pub(super) fn signatures(&self) -> &dyn ServerCertVerifier {
        &*self.verifier
    }
}

/// The platform's own verifier takes no lists.
fn revocable(
    extra: &[CertificateDer<'static>],
    lists: Vec<CertificateRevocationListDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Box<dyn std::error::Error>> {
    let mut roots = RootCertStore::empty();
    for certificate in extra {
        roots.add(certificate.clone())?;
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls(lists)
        .allow_unknown_revocation_status();
    Ok(verifier.build()?)
}

/// What a file in PEM or DER holds.
fn objects<T>(path: &Path, what: &str) -> Result<Vec<T>, TlsError>
where
    T: PemObject + From<Vec<u8>>,
{
    let unusable = |error: &dyn std::fmt::Display| {
        TlsError::Settings(format!("{what} {}: {error}", path.display()))
    };
    let bytes = std::fs::read(path).map_err(|error| unusable(&error))?;
    const DER_SEQUENCE: u8 = 0x30;
    if bytes.first() == Some(&DER_SEQUENCE) {
        return Ok(vec![T::from(bytes)]);
    }
    T::pem_slice_iter(&bytes)
        .collect::<Result<Vec<T>, _>>()
        .map_err(|error| unusable(&error))
}
