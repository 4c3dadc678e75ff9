//! How often the client waits for the server: each turn costs a round trip.

use crate::common::{self, Client, target};
use rs_smtpmail::bridge::Kind;
use rs_smtpmail::mail::StreamType;
use server::{Extension, Gate, Options, Rule, Server, Stage, Tls, TlsVersions};
use std::time::Duration;

const LINE: &[u8] = b"a line of seventy octets, as mail has it: forty-two make three kilobytes\n";

/// The turns until the first message has been sent, and those the second adds.
fn turns(options: Options, stream_type: StreamType) -> (usize, usize) {
    // Behind a relay a turn is counted for what it is, however the octets come in.
    let options = options
        .require_auth()
        .tls_versions(TlsVersions::Only13)
        .round_trip(Duration::from_millis(20));
    let server = Server::start(options);
    let mut client = Client::for_server(&server);
    let to = target(server.port(), stream_type);
    let message = [b"Subject: three kilobytes\n\n".as_slice(), &LINE.repeat(42)].concat();
    let mut until_sent = || {
        let seen = client.try_to_send(&to, &["a@example.com", "b@example.com"], &message);
        assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
        server.messages().last().unwrap().turns
    };
    let cold = until_sent();
    let warm = until_sent() - cold;
    assert_eq!(server.connections().len(), 1);
    (cold, warm)
}

#[test]
fn implicit_tls_takes_six_turns_and_two_when_warm() {
    // Handshake, EHLO, AUTH, envelope, content: it waits for the recipients' replies.
    let all = Options::new(Tls::Implicit);
    let without_chunking = Options::new(Tls::Implicit).without(Extension::Chunking);
    for options in [all, without_chunking] {
        assert_eq!(turns(options, StreamType::Ssl), (6, 2));
    }
}

#[test]
fn starttls_takes_one_more() {
    assert_eq!(
        turns(Options::new(Tls::StartTls), StreamType::Starttls),
        (7, 2)
    );
    let options = Options::new(Tls::StartTls).without(Extension::Chunking);
    assert_eq!(turns(options, StreamType::Starttls), (7, 2));
}

#[test]
fn a_flush_takes_few_turns() {
    // EHLO; then one message, four, and sixteen at a time. By DATA each takes two, for
    // nothing may follow the dot.
    for (options, most) in [
        (Options::default(), 12),
        (Options::default().without(Extension::Chunking), 202),
    ] {
        let gate = Gate::new("greeting");
        let options = options.rule(Rule::at(Stage::Greeting).hold(&gate));
        let server = Server::start(options.round_trip(Duration::from_millis(20)));
        let mut settings = common::settings_for(&server);
        settings.max_connections = 1;
        let mut client = Client::new(settings);
        let to = target(server.port(), StreamType::Plain);
        let message = [b"Subject: three kilobytes\n\n".as_slice(), &LINE.repeat(42)].concat();
        for _ in 0..100 {
            client.send(&to, &["a@example.com"], &message);
        }
        gate.release();
        for _ in 0..100 {
            assert_eq!(client.outcome().kind, Kind::Sent);
        }
        let turns = server.turns();
        assert!(turns <= most, "{turns} turns, at most {most}");
    }
}
