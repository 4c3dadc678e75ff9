//! Sessions: kept and shared, through a proxy, with each mechanism, with moody servers.

use crate::common::{Client, MESSAGE, settings_for, target};
use rs_smtpmail::bridge::Kind;
use rs_smtpmail::credentials::AuthSource;
use rs_smtpmail::engine::Settings;
use rs_smtpmail::mail::StreamType;
use server::{Options, Rule, Server, SocksProxy, Stage, Tls};

/// Settings whose authinfo names `mechanism`, with `secret`.
fn settings_with(server: &Server, mechanism: &str, secret: &str) -> Settings {
    let authinfo = server.directory().join("authinfo-mechanism");
    let line = format!(
        "machine 127.0.0.1 login user password \"{secret}\" smtp-auth {}\n",
        mechanism.to_lowercase()
    );
    std::fs::write(&authinfo, line).unwrap();
    let mut settings = settings_for(server);
    settings.credentials.auth_sources = vec![AuthSource::Netrc(authinfo)];
    settings
}

#[test]
fn each_mechanism_logs_in() {
    for (mechanism, secret) in [
        ("PLAIN", "pass word"),
        ("LOGIN", "pass word"),
        ("SCRAM-SHA-1", "pass word"),
        ("SCRAM-SHA-256", "pass word"),
        ("SCRAM-SHA-1-PLUS", "pass word"),
        ("SCRAM-SHA-256-PLUS", "pass word"),
        ("XOAUTH2", "token"),
        ("OAUTHBEARER", "token"),
        ("EXTERNAL", "unused"),
    ] {
        let options = Options::new(Tls::StartTls).mechanisms(&[mechanism]);
        let server = Server::start(options.require_auth());
        let mut client = Client::new(settings_with(&server, mechanism, secret));
        let to = target(server.port(), StreamType::Starttls);
        let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
        assert_eq!(seen.kind, Kind::Sent, "{mechanism}: {seen:?}");
        assert_eq!(
            server.messages()[0].user.as_deref(),
            Some("user"),
            "{mechanism}"
        );
        assert_eq!(server.violations(), [], "{mechanism}");
    }
}

#[test]
fn the_strongest_mechanism_is_tried_first_and_the_next_on_failure() {
    let all = ["LOGIN", "PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"];
    let options = Options::new(Tls::StartTls).mechanisms(&all).require_auth();
    let server = Server::start(options);
    let mut client = Client::for_server(&server);
    let to = target(server.port(), StreamType::Starttls);
    assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    let commands = server.connections()[0].commands().join("\n");
    assert!(commands.contains("AUTH SCRAM-SHA-256"), "{commands}");

    let options = Options::new(Tls::StartTls)
        .mechanisms(&["PLAIN"])
        .refusing_mechanism("SCRAM-SHA-256")
        .require_auth();
    let server = Server::start(options);
    let mut client = Client::for_server(&server);
    let to = target(server.port(), StreamType::Starttls);
    assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    let commands = server.connections()[0].commands().join("\n");
    assert!(commands.contains("AUTH SCRAM-SHA-256"), "{commands}");
    assert!(commands.contains("AUTH PLAIN"), "{commands}");
}

#[test]
fn nothing_but_235_is_success() {
    for code in [250, 200, 220, 334] {
        let rule = Rule::at(Stage::Auth).reply(code, "2.0.0 whatever");
        let options = Options::new(Tls::StartTls)
            .mechanisms(&["PLAIN"])
            .rule(rule);
        let server = Server::start(options);
        let mut client = Client::for_server(&server);
        let to = target(server.port(), StreamType::Starttls);
        client.send(&to, &["a@b"], MESSAGE);
        // Refused: so the user is asked.
        match client.next_event() {
            rs_smtpmail::bridge::Event::Credentials { rejected, .. } => {
                assert!(rejected.is_some(), "{code}");
            }
            other => panic!("{code}: {other:?}"),
        }
        assert!(server.messages().is_empty());
    }
}

#[test]
fn a_server_that_wants_a_login_only_for_some_mail_gets_one() {
    // It offers AUTH, and refuses one recipient before it; nothing is stored, so the user
    // is asked, and the message goes out whole.
    let rule = Rule::at(Stage::Rcpt).matching("far@").once();
    let rule = rule.reply(550, "5.7.1 Relaying denied, authenticate first");
    let server = Server::start(Options::default().rule(rule));
    let mut client = Client::new(Settings::default());
    let to = target(server.port(), StreamType::Plain);
    client.send(&to, &["near@example.com", "far@example.net"], MESSAGE);
    let rs_smtpmail::bridge::Event::Credentials { request, .. } = client.next_event() else {
        panic!("not asked");
    };
    let credentials = rs_smtpmail::credentials::Credentials {
        user: Some("user".to_owned()),
        secret: Some("pass word".to_owned().into()),
        ..Default::default()
    };
    let answer = rs_smtpmail::bridge::Answer::Credentials(credentials);
    client.engine.answer(request, answer);
    let kinds = [client.next_event(), client.next_event()];
    assert!(matches!(
        kinds[1],
        rs_smtpmail::bridge::Event::Outcome {
            kind: Kind::Sent,
            ..
        }
    ));
    let messages = server.messages();
    assert_eq!(messages[0].addresses(), ["near@example.com"]);
    assert_eq!(messages[1].addresses(), ["far@example.net"]);
    assert_eq!(messages[1].user.as_deref(), Some("user"));
}

#[test]
fn tls_sessions_are_resumed() {
    let server = Server::start(Options::new(Tls::Implicit));
    let mut client = Client::new(Settings {
        idle_timeout: std::time::Duration::ZERO,
        ..settings_for(&server)
    });
    let to = target(server.port(), StreamType::Ssl);
    for _ in 0..2 {
        assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
        server.wait_for("the connection's end", |log| {
            log.connections.iter().all(|one| !one.open)
        });
    }
    let connections = server.connections();
    assert!(!connections[0].resumed && connections[1].resumed);
}

#[test]
fn a_session_gone_stale_is_replaced() {
    let server = Server::start(Options::default());
    let mut client = Client::for_server(&server);
    let to = target(server.port(), StreamType::Plain);
    assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    server.cut_connections();
    assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    // Closed in the very moment of use: nothing of the message was taken.
    let options = Options::default().without(server::Extension::Chunking);
    let server = Server::start(options.rule(Rule::at(Stage::Mail).nth(2).close()));
    let mut client = Client::for_server(&server);
    let to = target(server.port(), StreamType::Plain);
    for _ in 0..2 {
        assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    }
    assert_eq!(server.messages().len(), 2);
}

#[test]
fn a_server_that_wants_one_connection_gets_one() {
    let rule = Rule::at(Stage::Greeting).connection(2);
    let rule = rule
        .reply(421, "4.7.0 Too many connections from you")
        .then(server::Ending::Close);
    let options = Options::default()
        .without(server::Extension::Chunking)
        .without(server::Extension::Pipelining);
    let server = Server::start(options.rule(rule));
    let mut client = Client::for_server(&server);
    let to = target(server.port(), StreamType::Plain);
    for _ in 0..2 {
        for _ in 0..40 {
            client.send(&to, &["a@b"], MESSAGE);
        }
        for _ in 0..40 {
            let seen = client.outcome();
            assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
        }
    }
    let busy = server
        .connections()
        .iter()
        .filter(|one| one.messages > 0)
        .count();
    assert!(server.connections().len() - busy <= 1);
}

#[test]
fn mail_goes_through_a_proxy() {
    let server = Server::start(Options::new(Tls::StartTls).require_auth());
    let proxy = SocksProxy::start(server.port());
    let mut settings = settings_for(&server);
    settings.net.proxy = Some(format!("127.0.0.1:{}", proxy.port()));
    let mut client = Client::new(settings.clone());
    let to = target(server.port(), StreamType::Starttls);
    assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    assert_eq!(proxy.calls().len(), 1);

    let refusing = SocksProxy::refusing();
    settings.net.proxy = Some(format!("127.0.0.1:{}", refusing.port()));
    let mut client = Client::new(settings);
    let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
    assert_eq!(seen.kind, Kind::Deferred);
    assert!(seen.error.contains("proxy 127.0.0.1:"), "{}", seen.error);
}

#[test]
fn a_check_tells_each_step_and_sends_nothing() {
    let server = Server::start(Options::new(Tls::StartTls));
    let mut client = Client::for_server(&server);
    let mut to = target(server.port(), StreamType::Starttls);
    let check = |client: &mut Client, to: &rs_smtpmail::mail::Server| {
        let number = client.engine.check(to.clone()).unwrap();
        let mut steps = Vec::new();
        loop {
            let rs_smtpmail::bridge::Event::Check {
                request,
                step,
                text,
                is_good,
                is_last,
            } = client.next_event()
            else {
                panic!("no step of a check");
            };
            assert_eq!(request, number);
            steps.push((step, text, is_good));
            if is_last {
                return steps;
            }
        }
    };
    let steps = check(&mut client, &to);
    let names: Vec<&str> = steps.iter().map(|(step, _, _)| step.as_str()).collect();
    assert_eq!(
        names,
        [
            "connecting",
            "greeting",
            "EHLO",
            "TLS handshake",
            "EHLO",
            "AUTH",
            "done"
        ]
    );
    assert!(steps.iter().all(|(_, _, is_good)| *is_good));
    assert!(
        steps[3]
            .1
            .starts_with("TLS 1.3, X25519MLKEM768, TLS13_AES_")
            && steps[3].1.contains("valid until"),
        "{steps:?}"
    );
    assert!(
        steps[5].1.contains("logged in as user with PLAIN"),
        "{steps:?}"
    );
    assert!(server.messages().is_empty());

    to.host = "no-such-host.invalid".to_owned();
    let steps = check(&mut client, &to);
    let (step, text, is_good) = steps.last().unwrap();
    assert_eq!((step.as_str(), *is_good), ("looking up the host", false));
    assert!(text.contains("unknown host"), "{text}");
}
