//! The line is cut at every step of the protocol: every recipient is accounted for, and
//! nothing that the server may have is sent again by itself.

use crate::common::{Client, MESSAGE, settings_for, target};
use rs_smtpmail::bridge::Kind;
use rs_smtpmail::mail::StreamType;
use rs_smtpmail::spool::RecipientState::{self, Accepted, Pending, Unconfirmed};
use server::{Extension, Options, Rule, Server, Stage, Tls};
use std::time::Duration;

const TO: [&str; 2] = ["a@example.com", "b@example.com"];

/// Cuts the line where `rule` says; returns what became of the recipients, and how often
/// the message arrived once it was tried again.
fn cut(what: &str, options: Options, rule: Rule) -> Vec<RecipientState> {
    let stream_type = match options.tls {
        Tls::None => StreamType::Plain,
        Tls::StartTls => StreamType::Starttls,
        Tls::Implicit => StreamType::Ssl,
    };
    let server = Server::start(options.rule(rule.once()));
    let mut settings = settings_for(&server);
    settings.net.reply_timeout = Duration::from_millis(400);
    let mut client = Client::new(settings);
    let to = target(server.port(), stream_type);
    let seen = client.try_to_send(&to, &TO, MESSAGE);
    let states: Vec<_> = seen.entry.recipients.iter().map(|one| one.state).collect();
    let kind = match states[0] {
        Pending => Kind::Deferred,
        Unconfirmed => Kind::Unconfirmed,
        Accepted => Kind::Sent,
        RecipientState::Failed => Kind::Failed,
    };
    assert_eq!(seen.kind, kind, "{what}: {seen:?}");
    match seen.kind {
        Kind::Sent => assert!(client.engine.list().unwrap().is_empty()),
        // Not by itself, and not by a flush: the user must say so.
        Kind::Unconfirmed => assert_eq!(client.engine.flush().unwrap(), 0, "{what}"),
        _ => {
            assert!(server.messages().iter().all(|message| !message.confirmed));
            assert_eq!(client.engine.flush().unwrap(), 1, "{what}");
            assert_eq!(client.outcome().kind, Kind::Sent, "{what}");
        }
    }
    let delivered = server.messages().iter().filter(|one| one.confirmed).count();
    assert!(delivered <= 1, "{what}");
    states
}

fn endings(stage: Stage) -> [(&'static str, Rule); 3] {
    [
        ("close", Rule::at(stage).close()),
        ("reset", Rule::at(stage).reset()),
        ("hang", Rule::at(stage).hang()),
    ]
}

#[test]
fn before_the_last_byte_all_stay_pending() {
    type Make = fn() -> Options;
    let lockstep: Make = || {
        Options::new(Tls::StartTls)
            .require_auth()
            .without(Extension::Pipelining)
            .without(Extension::Chunking)
    };
    let piped: Make = || {
        Options::new(Tls::StartTls)
            .require_auth()
            .without(Extension::Chunking)
    };
    let chunked: Make = || Options::new(Tls::StartTls).require_auth();
    for (make, is_chunked) in [(lockstep, false), (piped, false), (chunked, true)] {
        for stage in [
            Stage::Greeting,
            Stage::Ehlo,
            Stage::StartTls,
            Stage::TlsHandshake,
            Stage::Auth,
            Stage::Mail,
            Stage::Rcpt,
            Stage::Data,
        ] {
            if is_chunked && stage == Stage::Data {
                continue;
            }
            for (name, rule) in endings(stage) {
                let what = format!("{name} at {stage:?}");
                assert_eq!(cut(&what, make(), rule), [Pending; 2], "{what}");
            }
        }
    }
}

#[test]
fn after_the_last_byte_the_user_decides() {
    let data = || Options::default().without(Extension::Chunking);
    for (options, name) in [
        (data as fn() -> Options, "DATA"),
        (Options::default, "BDAT"),
    ] {
        for (how, rule) in endings(Stage::Final) {
            let what = format!("{how} after the content by {name}");
            assert_eq!(cut(&what, options(), rule), [Unconfirmed; 2], "{what}");
        }
    }
    for (how, rule) in endings(Stage::Bdat) {
        let what = format!("{how} at BDAT");
        assert_eq!(
            cut(&what, Options::default(), rule),
            [Unconfirmed; 2],
            "{what}"
        );
    }
}

#[test]
fn a_cut_after_the_reply_changes_nothing() {
    let rule = Rule::at(Stage::Quit).reset();
    assert_eq!(
        cut("reset at QUIT", Options::default(), rule),
        [Accepted; 2]
    );
    let rule = Rule::at(Stage::Final)
        .reply(250, "2.0.0 Kept")
        .then(server::Ending::Reset);
    assert_eq!(
        cut("reset after 250", Options::default(), rule),
        [Accepted; 2]
    );
}

#[test]
fn a_refused_recipient_stays_refused_when_the_line_is_cut() {
    let options = Options::default()
        .without(Extension::Chunking)
        .rule(Rule::at(Stage::Rcpt).matching("a@").reply(550, "5.1.1 No"));
    let server = Server::start(options.rule(Rule::at(Stage::Final).close()));
    let mut client = Client::for_server(&server);
    let to = target(server.port(), StreamType::Plain);
    let seen = client.try_to_send(&to, &TO, MESSAGE);
    let states: Vec<_> = seen.entry.recipients.iter().map(|one| one.state).collect();
    assert_eq!(states, [RecipientState::Failed, Unconfirmed]);
}

#[test]
fn a_large_message_cut_in_the_middle_is_sent_again() {
    let body = [
        b"Subject: large\n\n".as_slice(),
        &b"0123456789abcdef\n".repeat(1_000_000),
    ]
    .concat();
    for options in [
        Options::default(),
        Options::default().without(Extension::Chunking),
    ] {
        let rule = Rule::at(Stage::Content).after_bytes(200_000).reset().once();
        let server = Server::start(options.rule(rule));
        let mut client = Client::for_server(&server);
        let to = target(server.port(), StreamType::Plain);
        let seen = client.try_to_send(&to, &TO, &body);
        assert_eq!(seen.kind, Kind::Deferred, "{seen:?}");
        client.engine.flush().unwrap();
        assert_eq!(client.outcome().kind, Kind::Sent);
    }
}

#[test]
fn a_flush_cut_in_the_middle_loses_and_doubles_nothing() {
    for options in [
        Options::default(),
        Options::default().without(Extension::Chunking),
    ] {
        let rule = Rule::at(Stage::Final).nth(25).close();
        let server = Server::start(options.rule(rule));
        let mut settings = settings_for(&server);
        settings.max_connections = 1;
        let mut client = Client::new(settings);
        let to = target(server.port(), StreamType::Plain);
        for number in 0..50 {
            client.send(&to, &[&format!("u{number}@example.com")], MESSAGE);
        }
        let mut asked = 0;
        let mut left = 50;
        while left > 0 {
            match client.outcome().kind {
                Kind::Sent => left -= 1,
                Kind::Unconfirmed => {
                    left -= 1;
                    asked += 1;
                }
                Kind::Deferred => assert_eq!(client.engine.flush().unwrap(), 1),
                other => panic!("{other:?}"),
            }
        }
        // What was on the line: bounded by the session's window.
        assert!((1..=16).contains(&asked), "{asked}");
        let mut recipients: Vec<String> = server
            .messages()
            .iter()
            .filter(|message| message.confirmed)
            .map(|message| message.addresses().join(","))
            .collect();
        recipients.sort();
        let count = recipients.len();
        recipients.dedup();
        assert_eq!((recipients.len(), count), (50 - asked, 50 - asked));
    }
}
