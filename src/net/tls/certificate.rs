//! What a certificate says, and what is wrong with it, for the user to read.

use std::net::IpAddr;

use aws_lc_rs::digest;
use rustls::CertificateError;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::pins::{Fingerprint, hexadecimal};

/// Shorter RSA keys can't be used: the cryptographic library refuses them.
const LEAST_RSA_BITS: usize = 2048;

/// What a certificate says of itself. The texts come from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it is for.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The first day it is valid, as YYYY-MM-DD.
    pub not_before: String,
    /// The last day.
    pub not_after: String,
    /// The host names and addresses it is for.
    pub names: Vec<String>,
    /// Of the whole certificate.
    pub fingerprint: Fingerprint,
    /// Of its public key: what a pin names.
    pub key: Fingerprint,
    /// SHA-1 of its public key, as Emacs's Network Security Manager writes it.
    pub nsm_key: String,
    /// Seconds since 1970.
    validity: (i64, i64),
    rsa_bits: Option<usize>,
}

impl Certificate {
    /// Reads a certificate; `None` if that is impossible.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
        let validity = parsed.validity();
        let key = parsed.public_key();
        let rsa_bits = match key.parsed() {
            Ok(PublicKey::RSA(key)) => Some(key.key_size()),
            _ => None,
        };
        let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key.raw);
        Some(Certificate {
            subject: harmless(&parsed.subject().to_string()),
            issuer: harmless(&parsed.issuer().to_string()),
            not_before: day(validity.not_before),
            not_after: day(validity.not_after),
            names: names(&parsed),
            fingerprint: Fingerprint::of(der),
            key: Fingerprint::of(key.raw),
            nsm_key: format!("sha1:{}", hexadecimal(sha1.as_ref()).to_lowercase()),
            validity: (
                validity.not_before.timestamp(),
                validity.not_after.timestamp(),
            ),
            rsa_bits,
        })
    }

    /// What is wrong beside `reason`, which the verifier gave; it stops at the first.
    pub(super) fn problems(
        &self,
        der: &CertificateDer<'_>,
        reason: Option<&rustls::Error>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Vec<Problem> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let parsed = ParsedCertificate::try_from(der);
        let is_misnamed = parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_err());
        let found = [
            reason.map(|reason| self.problem(reason)),
            (now > self.validity.1).then_some(Problem::Expired),
            (now < self.validity.0).then_some(Problem::NotYetValid),
            is_misnamed.then_some(Problem::WrongName),
            self.weak_key(),
        ];
        let mut problems = Vec::new();
        for problem in found.into_iter().flatten() {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        problems
    }

    /// Whether its key is too short to be used at all.
    pub(super) fn weak_key(&self) -> Option<Problem> {
        self.rsa_bits
            .filter(|bits| *bits < LEAST_RSA_BITS)
            .map(Problem::WeakKey)
    }

    fn problem(&self, reason: &rustls::Error) -> Problem {
        let rustls::Error::InvalidCertificate(reason) = reason else {
            return Problem::Other(reason.to_string());
        };
        let untrusted = match self.subject == self.issuer {
            true => Problem::SelfSigned,
            false => Problem::UnknownIssuer,
        };
        use CertificateError as Reason;
        match reason {
            Reason::Expired | Reason::ExpiredContext { .. } => Problem::Expired,
            Reason::NotValidYet | Reason::NotValidYetContext { .. } => Problem::NotYetValid,
            Reason::NotValidForName | Reason::NotValidForNameContext { .. } => Problem::WrongName,
            Reason::Revoked => Problem::Revoked,
            Reason::UnsupportedSignatureAlgorithmContext { .. } => Problem::WeakSignature,
            // The others come of a trusted root that has the issuer's name, but is not it.
            Reason::UnknownIssuer
            | Reason::BadSignature
            | Reason::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => untrusted,
            Reason::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => untrusted,
            other => Problem::Other(other.to_string()),
        }
    }
}

fn day(time: ASN1Time) -> String {
    time.to_datetime().date().to_string()
}

/// Text without control characters.
fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let address = |octets: &[u8]| match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(harmless(name)),
            GeneralName::IPAddress(octets) => Some(address(octets)?.to_string()),
            _ => None,
        })
        .collect()
}

/// What can be wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Problem {
    /// Another key is pinned for this server.
    Changed,
    Revoked,
    SelfSigned,
    UnknownIssuer,
    Expired,
    NotYetValid,
    WrongName,
    /// Signed with SHA-1, or worse.
    WeakSignature,
    /// An RSA key of so many bits.
    WeakKey(usize),
    Other(String),
}

impl Problem {
    /// A name for Lisp.
    pub fn symbol(&self) -> &'static str {
        match self {
            Problem::Changed => "changed",
            Problem::Revoked => "revoked",
            Problem::SelfSigned => "self-signed",
            Problem::UnknownIssuer => "unknown-issuer",
            Problem::Expired => "expired",
            Problem::NotYetValid => "not-yet-valid",
            Problem::WrongName => "wrong-name",
            Problem::WeakSignature => "weak-signature",
            Problem::WeakKey(_) => "weak-key",
            Problem::Other(_) => "other",
        }
    }

    fn text(&self, host: &str, certificate: &Certificate) -> String {
        match self {
            Problem::Changed => "ALARM: the server's key is not the one you have pinned: either \
                                 it was given a new one, or somebody else answers in its place"
                .to_owned(),
            Problem::Revoked => "the server's certificate is revoked: its issuer says that it \
                                 must not be trusted any more"
                .to_owned(),
            Problem::SelfSigned => {
                "the server's certificate is self-signed, so nobody vouches for it".to_owned()
            }
            Problem::UnknownIssuer => "the server's certificate is signed by nobody this machine \
                                       trusts, or the server leaves out a certificate between"
                .to_owned(),
            Problem::Expired => format!(
                "the server's certificate has expired (its last day: {})",
                certificate.not_after
            ),
            Problem::NotYetValid => format!(
                "the server's certificate is not valid yet (its first day: {}; is this machine's \
                 clock right?)",
                certificate.not_before
            ),
            Problem::WrongName if certificate.names.is_empty() => {
                format!("the server's certificate is not for {host}, nor for any other host")
            }
            Problem::WrongName => format!(
                "the server's certificate is not for {host} but for {}",
                certificate.names.join(", ")
            ),
            Problem::WeakSignature => {
                "the server's certificate is signed with an algorithm that is no longer safe, \
                 such as SHA-1"
                    .to_owned()
            }
            Problem::WeakKey(bits) => format!(
                "the server's key is too short: RSA of {bits} bits, where {LEAST_RSA_BITS} are \
                 the least"
            ),
            Problem::Other(text) => {
                format!(
                    "the server's certificate is not acceptable: {}",
                    harmless(text)
                )
            }
        }
    }
}

/// A certificate that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The server's name as the user wrote it.
    pub host: String,
    /// `HOST:PORT`, as a pin has it.
    pub endpoint: String,
    /// What it says.
    pub certificate: Certificate,
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
}

impl Rejected {
    /// Whether the user may accept it all the same.
    pub fn may_be_trusted(&self) -> bool {
        !self
            .problems
            .iter()
            .any(|problem| matches!(problem, Problem::Revoked | Problem::WeakKey(_)))
    }

    /// What is wrong, one sentence for each.
    pub fn reasons(&self) -> Vec<String> {
        let host = &self.host;
        let certificate = &self.certificate;
        let texts = self.problems.iter();
        texts
            .map(|problem| problem.text(host, certificate))
            .collect()
    }

    fn advice(&self) -> String {
        if !self.may_be_trusted() {
            return "it can't be used: the server must get a new one".to_owned();
        }
        let pin = format!(
            "(setf (alist-get \"{}\" rs-smtpmail-tls-pins nil nil #'equal) \"{}\")",
            self.endpoint, self.certificate.key
        );
        if self.problems.contains(&Problem::Changed) {
            format!("only if you know for certain that the new key is right: {pin}")
        } else {
            format!(
                "if you know that it is right, trust this key by {pin}, or add its issuer to gnutls-trustfiles"
            )
        }
    }
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let certificate = &self.certificate;
        write!(
            f,
            "{} [subject {}, issuer {}, valid {} to {}, SHA-256 of the certificate {}, of its key \
             {}]; {}",
            self.reasons().join("; and "),
            certificate.subject,
            certificate.issuer,
            certificate.not_before,
            certificate.not_after,
            certificate.fingerprint,
            certificate.key,
            self.advice()
        )
    }
}

impl std::error::Error for Rejected {}
