//! Which versions, cipher suites, groups and signatures are used.
//!
//! Without a priority string it is all that the provider has: TLS 1.2 and 1.3, forward
//! secrecy and authenticated encryption throughout. `gnutls-min-prime-bits` needs no
//! obeying, for there is no finite-field Diffie-Hellman whose prime could be too short.

use rustls::crypto::CryptoProvider;
use rustls::{
    NamedGroup, ProtocolVersion, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
    version,
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
            let versions = self.versions.iter();
            let versions: Vec<_> = versions.map(|one| version_name(one.version)).collect();
            format!(
                "gnutls-algorithm-priority {priority:?} allows {} here",
                versions.join(" and ")
            )
        })
    }

    pub(super) fn allows_tls12(&self) -> bool {
        self.versions.contains(&&version::TLS12)
    }

    /// Keeps what `place` gives a place, by its token in a priority string, and cipher suites
    /// in that order; else says what is lacking.
    pub(super) fn restrict(
        &mut self,
        place: impl Fn(&str) -> Option<usize>,
    ) -> Result<(), &'static str> {
        fn some<T>(left: &[T], what: &'static str) -> Result<(), &'static str> {
            if left.is_empty() { Err(what) } else { Ok(()) }
        }
        let has_place = |token: &str| place(token).is_some();
        let CryptoProvider {
            kx_groups: groups,
            cipher_suites: suites,
            ..
        } = &mut self.provider;
        self.versions
            .retain(|one| has_place(&version_token(one.version)));
        some(&self.versions, "TLS version")?;
        groups.retain(|one| has_place(&group_token(one.name())));
        // The hybrid group is of TLS 1.3 only.
        self.versions
            .retain(|one| groups.iter().any(|g| g.usable_for_version(one.version)));
        some(&self.versions, "group for key exchange")?;
        self.signatures
            .retain(|one| signature_tokens(*one).iter().any(|token| has_place(token)));
        some(&self.signatures, "signature algorithm")?;
        if !has_place("AEAD") {
            return Err("authenticated encryption (AEAD)");
        }
        let place_of = |suite: &SupportedCipherSuite| {
            let (key_exchange, cipher) = suite_tokens(*suite);
            // TLS 1.3 comes before all others.
            let exchange = key_exchange.map_or(Some(0), |token| Some(place(&token)? + 1));
            Some((exchange?, place(&cipher)?))
        };
        suites.retain(|one| self.versions.contains(&one.version()) && place_of(one).is_some());
        suites.sort_by_key(place_of);
        self.versions
            .retain(|one| suites.iter().any(|suite| suite.version() == *one));
        some(&self.versions, "cipher suite")
    }
}

/// Whether the provider has something of this token.
pub(super) fn can_do(token: &str) -> bool {
    let all = Policy::default();
    let provider = &all.provider;
    let (versions, signatures) = (all.versions.iter(), all.signatures.iter());
    let mut suites = provider.cipher_suites.iter().map(|one| suite_tokens(*one));
    token == "AEAD"
        || versions
            .map(|one| version_token(one.version))
            .any(|one| one == token)
        || provider
            .kx_groups
            .iter()
            .any(|one| group_token(one.name()) == token)
        || signatures
            .flat_map(|one| signature_tokens(*one))
            .any(|one| *one == token)
        || suites.any(|(exchange, cipher)| cipher == token || exchange.as_deref() == Some(token))
}

pub(super) fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "TLS 1.3",
        _ => "TLS 1.2",
    }
}

fn version_token(version: ProtocolVersion) -> String {
    format!("VERS-{}", version_name(version).replace(' ', ""))
}

/// GnuTLS's names are rustls's, but for a hyphen.
fn group_token(group: NamedGroup) -> String {
    let name = format!("{group:?}").to_uppercase();
    format!("GROUP-{}", name.replace("MLKEM", "-MLKEM"))
}

/// Tokens of which one is enough.
fn signature_tokens(scheme: SignatureScheme) -> &'static [&'static str] {
    use SignatureScheme as Scheme;
    match scheme {
        Scheme::RSA_PKCS1_SHA256 => &["SIGN-RSA-SHA256"],
        Scheme::RSA_PKCS1_SHA384 => &["SIGN-RSA-SHA384"],
        Scheme::RSA_PKCS1_SHA512 => &["SIGN-RSA-SHA512"],
        Scheme::RSA_PSS_SHA256 => &["SIGN-RSA-PSS-RSAE-SHA256"],
        Scheme::RSA_PSS_SHA384 => &["SIGN-RSA-PSS-RSAE-SHA384"],
        Scheme::RSA_PSS_SHA512 => &["SIGN-RSA-PSS-RSAE-SHA512"],
        Scheme::ECDSA_NISTP256_SHA256 => &["SIGN-ECDSA-SHA256", "SIGN-ECDSA-SECP256R1-SHA256"],
        Scheme::ECDSA_NISTP384_SHA384 => &["SIGN-ECDSA-SHA384", "SIGN-ECDSA-SECP384R1-SHA384"],
        Scheme::ECDSA_NISTP521_SHA512 => &["SIGN-ECDSA-SHA512", "SIGN-ECDSA-SECP521R1-SHA512"],
        Scheme::ED25519 => &["SIGN-EDDSA-ED25519"],
        Scheme::ML_DSA_44 => &["SIGN-ML-DSA-44"],
        Scheme::ML_DSA_65 => &["SIGN-ML-DSA-65"],
        Scheme::ML_DSA_87 => &["SIGN-ML-DSA-87"],
        _ => &[],
    }
}

/// A suite's key exchange, unless it is of TLS 1.3, and its cipher: from names such as
/// TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 and TLS13_AES_128_GCM_SHA256.
fn suite_tokens(suite: SupportedCipherSuite) -> (Option<String>, String) {
    let name = format!("{:?}", suite.suite()).replace('_', "-");
    let (_, name) = name.split_once('-').unwrap_or_default();
    let (exchange, rest) = match name.split_once("-WITH-") {
        Some((exchange, rest)) => (Some(exchange.to_owned()), rest),
        None => (None, name),
    };
    let (cipher, _) = rest.rsplit_once('-').unwrap_or_default();
    (exchange, cipher.to_owned())
}
