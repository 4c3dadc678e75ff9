//! The messages for one server that are due, and the sessions that serve them.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::bridge::Kind;
use crate::credentials::Unavailable;
use crate::engine::Unconfirmed;
use crate::mail::{Server, Timestamp};
use crate::shared::{Report, Shared};
use crate::smtp::{Disposition, Job, Reply, Stage, Trouble};
use crate::spool::{Claim, Entry, EntryId, Need, RecipientState, SpoolError};

/// With so many messages waiting a second session is worth its handshakes.
const MANY_WAITING: usize = 8;
/// Behind so many octets a message had better take another session.
const LARGE_IN_FLIGHT: u64 = 1024 * 1024;

/// And behind one that takes so long.
const LONG_IN_FLIGHT: Duration = Duration::from_secs(3);

/// One server's queue in this process.
pub struct Lane {
    /// Whom it is for.
    pub server: Server,
    shared: Rc<Shared>,
    queue: RefCell<VecDeque<EntryId>>,
    /// What is in `queue`.
    queued: RefCell<HashSet<EntryId>>,
    /// Claimed by sessions of this lane: their octets, and since when.
    in_flight: RefCell<HashMap<EntryId, (u64, Instant)>>,
    /// Sessions at work, or waiting for work.
    pub workers: Cell<usize>,
    /// Whether a session with the server has come about since there are any.
    pub is_up: Cell<bool>,
    /// A message came for sessions that wait.
    pub arrived: Notify,
    pub(crate) interrupts: RefCell<HashMap<usize, Rc<Notify>>>,
}

impl Lane {
    /// An empty lane.
    pub fn new(server: Server, shared: Rc<Shared>) -> Self {
        Lane {
            server,
            shared,
            queue: RefCell::default(),
            queued: RefCell::default(),
            in_flight: RefCell::default(),
            workers: Cell::new(0),
            is_up: Cell::new(false),
            arrived: Notify::new(),
            interrupts: RefCell::default(),
        }
    }

    /// What all lanes share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Adds a message that is due, once.
    pub fn push(&self, id: EntryId) {
        if !self.in_flight.borrow().contains_key(&id) && self.queued.borrow_mut().insert(id) {
            self.queue.borrow_mut().push_back(id);
        }
        self.arrived.notify_one();
    }

    /// Puts a message back that is to go before the others.
    pub(crate) fn push_front(&self, id: EntryId) {
        if self.queued.borrow_mut().insert(id) {
            self.queue.borrow_mut().push_front(id);
        }
    }

    fn pop(&self) -> Option<EntryId> {
        let id = self.queue.borrow_mut().pop_front()?;
        self.queued.borrow_mut().remove(&id);
        Some(id)
    }

    /// Forgets what waits here; it is in the spool.
    pub(crate) fn clear(&self) {
        self.queue.borrow_mut().clear();
        self.queued.borrow_mut().clear();
    }

    /// Whether one more session would serve those that wait sooner: there are many, or
    /// a large one is before them. Not before the server has been seen to be up.
    pub fn is_crowded(&self) -> bool {
        let in_flight = self.in_flight.borrow();
        let octets: u64 = in_flight.values().map(|(octets, _)| octets).sum();
        let is_slow = self.waiting() >= MANY_WAITING
            || octets >= LARGE_IN_FLIGHT
            || in_flight
                .values()
                .any(|(_, since)| since.elapsed() >= LONG_IN_FLIGHT);
        let is_single = self.shared.manners(&self.server).is_single;
        self.is_up.get() && self.waiting() > 0 && is_slow && !is_single
    }

    /// How many messages wait for a session.
    pub fn waiting(&self) -> usize {
        self.queue.borrow().len()
    }

    /// Wakes the sessions, for one of their messages was cancelled.
    pub fn interrupt(&self) {
        for interrupt in self.interrupts.borrow().values() {
            interrupt.notify_one();
        }
    }

    /// What a session that panicked had claimed.
    pub fn take_orphans(&self) -> Vec<EntryId> {
        let orphans: Vec<EntryId> = self
            .in_flight
            .borrow_mut()
            .drain()
            .map(|(id, _)| id)
            .collect();
        for id in &orphans {
            self.shared.flights.end(*id);
        }
        orphans
    }

    /// Puts off every message that waits here for the same reason.
    pub fn fail_all(&self, trouble: &Trouble) {
        let mut put_off = Vec::new();
        while let Some(job) = self.claim_next() {
            put_off.push(job.entry.id);
            self.put_off(job, trouble);
        }
        if trouble.disposition == Disposition::Retry {
            self.tell_dispatcher(Report::Down(self.server.clone(), put_off));
        }
    }

    /// Shows those that wait here as waiting for the user, or (without trouble) no longer.
    pub(crate) fn mark_waiting(&self, trouble: Option<(&Trouble, Need)>) {
        let ids: Vec<EntryId> = self.queue.borrow().iter().copied().collect();
        for id in ids {
            // What is gone, or another process's, need not be marked.
            let Ok(Some(mut claim)) = self.shared.spool.claim(id) else {
                continue;
            };
            let need = trouble.map(|(_, need)| need);
            if claim.entry.need != need {
                claim.entry.need = need;
                claim.entry.error = trouble.map(|(trouble, _)| trouble.to_string());
                if let Err(error) = self.shared.spool.update(&claim) {
                    self.shared.tell_spool_trouble(&error);
                }
            }
        }
    }

    /// Claims the next message that can be sent; passes over those that can't.
    pub(crate) fn claim_next(&self) -> Option<Job> {
        loop {
            let id = self.pop()?;
            match self.shared.spool.claim(id) {
                // Another time was set meanwhile, or the message is elsewhere.
                Ok(Some(claim)) if claim.entry.wanted_at() > Timestamp::now() => {
                    self.report(id, claim.entry.due());
                }
                Ok(Some(claim)) if self.shared.spool.waits_for_origin(&claim.entry) => {}
                Ok(Some(claim)) if claim.entry.is_ready() => {
                    self.shared.flights.begin(id);
                    let size = claim.entry.facts.size;
                    let claimed = (size, Instant::now());
                    self.in_flight.borrow_mut().insert(id, claimed);
                    return Some(claim);
                }
                Ok(Some(claim)) if claim.entry.any(RecipientState::Unconfirmed) => {
                    self.ask_about_unconfirmed(claim);
                }
                // Held or refused meanwhile, or settled.
                Ok(Some(_)) | Err(SpoolError::NoSuchEntry(_)) => {}
                // Another process sends it. Should that one be killed, it comes up again.
                Ok(None) => self.report_due(id, 30),
                Err(error) => {
                    self.shared.tell_spool_trouble(&error);
                    self.report_due(id, 60);
                }
            }
        }
    }

    /// An entry found unconfirmed when it was claimed.
    fn ask_about_unconfirmed(&self, mut claim: Claim) {
        let id = claim.entry.id;
        if self.shared.settings.borrow().unconfirmed == Unconfirmed::Retry && !claim.entry.hold {
            claim
                .entry
                .turn(&[RecipientState::Unconfirmed], RecipientState::Pending);
            match self.shared.spool.update(&claim) {
                Ok(()) => self.push(id),
                Err(error) => self.shared.tell_spool_trouble(&error),
            }
            return;
        }
        let error = claim.entry.error.clone();
        self.shared
            .tell(Kind::Unconfirmed, claim.entry, error, None);
    }

    fn report_due(&self, id: EntryId, seconds: u64) {
        let due = Timestamp::now().after(Duration::from_secs(seconds));
        self.report(id, due);
    }

    fn report(&self, id: EntryId, due: Timestamp) {
        self.tell_dispatcher(Report::Due(id, due));
    }

    fn tell_dispatcher(&self, report: Report) {
        // A dispatcher that is gone has left everything in the spool.
        let _ = self.shared.reports.send(report);
    }

    /// Lets go of a message. Returns whether the user cancelled it meanwhile.
    pub(crate) fn land(&self, id: EntryId) -> Option<bool> {
        self.in_flight.borrow_mut().remove(&id);
        self.shared.flights.end(id)
    }

    /// Records trouble that came before any recipient was asked.
    fn put_off(&self, job: Job, trouble: &Trouble) {
        if self.shared.flights.is_cancelled(job.entry.id) {
            return self.settle_cancelled(job);
        }
        let mut job = job;
        job.entry.attempts += 1;
        self.store_trouble(job, trouble);
    }

    /// Writes a message that stays in the spool, then tells the user.
    pub(crate) fn store_trouble(&self, mut job: Job, trouble: &Trouble) {
        let now = Timestamp::now();
        let id = job.entry.id;
        job.entry.error = Some(trouble.to_string());
        job.entry.need = None;
        let kind = if job.entry.any(RecipientState::Unconfirmed) {
            Kind::Unconfirmed
        } else if !job.entry.any(RecipientState::Pending) {
            Kind::Failed
        } else if let Disposition::NeedsUser(need) = trouble.disposition {
            job.entry.need = Some(need);
            Kind::NeedsUser(need)
        } else {
            self.defer(&mut job.entry, now)
        };
        let due = job.entry.next_try;
        match self.shared.spool.update(&job) {
            // The mark is that of the try before.
            Ok(()) => self.shared.spool.unmark(&Entry {
                attempts: job.entry.attempts - 1,
                ..job.entry.clone()
            }),
            Err(error) => self.shared.tell_spool_trouble(&error),
        }
        let entry = job.entry.clone();
        drop(job); // unlocked before anybody hears of it
        self.land(id);
        if kind == Kind::Deferred {
            self.report(id, due);
        }
        let error = entry.error.clone();
        self.shared.tell(kind, entry, error, None);
    }

    /// An accepted message could not be taken out of the spool: at least it must not
    /// look unsent there. [`crate::spool::Spool::list`] removes it later.
    pub(crate) fn record_delivery(&self, entry: &Entry) {
        if let Ok(Some(mut claim)) = self.shared.spool.claim(entry.id) {
            claim.entry.recipients.clone_from(&entry.recipients);
            claim.entry.error = None;
            let _ = self.shared.spool.update(&claim);
        }
    }

    /// Keeps an accepted message until Lisp has filed its copy.
    pub(crate) fn keep_for_filing(&self, mut job: Job, reply: Option<&Reply>) {
        let marked = job.entry.clone();
        job.entry.attempts += 1;
        job.entry.error = None;
        match self.shared.spool.update(&job) {
            Ok(()) => self.shared.spool.unmark(&marked),
            Err(error) => self.shared.tell_spool_trouble(&error),
        }
        let entry = job.entry.clone();
        self.land(entry.id);
        self.shared.copies.hold(job);
        self.shared.tell(Kind::Sent, entry, None, reply);
    }

    /// Sets the time of the next try, or gives up.
    fn defer(&self, entry: &mut Entry, now: Timestamp) -> Kind {
        let patience = self.shared.settings.borrow().patience;
        let begun = entry.created.max(entry.wanted_at());
        match patience.next_try(entry.id, begun, entry.attempts, now) {
            Some(next_try) => {
                entry.next_try = next_try;
                Kind::Deferred
            }
            None => {
                entry.turn(&[RecipientState::Pending], RecipientState::Failed);
                let last = entry.error.take().unwrap_or_default();
                entry.error = Some(format!(
                    "gave up after {}; the last trouble: {last}",
                    duration_text(patience.give_up_after)
                ));
                Kind::Failed
            }
        }
    }

    /// Takes a message out of the spool, or holds it, as the user asked.
    pub(crate) fn settle_cancelled(&self, mut job: Job) {
        let id = job.entry.id;
        let remove = self.land(id).unwrap_or(false);
        let mut entry = job.entry.clone();
        let result = if remove {
            self.shared.spool.settle(job)
        } else {
            self.shared.spool.unmark(&job.entry);
            job.entry.hold = true;
            entry = job.entry.clone();
            let result = self.shared.spool.update(&job);
            drop(job); // unlocked before anybody hears of it
            result
        };
        match result {
            Ok(()) => {
                let kind = if remove {
                    Kind::Removed
                } else {
                    Kind::Cancelled
                };
                self.shared.tell(kind, entry, None, None);
            }
            Err(error) => self.shared.tell_spool_trouble(&error),
        }
    }
}

/// A duration in the largest unit that tells it.
fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (number, unit) = match seconds {
        172_800.. => (seconds / 86_400, "days"),
        7_200.. => (seconds / 3_600, "hours"),
        120.. => (seconds / 60, "minutes"),
        _ => (seconds, "seconds"),
    };
    format!("{number} {unit}")
}

/// The trouble of a message whose last try went well, but not an earlier one.
pub(crate) fn earlier_refusals(entry: &Entry) -> Trouble {
    let refused: Vec<String> = entry
        .recipients
        .iter()
        .filter(|recipient| recipient.state == RecipientState::Failed)
        .map(|recipient| {
            let reply = recipient.reply.as_deref().unwrap_or_default();
            format!("{}: {reply}", recipient.path)
        })
        .collect();
    Trouble {
        endpoint: entry.server.endpoint(),
        stage: Stage::Rcpt,
        disposition: Disposition::Reject,
        what: format!("refused earlier: {}", refused.join("; ")),
        reply: None,
    }
}

/// The trouble of a server that wants credentials nobody has.
pub fn credentials_trouble(server: &Server, why: impl Into<Unavailable>) -> Trouble {
    let why = why.into();
    Trouble {
        endpoint: server.endpoint(),
        stage: Stage::Auth,
        disposition: if why.is_transient {
            Disposition::Retry
        } else {
            Disposition::NeedsUser(Need::Auth)
        },
        what: why.what,
        reply: None,
    }
}
