//! One server: the messages for it that are due, and what its sessions have of them.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::context::{Context, Report};
use super::in_flight::{Claimed, SessionNumber};
use super::settings::Unconfirmed;
use super::settle::{Finding, Next, SPOOL_PAUSE, settle};
use crate::bridge::Kind;
use crate::mail::{Server, Timestamp};
use crate::smtp::{Disposition, Job, Quirk, Trouble};
use crate::spool::{Claim, EntryId, Need, RecipientState, SpoolError};

/// With so many messages waiting a second session is worth its handshakes.
const MANY_WAITING: usize = 16;
/// Behind so many octets a message had better take another session.
const LARGE_IN_FLIGHT: u64 = 1024 * 1024;
/// And behind one that takes so long.
const LONG_IN_FLIGHT: Duration = Duration::from_secs(3);
/// So many messages are claimed at a time: each takes a file descriptor.
const CLAIMED_AT_ONCE: usize = 64;
/// Sessions in a row that break on their message say something about the server.
const BROKEN_SESSIONS: u32 = 3;
/// When a message that Emacs's thread changes just now is looked at again.
const OURS_PAUSE: Duration = Duration::from_secs(1);
/// When a message that another process works on is looked at again; should that one be
/// killed, it comes up sooner.
const THEIRS_PAUSE: Duration = Duration::from_secs(30);

/// One server, and this process's mail for it: a message is in `todo` or in `busy`.
pub struct Destination {
    /// Whom it is for.
    pub server: Server,
    context: Rc<Context>,
    /// What is due, in order; and an extension to be tried without.
    todo: RefCell<VecDeque<(EntryId, Option<Quirk>)>>,
    /// What is in `todo`.
    queued: RefCell<HashSet<EntryId>>,
    /// What sessions have.
    busy: RefCell<HashMap<EntryId, Busy>>,
    /// How many sessions there are, or come about.
    pub sessions: Cell<usize>,
    /// Whether one has come about since there are any.
    pub is_up: Cell<bool>,
    /// How many broke on their message, since one delivered something.
    broken: Cell<u32>,
    /// Sessions that could send.
    open: Cell<usize>,
    /// Whether nothing new is begun: what waits is in the spool.
    is_stopping: Cell<bool>,
    /// How many want sessions to end rather than wait for messages.
    endings: Cell<usize>,
    /// Wakes the sessions that wait for messages.
    pub arrived: Notify,
    /// Wakes whoever waits for the end of sessions: one has ended, or has work.
    closed: Notify,
    /// Each wakes a session that waits for replies: a message of its may be stopped.
    interrupts: RefCell<HashMap<SessionNumber, Rc<Notify>>>,
}

#[derive(Debug)]
struct Busy {
    octets: u64,
    since: Instant,
    session: SessionNumber,
}

impl Destination {
    /// One without messages.
    pub fn new(server: Server, context: Rc<Context>) -> Self {
        Destination {
            server,
            context,
            todo: RefCell::default(),
            queued: RefCell::default(),
            busy: RefCell::default(),
            sessions: Cell::new(0),
            is_up: Cell::new(false),
            broken: Cell::new(0),
            open: Cell::new(0),
            is_stopping: Cell::new(false),
            endings: Cell::new(0),
            arrived: Notify::new(),
            closed: Notify::new(),
            interrupts: RefCell::default(),
        }
    }

    /// What all destinations share.
    pub fn context(&self) -> &Rc<Context> {
        &self.context
    }

    /// Adds a message that is due, once.
    pub fn push(&self, id: EntryId) {
        let is_new = !self.is_stopping.get() && !self.busy.borrow().contains_key(&id);
        if is_new && self.queued.borrow_mut().insert(id) {
            self.todo.borrow_mut().push_back((id, None));
        }
        self.arrived.notify_waiters();
    }

    /// Puts a message back that is to go before the others.
    fn push_front(&self, id: EntryId, without: Option<Quirk>) {
        if !self.is_stopping.get() && self.queued.borrow_mut().insert(id) {
            self.todo.borrow_mut().push_front((id, without));
        }
        self.arrived.notify_waiters();
    }

    fn pop(&self) -> Option<(EntryId, Option<Quirk>)> {
        let next = self.todo.borrow_mut().pop_front()?;
        self.queued.borrow_mut().remove(&next.0);
        Some(next)
    }

    /// Begins nothing new: what waits here is in the spool.
    pub fn stop(&self) {
        self.is_stopping.set(true);
        self.clear();
    }

    fn clear(&self) {
        self.todo.borrow_mut().clear();
        self.queued.borrow_mut().clear();
    }

    /// How many messages wait for a session.
    pub fn waiting(&self) -> usize {
        self.todo.borrow().len()
    }

    /// Whether one more session is wanted, of at most `most`: the first; or another, once
    /// the server is seen to be up, if it serves those that wait sooner.
    pub fn wants_session(&self, most: usize) -> bool {
        let sessions = self.sessions.get();
        if self.waiting() == 0 || sessions == 0 {
            return self.waiting() > 0;
        }
        sessions < most && self.takes_more() && self.time_until_crowded().is_zero()
    }

    /// In how much time another session will be wanted if nothing changes.
    pub fn time_until_wanted(&self, most: usize) -> Option<Duration> {
        let could = self.waiting() > 0 && self.sessions.get() < most && self.takes_more();
        could.then(|| self.time_until_crowded())
    }

    fn takes_more(&self) -> bool {
        self.is_up.get() && !self.context.traits(&self.server).is_single
    }

    /// In how much time those that wait, wait too long behind those that are busy.
    fn time_until_crowded(&self) -> Duration {
        let busy = self.busy.borrow();
        let octets: u64 = busy.values().map(|one| one.octets).sum();
        if self.waiting() >= MANY_WAITING || octets >= LARGE_IN_FLIGHT {
            return Duration::ZERO;
        }
        let longest = busy.values().map(|one| one.since.elapsed()).max();
        LONG_IN_FLIGHT.saturating_sub(longest.unwrap_or_default())
    }

    /// What wakes the session `number` when a message of its may be stopped.
    pub fn interrupt_of(&self, number: SessionNumber) -> Rc<Notify> {
        let mut interrupts = self.interrupts.borrow_mut();
        Rc::clone(interrupts.entry(number).or_default())
    }

    /// A message in flight was stopped: its session must see to it.
    pub fn interrupt(&self) {
        for interrupt in self.interrupts.borrow().values() {
            interrupt.notify_one();
        }
    }

    /// A session has ended, however it did. The one that leaves no longer counts at once,
    /// or two could leave to each other what still waits.
    pub fn leave(&self, number: SessionNumber) {
        self.sessions.set(self.sessions.get() - 1);
        self.interrupts.borrow_mut().remove(&number);
    }

    /// A session has come about.
    pub fn note_open(&self) {
        self.open.set(self.open.get() + 1);
        self.is_up.set(true);
        self.context.report(Report::Up(self.server.clone()));
    }

    /// A session is no more.
    pub fn note_closed(&self) {
        self.open.set(self.open.get() - 1);
        self.closed.notify_waiters();
    }

    /// Waits for messages; false if the session is to end instead.
    pub async fn wait_for_messages(&self) -> bool {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            // From now on none is missed.
            arrived.as_mut().enable();
            if self.endings.get() > 0 || self.waiting() > 0 {
                return self.endings.get() == 0;
            }
            arrived.await;
        }
    }

    /// Sessions are to end as soon as they have no more to send, until [`Self::unset_ending`].
    pub fn set_ending(&self) {
        self.endings.set(self.endings.get() + 1);
        self.arrived.notify_waiters();
    }

    /// Nobody wants that any more who has wanted it.
    pub fn unset_ending(&self) {
        self.endings.set(self.endings.get() - 1);
    }

    /// Waits until no session is open; or, unless `also_busy`, until one has work.
    pub async fn wait_until_closed(&self, also_busy: bool) {
        loop {
            let mut closed = std::pin::pin!(self.closed.notified());
            closed.as_mut().enable();
            let is_busy = !also_busy && !self.busy.borrow().is_empty();
            if self.open.get() == 0 || is_busy {
                return;
            }
            closed.await;
        }
    }

    /// A message has been delivered: the server is as it should be.
    pub fn note_delivery(&self) {
        self.broken.set(0);
    }

    /// Notes that a session broke on its message, before it had delivered any; true if
    /// that says something about the server by now.
    pub fn note_broken(&self) -> bool {
        self.broken.set(self.broken.get() + 1);
        self.broken.get() >= BROKEN_SESSIONS
    }

    /// Claims the next message that can be sent for a session; passes over those that
    /// can't.
    pub fn claim_next(self: &Rc<Self>, session: SessionNumber) -> Option<Job> {
        loop {
            let (id, without) = self.pop()?;
            if let Some(claim) = self.claim(id, session) {
                return Some(Job { claim, without });
            }
        }
    }

    /// Takes back a message that was claimed and is not to be sent just now.
    pub async fn put_back(self: &Rc<Self>, job: Job) {
        let finding = Finding::Undecided(job.without);
        self.settle(vec![(job.claim, finding)]).await;
    }

    /// Claims a message that can be sent now; sees to what becomes of it otherwise.
    fn claim(self: &Rc<Self>, id: EntryId, session: SessionNumber) -> Option<Claim> {
        let context = &self.context;
        let mut claim = match context.in_flight.claim(&context.spool, id, session) {
            Ok(Claimed::Claim(claim)) => *claim,
            Err(SpoolError::NoSuchEntry(_)) => return None,
            Ok(Claimed::Ours) => {
                self.report_in(id, OURS_PAUSE);
                return None;
            }
            Ok(Claimed::Theirs) => {
                self.report_in(id, THEIRS_PAUSE);
                return None;
            }
            Err(error) => {
                context.tell_problem(&error.to_string());
                self.report_in(id, SPOOL_PAUSE);
                return None;
            }
        };
        let entry = &mut claim.entry;
        if context.policy().unconfirmed == Unconfirmed::Retry {
            entry.turn(&[RecipientState::Unconfirmed], RecipientState::Pending);
        }
        if let Some(due) = entry
            .due()
            .filter(|_| entry.is_for_later(context.clock.now()))
        {
            // Another time was set meanwhile.
            self.report(id, due);
        } else if context.spool.waits_for_origin(entry) {
            // It is sent from where it lies.
        } else if entry.is_ready() {
            let busy = Busy {
                octets: entry.facts.size,
                since: Instant::now(),
                session,
            };
            self.busy.borrow_mut().insert(id, busy);
            self.closed.notify_waiters();
            return Some(claim);
        } else if !entry.hold && entry.any(RecipientState::Unconfirmed) {
            context.tell(Kind::Unconfirmed, entry.clone(), None, None);
        }
        self.let_go(claim);
        None
    }

    /// Lets go of a message that is not to be sent now.
    fn let_go(self: &Rc<Self>, claim: Claim) {
        if let Some((claim, _)) = self.context.in_flight.end(claim, None) {
            // Stopped in just this moment.
            let destination = Rc::clone(self);
            tokio::task::spawn_local(async move {
                destination
                    .settle(vec![(claim, Finding::Undecided(None))])
                    .await;
            });
        }
    }

    /// Settles messages that sessions had, and sees to what is to be done about them.
    pub async fn settle(&self, findings: Vec<(Claim, Finding)>) {
        let settled = settle(&self.context, findings).await;
        // The first of those to be tried again at once is to be the first again.
        for (id, next) in settled.into_iter().rev() {
            self.busy.borrow_mut().remove(&id);
            match next {
                Next::Nothing => {}
                Next::Again(without) => self.push_front(id, without),
                Next::At(at) => self.report(id, at),
            }
        }
    }

    /// Puts off every message that waits here for the same reason.
    pub async fn put_off_all(self: &Rc<Self>, trouble: &Trouble, session: SessionNumber) {
        let waiting = self.waiting_ids();
        self.clear();
        for ids in waiting.chunks(CLAIMED_AT_ONCE) {
            let claims = ids.iter().filter_map(|&id| self.claim(id, session));
            let findings = claims.map(|claim| (claim, Finding::Trouble(trouble.clone())));
            self.settle(findings.collect()).await;
        }
        if trouble.disposition == Disposition::Retry {
            let down = Report::Down(self.server.clone(), waiting);
            self.context.report(down);
        }
    }

    /// Shows those that wait here as waiting for the user, or (without trouble) no longer.
    pub async fn mark_waiting(
        self: &Rc<Self>,
        about: Option<(&Trouble, Need)>,
        session: SessionNumber,
    ) {
        if self.open.get() > 0 {
            // Another session sends what waits.
            return;
        }
        for ids in self.waiting_ids().chunks(CLAIMED_AT_ONCE) {
            let claims = ids.iter().filter_map(|&id| self.claim(id, session));
            let findings = claims.map(|claim| {
                let about = about.map(|(trouble, need)| (trouble.clone(), need));
                (claim, Finding::Asking(about))
            });
            // They go on waiting here, also those that a session wanted meanwhile.
            for (id, next) in settle(&self.context, findings.collect()).await {
                self.busy.borrow_mut().remove(&id);
                if next != Next::Nothing && self.queued.borrow_mut().insert(id) {
                    self.todo.borrow_mut().push_front((id, None));
                }
            }
        }
    }

    fn waiting_ids(&self) -> Vec<EntryId> {
        self.todo.borrow().iter().map(|&(id, _)| id).collect()
    }

    /// Forgets what a session that has panicked had.
    pub fn forget(&self, session: SessionNumber) {
        let mut busy = self.busy.borrow_mut();
        busy.retain(|_, one| one.session != session);
    }

    fn report_in(&self, id: EntryId, pause: Duration) {
        self.report(id, self.context.clock.now().after(pause));
    }

    fn report(&self, id: EntryId, at: Timestamp) {
        let server = self.server.clone();
        self.context.report(Report::Due(id, server, at));
    }
}
