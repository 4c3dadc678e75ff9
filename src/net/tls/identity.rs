//! Client certificates: shown to a server that asks for one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::error::TlsError;

/// The files of a client certificate, both PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdentityFiles {
    /// The private key.
    pub key: PathBuf,
    /// The certificate, and those between it and its root.
    pub certificate: PathBuf,
}

/// What the server gets when it asks who we are.
#[derive(Debug)]
pub(super) struct Identity {
    certified: Option<Arc<CertifiedKey>>,
    was_asked: AtomicBool,
}

impl Identity {
    /// The identity in `files`; without files the server gets none.
    pub(super) fn load(
        files: Option<&IdentityFiles>,
        provider: &CryptoProvider,
    ) -> Result<Self, TlsError> {
        let certified = files.map(|files| certified(files, provider)).transpose()?;
        Ok(Identity {
            certified: certified.map(Arc::new),
            was_asked: AtomicBool::new(false),
        })
    }

    /// Whether the server has ever asked.
    pub(super) fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::Relaxed)
    }

    /// Whether there is one to show.
    pub(super) fn is_there(&self) -> bool {
        self.certified.is_some()
    }
}

fn certified(files: &IdentityFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let unusable = |what: &str, path: &PathBuf, error: &dyn std::fmt::Display| {
        TlsError::Settings(format!("client {what} {}: {error}", path.display()))
    };
    let path = &files.certificate;
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable("certificate", path, &error))?;
    if chain.is_empty() {
        return Err(unusable("certificate", path, &"there is none in the file"));
    }
    let path = &files.key;
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| {
        let is_encrypted =
            std::fs::read_to_string(path).is_ok_and(|text| text.contains("ENCRYPTED"));
        if is_encrypted {
            unusable("key", path, &"it is encrypted, and must not be")
        } else {
            unusable("key", path, &error)
        }
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| unusable("key", path, &error))
}

impl ResolvesClientCert for Identity {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.was_asked.store(true, Ordering::Relaxed);
        self.certified.clone()
    }

    fn has_certs(&self) -> bool {
        self.certified.is_some()
    }
}
