//! GnuTLS priority strings (`gnutls-algorithm-priority`), read for what they mean here.
//!
//! Tokens are separated by colons. A keyword such as `NORMAL` adds all that it stands for;
//! `+X` adds, `-X` and `!X` remove; `%X` sets an option. What remains of versions, ciphers,
//! key exchanges, MACs, groups and signatures, and can be done by our cryptographic
//! provider, is obeyed, the order of ciphers included (the order of groups is not, for it
//! would cost a round trip). Asking for more than the provider has is named in a warning;
//! taking it away is granted.

use super::policy::{Policy, PolicyError, can_do};

const VERSIONS: &str = "VERS-TLS1.3 VERS-TLS1.2 VERS-TLS1.1 VERS-TLS1.0";
const KEY_EXCHANGES: &str = "ECDHE-ECDSA ECDHE-RSA RSA DHE-RSA";
const CIPHERS: &str =
    "AES-256-GCM CHACHA20-POLY1305 AES-256-CCM AES-256-CBC AES-128-GCM AES-128-CCM AES-128-CBC";
const MACS: &str = "SHA1 AEAD";
const EC_GROUPS: &str = "GROUP-SECP256R1 GROUP-SECP384R1 GROUP-SECP521R1 GROUP-X25519 GROUP-X448 \
     GROUP-X25519-MLKEM768 GROUP-SECP256R1-MLKEM768 GROUP-SECP384R1-MLKEM1024";
const DH_GROUPS: &str =
    "GROUP-FFDHE2048 GROUP-FFDHE3072 GROUP-FFDHE4096 GROUP-FFDHE6144 GROUP-FFDHE8192";
const STRONG_SIGNATURES: &str = "SIGN-RSA-SHA384 SIGN-RSA-PSS-SHA384 SIGN-RSA-PSS-RSAE-SHA384 \
     SIGN-ECDSA-SHA384 SIGN-ECDSA-SECP384R1-SHA384 SIGN-EDDSA-ED448 SIGN-RSA-SHA512 \
     SIGN-RSA-PSS-SHA512 SIGN-RSA-PSS-RSAE-SHA512 SIGN-ECDSA-SHA512 \
     SIGN-ECDSA-SECP521R1-SHA512 SIGN-ML-DSA-65 SIGN-ML-DSA-87";
const OTHER_SIGNATURES: &str = "SIGN-RSA-SHA256 SIGN-RSA-PSS-SHA256 SIGN-RSA-PSS-RSAE-SHA256 \
     SIGN-ECDSA-SHA256 SIGN-ECDSA-SECP256R1-SHA256 SIGN-EDDSA-ED25519 SIGN-ML-DSA-44 \
     SIGN-RSA-SHA1 SIGN-ECDSA-SHA1";

/// Names, and the tokens that each of them stands for.
type Sets = &'static [(&'static str, &'static [&'static str])];

#[rustfmt::skip]
const KEYWORDS: Sets = &[
    ("NORMAL SECURE128 SECURE LEGACY", &[VERSIONS, KEY_EXCHANGES, CIPHERS, MACS, EC_GROUPS,
        DH_GROUPS, STRONG_SIGNATURES, OTHER_SIGNATURES]),
    ("PFS", &[VERSIONS, "ECDHE-ECDSA ECDHE-RSA DHE-RSA", CIPHERS, MACS, EC_GROUPS, DH_GROUPS,
        STRONG_SIGNATURES, OTHER_SIGNATURES]),
    ("PERFORMANCE", &[VERSIONS, KEY_EXCHANGES, "AES-128-GCM AES-256-GCM CHACHA20-POLY1305 \
        AES-128-CCM AES-256-CCM AES-128-CBC AES-256-CBC", MACS, EC_GROUPS, DH_GROUPS,
        STRONG_SIGNATURES, OTHER_SIGNATURES]),
    ("SECURE192 SECURE256", &[VERSIONS, KEY_EXCHANGES,
        "AES-256-GCM CHACHA20-POLY1305 AES-256-CBC AES-256-CCM", "AEAD",
        "GROUP-SECP384R1 GROUP-SECP521R1 GROUP-FFDHE8192", STRONG_SIGNATURES]),
    ("SUITEB128", &["VERS-TLS1.2 ECDHE-ECDSA AES-256-GCM AES-128-GCM AEAD GROUP-SECP256R1 \
        GROUP-SECP384R1 SIGN-ECDSA-SHA256 SIGN-ECDSA-SECP256R1-SHA256 SIGN-ECDSA-SHA384 \
        SIGN-ECDSA-SECP384R1-SHA384"]),
    ("SUITEB192", &["VERS-TLS1.2 ECDHE-ECDSA AES-256-GCM AEAD GROUP-SECP384R1 \
        SIGN-ECDSA-SHA384 SIGN-ECDSA-SECP384R1-SHA384"]),
];

const ALL: Sets = &[
    ("VERS-ALL VERS-TLS-ALL", &[VERSIONS]),
    ("KX-ALL", &[KEY_EXCHANGES]),
    ("CIPHER-ALL", &[CIPHERS]),
    ("MAC-ALL", &[MACS]),
    ("GROUP-ALL", &[EC_GROUPS, DH_GROUPS]),
    ("GROUP-EC-ALL", &[EC_GROUPS]),
    ("GROUP-DH-ALL", &[DH_GROUPS]),
    ("SIGN-ALL", &[STRONG_SIGNATURES, OTHER_SIGNATURES]),
];

/// What GnuTLS knows beyond `NORMAL`; it may also have any group and signature.
const OTHERS: &str = "VERS-SSL3.0 DHE-DSS PSK RSA-PSK DHE-PSK ECDHE-PSK SRP-DSS SRP-RSA SRP \
     ANON-DH ANON-ECDH VKO-GOST-12 RSA-EXPORT AES-192-CBC AES-192-GCM AES-128-CCM-8 \
     AES-256-CCM-8 ARCFOUR-128 CAMELLIA-256-CBC CAMELLIA-192-CBC CAMELLIA-128-CBC \
     CAMELLIA-128-GCM CAMELLIA-256-GCM 3DES-CBC DES-CBC RC2-40 NULL GOST28147-TC26Z-CNT \
     MD5 SHA224 SHA256 SHA384 SHA512 UMAC-96 UMAC-128 GOST28147-TC26Z-IMIT";

/// Options that mean nothing to us or name what is so anyway: nothing is ever
/// renegotiated, and there is no compression, no MAC of its own, no padding to choose.
const HARMLESS_OPTIONS: &str = "COMPAT DUMBFW SAFE_RENEGOTIATION PARTIAL_RENEGOTIATION \
     UNSAFE_RENEGOTIATION DISABLE_SAFE_RENEGOTIATION SERVER_PRECEDENCE LATEST_RECORD_VERSION \
     SSL3_RECORD_VERSION STATELESS_COMPRESSION FORCE_ETM NO_ETM FORCE_SESSION_HASH \
     FALLBACK_SCSV NO_EXTENSIONS NO_STATUS_REQUEST NO_SHUFFLE_EXTENSIONS NEW_PADDING \
     DISABLE_TLS13_COMPAT_MODE ALLOW_SMALL_RECORDS PROFILE_VERY_WEAK PROFILE_LOW \
     PROFILE_LEGACY PROFILE_MEDIUM";

fn holds(names: &str, name: &str) -> bool {
    names.split_whitespace().any(|one| one == name)
}

/// The tokens that a name stands for.
fn members(sets: Sets, name: &str) -> Option<impl Iterator<Item = &'static str> + Clone> {
    let (_, lists) = sets.iter().find(|(names, _)| holds(names, name))?;
    Some(lists.iter().flat_map(|list| list.split_whitespace()))
}

fn is_known(token: &str) -> bool {
    token.starts_with("GROUP-")
        || token.starts_with("SIGN-")
        || [VERSIONS, KEY_EXCHANGES, CIPHERS, MACS, OTHERS]
            .iter()
            .any(|names| holds(names, token))
}

/// Certificates are X.509, nothing is compressed, and this is not DTLS.
fn is_beside_the_point(token: &str) -> bool {
    ["CTYPE-", "COMP-", "VERS-DTLS"]
        .iter()
        .any(|start| token.starts_with(start))
}

/// The tokens that may be used, in the order in which they were added.
#[derive(Default)]
struct Allowed(Vec<String>);

impl Allowed {
    fn place(&self, token: &str) -> Option<usize> {
        self.0.iter().position(|one| one == token)
    }

    fn extend(&mut self, tokens: impl Iterator<Item = &'static str>) {
        for token in tokens {
            if self.place(token).is_none() {
                self.0.push(token.to_owned());
            }
        }
    }

    fn add(&mut self, token: &str) -> Result<(), &'static str> {
        if let Some(all) = members(KEYWORDS, token) {
            self.extend(all);
        } else if let Some(all) = members(ALL, token) {
            self.extend(all);
        } else if is_beside_the_point(token) || self.place(token).is_some() {
            // The keyword had it already, whether we can do it or not.
        } else if !is_known(token) {
            return Err("unknown");
        } else if can_do(token) {
            self.0.push(token.to_owned());
        } else {
            return Err("not supported here");
        }
        Ok(())
    }

    fn remove(&mut self, token: &str) -> Result<(), &'static str> {
        if let Some(all) = members(ALL, token) {
            let all = |one: &String| all.clone().any(|name| name == one);
            self.0.retain(|one| !all(one));
        } else if is_known(token) {
            self.0.retain(|one| one != token);
        } else if !is_beside_the_point(token) {
            return Err("unknown");
        }
        Ok(())
    }
}

impl Policy {
    /// The policy of `gnutls-algorithm-priority`.
    pub fn of(priority: Option<&str>) -> Result<Self, PolicyError> {
        let mut policy = Policy::default();
        let Some(text) = priority else {
            return Ok(policy);
        };
        policy.priority = Some(text.to_owned());
        let mut allowed = Allowed::default();
        // As Emacs does before it hands the string to GnuTLS.
        let upper = text.to_uppercase();
        let tokens = upper.split([':', ',', ' ']);
        for token in tokens.filter(|token| !token.is_empty()) {
            if let Err(why) = policy.obey(token, &mut allowed) {
                policy.warnings.push(format!("{token} ({why})"));
            }
        }
        match policy.restrict(|token| allowed.place(token)) {
            Ok(()) => Ok(policy),
            Err(lacking) => Err(PolicyError {
                priority: text.to_owned(),
                lacking,
            }),
        }
    }

    /// Applies one token, or says why it can't be obeyed.
    fn obey(&mut self, token: &str, allowed: &mut Allowed) -> Result<(), &'static str> {
        if let Some(option) = token.strip_prefix('%') {
            return self.obey_option(option);
        }
        // CURVE- is what GROUP- was called once.
        if let Some(name) = token.strip_prefix('+') {
            return allowed.add(&name.replace("CURVE-", "GROUP-"));
        }
        if let Some(name) = token.strip_prefix(['-', '!']) {
            return allowed.remove(&name.replace("CURVE-", "GROUP-"));
        }
        let is_file = token.starts_with('@');
        match members(KEYWORDS, if is_file { "NORMAL" } else { token }) {
            Some(all) => allowed.extend(all),
            None if token == "NONE" => {}
            None => return Err("unknown"),
        }
        match token {
            _ if is_file => Err("GnuTLS's configuration file is not read; taken for NORMAL"),
            "LEGACY" => Err("taken for NORMAL"),
            "SECURE192" | "SECURE256" => {
                Err("obeyed, but certificates with RSA keys from 2048 bits are still accepted")
            }
            _ => Ok(()),
        }
    }

    fn obey_option(&mut self, option: &str) -> Result<(), &'static str> {
        match option {
            "NO_TICKETS" | "NO_TICKETS_TLS12" => self.without_resumption = true,
            "VERIFY_DISABLE_CRL_CHECKS" => self.without_crls = true,
            _ if holds(HARMLESS_OPTIONS, option) => {}
            _ if option.starts_with("VERIFY_ALLOW") => {
                return Err("weak certificates are not accepted; you can pin one");
            }
            _ if option.starts_with("PROFILE_") => return Err("profiles are not known here"),
            _ => return Err("unknown"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustls::SupportedCipherSuite;

    use super::*;

    fn policy(text: &str) -> Policy {
        Policy::of(Some(text)).unwrap()
    }

    fn lacking(text: &str) -> &'static str {
        Policy::of(Some(text)).unwrap_err().lacking
    }

    #[test]
    fn keywords_alone_are_obeyed_silently() {
        for text in [
            "NORMAL",
            "normal:-dhe-rsa",
            "PFS",
            "PERFORMANCE",
            "SECURE128",
            "SUITEB128",
            "NORMAL:%COMPAT:%DUMBFW",
            "NORMAL:+RSA:+DHE-RSA:-VERS-SSL3.0:+CTYPE-OPENPGP:-COMP-ALL",
            "NORMAL:-VERS-TLS-ALL:+VERS-TLS1.2:+VERS-TLS1.3",
            "NONE:+VERS-TLS-ALL:+KX-ALL:+CIPHER-ALL:+MAC-ALL:+SIGN-ALL:+GROUP-ALL",
        ] {
            assert_eq!(policy(text).warning(), None, "{text}");
        }
    }

    #[test]
    fn what_can_not_be_obeyed_is_named() {
        for (text, words) in [
            ("NORMAL:+VERS-SSL3.0", "+VERS-SSL3.0 (not supported here)"),
            ("NORMAL:+3DES-CBC", "+3DES-CBC (not supported here)"),
            ("PFS:+RSA", "+RSA (not supported here)"),
            ("NORMAL:+ANON-DH", "+ANON-DH (not supported here)"),
            ("NORMAL:%PROFILE_ULTRA", "%PROFILE_ULTRA (profiles"),
            ("NORMAL:%VERIFY_ALLOW_SIGN_WITH_SHA1", "you can pin one"),
            (
                "NORMAL:%FROBNICATE:+FOO:-BAR",
                "%FROBNICATE (unknown), +FOO (unknown), -BAR (unknown)",
            ),
            ("LEGACY", "LEGACY (taken for NORMAL)"),
            ("@SYSTEM", "taken for NORMAL"),
            ("SECURE192", "RSA keys from 2048 bits"),
        ] {
            let warning = policy(text).warning().unwrap();
            assert!(warning.contains(words), "{text}: {warning}");
            assert!(warning.starts_with(&format!("gnutls-algorithm-priority {text:?} ")));
        }
    }

    #[test]
    fn a_string_that_leaves_nothing_says_what_is_missing() {
        for (text, what) in [
            ("NONE", "TLS version"),
            ("-DHE-RSA", "TLS version"),
            ("NORMAL:-VERS-ALL:+VERS-TLS1.0", "TLS version"),
            ("NORMAL:-CIPHER-ALL:+AES-256-CBC", "cipher suite"),
            ("NORMAL:-VERS-TLS1.3:-KX-ALL:+RSA", "cipher suite"),
            (
                "NORMAL:-GROUP-ALL:+GROUP-FFDHE2048",
                "group for key exchange",
            ),
            ("NORMAL:-SIGN-ALL:+SIGN-RSA-SHA1", "signature algorithm"),
            ("NORMAL:-MAC-ALL:+SHA1", "authenticated encryption (AEAD)"),
        ] {
            assert_eq!(lacking(text), what, "{text}");
        }
    }

    #[test]
    fn normal_takes_nothing_away() {
        let (normal, all) = (policy("NORMAL"), Policy::default());
        assert_eq!(normal.versions, all.versions);
        assert_eq!(normal.signatures, all.signatures);
        let counts = |one: &Policy| {
            let provider = &one.provider;
            (provider.cipher_suites.len(), provider.kx_groups.len())
        };
        assert_eq!(counts(&normal), counts(&all));
    }

    #[test]
    fn groups_are_those_named_the_hybrid_one_first() {
        for (text, names) in [
            ("NORMAL", "X25519MLKEM768 X25519 secp256r1 secp384r1"),
            ("PFS", "X25519MLKEM768 X25519 secp256r1 secp384r1"),
            ("SECURE192", "secp384r1"),
            (
                "NORMAL:-GROUP-X25519-MLKEM768",
                "X25519 secp256r1 secp384r1",
            ),
            ("NORMAL:-GROUP-ALL:+GROUP-X25519-MLKEM768", "X25519MLKEM768"),
            (
                "NORMAL:-GROUP-ALL:+GROUP-SECP256R1:+GROUP-X25519",
                "X25519 secp256r1",
            ),
            ("NORMAL:-CURVE-X25519", "X25519MLKEM768 secp256r1 secp384r1"),
        ] {
            let groups = policy(text).provider.kx_groups;
            let ours: Vec<_> = groups
                .iter()
                .map(|one| format!("{:?}", one.name()))
                .collect();
            assert_eq!(ours.join(" "), names, "{text}");
        }
        assert!(!policy("NORMAL:-GROUP-ALL:+GROUP-X25519-MLKEM768").allows_tls12());
        let text = "NORMAL:-VERS-TLS1.3:-GROUP-ALL:+GROUP-X25519-MLKEM768";
        assert_eq!(lacking(text), "group for key exchange");
    }

    #[test]
    fn options_that_mean_something_are_obeyed() {
        assert!(policy("NORMAL:%NO_TICKETS").without_resumption);
        assert!(policy("NORMAL:%VERIFY_DISABLE_CRL_CHECKS").without_crls);
    }

    /// What gnutls-cli makes of the string, of the suites that the provider has.
    fn of_gnutls(text: &str) -> Option<Vec<[u8; 2]>> {
        let output = std::process::Command::new("gnutls-cli")
            .args(["--list", "--priority", text])
            .output()
            .ok()?;
        let all = Policy::default().provider.cipher_suites;
        let ours: Vec<[u8; 2]> = all.iter().map(|one| number(*one)).collect();
        let text = String::from_utf8(output.stdout).unwrap();
        let suites = text.lines().filter_map(|line| {
            let (_, numbers) = line.split_once("0x")?;
            let mut numbers = numbers.split([',', '\t']).filter_map(|number| {
                u8::from_str_radix(number.trim().trim_start_matches("0x"), 16).ok()
            });
            Some([numbers.next()?, numbers.next()?])
        });
        Some(suites.filter(|suite| ours.contains(suite)).collect())
    }

    fn number(suite: SupportedCipherSuite) -> [u8; 2] {
        u16::from(suite.suite()).to_be_bytes()
    }

    #[test]
    fn suites_and_their_order_are_those_of_gnutls() {
        for text in [
            "NORMAL",
            "PFS",
            "PERFORMANCE",
            "SECURE128",
            "SECURE192",
            "SECURE256",
            "SUITEB128",
            "SUITEB192",
            "NORMAL:-VERS-TLS1.3",
            "NORMAL:-VERS-ALL:+VERS-TLS1.3",
            "NORMAL:-ECDHE-RSA",
            "NORMAL:!AES-256-GCM:-CHACHA20-POLY1305",
            "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305:+AES-128-GCM",
            "NORMAL:-AES-128-GCM:+AES-128-GCM",
            "NORMAL:-KX-ALL:+ECDHE-RSA:+ECDHE-ECDSA",
            "PERFORMANCE:-VERS-ALL:+VERS-TLS1.2:%COMPAT",
            "SECURE256:+SECURE128",
            "NONE:+VERS-TLS1.2:+AES-128-GCM:+AES-256-GCM:+ECDHE-RSA:+AEAD:+SIGN-ALL:+GROUP-ALL",
        ] {
            let Some(expected) = of_gnutls(text) else {
                assert!(std::env::var_os("CI").is_none(), "gnutls-cli is missing");
                return eprintln!("not run: gnutls-cli is missing");
            };
            let policy = policy(text);
            let suites = policy.provider.cipher_suites.iter();
            let ours: Vec<_> = suites.map(|one| number(*one)).collect();
            assert_eq!(ours, expected, "{text}");
        }
    }
}
