//! Mail transactions (RFC 5321 section 3.3), as many at a time as the server's
//! extensions and its record allow.
//!
//! No I/O here: replies, time and messages come in, octets and decisions go out.
//! [`super::drive`] does the rest.
//!
//! # What is sent when
//!
//! Commands are written as far ahead of their replies as PIPELINING (RFC 2920) permits.
//! Content waits for the recipients' replies: a line cut before leaves nothing that the
//! server may have. Only a flush sends content ahead, by BDAT (RFC 3030), to a server
//! that has accepted a message on this session; a window bounds what is so unanswered.
//! Nothing follows the final dot of DATA before its reply: some servers throw it away,
//! whatever they announce.
//!
//! # What becomes of a message
//!
//! Replies come in order. So when the line is cut, only that can have been accepted of
//! which the last octet has been handed to the system and no part was refused; that is
//! unconfirmed. Behind a 421 nothing was accepted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::body::Body;
use super::capabilities::Quirk;
use super::outcome::Verdict;
use super::terms::Terms;
use super::transaction::Transaction;
use super::trouble::{Stage, Trouble};

mod replies;
#[cfg(test)]
mod tests;

mod writing;

/// Mail sent and not yet answered on one session: the next message waits beyond.
const UNANSWERED_OCTETS: u64 = 256 * 1024;
/// A larger message waits for its recipients' replies before its content goes out; it is
/// claimed and marked alone.
pub const SMALL: u64 = 64 * 1024;
/// Progress is told of messages that take longer.
const QUIET: Duration = Duration::from_secs(1);

/// What became of a message that was given to a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The server, or the end of the line, has decided.
    Decided(Verdict),
    /// Nothing was decided: it is as if it had never been given.
    Untouched,
    /// It is to be tried again at once, without an extension that may be to blame.
    Again {
        /// The extension on trial.
        without: Quirk,
    },
}

/// Why a session has no more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There is nothing more to send; the session can go on.
    Idle,
    /// The server wants us to log in; the messages concerned were settled so.
    NeedsAuth,
    /// The session has come to its end, and another one may go on.
    Closed,
}

/// A part of a message of which the user, who may have cancelled it, is master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// More of it, and not the last.
    Next,
    /// The last: from here on it can't be cancelled.
    Last,
}

/// Asked before a part of a message goes out.
pub(super) type Permission<'a, J> = &'a mut dyn FnMut(&J, Part) -> bool;

/// What the pipeline needs from outside before it can go on.
#[derive(Debug)]
pub(super) enum Want {
    /// At most so many messages; or to hear, with none, that there are no more.
    Messages(usize),
    /// The messages in [`Pipeline::unmarked`] marked: their last octets go out next.
    Mark,
    /// A reply, or room for more octets, until this time.
    Reply(Instant),
    /// Nothing any more.
    Over(Result<End, Trouble>),
}

/// A reply that is to come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Mail,
    Rcpt(usize),
    Data,
    End,
    /// LMTP: for one recipient.
    EndFor(usize),
    Reset,
}

/// What is to be written next of the newest message on the line.
enum Writing {
    Mail,
    Rcpt(usize),
    Content,
    /// Until the reply to DATA.
    Permission,
    Body(Body),
    /// The end of content that nobody is to get.
    Dot,
}

/// A message in the pipeline.
struct Message<J> {
    job: J,
    transaction: Transaction,
    begun: Instant,
    is_marked: bool,
    /// How many octets the line had taken with its last one.
    end: Option<u64>,
}

/// Why the newest message on the line must not be completed.
enum Abort {
    Cancelled,
    Failed(String),
}

/// One session's transactions. `J` is what a message is known by outside.
pub(super) struct Pipeline<J> {
    terms: Terms,
    /// Given and not begun.
    ready: VecDeque<Message<J>>,
    /// Begun, oldest first; all but the newest have been written.
    line: VecDeque<Message<J>>,
    writing: Option<Writing>,
    expected: VecDeque<Expected>,
    /// When the present stage began, or content last made progress.
    since: Instant,
    /// Octets handed to the system.
    handed: u64,
    ended: Vec<(J, Ended)>,
    learnt: Vec<Quirk>,
    /// The newest message's last octet waits for its mark.
    needs_mark: bool,
    /// Nobody has had more messages since something last happened.
    is_dry: bool,
    /// The line must be dropped as soon as the older messages are answered.
    abort: Option<Abort>,
    /// No new transaction is begun.
    is_closing: bool,
    needs_auth: bool,
    over: Option<Result<End, Trouble>>,
}

impl<J> Pipeline<J> {
    pub fn new(terms: Terms, now: Instant) -> Self {
        Pipeline {
            terms,
            ready: VecDeque::new(),
            line: VecDeque::new(),
            writing: None,
            expected: VecDeque::new(),
            since: now,
            handed: 0,
            ended: Vec::new(),
            learnt: Vec::new(),
            needs_mark: false,
            is_dry: false,
            abort: None,
            is_closing: false,
            needs_auth: false,
            over: None,
        }
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What is needed next; asked when all has been written that can be.
    pub fn wants(&mut self) -> Want {
        if self.abort.is_some() && self.line.len() <= 1 {
            self.drop_line();
        }
        if let Some(end) = &self.over {
            return Want::Over(end.clone());
        }
        if self.needs_mark {
            return Want::Mark;
        }
        let free = self.free();
        let may_begin = self.writing.is_none() && self.ready.is_empty() && !self.is_dry;
        // As soon as there is room: a server that has said something may wait for our next
        // octets, and with them the acknowledgement, before it says more. Those that come
        // together, for the server is fast or the disk is slow, go together.
        if may_begin && free > 0 {
            return Want::Messages(free);
        }
        let is_done = self.ready.is_empty() || free == 0;
        if self.line.is_empty() && self.expected.is_empty() && is_done {
            return Want::Over(Ok(match (self.needs_auth, free) {
                (true, _) => End::NeedsAuth,
                (false, 0) => End::Closed,
                (false, _) => End::Idle,
            }));
        }
        Want::Reply(self.since + self.terms.limits.of(self.stage()))
    }

    /// There are no more messages at present.
    pub fn is_dry(&mut self) {
        self.is_dry = true;
    }

    /// Takes a message to send.
    pub fn add(&mut self, job: J, transaction: Transaction, now: Instant) {
        self.ready.push_back(Message {
            job,
            transaction,
            begun: now,
            is_marked: false,
            end: None,
        });
    }

    /// Takes a message that was decided about before it was begun.
    pub fn add_ended(&mut self, job: J, ended: Ended) {
        self.ended.push((job, ended));
    }

    /// Hears how many octets have been handed to the system by now.
    pub fn handed(&mut self, octets: u64, now: Instant) {
        if octets == self.handed {
            return;
        }
        if self.stage() == Stage::Content {
            self.since = now;
        }
        self.handed = octets;
        self.is_dry = false;
    }

    /// The messages whose last octets go out next: the newest on the line, and the small
    /// ones with it.
    pub fn unmarked(&self) -> Vec<&J> {
        let last = self.line.len().saturating_sub(1);
        let is_next = |(number, message): &(usize, &Message<J>)| {
            !message.is_marked && (*number == last || message.transaction.size() <= SMALL)
        };
        let all = self.line.iter().chain(&self.ready).enumerate();
        all.filter(is_next)
            .map(|(_, message)| &message.job)
            .collect()
    }

    /// Hears whether those were marked.
    pub fn marked(&mut self, result: Result<(), String>) {
        self.needs_mark = false;
        match result {
            Ok(()) => {
                let last = self.line.len().saturating_sub(1);
                let all = self.line.iter_mut().chain(&mut self.ready).enumerate();
                for (number, message) in all {
                    message.is_marked |= number == last || message.transaction.size() <= SMALL;
                }
            }
            Err(what) => self.abort = Some(Abort::Failed(what)),
        }
    }

    /// What has been decided since it was last asked.
    pub fn take_ended(&mut self) -> Vec<(J, Ended)> {
        std::mem::take(&mut self.ended)
    }

    /// The extensions that have turned out to be refused although announced.
    pub fn take_learnt(&mut self) -> Vec<Quirk> {
        std::mem::take(&mut self.learnt)
    }

    /// How many octets of how many have been written of a message that takes long.
    pub fn progress(&self, now: Instant) -> Option<(&J, u64, u64)> {
        let newest = self.line.back()?;
        let Some(Writing::Body(body)) = &self.writing else {
            return None;
        };
        let total = newest.transaction.size();
        let is_long = now.saturating_duration_since(newest.begun) >= QUIET;
        is_long.then(|| (&newest.job, total - body.remaining(), total))
    }

    /// Ends the pipeline: what was not begun was not touched.
    pub fn close(mut self) -> (Terms, Vec<(J, Ended)>) {
        let unbegun = self.line.into_iter().chain(self.ready);
        let unbegun = unbegun.map(|message| (message.job, Ended::Untouched));
        self.ended.extend(unbegun);
        (self.terms, self.ended)
    }

    /// The stage whose reply is awaited.
    pub fn stage(&self) -> Stage {
        match self.expected.front() {
            Some(Expected::Mail | Expected::Reset) => Stage::Mail,
            Some(Expected::Rcpt(_)) => Stage::Rcpt,
            Some(Expected::Data) => Stage::Data,
            Some(Expected::End | Expected::EndFor(_)) if self.is_out(0) => Stage::EndOfData,
            Some(Expected::End | Expected::EndFor(_)) | None => Stage::Content,
        }
    }

    /// Whether the last octet of a message on the line has been handed to the system.
    fn is_out(&self, number: usize) -> bool {
        let end = self.line.get(number).and_then(|message| message.end);
        end.is_some_and(|end| end <= self.handed)
    }

    /// How many messages may be on the line: the more the server has accepted.
    fn window(&self) -> usize {
        let terms = &self.terms;
        let can_send_ahead = terms.offered.pipelining && terms.offered.chunking && !terms.is_lmtp;
        match terms.accepted {
            1 if can_send_ahead => 4,
            2.. if can_send_ahead => 16,
            _ => 1,
        }
    }

    /// How many more may be begun now.
    fn free(&self) -> usize {
        if self.is_closing || self.needs_auth || self.abort.is_some() {
            return 0;
        }
        let octets: u64 = self.line.iter().map(|one| one.transaction.size()).sum();
        let mut on_line = self.line.iter();
        // What is on trial is on trial alone.
        let is_trial = on_line.any(|one| one.transaction.without.is_some());
        if !self.line.is_empty() && (octets >= UNANSWERED_OCTETS || is_trial) {
            return 0;
        }
        // RFC 9422 section 3.2: the server would refuse the next one.
        let most = self.terms.offered.mail_max.unwrap_or(usize::MAX);
        let left = most.saturating_sub(self.terms.begun);
        self.window().saturating_sub(self.line.len()).min(left)
    }
}
