//! One session's end of a lane: gives it messages, takes the verdicts to disk, and tells
//! the user. What comes together is claimed, marked and settled together, for each costs
//! a wait for the disk.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

use tokio::sync::Notify;

use crate::bridge::{Event, Kind};
use crate::lane::{Lane, earlier_refusals};
use crate::smtp::{Desk, Distrust, Job, Reply, Verdict};
use crate::spool::{EntryId, RecipientState};

/// Larger messages are not claimed ahead of their turn.
const SMALL: u64 = 64 * 1024;
/// Octets claimed ahead, at most: a killed Emacs leaves them unconfirmed.
const CLAIMED_AHEAD: u64 = 256 * 1024;

/// One session's end of a lane.
pub struct LaneDesk {
    lane: Rc<Lane>,
    number: usize,
    interrupt: Rc<Notify>,
    /// Claimed ahead, in order.
    prepared: VecDeque<Job>,
    /// Those of them, and of those in flight, that were marked together.
    marked: HashSet<EntryId>,
    /// Accepted by the server, and not yet settled.
    accepted: Vec<(Job, Option<Reply>)>,
    /// Messages that the current session has delivered.
    pub delivered: usize,
    /// What the server said that made it need a login.
    pub auth_demand: Option<String>,
}

impl LaneDesk {
    /// A desk of its own for a session.
    pub fn new(lane: &Rc<Lane>) -> Self {
        let interrupt = Rc::new(Notify::new());
        let mut interrupts = lane.interrupts.borrow_mut();
        let number = (0..).find(|n| !interrupts.contains_key(n)).unwrap_or(0);
        interrupts.insert(number, Rc::clone(&interrupt));
        LaneDesk {
            lane: Rc::clone(lane),
            number,
            interrupt,
            prepared: VecDeque::new(),
            marked: HashSet::new(),
            accepted: Vec::new(),
            delivered: 0,
            auth_demand: None,
        }
    }

    /// Puts back what was claimed ahead, for the session has ended before.
    pub fn return_prepared(&mut self) {
        while let Some(job) = self.prepared.pop_back() {
            self.hand_back(job);
        }
        self.marked.clear();
    }

    /// Claims small messages ahead, and marks them all at the cost of one.
    fn claim_ahead(&mut self, first: Job, most: usize) {
        let mut octets = first.entry.facts.size;
        self.prepared.push_back(first);
        while self.prepared.len() < most && octets < CLAIMED_AHEAD {
            let Some(job) = self.lane.claim_next() else {
                break;
            };
            octets += job.entry.facts.size;
            self.prepared.push_back(job);
        }
        let small = |job: &&Job| job.entry.facts.size <= SMALL;
        let together: Vec<&Job> = self.prepared.iter().filter(small).collect();
        // Otherwise each is marked in its turn, and what is wrong is told then.
        if self.lane.shared().spool.mark_sending(&together).is_ok() {
            self.marked.extend(together.iter().map(|job| job.entry.id));
        }
    }

    /// Puts a message back that nothing was decided about.
    fn hand_back(&mut self, job: Job) {
        let id = job.entry.id;
        if self.is_cancelled(id) {
            return self.lane.settle_cancelled(job);
        }
        self.lane.shared().spool.unmark(&job.entry);
        drop(job); // unlocked before anybody else is to claim it
        self.lane.land(id);
        self.lane.push_front(id);
    }
}

impl Drop for LaneDesk {
    fn drop(&mut self) {
        self.lane.interrupts.borrow_mut().remove(&self.number);
    }
}

impl Desk for LaneDesk {
    fn next(&mut self, ahead: usize) -> Option<Job> {
        if self.prepared.is_empty() {
            let first = self.lane.claim_next()?;
            if ahead == 0 || first.entry.facts.size > SMALL {
                return Some(first);
            }
            self.claim_ahead(first, ahead + 1);
        }
        while let Some(job) = self.prepared.pop_front() {
            if !self.is_cancelled(job.entry.id) {
                return Some(job);
            }
            self.lane.settle_cancelled(job);
        }
        None
    }

    fn release_last_byte(&mut self, job: &mut Job) -> bool {
        let shared = self.lane.shared();
        if !self.marked.remove(&job.entry.id)
            && let Err(error) = shared.spool.mark_sending(&[job])
        {
            job.entry.error = Some(error.to_string());
            return false;
        }
        shared.flights.release(job.entry.id)
    }

    fn is_cancelled(&self, id: EntryId) -> bool {
        self.lane.shared().flights.is_cancelled(id)
    }

    fn settle(&mut self, mut job: Job, verdict: Verdict) {
        self.delivered += usize::from(verdict.accepted.is_some());
        for outcome in verdict.outcomes {
            let recipient = &mut job.entry.recipients[outcome.index];
            recipient.state = outcome.state;
            recipient.reply = outcome.reply;
        }
        if verdict.needs_auth && job.entry.any(RecipientState::Pending) {
            self.auth_demand = verdict.trouble.map(|trouble| trouble.to_string());
            return self.give_back(job);
        }
        if verdict.has_more && job.entry.any(RecipientState::Pending) {
            return self.give_back(job);
        }
        if !job.entry.is_delivered() {
            job.entry.attempts += 1;
            let trouble = verdict
                .trouble
                .unwrap_or_else(|| earlier_refusals(&job.entry));
            return self.lane.store_trouble(job, &trouble);
        }
        self.accepted.push((job, verdict.accepted));
    }

    fn flush(&mut self) {
        let (to_file, done): (Vec<_>, Vec<_>) = self
            .accepted
            .drain(..)
            .partition(|(job, _)| job.entry.is_to_be_filed());
        for (job, reply) in to_file {
            self.lane.keep_for_filing(job, reply.as_ref());
        }
        let (jobs, replies): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        if jobs.is_empty() {
            return;
        }
        let lane = &self.lane;
        let shared = lane.shared();
        let settled = shared.spool.settle_all(jobs);
        for ((job, result), reply) in settled.into_iter().zip(replies) {
            let mut entry = job.entry.clone();
            drop(job); // unlocked before anybody hears of it
            lane.land(entry.id);
            if let Err(error) = result {
                shared.tell_spool_trouble(&error);
                lane.record_delivery(&entry);
            }
            entry.attempts += 1;
            shared.tell(Kind::Sent, entry, None, reply.as_ref());
        }
    }

    fn give_back(&mut self, job: Job) {
        if let Err(error) = self.lane.shared().spool.update(&job) {
            self.lane.shared().tell_spool_trouble(&error);
        }
        self.hand_back(job);
    }

    fn distrust(&mut self, what: Distrust) {
        let lane = &self.lane;
        lane.shared().learn(&lane.server, |manners| {
            if !manners.distrusted.contains(&what) {
                manners.distrusted.push(what);
            }
        });
    }

    fn progress(&mut self, id: EntryId, sent: u64, total: u64) {
        let outbox = &self.lane.shared().outbox;
        outbox.push(Event::Progress { id, sent, total });
    }

    fn cancelled(&mut self, job: Job) {
        self.lane.settle_cancelled(job);
    }

    fn interrupt(&self) -> &Notify {
        &self.interrupt
    }
}
