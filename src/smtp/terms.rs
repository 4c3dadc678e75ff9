//! What the mail transactions of a session rest on: what the server takes, how long it may
//! take, and where octets go.

use std::time::Duration;

use super::capabilities::Capabilities;
use super::trouble::Stage;

/// Where the pipeline's octets go.
pub(super) trait Outgoing {
    /// Takes a command, with its line end.
    fn command(&mut self, command: &str);
    /// Content is appended here.
    fn content(&mut self) -> &mut Vec<u8>;
    /// Shows something that is not sent.
    fn show(&self, line: &str);
    /// Octets taken so far.
    fn taken(&self) -> u64;
    /// Those of them that are still to be handed to the system.
    fn backlog(&self) -> usize;
}

/// What a pipeline knows of its session.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// The server, as the user wrote it.
    pub endpoint: String,
    /// What the server takes.
    pub offered: Capabilities,
    pub limits: Limits,
    pub is_lmtp: bool,
    pub is_encrypted: bool,
    /// Whether "authenticate first" can be obeyed.
    pub can_log_in: bool,
    /// Transactions begun on the session.
    pub begun: usize,
    /// Messages accepted on the session.
    pub accepted: usize,
    /// Whether the server may still be in a transaction that is over for us.
    pub needs_reset: bool,
}

/// How long each stage may take: RFC 5321 section 4.5.3.2, or less if the user says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) reply: Duration,
}

impl Limits {
    pub(super) fn of(self, stage: Stage) -> Duration {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        match stage {
            Stage::Data => self.reply.min(minutes(2)),
            Stage::Content => self.reply.min(minutes(3)),
            // A server may scan the whole message before it answers, and a reply missed
            // here leaves an unconfirmed message: twice what other stages get.
            Stage::EndOfData => (self.reply * 2).min(minutes(10)),
            _ => self.reply.min(minutes(5)),
        }
    }
}
