//! GnuTLS priority strings (`gnutls-algorithm-priority`), read for what they mean here.
//!
//! Tokens are separated by colons. A keyword such as `NORMAL` adds to each list what it
//! stands for; `+X` adds to the list that X belongs to, `-X` and `!X` remove; `%X` sets
//! an option. What remains of versions, ciphers, key exchanges, MACs, groups and
//! signatures, and can be done by our cryptographic provider, is obeyed, the order of
//! ciphers included (the order of groups is not, for it would cost a round trip). Asking
//! for more than the provider has is named in a warning; taking it away is granted.

use super::policy::{Part, Policy, PolicyError, can_do};

/// What a keyword stands for, of what GnuTLS itself has in that list.
struct Level {
    keywords: &'static [&'static str],
    versions: &'static str,
    key_exchanges: &'static str,
    ciphers: &'static str,
    macs: &'static str,
    groups: &'static str,
    signatures: &'static str,
}

const ALL_VERSIONS: &str = "TLS1.3 TLS1.2 TLS1.1 TLS1.0";
const ALL_KEY_EXCHANGES: &str = "ECDHE-ECDSA ECDHE-RSA RSA DHE-RSA";
const ALL_CIPHERS: &str =
    "AES-256-GCM CHACHA20-POLY1305 AES-256-CCM AES-256-CBC AES-128-GCM AES-128-CCM AES-128-CBC";
const ALL_MACS: &str = "SHA1 AEAD";
const ALL_GROUPS: &str = "SECP256R1 SECP384R1 SECP521R1 X25519 X448 FFDHE2048 FFDHE3072 \
                          FFDHE4096 FFDHE6144 FFDHE8192 X25519-MLKEM768 SECP256R1-MLKEM768 \
                          SECP384R1-MLKEM1024";
const ALL_SIGNATURES: &str = "RSA-SHA256 RSA-PSS-SHA256 RSA-PSS-RSAE-SHA256 ECDSA-SHA256 \
     ECDSA-SECP256R1-SHA256 EDDSA-ED25519 RSA-SHA384 RSA-PSS-SHA384 RSA-PSS-RSAE-SHA384 \
     ECDSA-SHA384 ECDSA-SECP384R1-SHA384 EDDSA-ED448 RSA-SHA512 RSA-PSS-SHA512 \
     RSA-PSS-RSAE-SHA512 ECDSA-SHA512 ECDSA-SECP521R1-SHA512 RSA-SHA1 ECDSA-SHA1";

const NORMAL: Level = Level {
    keywords: &["NORMAL", "SECURE128", "SECURE", "LEGACY"],
    versions: ALL_VERSIONS,
    key_exchanges: ALL_KEY_EXCHANGES,
    ciphers: ALL_CIPHERS,
    macs: ALL_MACS,
    groups: ALL_GROUPS,
    signatures: ALL_SIGNATURES,
};

const LEVELS: &[Level] = &[
    NORMAL,
    Level {
        keywords: &["PFS"],
        key_exchanges: "ECDHE-ECDSA ECDHE-RSA DHE-RSA",
        ..NORMAL
    },
    Level {
        keywords: &["PERFORMANCE"],
        ciphers: "AES-128-GCM AES-256-GCM CHACHA20-POLY1305 AES-128-CCM AES-256-CCM \
                  AES-128-CBC AES-256-CBC",
        ..NORMAL
    },
    Level {
        keywords: &["SECURE192", "SECURE256"],
        ciphers: "AES-256-GCM CHACHA20-POLY1305 AES-256-CBC AES-256-CCM",
        macs: "AEAD",
        groups: "SECP384R1 SECP521R1 FFDHE8192",
        signatures: "RSA-SHA384 RSA-PSS-SHA384 RSA-PSS-RSAE-SHA384 ECDSA-SHA384 \
             ECDSA-SECP384R1-SHA384 EDDSA-ED448 RSA-SHA512 RSA-PSS-SHA512 \
             RSA-PSS-RSAE-SHA512 ECDSA-SHA512 ECDSA-SECP521R1-SHA512",
        ..NORMAL
    },
    Level {
        keywords: &["SUITEB128"],
        versions: "TLS1.2",
        key_exchanges: "ECDHE-ECDSA",
        ciphers: "AES-256-GCM AES-128-GCM",
        macs: "AEAD",
        groups: "SECP256R1 SECP384R1",
        signatures: "ECDSA-SHA256 ECDSA-SECP256R1-SHA256 ECDSA-SHA384 ECDSA-SECP384R1-SHA384",
    },
    Level {
        keywords: &["SUITEB192"],
        versions: "TLS1.2",
        key_exchanges: "ECDHE-ECDSA",
        ciphers: "AES-256-GCM",
        macs: "AEAD",
        groups: "SECP384R1",
        signatures: "ECDSA-SHA384 ECDSA-SECP384R1-SHA384",
    },
];

/// What GnuTLS knows beyond `NORMAL`: a list's names tell which list a token belongs to.
const OTHER_VERSIONS: &str = "SSL3.0 DTLS0.9 DTLS1.0 DTLS1.2 DTLS1.3";
const OTHER_KEY_EXCHANGES: &str = "DHE-DSS PSK RSA-PSK DHE-PSK ECDHE-PSK SRP-DSS SRP-RSA SRP \
                                   ANON-DH ANON-ECDH VKO-GOST-12 RSA-EXPORT";
const OTHER_CIPHERS: &str = "AES-192-CBC AES-192-GCM AES-128-CCM-8 AES-256-CCM-8 ARCFOUR-128 \
     CAMELLIA-256-CBC CAMELLIA-192-CBC CAMELLIA-128-CBC CAMELLIA-128-GCM CAMELLIA-256-GCM \
     3DES-CBC DES-CBC RC2-40 NULL GOST28147-TC26Z-CNT";
const OTHER_MACS: &str = "MD5 SHA224 SHA256 SHA384 SHA512 UMAC-96 UMAC-128 GOST28147-TC26Z-IMIT";

/// Options that mean nothing to us or name what is so anyway: nothing is ever
/// renegotiated, and there is no compression, no MAC of its own, no padding to choose.
const HARMLESS_OPTIONS: &str = "COMPAT DUMBFW SAFE_RENEGOTIATION PARTIAL_RENEGOTIATION \
     UNSAFE_RENEGOTIATION DISABLE_SAFE_RENEGOTIATION SERVER_PRECEDENCE LATEST_RECORD_VERSION \
     SSL3_RECORD_VERSION STATELESS_COMPRESSION FORCE_ETM NO_ETM FORCE_SESSION_HASH \
     FALLBACK_SCSV NO_EXTENSIONS NO_STATUS_REQUEST NO_SHUFFLE_EXTENSIONS NEW_PADDING \
     DISABLE_TLS13_COMPAT_MODE ALLOW_SMALL_RECORDS PROFILE_VERY_WEAK PROFILE_LOW \
     PROFILE_LEGACY PROFILE_MEDIUM";

/// One of the lists that tokens add to and remove from.
#[derive(Default)]
struct List(Vec<String>);

impl List {
    fn add(&mut self, names: &str) {
        for name in names.split_whitespace() {
            if !self.has(name) {
                self.0.push(name.to_owned());
            }
        }
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|one| one != name);
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|one| one == name)
    }
}

#[derive(Default)]
struct Lists {
    versions: List,
    key_exchanges: List,
    ciphers: List,
    macs: List,
    groups: List,
    signatures: List,
}

fn holds(names: &str, name: &str) -> bool {
    names.split_whitespace().any(|one| one == name)
}

impl Lists {
    fn add_level(&mut self, keyword: &str) -> bool {
        let level = LEVELS
            .iter()
            .find(|level| level.keywords.contains(&keyword));
        if let Some(level) = level {
            self.versions.add(level.versions);
            self.key_exchanges.add(level.key_exchanges);
            self.ciphers.add(level.ciphers);
            self.macs.add(level.macs);
            self.groups.add(level.groups);
            self.signatures.add(level.signatures);
        }
        level.is_some()
    }

    /// The list that a token is about, the name it has there, and what the list can
    /// hold; `None` if GnuTLS does not know it either.
    fn find<'t>(&mut self, token: &'t str) -> Option<(&mut List, &'t str, &'static str)> {
        if let Some(name) = token.strip_prefix("VERS-") {
            let known = holds(ALL_VERSIONS, name) || holds(OTHER_VERSIONS, name);
            return (known || matches!(name, "ALL" | "TLS-ALL" | "DTLS-ALL")).then_some((
                &mut self.versions,
                name,
                ALL_VERSIONS,
            ));
        }
        if let Some(name) = token.strip_prefix("SIGN-") {
            return Some((&mut self.signatures, name, ALL_SIGNATURES));
        }
        let group = token.strip_prefix("GROUP-");
        if let Some(name) = group.or_else(|| token.strip_prefix("CURVE-")) {
            return Some((&mut self.groups, name, ALL_GROUPS));
        }
        match token {
            "CIPHER-ALL" => return Some((&mut self.ciphers, "ALL", ALL_CIPHERS)),
            "MAC-ALL" => return Some((&mut self.macs, "ALL", ALL_MACS)),
            "KX-ALL" => return Some((&mut self.key_exchanges, "ALL", ALL_KEY_EXCHANGES)),
            _ => {}
        }
        if holds(ALL_CIPHERS, token) || holds(OTHER_CIPHERS, token) {
            Some((&mut self.ciphers, token, ALL_CIPHERS))
        } else if holds(ALL_KEY_EXCHANGES, token) || holds(OTHER_KEY_EXCHANGES, token) {
            Some((&mut self.key_exchanges, token, ALL_KEY_EXCHANGES))
        } else if holds(ALL_MACS, token) || holds(OTHER_MACS, token) {
            Some((&mut self.macs, token, ALL_MACS))
        } else {
            None
        }
    }
}

impl Policy {
    /// The policy of `gnutls-algorithm-priority`.
    pub fn of(priority: Option<&str>) -> Result<Self, PolicyError> {
        let Some(text) = priority else {
            return Ok(Policy::default());
        };
        let mut policy = parse(text).map_err(|error| PolicyError {
            priority: text.to_owned(),
            ..error
        })?;
        policy.priority = Some(text.to_owned());
        Ok(policy)
    }
}

/// Reads a priority string; its warnings are in the policy.
fn parse(text: &str) -> Result<Policy, PolicyError> {
    let mut lists = Lists::default();
    let mut policy = Policy::default();
    // As Emacs does before it hands the string to GnuTLS.
    let upper = text.to_uppercase();
    for token in upper
        .split([':', ',', ' '])
        .filter(|token| !token.is_empty())
    {
        if let Err(why) = obey(token, &mut lists, &mut policy) {
            policy.warnings.push(format!("{token} ({why})"));
        }
    }
    policy.restrict(|what| {
        let (list, names) = match what {
            Part::Version(name) => (&lists.versions, vec![name]),
            Part::KeyExchange(name) => (&lists.key_exchanges, vec![name]),
            Part::Cipher(name) => (&lists.ciphers, vec![name]),
            Part::Mac(name) => (&lists.macs, vec![name]),
            Part::Group(name) => (&lists.groups, vec![name]),
            Part::Signature(names) => (&lists.signatures, names.to_vec()),
        };
        list.0.iter().position(|one| names.contains(&one.as_str()))
    })?;
    Ok(policy)
}

/// Applies one token, or says why it can't be obeyed.
fn obey(token: &str, lists: &mut Lists, policy: &mut Policy) -> Result<(), &'static str> {
    if let Some(option) = token.strip_prefix('%') {
        return obey_option(option, policy);
    }
    if let Some(name) = token.strip_prefix('+') {
        return add(name, lists);
    }
    if let Some(name) = token.strip_prefix(['-', '!']) {
        return remove(name, lists);
    }
    match token {
        "NONE" => Ok(()),
        _ if token.starts_with('@') => {
            lists.add_level("NORMAL");
            Err("GnuTLS's configuration file is not read; taken for NORMAL")
        }
        _ if !lists.add_level(token) => Err("unknown"),
        "LEGACY" => Err("taken for NORMAL"),
        "SECURE192" | "SECURE256" => {
            Err("obeyed, but certificates with RSA keys from 2048 bits are still accepted")
        }
        _ => Ok(()),
    }
}

fn obey_option(option: &str, policy: &mut Policy) -> Result<(), &'static str> {
    match option {
        "NO_TICKETS" | "NO_TICKETS_TLS12" => policy.without_resumption = true,
        "VERIFY_DISABLE_CRL_CHECKS" => policy.without_crls = true,
        _ if holds(HARMLESS_OPTIONS, option) => {}
        _ if option.starts_with("VERIFY_ALLOW") => {
            return Err("weak certificates are not accepted; you can pin one");
        }
        _ if option.starts_with("PROFILE_") => return Err("profiles are not known here"),
        _ => return Err("unknown"),
    }
    Ok(())
}

fn add(name: &str, lists: &mut Lists) -> Result<(), &'static str> {
    if lists.add_level(name) || is_beside_the_point(name) {
        return Ok(());
    }
    let Some((list, name, all)) = lists.find(name) else {
        return Err("unknown");
    };
    if name.ends_with("ALL") {
        match name {
            "DTLS-ALL" => {}
            "EC-ALL" => list.add("SECP256R1 SECP384R1 SECP521R1 X25519 X448"),
            "DH-ALL" => list.add("FFDHE2048 FFDHE3072 FFDHE4096 FFDHE6144 FFDHE8192"),
            _ => list.add(all),
        }
        return Ok(());
    }
    // The keyword had it already, whether we can do it or not.
    if list.has(name) {
        return Ok(());
    }
    list.add(name);
    if can_do(name) {
        Ok(())
    } else {
        Err("not supported here")
    }
}

fn remove(name: &str, lists: &mut Lists) -> Result<(), &'static str> {
    if is_beside_the_point(name) {
        return Ok(());
    }
    let Some((list, name, _)) = lists.find(name) else {
        return Err("unknown");
    };
    match name {
        "DTLS-ALL" => {}
        "EC-ALL" => list.0.retain(|group| group.starts_with("FFDHE")),
        "DH-ALL" => list.0.retain(|group| !group.starts_with("FFDHE")),
        _ if name.ends_with("ALL") => list.0.clear(),
        _ => list.remove(name),
    }
    Ok(())
}

/// Certificates are X.509, nothing is compressed, and this is not DTLS.
fn is_beside_the_point(name: &str) -> bool {
    name.starts_with("CTYPE-") || name.starts_with("COMP-") || name.starts_with("VERS-DTLS")
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
