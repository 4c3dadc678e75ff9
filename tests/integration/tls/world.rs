//! Where the situations happen: servers, a user, and a table of what came of them.

use std::path::Path;

use rs_smtpmail::bridge;
use rs_smtpmail::engine::Settings;
use rs_smtpmail::mail::StreamType;
use rs_smtpmail::net::tls::IdentityFiles;

use super::{Authority, Kind, Leaf, stunnel};
use crate::common::{Client, MESSAGE, target};

/// What the user does, or has done.
#[derive(Default)]
pub struct User {
    pub settings: Settings,
    pub trusts: bool,
    pub identity: Option<IdentityFiles>,
}

/// The servers' side: everything the rows share.
pub struct World {
    pub directory: tempfile::TempDir,
    pub mail: server::Server,
    pub root: Authority,
    pub serial: std::cell::Cell<u64>,
    pub rows: std::cell::RefCell<Vec<[String; 3]>>,
}

/// What one situation came to.
pub struct Seen {
    pub kind: bridge::Kind,
    /// With fingerprints and the port replaced by words.
    pub text: String,
    pub questions: usize,
    pub warnings: Vec<String>,
}

impl World {
    pub fn new() -> Self {
        World {
            directory: tempfile::tempdir().unwrap(),
            mail: server::Server::start(server::Options::default()),
            root: Authority::new("Test root"),
            serial: std::cell::Cell::new(1),
            rows: std::cell::RefCell::default(),
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn leaf(&self, kind: Kind) -> Leaf {
        self.leaf_of(&self.root, kind)
    }

    pub fn leaf_of(&self, authority: &Authority, kind: Kind) -> Leaf {
        self.serial.set(self.serial.get() + 1);
        authority.leaf(self.path(), kind, self.serial.get())
    }

    /// Trusts the root.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.net.tls.trust_files = vec![self.root.file(self.path())];
        settings
    }

    pub fn trusting(&self) -> User {
        User {
            settings: self.settings(),
            ..User::default()
        }
    }

    pub fn with_priority(&self, priority: &str) -> User {
        let mut user = self.trusting();
        user.settings.net.tls.priority = Some(priority.to_owned());
        user
    }

    pub fn meet(&self, what: &str, leaf: &Leaf, options: &str, user: User) -> Seen {
        self.meet_by(what, leaf, options, StreamType::Ssl, |_| user)
    }

    /// Sends a message by a server of its own; makes a row of what happens.
    pub fn meet_by(
        &self,
        what: &str,
        leaf: &Leaf,
        options: &str,
        stream_type: StreamType,
        user: impl FnOnce(u16) -> User,
    ) -> Seen {
        let server = stunnel(self.path(), leaf, self.mail.port(), options);
        self.send(what, server.port, stream_type, user(server.port))
    }

    pub fn send(&self, what: &str, port: u16, stream_type: StreamType, user: User) -> Seen {
        let mut client = Client::new(user.settings);
        client.trusts = user.trusts;
        client.identity = user.identity;
        let to = target(port, stream_type);
        let seen = client.try_to_send(&to, &["you@example.com"], MESSAGE);
        let (_, text) = seen.error.split_once(", ").unwrap_or_default();
        let text = generic(text, port);
        let warnings = client.warnings.join("; ");
        self.rows.borrow_mut().push([
            what.to_owned(),
            format!("{:?}, {} question(s)", seen.kind, client.asked.len()),
            format!("{text}{warnings}"),
        ]);
        Seen {
            kind: seen.kind,
            text,
            questions: client.asked.len(),
            warnings: std::mem::take(&mut client.warnings),
        }
    }
}

/// Replaces what differs from run to run.
fn generic(text: &str, port: u16) -> String {
    let mut words = Vec::new();
    for word in text.replace(&format!(":{port}"), ":PORT").split(' ') {
        let bare: String = word.chars().filter(char::is_ascii_hexdigit).collect();
        let is_fingerprint = word.matches(':').count() == 31 && bare.len() >= 64;
        let ends: String = word
            .chars()
            .filter(|c| !c.is_ascii_hexdigit() && *c != ':')
            .collect();
        words.push(match (is_fingerprint, word.starts_with('"')) {
            (true, true) => format!("\"KEY{}", &ends[1..]),
            (true, false) => format!("KEY{ends}"),
            _ => word.to_owned(),
        });
    }
    words.join(" ")
}

impl Seen {
    #[track_caller]
    pub fn is_sent(&self) {
        assert_eq!((self.kind, self.text.as_str()), (bridge::Kind::Sent, ""));
    }

    #[track_caller]
    pub fn needs_user(&self, text: &str) {
        let need = bridge::Kind::NeedsUser(rs_smtpmail::spool::Need::Tls);
        assert_eq!((self.kind, self.text.as_str()), (need, text));
    }

    /// A certificate that the user was asked about, and did not trust.
    #[track_caller]
    pub fn asks(&self, reasons: &str, details: &str) {
        self.needs_user(&format!(
            "TLS handshake: {reasons} [{details}, SHA-256 of the certificate KEY, of its key KEY]; \
             {ADVICE}"
        ));
        assert_eq!(self.questions, 1);
    }

    /// A certificate that can't be trusted even by the user.
    #[track_caller]
    pub fn is_refused(&self, reasons: &str, details: &str) {
        self.needs_user(&format!(
            "TLS handshake: {reasons} [{details}, SHA-256 of the certificate KEY, of its key KEY]; \
             it can't be used: the server must get a new one"
        ));
        assert_eq!(self.questions, 0);
    }
}

const ADVICE: &str = "if you know that it is right, trust this key by (setf (alist-get \
    \"127.0.0.1:PORT\" rs-smtpmail-tls-pins nil nil #'equal) \"KEY\"), or add its issuer to \
    gnutls-trustfiles";
