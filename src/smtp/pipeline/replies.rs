//! What the server's replies mean for the messages on the line, and what becomes of
//! those when the line is of no more use.

use std::time::Instant;

use super::{Abort, End, Ended, Expected, Message, Pipeline, Writing};
use crate::smtp::capabilities::Quirk;
use crate::smtp::outcome::Ending;
use crate::smtp::reply::Reply;
use crate::smtp::trouble::{Disposition, Scope, Stage, Trouble};
use std::collections::VecDeque;

impl<J> Pipeline<J> {
    /// Matches a reply with what it answers.
    pub fn reply(&mut self, reply: Reply, now: Instant) {
        if self.over.is_some() {
            return;
        }
        self.since = now;
        self.is_dry = false;
        if reply.is_closing() {
            return self.leave(&reply);
        }
        let is_mid_content = matches!(self.writing, Some(Writing::Body(_))) && self.line.len() == 1;
        let is_refusal = reply.is_transient() || reply.is_permanent();
        let expected = match self.expected.pop_front() {
            // The server has seen enough before the content's end; what is left of that
            // can't be told from commands any more.
            None | Some(Expected::End) if is_mid_content && is_refusal => {
                self.is_closing = true;
                Expected::End
            }
            Some(expected) if !(is_mid_content && expected == Expected::End) => expected,
            _ => return self.out_of_step(reply),
        };
        let is_answer = is_refusal
            || match expected {
                Expected::Data => reply.code() == 354,
                _ => reply.is_completion(),
            };
        if !is_answer {
            return self.out_of_step(reply);
        }
        if expected == Expected::Reset {
            return;
        }
        let Some(oldest) = self.line.front_mut() else {
            return self.out_of_step(reply);
        };
        let transaction = &mut oldest.transaction;
        match expected {
            Expected::Reset => {}
            Expected::Mail => {
                transaction.mail = Some(reply.clone());
                if is_refusal && !transaction.is_pipelined {
                    self.finish(Ending::Answered(Stage::Mail, &reply));
                }
            }
            Expected::Rcpt(number) => transaction.asked[number].reply = Some(reply),
            Expected::Data if is_refusal => {
                self.terms.needs_reset = true;
                self.finish(Ending::Answered(Stage::Data, &reply));
            }
            // Of a message that nobody is to get, a lone dot is enough.
            Expected::Data => {
                let content = transaction.has_recipient().then(|| transaction.body());
                self.writing = Some(content.map_or(Writing::Dot, Writing::Body));
            }
            Expected::EndFor(number) => {
                transaction.asked[number].final_reply = Some(reply.clone());
                if !matches!(self.expected.front(), Some(Expected::EndFor(_))) {
                    self.finish(Ending::Answered(Stage::EndOfData, &reply));
                }
            }
            Expected::End => {
                self.terms.needs_reset |= is_refusal && transaction.is_chunked;
                self.finish(Ending::Answered(Stage::EndOfData, &reply));
            }
        }
    }

    /// The server ends the session (RFC 5321 section 3.8): what it answers so is put off,
    /// and what stands behind was not accepted.
    fn leave(&mut self, reply: &Reply) {
        let stage = self.stage();
        let is_about_message = !matches!(self.expected.front(), Some(Expected::Reset));
        // Many servers take so many messages on a session and no more.
        let is_used_up = stage == Stage::Mail && self.has_served();
        if self.line.is_empty() || is_used_up || !is_about_message {
            self.over = Some(Ok(End::Closed));
        } else {
            self.finish(Ending::Answered(stage, reply));
            self.over = Some(Err(Trouble {
                endpoint: self.terms.endpoint.clone(),
                stage,
                disposition: Disposition::Retry,
                scope: Scope::Site,
                what: "the server ended the session".to_owned(),
                reply: Some(reply.clone()),
            }));
        }
        self.give_back();
    }

    /// Whether a transaction has ended on this session.
    fn has_served(&self) -> bool {
        self.terms.begun > self.line.len()
    }

    /// The line is of no more use for this reason.
    pub fn cut(&mut self, mut trouble: Trouble) {
        if self.over.is_some() {
            return;
        }
        if self.line.is_empty() {
            // Nothing was under way that it could be held against.
            self.over = Some(Ok(End::Closed));
            return self.give_back();
        }
        if trouble.disposition == Disposition::Retry {
            trouble.scope = Scope::Message;
        }
        // A session that has served messages may just have been closed for being idle:
        // what it had not begun to answer is not to blame, and gets a new one.
        let is_unanswered = |message: &Message<J>| message.transaction.mail.is_none();
        let is_stale = self.has_served() && self.line.front().is_some_and(is_unanswered);
        let mut is_oldest = true;
        let mut untouched = VecDeque::new();
        while !self.line.is_empty() {
            let is_to_blame = std::mem::take(&mut is_oldest) && !is_stale;
            if self.is_out(0) || is_to_blame {
                self.finish(Ending::Cut(trouble.clone(), self.is_out(0)));
            } else {
                untouched.extend(self.line.pop_front());
            }
        }
        self.line = untouched;
        self.over = Some(Err(trouble));
        self.give_back();
    }

    /// What was not answered was not touched.
    fn give_back(&mut self) {
        self.writing = None;
        self.expected.clear();
        let untouched = self.line.drain(..).chain(self.ready.drain(..));
        let untouched = untouched.map(|message| (message.job, Ended::Untouched));
        self.ended.extend(untouched);
    }

    fn out_of_step(&mut self, reply: Reply) {
        let trouble = Trouble {
            endpoint: self.terms.endpoint.clone(),
            stage: self.stage(),
            disposition: Disposition::Retry,
            scope: Scope::Site,
            what: "the server's reply fits nothing that was sent".to_owned(),
            reply: Some(reply),
        };
        self.cut(trouble);
    }

    /// Drops a line on which the newest message must not be completed.
    pub(super) fn drop_line(&mut self) {
        if let (Some(Abort::Failed(what)), false) = (self.abort.take(), self.line.is_empty()) {
            let trouble = Trouble {
                endpoint: self.terms.endpoint.clone(),
                stage: Stage::Content,
                disposition: Disposition::Retry,
                scope: Scope::Message,
                what,
                reply: None,
            };
            self.finish(Ending::Cut(trouble, false));
        }
        self.over = Some(Ok(End::Closed));
        self.give_back();
    }

    /// The oldest message on the line is over.
    pub(super) fn finish(&mut self, ending: Ending<'_>) {
        let Some(Message {
            job, transaction, ..
        }) = self.line.pop_front()
        else {
            return;
        };
        if self.line.is_empty() {
            // Nothing of it is left to write, whatever the server refused.
            self.writing = None;
        }
        let ending = transaction.last_word(ending);
        if let Some(quirk) = transaction.learnt(&ending) {
            self.learnt.push(quirk);
            self.terms.offered = self.terms.offered.without(quirk);
            // What was prepared otherwise is prepared anew.
            let untouched = self.ready.drain(..);
            self.ended
                .extend(untouched.map(|message| (message.job, Ended::Untouched)));
        }
        if let Some(without) = transaction.suspicion(&ending) {
            // After a refused BDAT nobody knows what the server took for commands.
            self.is_closing |= matches!(without, Quirk::Chunking | Quirk::Pipelining);
            return self.ended.push((job, Ended::Again { without }));
        }
        let verdict = transaction.judge(&self.terms, ending);
        self.terms.accepted += usize::from(verdict.accepted.is_some());
        self.needs_auth |= verdict.needs_auth;
        self.ended.push((job, Ended::Decided(verdict)));
    }
}
