//! Where a session's work comes from, and where its results go.

use tokio::sync::Notify;

use super::capabilities::Distrust;
use super::outcome::Verdict;
use crate::spool::{Claim, EntryId};

/// A message to send: its claim in the spool.
pub type Job = Claim;

/// Who gives a session its work and takes the results.
pub trait Desk {
    /// The next message for this server, claimed; `ahead` more may be sent along with it
    /// before it is answered.
    fn next(&mut self, ahead: usize) -> Option<Job>;
    /// Records that the last byte is about to go out; false if it must not, because
    /// the message was cancelled or this could not be recorded.
    fn release_last_byte(&mut self, job: &mut Job) -> bool;
    /// Whether the user has taken the message back.
    fn is_cancelled(&self, id: EntryId) -> bool;
    /// Takes the verdict on a message: first to disk, then to the user.
    fn settle(&mut self, job: Job, verdict: Verdict);
    /// Writes down and tells what was settled; called when no further reply is at hand.
    fn flush(&mut self);
    /// Takes back a message that was not sent, as if never given.
    fn give_back(&mut self, job: Job);
    /// Takes a cancelled message.
    fn cancelled(&mut self, job: Job);
    /// Remembers what this server announces in vain.
    fn distrust(&mut self, what: Distrust);
    /// Hears how many octets of how many have been handed to the system.
    fn progress(&mut self, id: EntryId, sent: u64, total: u64);
    /// Notified when a message is cancelled.
    fn interrupt(&self) -> &Notify;
}
