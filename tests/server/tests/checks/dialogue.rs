//! The plain dialogue: envelope, DATA, BDAT, AUTH.

use super::{Client, End, code};
use smtp_test_server::{Extension, Login, Options, Recipient, Server, Tls};

#[test]
fn data_is_unstuffed_and_stored_with_its_envelope() {
    let server = Server::start(Options::default());
    let mut client = Client::ready(&server);
    client.dialogue(&[
        ("MAIL FROM:<a@example.org> SIZE=20 BODY=8BITMIME", 250),
        ("RCPT TO:<b@example.org> NOTIFY=NEVER", 250),
        ("RCPT TO:<\"q > q\"@example.org>", 250),
        ("DATA", 354),
    ]);
    client.send("Subject: x\r\n\r\n..\r\n..dot\r\n\r\n\u{e9}\r\n.\r\n");
    assert!(client.reply().starts_with("250 2.0.0 Ok: queued as 1"));
    assert_eq!(code(&client.ask("QUIT")), 221);
    assert_eq!(client.end(), End::Fin);
    let messages = server.wait_for_messages(1);
    let message = &messages[0];
    assert_eq!(
        message.bytes,
        "Subject: x\r\n\r\n.\r\n.dot\r\n\r\n\u{e9}\r\n".as_bytes()
    );
    assert_eq!(message.size, message.bytes.len() as u64);
    assert_eq!(message.sender, "a@example.org");
    assert_eq!(message.mail_parameters, ["SIZE=20", "BODY=8BITMIME"]);
    let first = Recipient {
        address: "b@example.org".to_owned(),
        parameters: vec!["NOTIFY=NEVER".to_owned()],
    };
    assert_eq!(message.recipients[0], first);
    assert_eq!(message.addresses()[1], "\"q > q\"@example.org");
    assert_eq!(message.helo, "client.example");
    assert_eq!((&message.tls, &message.user), (&None, &None));
    assert_eq!(message.connection, 1);
    assert!(message.confirmed && !message.chunked);
    let connection = &server.connections()[0];
    assert!(connection.quit);
    assert_eq!(connection.commands().last(), Some(&"QUIT"));
    assert_eq!(server.violations(), []);
}

#[test]
fn content_may_be_empty_and_longer_than_a_buffer() {
    let server = Server::start(Options::default());
    let mut client = Client::ready(&server);
    assert_eq!(code(&client.message(b"")), 250);
    let long = "0123456789\r\n".repeat(100_000);
    assert_eq!(code(&client.message(long.as_bytes())), 250);
    let messages = server.wait_for_messages(2);
    assert_eq!(messages[0].bytes, b"");
    assert!(messages[1].bytes == long.as_bytes());
    assert_eq!(server.violations(), []);
}

#[test]
fn chunks_make_a_message_whole() {
    let server = Server::start(Options::default());
    let mut client = Client::ready(&server);
    client.dialogue(&[("MAIL FROM:<>", 250), ("RCPT TO:<b@example.org>", 250)]);
    for chunk in ["a\r\n.\r", "\n.b", "\r\n.\r\n"] {
        client.send(format!("BDAT {}\r\n{chunk}", chunk.len()));
        assert_eq!(code(&client.reply()), 250);
    }
    assert_eq!(code(&client.ask("BDAT 0 LAST")), 250);
    let message = &server.wait_for_messages(1)[0];
    assert_eq!(message.bytes, b"a\r\n.\r\n.b\r\n.\r\n");
    assert!(message.chunked);
}

#[test]
fn messages_may_be_pipelined_one_after_the_other() {
    let server = Server::start(Options::default());
    let mut client = Client::ready(&server);
    let envelope = "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n";
    let one = format!("{envelope}BDAT 5 LAST\r\nabc\r\n");
    client.send(one.repeat(3));
    let replies: Vec<u16> = (0..9).map(|_| code(&client.reply())).collect();
    assert_eq!(replies, [250; 9]);
    client.send(format!("{envelope}DATA\r\n"));
    assert_eq!(
        (0..3).map(|_| code(&client.reply())).collect::<Vec<_>>(),
        [250, 250, 354]
    );
    client.send(format!("text\r\n.\r\n{envelope}DATA\r\n"));
    assert_eq!(
        (0..4).map(|_| code(&client.reply())).collect::<Vec<_>>(),
        [250, 250, 250, 354]
    );
    client.send("text\r\n.\r\n");
    assert_eq!(code(&client.reply()), 250);
    assert_eq!(server.wait_for_messages(5).len(), 5);
    assert_eq!(server.violations(), []);
}

#[test]
fn no_recipient_no_message() {
    let server = Server::start(Options::default());
    let mut client = Client::ready(&server);
    client.dialogue(&[
        ("DATA", 503),
        ("RCPT TO:<b@example.org>", 503),
        ("MAIL FROM:<a@example.org>", 250),
        ("DATA", 554),
        ("BDAT 3 LAST\r\nabc", 554),
    ]);
    assert!(server.messages().is_empty());
}

#[test]
fn mechanisms_accept_what_is_right() {
    // "\0user\0pass word", "user", "pass word"
    const PLAIN: &str = "AHVzZXIAcGFzcyB3b3Jk";
    let server = Server::start(
        Options::default()
            .mechanisms(&["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER", "EXTERNAL"])
            .require_auth(),
    );
    let exchanges: &[&[(&str, u16)]] = &[
        &[(&format!("AUTH PLAIN {PLAIN}"), 235)],
        &[("AUTH PLAIN", 334), (PLAIN, 235)],
        &[
            ("AUTH LOGIN", 334),
            ("dXNlcg==", 334),
            ("cGFzcyB3b3Jk", 235),
        ],
        &[("AUTH LOGIN dXNlcg==", 334), ("cGFzcyB3b3Jk", 235)],
        // user=user^Aauth=Bearer token^A^A
        &[("AUTH XOAUTH2 dXNlcj11c2VyAWF1dGg9QmVhcmVyIHRva2VuAQE=", 235)],
        // n,a=user,^Aauth=Bearer token^A^A
        &[(
            "AUTH OAUTHBEARER bixhPXVzZXIsAWF1dGg9QmVhcmVyIHRva2VuAQE=",
            235,
        )],
        &[("AUTH EXTERNAL =", 235)],
    ];
    for exchange in exchanges {
        let mut client = Client::ready(&server);
        client.dialogue(&[("MAIL FROM:<a@example.org>", 530)]);
        client.dialogue(exchange);
        assert_eq!(code(&client.message(b"x\r\n")), 250);
    }
    let messages = server.wait_for_messages(exchanges.len());
    assert!(
        messages
            .iter()
            .all(|one| one.user.as_deref() == Some("user"))
    );
    assert_eq!(server.violations(), []);
    let login = Login {
        mechanism: "PLAIN".to_owned(),
        initial_response: true,
        tls: false,
        accepted: true,
    };
    assert_eq!(server.connections()[0].logins, [login]);
}

#[test]
fn mechanisms_refuse_what_is_wrong() {
    let server = Server::start(
        Options::default()
            .credentials("other", "secret")
            .mechanisms(&["PLAIN", "LOGIN", "XOAUTH2"])
            .refusing_mechanism("CRAM-MD5"),
    );
    let mut client = Client::ready(&server);
    client.dialogue(&[
        ("AUTH PLAIN AHVzZXIAcGFzcyB3b3Jk", 535),
        ("AUTH PLAIN", 334),
        ("*", 501),
        ("AUTH PLAIN !", 501),
        ("AUTH LOGIN", 334),
        ("dXNlcg==", 334),
        ("cGFzcyB3b3Jk", 535),
        ("AUTH XOAUTH2 dXNlcj11c2VyAWF1dGg9QmVhcmVyIHRva2VuAQE=", 334),
        ("", 535),
        ("AUTH CRAM-MD5", 334),
        ("eA==", 535),
    ]);
    assert_eq!(server.violations(), []);
    let logins = &server.connections()[0].logins;
    assert!(logins.iter().all(|login| !login.accepted));
    assert_eq!(logins.len(), 6);
}

#[test]
fn lmtp_replies_for_each_recipient() {
    let server = Server::start(Options::default().lmtp().without(Extension::Auth));
    let mut client = Client::connect(server.address());
    client.reply();
    client.dialogue(&[
        ("EHLO client.example", 500),
        ("LHLO client.example", 250),
        ("MAIL FROM:<a@example.org>", 250),
        ("RCPT TO:<b@example.org>", 250),
        ("RCPT TO:<c@example.org>", 250),
        ("DATA", 354),
    ]);
    client.send("text\r\n.\r\n");
    assert_eq!(code(&client.reply()), 250);
    assert_eq!(code(&client.reply()), 250);
    assert_eq!(server.messages()[0].addresses().len(), 2);
}

#[test]
fn a_stopped_server_frees_its_port_and_comes_back() {
    let mut server = Server::start(Options::new(Tls::Implicit));
    let authority = server.authority().clone();
    let port = server.port();
    server.stop();
    let again = Server::start(Options::new(Tls::Implicit).port(port).authority(&authority));
    assert_eq!(again.port(), port);
    let client = Client::connect(again.address());
    let mut client = client.start_tls(super::trusting(&server)).unwrap();
    assert_eq!(code(&client.reply()), 220);
}

#[test]
fn connections_can_be_cut_from_outside() {
    let server = Server::start(Options::default());
    let mut client = Client::ready(&server);
    assert_eq!(code(&client.ask("NOOP")), 250);
    server.cut_connections();
    assert_eq!(client.end(), End::Fin);
    Client::ready(&server);
    assert_eq!(server.connections().len(), 2);
}
