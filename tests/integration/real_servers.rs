//! Against a real Postfix with Dovecot's SASL, started by tests/peers/postfix.sh.

use crate::common::{Client, MESSAGE};
use crate::postfix::Postfix;
use rs_smtpmail::bridge::{Answer, Event, Kind};
use rs_smtpmail::engine::Settings;
use rs_smtpmail::mail::{Server, StreamType};
use rs_smtpmail::spool::Need;

fn body(message: &[u8]) -> &str {
    let text = std::str::from_utf8(message).unwrap();
    text.split_once("\n\n").unwrap().1
}

#[test]
fn postfix_takes_mail_by_each_way_in_and_with_each_mechanism() {
    let Some(postfix) = Postfix::start("") else {
        return;
    };
    let mut sent = 0;
    let mut deliver = |settings: Settings, to: &Server, what: &str| {
        let mut client = Client::new(settings);
        let seen = client.try_to_send(to, &["user@example.org"], MESSAGE);
        assert_eq!(seen.kind, Kind::Sent, "{what}: {seen:?}");
        sent += 1;
        let mailbox = postfix.mailbox(sent);
        let expected = ".a line that begins with a dot\n.\n..\nlast line\n";
        assert!(
            mailbox.iter().all(|message| body(message) == expected),
            "{what}"
        );
    };
    let starttls = postfix.target("SUBMISSION_PORT", StreamType::Starttls);
    deliver(postfix.settings(), &starttls, "STARTTLS");
    deliver(
        postfix.settings(),
        &postfix.target("SMTPS_PORT", StreamType::Ssl),
        "TLS",
    );
    for mechanism in ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"] {
        let mut settings = postfix.settings();
        settings.session.auth_mechanisms = Some(vec![mechanism.to_lowercase()]);
        deliver(settings, &starttls, mechanism);
    }
    for mechanism in ["xoauth2", "oauthbearer"] {
        let settings = postfix.settings();
        let authinfo = postfix.directory().join("authinfo");
        let (user, token) = (postfix.fact("USER"), postfix.fact("TOKEN"));
        let line =
            format!("machine localhost login {user} password {token} smtp-auth {mechanism}\n");
        std::fs::write(authinfo, line).unwrap();
        deliver(settings, &starttls, mechanism);
    }

    let mut settings = postfix.settings();
    settings.net.tls.trust_files.clear();
    let mut client = Client::new(settings);
    let seen = client.try_to_send(&starttls, &["user@example.org"], MESSAGE);
    assert!(seen.error.contains("gnutls-trustfiles"), "{}", seen.error);

    let mut client = Client::new(postfix.settings());
    let seen = client.try_to_send(
        &starttls,
        &["user@example.org", "nobody@[300.0.0.1]"],
        MESSAGE,
    );
    assert_eq!(seen.kind, Kind::Failed, "{seen:?}");
    assert!(
        seen.error.contains("refused 1 of 2 recipients"),
        "{}",
        seen.error
    );
    postfix.mailbox(sent + 1);
    sent += 1;

    // A flush over one session or two; each message arrives once.
    for number in 0..60 {
        let text = format!("Subject: {number}\n\nnumber {number}\n");
        client.send(&starttls, &["user@example.org"], text.as_bytes());
    }
    for _ in 0..60 {
        assert_eq!(client.outcome().kind, Kind::Sent);
    }
    let mut numbers: Vec<_> = postfix
        .mailbox(sent + 60)
        .iter()
        .filter_map(|message| body(message).strip_prefix("number ").map(str::to_owned))
        .collect();
    numbers.sort();
    let count = numbers.len();
    numbers.dedup();
    assert_eq!((count, numbers.len()), (60, 60));
}

/// With Dovecot's own delay after a wrong password, and Postfix's patience with Dovecot.
#[test]
fn a_typo_in_the_password_is_told_at_once() {
    let Some(postfix) = Postfix::start("") else {
        return;
    };
    let settings = postfix.settings();
    let authinfo = postfix.directory().join("authinfo");
    let line = format!(
        "machine localhost login {} password typo\n",
        postfix.fact("USER")
    );
    std::fs::write(authinfo, line).unwrap();
    let mut client = Client::new(settings);
    let to = postfix.target("SUBMISSION_PORT", StreamType::Starttls);
    for _ in 0..3 {
        client.send(&to, &["user@example.org"], MESSAGE);
    }
    let mut told = 0;
    while told < 3 {
        match client.next_event() {
            Event::Credentials {
                request, rejected, ..
            } => {
                assert!(rejected.unwrap().starts_with("535 5.7.8"));
                assert!(client.engine.answer(request, Answer::Nothing));
            }
            Event::Outcome { kind, error, .. } => {
                assert_eq!(kind, Kind::NeedsUser(Need::Auth), "{error:?}");
                let words = "refused user name or password: 535 5.7.8";
                assert!(error.as_ref().unwrap().contains(words), "{error:?}");
                told += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    let log = std::path::Path::new(postfix.fact("LOG_DIR")).join("postfix.log");
    let log = std::fs::read_to_string(log).unwrap();
    let failures = log.matches("authentication failed").count();
    assert!((1..=2).contains(&failures), "{log}");
}
