//! Against a real Postfix with Dovecot's SASL, started by tests/peers/postfix.sh.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "server/mod.rs"]
mod server;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Client, MESSAGE, target};
use rs_smtpmail::config::{AuthSource, Server, Settings, StreamType};
use rs_smtpmail::events::Kind;

/// A Postfix of the test's own; stopped on drop.
struct Postfix {
    directory: tempfile::TempDir,
    facts: HashMap<String, String>,
}

impl Postfix {
    /// `None` where it can't run, which CI does not take for an answer.
    fn start() -> Option<Self> {
        // Unix sockets are in it, whose names are short.
        let directory = tempfile::Builder::new()
            .prefix("pf")
            .tempdir_in("/tmp")
            .unwrap();
        let output = script(directory.path(), "start");
        if output.status.code() == Some(3) && std::env::var_os("CI").is_none() {
            eprintln!("not run: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        assert!(output.status.success(), "{output:?}");
        let text = std::fs::read_to_string(directory.path().join("env")).unwrap();
        let facts = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.trim_matches(['\'', '"']).to_owned()))
            .collect();
        Some(Postfix { directory, facts })
    }

    fn fact(&self, key: &str) -> &str {
        self.facts
            .get(key)
            .unwrap_or_else(|| panic!("no {key} in {:?}", self.facts))
    }

    fn target(&self, key: &str, stream_type: StreamType) -> Server {
        let mut server = target(self.fact(key).parse().unwrap(), stream_type);
        server.host = "localhost".to_owned();
        server
    }

    fn settings(&self) -> Settings {
        let authinfo = self.directory.path().join("authinfo");
        let (user, password) = (self.fact("USER"), self.fact("PASSWORD"));
        let line = format!("machine localhost login {user} password \"{password}\"\n");
        std::fs::write(&authinfo, line).unwrap();
        Settings {
            trust_files: vec![PathBuf::from(self.fact("CA_FILE"))],
            auth_sources: vec![AuthSource::Netrc(authinfo)],
            ..Settings::default()
        }
    }

    /// The messages in the mailbox, once there are `number`.
    fn mailbox(&self, number: usize) -> Vec<Vec<u8>> {
        let end = Instant::now() + server::deadline();
        loop {
            let new = Path::new(self.fact("MAILDIR")).join("new");
            let files: Vec<_> = std::fs::read_dir(new)
                .map(|files| files.map(|file| file.unwrap().path()).collect())
                .unwrap_or_default();
            if files.len() >= number {
                return files
                    .iter()
                    .map(|file| std::fs::read(file).unwrap())
                    .collect();
            }
            assert!(Instant::now() < end, "{} of {number} messages", files.len());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        script(self.directory.path(), "stop");
    }
}

fn script(directory: &Path, action: &str) -> std::process::Output {
    Command::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/peers/postfix.sh"
    ))
    .arg(directory)
    .arg(action)
    .output()
    .unwrap()
}

fn body(message: &[u8]) -> &str {
    let text = std::str::from_utf8(message).unwrap();
    text.split_once("\n\n").unwrap().1
}

#[test]
fn postfix_takes_mail_by_each_way_in_and_with_each_mechanism() {
    let Some(postfix) = Postfix::start() else {
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
        let settings = Settings {
            auth_mechanisms: Some(vec![mechanism.to_lowercase()]),
            ..postfix.settings()
        };
        deliver(settings, &starttls, mechanism);
    }
    for mechanism in ["xoauth2", "oauthbearer"] {
        let settings = postfix.settings();
        let authinfo = postfix.directory.path().join("authinfo");
        let (user, token) = (postfix.fact("USER"), postfix.fact("TOKEN"));
        let line =
            format!("machine localhost login {user} password {token} smtp-auth {mechanism}\n");
        std::fs::write(authinfo, line).unwrap();
        deliver(settings, &starttls, mechanism);
    }

    let settings = Settings {
        trust_files: Vec::new(),
        ..postfix.settings()
    };
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
