//! What the user is told: events wait here until Emacs's thread takes them; one byte
//! on a pipe tells it that there are some.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use crate::net::tls::Rejected;
use crate::spool::{Entry, EntryId, Need};

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every recipient accepted; it is out of the spool.
    Sent,
    /// Refused for good, in part or as a whole.
    Failed,
    /// Will be tried again by itself.
    Deferred,
    /// Waits for the user to put something in order.
    NeedsUser(Need),
    /// The server may have it.
    Unconfirmed,
    /// Stopped by the user, and held.
    Cancelled,
    /// Stopped by the user, and deleted.
    Removed,
    /// Was accepted before; its copy is to be filed now.
    Unfiled,
    /// Its copy has been filed; it is out of the spool.
    Filed,
}

/// What went wrong with a message, for Lisp to judge by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Where in the dialogue: a name in lower case with hyphens, such as `end-of-data`.
    pub stage: &'static str,
    /// Whom it concerns: `site`, `message` or `recipient`.
    pub scope: &'static str,
    /// What becomes of it: `retry`, `reject`, `needs-user` or `unconfirmed`.
    pub class: &'static str,
    /// The reply's code (RFC 5321 section 4.2), if there was a reply.
    pub code: Option<u16>,
    /// Its enhanced status code (RFC 3463), such as `5.7.8`.
    pub enhanced_code: Option<String>,
    /// What happened, without host, stage and reply.
    pub text: String,
}

/// Something to tell Lisp.
#[derive(Debug)]
pub enum Event {
    /// An outcome, after it was settled on disk.
    Outcome {
        /// What became of it.
        kind: Kind,
        /// As it was last on disk.
        entry: Box<Entry>,
        /// The trouble, in words.
        error: Option<String>,
        /// The same, in data.
        cause: Option<Cause>,
        /// The reply that accepted the message.
        reply: Option<String>,
    },
    /// How far a large message has got; may be left out.
    Progress {
        /// The message.
        id: EntryId,
        /// Octets handed to the system.
        sent: u64,
        /// Octets in all.
        total: u64,
    },
    /// Lines of a session's dialogue.
    Trace {
        /// The server.
        host: String,
        /// The lines, each with a line end.
        text: String,
    },
    /// A step of a check of a server.
    Check {
        /// The check it belongs to.
        request: u64,
        /// What was done.
        step: String,
        /// What came of it.
        text: String,
        /// Whether it went well.
        is_good: bool,
        /// Whether it was the last step.
        is_last: bool,
    },
    /// Another process may have changed something in the spool.
    Changed,
    /// Trouble that belongs to no message.
    Problem(String),
    /// Lisp is asked for credentials.
    Credentials {
        /// Names the request in the answer.
        request: u64,
        /// `smtpmail-smtp-server`.
        host: String,
        /// `smtpmail-smtp-service`, as text.
        port: String,
        /// `smtpmail-smtp-user`.
        user: Option<String>,
        /// The element of `auth-sources` to search; `None`: ask the user.
        source: Option<i64>,
        /// Why the last ones were refused.
        rejected: Option<String>,
    },
    /// Lisp is asked for an OAuth 2 access token.
    Token {
        /// Names the request in the answer.
        request: u64,
        /// `smtpmail-smtp-server`.
        host: String,
        /// `smtpmail-smtp-user`.
        user: Option<String>,
    },
    /// An OAuth 2 provider has given a refresh token in place of the stored one.
    RefreshTokenReplaced {
        /// The server that tokens are for.
        host: String,
        /// The user.
        user: Option<String>,
    },
    /// The credentials of an answer have worked: they may be saved.
    CredentialsAccepted {
        /// The request that was answered.
        request: u64,
    },
    /// gpg asks for a passphrase.
    Passphrase {
        /// Names the request in the answer.
        request: u64,
        /// Which key it is for.
        hint: String,
    },
    /// A server's certificate is not accepted: the user may trust it all the same.
    Certificate {
        /// Names the request in the answer.
        request: u64,
        /// `smtpmail-smtp-server`.
        host: String,
        /// `smtpmail-smtp-service`, as text.
        port: String,
        /// What it says and what is wrong with it.
        rejected: Box<Rejected>,
    },
    /// A server wants a client certificate.
    ClientCertificate {
        /// Names the request in the answer.
        request: u64,
        /// `smtpmail-smtp-server`.
        host: String,
        /// `smtpmail-smtp-service`, as text.
        port: String,
    },
}

impl State {
    /// Adds an event, or makes one of it and an earlier one.
    fn add(&mut self, event: Event) {
        match (&event, self.events.last_mut()) {
            (
                Event::Trace { host, text },
                Some(Event::Trace {
                    host: last_host,
                    text: last_text,
                }),
            ) if host == last_host => return last_text.push_str(text),
            (Event::Progress { id, .. }, _) => {
                let is_older = |other: &Event| matches!(other, Event::Progress { id: other, .. } if other == id);
                self.events.retain(|other| !is_older(other));
            }
            _ => {}
        }
        self.events.push(event);
    }
}

/// The events Lisp has not taken yet, and the pipe to wake it.
pub struct Events {
    state: Mutex<State>,
}

struct State {
    events: Vec<Event>,
    wake: Box<dyn Write + Send>,
}

impl Events {
    /// An empty events; `wake` is written one byte when it ceases to be empty.
    pub fn new(wake: Box<dyn Write + Send>) -> Self {
        Events {
            state: Mutex::new(State {
                events: Vec::new(),
                wake,
            }),
        }
    }

    /// Adds an event.
    pub fn push(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = state.events.is_empty();
        state.add(event);
        if was_empty {
            // Without a reader the events wait: the spool is the truth.
            let _ = state.wake.write_all(b"!");
        }
    }

    /// Takes all events, oldest first.
    pub fn drain(&self) -> Vec<Event> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.events)
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}
