//! Turns and the round-trip time.

use std::time::{Duration, Instant};

use super::{Client, code, trusting};
use smtp_test_server::{Options, Relay, Server, Tls};

const ROUND_TRIP: Duration = Duration::from_millis(40);

#[test]
fn each_wait_for_the_server_is_a_turn() {
    let server = Server::start(Options::default());
    let mut client = Client::ready(&server);
    assert_eq!(code(&client.message(b"x\r\n")), 250);
    client.ask("QUIT");
    // EHLO, MAIL, RCPT, DATA, the content in one go with its dot or in two, QUIT
    assert_eq!(server.turns(), 6);
    assert_eq!(server.messages()[0].turns, 5);
}

#[test]
fn the_relay_delays_and_does_not_serialise() {
    let server = Server::start(Options::default());
    let relay = Relay::start(server.port(), ROUND_TRIP);
    let mut client = Client::connect(([127, 0, 0, 1], relay.port()).into());
    client.reply();
    let start = Instant::now();
    client.ask("NOOP");
    assert!(start.elapsed() >= ROUND_TRIP);
    let mut other = Client::connect(([127, 0, 0, 1], relay.port()).into());
    other.reply();
    other.ask("EHLO x");
    other.send("MAIL FROM:<a@x>\r\n");
    other.send("RCPT TO:<b@x>\r\n");
    other.send("BDAT 3 LAST\r\n");
    other.send("abc");
    let replies: Vec<u16> = (0..3).map(|_| code(&other.reply())).collect();
    assert_eq!(replies, [250; 3]);
    assert_eq!(relay.turns(), [1, 2]);
}

#[test]
fn a_round_trip_of_the_servers_own_counts_exactly() {
    let server = Server::start(Options::new(Tls::Implicit).round_trip(ROUND_TRIP));
    let client = Client::connect(server.address());
    let mut client = client.start_tls(trusting(&server)).unwrap();
    client.reply();
    client.ask("EHLO x");
    client.ask("AUTH PLAIN AHVzZXIAcGFzcyB3b3Jk");
    for part in [
        "MAIL FROM:<a@x>\r\n",
        "RCPT TO:<b@x>\r\n",
        "BDAT 3 LAST\r\nabc",
    ] {
        client.send(part);
    }
    (0..3).for_each(|_| drop(client.reply()));
    // Hello, finished, EHLO, AUTH, envelope and content.
    assert_eq!(server.turns(), 5);
    assert_eq!(server.messages()[0].turns, 5);
    client.ask("QUIT");
    assert_eq!(server.turns(), 6);
}

#[test]
fn the_relay_passes_ends_on() {
    use super::End;
    use smtp_test_server::{Rule, Stage};
    let close = Rule::at(Stage::Noop).once().close();
    let reset = Rule::at(Stage::Noop).once().reset();
    let server = Server::start(Options::default().rule(close).rule(reset));
    let relay = Relay::start(server.port(), Duration::from_millis(2));
    for expected in [End::Fin, End::Reset] {
        let mut client = Client::connect(([127, 0, 0, 1], relay.port()).into());
        client.reply();
        client.send("NOOP\r\n");
        assert_eq!(client.end(), expected);
    }
    drop(server);
    let mut client = Client::connect(([127, 0, 0, 1], relay.port()).into());
    assert_eq!(client.end(), End::Reset);
}
