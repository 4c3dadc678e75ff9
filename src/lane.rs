//! The messages for one server that are due, and the sessions that serve them.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, mpsc};

use crate::config::{Server, Settings, Unconfirmed};
use crate::error::{Disposition, Stage, Trouble};
use crate::events::{Event, Kind, Outbox};
use crate::flights::Flights;
use crate::keyring::Keyring;
use crate::schedule;
use crate::smtp::{Distrust, Job, Reply, Trace};
use crate::spool::{Claim, Entry, EntryId, Need, RecipientState, Spool, SpoolError, Timestamp};
use crate::tls::{Tls, TlsError};

/// With so many messages waiting a second session is worth its handshakes.
const MANY_WAITING: usize = 8;
/// Behind so many octets a message had better take another session.
const LARGE_IN_FLIGHT: u64 = 1024 * 1024;

/// And behind one that takes so long.
const LONG_IN_FLIGHT: Duration = Duration::from_secs(3);

/// What sessions tell the dispatcher.
#[derive(Debug)]
pub enum Report {
    /// To be tried again then.
    Due(EntryId, Timestamp),
    /// A session with this server came about: more may be opened.
    Up(Server),
}

/// The files of roots to trust, and when they were last changed.
type TrustFiles = Vec<(PathBuf, Option<SystemTime>)>;

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

/// What all lanes share.
pub struct Shared {
    /// The store.
    pub spool: Arc<Spool>,
    /// Where events go.
    pub outbox: Arc<Outbox>,
    /// What is in flight.
    pub flights: Arc<Flights>,
    /// Where credentials come from.
    pub keyring: Keyring,
    /// The latest settings.
    pub settings: RefCell<Arc<Settings>>,
    /// Reports to the dispatcher.
    pub reports: mpsc::UnboundedSender<Report>,
    tls: RefCell<Option<(TrustFiles, Tls)>>,
    manners: RefCell<HashMap<Server, Manners>>,
}

/// What was learnt of a server that it does not announce.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// What it announces and refuses.
    pub distrusted: Vec<Distrust>,
    /// Whether it has refused a connection for there being others.
    pub is_single: bool,
}

impl Shared {
    /// Shared state before the first session.
    pub fn new(
        spool: Arc<Spool>,
        outbox: Arc<Outbox>,
        flights: Arc<Flights>,
        keyring: Keyring,
        settings: Settings,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Self {
        Shared {
            spool,
            outbox,
            flights,
            keyring,
            settings: RefCell::new(Arc::new(settings)),
            reports,
            tls: RefCell::new(None),
            manners: RefCell::default(),
        }
    }

    /// What was learnt of `server`.
    pub fn manners(&self, server: &Server) -> Manners {
        self.manners
            .borrow()
            .get(server)
            .cloned()
            .unwrap_or_default()
    }

    /// Learns something of `server`.
    pub fn learn(&self, server: &Server, lesson: impl FnOnce(&mut Manners)) {
        lesson(self.manners.borrow_mut().entry(server.clone()).or_default());
    }

    /// Shows a session's dialogue, if the user wants to see it.
    pub fn trace(&self, host: &str) -> Option<Trace> {
        if !self.settings.borrow().trace {
            return None;
        }
        let outbox = Arc::clone(&self.outbox);
        let host = host.to_owned();
        Some(Box::new(move |line| {
            outbox.push(Event::Trace {
                host: host.clone(),
                text: format!("{line}\n"),
            });
        }))
    }

    /// TLS for the trust files of now; kept, so that sessions can be resumed.
    pub fn tls_for(&self, server: &Server) -> Result<Tls, Trouble> {
        self.tls().map_err(|error| Trouble {
            endpoint: server.endpoint(),
            stage: Stage::Tls,
            disposition: Disposition::NeedsUser(Need::Tls),
            what: error.to_string(),
            reply: None,
        })
    }

    fn tls(&self) -> Result<Tls, TlsError> {
        let settings = Arc::clone(&self.settings.borrow());
        let files: TrustFiles = settings
            .trust_files
            .iter()
            .map(|path| (path.clone(), modified(path)))
            .collect();
        let mut kept = self.tls.borrow_mut();
        if let Some((made_for, tls)) = &*kept
            && *made_for == files
        {
            return Ok(tls.clone());
        }
        let tls = Tls::new(&settings.trust_files)?;
        *kept = Some((files, tls.clone()));
        Ok(tls)
    }

    pub(crate) fn tell(
        &self,
        kind: Kind,
        entry: Entry,
        error: Option<String>,
        reply: Option<&Reply>,
    ) {
        self.outbox.push(Event::Outcome {
            kind,
            entry: Box::new(entry),
            error,
            reply: reply.map(Reply::to_string),
        });
    }

    /// Reports what went wrong with the spool itself.
    pub(crate) fn tell_spool_trouble(&self, error: &SpoolError) {
        self.outbox.push(Event::Problem(error.to_string()));
    }
}

/// One server's queue in this process.
pub struct Lane {
    /// Whom it is for.
    pub server: Server,
    shared: Rc<Shared>,
    pub(crate) queue: RefCell<VecDeque<EntryId>>,
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
        let mut queue = self.queue.borrow_mut();
        if !queue.contains(&id) && !self.in_flight.borrow().contains_key(&id) {
            queue.push_back(id);
        }
        self.arrived.notify_one();
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
        while let Some(job) = self.claim_next() {
            self.put_off(job, trouble);
        }
    }

    /// Claims the next message that can be sent; passes over those that can't.
    pub(crate) fn claim_next(&self) -> Option<Job> {
        loop {
            let id = self.queue.borrow_mut().pop_front()?;
            match self.shared.spool.claim(id) {
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
                Ok(()) => self.queue.borrow_mut().push_back(id),
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
        // A dispatcher that is gone has left everything in the spool.
        let _ = self.shared.reports.send(Report::Due(id, due));
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
    /// look unsent there. [`Spool::tidy`] removes it later.
    pub(crate) fn record_delivery(&self, entry: &Entry) {
        if let Ok(Some(mut claim)) = self.shared.spool.claim(entry.id) {
            claim.entry.recipients.clone_from(&entry.recipients);
            claim.entry.error = None;
            let _ = self.shared.spool.update(&claim);
        }
    }

    /// Sets the time of the next try, or gives up.
    fn defer(&self, entry: &mut Entry, now: Timestamp) -> Kind {
        match schedule::next_try(entry.id, entry.created, entry.attempts, now) {
            Some(next_try) => {
                entry.next_try = next_try;
                Kind::Deferred
            }
            None => {
                entry.turn(&[RecipientState::Pending], RecipientState::Failed);
                let last = entry.error.take().unwrap_or_default();
                entry.error = Some(format!("gave up after five days; the last trouble: {last}"));
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
pub fn credentials_trouble(server: &Server, what: String) -> Trouble {
    Trouble {
        endpoint: server.endpoint(),
        stage: Stage::Auth,
        disposition: Disposition::NeedsUser(Need::Auth),
        what,
        reply: None,
    }
}
