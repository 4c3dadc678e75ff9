//! TLS by STARTTLS and from the start, and its certificates.

use std::sync::Arc;

use rustls::{ClientConfig, ProtocolVersion};

use super::{Client, code, trusting};
use smtp_test_server::{Leaf, Options, Rule, Server, Stage, Tls, TlsVersions};

fn implicit(server: &Server, config: Arc<ClientConfig>) -> std::io::Result<Client> {
    Client::connect(server.address()).start_tls(config)
}

#[test]
fn starttls_forgets_what_was_before_and_offers_auth() {
    let server = Server::start(Options::new(Tls::StartTls).require_auth());
    let mut client = Client::ready(&server);
    client.dialogue(&[("STARTTLS", 220)]);
    let mut client = client.start_tls(trusting(&server)).unwrap();
    client.dialogue(&[("MAIL FROM:<a@example.org>", 503)]);
    let hello = client.ask("EHLO client.example");
    assert!(hello.contains("AUTH PLAIN LOGIN") && !hello.contains("STARTTLS"));
    client.dialogue(&[("AUTH PLAIN AHVzZXIAcGFzcyB3b3Jk", 235)]);
    assert_eq!(code(&client.message(b"x\r\n")), 250);
    let message = &server.messages()[0];
    assert_eq!(message.tls.as_deref(), Some("TLSv1_3"));
    assert_eq!(message.user.as_deref(), Some("user"));
}

#[test]
fn implicit_tls_greets_inside() {
    let server = Server::start(Options::new(Tls::Implicit));
    let mut client = implicit(&server, trusting(&server)).unwrap();
    assert_eq!(code(&client.reply()), 220);
    client.dialogue(&[("EHLO client.example", 250), ("QUIT", 221)]);
}

#[test]
fn sessions_are_resumed() {
    let server = Server::start(Options::new(Tls::Implicit));
    let config = trusting(&server);
    for _ in 0..2 {
        let mut client = implicit(&server, config.clone()).unwrap();
        client.reply();
        client.dialogue(&[("EHLO client.example", 250), ("QUIT", 221)]);
    }
    let resumed: Vec<bool> = server.connections().iter().map(|one| one.resumed).collect();
    assert_eq!(resumed, [false, true]);
}

#[test]
fn clients_may_show_a_certificate() {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let options = Options::new(Tls::Implicit).ask_client_certificate();
    let server = Server::start(options.mechanisms(&["EXTERNAL"]));
    let anonymous = trusting(&server);
    let (certificate, key) = server.authority().client_identity("user");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let known = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_root_certificates(super::roots(&server))
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    for (config, expected) in [(anonymous, 535), (Arc::new(known), 235)] {
        let mut client = implicit(&server, config).unwrap();
        client.reply();
        client.dialogue(&[("EHLO x", 250), ("AUTH EXTERNAL =", expected)]);
    }
    let shown: Vec<bool> = server
        .connections()
        .iter()
        .map(|one| one.client_certificate)
        .collect();
    assert_eq!(shown, [false, true]);
}

#[test]
fn versions_can_be_bounded() {
    for (versions, expected) in [
        (TlsVersions::Only12, ProtocolVersion::TLSv1_2),
        (TlsVersions::Only13, ProtocolVersion::TLSv1_3),
    ] {
        let server = Server::start(Options::new(Tls::Implicit).tls_versions(versions));
        let mut client = implicit(&server, trusting(&server)).unwrap();
        client.reply();
        let spoken = server.connections()[0].tls.clone();
        assert_eq!(spoken, Some(format!("{expected:?}")));
    }
}

#[test]
fn bad_certificates_are_bad() {
    for (leaf, reason) in [
        (Leaf::Expired, "Expired"),
        (Leaf::SelfSigned, "UnknownIssuer"),
        (Leaf::WrongHost, "NotValidForName"),
    ] {
        let server = Server::start(Options::new(Tls::Implicit).leaf(leaf));
        let error = implicit(&server, trusting(&server)).err().unwrap();
        assert!(format!("{error:?}").contains(reason), "{error:?}");
    }
}

#[test]
fn plaintext_can_be_injected_after_starttls() {
    let rule = Rule::at(Stage::StartTls).raw("220 Go ahead\r\n250 injected\r\n");
    let server = Server::start(Options::new(Tls::StartTls).rule(rule));
    let mut client = Client::ready(&server);
    client.dialogue(&[("STARTTLS", 220)]);
    assert_eq!(client.line().unwrap(), "250 injected\r\n");
    let mut client = client.start_tls(trusting(&server)).unwrap();
    client.dialogue(&[("EHLO client.example", 250)]);
}
