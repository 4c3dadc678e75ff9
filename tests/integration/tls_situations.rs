//! TLS situations against real servers: what happens, and what the user reads. With
//! `--nocapture` it prints the table.

use std::time::Duration;

use crate::common::{Client, MESSAGE, target};
use crate::postfix::Postfix;
use crate::tls::{
    Authority, Kind, Leaf, User, World, is_missing, revocation_list, s_server, stunnel,
};
use rs_smtpmail::bridge::Kind as Outcome;
use rs_smtpmail::mail::StreamType;
use rs_smtpmail::net::tls::{Certificate, IdentityFiles, Pin};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use server::Relay;

const DETAILS: &str = "subject CN=localhost, issuer CN=Test root, valid 2001-01-01 to 2049-01-01";
const SELF_SIGNED: &str = "the server's certificate is self-signed, so nobody vouches for it";
const SELF_DETAILS: &str =
    "subject CN=localhost, issuer CN=localhost, valid 2001-01-01 to 2049-01-01";
const WRONG_HOST: &str = "the server's certificate is not for 127.0.0.1 but for mail.wrong.example";
const WRONG_HOST_DETAILS: &str =
    "subject CN=mail.wrong.example, issuer CN=Test root, valid 2001-01-01 to 2049-01-01";
const EXPIRED: &str = "the server's certificate has expired (its last day: 2002-01-01)";
const EXPIRED_DETAILS: &str =
    "subject CN=localhost, issuer CN=Test root, valid 2001-01-01 to 2002-01-01";
const REVOKED: &str =
    "the server's certificate is revoked: its issuer says that it must not be trusted any more";
const UNKNOWN: &str = "the server's certificate is signed by nobody this machine trusts, or the \
    server leaves out a certificate between";
const OLD: &str = "which is no longer safe and which this package does not speak; whoever runs \
    the server must allow TLS 1.2 or 1.3 with ECDHE";
const NO_IDENTITY: &str = "the server wants a client certificate, and there is none to show; \
    name its PEM files in the server's entry of auth-sources: key FILE cert FILE";

fn key_of(leaf: &Leaf) -> String {
    let der = CertificateDer::from_pem_file(&leaf.certificate).unwrap();
    Certificate::read(&der).unwrap().key.to_string()
}

fn what_is_spoken(world: &World) {
    let good = world.leaf(Kind::Good);
    let rsa = world.leaf(Kind::Rsa(2048));
    let meet =
        |what: &str, leaf: &Leaf, options: &str, user: User| world.meet(what, leaf, options, user);
    meet(
        "TLS 1.2 only",
        &good,
        "sslVersion = TLSv1.2",
        world.trusting(),
    )
    .is_sent();
    meet(
        "TLS 1.3 only",
        &good,
        "sslVersion = TLSv1.3",
        world.trusting(),
    )
    .is_sent();
    let weak = "ciphers = ALL:@SECLEVEL=0";
    for (version, name) in [("TLSv1", "TLS 1.0"), ("TLSv1.1", "TLS 1.1")] {
        let options = format!("sslVersion = {version}\n{weak}");
        let what = format!("{name} only");
        meet(&what, &rsa, &options, world.trusting()).needs_user(&format!(
            "TLS handshake: the server only speaks {name}, {OLD}"
        ));
    }
    for (ciphers, what) in [
        ("AES128-SHA:AES256-GCM-SHA384", "RSA key exchange"),
        (
            "DHE-RSA-AES256-SHA",
            "finite-field Diffie-Hellman key exchange",
        ),
        ("ECDHE-RSA-AES256-SHA", "CBC ciphers"),
    ] {
        let options = format!("sslVersion = TLSv1.2\nciphers = {ciphers}:@SECLEVEL=0");
        meet(&format!("{what} only"), &rsa, &options, world.trusting()).needs_user(&format!(
            "TLS handshake: the server only speaks TLS 1.2 with {what}, {OLD}"
        ));
    }
    world
        .meet_by(
            "TLS 1.0 only, by STARTTLS",
            &rsa,
            &format!("protocol = smtp\nsslVersion = TLSv1\n{weak}"),
            StreamType::Starttls,
            |_| world.trusting(),
        )
        .needs_user(&format!(
            "TLS handshake: the server only speaks TLS 1.0, {OLD}"
        ));
    world
        .send(
            "no TLS on a port for TLS",
            world.mail.port(),
            StreamType::Ssl,
            world.trusting(),
        )
        .text
        .strip_prefix(
            "TLS handshake: the server does not speak TLS on this port; is the stream type right?",
        )
        .unwrap();
}

fn what_the_priority_string_says(world: &World) {
    let good = world.leaf(Kind::Good);
    let meet = |what: &str, options: &str, priority: &str| {
        let user = world.with_priority(priority);
        world.meet(
            &format!("{what}, priority {priority}"),
            &good,
            options,
            user,
        )
    };
    meet("TLS 1.2 only", "sslVersion = TLSv1.2", "PFS:%COMPAT").is_sent();
    let without = "NORMAL:-VERS-TLS1.2";
    meet("TLS 1.2 only", "sslVersion = TLSv1.2", without).needs_user(
        "TLS handshake: the server only speaks TLS 1.2: gnutls-algorithm-priority \
         \"NORMAL:-VERS-TLS1.2\" allows TLS 1.3 here",
    );
    let without = "NORMAL:-VERS-TLS1.3";
    meet("TLS 1.3 only", "sslVersion = TLSv1.3", without).needs_user(
        "TLS handshake: the server does not speak TLS 1.2 or older, or with nothing that is \
         allowed: gnutls-algorithm-priority \"NORMAL:-VERS-TLS1.3\" allows TLS 1.2 here",
    );
    let rsa = world.leaf(Kind::Rsa(2048));
    let priority = "NORMAL:-VERS-TLS1.3:-ECDHE-RSA";
    let user = world.with_priority(priority);
    world
        .meet("RSA, priority without ECDHE-RSA", &rsa, "", user)
        .needs_user(
            "TLS handshake: the server speaks TLS 1.2, but with nothing that is allowed: \
             gnutls-algorithm-priority \"NORMAL:-VERS-TLS1.3:-ECDHE-RSA\" allows TLS 1.2 here",
        );
    let asks_for_more = meet("any", "", "NORMAL:+VERS-SSL3.0:+3DES-CBC");
    asks_for_more.is_sent();
    assert_eq!(
        asks_for_more.warnings,
        [
            "gnutls-algorithm-priority \"NORMAL:+VERS-SSL3.0:+3DES-CBC\" can't be obeyed in \
             everything: +VERS-SSL3.0 (not supported here), +3DES-CBC (not supported here)"
        ]
    );
    meet("any", "", "NORMAL:-VERS-ALL:+VERS-TLS1.1").needs_user(
        "TLS handshake: gnutls-algorithm-priority \"NORMAL:-VERS-ALL:+VERS-TLS1.1\" leaves no TLS \
         version; this package speaks TLS 1.2 and 1.3 with ECDHE, AES-GCM and CHACHA20-POLY1305",
    );
}

fn who_vouches_for_it(world: &World) {
    for (kind, reason, details) in [
        (Kind::WrongHost, WRONG_HOST, WRONG_HOST_DETAILS),
        (Kind::Expired, EXPIRED, EXPIRED_DETAILS),
        (
            Kind::NotYetValid,
            "the server's certificate is not valid yet (its first day: 2048-01-01; is this \
             machine's clock right?)",
            "subject CN=localhost, issuer CN=Test root, valid 2048-01-01 to 2049-01-01",
        ),
        (Kind::SelfSigned, SELF_SIGNED, SELF_DETAILS),
    ] {
        let what = format!("{kind:?}; the user says never");
        let leaf = world.leaf(kind);
        world
            .meet(&what, &leaf, "", world.trusting())
            .asks(reason, details);
    }
    let self_signed = world.leaf(Kind::SelfSigned);
    let starttls = |stream_type| {
        let what = format!("SelfSigned, by STARTTLS, stream type {stream_type:?}; never");
        world.meet_by(&what, &self_signed, "protocol = smtp", stream_type, |_| {
            world.trusting()
        })
    };
    starttls(StreamType::Starttls).asks(SELF_SIGNED, SELF_DETAILS);
    starttls(StreamType::Opportunistic).asks(SELF_SIGNED, SELF_DETAILS);

    let user = User {
        trusts: true,
        ..world.trusting()
    };
    let seen = world.meet(
        "SelfSigned; the user says this session",
        &self_signed,
        "",
        user,
    );
    seen.is_sent();
    assert_eq!(seen.questions, 1);

    let mut user = world.trusting();
    user.settings
        .net
        .tls
        .trust_files
        .push(self_signed.certificate.clone());
    let seen = world.meet("SelfSigned, in gnutls-trustfiles", &self_signed, "", user);
    seen.is_sent();
    assert_eq!(seen.questions, 0);

    let other = Authority::new("Somebody");
    let leaf = world.leaf_of(&other, Kind::Good);
    world
        .meet(
            "of an unknown authority; never",
            &leaf,
            "",
            world.trusting(),
        )
        .asks(UNKNOWN, &DETAILS.replace("Test root", "Somebody"));

    let between = world.root.below("Test intermediate");
    let leaf = world.leaf_of(&between, Kind::Good);
    let details = DETAILS.replace("Test root", "Test intermediate");
    world
        .meet(
            "the intermediate is missing; never",
            &leaf,
            "",
            world.trusting(),
        )
        .asks(UNKNOWN, &details);
    let chain = std::fs::read_to_string(&leaf.certificate).unwrap() + &between.pem;
    std::fs::write(&leaf.certificate, chain).unwrap();
    world
        .meet("the intermediate is there", &leaf, "", world.trusting())
        .is_sent();

    let weak = world.leaf(Kind::Rsa(1024));
    let seen = world.meet(
        "RSA of 1024 bits",
        &weak,
        "ciphers = ALL:@SECLEVEL=0",
        world.trusting(),
    );
    seen.is_refused(
        "the server's key is too short: RSA of 1024 bits, where 2048 are the least",
        &dates(&weak),
    );
    let sha1 = world.leaf(Kind::Sha1);
    let options = "ciphers = ALL:@SECLEVEL=0";
    let seen = world.meet("signed with SHA-1; never", &sha1, options, world.trusting());
    seen.asks(
        "the server's certificate is signed with an algorithm that is no longer safe, such as SHA-1",
        &dates(&sha1),
    );
}

/// As openssl has dated it, from today.
fn dates(leaf: &Leaf) -> String {
    let der = CertificateDer::from_pem_file(&leaf.certificate).unwrap();
    let read = Certificate::read(&der).unwrap();
    format!(
        "subject CN=localhost, issuer CN=Test root, valid {} to {}",
        read.not_before, read.not_after
    )
}

fn who_is_revoked(world: &World) {
    let list = world.path().join("list.pem");
    let leaf = world.leaf(Kind::Good);
    let mut user = world.trusting();
    revocation_list(&world.root, &[leaf.serial], &list);
    user.settings.net.tls.crl_files = vec![list.clone()];
    world
        .meet("revoked, in gnutls-crlfiles", &leaf, "", user)
        .is_refused(REVOKED, DETAILS);
    let mut user = world.trusting();
    user.settings.net.tls.crl_files = vec![list.clone()];
    let pinned = |port: u16| {
        let endpoint = format!("127.0.0.1:{port}");
        user.settings.net.tls.pins = vec![Pin::parse(&endpoint, &[key_of(&leaf)]).unwrap()];
        user
    };
    let seen = world.meet_by("revoked, and pinned", &leaf, "", StreamType::Ssl, pinned);
    seen.is_refused(REVOKED, DETAILS);
    let mut user = world.trusting();
    user.settings.net.tls.crl_files = vec![list.clone()];
    let another = world.leaf(Kind::Good);
    world
        .meet("another one is revoked", &another, "", user)
        .is_sent();
    let mut user = world.with_priority("NORMAL:%VERIFY_DISABLE_CRL_CHECKS");
    user.settings.net.tls.crl_files = vec![list];
    let what = "revoked, but %VERIFY_DISABLE_CRL_CHECKS";
    world.meet(what, &leaf, "", user).is_sent();
}

fn what_is_pinned(world: &World) {
    let pinning = |leaf: &Leaf, trusts: bool| {
        let key = key_of(leaf);
        let mut settings = world.settings();
        move |port: u16| {
            let endpoint = format!("127.0.0.1:{port}");
            settings.net.tls.pins = vec![Pin::parse(&endpoint, &[key]).unwrap()];
            User {
                settings,
                trusts,
                ..User::default()
            }
        }
    };
    let meet = |what: &str, leaf: &Leaf, pinned: &Leaf, trusts| {
        let user = pinning(pinned, trusts);
        world.meet_by(what, leaf, "", StreamType::Ssl, user)
    };
    let expired = world.leaf(Kind::Expired);
    let seen = meet("expired, and pinned", &expired, &expired, false);
    seen.is_sent();
    assert_eq!(seen.questions, 0);
    let wrong = world.leaf(Kind::WrongHost);
    meet("WrongHost, and pinned", &wrong, &wrong, false).is_sent();

    let good = world.leaf(Kind::Good);
    let alarm = "ALARM: the server's key is not the one you have pinned: either it was given a new \
                 one, or somebody else answers in its place";
    let seen = meet(
        "a good one, but another key is pinned; never",
        &good,
        &expired,
        false,
    );
    seen.needs_user(&format!(
        "TLS handshake: {alarm} [{DETAILS}, SHA-256 of the certificate KEY, of its key KEY]; only \
         if you know for certain that the new key is right: (setf (alist-get \"127.0.0.1:PORT\" \
         rs-smtpmail-tls-pins nil nil #'equal) \"KEY\")"
    ));
    assert_eq!(seen.questions, 1);
    let seen = meet(
        "the same; the user trusts the new one",
        &good,
        &expired,
        true,
    );
    seen.is_sent();
    assert_eq!(seen.questions, 1);
}

fn who_we_are(world: &World) {
    let good = world.leaf(Kind::Good);
    let files = |leaf: &Leaf| {
        Some(IdentityFiles {
            key: leaf.key.clone(),
            certificate: leaf.certificate.clone(),
        })
    };
    let ours = files(&world.leaf(Kind::Client));
    let foreign = files(&world.leaf_of(&Authority::new("Somebody"), Kind::Client));
    let ca = format!("CAfile = {}", world.root.file(world.path()).display());
    for (version, missing, refused) in [
        ("TLSv1.3", "CertificateRequired", "UnknownCA"),
        ("TLSv1.2", "HandshakeFailure", "UnknownCA"),
    ] {
        let options = format!("requireCert = yes\nverifyChain = yes\n{ca}\nsslVersion = {version}");
        let meet = |what: &str, identity: &Option<IdentityFiles>| {
            let user = User {
                identity: identity.clone(),
                ..world.trusting()
            };
            let what = format!("a client certificate is required ({version}), {what}");
            world.meet(&what, &good, &options, user)
        };
        meet("and given", &ours).is_sent();
        let at = if version == "TLSv1.3" {
            "greeting"
        } else {
            "TLS handshake"
        };
        meet("and missing", &None).needs_user(&format!("{at}: {NO_IDENTITY} ({missing})"));
        meet("and of an unknown authority", &foreign).needs_user(&format!(
            "{at}: the server does not accept our client certificate ({refused})"
        ));
    }
    let unreadable = Some(IdentityFiles {
        key: good.key.clone(),
        certificate: world.path().join("no-such-file"),
    });
    let options = format!("requireCert = yes\nverifyChain = yes\n{ca}");
    let user = User {
        identity: unreadable,
        ..world.trusting()
    };
    let seen = world.meet(
        "a client certificate that is not there",
        &good,
        &options,
        user,
    );
    assert!(
        seen.text.starts_with("TLS handshake: client certificate "),
        "{}",
        seen.text
    );
    let options = format!("protocol = smtp\nrequireCert = yes\nverifyChain = yes\n{ca}");
    let what = "a client certificate is required and given, by STARTTLS";
    let user = |_| User {
        identity: ours,
        ..world.trusting()
    };
    world
        .meet_by(what, &good, &options, StreamType::Starttls, user)
        .is_sent();
}

fn what_openssl_serves(world: &World) {
    let meet = |what: &str, leaf: &Leaf, options: &[&str], user: User| {
        let server = s_server(leaf, options);
        let what = format!("openssl s_server: {what}");
        world.send(&what, server.port, StreamType::Ssl, user)
    };
    for (kind, reason, details) in [
        (Kind::WrongHost, WRONG_HOST, WRONG_HOST_DETAILS),
        (Kind::Expired, EXPIRED, EXPIRED_DETAILS),
        (Kind::SelfSigned, SELF_SIGNED, SELF_DETAILS),
    ] {
        let what = format!("{kind:?}; never");
        meet(&what, &world.leaf(kind), &[], world.trusting()).asks(reason, details);
    }
    let leaf = world.leaf(Kind::Good);
    let list = world.path().join("openssl-list.pem");
    revocation_list(&world.root, &[leaf.serial], &list);
    let mut user = world.trusting();
    user.settings.net.tls.crl_files = vec![list];
    meet("revoked, in gnutls-crlfiles", &leaf, &[], user).is_refused(REVOKED, DETAILS);
    let rsa = world.leaf(Kind::Rsa(2048));
    let weak = "ALL:@SECLEVEL=0";
    for (options, name) in [
        (["-tls1", "-cipher", weak], "TLS 1.0"),
        (["-tls1_1", "-cipher", weak], "TLS 1.1"),
        (
            ["-tls1_2", "-cipher", "AES256-GCM-SHA384"],
            "TLS 1.2 with RSA key exchange",
        ),
    ] {
        meet(&format!("{name} only"), &rsa, &options, world.trusting()).needs_user(&format!(
            "TLS handshake: the server only speaks {name}, {OLD}"
        ));
    }
    let options = ["-Verify", "1", "-verify_return_error", "-tls1_2"];
    meet(
        "a client certificate is required, and missing",
        &leaf,
        &options,
        world.trusting(),
    )
    .needs_user(&format!("TLS handshake: {NO_IDENTITY} (HandshakeFailure)"));
}

fn what_postfix_serves(world: &World) {
    let rsa = world.leaf(Kind::Rsa(2048));
    let encrypt = |leaf: &Leaf| {
        format!(
            "-o smtpd_tls_security_level=encrypt -o smtpd_tls_cert_file={} \
             -o smtpd_tls_key_file={}",
            leaf.certificate.display(),
            leaf.key.display()
        )
    };
    let services = [
        ("GOOD", encrypt(&world.leaf(Kind::Good))),
        ("WRONG_HOST", encrypt(&world.leaf(Kind::WrongHost))),
        ("EXPIRED", encrypt(&world.leaf(Kind::Expired))),
        ("SELF_SIGNED", encrypt(&world.leaf(Kind::SelfSigned))),
        (
            "OLD",
            encrypt(&rsa)
                + " -o smtpd_tls_mandatory_protocols=TLSv1 -o smtpd_tls_mandatory_ciphers=high \
                   -o tls_high_cipherlist=ALL:@SECLEVEL=0",
        ),
        (
            "WRAPPED",
            encrypt(&world.leaf(Kind::Expired)) + " -o smtpd_tls_wrappermode=yes",
        ),
        ("NONE", "-o smtpd_tls_security_level=none".to_owned()),
    ];
    let services = services.map(|(name, options)| format!("{name} {options}\n"));
    let Some(postfix) = Postfix::start(&services.concat()) else {
        return;
    };
    let meet = |what: &str, name: &str, stream_type: StreamType| {
        let port = postfix.fact(&format!("{name}_PORT")).parse().unwrap();
        let what = format!("Postfix: {what}");
        world.send(&what, port, stream_type, world.trusting())
    };
    let starttls = StreamType::Starttls;
    meet("STARTTLS", "GOOD", starttls).is_sent();
    meet("WrongHost; never", "WRONG_HOST", starttls).asks(WRONG_HOST, WRONG_HOST_DETAILS);
    meet("Expired; never", "EXPIRED", starttls).asks(EXPIRED, EXPIRED_DETAILS);
    meet("SelfSigned; never", "SELF_SIGNED", starttls).asks(SELF_SIGNED, SELF_DETAILS);
    meet(
        "Expired, by implicit TLS; never",
        "WRAPPED",
        StreamType::Ssl,
    )
    .asks(EXPIRED, EXPIRED_DETAILS);
    meet("TLS 1.0 only", "OLD", starttls).needs_user(&format!(
        "TLS handshake: the server only speaks TLS 1.0, {OLD}"
    ));
    meet("no STARTTLS, and it is wanted", "NONE", starttls)
        .text
        .strip_prefix("STARTTLS: ")
        .unwrap();
}

/// Sends by OpenSSL with these groups; the client's turns, and the handshake in the trace.
fn agreement(world: &World, groups: &str, priority: Option<&str>) -> (usize, String) {
    let leaf = world.leaf(Kind::Good);
    let options = format!("curves = {groups}");
    let server = stunnel(world.path(), &leaf, world.mail.port(), &options);
    let relay = Relay::start(server.port, Duration::from_millis(20));
    let mut settings = world.settings();
    settings.trace = true;
    settings.net.tls.priority = priority.map(str::to_owned);
    let mut client = Client::new(settings);
    let to = target(relay.port(), StreamType::Ssl);
    let seen = client.try_to_send(&to, &["you@example.com"], MESSAGE);
    assert_eq!(seen.kind, Outcome::Sent, "{groups}: {seen:?}");
    let (_, handshake) = client.trace.split_once("<TLS 1.3, ").unwrap();
    let (group, _) = handshake.split_once(", TLS13_AES_256_GCM").unwrap();
    (relay.turns()[0], group.to_owned())
}

#[test]
fn a_server_without_the_hybrid_group_gets_x25519_at_once() {
    if is_missing() {
        return;
    }
    let world = World::new();
    let (turns, group) = agreement(&world, "X25519:P-256", None);
    assert_eq!(group, "X25519");
    // It must ask for another share.
    assert_eq!(
        agreement(&world, "P-384", None),
        (turns + 1, "secp384r1".to_owned())
    );
    for (token, name) in [
        ("GROUP-SECP256R1", "secp256r1"),
        ("GROUP-SECP384R1", "secp384r1"),
        ("CURVE-X25519", "X25519"),
    ] {
        let priority = format!("NORMAL:-GROUP-ALL:+{token}");
        let agreed = agreement(&world, "X25519:P-256:P-384", Some(&priority));
        assert_eq!(agreed, (turns, name.to_owned()), "{priority}");
    }
}

#[test]
fn each_situation_is_told_in_words_of_its_own() {
    if is_missing() {
        return;
    }
    let world = World::new();
    what_is_spoken(&world);
    what_the_priority_string_says(&world);
    who_vouches_for_it(&world);
    who_is_revoked(&world);
    what_is_pinned(&world);
    who_we_are(&world);
    what_openssl_serves(&world);
    what_postfix_serves(&world);
    let rows = world.rows.borrow();
    for (number, [what, happened, text]) in rows.iter().enumerate() {
        println!("{:2}  {what}\n    {happened}\n    {text}", number + 1);
    }
    assert!(rows.len() >= 50, "{}", rows.len());
}
