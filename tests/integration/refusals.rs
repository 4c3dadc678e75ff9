//! What a refusal, a 421 or a cut says of which message, and what is tried again.

use std::time::Duration;

use crate::common::{Client, MESSAGE, Seen, settings_for, target};
use rs_smtpmail::bridge::Kind;
use rs_smtpmail::engine::Settings;
use rs_smtpmail::mail::Path;
use rs_smtpmail::mail::StreamType;
use rs_smtpmail::spool::{RecipientState, Wishes};
use server::{Ending, Extension, Gate, Options, Rule, Server, Stage, Tls};

fn plain(server: &Server) -> rs_smtpmail::mail::Server {
    target(server.port(), StreamType::Plain)
}

/// A client that sends over one connection only.
fn single(server: &Server) -> Client {
    Client::new(Settings {
        max_connections: 1,
        ..settings_for(server)
    })
}

/// The commands of every connection.
fn commands(server: &Server, verb: &str) -> usize {
    let connections = server.connections();
    let all = connections.iter().flat_map(|one| one.commands());
    all.filter(|command| command.starts_with(verb)).count()
}

#[test]
fn requiretls_that_is_announced_and_refused_makes_no_loop() {
    for code in [555, 500, 501, 502, 504] {
        let refusal = Rule::at(Stage::Mail).reply(code, "5.5.4 What is that?");
        let options = Options::new(Tls::StartTls).with(Extension::RequireTls);
        let server = Server::start(options.rule(refusal));
        let mut client = Client::for_server(&server);
        let wishes = Wishes {
            require_tls: true,
            ..Wishes::default()
        };
        client.send_with(&target(server.port(), StreamType::Starttls), wishes);
        let seen = client.outcome();
        assert_eq!((seen.kind, seen.entry.attempts), (Kind::Failed, 1));
        assert!(commands(&server, "MAIL") <= 4, "{code}");
    }
}

/// Mail that must stay as it is: a signature covers its eight-bit text.
const SIGNED: &[u8] = "MIME-Version: 1.0\nContent-Type: multipart/signed; \
protocol=\"application/pgp-signature\"; boundary=b\n\n--b\nContent-Type: text/plain; charset=utf-8\n\
Content-Transfer-Encoding: 8bit\n\nGr\u{fc}\u{df}e\n--b\nContent-Type: application/pgp-signature\n\n\
signature\n--b--\n"
    .as_bytes();

#[test]
fn a_bad_sender_says_nothing_about_extensions() {
    let refusal = Rule::at(Stage::Mail).matching("bad@");
    let server = Server::start(Options::default().rule(refusal.reply(501, "Syntax error")));
    let mut client = single(&server);
    client.send_from("bad@example.org", &plain(&server), &["a@b"], SIGNED);
    assert_eq!(client.outcome().kind, Kind::Failed);
    let seen = client.try_to_send(&plain(&server), &["a@b"], SIGNED);
    assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
    let parameters = &server.messages()[0].mail_parameters;
    assert!(parameters.contains(&"BODY=8BITMIME".to_owned()));
    assert!(parameters.iter().any(|one| one.starts_with("SIZE=")));
}

#[test]
fn what_the_second_try_does_without_is_to_blame() {
    for refused in [Extension::Size, Extension::EightBitMime, Extension::Dsn] {
        let server = Server::start(Options::default().refusing(refused));
        let mut client = single(&server);
        for _ in 0..2 {
            let wishes = Wishes {
                dsn: Some(Default::default()),
                ..Wishes::default()
            };
            let path = |text| Path::parse(text, "field").unwrap();
            let to = vec![path("a@b")];
            let engine = &client.engine;
            let text = "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
                        Content-Transfer-Encoding: 8bit\n\n\u{fc}\n";
            let id = engine.send(text.as_bytes(), path("c@d"), to, plain(&server), wishes);
            id.unwrap();
            assert_eq!(client.outcome().kind, Kind::Sent, "{refused:?}");
        }
        // Two for the first, and then it is known.
        assert_eq!(commands(&server, "MAIL"), 3, "{refused:?}");
        let last = &server.messages()[1].mail_parameters;
        let is_used = |start: &str| last.iter().any(|one| one.starts_with(start));
        assert_eq!(is_used("ENVID="), refused != Extension::Dsn, "{last:?}");
    }
}

#[test]
fn signed_mail_goes_as_it_is_although_the_extension_was_refused_once() {
    let refusal = Rule::at(Stage::Mail).once();
    let options = Options::default().without(Extension::Size);
    let server = Server::start(options.rule(refusal.reply(555, "5.5.4 BODY? What is that?")));
    let mut client = single(&server);
    for _ in 0..2 {
        let seen = client.try_to_send(&plain(&server), &["a@b"], SIGNED);
        assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
    }
}

fn states(seen: &Seen) -> Vec<RecipientState> {
    seen.entry.recipients.iter().map(|one| one.state).collect()
}

#[test]
fn a_message_sent_alone_waits_for_its_recipients() {
    for stage in [Stage::Mail, Stage::Rcpt] {
        for end in [Rule::reset, Rule::close, Rule::hang] {
            let server = Server::start(Options::default().rule(end(Rule::at(stage).once())));
            let mut settings = settings_for(&server);
            settings.net.reply_timeout = Duration::from_millis(400);
            let mut client = Client::new(settings);
            let seen = client.try_to_send(&plain(&server), &["a@b", "c@d"], MESSAGE);
            assert_eq!(states(&seen), [RecipientState::Pending; 2], "{stage:?}");
        }
    }
}

#[test]
fn nothing_behind_a_421_is_unconfirmed() {
    // Two go out alone; those behind them go out together, and meet a 421.
    for (stage, nth) in [
        (Stage::Mail, 1),
        (Stage::Mail, 4),
        (Stage::Rcpt, 4),
        (Stage::Final, 4),
    ] {
        let busy = Rule::at(stage).nth(nth).reply(421, "4.3.2 Busy");
        let gate = Gate::new("greeting");
        let hold = Rule::at(Stage::Greeting).hold(&gate);
        let options = Options::default().rule(busy.then(Ending::Close)).rule(hold);
        let server = Server::start(options);
        let mut client = single(&server);
        for _ in 0..12 {
            client.send(&plain(&server), &["a@b"], MESSAGE);
        }
        gate.release();
        let mut left = 12;
        while left > 0 {
            let seen = client.outcome();
            match seen.kind {
                Kind::Sent => left -= 1,
                Kind::Deferred => drop(client.engine.retry(seen.entry.id)),
                other => panic!("{other:?} at {stage:?}: {seen:?}"),
            }
        }
        assert_eq!(server.messages().len(), 12);
    }
}

#[test]
fn nothing_is_sent_past_the_final_dot() {
    // Courier throws away what came with the dot; Haraka answers it with 503.
    let options = Options::default().without(Extension::Chunking);
    let server = Server::start(options.forgets_what_follows_the_dot());
    let gate = Gate::new("greeting");
    server.add_rule(Rule::at(Stage::Greeting).hold(&gate));
    let mut client = single(&server);
    for _ in 0..20 {
        client.send(&plain(&server), &["a@b"], MESSAGE);
    }
    gate.release();
    for _ in 0..20 {
        assert_eq!(client.outcome().kind, Kind::Sent);
    }
    assert_eq!(server.violations(), []);
    assert_eq!(commands(&server, "MAIL"), 20);
}

#[test]
fn too_many_recipients_are_served_at_once_by_several_transactions() {
    let to: Vec<String> = (0..7).map(|n| format!("u{n}@example.com")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    for (code, text) in [
        (452, "Too many"),
        (451, "4.5.3 Too many"),
        (550, "5.5.3 Too many"),
        (431, "Too many"),
    ] {
        let rule = Rule::at(Stage::Rcpt).nth(4).reply(code, text);
        let server = Server::start(Options::default().rule(rule));
        let mut client = Client::for_server(&server);
        let seen = client.try_to_send(&plain(&server), &to, MESSAGE);
        assert_eq!(seen.kind, Kind::Sent, "{code}: {seen:?}");
        assert_eq!(server.messages().len(), 2, "{code}");
    }
    // None of them: that is a refusal as any other.
    let rule = Rule::at(Stage::Rcpt).reply(451, "4.5.3 Too many");
    let server = Server::start(Options::default().rule(rule));
    let seen = Client::for_server(&server).try_to_send(&plain(&server), &to, MESSAGE);
    assert_eq!(seen.kind, Kind::Deferred);
}

#[test]
fn a_reply_too_many_ends_the_session_and_decides_nothing() {
    let rule = Rule::at(Stage::Rcpt).raw("250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n");
    let server = Server::start(Options::default().rule(rule.once()));
    let mut client = single(&server);
    let seen = client.try_to_send(&plain(&server), &["a@b"], MESSAGE);
    assert_eq!(states(&seen), [RecipientState::Pending], "{seen:?}");
    assert!(seen.error.contains("fits nothing"), "{}", seen.error);
    client.engine.flush().unwrap();
    assert_eq!(client.outcome().kind, Kind::Sent);
    assert_eq!(server.messages().len(), 1);
}

#[test]
fn content_refused_before_its_end_is_refused_and_the_next_message_goes() {
    let large = [
        b"Subject: large\n\n".as_slice(),
        &b"0123456\n".repeat(2_000_000),
    ]
    .concat();
    for options in [
        Options::default(),
        Options::default().without(Extension::Chunking),
    ] {
        let rule = Rule::at(Stage::Content).after_bytes(100_000).once();
        let server = Server::start(options.rule(rule.reply(552, "5.3.4 Enough")));
        let mut client = single(&server);
        let seen = client.try_to_send(&plain(&server), &["a@b"], &large);
        assert_eq!(states(&seen), [RecipientState::Failed], "{seen:?}");
        let seen = client.try_to_send(&plain(&server), &["a@b"], MESSAGE);
        assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
    }
}

#[test]
fn what_was_begun_is_reset_before_the_next_message_on_a_kept_session() {
    for (stage, code) in [(Stage::Rcpt, 550), (Stage::Rcpt, 451), (Stage::Data, 451)] {
        let options = match stage {
            Stage::Data => Options::default().without(Extension::Chunking),
            _ => Options::default(),
        };
        let rule = Rule::at(stage).once().reply(code, "5.1.1 Not this one");
        let server = Server::start(options.rule(rule));
        let mut client = Client::new(Settings {
            idle_timeout: Duration::from_secs(3600),
            ..settings_for(&server)
        });
        let to = plain(&server);
        assert_ne!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
        let seen = client.try_to_send(&to, &["c@d"], MESSAGE);
        assert_eq!(seen.kind, Kind::Sent, "{stage:?} {code}: {seen:?}");
        assert_eq!(server.connections().len(), 1);
        assert!(server.violations().is_empty());
    }
}
