//! What can go wrong with a delivery, where it did, and what becomes of the message.

use std::fmt;

use super::reply::Reply;
use crate::spool::Need;

/// What becomes of the message, or recipient, that met trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Tried again later, by itself.
    Retry,
    /// Refused for good: the user decides.
    Reject,
    /// Tried again once the user has put something in order.
    NeedsUser(Need),
    /// The server may have it: the user decides.
    Unconfirmed,
}

/// Whom trouble concerns (as Postfix's smtp_trouble.c has it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The server, or the way to it: every message for it.
    Site,
    /// One message.
    Message,
    /// One recipient of a message.
    Recipient,
}

/// Where in the dialogue trouble came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Stage {
    Lookup,
    Connect,
    Tls,
    Greeting,
    Hello,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    Content,
    EndOfData,
}

impl Disposition {
    /// Its name in Lisp.
    pub fn name(self) -> &'static str {
        match self {
            Disposition::Retry => "retry",
            Disposition::Reject => "reject",
            Disposition::NeedsUser(_) => "needs-user",
            Disposition::Unconfirmed => "unconfirmed",
        }
    }
}

impl Scope {
    /// Its name in Lisp.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Site => "site",
            Scope::Message => "message",
            Scope::Recipient => "recipient",
        }
    }
}

impl Stage {
    /// Its name in Lisp.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Lookup => "lookup",
            Stage::Connect => "connect",
            Stage::Tls => "tls",
            Stage::Greeting => "greeting",
            Stage::Hello => "hello",
            Stage::StartTls => "starttls",
            Stage::Auth => "auth",
            Stage::Mail => "mail",
            Stage::Rcpt => "rcpt",
            Stage::Data => "data",
            Stage::Content => "content",
            Stage::EndOfData => "end-of-data",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Lookup => "looking up the host",
            Stage::Connect => "connecting",
            Stage::Tls => "TLS handshake",
            Stage::Greeting => "greeting",
            Stage::Hello => "EHLO",
            Stage::StartTls => "STARTTLS",
            Stage::Auth => "AUTH",
            Stage::Mail => "MAIL FROM",
            Stage::Rcpt => "RCPT TO",
            Stage::Data => "DATA",
            Stage::Content => "sending the message",
            Stage::EndOfData => "end of message",
        })
    }
}

/// Trouble with a session or message: one readable text that names host, port and
/// stage, with the server's full reply if there was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// `host:port` as the user wrote them.
    pub endpoint: String,
    /// Where it came up.
    pub stage: Stage,
    /// Whom it concerns.
    pub scope: Scope,
    /// What becomes of the messages concerned.
    pub disposition: Disposition,
    /// What happened, in words.
    pub what: String,
    /// What the server said.
    pub reply: Option<Reply>,
}

impl Trouble {
    /// Whether the server says that there are too many connections: it closes with 421,
    /// or says so.
    pub fn is_about_too_many(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| {
            let text = reply.to_string().to_lowercase();
            reply.is_closing() || text.contains("too many")
        })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {}", self.endpoint, self.stage, self.what)?;
        match &self.reply {
            Some(reply) => write!(f, ": {reply}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Trouble {}
