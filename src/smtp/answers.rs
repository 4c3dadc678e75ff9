//! What the server's replies mean for the transactions under way, and what becomes of
//! those when the line is of no more use.

use super::capabilities::Distrust;
use super::outcome::{Ending, judge};
use super::reply::Reply;
use super::source::Desk;
use super::transaction::Transaction;
use super::transfer::{Expected, Transfer, Writing};
use super::trouble::{Disposition, Stage, Trouble};
use super::wire::WireError;

impl<D: Desk> Transfer<'_, D> {
    /// Takes a reply and those that have come with it.
    pub(super) fn take_all(&mut self, reply: Reply) -> Result<(), Trouble> {
        let mut next = Some(reply);
        while let Some(reply) = next {
            self.take(reply)?;
            next = match self.session.wire.buffered_reply() {
                Ok(next) => next,
                Err(error) => return Err(self.cut(&error.into())),
            };
        }
        self.desk.flush();
        Ok(())
    }

    /// Matches a reply with what it answers.
    fn take(&mut self, reply: Reply) -> Result<(), Trouble> {
        self.is_closing |= reply.is_closing();
        let is_mid_content = matches!(self.writing, Some(Writing::Body(_)));
        let expected = match self.expected.pop_front() {
            Some(expected) => expected,
            // The server has seen enough before the content's end.
            None if is_mid_content && !reply.is_completion() => Expected::End,
            None => return Err(self.out_of_step(reply)),
        };
        if expected == Expected::End && is_mid_content && self.transactions.len() == 1 {
            // What is left of the content can't be told from commands any more.
            self.is_closing = true;
        }
        let is_intermediate =
            !reply.is_completion() && !reply.is_transient() && !reply.is_permanent();
        let Some(transaction) = self.transactions.front_mut() else {
            // Only RSET is answered outside of a transaction.
            return Ok(());
        };
        let waits_for_each = !self.session.offered.pipelining;
        match expected {
            Expected::Reset => {}
            Expected::Data if reply.code() == 354 => self.begin_data(),
            Expected::Data if reply.is_transient() || reply.is_permanent() => {
                self.end_refused(Stage::Data, &reply);
            }
            Expected::Data => return Err(self.out_of_step(reply)),
            _ if is_intermediate => return Err(self.out_of_step(reply)),
            Expected::Mail => {
                let is_refused = !reply.is_completion();
                transaction.mail = Some(reply.clone());
                if is_refused && waits_for_each {
                    self.finish(Ending::Answered(Stage::Mail, &reply));
                }
            }
            Expected::Rcpt(number) => transaction.asked[number].reply = Some(reply),
            Expected::EndFor(number) => {
                transaction.asked[number].final_reply = Some(reply.clone());
                if !matches!(self.expected.front(), Some(Expected::EndFor(_))) {
                    self.finish(Ending::Answered(Stage::EndOfData, &reply));
                }
            }
            Expected::End => self.finish(Ending::Answered(Stage::EndOfData, &reply)),
        }
        Ok(())
    }

    /// The server waits for the content: of a message nobody is to get, a lone dot.
    fn begin_data(&mut self) {
        let Some(transaction) = self.transactions.front_mut() else {
            return;
        };
        if !transaction.has_recipient() {
            self.writing = None;
            return self.end_data();
        }
        match transaction.open_body() {
            Ok(body) => self.writing = Some(Writing::Body(body)),
            Err(error) => {
                self.abort(&error);
            }
        }
    }

    /// DATA was refused, for its own reasons or since nobody was accepted.
    fn end_refused(&mut self, stage: Stage, reply: &Reply) {
        self.writing = None;
        self.reset();
        self.finish(Ending::Answered(stage, reply));
    }

    /// Without PIPELINING it is known before DATA that nobody was accepted.
    pub(super) fn end_without_content(&mut self) {
        self.writing = None;
        self.reset();
        self.finish(Ending::NobodyAccepted);
    }

    /// The oldest transaction is over.
    fn finish(&mut self, ending: Ending<'_>) {
        let Some(transaction) = self.transactions.pop_front() else {
            return;
        };
        if self.transactions.is_empty() {
            // Nothing of it is left to write, whatever the server refused.
            self.writing = None;
        }
        let ending = match (&transaction.mail, ending) {
            // What followed a refused MAIL was refused because of it.
            (Some(mail), Ending::Answered(..) | Ending::NobodyAccepted)
                if !mail.is_completion() =>
            {
                Ending::Answered(Stage::Mail, mail)
            }
            // The refusal of content for nobody says nothing new.
            (_, Ending::Answered(..)) if !transaction.has_recipient() => Ending::NobodyAccepted,
            (_, ending) => ending,
        };
        if let Some(refused) = transaction.refused_extension(&self.session.offered, &ending) {
            self.desk.distrust(refused);
            self.session.distrust(refused);
            // After a refused BDAT nobody knows what the server took for commands.
            self.is_closing |= matches!(refused, Distrust::Chunking | Distrust::Pipelining);
            return self.desk.give_back(transaction.job);
        }
        let can_log_in = !self.session.is_authenticated() && self.session.offers_auth();
        let endpoint = transaction.job.entry.server.endpoint();
        let mut verdict = judge(&endpoint, &transaction.asked, ending, can_log_in);
        verdict.has_more = verdict.accepted.is_some() && transaction.has_more();
        self.needs_auth |= verdict.needs_auth;
        self.desk.settle(transaction.job, verdict);
    }

    /// Drops a line on which the newest transaction must not be completed.
    pub(super) fn drop_line(&mut self) -> Trouble {
        // The body's open file keeps the entry locked.
        self.writing = None;
        if let Some(transaction) = self.transactions.pop_back() {
            if self.desk.is_cancelled(transaction.job.entry.id) {
                self.desk.cancelled(transaction.job);
            } else {
                let what = transaction.job.entry.error.clone().unwrap_or_default();
                let trouble = self
                    .session
                    .trouble(Stage::Content, Disposition::Retry, &what, None);
                self.settle_cut(transaction, trouble);
            }
        }
        self.session.trouble(
            Stage::Content,
            Disposition::Retry,
            "the session was given up",
            None,
        )
    }

    fn out_of_step(&mut self, reply: Reply) -> Trouble {
        let what = "the server's reply fits nothing that was sent";
        let trouble = self
            .session
            .trouble(self.stage(), Disposition::Retry, what, Some(reply));
        self.settle_all(trouble)
    }

    /// The line is of no more use: settles what it carried.
    pub(super) fn cut(&mut self, error: &WireError) -> Trouble {
        let trouble = self.session.broken(self.stage(), error);
        self.settle_all(trouble)
    }

    fn settle_all(&mut self, trouble: Trouble) -> Trouble {
        // A session that has served messages may just have been closed for being idle:
        // what it had not begun to send is not to blame, and gets a new one.
        let is_stale = self.session.messages > 0;
        self.writing = None;
        for transaction in std::mem::take(&mut self.transactions) {
            let id = transaction.job.entry.id;
            if self.desk.is_cancelled(id) && !transaction.is_last_byte_out {
                self.desk.cancelled(transaction.job);
            } else if is_stale && transaction.mail.is_none() && !transaction.is_last_byte_out {
                self.desk.give_back(transaction.job);
            } else {
                self.settle_cut(transaction, trouble.clone());
            }
        }
        trouble
    }

    fn settle_cut(&mut self, transaction: Transaction, trouble: Trouble) {
        let ending = Ending::Cut(trouble, transaction.is_last_byte_out);
        let endpoint = transaction.job.entry.server.endpoint();
        let verdict = judge(&endpoint, &transaction.asked, ending, false);
        self.desk.settle(transaction.job, verdict);
    }
}
