//! Wrong passwords, and servers that can't log in: what is tried, how often, and what the
//! user hears.

use crate::common::{Client, MESSAGE, Seen, settings_for, target};
use rs_smtpmail::bridge::{Answer, Event, Kind};
use rs_smtpmail::credentials::Credentials;
use rs_smtpmail::engine::Settings;
use rs_smtpmail::mail::StreamType;
use rs_smtpmail::spool::Need;
use server::{Ending, Gate, Options, Rule, Server, Stage, Tls};

const AUTH: Kind = Kind::NeedsUser(Need::Auth);
const ALL: &[&str] = &["LOGIN", "PLAIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"];

/// Wants a login, by any of the mechanisms.
fn wanting(mechanisms: &[&str]) -> Options {
    Options::new(Tls::StartTls)
        .mechanisms(mechanisms)
        .require_auth()
}

/// What a user without a session to keep has, and `password` in authinfo.
fn with_password(server: &Server, password: &str) -> Settings {
    let settings = Settings {
        idle_timeout: std::time::Duration::ZERO,
        ..settings_for(server)
    };
    let line = format!("machine 127.0.0.1 login user password \"{password}\"\n");
    std::fs::write(server.directory().join("authinfo"), line).unwrap();
    settings
}

/// The mechanisms of all AUTH commands, in order.
fn tried(server: &Server) -> Vec<String> {
    let connections = server.connections();
    let commands = connections.iter().flat_map(|one| one.commands());
    commands
        .filter_map(|line| line.strip_prefix("AUTH "))
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

/// The next outcome. The user gives `passwords`, then none; the second value is how the
/// refusals read that the questions told of.
fn outcome(client: &mut Client, passwords: &mut Vec<&str>) -> (Seen, Vec<String>) {
    let mut refusals = Vec::new();
    loop {
        match client.next_event() {
            Event::Credentials {
                request, rejected, ..
            } => {
                refusals.push(rejected.unwrap_or_default());
                let answer = match passwords.is_empty() {
                    true => Answer::Nothing,
                    false => Answer::Credentials(Credentials {
                        user: Some("user".to_owned()),
                        secret: Some(passwords.remove(0).to_owned().into()),
                        ..Credentials::default()
                    }),
                };
                assert!(client.engine.answer(request, answer));
            }
            Event::CredentialsAccepted { .. } => {}
            Event::Outcome {
                kind,
                entry,
                error,
                cause,
                reply,
            } => {
                let seen = Seen {
                    kind,
                    entry: *entry,
                    error: error.unwrap_or_default(),
                    cause,
                    reply: reply.unwrap_or_default(),
                };
                return (seen, refusals);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn outcomes(client: &mut Client, number: usize) -> Vec<Seen> {
    (0..number)
        .map(|_| outcome(client, &mut Vec::new()).0)
        .collect()
}

#[test]
fn a_wrong_password_is_tried_by_two_mechanisms_and_then_asked_about() {
    let server = Server::start(wanting(ALL));
    let mut client = Client::new(with_password(&server, "typo"));
    let to = target(server.port(), StreamType::Starttls);
    client.send(&to, &["a@b"], MESSAGE);
    let (seen, refusals) = outcome(&mut client, &mut Vec::new());
    assert_eq!(seen.kind, AUTH, "{seen:?}");
    let words = "the server refused user name or password: 535 5.7.8";
    assert!(seen.error.contains(words), "{}", seen.error);
    assert_eq!(refusals.len(), 1);
    assert!(refusals[0].starts_with("535 5.7.8"), "{refusals:?}");
    // The other is one that a server can check any password by.
    assert_eq!(tried(&server), ["SCRAM-SHA-256", "PLAIN"]);
}

#[test]
fn what_follows_a_refusal_is_one() {
    let nth = |number| Rule::at(Stage::Auth).nth(number);
    let tired = "4.7.0 Temporary authentication failure: Connection lost to authentication server";
    for rule in [
        nth(2).reply(454, tired),
        nth(2)
            .reply(421, "4.7.0 Too many errors")
            .then(Ending::Close),
        nth(2).close(),
        Rule::at(Stage::Auth)
            .reply(535, "5.7.8 No")
            .then(Ending::Close),
    ] {
        let server = Server::start(wanting(&["PLAIN", "LOGIN"]).rule(rule.clone()));
        let mut client = Client::new(with_password(&server, "typo"));
        let to = target(server.port(), StreamType::Starttls);
        client.send(&to, &["a@b"], MESSAGE);
        let (seen, refusals) = outcome(&mut client, &mut Vec::new());
        assert_eq!(seen.kind, AUTH, "{rule:?}: {seen:?}");
        assert!(seen.error.contains(": 535 5.7.8"), "{}", seen.error);
        assert_eq!(refusals.len(), 1, "{rule:?}");
        // Nor on another connection.
        let before = tried(&server).len();
        client.send(&to, &["a@b"], MESSAGE);
        let (seen, _) = outcome(&mut client, &mut Vec::new());
        assert_eq!(seen.kind, AUTH, "{rule:?}: {seen:?}");
        assert_eq!(tried(&server).len(), before, "{rule:?}");
    }
}

#[test]
fn without_a_refusal_a_server_that_cannot_now_is_tried_later() {
    let rule = Rule::at(Stage::Auth).once().reply(454, "4.7.0 Not now");
    let server = Server::start(wanting(ALL).rule(rule));
    let mut client = Client::new(with_password(&server, "pass word"));
    let to = target(server.port(), StreamType::Starttls);
    let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
    assert_eq!(seen.kind, Kind::Deferred, "{seen:?}");
    client.engine.flush().unwrap();
    assert_eq!(client.outcome().kind, Kind::Sent);
}

#[test]
fn channel_binding_that_fails_is_no_refusal() {
    let all = [
        "SCRAM-SHA-1",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-256-PLUS",
    ];
    let fails = Rule::at(Stage::AuthResponse).matching("-PLUS");
    let fails = fails.reply(501, "5.5.4 bad protocol / cancel");
    let server = Server::start(wanting(&all).rule(fails));
    let mut client = Client::new(with_password(&server, "pass word"));
    let to = target(server.port(), StreamType::Starttls);
    let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
    assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
    assert_eq!(tried(&server), ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
    // Nor is it learnt anew by each session.
    let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
    assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
    assert_eq!(tried(&server).len(), 3);

    // A wrong password is found out as elsewhere.
    let mut client = Client::new(with_password(&server, "typo"));
    client.send(&to, &["a@b"], MESSAGE);
    let (seen, refusals) = outcome(&mut client, &mut Vec::new());
    assert_eq!((seen.kind, refusals.len()), (AUTH, 1), "{seen:?}");
    assert_eq!(
        tried(&server)[3..],
        ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1"]
    );
}

#[test]
fn nobody_is_asked_for_a_password_where_no_mechanism_works() {
    let fails = Rule::at(Stage::Auth).reply(501, "5.5.2 Syntax");
    let server = Server::start(wanting(&["PLAIN", "LOGIN"]).rule(fails));
    let mut client = Client::new(with_password(&server, "pass word"));
    let to = target(server.port(), StreamType::Starttls);
    let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
    assert_eq!(seen.kind, AUTH, "{seen:?}");
    let words = "the server cannot carry out LOGIN: 501 5.5.2 Syntax";
    assert!(seen.error.contains(words), "{}", seen.error);
}

#[test]
fn a_mechanism_that_the_server_cannot_check_is_refused_once() {
    let server = Server::start(wanting(&["PLAIN"]).refusing_mechanism("SCRAM-SHA-256"));
    let mut client = Client::new(with_password(&server, "pass word"));
    let to = target(server.port(), StreamType::Starttls);
    for _ in 0..2 {
        let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
        assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
    }
    assert_eq!(tried(&server), ["SCRAM-SHA-256", "PLAIN", "PLAIN"]);
}

#[test]
fn a_flush_tries_a_wrong_password_once() {
    let server = Server::start(wanting(ALL));
    let mut client = Client::new(Settings {
        max_connections: 4,
        ..with_password(&server, "typo")
    });
    let to = target(server.port(), StreamType::Starttls);
    let ids: Vec<_> = (0..20)
        .map(|_| client.send(&to, &["a@b"], MESSAGE))
        .collect();
    for seen in outcomes(&mut client, 20) {
        assert_eq!(seen.kind, AUTH, "{seen:?}");
        assert!(seen.error.contains(": 535 5.7.8"), "{}", seen.error);
    }
    assert_eq!(tried(&server).len(), 2);
    client.engine.flush().unwrap();
    assert!(
        outcomes(&mut client, 20)
            .iter()
            .all(|seen| seen.kind == AUTH)
    );
    assert_eq!(tried(&server).len(), 2);

    // The user says so: once more.
    client.engine.retry(ids[0]).unwrap();
    assert_eq!(outcomes(&mut client, 1)[0].kind, AUTH);
    assert_eq!(tried(&server).len(), 4);
    client.engine.flush().unwrap();
    outcomes(&mut client, 20);
    assert_eq!(tried(&server).len(), 4);

    // Other credentials are there.
    with_password(&server, "pass word");
    client.engine.flush().unwrap();
    assert!(
        outcomes(&mut client, 20)
            .iter()
            .all(|seen| seen.kind == Kind::Sent)
    );
}

#[test]
fn sessions_that_log_in_at_once_share_a_refusal() {
    let gate = Gate::new("auth");
    let held = Rule::at(Stage::Auth).hold(&gate);
    let server = Server::start(wanting(ALL).rule(held));
    let mut client = Client::new(with_password(&server, "typo"));
    // They greet by other names, so each has sessions of its own.
    for name in ["one.example", "two.example", "three.example"] {
        let mut to = target(server.port(), StreamType::Starttls);
        to.helo = name.to_owned();
        client.send(&to, &["a@b"], MESSAGE);
    }
    gate.wait_reached();
    server.wait_for("three sessions under TLS", |log| {
        log.connections
            .iter()
            .filter(|one| one.tls.is_some())
            .count()
            == 3
    });
    gate.release();
    assert!(
        outcomes(&mut client, 3)
            .iter()
            .all(|seen| seen.kind == AUTH)
    );
    assert_eq!(tried(&server).len(), 2);
}

#[test]
fn what_the_user_gives_is_tried_even_if_it_was_refused() {
    let server = Server::start(wanting(&["PLAIN"]));
    let mut client = Client::new(with_password(&server, "typo"));
    let to = target(server.port(), StreamType::Starttls);
    client.send(&to, &["a@b"], MESSAGE);
    let mut passwords = vec!["other", "typo", "pass word"];
    let (seen, refusals) = outcome(&mut client, &mut passwords);
    assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
    assert_eq!(refusals.len(), 3);
    assert_eq!(tried(&server).len(), 4);
}

/// The steps of a check: what each says, and whether it is good.
fn check(client: &mut Client, to: &rs_smtpmail::mail::Server) -> Vec<(String, bool)> {
    client.engine.check(to.clone()).unwrap();
    let mut steps = Vec::new();
    loop {
        match client.next_event() {
            Event::Check {
                step,
                text,
                is_good,
                is_last,
                ..
            } => {
                steps.push((format!("{step}: {text}"), is_good));
                if is_last {
                    return steps;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_check_says_what_it_knows() {
    let server = Server::start(wanting(ALL));
    let to = target(server.port(), StreamType::Starttls);
    let last = |settings: Settings| {
        let mut client = Client::new(settings);
        let steps = check(&mut client, &to);
        steps.last().unwrap().clone()
    };
    let good = last(with_password(&server, "pass word"));
    assert_eq!(good, ("done: mail can be sent".to_owned(), true));
    let mut without = with_password(&server, "pass word");
    without.credentials.auth_sources.clear();
    let untried = last(without);
    assert!(untried.0.contains("no password was tried"), "{untried:?}");
    assert!(!untried.0.contains("mail can be sent") && untried.1);
    let before = tried(&server).len();
    let (text, is_good) = last(with_password(&server, "typo"));
    assert!(text.starts_with("AUTH: ") && !is_good, "{text}");
    assert!(text.contains(": 535 5.7.8"), "{text}");
    assert_eq!(tried(&server).len(), before + 2);
}

#[test]
fn what_a_check_finds_refused_is_not_tried_by_messages() {
    let server = Server::start(wanting(ALL));
    let to = target(server.port(), StreamType::Starttls);
    let mut client = Client::new(with_password(&server, "typo"));
    check(&mut client, &to);
    client.send(&to, &["a@b"], MESSAGE);
    assert_eq!(outcome(&mut client, &mut Vec::new()).0.kind, AUTH);
    assert_eq!(tried(&server).len(), 2);
}

#[test]
fn a_password_without_a_user_is_no_answer() {
    let server = Server::start(wanting(&["PLAIN"]));
    let mut settings = with_password(&server, "pass word");
    settings.credentials.auth_sources.clear();
    let mut client = Client::new(settings);
    let to = target(server.port(), StreamType::Starttls);
    client.send(&to, &["a@b"], MESSAGE);
    let seen = loop {
        match client.next_event() {
            Event::Credentials { request, .. } => {
                let answer = Answer::Credentials(Credentials {
                    secret: Some("pass word".to_owned().into()),
                    ..Credentials::default()
                });
                assert!(client.engine.answer(request, answer));
            }
            Event::Outcome { kind, error, .. } => break (kind, error.unwrap_or_default()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(seen.0, AUTH);
    assert!(seen.1.contains("no user name was given"), "{}", seen.1);
    assert!(server.connections().len() <= 2);
}
