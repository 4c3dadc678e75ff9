//! One message's entry: its envelope, its server, and what has become of it so far.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::mail::{Facts, Path, Server, Timestamp};

/// Names an entry for its life, across processes; sorts by the time of its making.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntryId(Uuid);

impl EntryId {
    /// A new id, later than all before it.
    pub fn new() -> Self {
        EntryId(Uuid::now_v7())
    }

    /// An id made of these, for tests: of `random` all but six bits count.
    pub fn made_of(now: Timestamp, random: [u8; 10]) -> Self {
        EntryId(uuid::Builder::from_unix_timestamp_millis(now.0, &random).into_uuid())
    }

    /// An id from its text; `None` for anything else, so no path can be smuggled in.
    pub fn parse(text: &str) -> Option<Self> {
        let id = EntryId(Uuid::try_parse(text).ok()?);
        (id.to_string() == text).then_some(id)
    }

    /// A number that differs from entry to entry, for spreading retries.
    pub fn spread(&self) -> u64 {
        self.0.as_u64_pair().1
    }
}

impl Default for EntryId {
    fn default() -> Self {
        EntryId::new()
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// What has become of one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipientState {
    /// Not decided yet.
    Pending,
    /// The server took the message for it.
    Accepted,
    /// Refused for good.
    Failed,
    /// The line was cut after the last byte; the server may have taken it.
    Unconfirmed,
}

/// One recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Its address.
    pub path: Path,
    /// What has become of it.
    pub state: RecipientState,
    /// The reply that decided it, or put it off: code and text, lines joined by LF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
}

/// What the user must put in order before a message can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// Credentials.
    Auth,
    /// Trust in a certificate, or another stream type.
    Tls,
    /// Another setting.
    Config,
}

/// What the user wants of one message, beside its delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// Delivery status notifications (RFC 3461).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dsn: Option<Dsn>,
    /// Only over TLS, all the way (RFC 8689).
    #[serde(default)]
    pub require_tls: bool,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// The Date field is set at each try.
    #[serde(default)]
    pub date_at_sending: bool,
    /// A file outside of the spool with the same message. While it exists, it stands for
    /// the message, and this entry is not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<PathBuf>,
    /// How Lisp is to file a copy when the server has accepted the message. Until that
    /// is done, the entry stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<String>,
}

/// A request for delivery status notifications (RFC 3461 section 4).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dsn {
    /// RET: whether a notification holds the whole message, or (false) its header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_all: Option<bool>,
    /// NOTIFY: some of SUCCESS, FAILURE and DELAY, or NEVER alone.
    #[serde(default)]
    pub notify: Vec<String>,
}

/// A message's envelope, server and fate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The format of its files; 1.
    pub version: u32,
    /// The name of its files.
    pub id: EntryId,
    /// When it was accepted from the user.
    pub created: Timestamp,
    /// The reverse-path.
    pub sender: Path,
    /// Each recipient once, in the order given.
    pub recipients: Vec<Recipient>,
    /// The server it goes to, whatever the options say later.
    pub server: Server,
    /// What a session must know of the message.
    pub facts: Facts,
    /// What the user wants of it beside delivery.
    #[serde(default)]
    pub wishes: Wishes,
    /// Tries so far. Grows with every decision that is written down.
    #[serde(default)]
    pub attempts: u32,
    /// Not before this time, for the last try has failed.
    #[serde(default)]
    pub next_try: Option<Timestamp>,
    /// Set by the user: not sent until released.
    #[serde(default)]
    pub hold: bool,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<Need>,
    /// The last trouble, for the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An entry's state as the user sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum State {
    Pending,
    Sending,
    Failed,
    Unconfirmed,
    Held,
    NeedsUser,
    /// The user is being asked for a password; the spool knows nothing of that.
    NeedsCredentials,
    /// Waits for the time the user wants it sent at.
    Scheduled,
    /// Accepted; a copy is still to be filed.
    Filing,
    Sent,
}

impl Entry {
    /// A new entry, of which no facts are known yet; duplicate recipients are taken once.
    pub fn new(
        id: EntryId,
        sender: Path,
        recipients: Vec<Path>,
        server: Server,
        wishes: Wishes,
        now: Timestamp,
    ) -> Self {
        let mut once: Vec<Recipient> = Vec::with_capacity(recipients.len());
        for path in recipients {
            if !once.iter().any(|recipient| recipient.path == path) {
                once.push(Recipient {
                    path,
                    state: RecipientState::Pending,
                    reply: None,
                });
            }
        }
        Entry {
            version: 1,
            id,
            created: now,
            sender,
            recipients: once,
            server,
            facts: Facts::default(),
            wishes,
            attempts: 0,
            next_try: None,
            hold: false,
            need: None,
            error: None,
        }
    }

    /// Whether a recipient is in `state`.
    pub fn any(&self, state: RecipientState) -> bool {
        self.recipients
            .iter()
            .any(|recipient| recipient.state == state)
    }

    /// Whether every recipient has been accepted.
    pub fn is_delivered(&self) -> bool {
        self.recipients
            .iter()
            .all(|recipient| recipient.state == RecipientState::Accepted)
    }

    /// Whether the entry is done with: delivered, and no copy to be filed.
    pub fn is_done(&self) -> bool {
        self.is_delivered() && self.wishes.copy.is_none()
    }

    /// Whether a copy is to be filed now.
    pub fn is_to_be_filed(&self) -> bool {
        self.wishes.copy.is_some() && self.any(RecipientState::Accepted)
    }

    /// When it is tried next, if nobody asks for it; `None` for now.
    pub fn due(&self) -> Option<Timestamp> {
        self.next_try.max(self.wishes.not_before)
    }

    /// Whether the user wants it sent later than `now`.
    pub fn is_for_later(&self, now: Timestamp) -> bool {
        self.wishes.not_before.is_some_and(|time| time > now)
    }

    /// The state the user sees, given whether a session works on it `now`.
    pub fn state(&self, in_flight: bool, now: Timestamp) -> State {
        if in_flight {
            State::Sending
        } else if self.is_done() {
            State::Sent
        } else if self.is_delivered() {
            State::Filing
        } else if self.hold {
            State::Held
        } else if self.any(RecipientState::Unconfirmed) {
            State::Unconfirmed
        } else if !self.any(RecipientState::Pending) {
            State::Failed
        } else if self.need.is_some() {
            State::NeedsUser
        } else if self.is_for_later(now) {
            State::Scheduled
        } else {
            State::Pending
        }
    }

    /// Whether it may be tried without the user's asking for this one.
    pub fn is_ready(&self) -> bool {
        !self.hold && !self.any(RecipientState::Unconfirmed) && self.any(RecipientState::Pending)
    }

    /// Puts each recipient in one of `from` into the state `to`.
    pub fn turn(&mut self, from: &[RecipientState], to: RecipientState) {
        for recipient in &mut self.recipients {
            if from.contains(&recipient.state) {
                recipient.state = to;
            }
        }
    }
}
