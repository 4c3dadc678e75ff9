//! An engine with a spool of its own, seen through its events.

use std::io::PipeReader;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rs_smtpmail::bridge::{Answer, Cause, Event, Kind};
use rs_smtpmail::credentials::AuthSource;
use rs_smtpmail::engine::{Engine, Settings, World};
use rs_smtpmail::mail::{Path, Port, Server, StreamType};
use rs_smtpmail::net::tls::{IdentityFiles, Rejected};
use rs_smtpmail::spool::fs::Fs;
use rs_smtpmail::spool::{Entry, EntryId, State, Wishes};
use tempfile::TempDir;

pub struct Client {
    pub engine: Engine,
    /// Other clients may share it.
    pub directory: Arc<TempDir>,
    /// Whether certificates that are asked about are trusted.
    pub trusts: bool,
    /// The certificates asked about.
    pub asked: Vec<Rejected>,
    /// What is shown to servers that want a client certificate.
    pub identity: Option<IdentityFiles>,
    /// What was said of the priority string.
    pub warnings: Vec<String>,
    /// The dialogue, where the settings say so.
    pub trace: String,
    wake: PipeReader,
    seen: Vec<Event>,
}

/// An outcome, as a test looks at it.
#[derive(Debug)]
#[allow(dead_code, reason = "some is only shown where a test fails")]
pub struct Seen {
    pub kind: Kind,
    pub entry: Entry,
    pub error: String,
    pub cause: Option<Cause>,
    pub reply: String,
}

impl Client {
    pub fn new(settings: Settings) -> Self {
        Client::in_directory(tempfile::tempdir().unwrap(), settings, Fs::default())
    }

    /// Trusts the server's authority, and has its user's credentials in an authinfo file.
    pub fn for_server(server: &server::Server) -> Self {
        Client::new(settings_for(server))
    }

    pub fn in_directory(directory: impl Into<Arc<TempDir>>, settings: Settings, fs: Fs) -> Self {
        let world = World {
            fs,
            ..World::default()
        };
        Client::in_world(directory, settings, world)
    }

    pub fn in_world(directory: impl Into<Arc<TempDir>>, settings: Settings, world: World) -> Self {
        let directory = directory.into();
        let (wake, writer) = std::io::pipe().unwrap();
        let spool = directory.path().join("spool");
        let engine = Engine::within(spool, settings, Box::new(writer), world).unwrap();
        Client {
            engine,
            directory,
            trusts: false,
            asked: Vec::new(),
            identity: None,
            warnings: Vec::new(),
            trace: String::new(),
            wake,
            seen: Vec::new(),
        }
    }

    /// Another engine on the same spool.
    pub fn beside(&self, settings: Settings) -> Self {
        Client::in_directory(Arc::clone(&self.directory), settings, Fs::default())
    }

    pub fn send(&self, server: &Server, recipients: &[&str], message: &[u8]) -> EntryId {
        self.send_from("me@example.org", server, recipients, message)
    }

    pub fn send_from(
        &self,
        sender: &str,
        server: &Server,
        recipients: &[&str],
        message: &[u8],
    ) -> EntryId {
        let recipients = recipients
            .iter()
            .map(|text| Path::parse(text, "to").unwrap())
            .collect();
        let sender = Path::parse(sender, "sender").unwrap();
        self.engine
            .send(
                message,
                sender,
                recipients,
                server.clone(),
                Default::default(),
            )
            .unwrap()
    }

    pub fn send_with(&self, server: &Server, wishes: Wishes) -> EntryId {
        let recipients = vec![Path::parse("you@example.com", "to").unwrap()];
        let sender = Path::parse("me@example.org", "sender").unwrap();
        self.engine
            .send(MESSAGE, sender, recipients, server.clone(), wishes)
            .unwrap()
    }

    /// The entry's state; it must be in the spool.
    pub fn state(&self, id: EntryId) -> State {
        self.engine.entry(id).unwrap().1
    }

    /// The next event; woken by the byte as Emacs is.
    pub fn next_event(&mut self) -> Event {
        let end = Instant::now() + server::deadline();
        while self.seen.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            assert!(self.wait_for_wake(left), "no event came");
            self.seen.extend(self.engine.drain());
        }
        self.seen.remove(0)
    }

    fn wait_for_wake(&mut self, limit: Duration) -> bool {
        use std::os::fd::AsRawFd;
        let mut poll = libc::pollfd {
            fd: self.wake.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd of our own.
        let ready = unsafe { libc::poll(&raw mut poll, 1, limit.as_millis() as i32) };
        ready == 1 && self.wake.read(&mut [0; 16]).unwrap() > 0
    }

    /// The next outcome; questions about TLS are answered, other events fail the test.
    pub fn outcome(&mut self) -> Seen {
        loop {
            let (request, answer) = match self.next_event() {
                Event::Outcome {
                    kind,
                    entry,
                    error,
                    cause,
                    reply,
                } => {
                    return Seen {
                        kind,
                        entry: *entry,
                        error: error.unwrap_or_default(),
                        cause,
                        reply: reply.unwrap_or_default(),
                    };
                }
                Event::Certificate {
                    request, rejected, ..
                } => {
                    self.asked.push(*rejected);
                    let no = Answer::Nothing;
                    (request, if self.trusts { Answer::Trusted } else { no })
                }
                Event::ClientCertificate { request, .. } => {
                    let files = self.identity.clone();
                    (request, files.map_or(Answer::Nothing, Answer::Identity))
                }
                Event::Problem(text) if text.starts_with("gnutls-algorithm-priority") => {
                    self.warnings.push(text);
                    continue;
                }
                Event::Trace { text, .. } => {
                    self.trace.push_str(&text);
                    continue;
                }
                // Only a large message on a busy machine has it.
                Event::Progress { .. } => continue,
                // Where others send from the spool.
                Event::Changed => continue,
                other => panic!("not an outcome: {other:?}"),
            };
            assert!(self.engine.answer(request, answer));
        }
    }

    /// Sends and returns the outcome.
    pub fn try_to_send(&mut self, server: &Server, recipients: &[&str], message: &[u8]) -> Seen {
        let id = self.send(server, recipients, message);
        let seen = self.outcome();
        assert_eq!(seen.entry.id, id);
        seen
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.engine.stop(Duration::from_secs(1));
    }
}

pub fn settings_for(server: &server::Server) -> Settings {
    let authinfo = server.directory().join("authinfo");
    let line = "machine localhost login user password \"pass word\"\n\
                machine 127.0.0.1 login user password \"pass word\"\n";
    std::fs::write(&authinfo, line).unwrap();
    let mut settings = Settings::default();
    settings.net.tls.trust_files = vec![server.ca_file()];
    settings.credentials.auth_sources = vec![AuthSource::Netrc(authinfo)];
    settings
}

pub fn target(port: u16, stream_type: StreamType) -> Server {
    Server::new(
        "127.0.0.1".to_owned(),
        Port::Number(port),
        stream_type,
        None,
        "client.example".to_owned(),
        false,
    )
    .unwrap()
}

pub const MESSAGE: &[u8] = b"From: me@example.org\nTo: you@example.com\nSubject: Hello\n\n\
.a line that begins with a dot\n.\n..\nlast line";
pub const ON_THE_WIRE: &[u8] =
    b"From: me@example.org\r\nTo: you@example.com\r\nSubject: Hello\r\n\r\n\
.a line that begins with a dot\r\n.\r\n..\r\nlast line\r\n";
