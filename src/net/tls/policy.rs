//! Which versions, cipher suites, groups and signatures are used.
//!
//! Without a priority string it is all that the provider has: TLS 1.2 and 1.3, forward
//! secrecy and authenticated encryption throughout. `gnutls-min-prime-bits` needs no
//! obeying, for there is no finite-field Diffie-Hellman whose prime could be too short.

use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{
    NamedGroup, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion, version,
};

/// A priority string that leaves nothing to speak.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "gnutls-algorithm-priority {priority:?} leaves no {lacking}; this package speaks TLS 1.2 and \
     1.3 with ECDHE, AES-GCM and CHACHA20-POLY1305"
)]
pub struct PolicyError {
    pub(super) priority: String,
    pub(super) lacking: &'static str,
}

/// All that can be spoken: key exchange with X25519MLKEM768 first, and X25519 in the same
/// greeting.
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// What of the provider is used.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    pub(super) provider: CryptoProvider,
    pub(super) signatures: Vec<SignatureScheme>,
    /// No sessions are resumed.
    pub(super) without_resumption: bool,
    /// Revocation lists are not looked at.
    pub(super) without_crls: bool,
    /// What of the priority string can't be obeyed.
    pub(super) warnings: Vec<String>,
    pub(super) priority: Option<String>,
}

impl Default for Policy {
    fn default() -> Self {
        let provider = provider();
        Policy {
            versions: vec![&version::TLS13, &version::TLS12],
            signatures: provider
                .signature_verification_algorithms
                .supported_schemes(),
            provider,
            without_resumption: false,
            without_crls: false,
            warnings: Vec::new(),
            priority: None,
        }
    }
}

/// Something a priority string can speak of, by GnuTLS's names.
pub(super) enum Part {
    Version(&'static str),
    KeyExchange(&'static str),
    Cipher(&'static str),
    Mac(&'static str),
    Group(&'static str),
    /// Names of which one is enough.
    Signature(&'static [&'static str]),
}

impl Policy {
    /// One sentence on what can't be obeyed, if there is anything.
    pub fn warning(&self) -> Option<String> {
        let priority = self.priority.as_deref().unwrap_or_default();
        (!self.warnings.is_empty()).then(|| {
            format!(
                "gnutls-algorithm-priority {priority:?} can't be obeyed in everything: {}",
                self.warnings.join(", ")
            )
        })
    }

    /// What it keeps from being used, to explain a failed handshake.
    pub(super) fn restriction(&self) -> Option<String> {
        self.priority.as_ref().map(|priority| {
            let versions: Vec<_> = self.versions.iter().map(|one| name(one)).collect();
            format!(
                "gnutls-algorithm-priority {priority:?} allows {} here",
                versions.join(" and ")
            )
        })
    }

    pub(super) fn allows_tls12(&self) -> bool {
        self.versions
            .iter()
            .any(|one| one.version == rustls::ProtocolVersion::TLSv1_2)
    }

    /// Keeps the parts to which `place` gives a place, cipher suites in that order.
    pub(super) fn restrict(
        &mut self,
        place: impl Fn(Part) -> Option<usize>,
    ) -> Result<(), PolicyError> {
        let lack = |lacking| PolicyError {
            priority: String::new(),
            lacking,
        };
        self.versions
            .retain(|version| place(Part::Version(gnutls_version(version))).is_some());
        if self.versions.is_empty() {
            return Err(lack("TLS version"));
        }
        self.provider
            .kx_groups
            .retain(|group| place(Part::Group(gnutls_group(*group))).is_some());
        // The hybrid group is of TLS 1.3 only.
        let groups = &self.provider.kx_groups;
        self.versions.retain(|one| {
            groups
                .iter()
                .any(|group| group.usable_for_version(one.version))
        });
        if self.versions.is_empty() {
            return Err(lack("group for key exchange"));
        }
        self.signatures
            .retain(|scheme| place(Part::Signature(gnutls_signatures(*scheme))).is_some());
        if self.signatures.is_empty() {
            return Err(lack("signature algorithm"));
        }
        if place(Part::Mac("AEAD")).is_none() {
            return Err(lack("authenticated encryption (AEAD)"));
        }
        let versions = &self.versions;
        let mut suites: Vec<_> = self
            .provider
            .cipher_suites
            .iter()
            .filter(|suite| versions.contains(&suite.version()))
            .filter_map(|suite| {
                let (key_exchange, cipher) = gnutls_suite(*suite);
                let exchange = match key_exchange {
                    // Before all others.
                    None => Some(0),
                    Some(name) => place(Part::KeyExchange(name)).map(|place| place + 1),
                };
                Some(((exchange?, place(Part::Cipher(cipher))?), *suite))
            })
            .collect();
        suites.sort_by_key(|(place, _)| *place);
        self.provider.cipher_suites = suites.into_iter().map(|(_, suite)| suite).collect();
        let suites = &self.provider.cipher_suites;
        self.versions
            .retain(|version| suites.iter().any(|suite| suite.version() == *version));
        if self.versions.is_empty() {
            return Err(lack("cipher suite"));
        }
        Ok(())
    }
}

/// Whether the provider has something of this GnuTLS name.
pub(super) fn can_do(name: &str) -> bool {
    let all = Policy::default();
    let has = |names: &[&str]| names.contains(&name);
    name == "AEAD"
        || all.versions.iter().any(|one| has(&[gnutls_version(one)]))
        || all
            .signatures
            .iter()
            .any(|one| has(gnutls_signatures(*one)))
        || all
            .provider
            .kx_groups
            .iter()
            .any(|one| has(&[gnutls_group(*one)]))
        || all.provider.cipher_suites.iter().any(|one| {
            let (key_exchange, cipher) = gnutls_suite(*one);
            has(&[cipher]) || key_exchange.is_some_and(|key_exchange| has(&[key_exchange]))
        })
}

fn name(version: &SupportedProtocolVersion) -> &'static str {
    match version.version {
        rustls::ProtocolVersion::TLSv1_3 => "TLS 1.3",
        _ => "TLS 1.2",
    }
}

fn gnutls_version(version: &SupportedProtocolVersion) -> &'static str {
    match version.version {
        rustls::ProtocolVersion::TLSv1_3 => "TLS1.3",
        _ => "TLS1.2",
    }
}

fn gnutls_group(group: &dyn SupportedKxGroup) -> &'static str {
    match group.name() {
        NamedGroup::X25519MLKEM768 => "X25519-MLKEM768",
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "SECP256R1",
        NamedGroup::secp384r1 => "SECP384R1",
        _ => "",
    }
}

fn gnutls_signatures(scheme: SignatureScheme) -> &'static [&'static str] {
    match scheme {
        SignatureScheme::RSA_PKCS1_SHA256 => &["RSA-SHA256"],
        SignatureScheme::RSA_PKCS1_SHA384 => &["RSA-SHA384"],
        SignatureScheme::RSA_PKCS1_SHA512 => &["RSA-SHA512"],
        SignatureScheme::RSA_PSS_SHA256 => &["RSA-PSS-RSAE-SHA256"],
        SignatureScheme::RSA_PSS_SHA384 => &["RSA-PSS-RSAE-SHA384"],
        SignatureScheme::RSA_PSS_SHA512 => &["RSA-PSS-RSAE-SHA512"],
        SignatureScheme::ECDSA_NISTP256_SHA256 => &["ECDSA-SHA256", "ECDSA-SECP256R1-SHA256"],
        SignatureScheme::ECDSA_NISTP384_SHA384 => &["ECDSA-SHA384", "ECDSA-SECP384R1-SHA384"],
        SignatureScheme::ECDSA_NISTP521_SHA512 => &["ECDSA-SHA512", "ECDSA-SECP521R1-SHA512"],
        SignatureScheme::ED25519 => &["EDDSA-ED25519"],
        _ => &[],
    }
}

/// A suite's key exchange, unless it is of TLS 1.3, and its cipher.
fn gnutls_suite(suite: SupportedCipherSuite) -> (Option<&'static str>, &'static str) {
    use rustls::CipherSuite as Suite;
    const ECDSA: Option<&str> = Some("ECDHE-ECDSA");
    const RSA: Option<&str> = Some("ECDHE-RSA");
    match suite.suite() {
        Suite::TLS13_AES_256_GCM_SHA384 => (None, "AES-256-GCM"),
        Suite::TLS13_AES_128_GCM_SHA256 => (None, "AES-128-GCM"),
        Suite::TLS13_CHACHA20_POLY1305_SHA256 => (None, "CHACHA20-POLY1305"),
        Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => (ECDSA, "AES-256-GCM"),
        Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => (ECDSA, "AES-128-GCM"),
        Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => (ECDSA, "CHACHA20-POLY1305"),
        Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => (RSA, "AES-256-GCM"),
        Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => (RSA, "AES-128-GCM"),
        Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => (RSA, "CHACHA20-POLY1305"),
        _ => (None, ""),
    }
}
