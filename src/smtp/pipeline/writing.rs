//! What is written of the messages on the line, as far ahead as may be.

use std::time::Instant;

use lettre::transport::smtp::commands::{Data, Rset};

use super::{Abort, Ended, Expected, Part, Permission, Pipeline, SMALL, Writing};
use crate::smtp::body::Body;
use crate::smtp::outcome::Ending;
use crate::smtp::terms::Outgoing;

/// Octets queued before the system must take some.
const BACKLOG: usize = 64 * 1024;

impl<J> Pipeline<J> {
    /// Queues all that may be sent before the next reply.
    pub fn write(&mut self, out: &mut impl Outgoing, permits: Permission<'_, J>, now: Instant) {
        if self.expected.is_empty() && !matches!(self.writing, Some(Writing::Body(_))) {
            self.since = now;
        }
        // What the user has stopped is handed back at once, though its turn be far.
        for next in std::mem::take(&mut self.ready) {
            match permits(&next.job, Part::Next) {
                true => self.ready.push_back(next),
                false => self.ended.push((next.job, Ended::Untouched)),
            }
        }
        if let (Some(_), Some(newest)) = (&self.writing, self.line.back())
            && !permits(&newest.job, Part::Next)
        {
            self.abort = Some(Abort::Cancelled);
        }
        while out.backlog() < BACKLOG
            && self.abort.is_none()
            && self.over.is_none()
            && !self.needs_mark
        {
            let may_go_on = match self.writing.take() {
                None => self.begin(out, now),
                Some(writing) => self.write_part(writing, out, permits),
            };
            if !may_go_on {
                break;
            }
        }
    }

    /// Begins the next transaction, if the window allows.
    fn begin(&mut self, out: &mut impl Outgoing, now: Instant) -> bool {
        let is_busy = !self.line.is_empty();
        let next = self.ready.front();
        let is_trial = next.is_some_and(|next| next.transaction.without.is_some());
        if self.free() == 0 || (is_busy && is_trial) {
            return false;
        }
        let Some(mut next) = self.ready.pop_front() else {
            return false;
        };
        // Should a BDAT before it be refused, the server's state is open.
        if std::mem::take(&mut self.terms.needs_reset) || is_busy {
            out.command(&Rset.to_string());
            self.expected.push_back(Expected::Reset);
        }
        next.begun = now;
        self.terms.begun += 1;
        self.line.push_back(next);
        self.writing = Some(Writing::Mail);
        true
    }

    /// Writes one step; false if it must wait.
    fn write_part(
        &mut self,
        writing: Writing,
        out: &mut impl Outgoing,
        permits: Permission<'_, J>,
    ) -> bool {
        let is_answered = self.expected.is_empty();
        let Some(newest) = self.line.back_mut() else {
            return false;
        };
        let transaction = &newest.transaction;
        let waits = !transaction.is_pipelined && !is_answered;
        match writing {
            Writing::Mail | Writing::Rcpt(_) | Writing::Content if waits => {}
            Writing::Mail => {
                out.command(&transaction.mail_command());
                self.expected.push_back(Expected::Mail);
                self.writing = Some(Writing::Rcpt(0));
                return true;
            }
            Writing::Rcpt(number) => {
                match transaction.asked.get(number) {
                    None => self.writing = Some(Writing::Content),
                    Some(asked) => {
                        if asked.unaskable.is_none() {
                            out.command(&transaction.rcpt_command(number));
                            self.expected.push_back(Expected::Rcpt(number));
                        }
                        self.writing = Some(Writing::Rcpt(number + 1));
                    }
                }
                return true;
            }
            Writing::Content => return self.begin_content(out),
            Writing::Permission => {}
            Writing::Dot => {
                self.end_data(out);
                return true;
            }
            Writing::Body(body) => return self.write_block(body, out, permits),
        }
        self.writing = Some(writing);
        false
    }

    /// DATA, or BDAT with the content at once.
    fn begin_content(&mut self, out: &mut impl Outgoing) -> bool {
        let is_answered = self.expected.is_empty();
        let is_flush = self.line.len() > 1 || !self.ready.is_empty();
        let is_proven = self.terms.accepted > 0;
        let Some(newest) = self.line.back_mut() else {
            return false;
        };
        let transaction = &mut newest.transaction;
        let size = transaction.size();
        if is_answered && !transaction.has_recipient() {
            self.terms.needs_reset = true;
            self.finish(Ending::NobodyAccepted);
            return true;
        }
        if !transaction.is_chunked {
            out.command(&Data.to_string());
            self.expected.push_back(Expected::Data);
            self.writing = Some(Writing::Permission);
            return true;
        }
        self.writing = Some(Writing::Content);
        let may_go_ahead = is_flush && is_proven && size <= SMALL;
        if !is_answered && !may_go_ahead {
            return false;
        }
        if Body::is_one_block(size) && !newest.is_marked {
            // Before its command, so that the two go out in one piece.
            self.needs_mark = true;
        } else {
            out.command(&format!("BDAT {size} LAST\r\n"));
            self.expected.push_back(Expected::End);
            self.writing = Some(Writing::Body(transaction.body()));
        }
        true
    }

    fn write_block(
        &mut self,
        mut body: Body,
        out: &mut impl Outgoing,
        permits: Permission<'_, J>,
    ) -> bool {
        let Some(newest) = self.line.back_mut() else {
            return false;
        };
        let is_last = body.is_at_last_block();
        if is_last && !newest.is_marked {
            self.needs_mark = true;
            self.writing = Some(Writing::Body(body));
            return false;
        }
        if is_last && !permits(&newest.job, Part::Last) {
            self.abort = Some(Abort::Cancelled);
            return false;
        }
        if let Err(error) = body.append_block(out.content()) {
            let what = format!("cannot read the stored message: {error}");
            self.abort = Some(Abort::Failed(what));
            return false;
        }
        if !is_last {
            self.writing = Some(Writing::Body(body));
            return true;
        }
        let size = newest.transaction.size();
        out.show(&format!("<{size} octets of message>"));
        if newest.transaction.is_chunked {
            newest.end = Some(out.taken());
        } else {
            self.end_data(out);
        }
        true
    }

    /// The lone dot, and who is to be answered for.
    fn end_data(&mut self, out: &mut impl Outgoing) {
        out.command(".\r\n");
        let Some(newest) = self.line.back_mut() else {
            return;
        };
        newest.end = Some(out.taken());
        if self.terms.is_lmtp && newest.transaction.has_recipient() {
            let asked = newest.transaction.asked.iter().enumerate();
            let accepted = asked.filter(|(_, asked)| asked.is_accepted());
            self.expected
                .extend(accepted.map(|(number, _)| Expected::EndFor(number)));
        } else {
            self.expected.push_back(Expected::End);
        }
    }
}
