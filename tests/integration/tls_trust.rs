//! Whom the user trusts, and for how long; what is remembered of servers; clear text.

use std::sync::Arc;

use crate::common::{Client, MESSAGE, settings_for, target};
use rs_smtpmail::bridge::{Answer, Event, Kind};
use rs_smtpmail::credentials::AuthSource;
use rs_smtpmail::engine::Settings;
use rs_smtpmail::mail::StreamType;
use rs_smtpmail::spool::fs::Fs;
use rs_smtpmail::spool::{Need, State};
use server::{Authority, Extension, Leaf, Options, Rule, Server, SocksProxy, Stage, Tls};

const NEEDS_TLS: Kind = Kind::NeedsUser(Need::Tls);

fn self_signed() -> Server {
    Server::start(Options::new(Tls::Implicit).leaf(Leaf::SelfSigned))
}

/// Waits for the question about a certificate; returns its number.
fn question(client: &mut Client) -> u64 {
    match client.next_event() {
        Event::Certificate {
            request, rejected, ..
        } => {
            assert!(rejected.may_be_trusted());
            request
        }
        other => panic!("not the question: {other:?}"),
    }
}

fn states(client: &Client) -> Vec<State> {
    let entries = client.engine.list().unwrap();
    entries.into_iter().map(|(_, state)| state).collect()
}

fn wait_for_states(client: &Client, expected: &[State]) {
    let end = std::time::Instant::now() + server::deadline();
    while states(client) != expected {
        assert!(std::time::Instant::now() < end, "{:?}", states(client));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn ten_messages_ask_once_and_wait_visibly() {
    let server = self_signed();
    let mut client = Client::for_server(&server);
    let to = target(server.port(), StreamType::Ssl);
    for _ in 0..5 {
        client.send(&to, &["a@b"], MESSAGE);
    }
    let request = question(&mut client);
    // Also those that come while the question is open.
    for _ in 0..5 {
        client.send(&to, &["a@b"], MESSAGE);
    }
    wait_for_states(&client, &[State::NeedsUser; 10]);
    let (entry, _) = client.engine.list().unwrap().remove(9);
    assert_eq!(entry.need, Some(Need::Tls));
    let error = entry.error.unwrap();
    assert!(error.contains("self-signed"), "{error}");
    assert!(client.engine.answer(request, Answer::Trusted));
    for _ in 0..10 {
        assert_eq!(client.outcome().kind, Kind::Sent);
    }
    assert!(client.asked.is_empty());
    assert_eq!(server.messages().len(), 10);
}

#[test]
fn a_refusal_is_for_all_that_wait_and_a_retry_asks_anew() {
    let server = self_signed();
    let mut client = Client::for_server(&server);
    let to = target(server.port(), StreamType::Ssl);
    let first = client.send(&to, &["a@b"], MESSAGE);
    let request = question(&mut client);
    client.send(&to, &["a@b"], MESSAGE);
    wait_for_states(&client, &[State::NeedsUser; 2]);
    let refusal = Answer::Error("You refused it".to_owned());
    assert!(client.engine.answer(request, refusal));
    for _ in 0..2 {
        let seen = client.outcome();
        assert_eq!(seen.kind, NEEDS_TLS);
        assert!(seen.error.ends_with("(You refused it)"), "{}", seen.error);
    }
    assert!(client.asked.is_empty());
    client.engine.retry(first).unwrap();
    let request = question(&mut client);
    assert!(client.engine.answer(request, Answer::Trusted));
    assert_eq!(client.outcome().kind, Kind::Sent);
}

#[test]
fn two_accounts_of_one_server_share_the_question() {
    let server = self_signed();
    let mut client = Client::for_server(&server);
    let to = target(server.port(), StreamType::Ssl);
    let mut other = to.clone();
    other.helo = "other.example".to_owned();
    client.send(&to, &["a@b"], MESSAGE);
    let request = question(&mut client);
    client.send(&other, &["a@b"], MESSAGE);
    wait_for_states(&client, &[State::NeedsUser; 2]);
    assert!(client.engine.answer(request, Answer::Trusted));
    for _ in 0..2 {
        assert_eq!(client.outcome().kind, Kind::Sent);
    }
    assert!(client.asked.is_empty());
}

#[test]
fn trust_lasts_for_the_session_and_sessions_are_resumed() {
    let server = self_signed();
    let settings = Settings {
        idle_timeout: std::time::Duration::ZERO,
        ..settings_for(&server)
    };
    let mut client = Client::new(settings.clone());
    client.trusts = true;
    let to = target(server.port(), StreamType::Ssl);
    for _ in 0..2 {
        assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
        let closed = |log: &server::Log| log.connections.iter().all(|one| !one.open);
        server.wait_for("the session's end", closed);
    }
    assert_eq!(client.asked.len(), 1);
    assert!(server.connections().last().unwrap().resumed);
    client.engine.forget_tls(&to).unwrap();
    assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    assert_eq!(client.asked.len(), 2);

    let mut next_emacs = Client::new(settings);
    assert_eq!(
        next_emacs.try_to_send(&to, &["a@b"], MESSAGE).kind,
        NEEDS_TLS
    );
    assert_eq!(next_emacs.asked.len(), 1);
}

#[test]
fn a_check_reports_the_fingerprint_and_asks_nothing() {
    let server = self_signed();
    let mut client = Client::for_server(&server);
    let to = target(server.port(), StreamType::Ssl);
    client.engine.check(to.clone()).unwrap();
    let text = loop {
        match client.next_event() {
            Event::Check {
                text,
                is_last: true,
                is_good,
                ..
            } => {
                assert!(!is_good);
                break text;
            }
            Event::Check { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    client.trusts = true;
    client.try_to_send(&to, &["a@b"], MESSAGE);
    let certificate = &client.asked[0].certificate;
    for fingerprint in [certificate.key, certificate.fingerprint] {
        assert!(text.contains(&fingerprint.to_string()), "{text}");
    }
}

/// A server that offered STARTTLS, and one on the same port that does not.
#[test]
fn starttls_that_is_gone_is_an_alarm() {
    let authority = Arc::new(Authority::new());
    let options = |tls| Options::new(tls).authority(&authority);
    let before = Server::start(options(Tls::StartTls));
    let port = before.port();
    let settings = settings_for(&before);
    let mut client = Client::new(settings.clone());
    let to = target(port, StreamType::Opportunistic);
    assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    assert!(before.messages()[0].tls.is_some());
    client.engine.stop(std::time::Duration::from_secs(5));
    drop(before);

    let refusing = Rule::at(Stage::StartTls).reply(454, "4.7.0 Not now");
    for (what, options) in [
        ("not offered", options(Tls::None)),
        ("no EHLO", options(Tls::None).helo_only()),
        ("refused", options(Tls::StartTls).rule(refusing)),
    ] {
        let server = Server::start(options.port(port));
        let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
        assert_eq!(seen.kind, NEEDS_TLS, "{what}: {seen:?}");
        let alarm = format!(
            "127.0.0.1:{port}, STARTTLS: ALARM: the server has offered STARTTLS before and does \
             not now: somebody on the way may suppress it to read along, so nothing was sent; if \
             the server has really given up TLS, set smtpmail-stream-type to `plain' or let M-x \
             rs-smtpmail-tls-forget forget what it offered"
        );
        assert!(seen.error.starts_with(&alarm), "{what}: {}", seen.error);
        assert!(server.messages().is_empty(), "{what}");
        client.engine.stop(std::time::Duration::from_secs(5));
    }

    let server = Server::start(options(Tls::None).port(port));
    let plain = target(port, StreamType::Plain);
    assert_eq!(
        client.try_to_send(&plain, &["a@b"], MESSAGE).kind,
        Kind::Sent
    );
    // Another process knows it, too.
    client.engine.stop(std::time::Duration::from_secs(5));
    let file = client.directory.path().join("spool/starttls-seen");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, format!("127.0.0.1:{port}\n"));
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("spool")).unwrap();
    std::fs::copy(&file, directory.path().join("spool/starttls-seen")).unwrap();
    let mut other = Client::in_directory(directory, settings, Fs::default());
    assert_eq!(other.try_to_send(&to, &["a@b"], MESSAGE).kind, NEEDS_TLS);
    other.engine.forget_tls(&to).unwrap();
    assert_eq!(other.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    assert_eq!(server.messages().len(), 2);
}

#[test]
fn passwords_go_in_clear_only_to_this_machine_or_where_allowed() {
    let server = Server::start(Options::default().require_auth());
    let authinfo = server.directory().join("elsewhere");
    std::fs::write(
        &authinfo,
        "machine mail.example login user password \"pass word\"\n",
    )
    .unwrap();
    // What is behind a proxy is not this machine, whatever its name.
    let proxy = SocksProxy::start(server.port());
    let mut settings = Settings::default();
    settings.net.proxy = Some(format!("127.0.0.1:{}", proxy.port()));
    settings.credentials.auth_sources = vec![AuthSource::Netrc(authinfo)];
    let mut to = target(server.port(), StreamType::Opportunistic);
    to.host = "mail.example".to_owned();
    let mut client = Client::new(settings.clone());
    let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
    assert_eq!(seen.kind, Kind::NeedsUser(Need::Auth));
    assert!(
        seen.error.contains("rs-smtpmail-allow-cleartext-auth"),
        "{}",
        seen.error
    );
    let said = |server: &Server| {
        let connections = server.connections();
        let lines: Vec<&str> = connections.iter().flat_map(|one| one.commands()).collect();
        lines.join("\n")
    };
    assert!(!said(&server).contains("AUTH"), "{}", said(&server));

    settings.session.cleartext_auth_hosts = vec!["other.example".to_owned()];
    let mut client = Client::new(settings.clone());
    let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
    assert_eq!(seen.kind, Kind::NeedsUser(Need::Auth));
    settings.session.cleartext_auth_hosts = vec!["mail.example".to_owned()];
    let mut client = Client::new(settings);
    assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    assert_eq!(server.messages()[0].user.as_deref(), Some("user"));
    // To this machine it always may.
    let mut client = Client::for_server(&server);
    let here = target(server.port(), StreamType::Opportunistic);
    assert_eq!(
        client.try_to_send(&here, &["a@b"], MESSAGE).kind,
        Kind::Sent
    );
}

#[test]
fn a_server_that_merely_asks_for_a_certificate_gets_mail_without() {
    let options = Options::new(Tls::Implicit).without(Extension::Auth);
    let server = Server::start(options.ask_client_certificate());
    let mut client = Client::for_server(&server);
    let to = target(server.port(), StreamType::Ssl);
    assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    assert_eq!(server.connections().len(), 1);

    let (certificate, key) = server.authority().client_identity("user");
    let files = rs_smtpmail::net::tls::IdentityFiles {
        key: server.directory().join("client.key"),
        certificate: server.directory().join("client.pem"),
    };
    std::fs::write(&files.key, key).unwrap();
    std::fs::write(&files.certificate, certificate).unwrap();
    let mut client = Client::for_server(&server);
    client.identity = Some(files);
    assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    let shown: Vec<bool> = server
        .connections()
        .iter()
        .map(|one| one.client_certificate)
        .collect();
    // The second asks first, and then shows it.
    assert_eq!(shown, [false, false, true]);
}
