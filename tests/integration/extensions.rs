//! Each extension offered, not offered, and offered but refused.

use crate::common::{self, Client, MESSAGE, target};
use rs_smtpmail::bridge::Kind;
use rs_smtpmail::mail::{Path, StreamType};
use rs_smtpmail::spool::{Dsn, Wishes};
use server::{Extension, Options, Received, Rule, Server, Stage, Tls};

const EIGHT_BIT: &[u8] =
    "Subject: 8 bits\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
Content-Transfer-Encoding: 8bit\n\nGrüße\n.\n"
        .as_bytes();

fn send(
    options: Options,
    message: &[u8],
    to: &[&str],
    wishes: Wishes,
) -> (common::Seen, Vec<Received>) {
    let server = Server::start(options);
    let stream_type = StreamType::Opportunistic;
    let mut client = Client::for_server(&server);
    let recipients = to
        .iter()
        .map(|text| Path::parse(text, "to").unwrap())
        .collect();
    let sender = Path::parse("me@example.org", "sender").unwrap();
    let target = target(server.port(), stream_type);
    client
        .engine
        .send(message, sender, recipients, target, wishes)
        .unwrap();
    let seen = client.outcome();
    assert_eq!(server.violations(), [], "{seen:?}");
    (seen, server.messages())
}

fn wishes() -> Wishes {
    Wishes {
        dsn: Some(Dsn {
            return_all: Some(false),
            notify: vec!["SUCCESS".to_owned(), "DELAY".to_owned()],
        }),
        require_tls: false,
        ..Wishes::default()
    }
}

#[test]
fn mail_arrives_with_each_extension_on_off_and_refused() {
    for extension in [
        Extension::Pipelining,
        Extension::Size,
        Extension::StartTls,
        Extension::Auth,
        Extension::EnhancedStatusCodes,
        Extension::EightBitMime,
        Extension::SmtpUtf8,
        Extension::Dsn,
        Extension::Chunking,
        Extension::BinaryMime,
        Extension::RequireTls,
    ] {
        for (how, options) in [
            ("on", Options::new(Tls::StartTls).with(extension)),
            ("off", Options::new(Tls::StartTls).without(extension)),
            ("refused", Options::new(Tls::StartTls).refusing(extension)),
        ] {
            let what = format!("{} {how}", extension.keyword());
            let (seen, messages) = send(options, EIGHT_BIT, &["you@example.com"], wishes());
            assert_eq!(seen.kind, Kind::Sent, "{what}: {seen:?}");
            assert_eq!(messages.len(), 1, "{what}");
            let message = &messages[0];
            let has = |word: &str| message.mail_parameters.iter().any(|one| one == word);
            let is_on = |one: Extension| !(extension == one && how != "on");
            assert_eq!(message.tls.is_some(), is_on(Extension::StartTls), "{what}");
            let unused = |one: Extension| extension == one && how != "on";
            if !unused(Extension::EightBitMime) && how != "refused" {
                assert!(has("BODY=8BITMIME"), "{what}: {message:?}");
            }
            if !unused(Extension::Dsn) && how != "refused" {
                assert!(has("RET=HDRS"), "{what}");
                let words = &message.recipients[0].parameters;
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                assert_eq!(
                    words,
                    ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;you@example.com"]
                );
            }
        }
    }
}

#[test]
fn eight_bits_are_never_sent_to_a_server_that_takes_seven() {
    for options in [
        Options::default().without(Extension::EightBitMime),
        Options::default().refusing(Extension::EightBitMime),
    ] {
        let (seen, messages) = send(options, EIGHT_BIT, &["a@b"], Wishes::default());
        assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
        let text = String::from_utf8(messages[0].bytes.clone()).unwrap();
        assert!(text.is_ascii(), "{text}");
        assert!(text.contains("Gr=C3=BC=C3=9Fe\r\n"), "{text}");
        assert!(
            text.contains("Content-Transfer-Encoding: quoted-printable\r\n"),
            "{text}"
        );
    }
}

#[test]
fn lines_are_never_longer_than_the_standard_allows() {
    let long = format!("Subject: long\n\n{}\n", "word ".repeat(400));
    let (seen, messages) = send(
        Options::default(),
        long.as_bytes(),
        &["a@b"],
        Wishes::default(),
    );
    assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
    let longest = messages[0]
        .bytes
        .split(|&octet| octet == b'\n')
        .map(<[u8]>::len)
        .max();
    assert!(longest.unwrap() <= 1000);
}

#[test]
fn non_ascii_addresses_need_smtputf8() {
    let to = ["jü@example.com", "plain@example.com"];
    let (seen, messages) = send(Options::default(), MESSAGE, &to, Wishes::default());
    assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
    assert_eq!(messages[0].addresses(), to);
    assert!(messages[0].mail_parameters.contains(&"SMTPUTF8".to_owned()));

    let without = Options::default().without(Extension::SmtpUtf8);
    let (seen, messages) = send(without, MESSAGE, &to, Wishes::default());
    assert_eq!(seen.kind, Kind::Failed);
    assert!(
        seen.error
            .contains("jü@example.com: the server takes no address"),
        "{}",
        seen.error
    );
    assert_eq!(messages[0].addresses(), ["plain@example.com"]);

    let without = Options::default().without(Extension::SmtpUtf8);
    let (seen, messages) = send(without, MESSAGE, &["a@exämple.com"], Wishes::default());
    assert_eq!(seen.kind, Kind::Sent);
    assert_eq!(messages[0].addresses(), ["a@xn--exmple-cua.com"]);
}

#[test]
fn a_message_over_the_servers_limit_is_not_sent() {
    let (seen, messages) = send(
        Options::default().size(100),
        MESSAGE,
        &["a@b"],
        Wishes::default(),
    );
    assert_eq!(seen.kind, Kind::Failed);
    assert!(
        seen.error
            .contains("larger than the server takes (100 octets)"),
        "{}",
        seen.error
    );
    assert!(messages.is_empty());
}

#[test]
fn limits_are_kept() {
    let to: Vec<String> = (0..25)
        .map(|number| format!("u{number}@example.com"))
        .collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    for options in [
        Options::default().limits("RCPTMAX=10"),
        // The same, unannounced: the server says 452 after the tenth.
        Options::default().rule(
            Rule::at(Stage::Rcpt)
                .nth(11)
                .reply(452, "4.5.3 Too many recipients"),
        ),
    ] {
        let (seen, messages) = send(options, MESSAGE, &to, Wishes::default());
        assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
        let mut all: Vec<_> = messages.iter().flat_map(Received::addresses).collect();
        assert_eq!(all.len(), 25);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 25);
    }
    let to = [
        "a@one.example",
        "b@two.example",
        "c@One.example",
        "d@three.example",
    ];
    let options = Options::default().limits("RCPTDOMAINMAX=1");
    let (seen, messages) = send(options, MESSAGE, &to, Wishes::default());
    assert_eq!(seen.kind, Kind::Sent, "{seen:?}");
    let groups: Vec<_> = messages.iter().map(Received::addresses).collect();
    assert_eq!(groups, [vec![to[0], to[2]], vec![to[1]], vec![to[3]]]);

    let server = Server::start(Options::default().limits("MAILMAX=3"));
    let mut client = Client::for_server(&server);
    let target = target(server.port(), StreamType::Plain);
    for _ in 0..10 {
        client.send(&target, &["a@b"], MESSAGE);
    }
    for _ in 0..10 {
        assert_eq!(client.outcome().kind, Kind::Sent);
    }
    assert_eq!(server.violations(), []);
    assert!(server.connections().len() >= 4);
}

#[test]
fn requiretls_is_demanded_of_the_server() {
    let wishes = || Wishes {
        require_tls: true,
        dsn: None,
        ..Wishes::default()
    };
    let options = Options::new(Tls::StartTls).with(Extension::RequireTls);
    let (seen, messages) = send(options, MESSAGE, &["a@b"], wishes());
    assert_eq!(seen.kind, Kind::Sent);
    assert!(
        messages[0]
            .mail_parameters
            .contains(&"REQUIRETLS".to_owned())
    );
    let (seen, messages) = send(Options::new(Tls::StartTls), MESSAGE, &["a@b"], wishes());
    assert_eq!((seen.kind, messages.len()), (Kind::Failed, 0));
    assert!(
        seen.error.contains("does not offer REQUIRETLS"),
        "{}",
        seen.error
    );
}

#[test]
fn lmtp_answers_for_each_recipient() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("lmtp");
    let rule = Rule::at(Stage::Final).matching("full@").once();
    let rule = rule.reply(452, "4.2.2 Mailbox full");
    let mut options = Options::default().lmtp().rule(rule);
    options.unix_socket = Some(socket.clone());
    let server = Server::start(options);
    let mut client = Client::for_server(&server);
    let mut target = target(server.port(), StreamType::Plain);
    target.is_lmtp = true;
    for host in ["127.0.0.1", socket.to_str().unwrap()] {
        target.host = host.to_owned();
        let seen = client.try_to_send(&target, &["a@example.com", "b@example.com"], MESSAGE);
        assert_eq!(seen.kind, Kind::Sent, "{host}: {seen:?}");
    }
    assert_eq!(server.messages().len(), 2);
    assert_eq!(server.violations(), []);
}
