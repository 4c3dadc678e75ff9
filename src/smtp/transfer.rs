//! Mail transactions (RFC 5321 section 3.3), as many at a time as the server's
//! extensions allow.
//!
//! Commands are written as far ahead of their replies as PIPELINING (RFC 2920) and
//! CHUNKING (RFC 3030) permit; replies come in order and are matched with what was
//! sent. Only one transaction is being written at a time, several may wait for their
//! last reply: they are the mail that becomes unconfirmed if the line is cut, so their
//! number and size are bounded.

use std::collections::VecDeque;

use lettre::transport::smtp::commands::{Data, Rset};

use super::body::Body;
use super::session::Session;
use super::source::Desk;
use super::transaction::Transaction;
use super::trouble::{Stage, Trouble};
use super::wire::Step;

/// Octets queued before the system must take some.
const BACKLOG: usize = 64 * 1024;
/// Mail sent and not yet answered on one session: the next message waits beyond.
const UNANSWERED_OCTETS: u64 = 256 * 1024;
const UNANSWERED_MESSAGES: usize = 16;
/// A larger message waits for its recipients' replies before its content goes out.
const SPECULATIVE_OCTETS: u64 = 64 * 1024;

/// Progress is told of messages that take longer.
const QUIET: std::time::Duration = std::time::Duration::from_secs(1);

/// Why [`Session::run`] returned.
pub enum End {
    /// There is nothing more to send; the session can go on.
    Idle,
    /// The server wants us to log in; the messages concerned were settled so.
    NeedsAuth,
    /// The server ended the session after answering; another one may go on.
    Closed,
}

/// A reply that is to come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Mail,
    Rcpt(usize),
    Data,
    End,
    /// LMTP: for one recipient.
    EndFor(usize),
    Reset,
}

/// What is to be written next of the newest transaction.
pub(super) enum Writing {
    Mail,
    Rcpt(usize),
    Content,
    /// Until the reply to DATA.
    Permission,
    Body(Body),
}

pub(super) struct Transfer<'a, D> {
    pub(super) session: &'a mut Session,
    pub(super) desk: &'a mut D,
    /// Oldest first; all but the newest have been written.
    pub(super) transactions: VecDeque<Transaction>,
    pub(super) writing: Option<Writing>,
    pub(super) expected: VecDeque<Expected>,
    /// The newest transaction can't be completed: the line must be dropped.
    pub(super) is_aborted: bool,
    /// No new transaction is begun.
    pub(super) is_closing: bool,
    pub(super) needs_auth: bool,
}

impl Session {
    /// Sends what `desk` has until it has no more. On an error the session is of no
    /// more use, and every message it had has been handed to the desk.
    pub async fn run<D: Desk>(&mut self, desk: &mut D) -> Result<End, Trouble> {
        let mut transfer = Transfer {
            session: self,
            desk,
            transactions: VecDeque::new(),
            writing: None,
            expected: VecDeque::new(),
            is_aborted: false,
            is_closing: false,
            needs_auth: false,
        };
        let end = transfer.run().await;
        desk.flush();
        end
    }
}

impl<D: Desk> Transfer<'_, D> {
    async fn run(&mut self) -> Result<End, Trouble> {
        loop {
            self.write_ahead();
            if self.is_aborted && self.transactions.len() <= 1 {
                return Err(self.drop_line());
            }
            if self.expected.is_empty() && self.transactions.is_empty() {
                return match (self.needs_auth, self.is_closing) {
                    (true, _) => Ok(End::NeedsAuth),
                    (false, true) => Ok(End::Closed),
                    (false, false) => Ok(End::Idle),
                };
            }
            let limit = self.session.limits.of(self.stage());
            let step = tokio::select! {
                step = self.session.wire.step(limit) => step,
                () = self.desk.interrupt().notified() => continue,
            };
            match step {
                Ok(Step::Drained) => {}
                Ok(Step::Reply(reply)) => self.take_all(reply)?,
                Err(error) => return Err(self.cut(&error)),
            }
        }
    }

    /// The stage whose reply is awaited.
    pub(super) fn stage(&self) -> Stage {
        match self.expected.front() {
            Some(Expected::Mail | Expected::Reset) => Stage::Mail,
            Some(Expected::Rcpt(_)) => Stage::Rcpt,
            Some(Expected::Data) => Stage::Data,
            Some(Expected::End | Expected::EndFor(_)) if self.is_written(0) => Stage::EndOfData,
            Some(Expected::End | Expected::EndFor(_)) | None => Stage::Content,
        }
    }

    pub(super) fn is_written(&self, transaction: usize) -> bool {
        self.writing.is_none() || transaction + 1 < self.transactions.len()
    }

    /// Queues all that may be sent before the next reply.
    fn write_ahead(&mut self) {
        while self.session.wire.backlog() < BACKLOG && !self.is_aborted {
            let may_go_on = match self.writing.take() {
                None => self.begin(),
                Some(writing) => self.write(writing),
            };
            if !may_go_on {
                break;
            }
        }
    }

    /// Begins the next transaction, if the window and the desk allow.
    pub(super) fn begin(&mut self) -> bool {
        let is_busy = !self.transactions.is_empty();
        let unanswered: u64 = self.transactions.iter().map(Transaction::size).sum();
        let is_full = is_busy
            && (!self.session.offered.pipelining
                || self.transactions.len() >= UNANSWERED_MESSAGES
                || unanswered >= UNANSWERED_OCTETS);
        if is_full || self.is_closing || self.needs_auth {
            return false;
        }
        let most = self.session.offered.mail_max.unwrap_or(usize::MAX);
        if self.session.messages + self.transactions.len() >= most {
            // RFC 9422 section 3.2: the server would refuse the next one.
            self.is_closing |= !is_busy;
            return false;
        }
        let Some(job) = self.desk.next(self.may_go_along(most)) else {
            return false;
        };
        if is_busy && self.session.offered.chunking {
            // A refused BDAT leaves the server's state open (RFC 3030 section 2).
            self.reset();
        }
        match Transaction::prepare(self.session, job) {
            Ok(transaction) => {
                self.transactions.push_back(transaction);
                self.writing = Some(Writing::Mail);
            }
            Err(refused) => {
                let (job, verdict) = *refused;
                self.desk.settle(job, verdict);
            }
        }
        true
    }

    /// How many more messages may go out after the next without waiting for a reply.
    fn may_go_along(&self, most: usize) -> usize {
        let offered = &self.session.offered;
        if !(offered.chunking && offered.pipelining) || self.session.is_lmtp {
            return 0;
        }
        let begun = self.transactions.len() + 1;
        let left = most.saturating_sub(self.session.messages + begun);
        UNANSWERED_MESSAGES.saturating_sub(begun).min(left)
    }

    /// Writes one step; false if it must wait for a reply.
    fn write(&mut self, writing: Writing) -> bool {
        let offered = &self.session.offered;
        let waits = !offered.pipelining && !self.expected.is_empty();
        let Some(transaction) = self.transactions.back_mut() else {
            return false;
        };
        if self.desk.is_cancelled(transaction.job.entry.id) {
            self.writing = Some(writing);
            self.is_aborted = true;
            return false;
        }
        match writing {
            Writing::Permission => {
                self.writing = Some(writing);
                return false;
            }
            Writing::Mail | Writing::Rcpt(_) | Writing::Content if waits => {
                self.writing = Some(writing);
                return false;
            }
            Writing::Mail => {
                let command = transaction.mail_command();
                self.session.wire.queue(&command);
                self.expected.push_back(Expected::Mail);
                self.writing = Some(Writing::Rcpt(0));
            }
            Writing::Rcpt(number) => match transaction.asked.get(number) {
                None => self.writing = Some(Writing::Content),
                Some(asked) => {
                    if asked.unaskable.is_none() {
                        let command = transaction.rcpt_command(number);
                        self.session.wire.queue(&command);
                        self.expected.push_back(Expected::Rcpt(number));
                    }
                    self.writing = Some(Writing::Rcpt(number + 1));
                }
            },
            Writing::Content => return self.begin_content(),
            Writing::Body(body) => return self.write_block(body),
        }
        true
    }

    /// DATA, or BDAT with the content at once.
    fn begin_content(&mut self) -> bool {
        let Some(transaction) = self.transactions.back_mut() else {
            return false;
        };
        let size = transaction.size();
        let is_answered = self.expected.is_empty();
        if is_answered && !transaction.has_recipient() {
            self.end_without_content();
            return true;
        }
        if !transaction.is_chunked {
            self.session.wire.queue(&Data.to_string());
            self.expected.push_back(Expected::Data);
            self.writing = Some(Writing::Permission);
            return true;
        }
        if size > SPECULATIVE_OCTETS && !is_answered {
            self.writing = Some(Writing::Content);
            return false;
        }
        match transaction.open_body() {
            Ok(body) => {
                let command = format!("BDAT {size} LAST\r\n");
                self.session.wire.queue(&command);
                self.expected.push_back(Expected::End);
                self.writing = Some(Writing::Body(body));
                true
            }
            Err(error) => self.abort(&error),
        }
    }

    fn write_block(&mut self, mut body: Body) -> bool {
        let Some(transaction) = self.transactions.back_mut() else {
            return false;
        };
        if body.is_at_last_block() {
            if !self.desk.release_last_byte(&mut transaction.job) {
                self.writing = Some(Writing::Body(body));
                self.is_aborted = true;
                return false;
            }
            transaction.is_last_byte_out = true;
            self.session.messages += 1;
        }
        match body.append_block(self.session.wire.outgoing()) {
            Ok(true) => {
                self.tell_progress(body.remaining());
                self.writing = Some(Writing::Body(body));
            }
            Ok(false) => {
                let size = transaction.size();
                self.session
                    .wire
                    .show(&format!("<{size} octets of message>"));
                if !transaction.is_chunked {
                    self.end_data();
                }
            }
            Err(error) => return self.abort(&error),
        }
        true
    }

    /// The lone dot, and who is to be answered for.
    pub(super) fn end_data(&mut self) {
        self.session.wire.queue(".\r\n");
        match self.transactions.back() {
            Some(transaction) if self.session.is_lmtp && transaction.has_recipient() => {
                let accepted = transaction.asked.iter().enumerate();
                let accepted = accepted.filter(|(_, asked)| asked.is_accepted());
                self.expected
                    .extend(accepted.map(|(number, _)| Expected::EndFor(number)));
            }
            _ => self.expected.push_back(Expected::End),
        }
    }

    /// The stored message can't be read: what was begun must not be completed.
    pub(super) fn abort(&mut self, error: &std::io::Error) -> bool {
        if let Some(transaction) = self.transactions.back_mut() {
            transaction.is_last_byte_out = false;
            transaction.job.entry.error = Some(format!("cannot read the stored message: {error}"));
        }
        self.is_aborted = true;
        false
    }

    fn tell_progress(&mut self, remaining: u64) {
        if let Some(transaction) = self.transactions.back()
            && transaction.begun.elapsed() >= QUIET
        {
            let total = transaction.size();
            let id = transaction.job.entry.id;
            self.desk.progress(id, total - remaining, total);
        }
    }

    pub(super) fn reset(&mut self) {
        self.session.wire.queue(&Rset.to_string());
        self.expected.push_back(Expected::Reset);
    }
}
