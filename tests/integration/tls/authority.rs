//! Certificates, good and bad. RSA and SHA-1, which rcgen does not make here, are by openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

/// A certificate authority, or one below it.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub pem: String,
}

/// What a server's certificate is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Good,
    WrongHost,
    Expired,
    NotYetValid,
    SelfSigned,
    /// With an RSA key of so many bits.
    Rsa(u32),
    /// Signed with SHA-1.
    Sha1,
    /// For a client.
    Client,
}

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub serial: u64,
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn params(common: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
    params
}

impl Authority {
    pub fn new(common: &str) -> Self {
        let (params, key) = (params(common), KeyPair::generate().unwrap());
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { params, key, pem }
    }

    pub fn below(&self, common: &str) -> Self {
        let (params, key) = (params(common), KeyPair::generate().unwrap());
        let pem = params.signed_by(&key, &self.issuer()).unwrap().pem();
        Authority { params, key, pem }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// Its certificate in a file.
    pub fn file(&self, directory: &Path) -> PathBuf {
        let common = format!("{:?}.pem", std::ptr::from_ref(self));
        let path = directory.join(common);
        std::fs::write(&path, &self.pem).unwrap();
        path
    }

    /// A server's certificate of that kind, in `directory`.
    pub fn leaf(&self, directory: &Path, kind: Kind, serial: u64) -> Leaf {
        let path = |end: &str| directory.join(format!("{serial}.{end}"));
        let leaf = Leaf {
            certificate: path("crt"),
            key: path("key"),
            serial,
        };
        let names: &[&str] = match kind {
            Kind::WrongHost => &["mail.wrong.example"],
            _ => &["localhost", "127.0.0.1"],
        };
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name = name(&names[0]);
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = match kind {
            Kind::NotYetValid => date_time_ymd(2048, 1, 1),
            _ => date_time_ymd(2001, 1, 1),
        };
        params.not_after = match kind {
            Kind::Expired => date_time_ymd(2002, 1, 1),
            _ => date_time_ymd(2049, 1, 1),
        };
        params.extended_key_usages = vec![match kind {
            Kind::Client => ExtendedKeyUsagePurpose::ClientAuth,
            _ => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        if let Kind::Rsa(_) | Kind::Sha1 = kind {
            self.by_openssl(directory, kind, &leaf);
            return leaf;
        }
        let key = KeyPair::generate().unwrap();
        let certificate = match kind {
            Kind::SelfSigned => params.self_signed(&key).unwrap(),
            _ => params.signed_by(&key, &self.issuer()).unwrap(),
        };
        std::fs::write(&leaf.certificate, certificate.pem()).unwrap();
        std::fs::write(&leaf.key, key.serialize_pem()).unwrap();
        leaf
    }

    fn by_openssl(&self, directory: &Path, kind: Kind, leaf: &Leaf) {
        let (key, digest) = match kind {
            Kind::Rsa(bits) => (format!("rsa:{bits}"), "-sha256"),
            _ => ("rsa:2048".to_owned(), "-sha1"),
        };
        let ca = self.file(directory);
        let ca_key = ca.with_extension("key");
        std::fs::write(&ca_key, self.key.serialize_pem()).unwrap();
        let extensions = directory.join("extensions");
        std::fs::write(&extensions, "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        let request = directory.join("request");
        openssl(&format!(
            "req -new -newkey {key} -nodes -subj /CN=localhost -keyout {} -out {}",
            leaf.key.display(),
            request.display()
        ));
        openssl(&format!(
            "x509 -req -in {} -CA {} -CAkey {} -set_serial {} -days 10000 {digest} -extfile {} -out {}",
            request.display(),
            ca.display(),
            ca_key.display(),
            leaf.serial,
            extensions.display(),
            leaf.certificate.display()
        ));
    }
}

fn openssl(arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The authority's list of those whom it has revoked.
pub fn revocation_list(authority: &Authority, serials: &[u64], path: &Path) {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2049, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let pem = list.signed_by(&authority.issuer()).unwrap().pem().unwrap();
    std::fs::write(path, pem).unwrap();
}
