//! Every violation is found, and none where there is none.

use super::{Client, code};
use smtp_test_server::{Extension, Options, Server};

/// What the server notes when a client sends these lines at once, each line to be answered.
fn violations(options: Options, sent: &str, replies: usize) -> Vec<String> {
    let server = Server::start(options);
    let mut client = Client::ready(&server);
    client.send(sent);
    for _ in 0..replies {
        client.reply();
    }
    let found = server.violations();
    found.into_iter().map(|one| one.text).collect()
}

fn content_violations(content: &[u8]) -> Vec<String> {
    let server = Server::start(Options::default());
    let mut client = Client::ready(&server);
    assert_eq!(code(&client.message(content)), 250);
    let found = server.violations();
    found.into_iter().map(|one| one.text).collect()
}

fn chunk_violations(chunks: &[&[u8]], body: &str) -> Vec<String> {
    let server = Server::start(Options::default().with(Extension::BinaryMime));
    let mut client = Client::ready(&server);
    let mail = format!("MAIL FROM:<a@x>{body}");
    client.dialogue(&[(&mail, 250), ("RCPT TO:<b@x>", 250)]);
    for chunk in chunks {
        client.send(format!("BDAT {}\r\n", chunk.len()));
        client.send(chunk);
        assert_eq!(code(&client.reply()), 250);
    }
    client.dialogue(&[("BDAT 0 LAST", 250)]);
    let found = server.violations();
    found.into_iter().map(|one| one.text).collect()
}

#[test]
fn content_line_ends_are_checked() {
    for (content, expected) in [
        (&b"a\r\nb\r\n"[..], None),
        (b"a\nb\r\n", Some("bare LF in the content")),
        (b"a\rb\r\n", Some("bare CR in the content")),
        (b"a\r\r\n", Some("bare CR in the content")),
        (b"a\n.\r\nb\r\n", Some("bare LF in the content")),
        (b"a\r\n.b\r\n", Some("a line's leading dot was not doubled")),
        (
            "\u{e9}\r\n".as_bytes(),
            Some("8-bit content without BODY=8BITMIME"),
        ),
    ] {
        let found = content_violations(content);
        assert_eq!(found.first().map(String::as_str), expected, "{content:?}");
    }
}

#[test]
fn no_dot_but_the_right_one_ends_the_content() {
    for wrong in [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r\n.\r",
        "\r\n.\r\r\n",
        "\r.\r\n",
    ] {
        let server = Server::start(Options::default());
        let mut client = Client::ready(&server);
        let content = format!("a{wrong}MAIL FROM:<smuggled@x>\r\n");
        assert_eq!(code(&client.message(content.as_bytes())), 250);
        assert_eq!(server.messages().len(), 1, "{wrong:?}");
        assert!(!server.violations().is_empty(), "{wrong:?}");
    }
}

#[test]
fn chunk_line_ends_are_checked_across_chunks() {
    let none: &[&str] = &[];
    let cr: &[&str] = &["bare CR in the content"];
    let lf: &[&str] = &["bare LF in the content"];
    let cases: &[(&[&[u8]], &[&str])] = &[
        (&[b"a\r\nb"], none),
        (&[b"a\r", b"\nb\r\n"], none),
        (&[b"\r\n\r\n"], none),
        (&[b"a\nb"], lf),
        (&[b"a", b"\nb"], lf),
        (&[b"a\r", b"b\r\n"], cr),
        (&[b"a\r", b"\r\n"], cr),
        (&[b"a\r\r\n"], cr),
        (&[b"a\rb"], cr),
        (&[b"a\r"], cr),
    ];
    for (chunks, expected) in cases {
        assert_eq!(chunk_violations(chunks, ""), *expected, "{chunks:?}");
    }
    assert_eq!(chunk_violations(&[b"a\nb\r\xff"], " BODY=BINARYMIME"), none);
}

#[test]
fn lines_may_have_1000_octets() {
    let right = [&[b'a'; 998][..], b"\r\n"].concat();
    let wrong = [&[b'a'; 999][..], b"\r\n"].concat();
    assert!(content_violations(&right).is_empty());
    assert_eq!(
        content_violations(&wrong),
        ["a line longer than 1000 octets"]
    );
    // The dot that is stuffed in does not count.
    let stuffed = [&b"."[..], &[b'.'; 998], b"\r\n"].concat();
    assert!(content_violations(&stuffed).is_empty());
}

#[test]
fn commands_have_a_longest_length() {
    let longer = |by: usize| format!("RCPT TO:<{}@x>\r\n", "a".repeat(497 + by));
    let bare = || Options::default().without_extensions();
    assert!(violations(bare(), &longer(1), 1).is_empty());
    assert_eq!(
        violations(bare(), &longer(2), 1),
        ["RCPT longer than 512 octets"]
    );
    assert!(violations(Options::default(), &longer(2), 1).is_empty());
}

#[test]
fn commands_end_properly() {
    assert_eq!(
        violations(Options::default(), "NOOP\n", 1),
        ["NOOP ended by a bare LF"]
    );
    assert_eq!(
        violations(Options::default(), "NOOP a\rb\r\n", 1),
        ["bare CR in NOOP"]
    );
}

#[test]
fn who_may_not_pipeline_waits() {
    let bare = || Options::default().without(Extension::Pipelining);
    let group = "MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n";
    assert_eq!(
        violations(bare(), group, 2),
        ["did not wait for the reply to MAIL, without PIPELINING"]
    );
    assert!(violations(Options::default(), group, 2).is_empty());
    for command in [
        "NOOP",
        "EHLO x",
        "VRFY x",
        "DATA",
        "AUTH PLAIN AA==",
        "STARTTLS",
    ] {
        let name = command.split(' ').next().unwrap();
        let found = violations(Options::default(), &format!("{command}\r\nRSET\r\n"), 2);
        assert!(
            found.contains(&format!("did not wait for the reply to {name}")),
            "{command}: {found:?}"
        );
    }
    let early_content = "MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\ntext\r\n.\r\n";
    assert_eq!(
        violations(Options::default(), early_content, 4),
        ["did not wait for the reply to DATA"]
    );
}

#[test]
fn who_speaks_before_the_greeting_is_noted() {
    let gate = smtp_test_server::Gate::new("greeting");
    let rule = smtp_test_server::Rule::at(smtp_test_server::Stage::Greeting).hold(&gate);
    let server = Server::start(Options::default().rule(rule));
    let mut client = Client::connect(server.address());
    client.send("EHLO client.example\r\n");
    gate.wait_reached();
    gate.release();
    client.reply();
    client.reply();
    assert_eq!(server.violations()[0].text, "spoke before the greeting");
}

#[test]
fn commands_come_in_order() {
    let server = Server::start(Options::default());
    let mut client = Client::connect(server.address());
    client.reply();
    client.dialogue(&[
        ("MAIL FROM:<a@x>", 503),
        ("EHLO x", 250),
        ("MAIL FROM: <a@x>", 501),
        ("MAIL FROM:<a@x>", 250),
        ("MAIL FROM:<a@x>", 503),
        ("NONSENSE", 500),
    ]);
    let texts: Vec<String> = server
        .violations()
        .into_iter()
        .map(|one| one.text)
        .collect();
    assert_eq!(texts[0], "MAIL before EHLO or HELO");
    assert!(texts[1].contains("RFC 5321, section 3.3"));
    assert_eq!(texts[2], "MAIL inside a transaction");
    assert_eq!(texts[3], "unknown command \"NONSENSE\"");
}
