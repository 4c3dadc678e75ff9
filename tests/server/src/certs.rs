//! Certificates made when the server starts: an authority for clients to trust, and a leaf.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::options::Options;

/// What the server's certificate is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// For localhost, 127.0.0.1 and ::1, signed by the authority.
    Good,
    /// As `Good`, but over since 2002.
    Expired,
    /// As `Good`, but signed by itself.
    SelfSigned,
    /// Signed by the authority, for another host.
    WrongHost,
}

/// Which TLS versions are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    Both,
    /// 1.2.
    Only12,
    /// 1.3.
    Only13,
}

/// A certificate authority of the test's own.
#[derive(Debug)]
pub struct Authority {
    key: KeyPair,
    pem: String,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        Self::from_key(KeyPair::generate().unwrap())
    }

    /// The one kept in `file` and `file`.key, or a new one that is written there.
    pub fn at(file: &Path) -> io::Result<Self> {
        let mut key_file = file.as_os_str().to_owned();
        key_file.push(".key");
        if let (true, Ok(pem)) = (file.exists(), fs::read_to_string(&key_file)) {
            let key = KeyPair::from_pem(&pem).map_err(io::Error::other)?;
            // Clients compare subject and key, which are the same in each certificate made of the key.
            return Ok(Self::from_key(key));
        }
        let new = Self::new();
        fs::write(&key_file, new.key.serialize_pem())?;
        fs::write(file, &new.pem)?;
        Ok(new)
    }

    fn from_key(key: KeyPair) -> Self {
        let pem = authority_params().self_signed(&key).unwrap().pem();
        Self { key, pem }
    }

    /// The authority's certificate, for clients to trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A client's certificate for that name, and its key, both as PEM.
    pub fn client_identity(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2049, 1, 1);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = self.sign(params);
        (certificate.pem(), key.serialize_pem())
    }

    /// What the server needs for TLS, and its certificate.
    pub fn server_config(&self, options: &Options) -> (ServerConfig, CertificateDer<'static>) {
        let (certificate, key) = self.issue(options.leaf);
        let versions: &[&rustls::SupportedProtocolVersion] = match options.tls_versions {
            TlsVersions::Both => rustls::ALL_VERSIONS,
            TlsVersions::Only12 => &[&rustls::version::TLS12],
            TlsVersions::Only13 => &[&rustls::version::TLS13],
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .unwrap();
        let builder = if options.ask_client_certificate {
            let mut roots = RootCertStore::empty();
            let own = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
            roots.add(own).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .allow_unauthenticated()
                .build()
                .unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let config = builder
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        (config, certificate)
    }

    fn issue(&self, leaf: Leaf) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let names: &[&str] = match leaf {
            Leaf::WrongHost => &["mail.wrong.example"],
            _ => &["localhost", "127.0.0.1", "::1"],
        };
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, names[0].as_str());
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = match leaf {
            Leaf::Expired => date_time_ymd(2002, 1, 1),
            _ => date_time_ymd(2049, 1, 1),
        };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (certificate, key) = if leaf == Leaf::SelfSigned {
            let key = KeyPair::generate().unwrap();
            (params.self_signed(&key).unwrap(), key)
        } else {
            self.sign(params)
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (certificate.der().clone(), key)
    }

    fn sign(&self, mut params: CertificateParams) -> (Certificate, KeyPair) {
        params.use_authority_key_identifier_extension = true;
        let issuer_params = authority_params();
        let issuer = Issuer::from_params(&issuer_params, &self.key);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
    params
}
