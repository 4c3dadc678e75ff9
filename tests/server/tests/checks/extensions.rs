//! Extensions: on, off, and announced but refused.

use super::{Client, code};
use smtp_test_server::{Extension, Options, Server, Tls};

fn announced(options: Options) -> String {
    let server = Server::start(options);
    let mut client = Client::connect(server.address());
    client.reply();
    client.ask("EHLO client.example")
}

#[test]
fn each_is_announced_unless_left_out() {
    let all = announced(Options::new(Tls::StartTls).with(Extension::Limits));
    for keyword in [
        "PIPELINING",
        "SIZE 52428800",
        "STARTTLS",
        "ENHANCEDSTATUSCODES",
        "8BITMIME",
        "SMTPUTF8",
        "DSN",
        "CHUNKING",
        "LIMITS ",
    ] {
        let found = all.lines().any(|line| &line[4..] == keyword);
        assert!(found, "{keyword} in {all}");
    }
    // Only under TLS.
    assert!(!all.contains("AUTH") && !all.contains("REQUIRETLS"));
    let plain = announced(Options::default());
    assert!(plain.contains("AUTH PLAIN LOGIN") && !plain.contains("STARTTLS"));
    for extension in Extension::ALL {
        let less = announced(Options::default().without(extension));
        assert!(!less.contains(extension.keyword()), "{less}");
    }
    let none = announced(Options::default().without_extensions());
    assert_eq!(none, "250 localhost greets client.example\r\n");
}

#[test]
fn what_is_not_announced_is_refused_and_noted() {
    let attempts: &[(Extension, &str, u16)] = &[
        (Extension::Size, "MAIL FROM:<a@example.org> SIZE=1", 555),
        (
            Extension::EightBitMime,
            "MAIL FROM:<a@x> BODY=8BITMIME",
            555,
        ),
        (
            Extension::BinaryMime,
            "MAIL FROM:<a@x> BODY=BINARYMIME",
            555,
        ),
        (Extension::SmtpUtf8, "MAIL FROM:<a@x> SMTPUTF8", 555),
        (Extension::SmtpUtf8, "MAIL FROM:<\u{e9}@x>", 553),
        (Extension::Dsn, "MAIL FROM:<a@x> RET=HDRS", 555),
        (Extension::Auth, "AUTH PLAIN AHVzZXIAcGFzcyB3b3Jk", 502),
        (Extension::StartTls, "STARTTLS", 502),
        (Extension::Chunking, "BDAT 5 LAST\r\nabc", 502),
    ];
    for (extension, line, expected) in attempts {
        let server = Server::start(Options::default().without(*extension));
        let mut client = Client::ready(&server);
        client.dialogue(&[(line, *expected), ("NOOP", 250)]);
        let violations = server.violations().len();
        // STARTTLS does no harm where it is not offered.
        let expected = usize::from(*extension != Extension::StartTls);
        assert!(violations >= expected, "{line}");
    }
}

#[test]
fn what_is_announced_can_be_refused_all_the_same() {
    let attempts: &[(Extension, &str, u16)] = &[
        (Extension::Size, "MAIL FROM:<a@example.org> SIZE=1", 555),
        (
            Extension::EightBitMime,
            "MAIL FROM:<a@x> BODY=8BITMIME",
            555,
        ),
        (Extension::SmtpUtf8, "MAIL FROM:<a@x> SMTPUTF8", 555),
        (Extension::Dsn, "MAIL FROM:<a@x> RET=HDRS", 555),
        (Extension::Auth, "AUTH PLAIN AHVzZXIAcGFzcyB3b3Jk", 502),
        (Extension::StartTls, "STARTTLS", 454),
        (Extension::Chunking, "BDAT 5 LAST\r\nabc", 502),
    ];
    for (extension, line, expected) in attempts {
        let options = Options::new(Tls::StartTls).refusing(*extension);
        let server = Server::start(Options {
            auth_before_tls: true,
            ..options
        });
        let mut client = Client::connect(server.address());
        client.reply();
        let hello = client.ask("EHLO client.example");
        assert!(hello.contains(extension.keyword()));
        client.dialogue(&[(line, *expected), ("NOOP", 250)]);
        assert_eq!(server.violations(), [], "{line}");
    }
}

#[test]
fn pipelining_can_be_refused() {
    let server = Server::start(Options::default().refusing(Extension::Pipelining));
    let mut client = Client::ready(&server);
    client.send("MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\n");
    assert_eq!(code(&client.reply()), 250);
    assert_eq!(code(&client.reply()), 503);
    assert_eq!(code(&client.reply()), 503);
    client.dialogue(&[("RCPT TO:<b@x>", 250)]);
    assert_eq!(server.violations(), []);
}

#[test]
fn enhanced_codes_are_left_out_where_not_announced() {
    let server = Server::start(Options::default().without(Extension::EnhancedStatusCodes));
    let mut client = Client::ready(&server);
    assert_eq!(client.ask("NOOP"), "250 Ok\r\n");
}

#[test]
fn size_is_enforced() {
    let server = Server::start(Options::default().size(10));
    let mut client = Client::ready(&server);
    client.dialogue(&[("MAIL FROM:<a@x> SIZE=11", 552)]);
    assert_eq!(code(&client.message(b"12345678\r\n")), 250);
    assert_eq!(code(&client.message(b"123456789\r\n")), 552);
    assert_eq!(server.messages().len(), 1);
}

#[test]
fn limits_are_enforced() {
    let server = Server::start(Options::default().limits("RCPTMAX=2 MAILMAX=1"));
    let mut client = Client::ready(&server);
    client.dialogue(&[
        ("MAIL FROM:<a@x>", 250),
        ("RCPT TO:<b@x>", 250),
        ("RCPT TO:<c@x>", 250),
        ("RCPT TO:<d@x>", 452),
        ("RSET", 250),
        ("MAIL FROM:<a@x>", 421),
    ]);
}

#[test]
fn a_server_may_know_helo_only() {
    let server = Server::start(Options::default().helo_only());
    let mut client = Client::connect(server.address());
    client.reply();
    client.dialogue(&[("EHLO client.example", 500), ("HELO client.example", 250)]);
    assert_eq!(code(&client.message(b"x\r\n")), 250);
    assert_eq!(server.violations(), []);
    assert_eq!(server.messages()[0].helo, "client.example");
}
