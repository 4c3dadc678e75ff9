//! A hostile server, a hostile line, and hostile content.

use std::time::Duration;

use crate::common::{self, Client, MESSAGE, settings_for, target};
use rs_smtpmail::bridge::Kind;
use rs_smtpmail::engine::Settings;
use rs_smtpmail::mail::{Port, StreamType};
use rs_smtpmail::spool::Need;
use server::{Extension, Options, Rule, Server, Stage, Tls};

fn quick(server: &Server) -> Settings {
    let mut settings = settings_for(server);
    settings.net.reply_timeout = Duration::from_secs(2);
    settings
}

/// Sends to a server that follows `rule`; returns what became of it.
fn meet(options: Options, rule: Rule) -> common::Seen {
    let stream_type = match options.tls {
        Tls::None => StreamType::Plain,
        _ => StreamType::Starttls,
    };
    let server = Server::start(options.rule(rule));
    let mut client = Client::new(quick(&server));
    let seen = client.try_to_send(&target(server.port(), stream_type), &["a@b"], MESSAGE);
    assert!(server.messages().iter().all(|message| !message.confirmed));
    seen
}

#[test]
fn text_injected_before_tls_ends_the_session() {
    for injected in [
        "220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n",
        "220 go\r\n2",
        "220 go\r\n\r\n",
    ] {
        let options = Options::new(Tls::StartTls).require_auth();
        let seen = meet(options, Rule::at(Stage::StartTls).raw(injected));
        assert_eq!(seen.kind, Kind::NeedsUser(Need::Tls), "{seen:?}");
        assert!(
            seen.error.contains("tampers with the line"),
            "{}",
            seen.error
        );
    }
}

#[test]
fn capabilities_from_before_tls_do_not_count() {
    // Offered in clear only: over TLS the server knows no AUTH, and gets none.
    let mut options = Options::new(Tls::StartTls);
    options.auth_before_tls = true;
    let server = Server::start(options.without(Extension::Auth));
    let mut client = Client::for_server(&server);
    let to = target(server.port(), StreamType::Starttls);
    assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    assert_eq!(server.messages()[0].user, None);
}

#[test]
fn endless_and_senseless_replies_end_the_session() {
    let line = "250-".to_owned() + &"x".repeat(500) + "\r\n";
    for (what, rule, words) in [
        (
            "an endless line",
            Rule::at(Stage::Greeting).flood("220 x"),
            "endless",
        ),
        (
            "an endless reply",
            Rule::at(Stage::Ehlo).flood(line.as_str()),
            "endless",
        ),
        (
            "an EHLO reply of 10,000 lines",
            Rule::at(Stage::Ehlo).raw("250-X\r\n".repeat(10_000) + "250 Y\r\n"),
            "endless",
        ),
        (
            "no SMTP",
            Rule::at(Stage::Greeting).raw("HTTP/1.1 400 Bad\r\n"),
            "no SMTP reply",
        ),
        (
            "a code of two digits",
            Rule::at(Stage::Greeting).raw("22 hi\r\n"),
            "no SMTP reply",
        ),
        (
            "different codes",
            Rule::at(Stage::Ehlo).raw("250-a\r\n251 b\r\n"),
            "different codes",
        ),
        (
            "an intermediate reply",
            Rule::at(Stage::Mail).reply(354, "go"),
            "fits nothing",
        ),
    ] {
        let options = Options::default().without(Extension::Chunking);
        let seen = meet(options, rule);
        assert_eq!(seen.kind, Kind::Deferred, "{what}: {seen:?}");
        assert!(seen.error.contains(words), "{what}: {}", seen.error);
    }
}

#[test]
fn replies_out_of_step_are_never_taken_for_acceptance() {
    // One reply too many: the 250 after MAIL would be taken for RCPT's, and so on, up to
    // a 354 or 250 for content that was not sent.
    for chunking in [true, false] {
        for pipelining in [true, false] {
            let mut options = Options::default();
            if !chunking {
                options = options.without(Extension::Chunking);
            }
            if !pipelining {
                options = options.without(Extension::Pipelining);
            }
            let rule =
                Rule::at(Stage::Mail).raw("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 Ok\r\n354 go\r\n");
            let server = Server::start(options.rule(rule));
            let mut client = Client::new(quick(&server));
            let to = target(server.port(), StreamType::Plain);
            let seen = client.try_to_send(&to, &["a@b"], MESSAGE);
            if seen.kind == Kind::Sent {
                // Only if the server took it all the same.
                assert!(!server.messages().is_empty(), "{seen:?}");
            }
        }
    }
}

#[test]
fn replies_that_are_no_utf8_are_shown_harmlessly() {
    let rule = Rule::at(Stage::Mail).raw(b"550 5.7.1 n\xe9in\x1b[2J\r\n".to_vec());
    let seen = meet(Options::default().without(Extension::Chunking), rule);
    assert_eq!(seen.kind, Kind::Failed);
    assert!(
        seen.error.contains("550 5.7.1 n\u{fffd}in[2J"),
        "{}",
        seen.error
    );
}

#[test]
fn no_content_can_smuggle_a_message() {
    // Every published way to end the data early on some server.
    for end in [
        "\r\n.\r\n",
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r.\r\n",
        "\n.\r",
        "\r\n.\r",
        "\r\r\n.\r\r\n",
        "\r\n\0.\r\n",
        "\r\n.\0\r\n",
        "\r\n\r\n.\r\n\r\n",
    ] {
        let smuggled = format!(
            "Subject: outer\n\nbody{end}MAIL FROM:<evil@example.org>{end}RCPT TO:<b@example.org>{end}DATA{end}x{end}"
        );
        for options in [
            Options::default(),
            Options::default().without(Extension::Chunking),
            Options::default().without_extensions(),
        ] {
            let server = Server::start(options);
            let mut client = Client::for_server(&server);
            let to = target(server.port(), StreamType::Plain);
            let seen = client.try_to_send(&to, &["a@b"], smuggled.as_bytes());
            assert_eq!(seen.kind, Kind::Sent, "{end:?}");
            assert_eq!(server.messages().len(), 1, "{end:?}");
            assert_eq!(server.violations(), [], "{end:?}");
        }
    }
}

#[test]
fn nothing_the_user_gives_breaks_a_command() {
    let client = Client::new(Settings::default());
    for text in [
        "a@b\r\nRCPT TO:<c@d>",
        "a@b\n",
        "a@b>",
        "<a@b",
        "a b@c",
        "a@b\0",
        "",
    ] {
        assert!(
            rs_smtpmail::mail::Path::parse(text, "to").is_err(),
            "{text:?}"
        );
    }
    for helo in ["me\r\nMAIL FROM:<>", "me there", "", "mé"] {
        let server = rs_smtpmail::mail::Server::new(
            "localhost".to_owned(),
            Port::Number(25),
            StreamType::Plain,
            None,
            helo.to_owned(),
            false,
        );
        assert!(server.is_err(), "{helo:?}");
    }
    let none = client.engine.send(
        MESSAGE,
        rs_smtpmail::mail::Path::null(),
        Vec::new(),
        target(25, StreamType::Plain),
        Default::default(),
    );
    assert_eq!(none.unwrap_err().to_string(), "no recipients");
    assert!(client.engine.list().unwrap().is_empty());
}

#[test]
fn the_trace_shows_the_dialogue_and_no_secret() {
    let server = Server::start(Options::new(Tls::StartTls).require_auth());
    let mut client = Client::new(Settings {
        trace: true,
        ..settings_for(&server)
    });
    let to = target(server.port(), StreamType::Starttls);
    assert_eq!(client.try_to_send(&to, &["a@b"], MESSAGE).kind, Kind::Sent);
    let trace = &client.trace;
    for line in [
        "EHLO client.example",
        "STARTTLS",
        "<TLS 1.3, X25519MLKEM768, TLS13_AES_",
        "AUTH PLAIN <omitted>",
        "235 2.7.0",
        "RCPT TO:<a@b>",
        "octets of message>",
        "250 2.0.0",
    ] {
        assert!(trace.contains(line), "{line:?} is not in {trace}");
    }
    use base64::prelude::{BASE64_STANDARD, Engine};
    for secret in [
        "pass word".to_owned(),
        BASE64_STANDARD.encode("\0user\0pass word"),
    ] {
        assert!(!trace.contains(&secret), "{trace}");
    }
}
